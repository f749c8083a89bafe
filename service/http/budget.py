"""What the bodies of requests may take of the process, together and by sender; said before they are read."""

from collections.abc import Hashable
from math import ceil

from service.http.errors import Problem
from service.http.limits import Buckets

# Heartbeats of this size have bytes of their own: however many large bodies come, the fleet reports on.
SMALL_BYTES = 64 << 10
ALL_SMALL_BYTES = 16 << 20
ALL_LARGE_BYTES = 48 << 20
SENDERS_LARGE_BYTES = 16 << 20  # two batches
# Beyond the small ones. A machine that replays its spool sends 64 MiB in all (LINKBEAT_SPOOL_MIB).
LARGE_BYTES_PER_MINUTE = 64 << 20

RETRY_AFTER_SECONDS = 2
# What is not read of the body must not be taken for the next request.
_CLOSE = {"Connection": "close"}


class Budget:
    """The bytes of bodies that this process holds, from their arrival to the answer."""

    def __init__(self, large_bytes_per_minute: float = LARGE_BYTES_PER_MINUTE) -> None:
        self.small_bytes = 0
        self.large_bytes = 0
        self.of_sender: dict[Hashable, int] = {}  # of the large ones
        self.rates = Buckets(large_bytes_per_minute)


class Held:
    """What one request holds of the budget; `release` gives it back.

    sender      whose it is: a server's token, or a machine that shares a token with others
    is_limited  whether the sender's large bodies are also limited by the minute: it is one machine
    """

    __slots__ = ("_budget", "_is_limited", "_reserved", "_sender", "bytes")

    def __init__(self, budget: Budget, sender: Hashable, *, is_limited: bool) -> None:
        self._budget = budget
        self._sender = sender
        self._is_limited = is_limited
        self._reserved = 0
        self.bytes = 0

    def expect(self, length: int | None) -> None:
        """Before a body is read: `length`, None where that is not known, or it is compressed.

        Raises Problem: 503 where there is no room for it, 429 where the sender has sent too much.
        """
        if length is not None and length <= SMALL_BYTES:
            return
        if self._is_limited and (seconds := self._budget.rates.wait_seconds(self._sender)):
            raise Problem(
                "too_many_requests",
                "this token's large bodies are too many",
                headers={"Retry-After": str(max(1, ceil(seconds))), **_CLOSE},
            )
        if length is not None:
            self.grow(length)
            self._reserved = length

    def arrived(self, more: int) -> None:
        """So many bytes came, of which what was expected is held already. Raises Problem (503)."""
        if self._reserved:
            covered = min(more, self._reserved)
            self._reserved -= covered
            more -= covered
        if more:
            self.grow(more)

    def grow(self, more: int) -> None:
        """Raises Problem (503) where there is no room for it."""
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
        """The body is complete."""
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
        "the bodies of other requests take all the memory that they may",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS), **_CLOSE},
    )
