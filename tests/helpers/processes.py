"""`python -m service` as processes, to be watched and killed."""

import asyncio
import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx

from service.embedded.accounts import server_account
from service.embedded.postmaster import processes_in
from tests.helpers.support import KEY

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
FIRST_PORT = 12_000
RUN = (sys.executable, "-m", "service", "run")


class KillableService:
    """`python -m service serve` on a database; start() and kill() as often as wanted, on the same port."""

    def __init__(self, database_url: str, directory: Path, arguments: Sequence[str] = (), **environ: str) -> None:
        """`arguments`: of `serve`."""
        self._arguments = arguments
        self._log = directory / "service.log"
        self._environment = os.environ | {
            "LINKBEAT_DATABASE_URL": database_url,
            "LINKBEAT_API_KEY": KEY,
            "LINKBEAT_PORT": str(free_port()),
            "LINKBEAT_DATA_DIR": str(directory),
            **environ,
        }
        self.url = f"http://127.0.0.1:{self._environment['LINKBEAT_PORT']}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def start(self) -> float:
        """Returns when it answers; how many seconds that took."""
        started = time.monotonic()
        self._launch()
        async with httpx.AsyncClient() as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(f"{self.url}/health/ready")).status_code == 200:
                        return time.monotonic() - started
                assert self.is_running, self.log
                assert time.monotonic() < started + START_SECONDS, self.log
                await asyncio.sleep(0.02)

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", *self._arguments],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def terminate(self, within_seconds: float) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, within_seconds)


@contextlib.asynccontextmanager
async def killable_service(
    database_url: str, directory: Path, arguments: Sequence[str] = (), **environ: str
) -> AsyncIterator[KillableService]:
    """A service that answers; killed at the end if it still runs."""
    service = KillableService(database_url, directory, arguments, **environ)
    try:
        await service.start()
        yield service
    finally:
        if service.is_running:
            service.kill()


class Run:
    """`python -m service run`, or another command, with a data directory of its own."""

    def __init__(
        self, data_dir: Path, port: int, *, command: Sequence[str] = RUN, cwd: Path = ROOT, **environ: str
    ) -> None:
        self.data_dir = data_dir
        self._log = data_dir.parent / f"run-{time.monotonic_ns()}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=kept | {"LINKBEAT_DATA_DIR": str(data_dir), "LINKBEAT_PORT": str(port)} | environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: "re.Pattern[str]", seconds: float) -> "re.Match[str]":
        deadline = time.monotonic() + seconds
        while not (found := pattern.search(self.output)):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)
        return found

    def left_behind(self) -> list[str]:
        """Whatever of it still runs: its children by their environment, the database by its directory."""
        children = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if f"LINKBEAT_DATA_DIR={self.data_dir}\0".encode() in (place / "environ").read_bytes():
                    children.append((place / "cmdline").read_text().replace("\0", " "))
            except OSError:  # gone, or not ours to look into
                continue
        cluster = self.data_dir / "postgres"
        servers = processes_in(cluster, server_account(cluster)) if cluster.exists() else []
        return children + [f"postgres {pid}" for pid in servers]


def stop(process: "subprocess.Popen[bytes]", within_seconds: float) -> None:
    """SIGTERM, and SIGKILL where that does not end it in time."""
    process.terminate()
    try:
        process.wait(within_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def linkbeat(url: str, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`python -m service …` on a database, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
        | {"LINKBEAT_DATABASE_URL": url, "LINKBEAT_DATA_DIR": str(directory)},
    )  # fmt: skip


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on, nor will by accident until it is used.

    One that the kernel has chosen it may give to any connection that is made in between, and then nobody can listen
    there: these are below the range from which it chooses.
    """
    first_chosen = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = FIRST_PORT + secrets.randbelow(max(first_chosen - FIRST_PORT, 1_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
