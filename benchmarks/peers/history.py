"""What Linkbeat's history, and the number of the servers that it knows, cost it: a little against much, in turns."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

import httpx

from benchmarks import harness
from benchmarks.peers.ingest import ingested
from benchmarks.peers.linkbeat import Linkbeat, name_of, running, serving
from benchmarks.peers.plan import Plan
from benchmarks.peers.reading import read
from benchmarks.peers.systems import Window
from benchmarks.sql import execute
from benchmarks.traffic import INTERFACES, Traffic, load

PERIODS = ("1h", "24h")  # those that a day of history fills
REGISTERED_AT_ONCE = 1_000


def history(server_urls: Sequence[str], plan: Plan) -> None:
    """Ratios of much to little, the middle of all rounds: at 1, it costs nothing."""
    for server_url in server_urls:
        _days(server_url, plan)
        _servers(server_url, plan)


def _days(server_url: str, plan: Plan) -> None:
    name = name_of(server_url)
    ingest: list[float] = []
    sparklines: dict[str, list[float]] = {period: [] for period in PERIODS}
    with ExitStack() as stack:
        little, much = (stack.enter_context(_with_days(server_url, days, plan)) for days in plan.history_days)
        paths = {
            period: [little.path(*one, Window.of(period)) for one in Traffic.until_now(plan.servers, 1).series]
            for period in PERIODS
        }
        for number in range(plan.rounds):
            few, many = (ingested(one, plan.seconds).result for one in (little, much))
            ingest.append(few.per_second / many.per_second)
            print(f"  round {number + 1}, {name}: ingest with {plan.history_days[0]} days {few}")
            print(f"  round {number + 1}, {name}: ingest with {plan.history_days[1]} days {many}")
            for period in PERIODS:
                short, long = (read(one, paths[period], 1, plan.read_seconds) for one in (little, much))
                sparklines[period].append(long.p50_ms / short.p50_ms)
                print(f"  round {number + 1}, {name}: {period} sparkline, p50 {short.p50_ms:.2f}, {long.p50_ms:.2f} ms")
    costs = ", ".join(f"{period} sparkline {median(found):.2f}" for period, found in sparklines.items())
    print(
        f"history, {plan.history_days[1]} days against {plan.history_days[0]}, {name}: "
        f"ingest {median(ingest):.2f}, {costs} times the cost"
    )


def _servers(server_url: str, plan: Plan) -> None:
    name = name_of(server_url)
    ratios: list[float] = []
    with ExitStack() as stack:
        known = [(number, stack.enter_context(_with_servers(server_url, number))) for number in plan.known_servers]
        for number in range(plan.rounds):
            rates = []
            for servers, instance in known:
                found = ingested(instance, plan.seconds, servers)
                rates.append(found.result.per_second)
                print(f"  round {number + 1}, {name}: {servers:,} servers, {found}")
            ratios.append(rates[0] / rates[1])
    print(
        f"servers, {plan.known_servers[1]:,} against {plan.known_servers[0]:,}, {name}: "
        f"ingest {median(ratios):.2f} times the cost"
    )


@contextmanager
def _with_days(server_url: str, days: int, plan: Plan) -> Iterator[Linkbeat]:
    with harness.database(server_url) as url:
        load(url, Traffic.until_now(plan.servers, days))
        with serving(url) as instance:
            ingested(instance, 1)  # all servers that will report are known from here on
            _settle(instance)
            yield instance


@contextmanager
def _with_servers(server_url: str, number: int) -> Iterator[Linkbeat]:
    """One that has had heartbeats of each of the servers that heartbeats.lua reports for, before and after a vacuum."""
    with running(server_url) as instance:
        _report_all(instance, number)
        _settle(instance)
        _report_all(instance, number)
        yield instance


def _report_all(instance: Linkbeat, number: int) -> None:
    names = [f"server-{thread}-{one}" for thread in (0, 1) for one in range(number // 2)]
    headers = {"Authorization": f"Bearer {instance.key}"}
    for first in range(0, len(names), REGISTERED_AT_ONCE):
        batch = [_heartbeat(name) for name in names[first : first + REGISTERED_AT_ONCE]]
        url = f"{instance.base}/api/v1/agents/heartbeats"
        answer = httpx.post(url, json=batch, headers=headers, timeout=60).raise_for_status().json()
        assert answer["stored"] == len(batch), answer


def _settle(instance: Linkbeat) -> None:
    """What autovacuum does within minutes: plans that were made for a handful of servers are made again for all."""
    execute(instance.url, "VACUUM ANALYZE")


def _heartbeat(name: str) -> dict[str, object]:
    # heartbeats.lua goes on from these; from others, the first delta of each server would be impossible, which is dear.
    seconds = int(time.time()) % 10**8
    counters = {
        "rx_bytes": seconds * 10**7,
        "tx_bytes": seconds * 10**7 // 3,
        "rx_packets": seconds * 10**5,
        "tx_packets": seconds * 10**5,
        "is_up": True,
    }
    return {
        "server_id": name,
        "hostname": f"{name}.local",
        "boot_id": "5f1c8a52-6f6d-4c8e-9a51-7f0d0d4c9b11",
        "network_interfaces": [{"name": interface, **counters} for interface in INTERFACES],
    }
