"""Traffic that every system is given alike: made once in PostgreSQL, loaded from there, and exported line by line.

A sample every 30 s of each interface, at its machine's own moment of the half minute, a few milliseconds late as timers
are. Traffic follows the time of day in bursts: lognormal, as measured traffic is, so that nothing of it compresses
better than in the field. Packets carry 200 to 1,500 octets.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks.sql import connected

INTERVAL_SECONDS = 30
INTERFACES = ("eth0", "eth1", "docker0", "tailscale0")
ROWS_A_STATEMENT = 500_000

# A CREATE TABLE AS takes no parameters.
_STAGE = """
CREATE UNLOGGED TABLE bench_samples AS
WITH heartbeats AS (
    SELECT s, t, t + (s * 7919 % 30000 + floor(random() * 8)) * INTERVAL '1 millisecond' AS time
    FROM generate_series(0, {servers} - 1) AS s,
         generate_series('{start}'::timestamptz, '{end}'::timestamptz, INTERVAL '30 seconds') AS t
), series AS (
    -- eth0 carries most, tailscale0 least.
    SELECT s, format('bench-%s', to_char(s, 'FM00')) AS server_id, i.name AS interface_name,
           3e6 / (i.n * i.n) * exp(random_normal(0, 0.5)) AS usual_bytes
    FROM generate_series(0, {servers} - 1) AS s,
         unnest('{{{interfaces}}}'::text[]) WITH ORDINALITY AS i(name, n)
), bursts AS (
    SELECT server_id, interface_name, time,
           floor(usual_bytes * hour * exp(random_normal(0, 1.2)))::bigint AS rx_bytes,
           floor(usual_bytes / 3 * hour * exp(random_normal(0, 1.2)))::bigint AS tx_bytes,
           200 + 1300 * random() AS rx_size, 200 + 1300 * random() AS tx_size
    FROM heartbeats JOIN series USING (s),
         LATERAL (SELECT 1 + 0.6 * sin(2 * pi() * date_part('epoch', t) / 86400) AS hour) h
), deltas AS (
    SELECT server_id, interface_name, time, rx_bytes, tx_bytes,
           ceil(rx_bytes / rx_size)::bigint AS rx_packets, ceil(tx_bytes / tx_size)::bigint AS tx_packets
    FROM bursts
)
SELECT server_id, interface_name, time,
       5000000000 + sum(rx_bytes) OVER series::bigint AS rx_bytes,
       5000000000 + sum(tx_bytes) OVER series::bigint AS tx_bytes,
       5000000 + sum(rx_packets) OVER series::bigint AS rx_packets,
       5000000 + sum(tx_packets) OVER series::bigint AS tx_packets,
       rx_bytes AS rx_bytes_delta, tx_bytes AS tx_bytes_delta,
       rx_packets AS rx_packets_delta, tx_packets AS tx_packets_delta,
       coalesce(extract(epoch FROM time - lag(time) OVER series) * 1000, 30000)::integer AS elapsed_ms
FROM deltas
WINDOW series AS (PARTITION BY server_id, interface_name ORDER BY time)
ORDER BY time
"""

# As ingest_heartbeats would have stored them; columns that are not named have defaults.
_LOAD = """
INSERT INTO network_interface_metrics (
    time, server_id, interface_name, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
    rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, elapsed_ms, is_up, counts_64bit, delta_kind)
SELECT time, server_id, interface_name, 1, rx_bytes, tx_bytes, rx_packets, tx_packets,
       rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, elapsed_ms, true, true, 'normal'
FROM bench_samples
WHERE time >= $1 AND time < $2
"""
_LOAD_SERVERS = """
INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at)
SELECT server_id, server_id, min(time), max(time), now() FROM bench_samples GROUP BY server_id
"""

# Statements that give one line a row, for export(). Times in milliseconds for InfluxDB's protocol, in seconds for
# OpenMetrics, which has the counters of sparklines only: promtool takes minutes for more.
INFLUX_LINES = """
SELECT format('net,server_id=%s,interface_name=%s rx_bytes=%si,tx_bytes=%si,rx_packets=%si,tx_packets=%si,is_up=true '
              '%s', server_id, interface_name, rx_bytes, tx_bytes, rx_packets, tx_packets,
              (extract(epoch FROM time) * 1000)::bigint)
FROM bench_samples ORDER BY time
"""
OPENMETRICS_LINES = """
SELECT format('net_bytes{server_id="%s",interface_name="%s",direction="%s"} %s %s', server_id, interface_name,
              direction, CASE direction WHEN 'rx' THEN rx_bytes ELSE tx_bytes END, round(extract(epoch FROM time), 3))
FROM bench_samples, unnest('{rx,tx}'::text[]) AS direction
ORDER BY time
"""

_SCHEDULE_POLICIES = """
SELECT alter_job(job_id, scheduled => $1) FROM timescaledb_information.jobs
WHERE hypertable_name IS NOT NULL OR proc_schema = 'linkbeat'
"""


@dataclass(frozen=True)
class Traffic:
    """`servers` machines with four interfaces each, over the `days` up to `end`."""

    servers: int
    days: float
    end: datetime

    @classmethod
    def until_now(cls, servers: int, days: float) -> "Traffic":
        now = datetime.now(UTC).replace(microsecond=0)
        return cls(servers, days, now - timedelta(seconds=now.second % INTERVAL_SECONDS + INTERVAL_SECONDS))

    @property
    def start(self) -> datetime:
        return self.end - timedelta(days=self.days)

    @property
    def series(self) -> list[tuple[str, str]]:
        """Server and interface of each."""
        return [(f"bench-{server:02}", interface) for server in range(self.servers) for interface in INTERFACES]


def load(url: str, traffic: Traffic, *, policies: bool = True) -> None:
    """Stores the traffic in Linkbeat's tables, aggregates and all, and keeps it staged for export().

    policies    whether those of the Community edition run afterwards; until then they rest.
    """

    async def run(connection: asyncpg.Connection) -> None:
        await connection.execute(_SCHEDULE_POLICIES, False)
        await connection.execute("SET work_mem = '256MB'; SELECT setseed(0.5)")
        await connection.execute(
            _STAGE.format(
                servers=traffic.servers, interfaces=",".join(INTERFACES), start=traffic.start, end=traffic.end
            )
        )
        await connection.execute("CREATE INDEX ON bench_samples USING brin (time); ANALYZE bench_samples")
        step = timedelta(seconds=ROWS_A_STATEMENT / len(traffic.series) * INTERVAL_SECONDS)
        since = traffic.start
        while since <= traffic.end + timedelta(minutes=1):
            await connection.execute(_LOAD, since, since + step)
            since += step
        await connection.execute(_LOAD_SERVERS)
        await _refresh(connection)
        await connection.execute("ANALYZE")
        await connection.execute(_SCHEDULE_POLICIES, policies)

    connected(url, run)


async def _refresh(connection: asyncpg.Connection) -> None:
    """Every level up to now; a policy that was at it before it was told to rest has its turn first."""
    while True:
        try:
            await connection.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '2 minutes')")
            return
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(1)


def export(url: str, lines: str, write: Callable[[bytes], object], bytes_a_call: int = 1 << 20) -> None:
    """Gives what was loaded to `write`, in whole lines, about `bytes_a_call` of them at once."""
    waiting = bytearray()

    async def take(data: bytes) -> None:
        waiting.extend(data)
        if len(waiting) >= bytes_a_call:
            end = waiting.rindex(b"\n") + 1
            write(bytes(waiting[:end]))
            del waiting[:end]

    connected(url, lambda connection: connection.copy_from_query(lines, output=take))
    if waiting:
        write(bytes(waiting))
