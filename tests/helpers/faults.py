"""Load with a ledger, for tests that kill things: what was sent, what was answered, and what must be stored then."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from service.database import schema
from service.directories import default_cache_dir
from service.embedded import packages
from service.embedded.accounts import server_account
from service.embedded.cluster import Cluster
from service.embedded.places import reachable_directory
from service.embedded.postmaster import processes_in
from service.embedded.problems import MirrorError, UnsupportedHostError
from service.embedded.sockets import socket_path
from tests.helpers.support import KEY, differing_rows, heartbeat, hours_ago

UNREACHED = 0  # the status of a request whose answer never came


@contextlib.contextmanager
def own_cluster() -> Iterator[Cluster]:
    """A migrated server to kill; where none can be had, the test is skipped with the reason and its remedy."""
    try:
        installation = packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(f"no server of its own to kill: {error}")
    with (
        reachable_directory() as directory,
        Cluster(installation, directory / "postgres", print, durable=True) as cluster,
    ):
        asyncio.run(schema.migrate(cluster.url, print))
        yield cluster


Key = tuple[str, datetime]


@dataclass
class Sent:
    """One heartbeat of the ledger."""

    body: dict[str, Any]
    statuses: list[int] = field(default_factory=list)

    @property
    def acknowledged(self) -> bool:
        return 200 in self.statuses


@dataclass
class Answer:
    """What came back for one request; `seconds` until then."""

    at: float
    seconds: float
    status: int
    retry_after: str | None
    detail: str


class Load:
    """Agents that report to one or several services, keep what was not acknowledged, and send it again in any order.

    `async with Load(urls) as load:` and do harm meanwhile; afterwards `await load.settle()` and `await load.check(…)`.

    others  ids of servers that report besides, which are not checked.
    prefix  of the ids of its servers: two loads one after another on one database need different ones
    hours   how long ago the first heartbeats were measured, each a second after the one before: enough that a long load
            does not come to the future
    """

    headers: ClassVar[dict[str, str]] = {"Authorization": f"Bearer {KEY}"}

    def __init__(
        self,
        urls: Sequence[str],
        *,
        agents: int = 16,
        seed: int = 0,
        others: Sequence[str] = (),
        prefix: str = "server",
        hours: float = 2,
    ) -> None:
        self._prefix = prefix
        self._urls = urls
        self._others = list(others)
        self._agents = agents
        self._random = random.Random(seed)
        self._start = hours_ago(hours)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.ledger: dict[Key, Sent] = {}
        self.answers: list[Answer] = []
        self.duplicates = 0
        self.acknowledged_again = 0

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(
            headers=self.headers,
            timeout=15,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=False,
        )
        self._tasks = [asyncio.create_task(self._report(f"{self._prefix}-{n:02}")) for n in range(self._agents)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.stop()
        if kind is not None:
            await self._http.aclose()

    async def stop(self) -> None:
        """Sends nothing more, and waits for the answers."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    @property
    def acknowledged(self) -> set[Key]:
        return {key for key, sent in self.ledger.items() if sent.acknowledged}

    def statuses(self, since: float = 0.0) -> Counter[int]:
        """How often which status was answered to requests that were sent from `since` on (monotonic)."""
        return Counter(one.status for one in self.answers if one.at >= since)

    async def until_acknowledged(self, more: int, within_seconds: float = 30.0) -> float:
        """Waits for so many more acknowledgements of requests sent from now on; seconds until then."""
        started = time.monotonic()
        while self.statuses(started)[200] < more:
            assert time.monotonic() < started + within_seconds, f"{self.statuses(started)} after {within_seconds} s"
            await asyncio.sleep(0.01)
        return time.monotonic() - started

    async def settle(self) -> None:
        """Sends again what was never acknowledged, until it is; then some of what was, which must be duplicates."""
        deadline = time.monotonic() + 30
        while missing := [key for key, sent in self.ledger.items() if not sent.acknowledged]:
            assert time.monotonic() < deadline, f"{len(missing)} heartbeats are not taken: {self.answers[-1]}"
            for key in missing:
                await self._send(key)
        for key in list(self.ledger)[:20]:
            await self._send(key)
        await self._http.aclose()

    def check_answers(self, *, allowed: Sequence[int]) -> None:
        """Nothing but the `allowed` statuses was answered, and every 503 says when to come again."""
        odd = [one for one in self.answers if one.status not in allowed]
        assert not odd, odd[:5]
        assert all(one.retry_after for one in self.answers if one.status == 503)

    async def check_stored(self, database: asyncpg.Connection, acknowledged: set[Key]) -> None:
        """What was acknowledged is stored exactly once as it was sent, and nothing that was never sent."""
        rows = await database.fetch(
            "SELECT server_id, time, interface_name, rx_bytes, tx_bytes FROM network_interface_metrics "
            "WHERE server_id <> ALL ($1)",
            self._others,
        )
        stored: dict[Key, list[tuple[str, int, int]]] = defaultdict(list)
        for row in rows:
            stored[row["server_id"], row["time"]].append((row["interface_name"], row["rx_bytes"], row["tx_bytes"]))
        lost = acknowledged - stored.keys()
        assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged heartbeats are lost"
        invented = stored.keys() - self.ledger.keys()
        assert not invented, f"{len(invented)} heartbeats were never sent"
        for key, samples in stored.items():
            sent = [(i["name"], i["rx_bytes"], i["tx_bytes"]) for i in self.ledger[key].body["network_interfaces"]]
            assert sorted(samples) == sorted(sent), key

    async def check_traffic(self, database: asyncpg.Connection, *, is_late: bool = False) -> None:
        """The deltas add up to what the counters prove, and every level of the aggregates to the deltas.

        is_late  the rows are below a watermark: on Community they show with the next refresh
        """
        counters: dict[tuple[str, str], list[int]] = defaultdict(list)
        for (server_id, _), sent in self.ledger.items():
            for one in sent.body["network_interfaces"]:
                counters[server_id, one["name"]].append(one["rx_bytes"])
        rows = await database.fetch(
            "SELECT server_id, interface_name, sum(rx_bytes_delta)::bigint AS rx_bytes "
            "FROM network_interface_metrics WHERE server_id <> ALL ($1) GROUP BY 1, 2",
            self._others,
        )
        found = {(row["server_id"], row["interface_name"]): row["rx_bytes"] for row in rows}
        assert found == {series: max(values) - min(values) for series, values in counters.items()}
        if is_late and await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"):
            await database.execute("CALL linkbeat.refresh_aggregates(now())")
        for _ in range(2):
            assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
            await database.execute("CALL linkbeat.refresh_aggregates(now())")

    async def check(self, database: asyncpg.Connection, *, is_late: bool = False) -> None:
        """settle() and every check; the run counts only if it saw acknowledgements and duplicates in number."""
        before = self.acknowledged
        await self.check_stored(database, before)
        await self.settle()
        await self.check_stored(database, self.acknowledged)
        assert self.ledger.keys() == self.acknowledged
        await self.check_traffic(database, is_late=is_late)
        assert len(before) >= 100, self.statuses()
        assert self.duplicates >= 10, self.statuses()

    async def _report(self, server_id: str) -> None:
        """One agent: a new heartbeat, or one that is not acknowledged, or now and then one that is."""
        counters = {"eth0": 1_000, "wlan0": 1_000_000}
        unacknowledged: list[Key] = []
        number = 0
        while not self._stopping:
            choice = self._random.random()
            if number and choice < 0.1:
                key = (server_id, self._start + timedelta(seconds=self._random.randrange(number)))
            elif unacknowledged and choice < 0.5:
                key = self._random.choice(unacknowledged)
            else:
                key = (server_id, self._start + timedelta(seconds=number))
                counters = {name: value + self._random.randrange(1_000_000) for name, value in counters.items()}
                self.ledger[key] = Sent(
                    heartbeat(
                        server_id, at=key[1], boot="boot-1", **{name: (rx, rx // 3) for name, rx in counters.items()}
                    )
                )
                unacknowledged.append(key)
                number += 1
            status = await self._send(key)
            if status == 200 and key in unacknowledged:
                unacknowledged.remove(key)
            elif status != 200:
                await asyncio.sleep(self._random.uniform(0, 0.1))

    async def _send(self, key: Key) -> int:
        sent = self.ledger[key]
        was_acknowledged = sent.acknowledged
        started = time.monotonic()
        status, retry_after, detail, is_duplicate = UNREACHED, None, "", False
        try:
            answer = await self._http.post(f"{self._random.choice(self._urls)}/api/v1/agents/heartbeat", json=sent.body)
            status, retry_after, detail = answer.status_code, answer.headers.get("Retry-After"), answer.text
            is_duplicate = status == 200 and answer.json()["duplicate"]
        except httpx.TransportError as raised:
            detail = repr(raised)
        sent.statuses.append(status)
        self.answers.append(Answer(started, time.monotonic() - started, status, retry_after, detail))
        self.duplicates += is_duplicate
        if was_acknowledged and status == 200:
            assert is_duplicate, f"{key} was acknowledged, and later not known"
            self.acknowledged_again += 1
        return status


class HangingPath:
    """A way to a database that can hang: what is connected hears nothing more; what connects again does."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self._passing: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.StreamWriter] = []
        self._connecting: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        # Whoever still connects at this moment would leave both ends open.
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self.hang()
        await asyncio.gather(*self._passing, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        who, _, _ = self._to.netloc.rpartition("@")
        return urlunsplit(self._to._replace(netloc=f"{who}@127.0.0.1:{port}", query=""))

    def hang(self) -> None:
        for task in self._passing:
            task.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        self._ends.append(writer)
        asked = dict(parse_qsl(self._to.query))
        if directory := asked.get("host"):  # the embedded one's, by its socket
            path = socket_path(Path(directory), int(asked["port"]))
            server_reader, server_writer = await asyncio.open_unix_connection(path)
        else:
            server_reader, server_writer = await asyncio.open_connection(self._to.hostname, self._to.port)
        self._ends.append(server_writer)
        self._passing += [
            asyncio.create_task(passed_on(reader, server_writer)),
            asyncio.create_task(passed_on(server_reader, writer)),
        ]


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything that comes in goes out, until the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def kill_server(cluster: Cluster) -> None:
    """kill -9 of the postmaster; its children follow by themselves."""
    assert cluster.pid is not None
    os.kill(cluster.pid, signal.SIGKILL)


@contextlib.contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """Every process of the server stands still: connections stay open, and nobody answers."""
    stopped: list[int] = []
    try:
        # Twice, for what the first ones started while they still could.
        for _ in range(2):
            for pid in processes_in(cluster.data_dir, server_account(cluster.data_dir)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
