"""DELETE /api/v1/servers/{id}: nothing of a server is left, at no level, and nobody else is touched."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from service.app import create_app
from service.database.leases import LEASE_SECONDS
from service.fleet.removal import erase
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers import fleet
from tests.helpers.support import KEY, Client, differing_rows, heartbeat, hours_ago, interface
from tests.integration.test_tokens import bearer, create, report

pytestmark = pytest.mark.background

MINUTE = timedelta(minutes=1)
# What fires changes with time; whether a removed server still has alerts is looked at.
WITHOUT_ALERTS = {"linkbeat.alerts": 0}


async def left(database: asyncpg.Connection, server_id: str) -> dict[str, int]:
    """How many rows of the server each relation of ours has, finished buckets included; without those that have 0.

    After a turn of alerts, which closes those of removed servers.
    """
    turn = "SELECT is_evaluated FROM linkbeat.evaluate_alerts(every => INTERVAL '0')"
    while not await database.fetchval(turn):  # noqa: ASYNC110 - the service has its turn at the moment
        await asyncio.sleep(0.01)
    await database.execute("SET search_path = public")  # by default a schema of the login's name comes first
    tables = await database.fetch(
        "SELECT attrelid::regclass::text AS name FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
        "WHERE attname = 'server_id' AND relkind = 'r' AND attrelid <> 'linkbeat.tokens'::regclass "
        # These histories outlive their server.
        "AND attrelid NOT IN ('linkbeat.alert_events'::regclass, 'linkbeat.audit_log'::regclass) AND ("
        "relnamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace) "
        "OR attrelid IN (SELECT kept FROM linkbeat.kept))"
    )
    views = [f"{family}_{level}" for family in ("network_traffic", "server_metrics", "filesystem_metrics")
             for level in ("1m", "15m", "1h", "1d")]  # fmt: skip
    assert len(tables) > 15
    return {
        name: count
        for name in [row["name"] for row in tables] + views
        if (count := await database.fetchval(f"SELECT count(*) FROM {name} WHERE server_id = $1", server_id))
    }


async def remove(service: Client, server_id: str) -> httpx.Response:
    return await service.http.delete(f"/api/v1/servers/{server_id}")


async def removed(service: Client, database: asyncpg.Connection, server_id: str) -> None:
    answer = await remove(service, server_id)
    assert answer.status_code in (202, 204), answer.text
    deadline = time.monotonic() + 60
    while await database.fetchval("SELECT count(*) FROM linkbeat.removals"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def refresh(database: asyncpg.Connection) -> None:
    await database.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '2 minutes')")


def full(server_id: str, at: datetime, count: int) -> dict[str, object]:
    return heartbeat(server_id, at=at) | {
        "network_interfaces": [interface("eth0", count, count), interface("eth1", count, count)],
        "metrics": {"cpu_percent": 5, "memory_percent": 50},
        "filesystems": [{"mount_point": "/", "total_bytes": 10, "used_bytes": 5}],
    }


async def test_a_server_goes_with_all_its_history_and_the_others_stay(
    service: Client, database: asyncpg.Connection
) -> None:
    start = hours_ago(30)
    for server_id in ("nas", "other"):
        await service.post_batch([full(server_id, start + n * 15 * MINUTE, n * 1000) for n in range(121)])
    configured = await service.http.put("/api/v1/servers/nas/config", json={"paused": False})
    assert configured.status_code == 200, configured.text
    await refresh(database)
    before = await left(database, "other") | WITHOUT_ALERTS
    assert {"network_interface_metrics", "servers", "server_boots", "linkbeat.server_config"} <= set(
        await left(database, "nas")
    )

    answer = await remove(service, "nas")

    assert (answer.status_code, answer.content) == (204, b"")
    assert await left(database, "nas") == {}
    assert await left(database, "other") | WITHOUT_ALERTS == before
    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
    assert (await service.http.get("/api/v1/servers/nas")).status_code == 404
    await refresh(database)
    assert await left(database, "nas") == {}, "no refresh brings a bucket back"
    assert (await remove(service, "nas")).status_code == 404


async def test_buckets_go_whose_rows_have_expired_long_ago(
    database: asyncpg.Connection, database_url: str, settings: Settings
) -> None:
    # The service's maintenance stays out of the way: what is stored here is older than what retention keeps.
    await database.execute("SELECT linkbeat.take_lease('maintenance', 'a test', 600)")
    await fleet.store(database)
    await refresh(database)
    for server_id in ("nas", "edge"):
        assert {"network_traffic_1m", "network_traffic_1d"} <= set(await left(database, server_id))
    await database.execute("SELECT drop_chunks('network_interface_metrics', TIMESTAMPTZ '2026-03-10')")
    before = await left(database, "edge") | WITHOUT_ALERTS

    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as service:
        await removed(service, database, "nas")

    assert await left(database, "nas") == {}
    assert await left(database, "edge") | WITHOUT_ALERTS == before


async def test_what_is_compressed_goes_too(service: Client, database: asyncpg.Connection) -> None:
    if await database.fetchval("SELECT edition FROM linkbeat.installation") == "apache":
        pytest.skip("the Apache edition has no columnstore: run this with TEST_DATABASE_URL of a Community server")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for server_id in ("nas", "other"):
        await service.post_batch([full(server_id, now - timedelta(days=6) + n * 20 * MINUTE, n) for n in range(250)])
    await refresh(database)
    await database.execute("CALL linkbeat.compress_samples(now() - INTERVAL '1 day')")
    await database.execute(
        "SELECT compress_chunk(c, if_not_compressed => true) FROM linkbeat.kept k, show_chunks(k.kept) c"
    )
    before = await left(database, "other") | WITHOUT_ALERTS

    await removed(service, database, "nas")

    assert await left(database, "nas") == {}
    assert await left(database, "other") | WITHOUT_ALERTS == before


async def test_answers_that_are_kept_go_with_it(service: Client, database: asyncpg.Connection) -> None:
    await service.post(full("nas", datetime.now(UTC), 7))
    await service.get("/metrics/sparkline/nas/network")

    await removed(service, database, "nas")

    assert (await service.http.get("/api/v1/metrics/sparkline/nas/network")).status_code == 404


async def test_its_tokens_end_and_by_the_fleet_key_it_registers_again(
    service: Client, database: asyncpg.Connection
) -> None:
    token = (await create(service, kind="server", server_id="nas"))["token"]
    await service.post(heartbeat(at=hours_ago(1), eth0=(1000, 1000)))
    await report(service, token)

    await removed(service, database, "nas")
    by_token = await report(service, token)
    again = await service.post(heartbeat(at=hours_ago(0.5), eth0=(5000, 5000)))

    assert by_token.status_code == 401
    assert again["server_registered"] is True
    rows = await database.fetch("SELECT rx_bytes_delta, delta_kind FROM network_interface_metrics")
    assert [tuple(row) for row in rows] == [(0, "first")], "it is counted from nothing that was before"


async def test_a_server_that_has_a_token_and_never_reported_can_be_removed(
    service: Client, database: asyncpg.Connection
) -> None:
    token = (await create(service, "/servers", server_id="nas"))["token"]

    assert (await remove(service, "nas")).status_code == 204
    assert (await service.http.get("/api/v1/servers", headers=bearer(token))).status_code == 401
    assert (await remove(service, "nobody")).status_code == 404
    assert (await remove(service, "nas%00")).status_code == 404


async def test_heartbeats_pass_while_a_server_is_erased(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for day in range(6):
        await service.post_batch([full("nas", now - timedelta(days=6 - day) + n * MINUTE, n) for n in range(200)])
    await refresh(database)
    await database.execute("INSERT INTO linkbeat.removals (server_id) VALUES ('nas')")
    erasing = asyncio.create_task(erase(database_url))

    seconds, n = [], 0
    while not erasing.done():
        for server_id in ("other", "nas"):  # the one that is being erased reports on
            started = time.perf_counter()
            await service.post(heartbeat(server_id, eth0=(n, n)))
            seconds.append(time.perf_counter() - started)
        n += 1
    await erasing

    assert n > 1
    # No batch waited for a lock until its limit of 2 s; beside that, a machine that stands still delays one of them.
    metrics = (await service.http.get("/metrics")).text
    assert "retry_55P03" not in metrics
    assert sorted(seconds)[-2] < 2
    found = await left(database, "nas")
    # What came after the end, and nothing of before.
    oldest = await database.fetchval("SELECT min(time) FROM network_interface_metrics WHERE server_id = 'nas'")
    assert oldest is None or oldest > now
    assert found.get("network_interface_metrics", 0) <= n
    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}


async def test_what_was_interrupted_goes_on(service: Client, database: asyncpg.Connection, database_url: str) -> None:
    await service.post_batch([full("nas", hours_ago(50) + n * 15 * MINUTE, n) for n in range(190)])
    locker = await asyncpg.connect(database_url)
    transaction = locker.transaction()
    await transaction.start()
    await locker.execute("SELECT FROM servers WHERE server_id = 'nas' FOR UPDATE")

    answer = await remove(service, "nas")
    still = await database.fetchval("SELECT count(*) FROM linkbeat.removals")
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'linkbeat removal' AND datname = current_database()"
    )
    await transaction.rollback()
    await locker.close()
    async with asyncio.timeout(LEASE_SECONDS + 60):
        # Until the ended session's lease is given back, or has expired: a process that stands still does not give it.
        while not await erase(database_url):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    assert (answer.status_code, still) == (202, 1)
    assert await left(database, "nas") == {}
