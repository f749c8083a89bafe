"""Sparklines of one series, from seven days of the same traffic in each system; and Linkbeat's of the whole fleet."""

import contextlib
import random
from collections.abc import Iterator, Sequence

import httpx

from benchmarks.harness import Result
from benchmarks.peers import influxdb, prometheus, victoriametrics
from benchmarks.peers.linkbeat import Linkbeat
from benchmarks.peers.plan import Plan
from benchmarks.peers.programs import Programs
from benchmarks.peers.reading import read
from benchmarks.peers.systems import Answers, System, Window
from benchmarks.sql import execute, fetchval
from benchmarks.traffic import Traffic, load

PERIODS = ("1h", "24h", "7d")
DAYS = 7
CHECKED_SERIES = 5
_TRUE_BYTES = """
SELECT sum(rx_bytes_delta)::float8 FROM bench_samples
WHERE server_id = $1 AND interface_name = $2 AND time >= to_timestamp($3) AND time < to_timestamp($4)
"""


def sparkline(
    systems: Sequence[System[Linkbeat]], programs: Programs, plan: Plan, *, series: bool, fleet: bool
) -> None:
    """Loads every system once, then measures them in turns.

    series, fleet   which of the two to measure; the peers are needed for the first alone
    """
    traffic = Traffic.until_now(plan.servers, DAYS)
    with contextlib.ExitStack() as stack:
        linkbeats: dict[str, Linkbeat] = {}
        for system in systems:
            instance = stack.enter_context(system.start())
            load(instance.url, traffic)
            execute(instance.url, "VACUUM ANALYZE")  # as autovacuum does within minutes; peers merge their files too
            linkbeats[system.name] = instance
        source = next(iter(linkbeats.values())).url
        print(f"sparklines: {DAYS} days of {len(traffic.series)} series are loaded")
        if series:
            peers = stack.enter_context(_peers(programs, source))
            _series({**linkbeats, **peers}, list(linkbeats), list(peers), traffic, source, plan)
        if fleet:
            for name, instance in linkbeats.items():
                for period in PERIODS:
                    path = f"/api/v1/metrics/sparkline/network?period={period}"
                    found = read(instance, [path], 1, plan.read_seconds)
                    print(f"fleet of {len(traffic.series)} series, {period:>3}, {name}: {found}")


@contextlib.contextmanager
def _peers(programs: Programs, source: str) -> Iterator[dict[str, Answers]]:
    """Each that is here, with the traffic that is staged in the database `source`."""
    with contextlib.ExitStack() as stack:
        peers: dict[str, Answers] = {}
        if programs.influxd:
            influx = stack.enter_context(influxdb.running(programs.influxd, compact_at_once=True))
            influx.take_in(source)
            peers["InfluxDB"] = influx
        if programs.victoria_metrics:
            victoria = stack.enter_context(victoriametrics.running(programs.victoria_metrics))
            victoria.take_in(source)
            peers["VictoriaMetrics"] = victoria
        if programs.prometheus:
            peers["Prometheus"] = stack.enter_context(prometheus.running(programs.prometheus, source))
        yield peers


def _series(
    systems: dict[str, Answers], linkbeats: list[str], peers: list[str], traffic: Traffic, source: str, plan: Plan
) -> None:
    for period in PERIODS:
        single: dict[str, Result] = {}
        many: dict[str, Result] = {}
        for name, instance in systems.items():
            share = _share_of_the_truth(instance, traffic, source, period)
            window = Window.of(period)
            paths = [instance.path(*one, window) for one in traffic.series]
            single[name] = read(instance, paths, 1, plan.read_seconds)
            many[name] = read(instance, paths, 16, plan.read_seconds)
            print(
                f"sparkline {period:>3}, {name}: p50 {single[name].p50_ms:.2f} ms, p99 {single[name].p99_ms:.2f} ms; "
                f"16 connections {many[name].per_second:,.0f}/s; {single[name].errors + many[name].errors} errors; "
                f"{share:.3f} of the true traffic"
            )
        for ours in linkbeats:
            for theirs in peers:
                print(
                    f"  {ours}: its p50 is {single[ours].p50_ms / single[theirs].p50_ms:.2f} of that of {theirs}, "
                    f"its rate at 16 connections {many[ours].per_second / many[theirs].per_second:.2f}"
                )


def _share_of_the_truth(instance: Answers, traffic: Traffic, source: str, period: str) -> float:
    """What the answers add up to, of what the samples do; for a few series, over the buckets that are whole."""
    answered = true = 0.0
    headers = {"Authorization": f"Bearer {instance.key}"} if instance.key else {}
    for server_id, interface in random.Random(1).sample(traffic.series, CHECKED_SERIES):
        window = Window.of(period)
        path = instance.path(server_id, interface, window)
        body = httpx.get(instance.base + path, headers=headers, timeout=30).raise_for_status().content
        received = instance.received(body)
        answered += sum(octets for start, octets in received.items() if window.start <= start < window.end)
        true += fetchval(source, _TRUE_BYTES, server_id, interface, window.start, window.end)
    return answered / true
