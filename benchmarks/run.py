"""make bench: acknowledged heartbeats per second, and what a sparkline costs over seven days of 200 series.

The service runs as a process on a TimescaleDB of its own (TEST_DATABASE_URL, Docker, this host's or the embedded one),
durable: fsync and synchronous_commit are on. wrk makes the load, on the same machine.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from service import schema
from service.embedded.choose import choose_test_database

HERE = Path(__file__).parent
KEY = "benchmark-fleet-key"
PERIODS = ("1h", "24h", "7d")

# Counters of 50 servers with 4 interfaces, a sample every 30 s for 7 days, as ingest_heartbeats would have stored them.
LOAD_DAY = """
INSERT INTO network_interface_metrics (
    time, server_id, interface_name, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
    rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, elapsed_ms, is_up, counts_64bit, delta_kind)
SELECT t, format('bench-%s', to_char(s, 'FM00')), n, 1, 0, 0, 0, 0,
       (random() * 1e6)::bigint, (random() * 1e6)::bigint, 500, 500, 30000, true, true, 'normal'
FROM generate_series($1::timestamptz, least($1::timestamptz + INTERVAL '1 day' - INTERVAL '30 s', now()), '30 s') AS t,
     generate_series(0, 49) AS s, unnest('{eth0,eth1,docker0,tailscale0}'::text[]) AS n
"""
LOAD_SERVERS = """
INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at)
SELECT format('bench-%s', to_char(s, 'FM00')), 'bench', now() - INTERVAL '7 days', now(), now()
FROM generate_series(0, 49) AS s
"""


@dataclass(frozen=True)
class Result:
    """What one run of wrk came to; latencies in milliseconds."""

    requests: int
    per_second: float
    errors: int
    p50_ms: float
    p99_ms: float


def main() -> int:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long the heartbeats last (default 20)")
    seconds = parser.parse_args().seconds
    if shutil.which("wrk") is None:
        print("linkbeat: wrk makes the load and is not here; install it (Debian: apt install wrk)", file=sys.stderr)
        return 1
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}")
    with choose_test_database(os.environ.get("TEST_DATABASE_URL") or None, print) as server:
        url = asyncio.run(_create(server.url))
        try:
            with _service(url) as base:
                _heartbeats(base, url, seconds)
                asyncio.run(_load(url))
                for connections in (1, 16):
                    for period in PERIODS:
                        found = _wrk("sparklines.lua", base, connections, 5, BENCH_PERIOD=period)
                        print(
                            f"sparkline {period:>3}, {connections:>2} connections: p50 {found.p50_ms:6.2f} ms, "
                            f"p99 {found.p99_ms:6.2f} ms, {found.per_second:6.0f} requests/s, {found.errors} errors"
                        )
        finally:
            asyncio.run(_drop(server.url, url))
    return 0


def _heartbeats(base: str, url: str, seconds: int) -> None:
    _wrk("heartbeats.lua", base, 64, 3)  # connections, plans and the first chunk are made
    before = asyncio.run(_stored(url))
    found = _wrk("heartbeats.lua", base, 64, seconds)
    stored = asyncio.run(_stored(url)) - before
    print(
        f"heartbeats, 64 connections: {found.per_second:.0f} acknowledged/s, p50 {found.p50_ms:.1f} ms, "
        f"p99 {found.p99_ms:.1f} ms, {found.errors} errors; {found.requests} acknowledged, {stored} stored"
    )
    assert stored >= found.requests, "an acknowledged heartbeat is not stored"


def _wrk(script: str, base: str, connections: int, seconds: int, **environment: str) -> Result:
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / script), base]
    output = subprocess.run(
        command, env=os.environ | {"LINKBEAT_API_KEY": KEY} | environment, check=True, capture_output=True, text=True
    ).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    requests, microseconds, errors, p50, p99 = map(int, line.split()[1:])
    return Result(requests, requests / microseconds * 1e6, errors, p50 / 1000, p99 / 1000)


@contextlib.contextmanager
def _service(url: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "LINKBEAT_DATABASE_URL": url,
        "LINKBEAT_API_KEY": KEY,
        "LINKBEAT_PORT": str(port),
        "LINKBEAT_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "service", "serve"], env=os.environ | environment)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"{base}/health/ready", timeout=1)  # noqa: S310 - http on this machine
                break
            time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(15)


async def _create(server: str) -> str:
    name = f"linkbeat_bench_{uuid.uuid4().hex[:8]}"
    await _execute(server, f"CREATE DATABASE {name} TEMPLATE template0")
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    await schema.migrate(url, print)
    return url


async def _drop(server: str, url: str) -> None:
    await _execute(server, f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _stored(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM network_interface_metrics")) // 4
    finally:
        await connection.close()


async def _load(url: str) -> None:
    started = time.monotonic()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(LOAD_SERVERS)
        first = await connection.fetchval("SELECT date_trunc('minute', now() - INTERVAL '7 days')")
        for day in range(8):
            await connection.execute(LOAD_DAY, first + timedelta(days=day))
        await connection.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '2 minutes')")
        rows = await connection.fetchval("SELECT count(*) FROM network_interface_metrics")
        await connection.execute("ANALYZE")
    finally:
        await connection.close()
    print(f"loaded 7 days of 200 series, {rows} rows, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
