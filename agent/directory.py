"""The spool's directory: its lock, and its contents at start."""

import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from . import acknowledged
from .acknowledged import Acknowledged
from .deadletter import Quarantine
from .files import SAFE_FLAGS, read_regular
from .segments import SEGMENT_NAME, Found, Record, Segment, find_records, rewrite

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

_LEFTOVER = re.compile(r"((\d{12}|refused|epoch)\.tmp)\Z")


class SpoolInUse(Exception):
    """Another process uses the directory; the message names it."""


def default_directory(server_id: str, environ: Mapping[str, str], uid: int) -> Path:
    """The default directory of the spool, different for each server id."""
    if state := environ.get("STATE_DIRECTORY", "").partition(":")[0]:  # systemd.exec(5)
        base = Path(state)
    elif uid == 0:
        base = Path("/var/lib/linkbeat-agent")
    else:
        base = Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "linkbeat-agent")
    return base / f"{server_id}.spool"  # with a suffix: ".." is a server id too


class Directory:
    """Segments in the order of their numbers, under a lock that lives as long as the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Byte ranges without a valid record, since the start."""
        self.is_last_whole = False
        self.highest_acknowledged = 0
        """The highest sequence with a recorded acknowledgement, whether or not its record still exists."""
        self.is_mended = False
        """Damage may have destroyed records with unknown sequences."""
        self._quarantine = Quarantine(path / "damaged")
        self._lock: int | None = None
        self._number = 0

    @property
    def is_open(self) -> bool:
        return self._lock is not None

    def open(self) -> tuple[list[Segment], Record | None]:
        """Locks the directory. Returns its segments and the newest record, waiting or not.

        Everything readable is read; the rest is moved aside and counted. `is_last_whole`: the last segment can be
        appended to.

        Raises SpoolInUse, and OSError if the directory cannot be used at all.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            return self._load()
        except BaseException:
            self.close()
            raise

    def next_path(self) -> Path:
        """The path of a new segment."""
        self._number += 1
        return self.path / f"{self._number:012}.seg"

    def keep_damaged(self, path: Path) -> None:
        """Counts a file that has lost records, and keeps a copy aside."""
        self.damaged += 1
        log.warning("%s is damaged; the readable heartbeats are sent", path)
        with suppress(OSError):
            self._quarantine.keep(path.name, read_regular(path))

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | SAFE_FLAGS, 0o600)
        try:
            _lock(lock)
            with suppress(OSError):  # on a full disk, the lock file does not name its holder
                os.ftruncate(lock, 0)
                os.write(lock, b"process %d" % os.getpid())
        except BlockingIOError:
            holder = os.read(lock, 100).decode("utf-8", "replace").strip() or "another process"
            os.close(lock)
            raise SpoolInUse(f'"{self.path}" is in use by {holder}') from None
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _load(self) -> tuple[list[Segment], Record | None]:
        names = sorted(os.listdir(self.path))  # noqa: PTH208 - names, also those that are not UTF-8
        numbers = [int(match[1]) for name in names if (match := SEGMENT_NAME.match(name))]
        self._number = max(numbers, default=0)
        paths = [self.path / f"{number:012}.seg" for number in numbers]
        # Of all segments: a record is in two of them if the first write failed and may still have reached the disk.
        notes: dict[int, Acknowledged] = {}
        for path in paths:
            for sequence, how in acknowledged.read(path).items():
                notes[sequence] = notes[sequence].and_again(how) if sequence in notes else how
        self.highest_acknowledged = max(notes, default=0)
        segments: list[Segment] = []
        newest: Record | None = None
        for path in paths:
            try:
                data = read_regular(path)
            except OSError as error:
                log.warning("%s cannot be read (%s) and is moved aside", path, error.strerror)
                self.damaged += 1
                self.is_mended = True
                self._quarantine.take(path)
                continue
            found = find_records(data)
            self.is_last_whole, size = self._made_whole(path, data, found, is_last=path == paths[-1])
            above = newest.sequence if newest else 0
            records = [record for record in found.records if record.sequence > above]
            newest = max([*records, *([newest] if newest else [])], key=lambda record: record.sequence, default=None)
            segments.append(Segment.of(path, _rising(records), size, notes))
        self._tidy(names, numbers)
        return segments, newest

    def _made_whole(self, path: Path, data: bytes, found: Found, *, is_last: bool) -> tuple[bool, int]:
        """Whether the file now contains only these records; and its size."""
        if found.whole == len(data) and not found.damaged:
            return True, len(data)
        self.is_mended = True
        try:
            if found.is_torn and not found.damaged and is_last:
                # Never counted as stored: the process ended while writing it.
                log.info("%s: removed an incomplete record of %d bytes", path, len(data) - found.whole)
                os.truncate(path, found.whole)
                return True, found.whole
            self.damaged += found.damaged + found.is_torn
            log.warning("%s is damaged; %d heartbeats of it can be read", path, len(found.records))
            self._quarantine.keep(path.name, data)
            rewrite(path, found.records)
            return True, path.stat().st_size
        except OSError as error:
            log.warning("%s cannot be repaired (%s) and is left unchanged", path, error.strerror)
            return False, len(data)

    def _tidy(self, names: list[str], numbers: list[int]) -> None:
        """Removes files that an interrupted deletion or replacement left behind."""
        wanted = {f"{number:012}.ack" for number in numbers}
        for name in names:
            if _LEFTOVER.match(name) or (name.endswith(".ack") and name not in wanted):
                with suppress(OSError):
                    (self.path / name).unlink()


def _lock(file: int) -> None:
    """Locks the file for as long as it is open. Raises BlockingIOError if another process has locked it."""
    if sys.platform == "win32":
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _rising(records: list[Record]) -> list[Record]:
    """Drops records that are not in order: a file may contain anything."""
    rising: list[Record] = []
    for record in records:
        if not rising or record.sequence > rising[-1].sequence:
            rising.append(record)
    return rising
