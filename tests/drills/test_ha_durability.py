"""High availability: what 200 means while standbys, the network or the list of synchronous standbys are gone."""

import asyncio
import time
from pathlib import Path

import httpx

from tests.helpers.faults import Load
from tests.helpers.ha.cluster import HaCluster
from tests.helpers.ha.drill import (
    AGENTS,
    SLACK,
    answered,
    check,
    check_acknowledged,
    connected,
    emptied,
    percentile,
)
from tests.helpers.processes import killable_service

MEASURED_SECONDS = 15
CANCELS = 100
_WAITING = """
SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'linkbeat%' AND wait_event = 'SyncRep'
"""


async def test_d7_a_standby_stops(ha: HaCluster, tmp_path: Path) -> None:
    async with emptied(ha), killable_service(ha.url, tmp_path) as service:
        standby = (await ha.standbys())[0]
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(50)
            started = time.monotonic()
            await asyncio.sleep(MEASURED_SECONDS)
            stopped = time.monotonic()
            with standby.stopped():
                await asyncio.sleep(MEASURED_SECONDS)
                ended = time.monotonic()
        before, during = percentile(load, started, stopped), percentile(load, stopped, ended)
        load.check_answers(allowed=(200,))
        await check(load, ha)
    print(
        f"D7: one of two standbys stopped: no 503; p99 {before * 1000:.0f} ms before, {during * 1000:.0f} ms meanwhile"
    )
    assert during <= 2 * before * SLACK


async def test_d8_both_standbys_stop(ha: HaCluster, tmp_path: Path) -> None:
    async with emptied(ha) as primary, killable_service(ha.url, tmp_path) as service:
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(50)
            first, second = await ha.standbys()
            with first.stopped(), second.stopped():
                stopped = time.monotonic()
                await asyncio.sleep(40)
                ended = time.monotonic()
            refused = answered(load, 503, stopped, ended)
            taken = answered(load, 200, stopped + 2, ended)
            recovered = await load.until_acknowledged(20, within_seconds=120)
            assert await ha.healthy() is primary
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
    print(
        f"D8: both standbys stopped for 40 s: {taken} times 200, {refused} times 503; acknowledged again "
        f"{recovered:.1f} s after they went on; none lost"
    )
    assert taken == 0
    assert refused >= 5


async def test_d5_the_wait_for_standbys_is_cancelled_again_and_again(ha: HaCluster, tmp_path: Path) -> None:
    async with (
        emptied(ha) as primary,
        killable_service(ha.url, tmp_path, LINKBEAT_DURABILITY="replicated") as service,
    ):
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(50)
            first, second = await ha.standbys()
            cancelled = 0
            with first.stopped(), second.stopped():
                stopped = time.monotonic()
                async with connected(primary, "postgres") as database:
                    while cancelled < CANCELS and time.monotonic() < stopped + 300:
                        for row in await database.fetch(_WAITING):
                            cancelled += await database.fetchval("SELECT pg_cancel_backend($1)", row["pid"])
                        await asyncio.sleep(0.02)
                ended = time.monotonic()
            taken = answered(load, 200, stopped + 2, ended)
            await load.until_acknowledged(20, within_seconds=120)
            await check_acknowledged(load, await ha.healthy())
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
        async with httpx.AsyncClient(trust_env=False) as http:
            metrics = (await http.get(f"{service.url}/metrics", headers=load.headers)).text
    counted = [line for line in metrics.splitlines() if "cancelled" in line]
    print(f"D5: {cancelled} waits cancelled: {taken} times 200; {counted}")
    assert cancelled >= CANCELS
    assert taken == 0
    assert counted


async def test_d6_the_list_of_standbys_is_emptied_during_a_wait(ha: HaCluster, tmp_path: Path) -> None:
    async with (
        emptied(ha) as primary,
        killable_service(ha.url, tmp_path, LINKBEAT_DURABILITY="replicated") as service,
        httpx.AsyncClient(trust_env=False, timeout=10) as http,
    ):
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(150)
            first, second = await ha.standbys()
            with first.stopped(), second.stopped():
                await asyncio.sleep(3)
                async with connected(primary, "postgres") as database:
                    await database.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                    await database.execute("SELECT pg_reload_conf()")
                    emptied_at = time.monotonic()
                    try:
                        while True:
                            ready = await http.get(f"{service.url}/health/ready")
                            if "synchronous_standby_names" in ready.text:
                                break
                            assert time.monotonic() < emptied_at + 60, ready.text
                            await asyncio.sleep(0.05)
                        named_after = time.monotonic() - emptied_at
                        await asyncio.sleep(10)
                        filled_at = time.monotonic()
                    finally:
                        await database.execute("ALTER SYSTEM RESET synchronous_standby_names")
                        await database.execute("SELECT pg_reload_conf()")
            taken = answered(load, 200, emptied_at, filled_at)
            refused = answered(load, 503, emptied_at, filled_at)
            await load.until_acknowledged(100, within_seconds=120)
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
    print(
        f"D6: list emptied: {taken} times 200, {refused} times 503; /health/ready ({ready.status_code}) named it "
        f"after {named_after:.1f} s: {ready.text[:300]}"
    )
    assert (taken, ready.status_code) == (0, 503)
    assert refused >= 1
    assert named_after <= 2 * SLACK


async def test_d4_the_primary_is_cut_off_from_all_but_the_service(ha: HaCluster, tmp_path: Path) -> None:
    """Its Patroni hangs, so nothing ends it: the service still reaches it, while the others elect a new primary."""
    async with (
        emptied(ha) as primary,
        killable_service(ha.hosts_url(), tmp_path, LINKBEAT_DURABILITY="replicated") as service,
    ):
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(50)
            assert primary.patroni is not None
            primary.stop_processes([primary.patroni.pid])
            for gate in (primary.gate, primary.rest_gate, primary.etcd_gate):
                gate.cut()
            cut = time.monotonic()
            try:
                after = await ha.primary(other_than=primary)
                elected = time.monotonic() - cut
                await asyncio.sleep(15)
                async with connected(primary, "postgres") as database:
                    assert not await database.fetchval("SELECT pg_is_in_recovery()"), "two primaries were to be had"
                await check_acknowledged(load, after)
                taken = answered(load, 200, cut + 2, time.monotonic())
            finally:
                primary.go_on()
                for gate in (primary.gate, primary.rest_gate, primary.etcd_gate):
                    gate.mend()
            recovered = await load.until_acknowledged(20, within_seconds=180)
            await check_acknowledged(load, after)
            await ha.healthy()
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
    print(
        f"D4: a new primary after {elected:.1f} s beside the old one; {taken} times 200 while cut off, all of them on "
        f"the new primary; acknowledged {recovered:.1f} s after the cut was mended; {dict(load.statuses())}"
    )


async def test_d10_the_first_host_is_a_black_hole(ha: HaCluster, tmp_path: Path) -> None:
    hole = ha.network.gate(ha.nodes[0].port)
    hole.cut()
    plain, holed = tmp_path / "plain", tmp_path / "holed"
    plain.mkdir()
    holed.mkdir()
    async with emptied(ha) as primary:
        figures: dict[str, tuple[float, float]] = {}
        for name, directory, url in (
            ("without", plain, primary.url()),
            ("with", holed, ha.hosts_url(f"127.0.0.1:{hole.port}")),
        ):
            async with killable_service(url, directory) as service:
                service.kill()
                ready = await service.start()
                async with Load([service.url], agents=AGENTS, seed=len(figures), prefix=name) as load:
                    await load.until_acknowledged(20)
                    started = time.monotonic()
                    await asyncio.sleep(MEASURED_SECONDS)
                    ended = time.monotonic()
                figures[name] = (ready, percentile(load, started, ended))
                load.check_answers(allowed=(200,))
                await load.settle()
    print(f"D10: ready after {figures['with'][0]:.1f} s with a black hole before the primary, "
          f"{figures['without'][0]:.1f} s without; p99 {figures['with'][1] * 1000:.0f} and "
          f"{figures['without'][1] * 1000:.0f} ms")  # fmt: skip
    assert figures["with"][0] - figures["without"][0] <= 1.5 * SLACK
    assert figures["with"][1] <= 2 * figures["without"][1] * SLACK
