"""InfluxDB 1.x: fsync on its WAL before the answer, as Debian packages it otherwise."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from benchmarks.harness import temporary_directory
from benchmarks.peers.disk import used_bytes, wait_until_quiet
from benchmarks.peers.systems import Window
from benchmarks.processes import cpu_seconds, started
from benchmarks.traffic import INFLUX_LINES, export
from tests.helpers.processes import free_port

# wal-fsync-delay "0s": a write is on the disk when it is answered, as Linkbeat's is; writers share an fsync.
_CONFIG = """
reporting-enabled = false
bind-address = "127.0.0.1:{rpc_port}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  wal-fsync-delay = "0s"
  query-log-enabled = false
  {compaction}
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[continuous_queries]
  enabled = false
[logging]
  level = "error"
"""
_COMPACT_AT_ONCE = 'cache-snapshot-write-cold-duration = "1s"\n  compact-full-write-cold-duration = "1s"'


@dataclass(frozen=True)
class InfluxDB:
    """One that runs; its database is `bench`."""

    base: str
    pid: int
    directory: Path
    key: None = None

    @property
    def heartbeats(self) -> Mapping[str, str]:
        return {"BENCH_WIRE": "influx", "BENCH_PATH": "/write?db=bench"}

    def cpu_seconds(self) -> float:
        return cpu_seconds([self.pid])

    def stored(self) -> int:
        series = self._query("SELECT count(rx_bytes) FROM net")["results"][0].get("series")
        return int(series[0]["values"][0][1]) // 4 if series else 0

    def take_in(self, url: str) -> None:
        """Stores the traffic that is staged in the database at `url`, and compacts it."""
        with httpx.Client(base_url=self.base, timeout=120) as http:

            def write(lines: bytes) -> None:
                http.post("/write?db=bench&precision=ms", content=lines).raise_for_status()

            export(url, INFLUX_LINES, write)
        wait_until_quiet(lambda: used_bytes(self.directory / "data", self.directory / "wal"), seconds=10)

    def stored_bytes(self) -> int:
        """Of the shards and their index; take_in() left nothing in the WAL."""
        return used_bytes(self.directory / "data")

    def path(self, server_id: str, interface: str, window: Window) -> str:
        # What the counters stood at when each bucket ended, less what they did when it began: right where none was
        # reset, and half of what the sum of all differences costs. One bucket more, for the first one's beginning.
        query = (
            "SELECT non_negative_difference(last(rx_bytes)), non_negative_difference(last(tx_bytes)) FROM net "
            f"WHERE server_id = '{server_id}' AND interface_name = '{interface}' "
            f"AND time >= {window.start - window.bucket_seconds}s AND time < {window.end}s "
            f"GROUP BY time({window.bucket_seconds}s) fill(none)"
        )
        return f"/query?db=bench&epoch=s&q={quote(query)}"

    def received(self, body: bytes) -> dict[int, float]:
        [series] = json.loads(body)["results"][0]["series"]
        return {moment: rx for moment, rx, _ in series["values"] if rx is not None}

    def _query(self, query: str) -> Any:
        answer = httpx.post(f"{self.base}/query", params={"db": "bench", "q": query}, timeout=120)
        return answer.raise_for_status().json()


@contextlib.contextmanager
def running(program: Path, *, compact_at_once: bool = False) -> Iterator[InfluxDB]:
    """An empty one; `compact_at_once` for what was loaded, which would otherwise lie uncompacted for hours."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with temporary_directory() as directory:
        config = directory / "influxdb.conf"
        compaction = _COMPACT_AT_ONCE if compact_at_once else ""
        config.write_text(_CONFIG.format(directory=directory, port=port, rpc_port=free_port(), compaction=compaction))
        command: list[str | Path] = [program, "-config", config]
        with started(command, answers_at=f"{base}/ping", log=directory / "influxd.log") as pid:
            httpx.post(f"{base}/query", params={"q": "CREATE DATABASE bench"}).raise_for_status()
            yield InfluxDB(base, pid, directory)
