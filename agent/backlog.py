"""Heartbeats that the service has not acknowledged: in memory, bounded, the oldest given up first."""

import threading
from typing import NamedTuple

MAX_BYTES = 4 * 1024 * 1024  # a machine with thousands of interfaces must not take its own memory


class Queued(NamedTuple):
    """An encoded heartbeat and its place in the order of collection."""

    sequence: int
    body: bytes


class Backlog:
    """Filled by the collecting thread, emptied by the sending thread."""

    def __init__(self, capacity: int, max_bytes: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bodies: dict[int, bytes] = {}  # in order of sequence
        self._bytes = 0
        self._sequence = 0
        self.dropped = 0
        """Heartbeats given up for want of room, since the start."""

    def __len__(self) -> int:
        return len(self._bodies)

    def add(self, body: bytes) -> int:
        """Keeps `body`; returns how many of the oldest had to go for it. The newest always stays."""
        with self._lock:
            self._sequence += 1
            self._bodies[self._sequence] = body
            self._bytes += len(body)
            gone = 0
            while len(self._bodies) > 1 and (len(self._bodies) > self._capacity or self._bytes > self._max_bytes):
                self._bytes -= len(self._bodies.pop(next(iter(self._bodies))))
                gone += 1
            self.dropped += gone
            return gone

    def newest(self) -> Queued | None:
        with self._lock:
            return Queued(*next(reversed(self._bodies.items()))) if self._bodies else None

    def oldest(self, count: int) -> list[Queued]:
        """Up to `count`, oldest first."""
        with self._lock:
            return [Queued(*item) for item, _ in zip(self._bodies.items(), range(count), strict=False)]

    def remove(self, sequences: list[int]) -> None:
        """Forgets heartbeats that need not be sent again."""
        with self._lock:
            for sequence in sequences:
                body = self._bodies.pop(sequence, None)
                if body is None:
                    self.dropped -= 1  # given up while it was on its way, and arrived after all
                else:
                    self._bytes -= len(body)
