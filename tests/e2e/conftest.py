"""The service as a process of its own, on a real port and a real database."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.processes import free_port, stop
from tests.helpers.support import KEY

REPOSITORY = Path(__file__).parents[2]
READY_SECONDS = 60.0  # several may start at once, on a machine that is shared
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class ServiceProcess:
    """A running `python -m service serve`. Its fleet key is tests.helpers.support.KEY.

    url           http://127.0.0.1:<port>
    log_path      what it has said on stderr
    """

    url: str
    port: int
    process: "subprocess.Popen[bytes]"
    database_url: str
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def await_log(self, words: str, seconds: float = 60.0) -> None:
        """Waits until it has said so."""
        deadline = time.monotonic() + seconds
        while words not in self.log:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    @property
    def resident_bytes(self) -> int:
        """Memory that it holds now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def service_process(database_url: str, tmp_path: Path) -> Iterator[ServiceProcess]:
    """The service on this test's database, ready."""
    with serving(database_url, tmp_path) as started:
        yield started


@contextlib.contextmanager
def serving(database_url: str, directory: Path, port: int | None = None, **settings: str) -> Iterator[ServiceProcess]:
    """Starts the service and waits until it is ready; ends it with SIGTERM, unless it has ended already.

    `settings` by their names without LINKBEAT_: `QUEUE_HEARTBEATS="10"`. With `port`, one may follow another.
    """
    port = port or free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    chosen = {"DATABASE_URL": database_url, "API_KEY": KEY, "PORT": str(port), "DATA_DIR": str(directory)} | settings
    log_path = directory / f"service-{time.monotonic_ns()}.log"
    with log_path.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            cwd=REPOSITORY,
            env=inherited | {f"LINKBEAT_{name}": value for name, value in chosen.items()},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    started = ServiceProcess(f"http://127.0.0.1:{port}", port, process, database_url, log_path)
    try:
        _await_ready(started)
        yield started
    finally:
        stop(process, STOP_SECONDS)


def _await_ready(service: ServiceProcess) -> None:
    # Without the environment's proxies: they do not know this machine's loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while True:
        assert service.process.poll() is None, f"the service ended by itself:\n{service.log}"
        try:
            with opener.open(f"{service.url}/health/ready", timeout=5):
                return
        except OSError as raised:
            if time.monotonic() > deadline:
                raise AssertionError(f"the service was not ready in time: {raised}\n{service.log}") from raised
        time.sleep(0.05)
