"""make bench-evidence: what a heartbeat that is not plain costs, in heartbeats whose counters plainly grow.

Plain heartbeats take turns with those of which a part is of another form (--form):
  resets    one in eight counts from 0 again
  reboots   the same, with another boot_id (the database alone)
  glitches  one in eight reports zeros, and the next one is back: two heartbeats
  late      every other one arrives after the next one
Such a heartbeat is charged with all that heartbeats cost more then, although those after it, which may be the old
counters' still, cost a part of that. First the whole way of a heartbeat: the processor time of service and database,
loaded by wrk. Then the database alone: the process that serves one connection, given batches of 100. With --tree, other
checkouts do the same, in databases of their own on the same server. The server has to be on this machine, with Linux.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.harness import NotMeasured, database, database_servers, machine, require_wrk
from benchmarks.peers.ingest import SERVERS as SERVERS_KNOWN
from benchmarks.peers.ingest import ingested
from benchmarks.peers.linkbeat import name_of, running
from benchmarks.processes import exact_cpu_seconds
from service.ingest.batch import CALL, Pending, arguments
from service.ingest.heartbeat import decode_heartbeat

ONE_IN = 8
# What share of the heartbeats is of the form.
FORMS = {"resets": 1 / ONE_IN, "reboots": 1 / ONE_IN, "glitches": 2 / ONE_IN, "late": 1 / 2}
# What heartbeats.lua is told, of the forms that are measured the whole way: always, and of those that are not plain.
LOADS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "resets": ({}, {"BENCH_RESETS_ONE_IN": str(ONE_IN)}),
    "glitches": ({}, {"BENCH_GLITCHES_ONE_IN": str(ONE_IN)}),
    # With less between two heartbeats of a server than there is in fact: none is ahead of the service's clock.
    "late": ({"BENCH_STEP_MS": "50"}, {"BENCH_LATE": "1"}),
}
SERVERS, INTERFACES = 100, 4  # of the database alone
WARM_ROUNDS = 8  # plans are made, and the first resets of all are over
_STEP = timedelta(seconds=30)
_SESSION = {"synchronous_commit": "off", "plan_cache_mode": "force_generic_plan", "jit": "off"}
_SCRIPT = Path(__file__).with_name("heartbeats.lua")  # this one for other checkouts too


def main() -> int:
    """Prints both parts for each server and checkout."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--database-url", action="append", default=[], help="a TimescaleDB server to measure on")
    parser.add_argument("--tree", action="append", default=[], help="another checkout to measure in turn")
    parser.add_argument("--turns", type=int, default=3, help="of the whole way (default %(default)s; 0 leaves it out)")
    parser.add_argument("--seconds", type=int, default=10, help="how long each lasts (default %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=28,
        help=f"of the database alone, of two heartbeats of each server (default %(default)s); {WARM_ROUNDS} warm up",
    )
    parser.add_argument("--form", choices=FORMS, default="resets", help="what is not plain (default %(default)s)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # a checkout is measured by a process of its own
    given = parser.parse_args()
    if given.measure:
        _measure(given.measure, given)
        return 0
    named = os.environ.get("TEST_DATABASE_URL")
    trees = [str(_SCRIPT.parent.parent), *given.tree]
    try:
        require_wrk()
        with database_servers(given.database_url or ([named] if named else [])) as servers:
            print(machine(), flush=True)
            for server in servers:
                for tree in trees:
                    print(f"{name_of(server)}{f', {tree}' if given.tree else ''}:", flush=True)
                    # -P: else the benchmark beside it would be found for the agent's package.
                    command = [sys.executable, "-P", __file__, *sys.argv[1:], "--measure", server]
                    subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": tree}, check=True)
    except NotMeasured as missing:
        print(f"linkbeat: {missing}", file=sys.stderr)
        return 1
    return 0


def _measure(server: str, given: argparse.Namespace) -> None:
    form = given.form
    if given.turns and form in LOADS:
        _report("service and database", form, *_whole_way(server, form, given.turns, given.seconds))
    with database(server) as plain, database(server) as other:
        _report("database alone", form, *asyncio.run(_database_alone(plain, other, given.rounds, form)))


def _report(part: str, form: str, plain: list[float], mixed: list[float]) -> None:
    ratio = statistics.median(m / p for p, m in zip(plain, mixed, strict=True))
    such = 1 + (ratio - 1) / FORMS[form]
    print(f"  {part}: {statistics.median(plain):.0f} µs a plain heartbeat; ", end="")
    print(
        f"with {form}: {statistics.median(mixed):.0f} µs, {ratio:.2f} times; such a heartbeat: {such:.1f} times",
        flush=True,
    )


def _whole_way(server: str, form: str, turns: int, seconds: int) -> tuple[list[float], list[float]]:
    """Microseconds of each turn, which begins with empty data: plain, and with heartbeats of the form."""
    costs: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(turns):
        for is_mixed in (False, True) if turn % 2 == 0 else (True, False):
            with running(server) as linkbeat:
                # Each server reports once a second or oftener here. With the usual interval of 30 seconds, each reset
                # would fall into the doubts of the one before it, and be judged by rules of their own.
                always, mixed = LOADS[form]
                load = {"BENCH_INTERVAL": "1"} | always | (mixed if is_mixed else {})
                one = ingested(linkbeat, seconds, SERVERS_KNOWN, script=str(_SCRIPT), **load)
            assert one.cpu_us is not None, "the database's server is not on this machine"
            print(f"    {f'with {form}' if is_mixed else 'plain':<16}{one}", flush=True)
            costs[is_mixed].append(one.cpu_us)
    return costs[False], costs[True]


async def _database_alone(plain_url: str, other_url: str, rounds: int, form: str) -> tuple[list[float], list[float]]:
    """Microseconds a heartbeat of each round, on each database."""
    # Newest heartbeats: those of the past would be noted for the alerts, which is not what is measured.
    start = datetime.now(UTC)
    batches = {plain_url: Batches(start, "plain"), other_url: Batches(start, form)}
    connections = {url: await asyncpg.connect(url, server_settings=_SESSION) for url in batches}
    cost: dict[str, list[float]] = {url: [] for url in batches}
    try:
        for number in range(rounds):
            for url in sorted(batches, reverse=number % 2 == 1):
                sent, pid = batches[url].next_two(), connections[url].get_server_pid()
                began = exact_cpu_seconds(pid)
                for batch in sent:
                    await connections[url].fetchrow(CALL, *batch)
                cost[url].append((exact_cpu_seconds(pid) - began) / SERVERS / len(sent) * 1e6)
    finally:
        for connection in connections.values():
            await connection.close()
    return cost[plain_url][WARM_ROUNDS:], cost[other_url][WARM_ROUNDS:]


class Batches:
    """Rounds of heartbeats, one of each server, whose counters grow at random, the same on both databases."""

    def __init__(self, start: datetime, form: str) -> None:
        self._random = random.Random(1)
        self._counters = [[[10**9, 10**8, 10**6, 10**5] for _ in range(INTERFACES)] for _ in range(SERVERS)]
        self._boots = [0] * SERVERS
        self._start = start
        self._form = form
        self._round = -1

    def next_two(self) -> list[list[Any]]:
        """The arguments of CALL for the next two rounds, in the order of their arrival."""
        two = [self._next(), self._next()]
        return two[::-1] if self._form == "late" and self._round > 1 else two

    def _next(self) -> list[Any]:
        self._round += 1
        loop = asyncio.get_running_loop()
        pending = []
        for server in range(SERVERS):
            heartbeat = decode_heartbeat(
                json.dumps(self._heartbeat(server)).encode(),
                now=self._start + _STEP * self._round,
                oldest=timedelta(days=1),
            )
            assert heartbeat.timestamp is not None
            pending.append(Pending(heartbeat, heartbeat.timestamp, 0.0, loop.create_future(), 1))
        return arguments(pending, may_register=self._round == 0, series_budget=200, fold_seconds=3_600)

    def _heartbeat(self, server: int) -> dict[str, Any]:
        is_odd = self._round > 3 and (server + self._round) % ONE_IN == 0
        if is_odd and self._form in ("resets", "reboots"):
            self._counters[server] = [[0, 0, 0, 0] for _ in range(INTERFACES)]
            self._boots[server] += self._form == "reboots"
        interfaces = []
        for number, counters in enumerate(self._counters[server]):
            octets = self._random.randint(2_000_000, 10_000_000)
            for n, grown in enumerate((octets, octets // 7, octets // 900, octets // 6_000)):
                counters[n] += grown
            names = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
            read = [0, 0, 0, 0] if is_odd and self._form == "glitches" else counters
            counted = dict(zip(names, read, strict=True))
            counted |= dict.fromkeys(("rx_errors", "tx_errors", "rx_dropped", "tx_dropped"), 0)
            interfaces.append({"name": f"eth{number}", "is_up": True, **counted})
        return {
            "server_id": f"bench-{server:04}",
            "hostname": "bench",
            "boot_id": str(uuid.UUID(int=(1 << 100) + server * 1_000 + self._boots[server])),
            "timestamp": (self._start + _STEP * self._round).isoformat(),
            "network_interfaces": interfaces,
            "metrics": {"cpu_percent": 1.0, "memory_percent": 2.0, "disk_percent": 3.0},
        }


if __name__ == "__main__":
    sys.exit(main())
