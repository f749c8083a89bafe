"""VictoriaMetrics, single node, as Debian packages it: it answers from memory and writes to the disk a little later."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from benchmarks.harness import temporary_directory
from benchmarks.peers.disk import used_bytes, wait_until_quiet
from benchmarks.peers.promql import received
from benchmarks.peers.systems import Window
from benchmarks.processes import cpu_seconds, started
from benchmarks.traffic import INFLUX_LINES, export
from tests.helpers.processes import free_port


@dataclass(frozen=True)
class VictoriaMetrics:
    """One that runs."""

    base: str
    pid: int
    directory: Path
    key: None = None

    @property
    def heartbeats(self) -> Mapping[str, str]:
        return {"BENCH_WIRE": "influx", "BENCH_PATH": "/write"}

    def cpu_seconds(self) -> float:
        return cpu_seconds([self.pid])

    def stored(self) -> int:
        """Once all is visible: a flush that is forced leaves out what is being flushed."""
        self._get("/internal/force_flush")
        wait_until_quiet(self._count, seconds=2)
        return self._count()

    def take_in(self, url: str) -> None:
        """Stores the traffic that is staged in the database at `url`, and merges it."""
        with httpx.Client(base_url=self.base, timeout=120) as http:

            def write(lines: bytes) -> None:
                http.post("/write?precision=ms", content=lines).raise_for_status()

            export(url, INFLUX_LINES, write)
        self._get("/internal/force_flush")
        self._get("/internal/force_merge")
        wait_until_quiet(self.stored_bytes, seconds=5)

    def stored_bytes(self) -> int:
        """Of samples and index."""
        return used_bytes(self.directory / "data", self.directory / "indexdb")

    def path(self, server_id: str, interface: str, window: Window) -> str:
        selector = f'{{__name__=~"net_rx_bytes|net_tx_bytes",server_id="{server_id}",interface_name="{interface}"}}'
        query = quote(f"increase({selector}[{window.bucket_seconds}s]) keep_metric_names")
        width = window.bucket_seconds
        return f"/api/v1/query_range?query={query}&start={window.start + width}&end={window.end}&step={width}"

    def received(self, body: bytes) -> dict[int, float]:
        return received(body, "__name__", "net_rx_bytes")

    def _count(self) -> int:
        answer = self._get("/api/v1/query", query="sum(count_over_time(net_rx_bytes[400d]))").json()
        result = answer["data"]["result"]
        return int(result[0]["value"][1]) // 4 if result else 0

    def _get(self, path: str, **parameters: str) -> httpx.Response:
        return httpx.get(f"{self.base}{path}", params=parameters, timeout=600).raise_for_status()


@contextlib.contextmanager
def running(program: Path) -> Iterator[VictoriaMetrics]:
    """An empty one. Its cache of whole answers is off: every other system computes each answer."""
    base = f"http://127.0.0.1:{free_port()}"
    with temporary_directory() as directory:
        command: list[str | Path] = [
            program,
            f"-storageDataPath={directory}",
            f"-httpListenAddr={base.removeprefix('http://')}",
            "-retentionPeriod=5y",
            "-search.disableCache",
            "-search.latencyOffset=0s",
            "-loggerLevel=ERROR",
        ]
        with started(command, answers_at=f"{base}/health", log=directory / "log") as pid:
            yield VictoriaMetrics(base, pid, directory)
