"""What alerts cost ingest: python -m benchmarks.beside_alerts [--seconds 30] [--rounds 4] [--rules 20].

One heartbeat a request, 64 connections, made by wrk, with alerts evaluated every 15 seconds and with no turn being due,
in turns on one service and one database. The processor time of a heartbeat is that of the service and of the whole
database, evaluation included. Target: 0.98 of the rate without.
"""

import argparse
import os
import sys
from statistics import median

from benchmarks import harness
from benchmarks.alerts import rule
from benchmarks.harness import NotMeasured, database, database_servers, machine, require_wrk
from benchmarks.peers.ingest import CONNECTIONS, Ingested, ingested
from benchmarks.peers.linkbeat import Linkbeat, name_of
from benchmarks.sql import execute, postmaster

_DUE = "UPDATE linkbeat.alert_clock SET evaluated_at = clock_timestamp() - INTERVAL '15 seconds'"
_NEVER_DUE = "UPDATE linkbeat.alert_clock SET evaluated_at = clock_timestamp() + INTERVAL '1 hour'"


def main() -> int:
    """Prints a line for each load, and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_alerts", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="how long each load lasts (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="loads with alerts, and without (default %(default)s)")
    parser.add_argument("--rules", type=int, default=20, help="beside the presets (default %(default)s)")
    parser.add_argument("--database-url", action="append", default=[], help="a TimescaleDB server to measure on")
    chosen = parser.parse_args()
    named = os.environ.get("TEST_DATABASE_URL")
    try:
        require_wrk()
        with database_servers(chosen.database_url or ([named] if named else [])) as servers:
            print(machine())
            for server in servers:
                print(f"{name_of(server)}, one heartbeat a request, {CONNECTIONS} connections, {chosen.rules} rules:")
                measure(server, chosen.seconds, chosen.rounds, chosen.rules)
    except NotMeasured as missing:
        print(f"linkbeat: {missing}", file=sys.stderr)
        return 1
    return 0


def measure(server: str, seconds: int, rounds: int, rules: int) -> None:
    """Every other round begins without."""
    found: dict[bool, list[Ingested]] = {True: [], False: []}
    with database(server) as url:
        for number in range(rules):
            kind, spec = rule(number)
            execute(url, f"SELECT linkbeat.set_alert_rule('rule-{number}', '{kind}', '{spec}')")
        with harness.service(url) as service:
            instance = Linkbeat(service, postmaster(url))
            for number in range(rounds):
                for is_on in (True, False)[:: -1 if number % 2 else 1]:
                    execute(url, _DUE if is_on else _NEVER_DUE)
                    found[is_on].append(one := ingested(instance, seconds))
                    print(f"  {'with' if is_on else 'without'} evaluation: {one}", flush=True)
    pairs = list(zip(found[True], found[False], strict=True))
    print(f"  rate beside evaluation: {median(on.result.per_second / off.result.per_second for on, off in pairs):.3f}")
    costs = [on.cpu_us / off.cpu_us for on, off in pairs if on.cpu_us and off.cpu_us]
    if costs:
        print(f"  processor time of a heartbeat beside evaluation: {median(costs):.3f}")


if __name__ == "__main__":
    sys.exit(main())
