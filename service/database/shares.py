"""Limits the connections of a pool that the requests of one token may hold, so that other tokens need not wait."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from service.http.errors import Problem

WAIT_SECONDS = 1.0
RETRY_AFTER_SECONDS = 2

# The token of the current request, set by service/access/identity.py; None: no token, or one without a limit.
reader: ContextVar[Hashable] = ContextVar("reader", default=None)


class Shares:
    """Counts the connections of one pool that each reader holds."""

    def __init__(self, most: int | None) -> None:
        """`most` connections for one reader at a time; None: no limit."""
        self._most = most
        self._held: dict[Hashable, _Held] = {}

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Takes a connection for the reader of the request. Raises Problem (429) if its share stays used up."""
        key = reader.get()
        if self._most is None or key is None:
            yield
            return
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(self._most)
        held.statements += 1
        try:
            await held.take()
            try:
                yield
            finally:
                held.free.release()
        finally:
            held.statements -= 1
            if not held.statements:
                del self._held[key]


class _Held:
    """The share of one reader.

    free        connections that it may still take
    statements  its statements that hold a connection or wait for one
    """

    __slots__ = ("free", "statements")

    def __init__(self, most: int) -> None:
        self.free = asyncio.Semaphore(most)
        self.statements = 0

    async def take(self) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.free.acquire()
        except TimeoutError:
            raise Problem.retry(
                "too_many_requests", "other requests with this token use its share of the database", RETRY_AFTER_SECONDS
            ) from None
