"""High availability: etcd is gone for minutes; with failsafe the primary goes on, without it ends being one."""

import asyncio
import os
import time
from pathlib import Path

from tests.helpers.faults import Load
from tests.helpers.ha.cluster import HaCluster
from tests.helpers.ha.drill import AGENTS, answered, check, check_acknowledged, emptied
from tests.helpers.processes import killable_service

GONE_SECONDS = float(os.environ.get("LINKBEAT_DRILL_ETCD_SECONDS", "300"))


async def test_d9_etcd_is_gone_and_failsafe_keeps_the_primary(ha: HaCluster, tmp_path: Path) -> None:
    async with emptied(ha) as primary, killable_service(ha.url, tmp_path) as service:
        async with Load([service.url], agents=AGENTS) as load:
            await load.until_acknowledged(50)
            ha.stop_etcd()
            gone = time.monotonic()
            await asyncio.sleep(GONE_SECONDS)
            # Also past the time at which a primary without failsafe has ended.
            late = answered(load, 200, gone + ha.dcs["ttl"], time.monotonic())
            ha.start_etcd()
            assert await ha.healthy() is primary
        load.check_answers(allowed=(200, 503))
        await check(load, ha)
    print(f"D9: etcd gone for {GONE_SECONDS:.0f} s, failsafe on: {late} times 200 after the time to live; "
          f"{dict(load.statuses())}")  # fmt: skip
    assert late >= 50


async def test_d9_etcd_is_gone_and_without_failsafe_the_primary_ends(ha: HaCluster, tmp_path: Path) -> None:
    ha.configure(failsafe_mode=False)
    try:
        async with emptied(ha), killable_service(ha.url, tmp_path) as service:
            await asyncio.sleep(2 * ha.dcs["loop_wait"])  # every node has heard of it
            async with Load([service.url], agents=AGENTS) as load:
                await load.until_acknowledged(50)
                ha.stop_etcd()
                gone = time.monotonic()
                await asyncio.sleep(GONE_SECONDS)
                last = max(one.at + one.seconds for one in load.answers if one.status == 200) - gone
                ha.start_etcd()
                recovered = await load.until_acknowledged(20, within_seconds=180)
                await check_acknowledged(load, await ha.healthy())
            load.check_answers(allowed=(200, 503))
            await check(load, ha)
    finally:
        ha.start_etcd()
        ha.configure(failsafe_mode=True)
    print(f"D9: etcd gone for {GONE_SECONDS:.0f} s, failsafe off: the last 200 after {last:.1f} s; acknowledged "
          f"{recovered:.1f} s after it was back; {dict(load.statuses())}")  # fmt: skip
    assert last < GONE_SECONDS - 10
