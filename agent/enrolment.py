"""Exchanges an enrolment token for the server's own token at the first contact with the service."""

import logging
import os
import re
import threading
from pathlib import Path

import msgspec

from .identity import Identity

log = logging.getLogger(__name__)

# lb_e_, the id by which the service looks it up, and the secret.
_ENROLMENT = re.compile(r"(lb_e_[0-9a-z]{12})_[0-9A-Za-z]+\Z")


class _Kept(msgspec.Struct):
    """The file: the token, and the id of the enrolment token that was exchanged for it."""

    enrolment: str
    token: str


class _Given(msgspec.Struct):
    token: str


class CannotKeep(Exception):
    """The token of this server cannot be saved, and would be lost."""


class Enrolment:
    """Requests the server's own token and saves it. Callers hold `lock`, because a second token would replace the
    first."""

    def __init__(self, identity: Identity, path: Path) -> None:
        """`path`: the file of the token, with mode 0600."""
        self._identity, self._path = identity, path
        self._kept = _read(path)
        self.lock = threading.Lock()

    def token(self, configured: str) -> str:
        """The token that `configured` was exchanged for; "" if it was not, or is not an enrolment token."""
        is_ours = self._kept is not None and self._kept.enrolment == enrolment_id(configured)
        return self._kept.token if is_ours and self._kept else ""

    def request(self) -> bytes:
        """The body of the request for a token. Raises CannotKeep."""
        self._write(b"")
        return msgspec.json.encode(self._identity)

    def keep(self, configured: str, answer: bytes) -> bool:
        """Saves the token of `answer` to disk; returns whether it has one. Raises CannotKeep."""
        try:
            given = msgspec.json.decode(answer, type=_Given)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        kept = _Kept(enrolment_id(configured), given.token)
        self._write(msgspec.json.encode(kept), replace=True)
        self._kept = kept
        log.info("enrolled: %s has its own token, saved in %s", self._identity.server_id, self._path)
        return True

    def _write(self, content: bytes, *, replace: bool = False) -> None:
        unfinished = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                unfinished.replace(self._path)
        except OSError as error:
            raise CannotKeep(f"the token of this server could not be saved: {error}") from error


def enrolment_id(token: str) -> str:
    """The public part of an enrolment token; "" for any other token."""
    match = _ENROLMENT.match(token)
    return match[1] if match else ""


def _read(path: Path) -> _Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.warning("%s: %s; the token in this file is not used", path, error)
        return None
