"""Rejected heartbeats, and copies of damaged files of the spool, kept within bounds for a person to inspect."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from .files import SAFE_FLAGS

log = logging.getLogger(__name__)

MAX_REFUSED_BYTES = 1 << 20
MAX_DAMAGED_BYTES = 1 << 20


class DeadLetters:
    """Heartbeats that the service rejected permanently: NDJSON lines with the time, the reason and the heartbeat."""

    def __init__(self, path: Path, max_bytes: int = MAX_REFUSED_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def add(self, refused: Sequence[tuple[str, bytes]]) -> None:
        """Appends reasons and heartbeats. An error is logged and does not stop delivery."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lines = [
            msgspec.json.encode({"refused_at": now, "reason": reason, "heartbeat": _as_json(body)}).replace(b"\n", b" ")
            for reason, body in refused
        ]
        try:
            self._append(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            log.warning("%s: %s; %d rejected heartbeats were not saved", self._path, error.strerror, len(refused))

    def _append(self, lines: bytes) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        if size and size + len(lines) > self._max_bytes:
            self._cut()
        if len(lines) > self._max_bytes // 2:
            lines = lines[-self._max_bytes // 2 :].partition(b"\n")[2]
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFE_FLAGS, 0o600)
        with os.fdopen(file, "wb", buffering=0) as letters:
            letters.write(lines)
            os.fsync(letters.fileno())

    def _cut(self) -> None:
        """Keeps the newer half, from the beginning of a line."""
        with self._path.open("rb") as letters:
            letters.seek(-min(self._max_bytes // 2, letters.seek(0, os.SEEK_END)), os.SEEK_END)
            kept = letters.read(self._max_bytes).partition(b"\n")[2]
        unfinished = self._path.with_suffix(".tmp")
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | SAFE_FLAGS, 0o600)
        with os.fdopen(file, "wb") as letters:
            letters.write(kept)
        unfinished.replace(self._path)


def _as_json(body: bytes) -> msgspec.Raw:
    """The heartbeat as it was sent, or as a string if it is not JSON. Line breaks in it are only between tokens."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(body.decode("utf-8", "replace")))
    return msgspec.Raw(body)


class Quarantine:
    """A directory of damaged segments, the newest of them."""

    def __init__(self, directory: Path, max_bytes: int = MAX_DAMAGED_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def keep(self, name: str, data: bytes) -> None:
        """Stores a copy of a damaged file. Best effort: an error is ignored."""
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            file = os.open(self._free(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_FLAGS, 0o600)
            with os.fdopen(file, "wb") as copy:
                copy.write(data)
            self._bound()

    def take(self, path: Path) -> None:
        """Moves away a file that cannot be read. Best effort: an error is ignored."""
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            path.rename(self._free(path.name))
            self._bound()

    def _free(self, name: str) -> Path:
        number = 0
        while (path := self._directory / f"{name}.{number}").exists():
            number += 1
        return path

    def _bound(self) -> None:
        kept: Sequence[Path] = sorted(
            (each for each in self._directory.iterdir() if each.is_file()), key=lambda each: each.stat().st_mtime_ns
        )
        total = sum(each.stat().st_size for each in kept)
        for each in kept:
            if total <= self._max_bytes:
                return
            total -= each.stat().st_size
            each.unlink()
