"""What a heartbeat waits for at half of the rate that the service can take."""

import random
from collections.abc import Callable, Sequence
from itertools import count

from benchmarks.harness import HEARTBEATS
from benchmarks.peers.ingest import SERVERS, ingested
from benchmarks.peers.linkbeat import Linkbeat
from benchmarks.peers.openloop import offer
from benchmarks.peers.plan import Plan
from benchmarks.peers.systems import System
from benchmarks.traffic import INTERFACES


def half_load(linkbeats: Sequence[System[Linkbeat]], plan: Plan) -> None:
    """The highest rate by wrk first, then half of it offered."""
    for system in linkbeats:
        with system.start() as linkbeat:
            highest = ingested(linkbeat, plan.seconds).result.per_second
            stored = linkbeat.stored()
            found = offer(linkbeat.base, _heartbeats(), per_second=highest / 2, seconds=plan.seconds)
            assert linkbeat.stored() - stored >= found.requests, "an acknowledged heartbeat is not stored"
        print(f"half load, {system.name}: {found} (highest {highest:,.0f}/s)")


def _heartbeats() -> Callable[[], bytes]:
    """Makes requests as heartbeats.lua does, of other servers."""
    numbers = count()
    head = (
        f"POST {HEARTBEATS['BENCH_PATH']} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {HEARTBEATS['BENCH_KEY']}\r\nContent-Length: "
    )

    def make() -> bytes:
        number = next(numbers)
        name = f"half-{number % SERVERS}"
        interfaces = ",".join(
            f'{{"name":"{interface}","rx_bytes":{10**10 + number * 1000 * i},"tx_bytes":{10**10 + number * 300 * i},'
            f'"rx_packets":{10**7 + number},"tx_packets":{10**7 + number},"is_up":true}}'
            for i, interface in enumerate(INTERFACES, 1)
        )
        body = (
            f'{{"server_id":"{name}","hostname":"{name}.local","boot_id":"5f1c8a52-6f6d-4c8e-9a51-7f0d0d4c9b11","metrics":{{"cpu_percent":'
            f'{random.random() * 100:.1f},"memory_percent":45.2,"disk_percent":60.0}},'
            f'"network_interfaces":[{interfaces}]}}'
        )
        return f"{head}{len(body)}\r\n\r\n{body}".encode()

    return make
