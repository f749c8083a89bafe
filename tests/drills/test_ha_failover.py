"""High availability: primaries that are killed, switched and stopped, under load; nothing acknowledged is lost.

Real Patroni, etcd, HAProxy and PostgreSQL, three nodes on one machine (tests/helpers/ha/). `make drill-ha` runs all of
test_ha_*.py; each prints its counts and times. The numbers of drills are those of docs/scaling.md.
"""

import asyncio
import os
import random
import re
import time
from pathlib import Path

from tests.helpers.faults import UNREACHED, Load
from tests.helpers.ha.cluster import HaCluster
from tests.helpers.ha.drill import AGENTS, SLACK, check, check_acknowledged, connected, emptied, longest_gap, shown
from tests.helpers.processes import killable_service

KILLS = int(os.environ.get("LINKBEAT_DRILL_KILLS", "20"))
STOPPED_SECONDS = 60


async def test_d1_the_primary_and_its_patroni_are_killed_again_and_again(ha: HaCluster, tmp_path: Path) -> None:
    recoveries, rejoined = [], []
    async with emptied(ha), killable_service(ha.url, tmp_path) as service:
        async with Load([service.url], agents=AGENTS) as load:
            for _ in range(KILLS):
                await load.until_acknowledged(20, within_seconds=120)
                primary = await ha.healthy()
                await asyncio.sleep(random.uniform(0, 2))
                await asyncio.to_thread(primary.kill)
                recoveries.append(await load.until_acknowledged(1, within_seconds=180))
                after = await ha.primary(other_than=primary)
                await check_acknowledged(load, after)
                started = time.monotonic()
                primary.start()
                await ha.healthy()
                rejoined.append(time.monotonic() - started)
        assert service.is_running
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
    print(
        f"D1: {KILLS} kills of the primary, {len(load.acknowledged)} acknowledged, none lost or doubled; first 200 "
        f"after {shown(recoveries)}; the old primary back as a standby after {shown(rejoined)}; {dict(load.statuses())}"
    )
    assert max(recoveries) <= (ha.dcs["ttl"] + 10) * SLACK


async def test_d2_a_switchover_under_load(ha: HaCluster, tmp_path: Path) -> None:
    gaps = []
    async with emptied(ha), killable_service(ha.url, tmp_path) as service:
        process = service.process
        async with Load([service.url], agents=AGENTS) as load:
            for _ in range(3):
                await load.until_acknowledged(20)
                before = await ha.primary()
                target = random.choice(await ha.standbys())
                started = time.monotonic()
                roles = ("--primary", before.name, "--candidate", target.name)
                await asyncio.to_thread(ha.ctl, "switchover", "linkbeat", *roles, "--force")
                await load.until_acknowledged(20, within_seconds=60)
                after = await ha.healthy()
                assert after is target
                gaps.append(longest_gap(load, started))
                await check_acknowledged(load, after)
        assert service.process is process
        assert service.is_running
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
    print(f"D2: 3 switchovers; no acknowledgement for {shown(gaps)}; {dict(load.statuses())}")
    assert max(gaps) <= 5 * SLACK


async def test_d3_the_primarys_machine_stands_still_for_a_minute(ha: HaCluster, tmp_path: Path) -> None:
    async with emptied(ha) as primary, killable_service(ha.url, tmp_path) as service:
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(50)
            stopped_at = time.monotonic()
            with primary.stopped():
                recovered = await load.until_acknowledged(20, within_seconds=180)
                after = await ha.primary(other_than=primary)
                await check_acknowledged(load, after)
                await asyncio.sleep(max(0, stopped_at + STOPPED_SECONDS - time.monotonic()))
            continued = time.monotonic()
            assert await ha.healthy() is after
            rejoined = time.monotonic() - continued
            await load.until_acknowledged(20)
        load.check_answers(allowed=(200, 503, UNREACHED))
        await check(load, ha)
    print(
        f"D3: acknowledged again after {recovered:.1f} s; the old primary a standby {rejoined:.1f} s after it went on; "
        f"{dict(load.statuses())}"
    )


async def test_d11_the_old_primary_comes_back_with_a_forked_timeline(ha: HaCluster, tmp_path: Path) -> None:
    """Both standbys stand still: batches are executed on the primary alone, and not answered. Then it dies."""
    async with emptied(ha) as primary, killable_service(ha.url, tmp_path) as service:
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(50)
            standbys = await ha.standbys()
            for standby in standbys:
                standby.stop_processes(standby.processes())
            await asyncio.sleep(6)
            async with connected(primary) as database:
                forked = await database.fetchval(
                    "SELECT count(DISTINCT (server_id, time)) FROM network_interface_metrics"
                )
            acknowledged = len(load.acknowledged)
            assert forked > acknowledged, "nothing was executed on the primary alone"
            await asyncio.to_thread(primary.kill)
            for standby in standbys:
                standby.go_on()
            await load.until_acknowledged(20, within_seconds=180)
            await check_acknowledged(load, await ha.primary(other_than=primary))
            timeline = (await (await ha.primary()).status())["timeline"]
            primary.start()
            await ha.healthy()
            assert (await primary.status())["timeline"] == timeline
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
        rows = "SELECT server_id, time, interface_name, rx_bytes FROM network_interface_metrics ORDER BY 1, 2, 3"
        async with connected(await ha.healthy()) as database:
            expected = await database.fetch(rows)
            position = await database.fetchval("SELECT pg_current_wal_lsn()")
        async with connected(primary) as database:
            replayed = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn"
            while not await database.fetchval(replayed, position):  # noqa: ASYNC110 (the database has no event for it)
                await asyncio.sleep(0.1)
            assert await database.fetch(rows) == expected
        rewound = len(re.findall(r"running pg_rewind|pg_rewind exit code=0|Done!", primary.log))
        assert rewound, "it joined without pg_rewind"
    print(
        f"D11: {forked - acknowledged} heartbeats on the fork, none of them visible afterwards but as sent again; "
        f"{len(load.acknowledged)} acknowledged, none lost"
    )
