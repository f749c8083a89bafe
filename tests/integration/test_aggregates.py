"""The aggregates of all three histories, on rows written straight into the tables; and what comes late."""

import asyncio
import random
from datetime import datetime, timedelta

import asyncpg
import pytest

from tests.helpers.aggregates import COLUMNS, LEVELS, RELATIONS
from tests.helpers.history import TABLES, write_rows
from tests.helpers.support import differing_rows, hours_ago

RIGHT = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


async def refresh(database: asyncpg.Connection, until: datetime | None = None) -> None:
    await database.execute(f"CALL linkbeat.refresh_aggregates('{until or datetime.now().astimezone()}')")


async def shows_late_rows_at_once(database: asyncpg.Connection) -> bool:
    return bool(await database.fetchval("SELECT edition = 'apache' FROM linkbeat.installation"))


@pytest.mark.parametrize("relation", RELATIONS)
async def test_its_columns_are_the_same_on_both_editions(database: asyncpg.Connection, relation: str) -> None:
    rows = await database.fetch(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
        relation,
    )

    assert [tuple(row) for row in rows] == COLUMNS[relation.rpartition("_")[0]]


async def test_every_level_is_what_its_rows_come_to_before_and_after_a_refresh(database: asyncpg.Connection) -> None:
    since = hours_ago(50)
    await write_rows(database, since, since + timedelta(hours=50), timedelta(minutes=5))
    await write_rows(database, hours_ago(2), hours_ago(0))

    assert await differing_rows(database) == RIGHT
    for until in (since + 7.3 * HOUR, since + 30 * HOUR, hours_ago(0)):
        await refresh(database, until)
        assert await differing_rows(database) == RIGHT
    for family in COLUMNS:
        for level in LEVELS:
            assert await database.fetchval(f"SELECT count(*) > 0 FROM {family}_{level}")


async def test_expected_samples_follow_the_levels_own_width(database: asyncpg.Connection) -> None:
    await write_rows(database, hours_ago(30), hours_ago(28), servers=("nas",))
    await database.execute("UPDATE network_interface_metrics SET interval_ms = 7000")
    await refresh(database)

    found = {
        level: await database.fetch(f"SELECT DISTINCT expected_samples FROM network_traffic_{level}")
        for level in LEVELS
    }

    assert {level: [row[0] for row in rows] for level, rows in found.items()} == {
        "1m": [9], "15m": [129], "1h": [514], "1d": [12343],
    }  # fmt: skip


async def test_an_interval_longer_than_a_bucket_expects_one_sample(database: asyncpg.Connection) -> None:
    await write_rows(database, hours_ago(3), hours_ago(2), timedelta(minutes=30), servers=("nas",))
    await database.execute(
        "UPDATE network_interface_metrics SET interval_ms = CASE interface_name WHEN 'eth0' THEN 86400000 ELSE 0 END"
    )

    rows = await database.fetch("SELECT interval_ms, expected_samples FROM network_traffic_1m")

    assert {tuple(row) for row in rows} == {(86_400_000, 1), (0, 60_000)}


async def test_late_rows_show_at_every_level(database: asyncpg.Connection) -> None:
    since, until = hours_ago(6 * 24), hours_ago(5 * 24)
    await write_rows(database, since, until, timedelta(minutes=2))
    await write_rows(database, hours_ago(3), hours_ago(0), timedelta(minutes=2))
    await refresh(database)

    # In order, in reverse, alone, and of a server that was not known then.
    await write_rows(database, since + HOUR + MINUTE, since + 5 * HOUR, timedelta(minutes=2))
    for n in reversed(range(5)):
        await write_rows(database, since + (n + 6) * HOUR + MINUTE, since + (n + 7) * HOUR, timedelta(minutes=7))
    await write_rows(database, since + 20 * HOUR + MINUTE, since + 20 * HOUR + 2 * MINUTE, servers=("pi",))
    await write_rows(database, since, hours_ago(0), timedelta(hours=5), servers=("new",))

    if await shows_late_rows_at_once(database):
        assert await differing_rows(database) == RIGHT
    await refresh(database)
    assert await differing_rows(database) == RIGHT


async def test_rows_that_are_changed_or_deleted_change_their_buckets(database: asyncpg.Connection) -> None:
    since = hours_ago(30)
    await write_rows(database, since, since + 20 * HOUR, timedelta(minutes=3))
    await refresh(database)
    for table in TABLES:
        await database.execute(
            f"DELETE FROM {table} WHERE time >= $1 AND time < $2", since + 3 * HOUR, since + 5 * HOUR
        )
        await database.execute(f"DELETE FROM {table} WHERE server_id = 'pi' AND time < $1", since + 2 * HOUR)
    for change in (
        "UPDATE network_interface_metrics SET rx_bytes_delta = 7, delta_kind = 'reset' WHERE rx_bytes_delta % 3 = 0",
        "UPDATE network_interface_metrics SET is_folded = true WHERE interface_name = 'veth1'",
        "UPDATE server_metrics SET cpu_percent = NULL WHERE server_id = 'pi'",
        "UPDATE filesystem_metrics SET used_bytes = -2 WHERE mount_point = '/'",
    ):
        await database.execute(change)

    if await shows_late_rows_at_once(database):
        assert await differing_rows(database) == RIGHT
    await refresh(database)
    assert await differing_rows(database) == RIGHT
    assert await database.fetchval("SELECT count(*) FROM network_traffic_1d WHERE interface_name = 'veth1'") == 0


async def test_emptied_tables_leave_nothing_behind(database: asyncpg.Connection) -> None:
    # Within a day: of a day without any rows, a refresh cannot tell whether retention has dropped them.
    start = hours_ago(48).replace(hour=10, minute=0)
    await write_rows(database, start, start + 2 * HOUR)
    await refresh(database)

    for table in TABLES:
        await database.execute(f"TRUNCATE {table}")
    await write_rows(database, start + HOUR, start + 1.1 * HOUR)
    await refresh(database)

    assert await differing_rows(database) == RIGHT


async def test_nothing_is_lost_or_doubled_while_refreshes_readers_and_writers_work_at_once(
    database: asyncpg.Connection, database_url: str
) -> None:
    """Four writers of late rows, one refresh after another, and a reader: what was there stays as it is.

    A late row that Community has shown from the raw rows may be below the watermark a moment later, until the next
    refresh; on Apache none disappears.
    """
    rng = random.Random(7)
    since = hours_ago(40)
    await write_rows(database, since, since + 2 * DAY, timedelta(minutes=10))
    await refresh(database, since + 5 * HOUR)
    at_once = await shows_late_rows_at_once(database)
    expected = await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE NOT is_folded")
    moments = [since + timedelta(minutes=rng.randrange(1, 39 * 60), seconds=7) for _ in range(160)]
    done = asyncio.Event()

    async def writer(mine: list[datetime], server: str) -> None:
        connection = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
        for moment in mine:
            await write_rows(connection, moment, moment + MINUTE, servers=(server,))
        await connection.close()

    async def refresher() -> None:
        connection = await asyncpg.connect(database_url)
        hours = 5.0
        while not done.is_set():
            hours = min(hours + 1.7, 39.5)
            await refresh(connection, since + hours * HOUR)
        await connection.close()

    async def reader() -> None:
        connection = await asyncpg.connect(database_url)
        last = dict.fromkeys(LEVELS, 0)
        while not done.is_set():
            for level in LEVELS:
                rows = await connection.fetch(
                    "SELECT server_id IN ('nas', 'pi') AS is_old, sum(samples) AS samples "
                    f"FROM network_traffic_{level} GROUP BY 1"
                )
                found = {row["is_old"]: row["samples"] for row in rows}
                assert found[True] == expected, level
                assert found.get(False, 0) >= last[level] or not at_once, level
                last[level] = found.get(False, 0)
        await connection.close()

    background = [asyncio.create_task(refresher()), asyncio.create_task(reader())]
    await asyncio.gather(*(writer(moments[n::4], f"writer-{n}") for n in range(4)))
    done.set()
    await asyncio.gather(*background)

    if at_once:
        assert await differing_rows(database) == RIGHT
    await refresh(database)
    assert await differing_rows(database) == RIGHT


async def test_levels_that_are_refreshed_at_the_same_time_hide_nothing_from_each_other(
    database: asyncpg.Connection, database_url: str
) -> None:
    """As the policies may: each level reads the one below while that is being materialized."""
    await write_rows(database, hours_ago(50), hours_ago(0), timedelta(minutes=3))
    jobs = await database.fetch(
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'"
    )
    statements = [f"CALL run_job({job['job_id']})" for job in jobs] or ["CALL linkbeat.refresh_aggregates(now())"] * 3

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(statement)
        await connection.close()

    running = asyncio.gather(*map(run, statements))
    while not running.done():
        assert await differing_rows(database) == RIGHT
    await running
    assert await differing_rows(database) == RIGHT


async def test_ingest_goes_on_while_buckets_are_taken_in(database: asyncpg.Connection, database_url: str) -> None:
    """A refresh that stands still; meanwhile a row of now, and one that belongs in what is just being read."""
    if await shows_late_rows_at_once(database):
        await database.execute("UPDATE linkbeat.watermarks SET watermark = $1, taking = $1", hours_ago(30))
    await write_rows(database, hours_ago(3), hours_ago(0), timedelta(minutes=5))
    kept = await database.fetchval("SELECT kept::text FROM linkbeat.kept WHERE relation = 'network_traffic_1m'")
    await database.execute(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock_shared(20260129); RETURN NEW; END $$;"
        f"CREATE TRIGGER dawdle BEFORE INSERT ON {kept} FOR EACH ROW EXECUTE FUNCTION dawdle()"
    )
    writers = [await asyncpg.connect(database_url, server_settings={"timezone": "UTC"}) for _ in range(2)]
    holding = await asyncpg.connect(database_url)
    await holding.execute("SELECT pg_advisory_lock(20260129)")
    refreshing = asyncio.create_task(database.execute("CALL linkbeat.refresh_aggregates(now())"))
    waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 20260129 AND NOT granted)"
    while not await holding.fetchval(waits):  # noqa: ASYNC110 - PostgreSQL tells nobody
        await asyncio.sleep(0.01)

    late = asyncio.create_task(write_rows(writers[0], hours_ago(2.5) + MINUTE, hours_ago(2.5) + 2 * MINUTE))
    async with asyncio.timeout(60):
        await write_rows(writers[1], hours_ago(0) + MINUTE, hours_ago(0) + 2 * MINUTE)
    assert not refreshing.done()

    await holding.close()
    await asyncio.gather(refreshing, late)
    for writer in writers:
        await writer.close()
    await database.execute(f"DROP TRIGGER dawdle ON {kept}")
    await refresh(database)
    assert await differing_rows(database) == RIGHT
