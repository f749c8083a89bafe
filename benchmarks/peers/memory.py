"""The service's memory over minutes of full load."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness import wrk
from benchmarks.peers.ingest import CONNECTIONS, SERVERS
from benchmarks.peers.linkbeat import Linkbeat
from benchmarks.peers.plan import Plan
from benchmarks.peers.systems import System
from benchmarks.processes import resident_bytes

WARM_SHARE = 0.1
MEBIBYTE = 2**20


def memory(linkbeats: Sequence[System[Linkbeat]], plan: Plan) -> None:
    """From the end of the first tenth, when every server is known, to the end of the load."""
    seconds = max(1, round(plan.minutes * 60))
    for system in linkbeats:
        with system.start() as linkbeat, ThreadPoolExecutor(1) as pool:
            environment = {"BENCH_SERVERS": str(SERVERS), **linkbeat.heartbeats}
            load = pool.submit(wrk, "heartbeats.lua", linkbeat.base, CONNECTIONS, seconds, **environment)
            time.sleep(seconds * WARM_SHARE)
            sizes = []
            while not load.done():
                sizes.append(resident_bytes(linkbeat.service.pid) / MEBIBYTE)
                time.sleep(seconds / 100)
            result = load.result()
        print(
            f"memory, {system.name}, {plan.minutes:g} minutes of {result.per_second:,.0f} heartbeats/s: first "
            f"{sizes[0]:.1f} MiB, last {sizes[-1]:.1f} MiB, highest {max(sizes):.1f} MiB, {result.errors} errors"
        )
