"""The work that TimescaleDB's own policies do where the edition has them: linkbeat.maintain(), every half minute.

One process of many does it at a time. Nothing that is read depends on it: where it stops, reads get slower.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Self

import asyncpg

from service.database import CONNECT_SECONDS, UNREACHABLE

log = logging.getLogger("linkbeat")

INTERVAL_SECONDS = 30.0
LIMIT_SECONDS = 600.0
_LOCK = "linkbeat.installation"


class Maintenance:
    """The loop, for as long as the service lives."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="linkbeat maintenance")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                await maintain(self._url)
            except (*UNREACHABLE, asyncpg.PostgresError) as raised:
                log.warning("maintenance failed, next try in %.0f s: %s", INTERVAL_SECONDS, raised)
            await asyncio.sleep(INTERVAL_SECONDS)


async def maintain(url: str) -> bool:
    """One turn; False where another process has it."""
    connection = await asyncpg.connect(
        url,
        timeout=CONNECT_SECONDS,
        command_timeout=LIMIT_SECONDS,
        server_settings={"application_name": "linkbeat maintenance", "lock_timeout": "5s", "timezone": "UTC"},
    )
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1::regclass::oid::bigint)", _LOCK):
            return False
        await connection.execute("CALL linkbeat.maintain()")
        return True
    finally:
        connection.terminate()  # which gives the lock back, whatever state the connection is in
