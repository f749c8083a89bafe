"""What the database says and every request asks, kept in memory and looked at again and again."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import asyncpg

from service.background import BackgroundTask
from service.database.pool import RETRY_AFTER_SECONDS, Database
from service.http.errors import Problem

POLL_SECONDS = 1.0
FAILED_SECONDS = 1.0


class PolledCache(BackgroundTask):
    """POLL_SECONDS old at most while the database is there.

    Asked again and again rather than listened for: what a process missed while its connection was away, it sees the
    next time, and behind a connection that hangs unseen it does not stay with what it has.
    """

    def __init__(self, database: Database, is_reachable: Callable[[], bool], name: str) -> None:
        super().__init__(name)
        self._database = database
        self._is_reachable = is_reachable
        self._refreshing = asyncio.Lock()
        self._seen = float("-inf")  # when all that was committed by then was known, by the monotonic clock
        self._failed = float("-inf")

    async def take(self) -> None:
        """Takes in what has changed, by a statement or more. Raises Problem (503)."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Sees all that is committed by now. Raises Problem (503)."""
        async with self._refreshing:  # in turns: what was read first must not replace what was read last
            await self._refresh()

    async def refresh_if_older(self, seconds: float) -> None:
        """Refreshes what is older. Raises Problem (503), at once where it has just failed."""
        if time.monotonic() - self._seen <= seconds:
            return
        async with self._refreshing:
            now = time.monotonic()
            if now - self._seen <= seconds:
                return  # whoever was first in the queue did it for all
            if now - self._failed < FAILED_SECONDS:
                raise Problem.retry("database_unavailable", "the database did not answer in time", RETRY_AFTER_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        started = time.monotonic()
        try:
            await self.take()
        except BaseException:
            self._failed = time.monotonic()
            raise
        self._seen = started

    async def _run(self) -> None:
        while True:
            if self._is_reachable():  # else ingest has said so, once
                with suppress(Problem, asyncpg.PostgresError):
                    await self.refresh()
                    await self.after_poll()
            await asyncio.sleep(POLL_SECONDS)

    async def after_poll(self) -> None:
        """What is to be written now and then."""
