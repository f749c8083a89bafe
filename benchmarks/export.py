"""make bench-export: ten million rows as a file: rows a second, the service's memory, and sparklines beside it.

The service runs as a process on a database of TEST_DATABASE_URL, or of the one that tests would have. Sparklines are
asked for at a steady rate, first alone and then beside each export; who reads the export is a process of its own.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import httpx

from benchmarks.harness import KEY, Result, Service, database, machine, service
from benchmarks.peers.openloop import offer
from benchmarks.run import sparkline_path
from benchmarks.sql import connected, fetchval
from benchmarks.traffic import Traffic, load
from service.embedded.choose import choose_test_database

SPARKLINES_A_SECOND = 150.0  # enough that none of the connections is closed for being idle
FORMATS = ("csv", "ndjson", "parquet")
# Of machines beside those that sparklines are asked for; past the triggers, for only the rows themselves are read.
_FILL = """
SET session_replication_role = replica;
INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at)
SELECT format('export-%s', to_char(s, 'FM0000')), 'export', now(), now(), now() FROM generate_series(1, {servers}) s;
INSERT INTO network_interface_metrics (
    time, server_id, interface_name, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
    rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, elapsed_ms, is_up, counts_64bit, delta_kind)
SELECT now() - n * INTERVAL '30 seconds', format('export-%s', to_char(s, 'FM0000')), i, 1,
       5000000000 + n * 12345, 5000000000 + n * 2345, n * 12, n * 3, 12345, 2345, 12, 3, 30000, true, true, 'normal'
FROM generate_series(1, {samples}) AS n, generate_series(1, {servers}) AS s,
     unnest('{{eth0,eth1,wg0,br0}}'::text[]) AS i;
RESET session_replication_role;
ANALYZE network_interface_metrics;
"""


def main() -> int:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="about how many (default 10,000,000)")
    parser.add_argument("--formats", default=",".join(FORMATS), help="which, in this order (default %(default)s)")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        return _read(given.read)
    print(machine())
    with (
        choose_test_database(os.environ.get("TEST_DATABASE_URL") or None, print) as server,
        database(server.url) as url,
    ):
        traffic = Traffic.until_now(servers=20, days=1)
        load(url, traffic, policies=False)
        samples = 7 * 2_880
        fill = _FILL.format(servers=round(given.rows / samples / 4), samples=samples)
        connected(url, lambda connection: connection.execute(fill, timeout=3_600))
        rows = fetchval(url, "SELECT count(*) FROM network_interface_metrics")
        print(f"{rows} rows")
        with service(url) as linkbeat:
            _offer(linkbeat, traffic, 5)
            print(f"sparklines alone:          {_offer(linkbeat, traffic, 20)}")
            for name in given.formats.split(","):
                if name == "parquet" and find_spec("pyarrow") is None:
                    print("parquet: not measured, pyarrow is missing: pip install pyarrow")
                    continue
                _export(linkbeat, traffic, name, rows)
    return 0


def _export(linkbeat: Service, traffic: Traffic, name: str, rows: int) -> None:
    url = f"{linkbeat.base}/api/v1/export/traffic?bucket=raw&format={name}"
    before, most = _resident_bytes(linkbeat.pid), 0
    beside: list[Result] = []
    begun = time.monotonic()
    reader = subprocess.Popen([sys.executable, "-m", "benchmarks.export", "--read", url], stdout=subprocess.PIPE)

    def load_it() -> None:
        while reader.poll() is None:
            beside.append(_offer(linkbeat, traffic, 10))

    loading = threading.Thread(target=load_it)
    loading.start()
    while reader.poll() is None:
        most = max(most, _resident_bytes(linkbeat.pid))
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    loading.join()
    assert reader.stdout is not None
    read = reader.stdout.read().decode().split()
    print(
        f"{name:>8}: {rows / seconds:9,.0f} rows/s, {' '.join(read)}, "
        f"memory grew by at most {(most - before) >> 20} MB; "
        f"sparklines beside it: p50 {statistics.median(one.p50_ms for one in beside):.2f} ms, "
        f"p99 {statistics.median(one.p99_ms for one in beside):.2f} ms, {sum(one.errors for one in beside)} errors"
    )


def _offer(linkbeat: Service, traffic: Traffic, seconds: float) -> Result:
    def request() -> bytes:
        path = sparkline_path(*random.choice(traffic.series), "24h")
        return f"GET {path} HTTP/1.1\r\nHost: linkbeat\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()

    return offer(linkbeat.base, request, per_second=SPARKLINES_A_SECOND, seconds=seconds)


def _read(url: str) -> int:
    """Reads all of it, and says how many lines and bytes that were."""
    lines = size = 0
    headers = {"Authorization": f"Bearer {KEY}", "Accept-Encoding": "identity"}
    with httpx.stream("GET", url, headers=headers, timeout=120) as answer:
        answer.raise_for_status()
        for part in answer.iter_raw():
            lines += part.count(b"\n")
            size += len(part)
    print(f"{lines} lines, {size >> 20} MB")
    return 0


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
