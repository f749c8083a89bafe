"""Heartbeats that the service has not acknowledged, and those that it has acknowledged lately: on the disk, and in
memory while that cannot be written.

A heartbeat is in memory first. It is safe when the disk has it, which is before it is sent, unless
LINKBEAT_SPOOL_DELAY_SECONDS spares the disk those that are acknowledged soon. What is in memory is always newer than
what is on the disk, and both are bounded. Acknowledged heartbeats are kept for another database (agent/keeping.py) as
far as there is room; then the oldest of the others are given up, and counted.
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

SEGMENT_BYTES = 256 * 1024  # what is dropped at once, and read at once
MEMORY_BYTES = 4 * 1024 * 1024  # a machine with thousands of interfaces must not take its own memory
DISK_RETRY_SECONDS = 60.0
REMEMBERED_DROPS = 4_096


class Spooled(NamedTuple):
    """How full the spool is.

    queued          heartbeats that wait for an acknowledgement.
    oldest_ms       when the oldest of them was collected, in milliseconds since 1970.
    size_bytes      of the segments on the disk.
    dropped         heartbeats given up for want of room, since the start.
    damaged         stretches of the disk's files that could not be read, since the start.
    is_on_disk      whether the newest heartbeat is, or will be after the delay that was asked for.
    kept            acknowledged heartbeats that are still here.
    """

    queued: int
    oldest_ms: int | None
    size_bytes: int
    dropped: int
    damaged: int
    is_on_disk: bool
    kept: int = 0


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
        keep_seconds: float = 0.0,
        memory_bytes: int = MEMORY_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises SpoolInUse if another process has the directory. Acknowledged heartbeats are kept for
        `keep_seconds`.
        """
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
        """The heartbeat that was appended last, unless it is acknowledged."""
        with self._lock:
            newest = self._newest
            return newest if newest and self._waits(newest.sequence) else None

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
            for held in reversed(list(self._memory)):
                if held.how is None and held.record.sequence < before:
                    return [held.record]
            for segment in reversed(self._disk.segments):
                if found := [record for record in self._disk.read_waiting(segment) if record.sequence < before]:
                    return [found[-1]]
        return []

    @property
    def epoch(self) -> str:
        """The epoch of the last answer, "" before the first that had one."""
        with self._lock:
            return self._keeping.epoch

    def due(self) -> int:
        """How many acknowledged heartbeats the database of `epoch` has to be sent."""
        with self._lock:
            on_disk = sum(len(segment.kept_sequences(self._is_due_again)) for segment in self._disk.segments)
            return on_disk + sum(held.how is not None and self._is_due_again(held.how) for held in self._memory)

    def again(self, count: int, max_bytes: int) -> list[Record]:
        """The oldest of them: up to `count`, and `max_bytes` unless it is one alone."""
        chosen: list[Record] = []
        size = 0
        with self._lock:
            for record in self._kept(self._is_due_again):
                size += len(record.body)
                if len(chosen) == count or (chosen and size > max_bytes):
                    break
                chosen.append(record)
        return chosen

    def acknowledge(self, sequences: Iterable[int], epoch: str = "", *, asked: str = "") -> None:
        """An answer with `epoch` says that these need not be sent to its database again.

        asked           the epoch for which they were sent again.
        """
        with self._lock:
            if epoch and epoch != self._keeping.epoch:
                self._forget_old()  # by the last answer before; the others are due from now on
                self._keeping.answered(epoch)
            self._settle(sequences, self._keeping.acknowledgement(epoch, asked))

    def discard(self, sequences: Iterable[int]) -> None:
        """Forgets heartbeats that no database has to be sent again."""
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
                self.dropped -= 1  # given up while it was on its way, and arrived after all
        if not self._closed:
            for segment in [each for each in self._disk.segments if id(each) in on_disk]:
                self._disk.acknowledge(segment, on_disk[id(segment)], how)
        self._disk.delete_done()

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
            segments = list(self._disk.segments)
        for segment in segments:
            with self._lock:  # for one file only: a heartbeat must not wait for the whole disk
                if segment not in self._disk.segments or self._closed:
                    continue
                try:
                    for record in segment.revise(change):
                        note(record)
                except OSError as error:
                    log.warning("%s: %s; its heartbeats stay as they are", segment.path, error.strerror)
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
        """Writes out what is in memory, and leaves the directory to the next process."""
        with self._lock:
            self._forget_old()
            if len(self._memory):
                self._write_out()
            self._closed = True
            self._directory.close()

    def _open(self) -> None:
        """Raises OSError, and SpoolInUse."""
        segments, last = self._directory.open()
        # No number twice: a record that is gone may have been acknowledged, and its note would be taken for another's.
        highest = max(last.sequence if last else 0, self._directory.highest_acknowledged)
        if highest >= min((held.record.sequence for held in self._memory), default=highest + 1):
            self._directory.close()
            raise OSError("holds heartbeats that were numbered later than those in memory; they wait for a restart")
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
        """Moves what is in memory to the disk; where that fails, it stays, and the next try is later."""
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
            self._complaints.settled("drop", "heartbeats fit again; %d were dropped since the start", self.dropped)

    def _fall_back(self, error: OSError | SpoolInUse) -> None:
        """Goes on in memory."""
        self._disk.leave()
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
        """All that wait, oldest first."""
        for segment in list(self._disk.segments):
            if segment.waiting:
                yield from self._disk.read_waiting(segment)
        yield from (held.record for held in self._memory if held.how is None)

    def _kept(self, is_wanted: Callable[[Acknowledged], bool]) -> Iterator[Record]:
        """All that are kept and whose acknowledgement `is_wanted`, oldest first."""
        for segment in list(self._disk.segments):
            if sequences := segment.kept_sequences(is_wanted):
                yield from self._disk.read(segment, sequences)
        yield from (held.record for held in self._memory if held.how is not None and is_wanted(held.how))

    def _waits(self, sequence: int) -> bool:
        return self._memory.waits(sequence) or any(sequence in segment for segment in self._disk.segments)

    def _is_due_again(self, how: Acknowledged) -> bool:
        return self._keeping.is_due(how.epochs)

    def _forget_old(self) -> None:
        """Keeps nothing on that need not be kept any longer."""
        self._disk.forget_old()
        for held in self._memory:
            if held.how is not None and self._keeping.is_over(held.how):
                self._memory.remove(held.record.sequence)

    def _give_up(self, sequences: Sequence[int], where: str) -> None:
        self.dropped += len(sequences)
        self._given_up.extend(sequences)
        self._complaints.about("drop", "no more room in the spool (%s): the oldest heartbeats are dropped", where)
