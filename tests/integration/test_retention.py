"""What is dropped when, what stays, and rows that come into chunks that were compressed already."""

from datetime import datetime, timedelta

import asyncpg

from tests.helpers.aggregates import LEVELS
from tests.helpers.history import TABLES, write_rows
from tests.helpers.support import differing_rows, hours_ago

RIGHT = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
DAY = timedelta(days=1)
EVERY = timedelta(minutes=20)


async def refresh(database: asyncpg.Connection) -> None:
    await database.execute("CALL linkbeat.refresh_aggregates(now())")


async def retain(database: asyncpg.Connection) -> None:
    """Retention as it runs by itself: the policies where there are any, the service's job where there are none."""
    jobs = await database.fetch("SELECT statement FROM linkbeat.jobs WHERE job LIKE 'retention%'")
    assert len(jobs) in (1, 15)
    for job in jobs:
        await database.execute(job["statement"])


async def samples(database: asyncpg.Connection, level: str) -> dict[datetime, int]:
    """How many samples each day has at a level, over all three histories."""
    rows = await database.fetch(
        "SELECT time_bucket('1 day', bucket) AS day, sum(samples)::bigint AS samples FROM ("
        f"SELECT bucket, samples FROM network_traffic_{level} UNION ALL "
        f"SELECT bucket, samples FROM server_metrics_{level} UNION ALL "
        f"SELECT bucket, samples FROM filesystem_metrics_{level}) s GROUP BY 1"
    )
    return {row["day"]: row["samples"] for row in rows}


def midnight(days: float) -> datetime:
    return hours_ago(24 * days).replace(hour=0, minute=0)


async def test_each_level_is_kept_for_as_long_as_the_settings_say(database: asyncpg.Connection) -> None:
    days = {"1m": 30, "15m": 400, "1h": 1826, "1d": 1826}
    moments = {age: midnight(age) for age in (2000, 500, 60, 20, 10)}
    for moment in moments.values():
        await write_rows(database, moment, moment + DAY, EVERY)
    await database.execute("UPDATE linkbeat.configuration SET days = 3000 WHERE setting = 'retain_raw_days'")
    await refresh(database)
    await database.execute("UPDATE linkbeat.configuration SET days = 14 WHERE setting = 'retain_raw_days'")
    before = {level: await samples(database, level) for level in LEVELS}

    await retain(database)

    for table in TABLES:
        oldest = await database.fetchval(f"SELECT min(time) FROM {table}")
        assert oldest == moments[10], table
    for level, kept in days.items():
        after = await samples(database, level)
        assert {day for day in after if day < midnight(kept + 366)} == set(), level
        for age, moment in moments.items():
            if age < kept:
                assert after[moment] == before[level][moment] > 0, (level, age)


async def test_aggregates_outlive_their_rows_whatever_comes_or_is_refreshed_after(database: asyncpg.Connection) -> None:
    old, late = midnight(20), midnight(5)
    await write_rows(database, old, old + DAY, EVERY)
    await write_rows(database, late, late + DAY, EVERY)
    await database.execute("UPDATE linkbeat.configuration SET days = 30 WHERE setting = 'retain_raw_days'")
    await refresh(database)
    await database.execute("UPDATE linkbeat.configuration SET days = 14 WHERE setting = 'retain_raw_days'")
    before = {level: (await samples(database, level))[old] for level in LEVELS}
    await retain(database)

    await write_rows(database, late + timedelta(minutes=1), late + DAY, EVERY)
    # Older than the service would take, where the rows around it are gone.
    await write_rows(database, old + timedelta(hours=7, minutes=1), old + timedelta(hours=7, minutes=2))
    await refresh(database)
    await retain(database)
    await refresh(database)

    assert {level: (await samples(database, level))[old] for level in LEVELS} == before
    for table in TABLES:
        assert await database.fetchval(f"SELECT min(time) FROM {table}") == late
    stored = sum([await database.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES])
    folded = await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE is_folded")
    for level in LEVELS:
        assert await samples(database, level) == {old: before[level], late: stored - folded}


async def test_rows_that_no_aggregate_has_taken_in_are_not_dropped(database: asyncpg.Connection) -> None:
    """Where the service does it: TimescaleDB's policies know nothing of each other."""
    if await database.fetchval("SELECT to_regclass('linkbeat.watermarks') IS NULL"):
        return
    await database.execute("UPDATE linkbeat.watermarks SET watermark = $1, taking = $1", midnight(30))
    await write_rows(database, midnight(20), midnight(19), EVERY)
    stored = await database.fetchval("SELECT count(*) FROM network_interface_metrics")

    await retain(database)
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == stored
    assert await differing_rows(database) == RIGHT

    await refresh(database)
    await retain(database)
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == 0
    assert (await samples(database, "1d"))[midnight(20)] > 0


async def test_a_day_that_is_replayed_into_compressed_chunks_with_half_of_it_there_is_stored_once(
    database: asyncpg.Connection,
) -> None:
    since = midnight(5)
    there = await write_rows(database, since, since + DAY, timedelta(minutes=2))
    await refresh(database)
    compressed = 0
    if not await database.fetchval("SELECT count(*) FROM linkbeat.maintenance"):
        compressed = await database.fetchval(
            "SELECT count(compress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass)) "
            "FROM timescaledb_information.chunks WHERE range_start < $1 AND NOT is_compressed",
            since + DAY,
        )
        assert compressed >= 6

    stored = await write_rows(database, since, since + DAY, timedelta(minutes=1))
    again = await write_rows(database, since, since + DAY, timedelta(minutes=1))

    assert (stored, again) == (there, 0)
    assert await database.fetchval("SELECT count(*) FROM server_metrics") == 2 * 24 * 60
    await refresh(database)
    assert await differing_rows(database) == RIGHT
