"""Heartbeats that the service has not acknowledged: on the disk, and in memory while that cannot be written.

A heartbeat is in memory first. It counts as kept when the disk has it, which is before it is sent, unless
LINKBEAT_SPOOL_DELAY_SECONDS spares the disk those that are acknowledged soon. What is in memory is always newer than
what is on the disk, and both are bounded: the oldest are given up first, and counted.
"""

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from .complaints import Complaints
from .directory import Directory, SpoolInUse
from .segments import MAX_RECORD_BYTES, Record, Segment

__all__ = ["Spool", "SpoolInUse", "Spooled"]

log = logging.getLogger(__name__)

SEGMENT_BYTES = 256 * 1024  # what is dropped at once, and read at once
MEMORY_BYTES = 4 * 1024 * 1024  # a machine with thousands of interfaces must not take its own memory
DISK_RETRY_SECONDS = 60.0
# Only what has been too old for so long is dropped: a clock that is wrong for a while must not cost a week.
AGE_GRACE_SECONDS = 3600.0
REMEMBERED_DROPS = 4_096


class Spooled(NamedTuple):
    """How full the spool is.

    queued          heartbeats that wait for an acknowledgement.
    oldest_ms       when the oldest of them was collected, in milliseconds since 1970.
    size_bytes      of the segments on the disk.
    dropped         heartbeats given up for want of room, since the start.
    damaged         stretches of the disk's files that could not be read, since the start.
    is_on_disk      whether the newest heartbeat is, or will be after the delay that was asked for.
    """

    queued: int
    oldest_ms: int | None
    size_bytes: int
    dropped: int
    damaged: int
    is_on_disk: bool


class Spool:
    """Filled by the collecting thread, emptied by the sending threads. Nothing but the constructor raises."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        max_age_seconds: float,
        memory_heartbeats: int,
        delay_seconds: float = 0.0,
        memory_bytes: int = MEMORY_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises SpoolInUse if another process has the directory."""
        self._max_bytes, self._max_age_ms = max_bytes, max_age_seconds * 1000
        self._memory_heartbeats, self._memory_limit = memory_heartbeats, memory_bytes
        self._delay_seconds = delay_seconds
        self._segment_bytes = min(segment_bytes, max_bytes // 4)
        self._now_ms, self._monotonic = now_ms, monotonic
        self._lock = threading.RLock()
        self._directory = Directory(directory)
        self._complaints = Complaints(log)
        self._segments: list[Segment] = []
        self._active: Segment | None = None  # the last segment, while it may be appended to
        self._memory: dict[int, tuple[Record, float]] = {}  # by sequence; with the monotonic time of arrival
        self._memory_bytes = 0
        self._retry_at: float | None = None  # while the disk cannot be written
        self._too_old_since: float | None = None  # monotonic; of the oldest segment
        self._closed = False
        self._given_up: deque[int] = deque(maxlen=REMEMBERED_DROPS)
        self._newest: Record | None = None
        self._sequence = 0
        self.dropped = 0
        self.last: Record | None = None
        """The newest heartbeat that a process before this one left, acknowledged or not."""
        try:
            self._open()
        except OSError as error:
            self._fall_back(error)
            # Above whatever the disk may turn out to hold, should it come later.
            self._sequence = time.time_ns() // 1000

    def append(self, body: bytes, stamp_ms: int) -> None:
        """Keeps a heartbeat, which is the newest from now on."""
        with self._lock:
            if len(body) > MAX_RECORD_BYTES:
                self.dropped += 1
                self._complaints.about("size", "a heartbeat of %d bytes is more than the service takes", len(body))
                return
            self._sequence += 1
            self._newest = Record(self._sequence, stamp_ms, body)
            self._memory[self._sequence] = (self._newest, self._monotonic())
            self._memory_bytes += len(body)
            if self._is_due():
                self._write_out()
            while len(self._memory) > 1 and self._is_memory_full():
                self._give_up([self._forget_in_memory(next(iter(self._memory))).sequence])
                self._complain_of_drops("memory")

    def newest(self) -> Record | None:
        """The heartbeat that was appended last, unless it is acknowledged."""
        with self._lock:
            newest = self._newest
            return newest if newest and self._holder(newest.sequence) is not None else None

    def oldest(self, count: int, max_bytes: int, before: int) -> list[Record]:
        """The oldest that wait with sequences below `before`: up to `count`, and `max_bytes` unless it is one alone."""
        chosen: list[Record] = []
        size = 0
        with self._lock:
            for record in self._waiting():
                size += len(record.body)
                if record.sequence >= before or len(chosen) == count or (chosen and size > max_bytes):
                    break
                chosen.append(record)
        return chosen

    def latest(self, before: int) -> list[Record]:
        """The newest that waits with a sequence below `before`, or none."""
        with self._lock:
            for record, _ in reversed(self._memory.values()):
                if record.sequence < before:
                    return [record]
            for segment in reversed(self._segments):
                if found := [record for record in self._read(segment) if record.sequence < before]:
                    return [found[-1]]
        return []

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Forgets heartbeats that need not be sent again."""
        with self._lock:
            on_disk: dict[int, list[int]] = {}
            for sequence in sequences:
                holder = self._holder(sequence)
                if holder is None:
                    if sequence in self._given_up:
                        self._given_up.remove(sequence)
                        self.dropped -= 1  # given up while it was on its way, and arrived after all
                elif isinstance(holder, Segment):
                    on_disk.setdefault(id(holder), []).append(sequence)
                else:
                    self._forget_in_memory(sequence)
            for segment in [each for each in self._segments if id(each) in on_disk]:
                try:
                    if not self._closed:
                        segment.acknowledge(on_disk[id(segment)])
                except OSError as error:
                    log.debug("%s: acknowledgements are not noted: %s", segment.path, error.strerror)
            self._delete_done()

    def revise(self, change: Callable[[Record, bool], Record]) -> frozenset[int]:
        """Replaces each heartbeat by `change` of it and of whether it waits, oldest first; returns what changed.

        Heartbeats that are acknowledged and not deleted yet are shown too; `change` must leave those, and every
        sequence, as they are.
        """
        changed: set[int] = set()

        def note(record: Record) -> None:
            changed.add(record.sequence)
            if self._newest and self._newest.sequence == record.sequence:
                self._newest = record

        with self._lock:
            segments = list(self._segments)
        for segment in segments:
            with self._lock:  # for one file only: a heartbeat must not wait for the whole disk
                if segment not in self._segments or self._closed:
                    continue
                try:
                    for record in segment.revise(change):
                        note(record)
                except OSError as error:
                    log.warning("%s: %s; its heartbeats stay as they are", segment.path, error.strerror)
        with self._lock:
            for sequence, (record, arrived) in self._memory.items():
                if (new := change(record, True)) is not record:
                    self._memory[sequence] = (new, arrived)
                    self._memory_bytes += len(new.body) - len(record.body)
                    note(new)
        return frozenset(changed)

    def __len__(self) -> int:
        with self._lock:
            return sum(segment.waiting for segment in self._segments) + len(self._memory)

    def state(self) -> Spooled:
        with self._lock:
            stamps = (segment.oldest_ms for segment in self._segments if segment.waiting)
            oldest_ms = next(chain(stamps, (record.stamp_ms for record, _ in self._memory.values())), None)
            size = sum(segment.size for segment in self._segments)
            is_on_disk = self._retry_at is None
            return Spooled(len(self), oldest_ms, size, self.dropped, self._directory.damaged, is_on_disk)

    def close(self) -> None:
        """Writes out what is in memory, and leaves the directory to the next process."""
        with self._lock:
            if self._memory:
                self._write_out()
            self._closed = True
            self._directory.close()

    def _open(self) -> None:
        """Raises OSError, and SpoolInUse."""
        segments, last = self._directory.open()
        # No number twice: a record that is gone may have been acknowledged, and its note would be taken for another's.
        highest = max(last.sequence if last else 0, self._directory.highest_acknowledged)
        if self._memory and highest >= next(iter(self._memory)):
            self._directory.close()
            raise OSError("holds heartbeats that were numbered later than those in memory; they wait for a restart")
        self._segments = segments
        self._active = segments[-1] if segments and self._directory.is_last_whole else None
        self._sequence = max(self._sequence, highest, time.time_ns() // 1000 if self._directory.is_mended else 0)
        self.last = last
        self._delete_done()

    def _is_due(self) -> bool:
        if self._retry_at is not None:
            return self._monotonic() >= self._retry_at
        _, arrived = next(iter(self._memory.values()))
        return self._monotonic() - arrived >= self._delay_seconds or self._is_memory_full()

    def _is_memory_full(self) -> bool:
        return len(self._memory) > self._memory_heartbeats or self._memory_bytes > self._memory_limit

    def _write_out(self) -> None:
        """Moves what is in memory to the disk; where that fails, it stays, and the next try is later."""
        try:
            if not self._directory.is_open:
                self._open()
            while self._memory:
                self._write_some()
        except (OSError, SpoolInUse) as error:
            self._fall_back(error)
            return
        if self._retry_at is not None:
            self._retry_at = None
            self._complaints.settled("disk", "%s can be written again", self._directory.path)
        if len(self) <= 1:
            self._complaints.settled("drop", "heartbeats fit again; %d were dropped since the start", self.dropped)

    def _fall_back(self, error: OSError | SpoolInUse) -> None:
        """Goes on in memory."""
        self._active = None
        self._retry_at = self._monotonic() + DISK_RETRY_SECONDS
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) == errno.ENOENT:
            self._directory.close()  # it went away; it is made again, or found again, when it is opened
        self._complaints.about(
            "disk",
            "%s cannot be written (%s): up to %d heartbeats are kept in memory until it can",
            self._directory.path,
            reason,
            self._memory_heartbeats,
        )

    def _write_some(self) -> None:
        """One write of records that fit one segment. Raises OSError."""
        if self._active is not None and self._active.size >= self._segment_bytes:
            self._active = None
            self._delete_done()
        room = self._segment_bytes - (self._active.size if self._active else 0)
        records: list[Record] = []
        size = 0
        for record, _ in self._memory.values():
            if records and size + len(record.body) > room:
                break
            size += len(record.body)
            records.append(record)
        self._make_room(size)
        segment = self._active or Segment(self._directory.next_path())
        self._active = None  # for good, unless this succeeds
        try:
            segment.append(records)
        except OSError:
            if not segment.size:
                with suppress(OSError):
                    segment.delete()
            raise
        if segment not in self._segments:
            self._segments.append(segment)
        self._active = segment
        for record in records:
            self._forget_in_memory(record.sequence)

    def _make_room(self, size: int) -> None:
        """Gives up the oldest segments, those past the age and those without which `size` bytes more do not fit.

        Raises OSError if one cannot be deleted: the disk must not fill up beyond its bound.
        """
        while self._segments:
            oldest = self._segments[0]
            total = sum(segment.size for segment in self._segments)
            if total + size <= self._max_bytes and not self._is_too_old(oldest):
                return
            oldest.delete()
            del self._segments[0]
            if oldest is self._active:
                self._active = None
            if oldest.waiting:
                self._give_up(oldest.waiting_sequences)
                self._complain_of_drops("disk")

    def _is_too_old(self, segment: Segment) -> bool:
        """Of the oldest segment: whether all in it has been past the age for long enough."""
        if segment is self._active or self._now_ms() - segment.newest_ms <= self._max_age_ms:
            self._too_old_since = None
            return False
        now = self._monotonic()
        if self._too_old_since is None:
            self._too_old_since = now
        return now - self._too_old_since >= AGE_GRACE_SECONDS

    def _waiting(self) -> Iterator[Record]:
        """All that wait, oldest first."""
        for segment in list(self._segments):
            if segment.waiting:
                yield from self._read(segment)
        for record, _ in list(self._memory.values()):
            yield record

    def _read(self, segment: Segment) -> list[Record]:
        """Those of a segment that wait; what it has lost since it was written is counted and no longer waited for."""
        try:
            records = segment.read()
        except OSError as error:
            # Left where it is: the next start reads it again.
            log.warning("%s: %s; %d heartbeats of it are passed over", segment.path, error.strerror, segment.waiting)
            self._directory.damaged += 1
            self._segments.remove(segment)
            self._active = None if segment is self._active else self._active
            return []
        if len(records) < segment.waiting:
            found = {record.sequence for record in records}
            self._directory.keep_damaged(segment.path)
            self._active = None if segment is self._active else self._active
            for lost in [each for each in segment.waiting_sequences if each not in found]:
                segment.forget(lost)
        return records

    def _holder(self, sequence: int) -> Segment | Record | None:
        """Where a heartbeat is that waits."""
        if held := self._memory.get(sequence):
            return held[0]
        return next((segment for segment in self._segments if sequence in segment), None)

    def _forget_in_memory(self, sequence: int) -> Record:
        record, _ = self._memory.pop(sequence)
        self._memory_bytes -= len(record.body)
        return record

    def _delete_done(self) -> None:
        """The last segment stays, also when it is done: it holds the newest timestamp. So does the last one with an
        acknowledged heartbeat: below that timestamp none may be, and those after it may have been stamped by a wrong
        clock.
        """
        kept = next((each for each in reversed(self._segments) if each.has_acknowledged), None)
        for segment in [each for each in self._segments[:-1] if not each.waiting and each is not kept]:
            try:
                segment.delete()
            except OSError as error:
                # It comes again at the next start, as duplicates.
                log.debug("%s: %s", segment.path, error.strerror)
            self._segments.remove(segment)

    def _give_up(self, sequences: Iterable[int]) -> None:
        given_up = list(sequences)
        self.dropped += len(given_up)
        self._given_up.extend(given_up)

    def _complain_of_drops(self, where: str) -> None:
        self._complaints.about("drop", "no more room in the spool (%s): the oldest heartbeats are dropped", where)
