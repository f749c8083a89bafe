"""Linkbeat: its service as a process, on a database of its own in each of the servers that are measured."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from benchmarks import harness
from benchmarks.peers.systems import System, Window
from benchmarks.processes import cpu_seconds
from benchmarks.run import sparkline_path
from benchmarks.sql import fetchval, postmaster


@dataclass(frozen=True)
class Linkbeat:
    """One that runs; `postmaster` is None where the database is not on this machine."""

    service: harness.Service
    postmaster: int | None
    key: str = harness.KEY

    @property
    def base(self) -> str:
        return self.service.base

    @property
    def url(self) -> str:
        return self.service.url

    @property
    def heartbeats(self) -> Mapping[str, str]:
        return harness.HEARTBEATS

    def cpu_seconds(self) -> float | None:
        """Of the service and the whole database server."""
        return cpu_seconds([self.service.pid, self.postmaster]) if self.postmaster else None

    def stored(self) -> int:
        return harness.stored_heartbeats(self.service.url)

    def path(self, server_id: str, interface: str, window: Window) -> str:
        return sparkline_path(server_id, interface, window.period)

    def received(self, body: bytes) -> dict[int, float]:
        points = json.loads(body)["data"]
        return {int(datetime.fromisoformat(one["timestamp"]).timestamp()): one["rx_bytes"] for one in points}


@contextlib.contextmanager
def serving(url: str) -> Iterator[Linkbeat]:
    """The service on a database that has the schema."""
    with harness.service(url) as service:
        yield Linkbeat(service, postmaster(url))


@contextlib.contextmanager
def running(server_url: str) -> Iterator[Linkbeat]:
    """An empty one."""
    with harness.database(server_url) as url, serving(url) as instance:
        yield instance


def systems(server_urls: Sequence[str]) -> list[System[Linkbeat]]:
    """One for each server, named by its edition."""
    return [System(name_of(url), partial(running, url)) for url in server_urls]


def name_of(server_url: str) -> str:
    """As in: Linkbeat, Apache 2.19.3."""
    with harness.database(server_url) as url:
        version = fetchval(url, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
        return f"Linkbeat, {edition(url)} {version}"


def edition(url: str) -> str:
    """Apache or Community, as the server's licence says."""
    return "Apache" if fetchval(url, "SHOW timescaledb.license") == "apache" else "Community"
