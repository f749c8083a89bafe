"""What alerts cost: python -m benchmarks.alerts [--servers 100000] [--rules 20] [--turns 8].

A fleet of machines with 4 interfaces that report every 30 seconds, on a database of its own: rows of the last twelve
minutes, written straight into the tables, and those more that arrive until the next turn is due, as the service
has it: after 15 seconds, or later if the turn before took long. One series in a thousand is beyond the rules' bounds,
and one in ten thousand comes and goes; the presets are on as well. Then the turn in which 10,000 interfaces fire at
once.
Target at 100,000 servers: 1 % of a processor, 0.5 s a turn; 2 s for that one, 5 s for its message.
"""

import argparse
import asyncio
import math
import os
import statistics
import time
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks.harness import database, machine
from benchmarks.processes import exact_cpu_seconds
from benchmarks.sql import postmaster
from service.alerts.evaluate import PAUSES, POLLS
from service.embedded.choose import choose_test_database

HISTORY = timedelta(minutes=12)
TURN = timedelta(seconds=15)
SUMMARISED = timedelta(minutes=1)
FIRING_AT_ONCE = 10_000
INTERFACES = ["eth0", "eth1", "docker0", "wg0"]

_SERVERS = """
INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at, live_at, interval_seconds, clock_skew_ms,
    agent_report, interface_names, interfaces)
SELECT format('bench-%s', s), format('bench-%s.example', s), $2::timestamptz, $2, $2, $2, 30, 12,
       '{"queued": 0, "spool": "disk", "spool_bytes": 0, "dropped": 0, "rejected": 0}', $3::text[],
       (SELECT array_agg(jsonb_populate_record(NULL::linkbeat.interface_state, jsonb_build_object(
            'interface_name', name, 'time', $2, 'rx_bytes', 5000000000 + s, 'tx_bytes', s, 'rx_packets', s,
            'tx_packets', s, 'rx_bytes_delta', 3000000, 'tx_bytes_delta', 1000000, 'elapsed_ms', 30000, 'is_up', true,
            'counts_64bit', true,
            'is_lowest', true, 'is_folded', false, 'delta_kind', 'normal', 'kind', 'physical', 'speed_mbps', 1000)))
        FROM unnest($3::text[]) AS name)
FROM generate_series(1, $1::integer) AS s
"""
# Each machine has its own moment of the half minute. `busy`: one in so many series is above the bound.
_ROWS = """
INSERT INTO network_interface_metrics (time, server_id, interface_name, rx_bytes, tx_bytes, rx_packets, tx_packets,
    rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, rx_errors_delta, tx_errors_delta,
    rx_dropped_delta, tx_dropped_delta, elapsed_ms, interval_ms, is_up, counts_64bit, delta_kind, speed_mbps)
SELECT t, format('bench-%s', s), name, 5000000000, 5000000000, 5000000, 5000000,
       CASE WHEN (s * 4 + place) % $5::integer = 0
                 OR (s * 4 + place) % 10000 = 1 AND extract(minute FROM t)::integer % 5 = 0
            THEN 3600000000 ELSE 3000000 END,
       1000000, 4000, 3000, 0, 0, CASE WHEN (s + place) % 50 = 0 THEN 1 ELSE 0 END, 0, 30000, 30000,
       (s + place) % 40 > 0, true, 'normal', 1000
FROM generate_series(1, $1::integer) AS s, unnest($4::text[]) WITH ORDINALITY AS i(name, place),
     generate_series(date_trunc('minute', $2::timestamptz) - ((s::bigint * 7919) % 30000) * INTERVAL '1 millisecond',
                     $3::timestamptz, INTERVAL '30 seconds') AS t
WHERE t > $2 AND t <= $3
ORDER BY t
"""
# As autovacuum does once a minute (autosummarize): a turn reads the rows that are not summarised yet too.
_SUMMARISE = """
SELECT brin_summarize_new_values(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE a.amname = 'brin' AND i.indrelid IN (SELECT show_chunks('network_interface_metrics'))
"""
# Those whose moment has come since.
_ARRIVED = """
UPDATE servers SET last_seen = m.moment, received_at = m.moment, live_at = m.moment
FROM (SELECT server_id, $2::timestamptz - ((substr(server_id, 7)::bigint * 7919) % 30000
             + (extract(epoch FROM $2) * 1000)::bigint) % 30000 * INTERVAL '1 millisecond' AS moment FROM servers) m
WHERE m.server_id = servers.server_id AND m.moment > $1
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerts", description=__doc__)
    parser.add_argument("--servers", type=int, default=100_000, help="how many report (default %(default)s)")
    parser.add_argument("--rules", type=int, default=20, help="beside the presets (default %(default)s)")
    parser.add_argument("--turns", type=int, default=8, help="how many are measured (default %(default)s)")
    given = parser.parse_args()
    print(machine())
    with (
        choose_test_database(os.environ.get("TEST_DATABASE_URL") or None, print) as server,
        database(server.url) as url,
    ):
        asyncio.run(measure(url, given.servers, given.rules, given.turns))


async def measure(url: str, servers: int, rules: int, turns: int) -> None:
    """Prints how long turns take."""
    connection = await asyncpg.connect(url, command_timeout=3_600)
    try:
        # Triggers would count the rows into aggregates, which is not what is measured.
        await connection.execute("SET session_replication_role = replica")
        at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=1)
        await connection.execute(_SERVERS, servers, at, INTERFACES)
        await connection.execute(_ROWS, servers, at - HISTORY, at, INTERFACES, 1_000)
        await connection.execute("VACUUM ANALYZE network_interface_metrics")
        await connection.execute("VACUUM ANALYZE servers")
        for number in range(rules):
            await connection.execute("SELECT linkbeat.set_alert_rule($1, $2, $3)", f"rule-{number}", *rule(number))
        await connection.execute("SELECT linkbeat.set_alert_channel('ops', 'webhook', '{}')")
        await connection.execute(
            "INSERT INTO linkbeat.listening (process, since, until) VALUES ('bench', $1, $2)",
            at - HISTORY,
            at + HISTORY,
        )
        await connection.execute("UPDATE linkbeat.alert_clock SET evaluated_at = $1", at - TURN)

        # Null: the server is not on this machine, and nobody here knows what its processor did.
        pid = connection.get_server_pid() if await asyncio.to_thread(postmaster, url) else None
        turns_taken, summarised = [], at
        for number in range(turns + 2):
            seconds, cpu_seconds = await _turn(connection, at, pid)
            pause = await _due(connection)
            if number >= 2:  # the first ones plan their statements, and find all that fires
                turns_taken.append((seconds, cpu_seconds, pause.total_seconds()))
            await connection.execute(_ROWS, servers, at, at + pause, INTERFACES, 1_000)
            await connection.execute(_ARRIVED, at, at + pause)
            at += pause
            if at - summarised >= SUMMARISED:
                await connection.execute(_SUMMARISE)
                summarised = at
        rows = await connection.fetch("SELECT state, count(*) AS alerts FROM linkbeat.alerts GROUP BY 1")
        took, cpu, pauses = (list(column) for column in zip(*turns_taken, strict=True))
        print(
            f"{servers} servers, {rules} rules: "
            f"a turn takes {statistics.median(took):.3f} s, at most {max(took):.3f} s; "
            f"{statistics.median(cpu):.3f} s of processor time, every {statistics.mean(pauses):.1f} s: "
            f"{sum(cpu) / sum(pauses):.2%} of one processor"
        )
        print(", ".join(f"{row['alerts']} {row['state']}" for row in rows))

        one_in = max(1, servers * 4 // FIRING_AT_ONCE)
        await connection.execute("SELECT linkbeat.delete_alert_rule(rule_id) FROM linkbeat.alert_rules")
        await _turn(connection, at, pid)
        await connection.execute(
            "SELECT linkbeat.set_alert_rule('busy', 'rate', '{\"above_bps\": 900000000, \"window_seconds\": 30}')"
        )
        await connection.execute(_ROWS, servers, at, at + TURN, INTERFACES, one_in)
        at += 2 * TURN
        seconds, cpu_seconds = await _turn(connection, at, pid)
        fired = await connection.fetchval("SELECT count(*) FROM linkbeat.alerts WHERE state = 'firing'")
        print(f"{fired} interfaces fire in one turn: {seconds:.3f} s; {cpu_seconds:.3f} s of processor time")
        began = time.perf_counter()
        sizes = await connection.fetch(
            "SELECT octet_length(payload::text) AS bytes FROM linkbeat.claim_messages(8, $1) "
            "WHERE (payload ->> 'count')::integer = $2",
            at + TURN,
            fired,
        )
        print(f"{len(sizes)} message about them, {sizes[0]['bytes']} bytes: {time.perf_counter() - began:.3f} s")
    finally:
        await connection.close()


async def _turn(connection: asyncpg.Connection, at: datetime, pid: int | None) -> tuple[float, float]:
    """Seconds that it took, and of the backend's processor time; nan where `pid` is not known."""
    await connection.execute("SET session_replication_role = origin")
    began, spent = time.perf_counter(), exact_cpu_seconds(pid) if pid else math.nan
    assert await connection.fetchval("SELECT is_evaluated FROM linkbeat.evaluate_alerts($1)", at)
    seconds, cpu_seconds = time.perf_counter() - began, exact_cpu_seconds(pid) - spent if pid else math.nan
    await connection.execute("SET session_replication_role = replica")
    return seconds, cpu_seconds


async def _due(connection: asyncpg.Connection) -> timedelta:
    """After how long the service finds that a turn is due: it asks a few times within the period."""
    distance: timedelta = await connection.fetchval(
        "SELECT linkbeat.turn_distance(took, $1, $2) FROM linkbeat.alert_clock", TURN, PAUSES
    )
    return math.ceil(distance / (TURN / POLLS)) * TURN / POLLS


def rule(number: int) -> tuple[str, str]:
    """Kind and parameters: every fourth is on errors, links or a share of the line rate, the others on rates."""
    window = 60 + 30 * (number % 10)
    if number % 4 == 1:
        return "errors", f'{{"window_seconds": {window + 240}}}'
    if number % 4 == 2:
        return "link", '{"scope": {"interfaces": ["eth*"]}}'
    if number % 4 == 3:
        return "rate", f'{{"above_percent": {70 + number}, "window_seconds": {window}, "for_seconds": 120}}'
    return "rate", f'{{"above_bps": {(700 + number) * 1_000_000}, "window_seconds": {window}}}'


if __name__ == "__main__":
    main()
