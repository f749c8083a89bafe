"""make bench-peers: Linkbeat beside InfluxDB, VictoriaMetrics and Prometheus, on this machine in one run.

Each section can be had alone. The peers' programs are found on PATH or by BENCH_INFLUXD, BENCH_VICTORIA_METRICS,
BENCH_PROMETHEUS and BENCH_PROMTOOL; those that are missing are left out.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.harness import NotMeasured, database_servers, machine, require_wrk
from benchmarks.peers import influxdb, victoriametrics
from benchmarks.peers.batch import batch
from benchmarks.peers.half_load import half_load
from benchmarks.peers.history import history
from benchmarks.peers.ingest import ingest
from benchmarks.peers.linkbeat import systems
from benchmarks.peers.memory import memory
from benchmarks.peers.plan import QUICK, Plan
from benchmarks.peers.programs import Programs
from benchmarks.peers.sparkline import sparkline
from benchmarks.peers.storage import storage
from benchmarks.peers.systems import Ingests, System

SECTIONS = ("ingest", "batch", "half-load", "sparkline", "fleet", "bytes", "history", "memory")


def main() -> int:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", type=_sections, default=SECTIONS, metavar="SECTION,…", help=f"of {', '.join(SECTIONS)} (default all)"
    )
    parser.add_argument(
        "--database-url",
        action="append",
        metavar="URL",
        help="a TimescaleDB server to measure on, as a superuser; may be repeated, as for both editions in one run "
        "(default TEST_DATABASE_URL, else Docker's, this host's or the embedded one)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short and small: shows that it works, and measures nothing"
    )
    parser.add_argument("--seconds", type=int, help=f"of each load of heartbeats (default {Plan.seconds})")
    parser.add_argument("--rounds", type=int, help=f"how often the systems take turns (default {Plan.rounds})")
    parser.add_argument("--minutes", type=float, help=f"of load while memory is watched (default {Plan.minutes})")
    arguments = parser.parse_args()
    sizes = {name: getattr(arguments, name) for name in ("seconds", "rounds", "minutes")}
    plan = replace(QUICK if arguments.quick else Plan(), **{name: size for name, size in sizes.items() if size})
    named = os.environ.get("TEST_DATABASE_URL")
    try:
        require_wrk()
        print(machine())
        programs = Programs.found()
        with database_servers(arguments.database_url or ([named] if named else [])) as servers:
            _run(frozenset(arguments.only), servers, programs, plan)
    except NotMeasured as missing:
        print(f"linkbeat: {missing}", file=sys.stderr)
        return 1
    return 0


def _run(sections: frozenset[str], servers: Sequence[str], programs: Programs, plan: Plan) -> None:
    linkbeats = systems(servers)
    if "ingest" in sections:
        ingest(linkbeats, _ingesting(programs), plan)
    if "batch" in sections:
        batch(linkbeats, plan)
    if "half-load" in sections:
        half_load(linkbeats, plan)
    if sections & {"sparkline", "fleet"}:
        sparkline(linkbeats, programs, plan, series="sparkline" in sections, fleet="fleet" in sections)
    if "bytes" in sections:
        storage(servers, programs, plan)
    if "history" in sections:
        history(servers, plan)
    if "memory" in sections:
        memory(linkbeats, plan)


def _ingesting(programs: Programs) -> list[System[Ingests]]:
    """The peers that take heartbeats; Prometheus fetches instead."""
    peers: list[System[Ingests]] = []
    if programs.influxd:
        peers.append(System("InfluxDB", partial(influxdb.running, programs.influxd)))
    if programs.victoria_metrics:
        peers.append(System("VictoriaMetrics", partial(victoriametrics.running, programs.victoria_metrics)))
    return peers


def _sections(text: str) -> tuple[str, ...]:
    named = tuple(text.split(","))
    if unknown := set(named) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return named


if __name__ == "__main__":
    sys.exit(main())
