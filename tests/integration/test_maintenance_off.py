"""LINKBEAT_MAINTENANCE=off: nothing is dropped or erased, and what is asked says so."""

from datetime import timedelta

import asyncpg
import msgspec
import pytest

from service.app import create_app
from service.database.maintenance import maintain
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.history import write_rows
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

pytestmark = pytest.mark.background

OFF = "off (LINKBEAT_MAINTENANCE)"
# Of the service's own: on Community they are TimescaleDB's, and none of its is scheduled in tests.
_OLD = "SELECT count(*) FROM network_interface_metrics WHERE time < now() - INTERVAL '15 days'"
_STARTED = "SELECT count(*) FROM linkbeat.maintenance WHERE last_start IS NOT NULL"


async def is_community(database: asyncpg.Connection) -> bool:
    return bool(await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"))


async def test_nothing_is_dropped_or_erased(
    database: asyncpg.Connection, database_url: str, settings: Settings
) -> None:
    await write_rows(database, hours_ago(20 * 24), hours_ago(20 * 24 - 1), timedelta(minutes=10))
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    old = await database.fetchval(_OLD)
    is_apache = not await is_community(database)
    await database.execute("UPDATE linkbeat.maintenance SET last_start = NULL")  # all of it is due
    off = msgspec.structs.replace(settings, maintenance="off")

    async with in_process(create_app(off, database_url=database_url, key=KEY)) as client:
        await client.post(heartbeat("gone", eth0=(1, 1)))
        removed = await client.http.delete("/api/v1/servers/gone")

        assert removed.status_code == 202
        assert await database.fetchval("SELECT count(*) FROM linkbeat.removals") == 1
        assert await database.fetchval(_STARTED) == 0
        assert await database.fetchval(_OLD) == old > 0

    # What it would have done.
    await maintain(database_url)
    if is_apache:
        assert await database.fetchval(_OLD) == 0


async def test_health_and_info_say_that_it_is_off(
    database: asyncpg.Connection, database_url: str, settings: Settings, service: Client
) -> None:
    off = msgspec.structs.replace(settings, maintenance="off")
    async with in_process(create_app(off, database_url=database_url, key=KEY)) as client:
        ready = (await client.http.get("/health/ready")).json()

        assert (ready["status"], ready["jobs"]) == ("ready", OFF)
        assert (await client.get("/system/info"))["maintenance"] == OFF
    assert (await service.get("/system/info"))["maintenance"] == "on"


async def test_they_say_that_timescaledbs_own_jobs_run_all_the_same(
    database: asyncpg.Connection, database_url: str, settings: Settings
) -> None:
    if not await is_community(database):
        return  # the Apache edition has none
    await database.execute(
        "SELECT alter_job(job_id, scheduled => true, next_start => now() + INTERVAL '1 day') "
        "FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention'"
    )
    off = msgspec.structs.replace(settings, maintenance="off")
    async with in_process(create_app(off, database_url=database_url, key=KEY)) as client:
        ready = (await client.http.get("/health/ready")).json()

        assert ready["jobs"] == (
            f"{OFF}, but TimescaleDB's own jobs run: set timescaledb.max_background_workers = 0 in its server"
        )
        assert (await client.get("/system/info"))["maintenance"] == ready["jobs"]
