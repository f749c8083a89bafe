"""What a reset costs the database: python -m benchmarks.resets [--servers 100] [--rounds 56] [--reboots].

Two databases by turns are sent the same heartbeats, of 4 interfaces every 30 seconds, except that on the second one
in eight of them counts from 0 again. Printed is the processor time of the process that serves the connection, per
heartbeat, for each, and how many times a plain heartbeat such a heartbeat costs: what heartbeats cost more on the
second database, taken eightfold, although in truth those after a reset, which may be the old counters' still, cost a
part of it. The server has to be on this machine, with Linux.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.harness import database, machine
from service.embedded.choose import choose_test_database
from service.ingest.batch import CALL, Pending, arguments
from service.ingest.heartbeat import decode_heartbeat

INTERFACES = 4
ONE_IN = 8
WARM_ROUNDS = 16  # plans are made, and the first resets of all are over
_STEP = timedelta(seconds=30)
_SESSION = {"synchronous_commit": "off", "plan_cache_mode": "force_generic_plan", "jit": "off"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resets", description=__doc__)
    parser.add_argument("--servers", type=int, default=100, help="heartbeats a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=56, help=f"of which {WARM_ROUNDS} warm up (default %(default)s)")
    parser.add_argument("--reboots", action="store_true", help="they are reboots, with another boot_id")
    given = parser.parse_args()
    print(machine())
    with (
        choose_test_database(os.environ.get("TEST_DATABASE_URL") or None, print) as server,
        database(server.url) as plain,
        database(server.url) as reset,
    ):
        asyncio.run(measure(plain, reset, given.servers, given.rounds, reboots=given.reboots))


async def measure(plain_url: str, reset_url: str, servers: int, rounds: int, *, reboots: bool) -> None:
    """Prints what a heartbeat costs on each database."""
    # Newest heartbeats: those of the past would be noted for the alerts, which is not what is measured.
    start = datetime.now(UTC)
    batches = {
        plain_url: Batches(servers, start, resets=False, reboots=False),
        reset_url: Batches(servers, start, resets=True, reboots=reboots),
    }
    connections = {url: await asyncpg.connect(url, server_settings=_SESSION) for url in batches}
    cost: dict[str, list[float]] = {url: [] for url in batches}
    try:
        for number in range(rounds):
            for url in sorted(batches, reverse=number % 2 == 1):
                batch = batches[url].next_round()
                began = _processor_ns(connections[url])
                await connections[url].fetchrow(CALL, *batch)
                cost[url].append((_processor_ns(connections[url]) - began) / servers / 1_000)
    finally:
        for connection in connections.values():
            await connection.close()
    plain, reset = (cost[url][WARM_ROUNDS:] for url in (plain_url, reset_url))
    ratio = statistics.median(r / p for p, r in zip(plain, reset, strict=True))
    print(f"plain: {statistics.median(plain):.1f} µs a heartbeat")
    print(f"one in {ONE_IN} counts from 0: {statistics.median(reset):.1f} µs a heartbeat, {ratio:.2f} times")
    print(f"such a heartbeat: {1 + ONE_IN * (ratio - 1):.1f} times a plain one")


class Batches:
    """Rounds of heartbeats, one of each server, whose counters grow at random, the same on both databases."""

    def __init__(self, servers: int, start: datetime, *, resets: bool, reboots: bool) -> None:
        self._random = random.Random(1)
        self._counters = [[[10**9, 10**8, 10**6, 10**5] for _ in range(INTERFACES)] for _ in range(servers)]
        self._boots = [0] * servers
        self._start = start
        self._resets = resets
        self._reboots = reboots
        self._round = -1

    def next_round(self) -> list[Any]:
        """The arguments of CALL."""
        self._round += 1
        loop = asyncio.get_running_loop()
        pending = []
        for server in range(len(self._counters)):
            heartbeat = decode_heartbeat(
                json.dumps(self._heartbeat(server)).encode(),
                now=self._start + _STEP * self._round,
                oldest=timedelta(days=1),
            )
            assert heartbeat.timestamp is not None
            pending.append(Pending(heartbeat, heartbeat.timestamp, 0.0, loop.create_future(), 1))
        return arguments(pending, may_register=self._round == 0, series_budget=200, fold_seconds=3_600)

    def _heartbeat(self, server: int) -> dict[str, Any]:
        if self._resets and self._round > 3 and (server + self._round) % ONE_IN == 0:
            self._counters[server] = [[0, 0, 0, 0] for _ in range(INTERFACES)]
            self._boots[server] += self._reboots
        interfaces = []
        for number, counters in enumerate(self._counters[server]):
            octets = self._random.randint(2_000_000, 10_000_000)
            for n, grown in enumerate((octets, octets // 7, octets // 900, octets // 6_000)):
                counters[n] += grown
            names = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
            counted = dict(zip(names, counters, strict=True))
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


def _processor_ns(connection: asyncpg.Connection) -> int:
    """Nanoseconds that the server's process of this connection has run: the first number of its schedstat."""
    return int(Path(f"/proc/{connection.get_server_pid()}/schedstat").read_text().split()[0])


if __name__ == "__main__":
    main()
