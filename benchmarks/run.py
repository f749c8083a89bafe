"""make bench: acknowledged heartbeats per second, and what a sparkline costs over seven days of 200 series.

The service runs as a process on a TimescaleDB of its own (TEST_DATABASE_URL, Docker, this host's or the embedded one),
durable: fsync and synchronous_commit are on. wrk makes the load, on the same machine.
"""

import argparse
import os
import sys
import time

from benchmarks.harness import (
    HEARTBEATS,
    KEY,
    NotMeasured,
    Service,
    database,
    database_servers,
    machine,
    require_wrk,
    service,
    stored_heartbeats,
    temporary_directory,
    wrk,
)
from benchmarks.sql import fetchval
from benchmarks.traffic import Traffic, load

PERIODS = ("1h", "24h", "7d")


def main() -> int:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long the heartbeats last (default 20)")
    seconds = parser.parse_args().seconds
    named = os.environ.get("TEST_DATABASE_URL")
    try:
        require_wrk()
        print(machine())
        with (
            database_servers([named] if named else []) as servers,
            database(servers[0]) as url,
            service(url) as linkbeat,
        ):
            _heartbeats(linkbeat, seconds)
            _sparklines(linkbeat)
    except NotMeasured as missing:
        print(f"linkbeat: {missing}", file=sys.stderr)
        return 1
    return 0


def _heartbeats(linkbeat: Service, seconds: int) -> None:
    load_of = {"BENCH_SERVERS": "2000", **HEARTBEATS}
    wrk("heartbeats.lua", linkbeat.base, 64, 3, **load_of)  # connections, plans and the first chunk are made
    before = stored_heartbeats(linkbeat.url)
    found = wrk("heartbeats.lua", linkbeat.base, 64, seconds, **load_of)
    stored = stored_heartbeats(linkbeat.url) - before
    print(f"heartbeats, 64 connections: {found}; {found.requests} acknowledged, {stored} stored")
    assert stored >= found.requests, "an acknowledged heartbeat is not stored"


def _sparklines(linkbeat: Service) -> None:
    begun = time.monotonic()
    traffic = Traffic.until_now(servers=50, days=7)
    load(linkbeat.url, traffic)
    rows = fetchval(linkbeat.url, "SELECT count(*) FROM bench_samples")
    print(f"loaded 7 days of {len(traffic.series)} series, {rows} rows, in {time.monotonic() - begun:.0f} s")
    with temporary_directory() as directory:
        paths = directory / "paths"
        for connections in (1, 16):
            for period in PERIODS:
                paths.write_text("".join(f"{sparkline_path(*series, period)}\n" for series in traffic.series))
                found = wrk("paths.lua", linkbeat.base, connections, 5, BENCH_KEY=KEY, BENCH_PATHS=str(paths))
                print(f"sparkline {period:>3}, {connections:>2} connections: {found}")


def sparkline_path(server_id: str, interface: str, period: str) -> str:
    return f"/api/v1/metrics/sparkline/{server_id}/network?period={period}&interface={interface}"


if __name__ == "__main__":
    sys.exit(main())
