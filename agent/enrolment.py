"""An enrolment token turns into a token of this server's own, at the first contact with the service."""

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
    """The file: the token, and the id of the enrolment token that it was given for."""

    enrolment: str
    token: str


class _Given(msgspec.Struct):
    token: str


class CannotKeep(Exception):
    """A token of this server's own would be lost."""


class Enrolment:
    """Asks for the server's own token, and keeps it. Whoever asks holds `lock`: a token that is given twice is lost."""

    def __init__(self, identity: Identity, path: Path) -> None:
        """`path`: the file that the token is kept in, of mode 0600."""
        self._identity, self._path = identity, path
        self._kept = _read(path)
        self.lock = threading.Lock()

    def token(self, configured: str) -> str:
        """What `configured` was exchanged for; "" if it was not, or is no enrolment token."""
        is_ours = self._kept is not None and self._kept.enrolment == enrolment_id(configured)
        return self._kept.token if is_ours and self._kept else ""

    def request(self) -> bytes:
        """The body that asks for a token. Raises CannotKeep."""
        self._write(b"")
        return msgspec.json.encode(self._identity)

    def keep(self, configured: str, answer: bytes) -> bool:
        """Whether `answer` has a token; it is on the disk then. Raises CannotKeep."""
        try:
            given = msgspec.json.decode(answer, type=_Given)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        kept = _Kept(enrolment_id(configured), given.token)
        self._write(msgspec.json.encode(kept), replace=True)
        self._kept = kept
        log.info("enrolled: %s has a token of its own, which is kept in %s", self._identity.server_id, self._path)
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
            raise CannotKeep(f"a token of this server's own could not be kept: {error}") from error


def enrolment_id(token: str) -> str:
    """Of an enrolment token, what may be written down; "" of any other."""
    match = _ENROLMENT.match(token)
    return match[1] if match else ""


def _read(path: Path) -> _Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.warning("%s: %s; the token in it is not used", path, error)
        return None
