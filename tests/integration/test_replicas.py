"""Reads on a replica: within the bound, never for who has just written, and nothing that a standby cannot do.

The replica is the synchronous standby of a primary of its own (tests/helpers/two_servers.py).
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from service.app import create_app
from service.database.reading import Reading, reading
from service.database.replicas import Replicas, ReplicatedDatabase
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, heartbeat, hours_ago
from tests.helpers.two_servers import Pair, two_servers

pytestmark = pytest.mark.background

AS_OF = "Linkbeat-As-Of"
# Not over before it is cancelled, even where this process stands still for a while.
LONG_ON_A_STANDBY = "SELECT (SELECT count(*) FROM servers), CASE WHEN pg_is_in_recovery() THEN pg_sleep(15) END"
COUNT = re.compile(r'^linkbeat_replica_(reads|retries)_total{server="([^"]+)"} (\S+)$', re.MULTILINE)
BEHIND = re.compile(r'^linkbeat_replica_behind_seconds{replica="[^"]+"} (\S+)$', re.MULTILINE)
LONG_SECONDS = 600.0  # a bound that no test reaches
# What is answered by the primary, and why: service/fleet/overview.py, service/operations/routes.py, or no statement.
FRESH = {
    "/metrics", "/api/v1/fleet", "/api/v1/system/health", "/api/v1/system/metrics", "/api/v1/system/definitions",
    "/api/v1/session",
}  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_servers() as pair:
        yield pair


@pytest.fixture
async def primary(pair: Pair) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the primary, whose servers are forgotten."""
    pair.restore()
    connection = await asyncpg.connect(pair.primary.url)
    await connection.execute("TRUNCATE servers, server_boots, network_interface_metrics CASCADE")
    yield connection
    await connection.close()


@pytest.fixture
async def standby(pair: Pair, primary: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the standby, which replays at the end, whatever a test did."""
    connection = await asyncpg.connect(pair.standby.url)
    yield connection
    await connection.execute("SELECT pg_wal_replay_resume()")
    await connection.close()


class Served:
    """A service that reads from the replica, and clients of it: with the fleet key, and with a read token."""

    def __init__(self, client: Client, reader: dict[str, str]) -> None:
        self.client = client
        self._reader = reader

    async def get(self, path: str, **query: Any) -> httpx.Response:
        """By the read token; made for this request."""
        return await self.client.http.get(path, params=query, headers={**self._reader, "Cache-Control": "no-cache"})

    async def counts(self) -> dict[tuple[str, str], float]:
        """Statements by what they were, reads or retries, and where."""
        text = (await self.client.http.get("/metrics")).text
        return {(kind, server): float(count) for kind, server, count in COUNT.findall(text)}

    async def read_at(self, path: str, **query: Any) -> tuple[str, Any]:
        """The server that answered, and what."""
        before = await self.counts()
        answer = await self.get(path, **query)
        assert answer.status_code == 200, answer.text
        after = await self.counts()
        ((_, server),) = {key for key, count in after.items() if key[0] == "reads" and count != before.get(key)}
        return server, answer.json()

    async def until_read_at(self, server: str) -> None:
        """Until that server answers; after a stall of this process, that is one look at the replicas later."""
        async with asyncio.timeout(60):
            while (await self.read_at("/api/v1/servers"))[0] != server:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)

    async def until_near(self) -> None:
        """Until the replica has all that was stored so far."""
        since = time.monotonic()
        async with asyncio.timeout(60):
            while True:
                found = BEHIND.search((await self.client.http.get("/metrics")).text)
                assert found is not None
                if float(found[1]) < time.monotonic() - since:
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def served(pair: Pair, directory: Path, lag_seconds: float) -> AsyncIterator[Served]:
    settings = Settings(
        api_key=KEY, data_dir=str(directory), read_database_url=pair.standby.url, read_lag_seconds=lag_seconds
    )
    async with in_process(create_app(settings, database_url=pair.primary.url, key=KEY)) as client:
        made = await client.http.post("/api/v1/tokens", json={"kind": "read"})
        one = Served(client, {"Authorization": f"Bearer {made.json()['token']}"})
        await one.until_near()
        yield one


async def test_every_route_that_reads_is_answered_by_a_standby(
    pair: Pair, primary: asyncpg.Connection, tmp_path: Path
) -> None:
    async with served(pair, tmp_path, LONG_SECONDS) as service:
        for n in range(3):
            await service.client.post(
                heartbeat("nas", at=hours_ago(3 - n), eth0=(1_000 * n, 500 * n))
                | {
                    "metrics": {"cpu_percent": 5.0, "memory_percent": 20.0, "temperature_celsius": 40.0},
                    "filesystems": [{"mount_point": "/", "total_bytes": 1_000, "used_bytes": 10}],
                }
            )
        await primary.execute("CALL linkbeat.refresh_aggregates(now())")
        await service.client.http.put("/api/v1/servers/nas/config", json={"interval_seconds": 30})
        await service.client.http.put("/api/v1/servers/nas/quota", json={"bytes": 10**12})
        for path, body in {
            "alert-rules/busy": {"kind": "rate", "above_bps": 1e6},
            "alert-channels/away": {"kind": "webhook", "url": "https://hooks.example.com/x"},
            "alert-mutes/winter": {"matcher": {"servers": ["nas"]}, "ends_at": "2100-01-01T00:00:00Z"},
        }.items():
            assert (await service.client.http.put(f"/api/v1/{path}", json=body)).status_code in (200, 201)
        await service.until_near()
        document = (await service.client.http.get("/schema/openapi.json")).json()
        routes = [
            path
            for path, item in document["paths"].items()
            if "get" in item and item["get"]["security"] and item["get"]["security"][0]["key"] == ["read"]
        ]
        assert len(routes) > 30
        replica = pair.standby.address
        refused, elsewhere = [], []
        for path in routes:
            target = path.replace("{server_id}", "nas").replace("{name}", "eth0").replace("{rule_id}", "busy")
            target = target.replace("{channel_id}", "away").replace("{mute_id}", "winter")
            query = {"server": "nas"} if path == "/api/v1/traffic/events" else {}
            query |= {"mount_point": "/"} if "filesystem" in path else {}
            query |= {"series": "nas/eth0"} if path == "/api/v1/fleet/sparklines" else {}
            before = await service.counts()
            answer = await service.get(target, **query)
            after = await service.counts()
            if answer.status_code != 200:
                refused.append((path, answer.status_code, answer.text))
            if path in FRESH:
                continue
            changed = {key for key, count in after.items() if count != before.get(key)}
            is_dated = AS_OF in answer.headers or path == "/api/v1/export/traffic"  # its head goes out before it reads
            if changed != {("reads", replica)} or not is_dated:
                elsewhere.append((path, changed, answer.headers.get(AS_OF)))

        assert refused == []
        assert elsewhere == []


async def test_what_was_just_stored_is_read_where_it_is(
    pair: Pair, standby: asyncpg.Connection, tmp_path: Path
) -> None:
    """The bound is far away, and the replica stands still."""
    async with served(pair, tmp_path, LONG_SECONDS) as service:
        for server_id in ("nas", "other"):
            await service.client.post(heartbeat(server_id, eth0=(1, 1)))
        await service.until_near()
        await standby.execute("SELECT pg_wal_replay_pause()")
        await service.client.post(heartbeat("nas", eth0=(1, 1)) | {"hostname": "renamed"})

        nas = await service.read_at("/api/v1/servers/nas")
        other = await service.read_at("/api/v1/servers/other")
        fleet = await service.read_at("/api/v1/servers")
        before = await service.counts()
        by_key = (await service.client.http.get("/api/v1/servers", headers={"Cache-Control": "no-cache"})).json()
        after = await service.counts()

        assert (nas[0], nas[1]["hostname"]) == ("primary", "renamed")
        assert other[0] == pair.standby.address
        assert fleet[0] == pair.standby.address, "nothing says which servers are meant"
        # Whoever may write may just have written, by another process.
        assert "renamed" in [one["hostname"] for one in by_key["servers"]]
        assert after == before

        await standby.execute("SELECT pg_wal_replay_resume()")
        await service.until_near()

        found = await service.read_at("/api/v1/servers/nas")
        assert (found[0], found[1]["hostname"]) == (pair.standby.address, "renamed")


async def test_a_replica_beyond_the_bound_is_not_read_and_answers_say_how_old_they_are(
    pair: Pair, standby: asyncpg.Connection, primary: asyncpg.Connection, tmp_path: Path
) -> None:
    bound_seconds = 3.0
    async with served(pair, tmp_path, bound_seconds) as service:
        await service.client.post(heartbeat("nas", eth0=(1, 1)))
        await service.until_near()
        await asyncio.sleep(bound_seconds)  # nothing is written, and the replica is not behind
        await service.until_read_at(pair.standby.address)

        await standby.execute("SELECT pg_wal_replay_pause()")
        await primary.execute("UPDATE servers SET hostname = 'later'")
        written = datetime.now(UTC)
        async with asyncio.timeout(60):
            while True:
                sent = datetime.now(UTC)
                answer = await service.get("/api/v1/servers/nas")
                as_of = datetime.fromisoformat(answer.headers[AS_OF])
                is_late = answer.json()["hostname"] == "later"
                assert (sent - as_of).total_seconds() < bound_seconds + 0.1
                assert is_late or as_of < written, "the response is as of before the change, and says so"
                if is_late:
                    break
                await asyncio.sleep(0.05)
        assert (await service.read_at("/api/v1/servers"))[0] == "primary"

        await standby.execute("SELECT pg_wal_replay_resume()")
        await service.until_read_at(pair.standby.address)


async def test_a_browser_reads_what_it_wrote_by_whatever_process(
    pair: Pair, standby: asyncpg.Connection, tmp_path: Path
) -> None:
    async with served(pair, tmp_path, LONG_SECONDS) as one, served(pair, tmp_path, LONG_SECONDS) as another:
        await one.client.post(heartbeat("nas", eth0=(1, 1)))
        await another.until_near()
        browser = {"Authorization": "", "Cache-Control": "no-cache"}
        signed_in = await one.client.http.post("/sign-in", json={"token": KEY})
        cookie = signed_in.headers["set-cookie"].partition(";")[0]
        before = await another.counts()
        await another.client.http.get("/api/v1/servers/nas/config", headers={**browser, "Cookie": cookie})
        assert await another.counts() != before, "a session that has not written may read a replica"
        await standby.execute("SELECT pg_wal_replay_pause()")

        wrote = await one.client.http.put(
            "/api/v1/servers/nas/config", json={"interval_seconds": 77}, headers={**browser, "Cookie": cookie}
        )
        (marked,) = [each for each in wrote.headers.get_list("set-cookie") if "_wrote=" in each]
        one.client.http.cookies.clear()
        before = await another.counts()
        found = await another.client.http.get(
            "/api/v1/servers/nas/config", headers={**browser, "Cookie": f"{cookie}; {marked.partition(';')[0]}"}
        )

        assert f"Max-Age={LONG_SECONDS + 1:.0f};" in marked
        assert "HttpOnly" in marked
        assert found.json()["interval_seconds"] == 77
        assert await another.counts() == before


async def test_a_statement_that_recovery_cancels_is_answered_by_the_primary(
    pair: Pair, primary: asyncpg.Connection
) -> None:
    """As drop_chunks and compression do, it takes a lock on the primary that the standby's replay has to take too."""
    pair.standby.set_system("max_standby_streaming_delay", "100ms")
    replicas = Replicas(pair.standby.url, pair.primary.url, LONG_SECONDS)
    database = ReplicatedDatabase(pair.primary.url, replicas)
    async with replicas, database:
        reading.set(wanted := Reading(may_lag=True))
        async with asyncio.timeout(60):
            while not list(replicas.usable(wanted)):  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.05)
        query = asyncio.create_task(database.fetch(LONG_ON_A_STANDBY))
        async with asyncio.timeout(60):
            while not query.done():
                async with primary.transaction():
                    await primary.execute("LOCK TABLE servers IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(0.05)
        rows = await query
    reading.set(None)
    pair.standby.set_system("max_standby_streaming_delay", "30s")

    assert len(rows) == 1
    assert replicas.retries == {pair.standby.address: 1}
    assert replicas.reads == {"primary": 1}
    assert wanted.as_of is not None


async def test_a_replica_that_was_promoted_is_no_replica(
    pair: Pair, primary: asyncpg.Connection, tmp_path: Path
) -> None:
    """Last: the pair is made again by whoever needs it."""
    async with served(pair, tmp_path, LONG_SECONDS) as service:
        await service.client.post(heartbeat("nas", eth0=(1, 1)))
        await service.until_near()
        pair.standby.promote()
        async with asyncio.timeout(60):
            while (await service.read_at("/api/v1/servers"))[0] != "primary":  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.05)
