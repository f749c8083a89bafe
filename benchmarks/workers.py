"""make bench-workers: heartbeats a second with 1, 2 and 4 processes of the service on one database, and their cost.

One heartbeat a request, 64 connections, made by wrk on the same machine. On a machine with few cores the rate says how
they are shared with the database and with wrk; the processor time of a heartbeat says what more processes cost.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from benchmarks import harness
from benchmarks.harness import NotMeasured, database, database_servers, machine, require_wrk
from benchmarks.peers.ingest import CONNECTIONS, ingested
from benchmarks.peers.linkbeat import Linkbeat, name_of
from benchmarks.sql import postmaster

WORKERS = (1, 2, 4)


def main() -> int:
    """Prints a line for each number of processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="how long each load lasts (default 10)")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="numbers of processes (default 1 2 4)")
    parser.add_argument("--database-url", action="append", default=[], help="a TimescaleDB server to measure on")
    chosen = parser.parse_args()
    named = os.environ.get("TEST_DATABASE_URL")
    try:
        require_wrk()
        with database_servers(chosen.database_url or ([named] if named else [])) as servers:
            print(machine())
            for server in servers:
                print(f"{name_of(server)}, one heartbeat a request, {CONNECTIONS} connections:")
                measure(server, chosen.workers, chosen.seconds)
    except NotMeasured as missing:
        print(f"linkbeat: {missing}", file=sys.stderr)
        return 1
    return 0


def measure(server: str, numbers: Sequence[int], seconds: int) -> None:
    """Each on an empty database."""
    for number in numbers:
        with database(server) as url, harness.service(url, workers=number) as service:
            print(
                f"  {number} process{'es' * (number > 1)}: {ingested(Linkbeat(service, postmaster(url)), seconds)}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
