"""High availability: reads on standbys that are behind, and an analyst's long query on a standby of its own."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from tests.helpers.faults import Load
from tests.helpers.ha.cluster import SUPERUSER, HaCluster
from tests.helpers.ha.drill import AGENTS, SLACK, check, check_acknowledged, connected, emptied, percentile
from tests.helpers.history import write_rows
from tests.helpers.processes import killable_service
from tests.helpers.support import hours_ago

BOUND_SECONDS = 2.0
PAUSED_SECONDS = 10.0
QUERY_SECONDS = int(os.environ.get("LINKBEAT_DRILL_QUERY_SECONDS", "600"))


async def test_d15_standbys_whose_replay_stands_still_are_not_read(ha: HaCluster, tmp_path: Path) -> None:
    async with emptied(ha):
        standbys = await ha.standbys()
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in standbys)
        replicas = ha.url.replace(f"127.0.0.1:{ha.haproxy_port}", hosts)
        assert replicas.startswith(f"postgresql://{SUPERUSER}:")
        more = {"LINKBEAT_READ_DATABASE_URL": replicas, "LINKBEAT_READ_LAG_SECONDS": str(BOUND_SECONDS)}
        async with (
            killable_service(ha.url, tmp_path, **more) as service,
            httpx.AsyncClient(trust_env=False, base_url=service.url, timeout=15) as http,
            Load([service.url], agents=AGENTS) as load,
        ):
            await load.until_acknowledged(50)
            body = {"kind": "read", "name": "reader"}
            made = await http.post("/api/v1/tokens", json=body, headers=Load.headers)
            reader = {"Authorization": f"Bearer {made.json()['token']}"}
            ages: list[float] = []
            stale = 0

            async def read(until: float) -> None:
                """Each response is within the bound, and has what was acknowledged before it was asked for."""
                nonlocal stale
                while time.monotonic() < until:
                    acknowledged = {key for key in load.acknowledged if key[0] == "server-00"}
                    newest = max(moment for _, moment in acknowledged)
                    asked = datetime.now(UTC)
                    answer = await http.get("/api/v1/servers/server-00", headers=reader)
                    assert answer.status_code == 200, answer.text
                    as_of = datetime.fromisoformat(answer.headers["Linkbeat-As-Of"])
                    ages.append((asked - as_of).total_seconds())
                    stale += datetime.fromisoformat(answer.json()["last_seen"]) < newest
                    await asyncio.sleep(0.05)

            await read(time.monotonic() + 5)
            before = len(ages)
            for node in standbys:
                async with connected(node) as database:
                    await database.execute("SELECT pg_wal_replay_pause()")
            try:
                await read(time.monotonic() + PAUSED_SECONDS)
            finally:
                for node in standbys:
                    async with connected(node) as database:
                        await database.execute("SELECT pg_wal_replay_resume()")
            during = len(ages) - before
            await read(time.monotonic() + 5)
            metrics = (await http.get("/metrics", headers=Load.headers)).text
            await load.stop()
        await check(load, ha)
    counted = [line for line in metrics.splitlines() if "replica" in line and not line.startswith("#")]
    print(
        f"D15: {len(ages)} reads, {during} of them while replay stood still for {PAUSED_SECONDS:.0f} s: at most "
        f"{max(ages):.2f} s old, {stale} without what was acknowledged before; {counted}"
    )
    assert max(ages) <= BOUND_SECONDS + 0.5 * SLACK
    assert stale == 0
    assert during >= 10


async def test_d16_an_analysts_query_outlives_drop_chunks_on_its_own_standby(ha: HaCluster, tmp_path: Path) -> None:
    async with emptied(ha):
        analysts = (await ha.standbys())[-1]
        await asyncio.to_thread(analysts.end)
        analysts.tags = {"nosync": True, "nofailover": True, "noloadbalance": True}
        analysts.parameters = {"max_standby_streaming_delay": "-1", "hot_standby_feedback": "off"}
        analysts.start()
        try:
            await in_quorum(ha, but=analysts.name)
            await outlive(ha, tmp_path, analysts.name)
        finally:
            await asyncio.to_thread(analysts.end)
            analysts.tags, analysts.parameters = {}, {}
            analysts.start()
            await ha.healthy()


async def in_quorum(ha: HaCluster, but: str) -> str:
    """The list of synchronous standbys, once that node streams and is not in it."""
    deadline = time.monotonic() + 120
    while True:
        async with connected(await ha.primary()) as database:
            names: str = await database.fetchval("SHOW synchronous_standby_names")
            streams = await database.fetchval(
                "SELECT count(*) FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'", but
            )
        if streams and names and but not in names:
            return names
        assert time.monotonic() < deadline, names
        await asyncio.sleep(0.5)


async def outlive(ha: HaCluster, tmp_path: Path, name: str) -> None:
    (analysts,) = [node for node in ha.nodes if node.name == name]
    primary = await ha.primary()
    async with connected(primary) as database:
        await write_rows(database, hours_ago(12 * 24), hours_ago(10 * 24), timedelta(minutes=10))
    async with killable_service(ha.url, tmp_path, LINKBEAT_MAINTENANCE="off") as service:
        async with Load([service.url], agents=AGENTS, hours=48) as load, connected(primary) as database:
            await load.until_acknowledged(50)
            size = "SELECT pg_relation_size('servers')"
            window = QUERY_SECONDS / 2
            started, at_start = time.monotonic(), await database.fetchval(size)
            await asyncio.sleep(window)
            grown_before = await database.fetchval(size) - at_start
            middle = time.monotonic()
            async with connected(analysts) as analyst:
                old = "SELECT count(*) FROM network_interface_metrics WHERE time < now() - INTERVAL '9 days'"
                expected = await analyst.fetchval(old)
                assert expected > 0
                query = asyncio.create_task(
                    analyst.fetchval(f"WITH slept AS MATERIALIZED (SELECT pg_sleep({QUERY_SECONDS})) "
                                     f"SELECT count(*) FROM network_interface_metrics, slept "
                                     "WHERE time < now() - INTERVAL '9 days'")
                )  # fmt: skip
                await asyncio.sleep(2)
                at_start = await database.fetchval(size)
                dropped = await database.fetch(
                    "SELECT drop_chunks('network_interface_metrics', older_than => now() - INTERVAL '10 days')"
                )
                if await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"):
                    await database.execute("CALL linkbeat.compress_samples(now() - INTERVAL '9 days')")
                await asyncio.sleep(window)
                grown = await database.fetchval(size) - at_start
                ended = time.monotonic()
                names = await database.fetchval("SHOW synchronous_standby_names")
                assert not query.done()
                counted = await query
            before, during = percentile(load, started, middle), percentile(load, middle, ended)
        load.check_answers(allowed=(200,))
        await load.settle()
        await check_acknowledged(load, await ha.healthy())
    print(
        f"D16: a query of {QUERY_SECONDS} s finished on {name} with {counted} rows, {len(dropped)} chunks dropped "
        f"meanwhile; synchronous standbys {names}; servers grew by {grown_before:,} bytes before and {grown:,} "
        f"meanwhile; p99 {before * 1000:.0f} and {during * 1000:.0f} ms"
    )
    assert counted == expected
    assert dropped
    assert name not in names
    assert grown <= grown_before * 1.1 + 65_536
    assert during <= 2 * before * SLACK
