"""Work that one of many services does at a time: taken, kept, lost and handed on."""

import asyncio

import asyncpg
import pytest

from service.database import leases, schema
from service.database.leases import leased
from service.database.maintenance import LEASE, maintain
from service.fleet.removal import erase
from tests.helpers.support import Client, heartbeat

pytestmark = pytest.mark.background

TAKE = "SELECT linkbeat.take_lease('work', $1, $2)"
EXTEND = "SELECT linkbeat.extend_lease('work', $1, $2)"


async def test_a_lease_is_one_holders_until_it_expires_or_is_released(database: asyncpg.Connection) -> None:
    assert await database.fetchval(TAKE, "a", 60)
    assert await database.fetchval(TAKE, "a", 60)
    assert not await database.fetchval(TAKE, "b", 60)

    await database.execute("SELECT linkbeat.release_lease('work', 'b')")  # not b's to release
    assert not await database.fetchval(TAKE, "b", 60)
    await database.execute("SELECT linkbeat.release_lease('work', 'a')")

    assert await database.fetchval(TAKE, "b", 60)
    await database.execute("UPDATE linkbeat.leases SET until = clock_timestamp()")
    assert await database.fetchval(TAKE, "a", 60)


async def test_a_lease_that_somebody_else_has_had_since_is_not_extended(database: asyncpg.Connection) -> None:
    assert await database.fetchval(TAKE, "a", -1)
    assert await database.fetchval(EXTEND, "a", -1), "nobody has taken it"
    assert await database.fetchval(TAKE, "b", 60)
    assert not await database.fetchval(EXTEND, "a", 60)
    await database.execute("SELECT linkbeat.release_lease('work', 'b')")

    assert not await database.fetchval(EXTEND, "a", 60), "b's work may have changed what a has seen"


async def test_of_two_at_once_one_takes_it(database_url: str) -> None:
    connections = [await asyncpg.connect(database_url) for _ in range(4)]

    taken = await asyncio.gather(*(one.fetchval(TAKE, str(n), 60) for n, one in enumerate(connections)))

    assert sorted(taken) == [False, False, False, True]
    for one in connections:
        await one.close()


async def test_work_that_takes_longer_than_its_lease_keeps_it(
    database_url: str, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXTEND_SECONDS", 0.05)
    async with leased(database_url, "work", command_seconds=20, settings={}) as connection:
        assert connection is not None
        (first,) = await database.fetch("SELECT holder, until FROM linkbeat.leases")
        then = first
        async with asyncio.timeout(60):
            while then["until"] == first["until"]:
                await connection.execute("SELECT pg_sleep(0.5)")
                (then,) = await database.fetch("SELECT holder, until FROM linkbeat.leases")
        async with leased(database_url, "work", command_seconds=20, settings={}) as another:
            assert another is None

    assert then["holder"] == first["holder"]
    assert then["until"] > first["until"]
    assert await database.fetch("SELECT FROM linkbeat.leases") == []


async def test_work_whose_lease_is_lost_is_ended(
    database_url: str, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a process that stood still for longer than its lease."""
    monkeypatch.setattr(leases, "EXTEND_SECONDS", 0.05)

    async def work() -> None:
        async with leased(database_url, "work", command_seconds=60, settings={}) as connection:
            assert connection is not None
            await database.execute("UPDATE linkbeat.leases SET holder = 'another', until = 'infinity'")
            await connection.execute("SELECT pg_sleep(60)")

    with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresConnectionError)):
        await asyncio.wait_for(work(), 30)

    assert await database.fetchval("SELECT holder FROM linkbeat.leases") == "another", "it was not released for another"


async def test_work_that_fails_gives_its_lease_back(database_url: str, database: asyncpg.Connection) -> None:
    async def work() -> None:
        async with leased(database_url, "work", command_seconds=20, settings={}) as connection:
            assert connection is not None
            await connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await work()

    assert await database.fetch("SELECT FROM linkbeat.leases") == []


@pytest.mark.parametrize("lease", [LEASE, "removal"])
async def test_a_killed_process_keeps_its_lease_until_that_expires(
    database_url: str, database: asyncpg.Connection, lease: str
) -> None:
    turn = {LEASE: maintain, "removal": erase}[lease]
    await database.execute("SELECT linkbeat.take_lease($1, 'was killed', 600)", lease)
    assert not await turn(database_url)

    await database.execute("UPDATE linkbeat.leases SET until = clock_timestamp()")

    assert await turn(database_url)


async def test_an_eraser_that_lost_its_lease_erases_nothing_that_came_after_the_removal(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    """It stands still between two chunks; another erases the server, which reports again; then it goes on."""
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await database.execute("SELECT linkbeat.take_lease('removal', 'a test', 600)")
    await database.execute("INSERT INTO linkbeat.removals (server_id) VALUES ('nas')")
    blocker, slow = [await asyncpg.connect(database_url) for _ in range(2)]
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT FROM linkbeat.removals FOR UPDATE")
    erasing = asyncio.create_task(slow.execute("CALL linkbeat.erase_removed()"))
    waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')"
    while not await database.fetchval(waits, slow.get_server_pid()):  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)
    await blocker.execute("DELETE FROM network_interface_metrics; DELETE FROM servers; DELETE FROM linkbeat.removals")
    await transaction.commit()
    await blocker.close()
    await service.post(heartbeat("nas", eth0=(5, 5)))

    await erasing

    await slow.close()
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE server_id = 'nas'") == 1


async def test_of_two_that_migrate_at_once_one_waits_and_says_so(
    empty_database_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.database.migrating.POLL_SECONDS", 0.02)
    said: tuple[list[str], list[str]] = ([], [])

    await asyncio.gather(*(schema.migrate(empty_database_url, lines.append) for lines in said))

    (waited,) = [lines for lines in said if lines[-1] == f"Schema: up to date at {schema.head()}"]
    (worked,) = [lines for lines in said if lines is not waited]
    assert worked[-1] == f"Schema: installed, now at {schema.head()}"
    waiting = [line for lines in said for line in lines if line.startswith("Schema: waiting for another service")]
    assert waiting, said
    assert await schema.check(empty_database_url)
