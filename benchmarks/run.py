"""make bench: acknowledged heartbeats per second, and what a sparkline and its picture cost over seven days of 200
series.

The service runs as a process on a TimescaleDB of its own (TEST_DATABASE_URL, Docker, this host's or the embedded one),
durable: fsync and synchronous_commit are on. wrk makes the load, on the same machine.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import (
    HEARTBEATS,
    KEY,
    NotMeasured,
    Result,
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
Series = Sequence[tuple[str, str]]
SECTIONS = ("heartbeat", "sparkline", "picture")


def main() -> int:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long the heartbeats last (default 20)")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas (default: all)")
    chosen = parser.parse_args()
    sections = set(chosen.only.split(","))
    if unknown := sections - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    named = os.environ.get("TEST_DATABASE_URL")
    try:
        require_wrk()
        print(machine())
        with (
            database_servers([named] if named else []) as servers,
            database(servers[0]) as url,
            service(url) as linkbeat,
        ):
            if "heartbeat" in sections:
                _heartbeats(linkbeat, chosen.seconds)
            if sections & {"sparkline", "picture"}:
                series = _loaded(linkbeat)
            with temporary_directory() as directory:
                if "sparkline" in sections:
                    _sparklines(linkbeat, series, directory / "paths")
                if "picture" in sections:
                    _pictures(linkbeat, series, directory / "paths")
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


def _loaded(linkbeat: Service) -> Series:
    """Seven days of 200 series."""
    begun = time.monotonic()
    traffic = Traffic.until_now(servers=50, days=7)
    load(linkbeat.url, traffic)
    rows = fetchval(linkbeat.url, "SELECT count(*) FROM bench_samples")
    print(f"loaded 7 days of {len(traffic.series)} series, {rows} rows, in {time.monotonic() - begun:.0f} s")
    return traffic.series


def _sparklines(linkbeat: Service, series: Series, paths: Path) -> None:
    for connections in (1, 16):
        for period in PERIODS:
            found = _ask(linkbeat, [sparkline_path(*one, period) for one in series], paths, connections)
            print(f"sparkline {period:>3}, {connections:>2} connections: {found}")


def _pictures(linkbeat: Service, series: Series, paths: Path) -> None:
    """Each beside its JSON form in turns: recomputed, and as many widgets find it, kept."""
    for connections in (1, 16):
        for period in PERIODS:
            for is_kept in (False, True):
                for name, path in (("json", sparkline_path), ("picture", picture_path)):
                    found = _ask(
                        linkbeat, [path(*one, period) for one in series], paths, connections, is_kept=is_kept
                    )  # fmt: skip
                    state = "kept" if is_kept else "new"
                    print(f"{name:>7} {period:>3}, {state:>4}, {connections:>2} connections: {found}")


def _ask(
    linkbeat: Service, asked: list[str], paths: Path, connections: int, *, is_kept: bool = False
) -> Result:  # fmt: skip
    paths.write_text("".join(f"{one}\n" for one in asked))
    settings = {"BENCH_KEY": KEY, "BENCH_PATHS": str(paths), **({"BENCH_KEPT": "1"} if is_kept else {})}
    return wrk("paths.lua", linkbeat.base, connections, 5, **settings)


def picture_path(server_id: str, interface: str, period: str) -> str:
    return sparkline_path(server_id, interface, period).replace("/network?", "/network.svg?")


def sparkline_path(server_id: str, interface: str, period: str) -> str:
    return f"/api/v1/metrics/sparkline/{server_id}/network?period={period}&interface={interface}"


if __name__ == "__main__":
    sys.exit(main())
