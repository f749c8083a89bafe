"""High availability: the primary dies in the middle of what works in the background, and of an upgrade."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from service.database import schema
from service.operations.verify import verify
from tests.helpers.ha.cluster import HaCluster, Node
from tests.helpers.ha.drill import SLACK, connected, emptied
from tests.helpers.history import write_rows
from tests.helpers.processes import killable_service, linkbeat
from tests.helpers.support import hours_ago

# Of the jobs that the service does itself; TimescaleDB's own have theirs.
INTERVALS = 2
SERVERS = tuple(f"server-{number:02}" for number in range(20))
GONE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, schema.SchemaError)
WORK = {
    "refresh": "CALL linkbeat.refresh_aggregates(now())",
    "compression": "CALL linkbeat.compress_samples(now() - INTERVAL '9 days')",
    "drop_chunks": "SELECT drop_chunks('network_interface_metrics', older_than => now() - INTERVAL '10 days')",
    "removal": "SELECT linkbeat.remove_server('server-07'); CALL linkbeat.erase_removed()",
    "migrate": "",
}


async def fill(node: Node) -> None:
    """Twelve days of rows in place of those that are there, of which six are in the aggregates."""
    async with connected(node) as database:
        await database.execute("TRUNCATE network_interface_metrics, server_metrics, filesystem_metrics")
        if await database.fetchval("SELECT edition = 'apache' FROM linkbeat.installation"):
            # As if the aggregates had been made with the first of these rows.
            day = hours_ago(13 * 24).replace(hour=0, minute=0)
            await database.execute(
                "UPDATE linkbeat.watermarks SET watermark = $1, taking = $1, floor = '-infinity'", day
            )
        await write_rows(database, hours_ago(12 * 24), hours_ago(0), timedelta(hours=2), SERVERS)
        await write_rows(database, hours_ago(6), hours_ago(0), timedelta(minutes=1), SERVERS[:5])
        await database.execute(
            "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) "
            "SELECT s, s, now(), now(), now() FROM unnest($1::text[]) AS s ON CONFLICT DO NOTHING",
            SERVERS,
        )
        await database.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '6 days')")


async def do(work: str, node: Node, *, is_held: bool = False) -> None:
    """One kind of work on that node; raises one of GONE where the node goes.

    is_held  drop_chunks is over in no time: it is held before its commit
    """
    if work == "migrate":
        async with connected(node) as database:
            await database.execute("UPDATE linkbeat.installation SET fingerprint = 'of another version'")
        await schema.migrate(node.url(), print)
        return
    async with connected(node) as database:
        if work == "drop_chunks":
            async with database.transaction():
                await database.execute(WORK[work])
                if is_held:
                    await database.execute("SELECT pg_sleep(60)")
            return
        for statement in WORK[work].split("; "):
            await database.execute(statement)


@pytest.mark.parametrize("work", WORK)
async def test_d14_the_primary_dies_meanwhile(ha: HaCluster, tmp_path: Path, work: str) -> None:
    async with emptied(ha) as primary:
        async with connected(primary) as database:
            is_community = await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation")
        if work == "compression" and not is_community:
            pytest.skip(
                "the Apache edition compresses nothing: set LINKBEAT_DRILL_POSTGRES_BIN to a Community server's"
            )
        await fill(primary)
        took = await timed(lambda: do(work, primary))
        await fill(primary)
        working = asyncio.create_task(do(work, primary, is_held=True))
        await asyncio.sleep(took / 2)
        await asyncio.to_thread(primary.kill)
        was_at_it = False
        try:
            await working
        except GONE:
            was_at_it = True
        killed = time.monotonic()
        after = await ha.primary(other_than=primary)
        elected = time.monotonic() - killed
        if work == "migrate":
            await schema.migrate(after.url(), print)
        async with killable_service(ha.url, tmp_path):
            started = time.monotonic()
            healthy = await jobs_are_healthy(after)
        primary.start()
        await ha.healthy()
        async with connected(after) as database:
            await refresh(database)
            if work == "removal":
                left = "SELECT count(*) FROM network_interface_metrics WHERE server_id = 'server-07'"
                while await database.fetchval("SELECT count(*) FROM linkbeat.removals"):
                    await database.execute("CALL linkbeat.erase_removed()")
                assert await database.fetchval(left) == 0
        found = await verify(after.url())
        assert found.wrong == 0, [line for one in found.differences for line in one.lines()]
        assert found.waiting == 0
        # On the old primary, which is a standby now: it writes nothing.
        on_standby = await asyncio.to_thread(linkbeat, primary.url(), tmp_path, "verify")
        assert (on_standby.returncode, on_standby.stdout) == (0, "0 rows differ\n"), on_standby
    print(
        f"D14: {work}: killed {'in the middle' if was_at_it else 'after it had ended'}; new primary after "
        f"{elected:.1f} s; jobs in order {healthy - started:.1f} s after the service started; {found.compared} "
        f"buckets, 0 differ, on a standby neither"
    )
    assert healthy - started <= INTERVALS * 30 * SLACK


async def refresh(database: asyncpg.Connection) -> None:
    """On Community, TimescaleDB's own job may be at it: of two refreshes of one aggregate the later one gives up."""
    deadline = time.monotonic() + 120
    while True:
        try:
            await database.execute("CALL linkbeat.refresh_aggregates(now())")
        except asyncpg.LockNotAvailableError:
            assert time.monotonic() < deadline
            await asyncio.sleep(1)
        else:
            return


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    """How long it takes when nothing is in its way, in seconds."""
    started = time.monotonic()
    await work()
    return max(0.2, min(time.monotonic() - started, 5.0))


async def jobs_are_healthy(node: Node) -> float:
    """The moment from which no job is overdue or failing."""
    bad = "SELECT count(*) FROM linkbeat.jobs WHERE state NOT IN ('ok', 'taken over')"
    async with connected(node) as database:
        deadline = time.monotonic() + 300
        while await database.fetchval(bad):
            assert time.monotonic() < deadline, await database.fetch("SELECT * FROM linkbeat.jobs")
            await asyncio.sleep(0.2)
        return time.monotonic()
