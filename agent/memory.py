"""The spool's heartbeats that are not on the disk."""

from collections.abc import Iterator
from typing import NamedTuple

from .acknowledged import Acknowledged
from .segments import Record


class Held(NamedTuple):
    """A heartbeat in memory.

    arrived         monotonic seconds.
    how             its acknowledgement; None: not yet acknowledged.
    """

    record: Record
    arrived: float
    how: Acknowledged | None = None


class Memory:
    """Heartbeats by sequence number: those not yet acknowledged (waiting), and those kept after it."""

    def __init__(self, heartbeats: int, max_bytes: int) -> None:
        self._most, self._max_bytes = heartbeats, max_bytes
        self._held: dict[int, Held] = {}
        self.size = 0
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        """Oldest first; heartbeats may be added and removed during the iteration."""
        return iter(list(self._held.values()))

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._held

    @property
    def is_full(self) -> bool:
        return len(self._held) > self._most or self.size > self._max_bytes

    def oldest_waiting(self) -> Held | None:
        return next((held for held in self._held.values() if held.how is None), None)

    def waits(self, sequence: int) -> bool:
        return (held := self._held.get(sequence)) is not None and held.how is None

    def add(self, record: Record, arrived: float) -> None:
        self._held[record.sequence] = Held(record, arrived)
        self.size += len(record.body)
        self.waiting += 1

    def replace(self, record: Record) -> None:
        """Replaces the body or timestamp of a heartbeat."""
        held = self._held[record.sequence]
        self._held[record.sequence] = held._replace(record=record)
        self.size += len(record.body) - len(held.record.body)

    def acknowledge(self, sequence: int, how: Acknowledged) -> None:
        """Keeps the heartbeat from now on, or removes it if `how` is NOT_KEPT."""
        held = self._held[sequence]
        if not how.at_ms:
            self.remove(sequence)
            return
        self.waiting -= held.how is None
        self._held[sequence] = held._replace(how=held.how.and_again(how) if held.how else how)

    def remove(self, sequence: int) -> None:
        held = self._held.pop(sequence)
        self.size -= len(held.record.body)
        self.waiting -= held.how is None

    def shed(self) -> None:
        """Makes room by removing acknowledged heartbeats, oldest first."""
        while self.is_full and len(self._held) > self.waiting:
            self.remove(next(sequence for sequence, held in self._held.items() if held.how is not None))
