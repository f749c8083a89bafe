"""Heartbeats a second, one a request: 64 connections, the same values for each system, which take turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.harness import Result, wrk
from benchmarks.peers.plan import Plan
from benchmarks.peers.systems import Ingests, System

CONNECTIONS = 64
WARM_UP_SECONDS = 2
SERVERS = 2_000


@dataclass(frozen=True)
class Ingested:
    """One load, and the processor time that the system, not wrk, spent on each heartbeat."""

    result: Result
    cpu_us: float | None

    def __str__(self) -> str:
        return f"{self.result}, {'unknown' if self.cpu_us is None else f'{self.cpu_us:.0f} µs'} of CPU each"

    @classmethod
    def middle(cls, rounds: Sequence["Ingested"]) -> "Ingested":
        """The median of each figure by itself: of two rounds, their mean and not the better one."""
        results = [one.result for one in rounds]
        costs = [one.cpu_us for one in rounds if one.cpu_us is not None]
        return cls(
            Result(
                requests=round(median(one.requests for one in results)),
                per_second=median(one.per_second for one in results),
                errors=sum(one.errors for one in results),
                p50_ms=median(one.p50_ms for one in results),
                p99_ms=median(one.p99_ms for one in results),
            ),
            median(costs) if costs else None,
        )


def ingest(linkbeats: Sequence[System[Ingests]], peers: Sequence[System[Ingests]], plan: Plan) -> None:
    """Every round starts each system again, with empty data; every other round in the opposite order."""
    found: dict[str, list[Ingested]] = {system.name: [] for system in (*linkbeats, *peers)}
    for number in range(plan.rounds):
        for system in [*linkbeats, *peers][:: -1 if number % 2 else 1]:
            with system.start() as instance:
                found[system.name].append(one := ingested(instance, plan.seconds))
            print(f"  round {number + 1}, {system.name}: {one}")
    print(f"ingest, one heartbeat a request, {CONNECTIONS} connections, medians of {plan.rounds} rounds:")
    for name, rounds in found.items():
        print(f"  {name}: {Ingested.middle(rounds)}")
    for linkbeat in linkbeats:
        for peer in peers:
            ratios = [
                ours.result.per_second / theirs.result.per_second
                for ours, theirs in zip(found[linkbeat.name], found[peer.name], strict=True)
            ]
            print(f"  {linkbeat.name}: its rate is {median(ratios):.2f} of that of {peer.name}")


def ingested(
    instance: Ingests, seconds: int, servers: int = SERVERS, *, script: str = "heartbeats.lua", **environment: str
) -> Ingested:
    """One load, after one that makes connections, plans and the first chunk.

    Raises AssertionError where something that was acknowledged is not stored.
    """
    environment |= {"BENCH_SERVERS": str(servers), **instance.heartbeats}
    # No resets: the counters of the next process would come back to where they were, which is a glitch.
    wrk(
        script,
        instance.base,
        CONNECTIONS,
        WARM_UP_SECONDS,
        **environment | {"BENCH_RESETS_ONE_IN": "", "BENCH_GLITCHES_ONE_IN": "", "BENCH_LATE": ""},
    )
    stored, before = instance.stored(), instance.cpu_seconds()
    result = wrk(script, instance.base, CONNECTIONS, seconds, **environment)
    after = instance.cpu_seconds()
    stored = instance.stored() - stored
    assert stored >= result.requests, f"of {result.requests} acknowledged heartbeats {stored} are stored"
    cost = None if before is None or after is None else (after - before) / result.requests * 1e6
    return Ingested(result, cost)
