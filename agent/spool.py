"""Heartbeats that the service has not acknowledged, and those that it acknowledged recently: on the disk, and in memory
while the disk cannot be written.

A heartbeat is in memory first. It is written to the disk before it is sent, unless LINKBEAT_SPOOL_DELAY_SECONDS delays
the write for heartbeats that are acknowledged soon. Heartbeats in memory are always newer than those on the disk, and
both are bounded. Acknowledged heartbeats are kept for another database (agent/keeping.py) while there is room; when
they are gone, the oldest of the others are dropped and counted.
"""

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

from .acknowledged import NOT_KEPT, Acknowledged
from .complaints import Complaints
from .directory import Directory, SpoolInUse
from .disk import NO_ROOM, Disk
from .keeping import Keeping
from .memory import Held, Memory
from .segments import MAX_RECORD_BYTES, Record

__all__ = ["Spool", "SpoolInUse", "Spooled"]

log = logging.getLogger(__name__)

SEGMENT_BYTES = 256 * 1024  # the unit of reading and dropping
MEMORY_BYTES = 4 * 1024 * 1024  # bounds the memory of a machine with thousands of interfaces
DISK_RETRY_SECONDS = 60.0
REMEMBERED_DROPS = 4_096


class Spooled(NamedTuple):
    """How full the spool is.

    queued          heartbeats waiting for an acknowledgement.
    oldest_ms       when the oldest of them was collected, in milliseconds since 1970.
    size_bytes      of the segments on the disk.
    dropped         heartbeats dropped for lack of room, since the start.
    damaged         byte ranges of the files that could not be read, since the start.
    is_on_disk      whether the newest heartbeat is on the disk, or will be after the configured delay.
    kept            acknowledged heartbeats that are still in the spool.
    """

    queued: int
    oldest_ms: int | None
    size_bytes: int
    dropped: int
    damaged: int
    is_on_disk: bool
    kept: int = 0


class Spool:
    """Filled by the collecting thread, emptied by the sending threads. Only the constructor raises."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        max_age_seconds: float,
        memory_heartbeats: int,
        delay_seconds: float = 0.0,
        keep_seconds: float = 0.0,
        memory_bytes: int = MEMORY_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keeps acknowledged heartbeats for `keep_seconds`. Raises SpoolInUse if another process uses the directory."""
        self._memory_heartbeats = memory_heartbeats
        self._delay_seconds = delay_seconds
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._directory = Directory(directory)
        self._complaints = Complaints(log)
        self._memory = Memory(memory_heartbeats, memory_bytes)
        self._keeping = Keeping(directory / "epoch", keep_seconds, now_ms=now_ms, monotonic=monotonic)
        self._disk = Disk(
            self._directory,
            self._keeping,
            max_bytes=max_bytes,
            max_age_ms=max_age_seconds * 1000,
            segment_bytes=segment_bytes,
            now_ms=now_ms,
            monotonic=monotonic,
            on_given_up=lambda sequences: self._give_up(sequences, "disk"),
        )
        self._retry_at: float | None = None  # while the disk cannot be written
        self._closed = False
        self._given_up: deque[int] = deque(maxlen=REMEMBERED_DROPS)
        self._newest: Record | None = None
        self._sequence = 0
        self.dropped = 0
        self.last: Record | None = None
        """The newest heartbeat left by an earlier process, acknowledged or not."""
        try:
            self._open()
        except OSError as error:
            self._fall_back(error)
            # Above any sequence number on the disk, which may become readable later.
            self._sequence = time.time_ns() // 1000

    def append(self, body: bytes, stamp_ms: int) -> None:
        """Adds a heartbeat, which becomes the newest."""
        with self._lock:
            if len(body) > MAX_RECORD_BYTES:
                self.dropped += 1
                self._complaints.about(
                    "size", "a heartbeat of %d bytes exceeds the service's limit and is dropped", len(body)
                )
                return
            self._sequence += 1
            self._newest = Record(self._sequence, stamp_ms, body)
            self._memory.add(self._newest, self._monotonic())
            self._memory.shed()
            if self._is_due():
                self._write_out()
            while self._memory.waiting > 1 and self._memory.is_full:
                oldest = self._memory.oldest_waiting()
                assert oldest is not None  # more than one waits
                self._memory.remove(oldest.record.sequence)
                self._give_up([oldest.record.sequence], "memory")

    def newest(self) -> Record | None:
        """The heartbeat appended last, or None if it is acknowledged."""
        with self._lock:
            newest = self._newest
            return newest if newest and self._waits(newest.sequence) else None

    def oldest(self, count: int, max_bytes: int, before: int) -> list[Record]:
        """The oldest waiting heartbeats with sequence numbers below `before`: at most `count`, and at most `max_bytes`
        unless the first alone is larger.
        """
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
        """At most one heartbeat: the newest waiting one with a sequence number below `before`."""
        with self._lock:
            for held in reversed(list(self._memory)):
                if held.how is None and held.record.sequence < before:
                    return [held.record]
            for segment in reversed(self._disk.segments):
                if found := [record for record in self._disk.read_waiting(segment) if record.sequence < before]:
                    return [found[-1]]
        return []

    @property
    def epoch(self) -> str:
        """The epoch of the last response that had one, "" before the first."""
        with self._lock:
            return self._keeping.epoch

    def due(self) -> int:
        """The number of acknowledged heartbeats that must be sent to the database of `epoch`."""
        with self._lock:
            on_disk = sum(len(segment.kept_sequences(self._is_due_again)) for segment in self._disk.segments)
            return on_disk + sum(held.how is not None and self._is_due_again(held.how) for held in self._memory)

    def again(self, count: int, max_bytes: int) -> list[Record]:
        """The newest heartbeats that due() counts, in their order: at most `count`, and at most `max_bytes` unless the
        last alone is larger.

        The newest first: a standby that took over may lack these, and hardly ever older ones.
        """
        chosen: list[Record] = []
        size = 0
        with self._lock:
            for record in self._kept_backwards(self._is_due_again):
                size += len(record.body)
                if len(chosen) == count or (chosen and size > max_bytes):
                    break
                chosen.append(record)
        return chosen[::-1]

    def acknowledge(self, sequences: Iterable[int], epoch: str = "", *, asked: str = "") -> None:
        """Marks heartbeats as acknowledged by a response with `epoch`: its database has them.

        asked           the epoch for which they were sent again, "" if they were not.
        """
        with self._lock:
            if epoch and epoch != self._keeping.epoch:
                self._forget_old()  # by the clock of the previous response; the rest is due from now on
                self._keeping.answered(epoch)
            self._settle(sequences, self._keeping.acknowledgement(epoch, asked))

    def discard(self, sequences: Iterable[int]) -> None:
        """Removes heartbeats that are never sent again, to any database."""
        with self._lock:
            self._settle(sequences, NOT_KEPT)

    def _settle(self, sequences: Iterable[int], how: Acknowledged) -> None:
        on_disk: dict[int, list[int]] = {}
        for sequence in sequences:
            if sequence in self._memory:
                self._memory.acknowledge(sequence, how)
            elif (segment := next((each for each in self._disk.segments if each.holds(sequence)), None)) is not None:
                on_disk.setdefault(id(segment), []).append(sequence)
            elif sequence in self._given_up:
                self._given_up.remove(sequence)
                self.dropped -= 1  # dropped while its request was in flight, which then succeeded
        if not self._closed:
            for segment in [each for each in self._disk.segments if id(each) in on_disk]:
                self._disk.acknowledge(segment, on_disk[id(segment)], how)
        self._disk.delete_done()

    def revise(self, change: Callable[[Record, bool], Record]) -> frozenset[int]:
        """Replaces each heartbeat by `change(record, is_waiting)`, oldest first. Returns the changed sequence numbers.

        Acknowledged heartbeats that are not deleted yet are passed to `change` too; it must leave those, and every
        sequence number, unchanged.
        """
        changed: set[int] = set()

        def note(record: Record) -> None:
            changed.add(record.sequence)
            if self._newest and self._newest.sequence == record.sequence:
                self._newest = record

        with self._lock:
            segments = list(self._disk.segments)
        for segment in segments:
            with self._lock:  # per file: a new heartbeat must not wait for the whole disk
                if segment not in self._disk.segments or self._closed:
                    continue
                try:
                    for record in segment.revise(change):
                        note(record)
                except OSError as error:
                    log.warning("%s: %s; its heartbeats are left unchanged", segment.path, error.strerror)
        with self._lock:
            for held in self._memory:
                if (new := change(held.record, held.how is None)) is not held.record:
                    self._memory.replace(new)
                    note(new)
        return frozenset(changed)

    def __len__(self) -> int:
        with self._lock:
            return sum(segment.waiting for segment in self._disk.segments) + self._memory.waiting

    def state(self) -> Spooled:
        with self._lock:
            stamps = (segment.oldest_ms for segment in self._disk.segments if segment.waiting)
            in_memory = (held.record.stamp_ms for held in self._memory if held.how is None)
            oldest_ms = next(chain(stamps, in_memory), None)
            is_on_disk = self._retry_at is None
            kept = sum(segment.kept for segment in self._disk.segments) + len(self._memory) - self._memory.waiting
            return Spooled(
                len(self), oldest_ms, self._disk.size, self.dropped, self._directory.damaged, is_on_disk, kept
            )

    def close(self) -> None:
        """Writes the heartbeats in memory to the disk and unlocks the directory."""
        with self._lock:
            self._forget_old()
            if len(self._memory):
                self._write_out()
            self._closed = True
            self._directory.close()

    def _open(self) -> None:
        """Raises OSError, and SpoolInUse."""
        segments, last = self._directory.open()
        # Never reuse a sequence number: the acknowledgement of a lost record would be applied to the new one.
        highest = max(last.sequence if last else 0, self._directory.highest_acknowledged)
        if highest >= min((held.record.sequence for held in self._memory), default=highest + 1):
            self._directory.close()
            raise OSError(
                "has heartbeats with higher sequence numbers than those in memory; they are sent after a restart"
            )
        self._sequence = max(self._sequence, highest, time.time_ns() // 1000 if self._directory.is_mended else 0)
        self.last = last
        self._disk.take(segments, is_last_whole=self._directory.is_last_whole)

    def _is_due(self) -> bool:
        if self._retry_at is not None:
            return self._monotonic() >= self._retry_at
        oldest = self._memory.oldest_waiting()
        if oldest is None:
            return False
        return self._monotonic() - oldest.arrived >= self._delay_seconds or self._memory.is_full

    def _write_out(self) -> None:
        """Moves the heartbeats in memory to the disk. On failure they stay in memory until a later attempt."""
        try:
            if not self._directory.is_open:
                self._open()
            while len(self._memory):
                try:
                    self._write_some()
                except OSError as error:
                    if error.errno not in NO_ROOM or not self._disk.delete_kept():
                        raise
        except (OSError, SpoolInUse) as error:
            self._fall_back(error)
            return
        if self._retry_at is not None:
            self._retry_at = None
            self._keeping.save()
            self._complaints.settled("disk", "%s can be written again", self._directory.path)
        if len(self) <= 1:
            self._complaints.settled(
                "drop", "the spool has room again; %d heartbeats were dropped since the start", self.dropped
            )

    def _fall_back(self, error: OSError | SpoolInUse) -> None:
        """Continues in memory only."""
        self._disk.leave()
        self._retry_at = self._monotonic() + DISK_RETRY_SECONDS
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) == errno.ENOENT:
            self._directory.close()  # the directory is gone; the next attempt creates or finds it
        self._complaints.about(
            "disk",
            "%s cannot be written (%s): keeping up to %d heartbeats in memory until it can",
            self._directory.path,
            reason,
            self._memory_heartbeats,
        )

    def _write_some(self) -> None:
        """Writes as many records as fit into one segment. Raises OSError."""
        chosen: list[Held] = []
        size, room = 0, self._disk.room
        for held in self._memory:
            if chosen and size + len(held.record.body) > room:
                break
            size += len(held.record.body)
            chosen.append(held)
        segment = self._disk.write([held.record for held in chosen])
        for held in chosen:
            self._memory.remove(held.record.sequence)
        for how, alike in groupby(chosen, lambda held: held.how):
            if how is not None:
                self._disk.acknowledge(segment, [held.record.sequence for held in alike], how)

    def _waiting(self) -> Iterator[Record]:
        """All waiting heartbeats, oldest first."""
        for segment in list(self._disk.segments):
            if segment.waiting:
                yield from self._disk.read_waiting(segment)
        yield from (held.record for held in self._memory if held.how is None)

    def _kept_backwards(self, is_wanted: Callable[[Acknowledged], bool]) -> Iterator[Record]:
        """All acknowledged heartbeats for which `is_wanted` is true, newest first."""
        held_in_memory = [held.record for held in self._memory if held.how is not None and is_wanted(held.how)]
        yield from reversed(held_in_memory)
        for segment in reversed(self._disk.segments.copy()):
            if sequences := segment.kept_sequences(is_wanted):
                yield from reversed(self._disk.read(segment, sequences))

    def _waits(self, sequence: int) -> bool:
        return self._memory.waits(sequence) or any(sequence in segment for segment in self._disk.segments)

    def _is_due_again(self, how: Acknowledged) -> bool:
        return self._keeping.is_due(how.epochs)

    def _forget_old(self) -> None:
        """Forgets the acknowledged heartbeats that need not be kept any longer."""
        self._disk.forget_old()
        for held in self._memory:
            if held.how is not None and self._keeping.is_over(held.how):
                self._memory.remove(held.record.sequence)

    def _give_up(self, sequences: Sequence[int], where: str) -> None:
        self.dropped += len(sequences)
        self._given_up.extend(sequences)
        self._complaints.about("drop", "the spool is full (%s): dropping the oldest heartbeats", where)
