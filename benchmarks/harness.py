"""What the benchmarks share: wrk, durable databases of their own, and the service on them as a process."""

import asyncio
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from benchmarks.processes import START_SECONDS, started
from benchmarks.sql import execute, fetchval
from service.database import schema
from service.embedded.choose import choose_test_database
from service.settings import Settings
from tests.helpers.processes import free_port

HERE = Path(__file__).parent
KEY = "benchmarks-fleet-key-1"
# By default retention drops, and a refresh leaves out, most of the history that is loaded here.
RETENTION = {f"LINKBEAT_RETAIN_{level}_DAYS": "400" for level in ("RAW", "1M", "15M")}
_BEARER = {"Authorization": f"Bearer {KEY}"}
HEARTBEATS = {"BENCH_WIRE": "json", "BENCH_PATH": "/api/v1/agents/heartbeat", "BENCH_KEY": KEY}


class NotMeasured(Exception):
    """Something that a measurement needs is not there; the message says what to do."""


@dataclass(frozen=True)
class Result:
    """What a load came to: `requests` that were answered below 400, and their rate; latencies in milliseconds."""

    requests: int
    per_second: float
    errors: int
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.per_second:9,.1f}/s, p50 {self.p50_ms:7.2f} ms, p99 {self.p99_ms:7.2f} ms, {self.errors} errors"


@dataclass(frozen=True)
class Service:
    """`python -m service serve`, answering on `base`, its database at `url`."""

    base: str
    url: str
    pid: int


def machine() -> str:
    """What the figures were measured on, for the first line of the output."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}, "
        f"data in {scratch_directory()} on {_filesystem(scratch_directory())}"
    )


def _processor() -> str:
    """The model as the kernel names it; figures of two models cannot be compared."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def scratch_directory() -> Path:
    """Where everything under test keeps its data: TMPDIR, or /var/tmp, because /tmp is often in memory."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 - what is made there is private


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """One on that disk, empty, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="linkbeat-bench-", dir=scratch_directory()) as directory:
        yield Path(directory)


def wrk(script: str, base: str, connections: int, seconds: int, **environment: str) -> Result:
    """One run of benchmarks/`script`; every answer of 400 and above is an error, and so is one that does not come."""
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, base]
    output = subprocess.run(
        command, cwd=HERE, env=os.environ | environment, check=True, capture_output=True, text=True
    ).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    requests, microseconds, errors, p50, p99 = map(int, line.split()[1:])
    return Result(requests, requests / microseconds * 1e6, errors, p50 / 1000, p99 / 1000)


def require_wrk() -> None:
    """Raises NotMeasured without it."""
    if shutil.which("wrk") is None:
        raise NotMeasured("wrk makes the load and is not here; install it (Debian: apt install wrk)")


@contextlib.contextmanager
def database_servers(urls: Sequence[str]) -> Iterator[list[str]]:
    """The TimescaleDB servers to measure on: those named, else the one that tests would have, but durable.

    Raises NotMeasured where an acknowledged row would not be on the disk: figures of that kind are not comparable.
    """
    os.environ.setdefault("TMPDIR", str(scratch_directory()))  # the embedded one keeps its data there
    with contextlib.ExitStack() as stack:
        if not urls:
            urls = [stack.enter_context(choose_test_database(None, print, durable=True)).url]
        for url in urls:
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                if (found := fetchval(url, f"SHOW {setting}")) not in ("on", "local"):
                    raise NotMeasured(f"{setting} is {found} on {_without_password(url)}; set it to on")
        yield list(urls)


@contextlib.contextmanager
def database(server_url: str) -> Iterator[str]:
    """URL of a new database with Linkbeat's schema; dropped at the end."""
    created = f"linkbeat_bench_{uuid.uuid4().hex[:8]}"
    execute(server_url, f"CREATE DATABASE {created} TEMPLATE template0")
    try:
        url = urlunsplit(urlsplit(server_url)._replace(path=f"/{created}"))
        asyncio.run(schema.migrate(url, lambda _: None, Settings.from_environment(RETENTION)))
        yield url
    finally:
        execute(server_url, f"DROP DATABASE {created} WITH (FORCE)")


@contextlib.contextmanager
def service(url: str, workers: int = 1) -> Iterator[Service]:
    """The service on a database that has the schema, with so many processes."""
    port = free_port()
    environment = {
        "LINKBEAT_DATABASE_URL": url,
        "LINKBEAT_API_KEY": KEY,
        "LINKBEAT_PORT": str(port),
        "LINKBEAT_LOG_LEVEL": "warning",
        **RETENTION,
    }
    base = f"http://127.0.0.1:{port}"
    with temporary_directory() as directory:
        command = [sys.executable, "-m", "service", "serve", "--workers", str(workers)]
        log = directory / "service.log"
        with started(command, answers_at=f"{base}/health/ready", log=log, environment=environment) as pid:
            if workers > 1:
                _await_workers(base, workers)
            yield Service(base, url, pid)
        for line in log.read_text(errors="replace").splitlines():
            if " WARNING " in line or " ERROR " in line:
                print(f"  the service says: {line}")


def _await_workers(base: str, workers: int) -> None:
    """The first that answers does so before the others."""
    until = time.monotonic() + START_SECONDS
    while f"\nlinkbeat_workers {workers}.0" not in httpx.get(f"{base}/metrics", headers=_BEARER).text:
        if time.monotonic() > until:
            raise NotMeasured(f"of {workers} processes of the service some do not answer within {START_SECONDS:.0f} s")
        time.sleep(0.1)


def stored_heartbeats(url: str) -> int:
    """Of four interfaces each."""
    return int(fetchval(url, "SELECT count(*) FROM network_interface_metrics")) // 4


def _filesystem(place: Path) -> str:
    """Type of the file system that `place` is on: in memory (tmpfs), an fsync costs nothing."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    return max((fields for fields in mounts if place.is_relative_to(fields[1])), key=lambda fields: len(fields[1]))[2]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
