"""Segments: files of heartbeats, each with its length and checksum, and an acknowledgement file for each.

A segment is a sequence of records: a header (_HEADER, big-endian: magic, CRC-32 of everything after the CRC, length of
the body, sequence number, milliseconds since 1970), then the body. `<number>.ack` lists the acknowledged records of
`<number>.seg` (agent/acknowledged.py). Both files are only appended to or replaced as a whole.
"""

import errno
import os
import re
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import acknowledged
from .acknowledged import Acknowledged
from .files import opened, read_regular, sync_directory, write

MAX_RECORD_BYTES = 1 << 20  # the service's limit for one heartbeat
MOST_EPOCH_SETS = 256  # each has a number of one byte; unless the database changes all the time, there are two or three
SEGMENT_NAME = re.compile(r"(\d{12})\.seg\Z")

_MAGIC = b"LbR1"
_HEADER = struct.Struct(">4sIIQq")
_CHECKED = struct.Struct(">IQq")


class Record(NamedTuple):
    """An encoded heartbeat, its sequence number in the order of collection, and its time in milliseconds since 1970."""

    sequence: int
    stamp_ms: int
    body: bytes


class Found(NamedTuple):
    """The records in the bytes of a segment.

    damaged     number of byte ranges that are not records.
    whole       bytes up to the end of the last record.
    is_torn     the rest is the beginning of a record, as left by an interrupted write.
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
    """Every complete record in `data`; bytes that are not records are skipped."""
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
    """One file of records with increasing sequence numbers: which are still waiting for their acknowledgement, and
    which are kept after it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.newest_ms = 0
        self.waiting = self.kept = 0
        self.acknowledged_ms = 0
        """The time of the latest acknowledgement of a kept record."""
        # One element per record, in order: 17 bytes in all, so that a week of heartbeats takes less than a megabyte.
        self._sequences = array("Q")
        # > 0: the timestamp of a waiting record; < 0: kept, acknowledged at -state; 0: neither
        self._states = array("q")
        self._places = array("B")  # index into _epochs
        self._epochs: list[frozenset[int]] = [frozenset()]

    @classmethod
    def of(
        cls,
        path: Path,
        records: Iterable[Record],
        size: int,
        notes: Mapping[int, Acknowledged],
    ) -> "Segment":
        """A segment for an existing file of `size` bytes with these records."""
        segment = cls(path)
        segment.size = size
        for place, record in enumerate(records):
            segment._note(record)
            if (how := notes.get(record.sequence)) is not None:
                segment._keep(place, how)
        return segment

    def __contains__(self, sequence: int) -> bool:
        place = self._place(sequence)
        return place is not None and self._states[place] > 0

    def holds(self, sequence: int) -> bool:
        """Whether the record is waiting or kept."""
        place = self._place(sequence)
        return place is not None and self._states[place] != 0

    @property
    def oldest_ms(self) -> int | None:
        """The timestamp of the oldest waiting record."""
        return next((state for state in self._states if state > 0), None)

    @property
    def has_acknowledged(self) -> bool:
        return self.waiting < len(self._sequences)

    @property
    def newest_acknowledged(self) -> int | None:
        """The highest sequence number that is not waiting."""
        rows = zip(reversed(self._sequences), reversed(self._states), strict=True)
        return next((sequence for sequence, state in rows if state <= 0), None)

    @property
    def waiting_sequences(self) -> list[int]:
        return [sequence for sequence, state in zip(self._sequences, self._states, strict=True) if state > 0]

    def kept_sequences(self, is_wanted: Callable[[Acknowledged], bool]) -> list[int]:
        """Sequence numbers of the kept records for which `is_wanted` is true."""
        if not self.kept:
            return []
        rows = zip(self._sequences, self._states, self._places, strict=True)
        return [
            sequence
            for sequence, state, place in rows
            if state < 0 and is_wanted(Acknowledged(-state, self._epochs[place]))
        ]

    def append(self, records: Sequence[Record]) -> None:
        """Appends records and flushes them to the disk.

        Raises OSError: none of them counts as stored then, and the segment must not be appended to again. The kernel
        may have forgotten pages that it could not write, so a second fsync that succeeds proves nothing.
        """
        data = b"".join(map(encoded, records))
        with opened(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            if os.fstat(file).st_size != self.size:
                raise OSError(errno.EIO, "the size of the segment has changed", str(self.path))
            try:
                write(file, data)
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

    def read(self, sequences: Container[int]) -> list[Record]:
        """The records with these sequence numbers. Raises OSError."""
        return [record for record in find_records(read_regular(self.path)).records if record.sequence in sequences]

    def revise(self, change: Callable[[Record, bool], Record]) -> list[Record]:
        """Replaces each record by `change(record, is_waiting)`, atomically. Returns the changed records.

        Raises OSError: the file is unchanged then.
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
            if (place := self._place(record.sequence)) is not None and self._states[place] > 0:
                self._states[place] = max(1, record.stamp_ms)
        self.newest_ms = max(record.stamp_ms for record in revised)
        return changed

    def acknowledge(self, sequences: Iterable[int], how: Acknowledged) -> None:
        """Records an acknowledgement of these. Raises OSError if it cannot be written and is lost when the process
        ends.
        """
        known = [(sequence, place) for sequence in sequences if (place := self._place(sequence)) is not None]
        held = [(sequence, place) for sequence, place in known if self._states[place]]
        for _, place in held:
            self._keep(place, how)
        acknowledged.note(self.path, [sequence for sequence, _ in held], how)

    def forget(self, sequence: int) -> None:
        """Marks a record as neither waiting nor kept."""
        if (place := self._place(sequence)) is not None:
            self._set(place, 0)

    def reduce_to(self, records: Sequence[Record]) -> bool:
        """Removes all other records. Returns False if that would not make the file smaller.

        Raises OSError: the file is unchanged then.
        """
        size = sum(_HEADER.size + len(record.body) for record in records)
        if size >= self.size:
            return False
        rewrite(self.path, records)
        waiting = set(self.waiting_sequences)
        self.size, self.waiting, self.kept = size, 0, 0
        self._sequences, self._states, self._places = array("Q"), array("q"), array("B")
        for record in records:
            self._note(record)
            if record.sequence not in waiting:
                self.forget(record.sequence)
        return True

    def delete(self) -> None:
        """Deletes the segment and its acknowledgement file. Raises OSError."""
        self.path.unlink(missing_ok=True)
        acknowledged.path_of(self.path).unlink(missing_ok=True)

    def _place(self, sequence: int) -> int | None:
        place = bisect_left(self._sequences, sequence)
        return place if place < len(self._sequences) and self._sequences[place] == sequence else None

    def _note(self, record: Record) -> None:
        self._sequences.append(record.sequence)
        self._states.append(max(1, record.stamp_ms))
        self._places.append(0)
        self.newest_ms = max(self.newest_ms, record.stamp_ms)
        self.waiting += 1

    def _keep(self, place: int, how: Acknowledged) -> None:
        """Adds an acknowledgement; earlier ones, in other epochs, stay valid."""
        if self._states[place] < 0:
            how = Acknowledged(-self._states[place], self._epochs[self._places[place]]).and_again(how)
        if how.epochs not in self._epochs and len(self._epochs) < MOST_EPOCH_SETS:
            self._epochs.append(how.epochs)
        if not how.at_ms or how.epochs not in self._epochs:
            self._set(place, 0)
            return
        self._places[place] = self._epochs.index(how.epochs)
        self._set(place, -how.at_ms)
        self.acknowledged_ms = max(self.acknowledged_ms, how.at_ms)

    def _set(self, place: int, state: int) -> None:
        was = self._states[place]
        self._states[place] = state
        self.waiting -= was > 0
        self.kept += (state < 0) - (was < 0)


def rewrite(path: Path, records: Iterable[Record]) -> None:
    """Replaces the file atomically by one with these records. Raises OSError."""
    unfinished = path.with_suffix(".tmp")
    with opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        write(file, b"".join(map(encoded, records)))
        os.fsync(file)
    unfinished.replace(path)
    sync_directory(path.parent)
