"""Limits the memory that bodies of requests take, in total and for each sender, before the bodies are read."""

from collections.abc import Hashable
from math import ceil

from service.http.errors import Problem
from service.http.limits import RateLimiter

# Heartbeats up to this size have a budget of their own, so that large bodies never stop the fleet from reporting.
SMALL_BYTES = 64 << 10
ALL_SMALL_BYTES = 16 << 20
ALL_LARGE_BYTES = 48 << 20
SENDERS_LARGE_BYTES = 16 << 20  # two batches
# Of large bodies. A machine that replays its spool sends 64 MiB in total (LINKBEAT_SPOOL_MIB).
LARGE_BYTES_PER_MINUTE = 64 << 20

RETRY_AFTER_SECONDS = 2
# The unread rest of the body must not be parsed as the next request.
_CLOSE = {"Connection": "close"}


class Budget:
    """The bytes of bodies that this process holds, from their arrival to the response."""

    def __init__(self, large_bytes_per_minute: float = LARGE_BYTES_PER_MINUTE) -> None:
        self.small_bytes = 0
        self.large_bytes = 0
        self.of_sender: dict[Hashable, int] = {}  # large bodies only
        self.rates = RateLimiter(large_bytes_per_minute)


class Held:
    """The share of the budget that one request holds, until `release`.

    sender      a server's token, or the token and address of a machine that shares a token with others
    is_limited  whether the sender's large bodies are also limited per minute: only if it is one machine
    """

    __slots__ = ("_budget", "_is_limited", "_reserved", "_sender", "bytes")

    def __init__(self, budget: Budget, sender: Hashable, *, is_limited: bool) -> None:
        self._budget = budget
        self._sender = sender
        self._is_limited = is_limited
        self._reserved = 0
        self.bytes = 0

    def expect(self, length: int | None) -> None:
        """Reserves `length` bytes before a body is read; None: the length is unknown, or the body is compressed.

        Raises Problem: 503 if there is no room, 429 if the sender has sent too much.
        """
        if length is not None and length <= SMALL_BYTES:
            return
        if self._is_limited and (seconds := self._budget.rates.wait_seconds(self._sender)):
            raise Problem(
                "too_many_requests",
                "too many large bodies with this token",
                headers={"Retry-After": str(max(1, ceil(seconds))), **_CLOSE},
            )
        if length is not None:
            self.grow(length)
            self._reserved = length

    def arrived(self, more: int) -> None:
        """Counts `more` bytes that arrived, except those that `expect` reserved. Raises Problem (503)."""
        if self._reserved:
            covered = min(more, self._reserved)
            self._reserved -= covered
            more -= covered
        if more:
            self.grow(more)

    def grow(self, more: int) -> None:
        """Takes `more` bytes of the budget. Raises Problem (503) if there is no room."""
        budget, size = self._budget, self.bytes + more
        if size <= SMALL_BYTES:
            if budget.small_bytes + more > ALL_SMALL_BYTES:
                raise _no_room()
            budget.small_bytes += more
        else:
            was_small = self.bytes <= SMALL_BYTES
            added = size if was_small else more
            if (
                budget.large_bytes + added > ALL_LARGE_BYTES
                or budget.of_sender.get(self._sender, 0) + added > SENDERS_LARGE_BYTES
            ):
                raise _no_room()
            if was_small:
                budget.small_bytes -= self.bytes
            budget.large_bytes += added
            budget.of_sender[self._sender] = budget.of_sender.get(self._sender, 0) + added
        self.bytes = size

    def is_read(self) -> None:
        """Counts the complete body toward the sender's rate."""
        if self._is_limited and self.bytes > SMALL_BYTES:
            self._budget.rates.take(self._sender, self.bytes)

    def release(self) -> None:
        budget = self._budget
        if self.bytes <= SMALL_BYTES:
            budget.small_bytes -= self.bytes
        else:
            budget.large_bytes -= self.bytes
            left = budget.of_sender.pop(self._sender) - self.bytes
            if left:
                budget.of_sender[self._sender] = left
        self.bytes = self._reserved = 0


def _no_room() -> Problem:
    return Problem(
        "overloaded",
        "other requests use all the memory for bodies",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS), **_CLOSE},
    )
