"""make bench-agent: what a running agent costs, beside Debian's prometheus-node-exporter on the same machine.

The agent reports to a real service every 30 s; node-exporter is fetched as often, as Prometheus would. Both run side by
side for ten minutes. node-exporter is found on PATH or by BENCH_NODE_EXPORTER; where it is missing it is left out.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks import harness
from benchmarks.peers.programs import Program
from benchmarks.processes import exact_cpu_seconds, resident_bytes, started
from benchmarks.sql import fetchval
from tests.helpers.processes import free_port

INTERVAL_SECONDS = 30
STARTS = 9
MEBIBYTE = 2**20
NODE_EXPORTER = Program("node-exporter", "prometheus-node-exporter", "BENCH_NODE_EXPORTER", "prometheus-node-exporter")


class Cost(NamedTuple):
    """Of one process: its share of one core in percent, and its resident memory, highest over the whole time."""

    cpu_percent: float
    resident_mib: float

    def __str__(self) -> str:
        return f"{self.cpu_percent:.3f} % of a core, {self.resident_mib:.1f} MiB resident"


def main() -> int:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agent", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="of running (default 10)")
    parser.add_argument("--database-url", help="a TimescaleDB server to store in, as a superuser")
    arguments = parser.parse_args()
    print(harness.machine())
    exporter = NODE_EXPORTER.find()
    if exporter is None:
        print(NODE_EXPORTER.missing())
    try:
        urls = [arguments.database_url] if arguments.database_url else []
        with (
            harness.database_servers(urls) as (server,),
            harness.database(server) as url,
            harness.service(url) as service,
        ):
            _measure(service, exporter, arguments.minutes * 60)
    except harness.NotMeasured as missing:
        print(f"linkbeat: {missing}", file=sys.stderr)
        return 1
    return 0


def _measure(service: harness.Service, exporter: Path | None, seconds: float) -> None:
    with harness.temporary_directory() as directory:
        times = [_seconds_to_start(service, directory) for _ in range(STARTS)]
        print(f"agent, from its start to its first words: {statistics.median(times):.2f} s, the middle of {STARTS}")
        with contextlib.ExitStack() as stack:
            pids = {"agent": stack.enter_context(_agent(service, directory))}
            page = ""
            if exporter:
                page = f"127.0.0.1:{free_port()}"
                pids["node-exporter"] = stack.enter_context(
                    started(
                        [exporter, f"--web.listen-address={page}"],
                        answers_at=f"http://{page}/metrics",
                        log=directory / "exporter.log",
                    )
                )
            for name, cost in _watched(pids, seconds, f"http://{page}/metrics" if page else None).items():
                print(f"{name}, {seconds / 60:g} minutes at {INTERVAL_SECONDS} s: {cost}")
        stored = fetchval(service.url, "SELECT count(*) FROM server_metrics WHERE server_id = 'bench-agent'")
        print(f"heartbeats stored, with those of the {STARTS} starts: {stored}")
        if stored < seconds / INTERVAL_SECONDS:
            raise harness.NotMeasured("the agent did not report every interval")


def _watched(pids: dict[str, int], seconds: float, page: str | None) -> dict[str, Cost]:
    """Each process's cost from now on; `page` is fetched every interval."""
    before = {name: exact_cpu_seconds(pid) for name, pid in pids.items()}
    highest = dict.fromkeys(pids, 0)
    start = time.monotonic()
    with httpx.Client() as http:
        due = start
        while time.monotonic() < start + seconds:
            if page and time.monotonic() >= due:
                http.get(page).raise_for_status()
                due += INTERVAL_SECONDS
            for name, pid in pids.items():
                highest[name] = max(highest[name], resident_bytes(pid))
            time.sleep(1)
    elapsed = time.monotonic() - start
    return {
        name: Cost(100 * (exact_cpu_seconds(pid) - before[name]) / elapsed, highest[name] / MEBIBYTE)
        for name, pid in pids.items()
    }


@contextlib.contextmanager
def _agent(service: harness.Service, directory: Path) -> Iterator[int]:
    """Its process id, once it has said that it reports."""
    log = directory / "agent.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run"],
            env={
                "LINKBEAT_URL": service.base,
                "LINKBEAT_API_KEY": harness.KEY,
                "LINKBEAT_SERVER_ID": "bench-agent",
                "LINKBEAT_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
                "LINKBEAT_START_JITTER_SECONDS": "0",
                "LINKBEAT_SPOOL_DIR": str(directory / "spool"),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        while b" reports as " not in log.read_bytes():
            if process.poll() is not None:
                raise harness.NotMeasured(f"the agent ended:\n{log.read_text(errors='replace')}")
            time.sleep(0.002)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def _seconds_to_start(service: harness.Service, directory: Path) -> float:
    start = time.monotonic()
    with _agent(service, directory):
        return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
