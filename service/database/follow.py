"""A polled cache for data that every request needs."""

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
    """At most POLL_SECONDS old while the database is available.

    Polling instead of LISTEN: changes during an outage of the connection are seen by the next poll, and a connection
    that hangs silently is noticed.
    """

    def __init__(self, database: Database, is_reachable: Callable[[], bool], name: str) -> None:
        super().__init__(name)
        self._database = database
        self._is_reachable = is_reachable
        self._refreshing = asyncio.Lock()
        self._seen = float("-inf")  # when the cache last had all committed data, by the monotonic clock
        self._failed = float("-inf")

    async def take(self) -> None:
        """Reads the changes with one or more statements. Raises Problem (503)."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Reads everything committed until now. Raises Problem (503)."""
        async with self._refreshing:  # one at a time: older results must not replace newer ones
            await self._refresh()

    def is_newer(self, seconds: float) -> bool:
        """Whether the cache is at most that old, so that refresh_if_older has nothing to do."""
        return time.monotonic() - self._seen <= seconds

    async def refresh_if_older(self, seconds: float) -> None:
        """Refreshes if the cache is older. Raises Problem (503), immediately if a refresh has just failed."""
        if time.monotonic() - self._seen <= seconds:
            return
        async with self._refreshing:
            now = time.monotonic()
            if now - self._seen <= seconds:
                return  # another waiting request has refreshed it
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
            if self._is_reachable():  # otherwise ingest has logged it, once
                with suppress(Problem, asyncpg.PostgresError):
                    await self.refresh()
                    await self.after_poll()
            await asyncio.sleep(POLL_SECONDS)

    async def after_poll(self) -> None:
        """Called after each poll, for periodic writes."""
