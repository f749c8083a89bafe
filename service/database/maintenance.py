"""The work in the background that TimescaleDB does not do: all of it on the Apache edition, which has no policies; on
Community the policies that its scheduler fails at or does not come to.

Which that is, linkbeat.jobs says. One process of many does it at a time, and writes down how it went. Nothing that is
read depends on it: where it stops, reads get slower and nothing is dropped.
"""

import asyncio
import logging

import asyncpg

from service.background import BackgroundTask
from service.database.leases import leased
from service.database.pool import UNREACHABLE

log = logging.getLogger("linkbeat")

INTERVAL_SECONDS = 30.0
LIMIT_SECONDS = 600.0
LEASE = "maintenance"

_DUE = "SELECT job, statement, every FROM linkbeat.jobs WHERE is_due ORDER BY every, job"
_STARTED = """
INSERT INTO linkbeat.maintenance (job, statement, every, is_taken_over, last_start)
VALUES ($1, $2, $3, true, clock_timestamp())
ON CONFLICT (job) DO UPDATE SET last_start = EXCLUDED.last_start
"""
_SUCCEEDED = """
UPDATE linkbeat.maintenance SET last_success = clock_timestamp(), consecutive_failures = 0, last_error = NULL
WHERE job = $1
"""
_FAILED = """
UPDATE linkbeat.maintenance
SET last_failure = clock_timestamp(), consecutive_failures = consecutive_failures + 1, last_error = $2
WHERE job = $1
"""


class Maintenance(BackgroundTask):
    """The loop, for as long as the service lives."""

    def __init__(self, url: str) -> None:
        super().__init__("maintenance")
        self._url = url

    async def _run(self) -> None:
        while True:
            try:
                await maintain(self._url)
            except (*UNREACHABLE, asyncpg.PostgresError) as raised:
                log.warning("maintenance failed, next try in %.0f s: %s", INTERVAL_SECONDS, raised)
            await asyncio.sleep(INTERVAL_SECONDS)


async def maintain(url: str) -> bool:
    """One turn of all jobs that are due; False where another process has it.

    A job that fails is written down as failed, and does not keep the others from their turn.
    """
    async with leased(
        url, LEASE, command_seconds=LIMIT_SECONDS, settings={"application_name": "linkbeat maintenance"}
    ) as connection:
        if connection is None:
            return False
        for job, statement, every in await connection.fetch(_DUE):
            await connection.execute(_STARTED, job, statement, every)
            try:
                await connection.execute(statement)
            except asyncpg.PostgresError as raised:
                log.warning("maintenance: %s failed: %s", job, raised)
                await connection.execute(_FAILED, job, str(raised))
            else:
                await connection.execute(_SUCCEEDED, job)
        return True
