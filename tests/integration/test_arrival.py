"""Heartbeats that come twice, late, all kinds in one batch, or while their server is deleted."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.helpers.support import Client, boot_id, deltas, heartbeat, hours_ago, interface

T0 = hours_ago(20)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else at work on the same database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close(timeout=5)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


async def counts(database: asyncpg.Connection, server_id: str = "nas") -> tuple[int, int]:
    """Duplicates and conflicts of a server."""
    row = await database.fetchrow("SELECT duplicates, conflicts FROM servers WHERE server_id = $1", server_id)
    assert row is not None
    return tuple(row)


async def test_replays_are_counted_and_change_nothing(service: Client, database: asyncpg.Connection) -> None:
    for n in range(3):
        await service.post(heartbeat(at=at(30 * n), eth0=(n * 100, 0), wlan0=(n, n)))
    before = await database.fetch("SELECT * FROM network_interface_metrics ORDER BY interface_name, time")

    again = [heartbeat(at=at(30 * n), eth0=(n * 100, 0), wlan0=(n, n)) for n in (2, 0, 2)]
    assert (await service.post_batch(again))["duplicate"] == 3
    assert (await service.post(heartbeat(at=at(0), eth0=(7, 0), wlan0=(0, 0))))["duplicate"]

    assert await database.fetch("SELECT * FROM network_interface_metrics ORDER BY interface_name, time") == before
    assert await counts(database) == (4, 1)


async def test_a_late_heartbeat_without_interfaces_is_new_once(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat(at=at(60), eth0=(1, 1)))
    late = {**heartbeat(at=at(0)), "metrics": {"cpu_percent": 3.0}}

    first, second = await service.post(late), await service.post(late)

    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert await counts(database) == (1, 0)
    assert await database.fetchval("SELECT count(*) FROM server_metrics") == 1


async def test_an_interface_that_a_replay_adds_is_stored(service: Client, database: asyncpg.Connection) -> None:
    for n in range(2):
        await service.post(heartbeat(at=at(30 * n), eth0=(n * 100, 0)))

    answer = await service.post(heartbeat(at=at(30), eth0=(100, 0), wlan0=(5, 5)))

    assert not answer["duplicate"]
    assert await deltas(database, name="wlan0") == [(0, "first")]
    names = [one["name"] for one in (await service.get("/servers/nas"))["network_interfaces"]]
    assert names == ["eth0", "wlan0"]


async def test_a_batch_that_mixes_everything(service: Client, database: asyncpg.Connection) -> None:
    for n in range(2):
        for name in ("grows", "reboots", "resets", "replays", "differs", "was-late", "cloned"):
            await service.post(heartbeat(name, at=at(60 * n), boot=boot_id("a"), eth0=(5_000 + n * 100, 0)))

    answer = await service.post_batch(
        [
            heartbeat("cloned", at=at(30), boot=boot_id("b"), eth0=(900_000, 0)),
            heartbeat("new", at=at(0), eth0=(10**12, 0)),
            heartbeat("grows", at=at(120), boot=boot_id("a"), eth0=(5_300, 0)),
            {"server_id": "broken", "hostname": 7},
            heartbeat("reboots", at=at(120), boot=boot_id("b"), eth0=(40, 0)),
            heartbeat("resets", at=at(120), boot=boot_id("a"), eth0=(30, 0)),
            heartbeat("replays", at=at(60), boot=boot_id("a"), eth0=(5_100, 0)),
            heartbeat("differs", at=at(60), boot=boot_id("a"), eth0=(5_101, 0)),
            heartbeat("was-late", at=at(30), boot=boot_id("a"), eth0=(5_020, 0)),
            heartbeat("silent", at=at(0)),
            heartbeat("new", at=at(30), eth0=(10**12 + 5, 0)),
            heartbeat("no-clock", eth0=(1, 1)),
            heartbeat("no-boot", at=at(0), boot=None, eth0=(1, 1)),
            {**heartbeat("container", at=at(0)), "network_interfaces": [interface("veth1", 9), interface("eth0", 1)]},
            heartbeat("grows", at=at(150), boot=boot_id("a"), eth0=(5_600, 0)),
        ]
    )

    assert (answer["stored"], answer["duplicate"], answer["conflict"]) == (12, 2, 1)
    assert [one["index"] for one in answer["rejected"]] == [3]
    start = [(0, "first"), (100, "normal")]
    assert {name: await deltas(database, name) for name in ("grows", "reboots", "resets", "replays", "differs")} == {
        "grows": [*start, (200, "normal"), (300, "normal")],
        "reboots": [*start, (40, "reboot")],
        "resets": [*start, (30, "reset")],
        "replays": start,
        "differs": start,
    }
    assert await deltas(database, "was-late") == [(0, "first"), (20, "normal"), (80, "normal")]
    # A replay is no sign that two machines report: it was a reboot, by a clock that was wrong.
    assert await deltas(database, "cloned") == [(0, "first"), (900_000, "reboot"), (100, "normal")]
    assert await deltas(database, "new") == [(0, "first"), (5, "normal")]
    assert await deltas(database, "container", "veth/*") == [(0, "folded")]
    assert await database.fetchval("SELECT count(*) FROM servers") == 12


async def test_a_server_that_is_deleted_while_it_reports_begins_again(
    service: Client, database: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    for n in range(2):
        await service.post(heartbeat(at=at(30 * n), eth0=(n * 100, 0)))
    transaction = other.transaction()
    await transaction.start()
    for table in ("servers", "server_boots", "server_metrics", "network_interface_metrics"):
        await other.execute(f"DELETE FROM {table} WHERE server_id = 'nas'")

    reporting = asyncio.create_task(service.post_batch([heartbeat(at=at(60), eth0=(200, 0)), heartbeat("neighbour")]))
    waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
    while not await database.fetchval(waits):  # noqa: ASYNC110 - PostgreSQL tells nobody
        await asyncio.sleep(0.01)
    assert not reporting.done()
    await transaction.commit()

    assert (await reporting)["stored"] == 2
    assert await deltas(database) == [(0, "first")]
    assert await database.fetchval("SELECT first_seen FROM servers WHERE server_id = 'nas'") == at(60)


async def test_a_server_that_is_deleted_again_and_again_is_503_and_nothing_is_half_stored(
    service: Client, database: asyncpg.Connection
) -> None:
    await database.execute(
        """CREATE FUNCTION delete_it() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN DELETE FROM servers WHERE server_id = new.server_id; RETURN NULL; END $$;
           CREATE TRIGGER delete_it AFTER INSERT ON servers FOR EACH ROW WHEN (new.server_id = 'nas')
           EXECUTE FUNCTION delete_it()"""
    )

    body = {**heartbeat(at=at(0), eth0=(1, 1), veth1=(2, 2)), "metrics": {"cpu_percent": 1.0}}
    answer = await service.http.post("/api/v1/agents/heartbeat", json=body)

    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "Retry-After" in answer.headers
    for table in ("servers", "server_boots", "server_metrics", "network_interface_metrics"):
        assert await database.fetchval(f"SELECT count(*) FROM {table}") == 0
    await database.execute("DROP TRIGGER delete_it ON servers")
    assert (await service.post(body))["server_registered"]


async def test_a_server_whose_row_alone_was_deleted_counts_on_from_its_history(
    service: Client, database: asyncpg.Connection
) -> None:
    beats = [heartbeat(at=at(30 * n), eth0=(n * 100, 0)) for n in range(4)]
    await service.post_batch(beats[:3])
    await database.execute("DELETE FROM servers")

    again = await service.post(beats[1])
    later = await service.post(beats[3])

    assert (again["duplicate"], later["duplicate"]) == (True, False)
    assert await deltas(database) == [(0, "first"), (100, "normal"), (100, "normal"), (100, "normal")]


async def test_heartbeats_of_one_server_at_the_same_time_are_all_counted(
    service: Client, database: asyncpg.Connection
) -> None:
    """Some of them twice, some as batches."""
    beats = [heartbeat(at=at(30 * n), eth0=(n * 100, 0)) for n in range(40)]
    singles = [service.post(beat) for beat in beats + beats[10:20]]
    batches = [service.post_batch(beats[first : first + 10]) for first in (0, 30)]

    answers = await asyncio.gather(*singles, *batches)

    assert [delta for delta, _ in await deltas(database)] == [0] + [100] * 39
    assert sum(int(answer["duplicate"]) for answer in answers) == 30
    assert await counts(database) == (30, 0)


@pytest.mark.parametrize(("interval", "minutes", "noted"), [(None, 2, 0), (None, 20, 1), (300, 20, 0), (60, 20, 1)])
async def test_the_first_heartbeat_after_a_long_gap_is_noted_for_the_alerts(
    service: Client, database: asyncpg.Connection, interval: int | None, minutes: int, noted: int
) -> None:
    """Turns do not look back over a gap of more than five intervals."""
    reported = {} if interval is None else {"interval_seconds": interval}
    await service.post(heartbeat("new", at=datetime.now(UTC) + timedelta(minutes=1), eth0=(1, 1)) | reported)
    assert await database.fetchval("SELECT count(*) FROM linkbeat.late_arrivals") == 0  # no gap is before the first one
    await service.post(heartbeat(at=datetime.now(UTC) - timedelta(minutes=minutes), eth0=(1, 1)) | reported)
    await database.execute("DELETE FROM linkbeat.late_arrivals")

    now = datetime.now(UTC)
    await service.post(heartbeat(at=now, eth0=(2, 2)) | reported)

    rows = await database.fetch("SELECT since, until FROM linkbeat.late_arrivals")
    assert [tuple(row) for row in rows] == [(now, now)] * noted
