"""The price of a heartbeat whose counters do not plainly grow: python -m benchmarks.evidence [--tree ../older].

Batches of 200 heartbeats with 4 interfaces each go straight to linkbeat.ingest_heartbeats, so that nothing but the
database is measured, and by its processor time, which a busy machine changes least. In the runs but the first, one
heartbeat in eight is off the plain path: it costs eight times the difference to `plain` more. With --tree another
checkout's code does the same in turn, in databases of its own on the same server.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from benchmarks.harness import NotMeasured, database, database_servers, machine
from service.ingest.batch import CALL, Pending, arguments
from service.ingest.heartbeat import decode_heartbeat

SERVERS, INTERFACES, ROUNDS, WARM_UP = 200, 4, 45, 9
ONE_IN = 8
RUNS = ("plain", "reset", "reboot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", action="append", default=[], help="a TimescaleDB server to measure on")
    parser.add_argument("--tree", action="append", default=[], help="another checkout to measure in turn")
    options = parser.parse_args()
    here = str(Path(__file__).resolve().parent.parent)
    try:
        with database_servers(options.database_url) as servers:
            print(machine())
            for server in servers:
                for run in RUNS:
                    for tree in (here, *options.tree):
                        environment = os.environ | {"PYTHONPATH": tree}
                        command = [
                            sys.executable,
                            "-P",
                            __file__,
                            "--measure",
                            run,
                            server,
                        ]  # else agent.py beside it is found
                        subprocess.run(command, cwd=tree, env=environment, check=True)
    except NotMeasured as problem:
        sys.exit(str(problem))


def measure(run: str, server: str) -> None:
    """One run on a database of its own; prints what a heartbeat cost."""
    with database(server) as url:
        micros, plain = asyncio.run(_measure(run, url))
    what = run if plain else f"{run}, one in {ONE_IN}"
    print(f"{Path.cwd().name:<16}{what:<20}{micros:7,.0f} µs of processor time a heartbeat", flush=True)


async def _measure(run: str, url: str) -> tuple[float, bool]:
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "off", "statement_timeout": "0"})
    loop, pid = asyncio.get_running_loop(), connection.get_server_pid()
    spent = 0.0
    for round_, bodies in enumerate(_rounds(run)):
        now = datetime.now(UTC)
        beats = [decode_heartbeat(msgspec.json.encode(body), now=now, oldest=timedelta(days=7)) for body in bodies]
        batch = [Pending(beat, beat.timestamp or now, 0.0, loop.create_future(), 1) for beat in beats]
        sent = arguments(batch, may_register=round_ == 0, series_budget=200, fold_seconds=3600)
        before = _processor_seconds(pid)
        await connection.fetchrow(CALL, *sent)
        if round_ >= WARM_UP:
            spent += _processor_seconds(pid) - before
    await connection.close()
    return 1e6 * spent / SERVERS / (ROUNDS - WARM_UP), run == "plain"


def _rounds(run: str) -> list[list[dict[str, Any]]]:
    rng = random.Random(1)
    start = datetime.now(UTC) - timedelta(seconds=30 * ROUNDS)
    counters = {(s, i): [10**9 * (i + 1) + s, 10**8, 10**6, 10**5] for s in range(SERVERS) for i in range(INTERFACES)}
    boots = dict.fromkeys(range(SERVERS), 0)
    rounds = []
    for round_ in range(ROUNDS):
        bodies = []
        for server in range(SERVERS):
            if run != "plain" and round_ and (server + round_) % ONE_IN == 0:
                counters.update({(server, i): [0, 0, 0, 0] for i in range(INTERFACES)})
                boots[server] += run == "reboot"
            interfaces = []
            for number in range(INTERFACES):
                counter = counters[server, number]
                octets = rng.randint(2_000_000, 10_000_000)
                grown = (octets, octets // 7, octets // 900, octets // 6_000)
                counter[:] = [value + more for value, more in zip(counter, grown, strict=True)]
                names = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
                interfaces.append({"name": f"eth{number}", "is_up": True, **dict(zip(names, counter, strict=True))})
            bodies.append(
                {
                    "server_id": f"bench-{server:03}",
                    "hostname": "bench",
                    "boot_id": str(uuid.UUID(int=(server << 32) + boots[server], version=4)),
                    "timestamp": (start + timedelta(seconds=30 * round_)).isoformat(),
                    "metrics": {"cpu_percent": 1.0, "memory_percent": 2.0, "disk_percent": 3.0},
                    "network_interfaces": interfaces,
                }
            )
        rounds.append(bodies)
    return rounds


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:4])
    else:
        main()
