"""LINKBEAT_MAINTENANCE=off: nothing is dropped or erased, and what is asked says so."""

import asyncio
from datetime import timedelta

import asyncpg
import msgspec

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.history import write_rows
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

OFF = "off (LINKBEAT_MAINTENANCE)"
# Of the service's own: on Community they are TimescaleDB's, and none of its is scheduled in tests.
_STARTED = "SELECT count(*) FROM linkbeat.maintenance WHERE last_start IS NOT NULL"


async def is_community(database: asyncpg.Connection) -> bool:
    return bool(await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"))


async def test_nothing_is_dropped_or_erased_until_it_is_on_again(
    database: asyncpg.Connection, database_url: str, settings: Settings
) -> None:
    await write_rows(database, hours_ago(20 * 24), hours_ago(20 * 24 - 1), timedelta(minutes=10))
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    old = await database.fetchval("SELECT count(*) FROM network_interface_metrics")
    is_apache = not await is_community(database)
    off = msgspec.structs.replace(settings, maintenance="off")

    async with in_process(create_app(off, database_url=database_url, key=KEY)) as client:
        await client.post(heartbeat("gone", eth0=(1, 1)))
        removed = await client.http.delete("/api/v1/servers/gone")

        assert removed.status_code == 202
        assert await database.fetchval("SELECT count(*) FROM linkbeat.removals") == 1
        assert await database.fetchval(_STARTED) == 0
        assert (
            await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE server_id <> 'gone'") == old
        )

    async with in_process(create_app(settings, database_url=database_url, key=KEY)):
        while await database.fetchval("SELECT count(*) FROM linkbeat.removals"):  # noqa: ASYNC110 (no event for it)
            await asyncio.sleep(0.05)
        if is_apache:  # it is retention that the service does itself
            while await database.fetchval("SELECT count(*) FROM network_interface_metrics"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


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
