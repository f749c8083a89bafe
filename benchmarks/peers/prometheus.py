"""Prometheus, which is asked here only: it scrapes, and takes no heartbeats."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.harness import temporary_directory
from benchmarks.peers.promql import received
from benchmarks.peers.systems import Window
from benchmarks.processes import started
from benchmarks.traffic import OPENMETRICS_LINES, export
from tests.helpers.processes import free_port


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    base: str
    key: None = None

    def path(self, server_id: str, interface: str, window: Window) -> str:
        selector = f'net_bytes{{server_id="{server_id}",interface_name="{interface}"}}'
        query = quote(f"increase({selector}[{window.bucket_seconds}s])")
        width = window.bucket_seconds
        return f"/api/v1/query_range?query={query}&start={window.start + width}&end={window.end}&step={width}"

    def received(self, body: bytes) -> dict[int, float]:
        return received(body, "direction", "rx")


@contextlib.contextmanager
def running(programs: tuple[Path, Path], url: str) -> Iterator[Prometheus]:
    """One with the traffic that is staged in the database at `url`, in blocks as large as it would make them itself."""
    server, promtool = programs
    base = f"http://127.0.0.1:{free_port()}"
    with temporary_directory() as directory:
        _make_blocks(promtool, directory, url)
        config = directory / "prometheus.yml"
        config.write_text("global: {}\n")
        command: list[str | Path] = [
            server,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            "--storage.tsdb.retention.time=5y",
            f"--web.listen-address={base.removeprefix('http://')}",
            "--log.level=error",
        ]
        with started(command, answers_at=f"{base}/-/ready", log=directory / "log"):
            yield Prometheus(base)


def _make_blocks(promtool: Path, directory: Path, url: str) -> None:
    text = directory / "openmetrics"
    with text.open("wb") as file:
        export(url, OPENMETRICS_LINES, file.write)
        file.write(b"# EOF\n")
    command: list[str | Path] = [
        promtool,
        "tsdb",
        "create-blocks-from",
        "--max-block-duration=54h",
        "openmetrics",
        text,
    ]
    subprocess.run([*command, directory / "data"], check=True, capture_output=True)
    text.unlink()
