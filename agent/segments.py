"""Segments: files of heartbeats, each with its length and checksum, and beside each file what was acknowledged.

A segment is a row of records: a header (_HEADER, big-endian: magic, CRC-32 of all that follows it, length of the body,
sequence, milliseconds since 1970), then the body. `<number>.ack` beside `<number>.seg` is a row of acknowledged
sequences, each with its CRC-32. Both only grow.
"""

import errno
import os
import re
import stat
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

MAX_RECORD_BYTES = 1 << 20  # what the service takes of one heartbeat
MAX_FILE_BYTES = 8 << 20  # more than any segment: a stranger's file must not be read into memory
SEGMENT_NAME = re.compile(r"(\d{12})\.seg\Z")

# No link is followed out of the directory, and no child inherits the file. Windows has other flags, and text files.
SAFE_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_MAGIC = b"LbR1"
_HEADER = struct.Struct(">4sIIQq")
_CHECKED = struct.Struct(">IQq")
_ACK = struct.Struct(">QI")


class Record(NamedTuple):
    """An encoded heartbeat, its place in the order of collection, and its timestamp in milliseconds since 1970."""

    sequence: int
    stamp_ms: int
    body: bytes


class Found(NamedTuple):
    """What a segment's bytes hold.

    damaged     stretches of bytes that are no records.
    whole       bytes up to the end of the last record.
    is_torn     what follows is the beginning of a record, as a write leaves it that was cut short.
    """

    records: list[Record]
    damaged: int
    whole: int
    is_torn: bool


def encoded(record: Record) -> bytes:
    checked = _CHECKED.pack(len(record.body), record.sequence, record.stamp_ms)
    crc = zlib.crc32(record.body, zlib.crc32(checked))
    return _MAGIC + crc.to_bytes(4, "big") + checked + record.body


def find_records(data: bytes) -> Found:
    """Every whole record of `data`; after bytes that are none, the search goes on at the next that is one."""
    records: list[Record] = []
    damaged = whole = position = 0
    while position < len(data):
        record = _record_at(data, position)
        if record is None:
            position = data.find(_MAGIC, position + 1)
            if position < 0:
                break
            continue
        damaged += position > whole
        records.append(record)
        position = whole = position + _HEADER.size + len(record.body)
    is_torn = whole < len(data) and _is_cut_short(data[whole : whole + _HEADER.size], len(data) - whole)
    return Found(records, damaged + (whole < len(data) and not is_torn), whole, is_torn)


def _record_at(data: bytes, position: int) -> Record | None:
    start = position + _HEADER.size
    if start > len(data):
        return None
    magic, crc, length, sequence, stamp_ms = _HEADER.unpack_from(data, position)
    if magic != _MAGIC or start + length > len(data):
        return None
    body = data[start : start + length]
    if zlib.crc32(body, zlib.crc32(_CHECKED.pack(length, sequence, stamp_ms))) != crc:
        return None
    return Record(sequence, stamp_ms, body)


def _is_cut_short(header: bytes, available: int) -> bool:
    if len(header) < _HEADER.size:
        return header.startswith(_MAGIC[: len(header)]) or not any(header)
    magic, _, length, _, _ = _HEADER.unpack(header)
    return (magic == _MAGIC and _HEADER.size + length > available) or not any(header)


class Segment:
    """One file of records with rising sequences, and which of them still wait for their acknowledgement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.newest_ms = 0
        self.waiting = 0
        # Of every record, in order: 16 octets each, so that a week of heartbeats is known by less than a megabyte.
        self._sequences = array("Q")
        self._stamps = array("q")  # 0 where none waits

    @classmethod
    def of(cls, path: Path, records: Iterable[Record], size: int, acknowledged: frozenset[int]) -> "Segment":
        """A file that exists, `size` bytes with these records."""
        segment = cls(path)
        segment.size = size
        for record in records:
            segment._note(record)
            if record.sequence in acknowledged:
                segment.forget(record.sequence)
        return segment

    def __contains__(self, sequence: int) -> bool:
        place = self._place(sequence)
        return place is not None and self._stamps[place] != 0

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest that waits was collected."""
        return next((stamp for stamp in self._stamps if stamp), None)

    @property
    def has_acknowledged(self) -> bool:
        return self.waiting < len(self._sequences)

    @property
    def waiting_sequences(self) -> list[int]:
        return [sequence for sequence, stamp in zip(self._sequences, self._stamps, strict=True) if stamp]

    def append(self, records: Sequence[Record]) -> None:
        """Returns when the records are on the disk.

        Raises OSError: none of them counts as kept then, and the segment must not be appended to again. The kernel may
        have forgotten pages that it could not write, so a second fsync that succeeds proves nothing.
        """
        data = b"".join(map(encoded, records))
        with _opened(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            if os.fstat(file).st_size != self.size:
                raise OSError(errno.EIO, "the segment is not as it was left", str(self.path))
            try:
                _write(file, data)
                os.fsync(file)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file, self.size)
                raise
        if not self.size:
            sync_directory(self.path.parent)
        self.size += len(data)
        for record in records:
            self._note(record)

    def read(self) -> list[Record]:
        """The records that wait. Raises OSError."""
        return [record for record in find_records(read_regular(self.path)).records if record.sequence in self]

    def revise(self, change: Callable[[Record, bool], Record]) -> list[Record]:
        """Replaces each record, all at once or none, by `change` of it and of whether it waits; returns those that
        changed.

        Raises OSError: the file is as it was then.
        """
        records = find_records(read_regular(self.path)).records
        revised = [
            change(record, record.sequence in self) if self._place(record.sequence) is not None else record
            for record in records
        ]
        changed = [new for old, new in zip(records, revised, strict=True) if new is not old]
        if not changed:
            return []
        rewrite(self.path, revised)
        self.size = self.path.stat().st_size
        for record in changed:
            if (place := self._place(record.sequence)) is not None and self._stamps[place]:
                self._stamps[place] = max(1, record.stamp_ms)
        self.newest_ms = max(record.stamp_ms for record in revised)
        return changed

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Notes that these need not be sent again. Raises OSError where only this process will know of it."""
        known = [sequence for sequence in sequences if sequence in self]
        for sequence in known:
            self.forget(sequence)
        # Not flushed: one that a power failure takes is sent again, and is a duplicate then.
        with _opened(_ack_path(self.path), os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            _write(file, b"".join(_ACK.pack(sequence, _ack_crc(sequence)) for sequence in known))

    def forget(self, sequence: int) -> None:
        """No longer waits for this one, which it holds."""
        self._stamps[bisect_left(self._sequences, sequence)] = 0
        self.waiting -= 1

    def delete(self) -> None:
        """Raises OSError if it cannot be."""
        self.path.unlink(missing_ok=True)
        _ack_path(self.path).unlink(missing_ok=True)

    def _place(self, sequence: int) -> int | None:
        place = bisect_left(self._sequences, sequence)
        return place if place < len(self._sequences) and self._sequences[place] == sequence else None

    def _note(self, record: Record) -> None:
        self._sequences.append(record.sequence)
        self._stamps.append(max(1, record.stamp_ms))
        self.newest_ms = max(self.newest_ms, record.stamp_ms)
        self.waiting += 1


def read_acknowledged(segment: Path, *, mend: bool = True) -> frozenset[int]:
    """The sequences that the file beside `segment` acknowledges; whatever else it holds is skipped.

    With `mend`, an unfinished one at the end is cut off.
    """
    try:
        data = read_regular(_ack_path(segment))
    except OSError:
        return frozenset()
    pairs = _ACK.iter_unpack(data[: len(data) - len(data) % _ACK.size])
    if mend and len(data) % _ACK.size:
        with suppress(OSError):  # else all that is appended would stand askew
            os.truncate(_ack_path(segment), len(data) - len(data) % _ACK.size)
    return frozenset(sequence for sequence, crc in pairs if crc == _ack_crc(sequence))


def rewrite(path: Path, records: Iterable[Record]) -> None:
    """Replaces the file by one of these records, at once or not at all. Raises OSError."""
    unfinished = path.with_suffix(".tmp")
    with _opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        _write(file, b"".join(map(encoded, records)))
        os.fsync(file)
    unfinished.replace(path)
    sync_directory(path.parent)


def read_regular(path: Path) -> bytes:
    """A regular file of a size that we write ourselves; nothing that blocks or never ends. Raises OSError."""
    with _opened(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)) as file:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, "larger than any file of the spool", str(path))
        with os.fdopen(os.dup(file), "rb") as reader:
            return reader.read(MAX_FILE_BYTES)


def sync_directory(path: Path) -> None:
    """A new name is on the disk only when its directory is. Raises OSError."""
    if os.name == "posix":  # Windows cannot open one, and needs not
        with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
            os.fsync(directory)


def _ack_path(segment: Path) -> Path:
    return segment.with_suffix(".ack")


def _ack_crc(sequence: int) -> int:
    return zlib.crc32(sequence.to_bytes(8, "big"))


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | SAFE_FLAGS, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
