"""Bytes on the disk, on the Community edition, which compresses: of a raw row, and of a year at default retention."""

from collections.abc import Sequence
from functools import partial

import asyncpg

from benchmarks import harness
from benchmarks.peers import influxdb, victoriametrics
from benchmarks.peers.linkbeat import edition
from benchmarks.peers.plan import Plan
from benchmarks.peers.programs import Programs
from benchmarks.sql import connected, fetchval
from benchmarks.traffic import Traffic, load

# Each level, and how many days of it default retention keeps.
RETENTION_DAYS = {
    "network_interface_metrics": 14,
    "network_traffic_1m": 30,
    "network_traffic_15m": 400,
    "network_traffic_1h": 5 * 365,
    "network_traffic_1d": 5 * 365,
}
RAW = "network_interface_metrics"
MEGABYTE = 1e6


def storage(server_urls: Sequence[str], programs: Programs, plan: Plan) -> None:
    """Every chunk is compressed, every peer has merged its files; sizes are of all that is kept, indexes included."""
    community = [url for url in server_urls if edition(url) == "Community"]
    if not community:
        print("bytes are left out: only the Community edition compresses; give one with --database-url")
        return
    _row(community[0], programs, plan)
    _year(community[0], programs, plan)


def _row(server_url: str, programs: Programs, plan: Plan) -> None:
    traffic = Traffic.until_now(plan.servers, plan.bytes_days)
    with harness.database(server_url) as url:
        load(url, traffic, policies=False)
        rows = fetchval(url, f"SELECT count(*) FROM {RAW}")
        loose = _size(url, RAW)
        connected(url, partial(_compress, level=RAW))
        sizes = {"Linkbeat, compressed": _size(url, RAW), "Linkbeat, not yet compressed": loose}
        if programs.victoria_metrics:
            with victoriametrics.running(programs.victoria_metrics) as victoria:
                victoria.take_in(url)
                assert victoria.stored() * 4 == rows
                sizes["VictoriaMetrics"] = victoria.stored_bytes()
        if programs.influxd:
            with influxdb.running(programs.influxd, compact_at_once=True) as influx:
                influx.take_in(url)
                assert influx.stored() * 4 == rows
                sizes["InfluxDB"] = influx.stored_bytes()
    for name, size in sizes.items():
        print(
            f"bytes a row (4 counters, is_up), {rows:,} rows of {len(traffic.series)} series, {name}: {size / rows:.1f}"
        )


def _year(server_url: str, programs: Programs, plan: Plan) -> None:
    traffic = Traffic.until_now(plan.year_servers, plan.year_days)
    with harness.database(server_url) as url:
        load(url, traffic, policies=False)
        victoria_bytes = None
        if programs.victoria_metrics:
            with victoriametrics.running(programs.victoria_metrics) as victoria:
                victoria.take_in(url)
                assert victoria.stored() * 4 == fetchval(url, f"SELECT count(*) FROM {RAW}")
                victoria_bytes = victoria.stored_bytes()
        total = 0
        for level, days in RETENTION_DAYS.items():
            connected(url, partial(_keep, level=level, days=days))
            size = _size(url, level)
            total += size
            print(
                f"  {level}, {min(days, plan.year_days)} days: {size / len(traffic.series) / MEGABYTE:.3f} MB a series"
            )
    each = total / len(traffic.series) / MEGABYTE
    print(f"{plan.year_days} days of a series at default retention, all levels, Linkbeat: {each:.2f} MB")
    if victoria_bytes:
        other = victoria_bytes / len(traffic.series) / MEGABYTE
        print(f"  the same days raw in VictoriaMetrics: {other:.2f} MB; Linkbeat {each / other:.2f} of it")


async def _keep(connection: asyncpg.Connection, level: str, days: int) -> None:
    """What retention and compression leave of a level in the end."""
    await connection.execute(f"SELECT drop_chunks('{level}', older_than => INTERVAL '{days} days')")
    await _compress(connection, level)


async def _compress(connection: asyncpg.Connection, level: str) -> None:
    """Every chunk as the product's own jobs do it, each in a transaction of its own: together they would lock more than
    a server may."""
    if level == RAW:
        # Chunks that end within the next days too: all of it is to be weighed.
        await connection.execute("CALL linkbeat.compress_samples(now() + INTERVAL '2 days')")
        return
    for chunk in await connection.fetch(f"SELECT show_chunks('{level}')::text AS name"):
        await connection.execute(f"SELECT compress_chunk('{chunk['name']}', if_not_compressed => true)")


def _size(url: str, level: str) -> int:
    """Of its chunks, compressed or not, with their indexes and what is stored beside them."""
    return int(fetchval(url, f"SELECT hypertable_size('{level}')"))
