"""A day of 200 servers in some minutes, through a service and a database that are killed again and again.

    make soak

Every heartbeat goes over HTTP, in batches of about a hundred; answers are lost and batches are sent again, blocks of
heartbeats come hours late, machines reboot, reset, wrap and are cloned. Afterwards every row, the newest state and the
sums at all four levels are held against the oracle. With TEST_DATABASE_URL on that server, which is not killed.
"""

import asyncio
import heapq
import itertools
import multiprocessing
import os
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec

from service.database import schema
from service.embedded.cluster import Cluster
from tests.conftest import with_database
from tests.helpers.accounts import Sent, check_levels, check_servers
from tests.helpers.faults import kill_server, own_cluster
from tests.helpers.machines import FOLDING, STAYING, Link, Machine, body
from tests.helpers.oracle import Beat
from tests.helpers.processes import KillableService, killable_service
from tests.helpers.support import KEY, differing_rows, hours_ago

SERVERS = 200
HEARTBEATS = 2_880  # of a server: 24 hours at 30 s
INTERFACES = 4
CLONED = 6  # servers whose id two machines share
AGENTS = 4  # relays that send for a part of the servers each, a batch after the other
BATCH = 100
UNREST = 0.002  # some six events a server and day

Record = tuple[str, Beat]


@contextmanager
def database_to_soak() -> Iterator[tuple[str, Cluster | None]]:
    """A migrated database, and its server if it may be killed."""
    server = os.environ.get("TEST_DATABASE_URL")
    if not server:
        with own_cluster() as cluster:
            yield cluster.url, cluster
        return
    name = f"linkbeat_soak_{uuid.uuid4().hex[:8]}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name} TEMPLATE template0"))
    try:
        asyncio.run(schema.migrate(with_database(server, name), print))
        yield with_database(server, name), None
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


class Fleet:
    """What the servers send: the same again each time it is asked for, so that it need not be kept."""

    def __init__(self, seed: int, since: datetime, until: datetime) -> None:
        self._seed, self._since, self._until = seed, since, until
        self.names = [f"server-{number:03}" for number in range(SERVERS)]

    def beats(self, number: int) -> Iterator[Beat]:
        """A server's heartbeats, as its machines make them."""
        rng = random.Random(self._seed * SERVERS + number)
        machines = [self._machine(rng, "a")]
        if number < CLONED:
            machines.append(replace(self._machine(rng, "b"), moment=self._since + timedelta(hours=1, seconds=11)))
        seen: set[datetime] = set()
        made = heapq.merge(*(machine.live() for machine in machines), key=lambda beat: beat.time)
        for beat in itertools.islice(made, HEARTBEATS):
            if beat.time not in seen and beat.time < self._until:
                seen.add(beat.time)
                yield beat

    def _machine(self, rng: random.Random, name: str) -> Machine:
        own = random.Random(rng.random())
        machine = Machine(name, own, self._since, unrest=UNREST, regularity=1.0)
        for interface, kind in [*own.sample(STAYING, INTERFACES - 1), own.choice(FOLDING)]:
            # One in sixteen is of an old driver, which counts to 2**32; the fastest of them wrap every two minutes.
            bits = own.choice([32, *[64] * 15])
            counters = [own.randrange(2**31) for _ in range(4)] + [0] * 4
            machine.links.append(
                Link(interface, kind, 10_000, bits, own.choice([10, 10**4, 10**6, 3 * 10**7]), counters)
            )
        return machine

    def arrivals(self, numbers: Sequence[int]) -> Iterator[list[Record]]:
        """Batches of some servers' heartbeats, as they arrive: blocks of them late, some of these newest first."""
        waiting = [self._arrival(number) for number in numbers]
        batch: list[Record] = []
        while waiting:
            for one in list(waiting):
                records = next(one, None)
                if records is None:
                    waiting.remove(one)
                    continue
                batch += records
                if len(batch) >= BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _arrival(self, number: int) -> Iterator[list[Record]]:
        rng = random.Random(self._seed + number)
        held: list[Record] = []
        wanted = 0
        for beat in self.beats(number):
            record = (self.names[number], beat)
            if not wanted:
                yield [record]
                wanted = rng.randint(20, 240) if rng.random() < 0.001 else 0
                continue
            held.append(record)
            if len(held) < wanted:
                yield []
                continue
            yield held[::-1] if rng.random() < 0.3 else held
            held, wanted = [], 0
        yield held


class Relay:
    """Sends some servers' batches one after the other, each until it is acknowledged, and now and then once more."""

    def __init__(self, http: httpx.AsyncClient, url: str, seed: int) -> None:
        self._http = http
        self._url = f"{url}/api/v1/agents/heartbeats"
        self._rng = random.Random(seed)
        self._acknowledged: deque[bytes] = deque(maxlen=50)
        self.counts: Counter[str] = Counter()

    async def send(self, batches: Iterator[list[Record]]) -> None:
        for batch in batches:
            content = msgspec.json.encode([body(server_id, beat) for server_id, beat in batch])
            if self._rng.random() < 0.02:
                await self._lose(content)
            answer = await self._deliver(content)
            assert answer["rejected"] == [], answer
            assert answer["stored"] + answer["duplicate"] == len(batch), answer
            self.counts["heartbeats"] += len(batch)
            self.counts["stored"] += answer["stored"]
            self.counts["batches"] += 1
            self._acknowledged.append(content)
            if self._rng.random() < 0.02:
                again = await self._deliver(self._rng.choice(self._acknowledged))
                assert again["stored"] == again["conflict"] == 0, again
                self.counts["batches again"] += 1

    async def _lose(self, content: bytes) -> None:
        """Sends a batch and hangs up before its answer."""
        with suppress(TimeoutError, httpx.TransportError):
            await asyncio.wait_for(self._http.post(self._url, content=content), self._rng.uniform(0, 0.1))
        self.counts["answers lost"] += 1

    async def _deliver(self, content: bytes) -> dict[str, Any]:
        while True:
            with suppress(httpx.TransportError):
                answer = await self._http.post(self._url, content=content)
                if answer.status_code == 200:
                    return dict(answer.json())
                assert answer.status_code == 503, answer.text
            self.counts["tried again"] += 1
            await asyncio.sleep(self._rng.uniform(0.1, 0.5))


async def break_things(service: KillableService, cluster: Cluster | None, counts: Counter[str]) -> None:
    """kill -9 of the service and, in turns, of its database."""
    rng = random.Random(3)
    for number in itertools.count(1):
        await asyncio.sleep(rng.uniform(10, 30))
        if cluster is not None and number % 3 == 0:
            kill_server(cluster)
            await asyncio.to_thread(cluster.restart)
            counts["database killed"] += 1
        else:
            service.kill()
            await service.start()
            counts["service killed"] += 1


async def soak(url: str, cluster: Cluster | None, directory: Path, fleet: Fleet) -> Counter[str]:
    counts: Counter[str] = Counter()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with (
        killable_service(url, directory) as service,
        httpx.AsyncClient(headers=headers, timeout=15, trust_env=False) as http,
    ):
        relays = [Relay(http, service.url, number) for number in range(AGENTS)]
        breaking = asyncio.create_task(break_things(service, cluster, counts))
        telling = asyncio.create_task(tell(relays))
        sending = [relay.send(fleet.arrivals(range(n, SERVERS, AGENTS))) for n, relay in enumerate(relays)]
        try:
            await asyncio.gather(*sending)
        finally:
            for task in (breaking, telling):
                task.cancel()
            await asyncio.gather(breaking, telling, return_exceptions=True)
    for relay in relays:
        counts.update(relay.counts)
    return counts


async def tell(relays: Sequence[Relay]) -> None:
    for minute in itertools.count(1):
        await asyncio.sleep(60)
        print(f"after {minute} min {sum(relay.counts['heartbeats'] for relay in relays):,} heartbeats", flush=True)


async def check(url: str, fleet: Fleet) -> int:
    """Holds the database against the oracle, some servers at a time, on all processors. Returns how many heartbeats."""
    database = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    try:
        if await database.fetchval("SELECT edition FROM linkbeat.installation") != "apache":
            # Late data shows after the next refresh.
            await database.execute("CALL linkbeat.refresh_aggregates(now())")
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = [range(first, first + 10) for first in range(0, SERVERS, 10)]
            heartbeats = sum(pool.map(check_part, itertools.repeat(url), itertools.repeat(fleet), parts))
        assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
        return heartbeats
    finally:
        await database.close()


def check_part(url: str, fleet: Fleet, numbers: Sequence[int]) -> int:
    async def check() -> int:
        database = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
        try:
            sent = {fleet.names[number]: Sent(fleet.beats(number), is_all=False) for number in numbers}
            assert await check_servers(database, sent, budget=256) == {}
            assert await check_levels(database, sent) == []
            return sum(len(one.beats) for one in sent.values())
        finally:
            await database.close()

    return asyncio.run(check())


def test_a_day_of_two_hundred_servers_is_exact_to_the_byte(tmp_path: Path) -> None:
    seed = int(os.environ.get("LINKBEAT_SOAK_SEED") or random.randrange(10**6))
    fleet = Fleet(seed, hours_ago(72), hours_ago(0))
    print(f"\nLINKBEAT_SOAK_SEED={seed}", flush=True)
    with database_to_soak() as (url, cluster):
        started = time.monotonic()
        counts = asyncio.run(soak(url, cluster, tmp_path, fleet))
        sent = time.monotonic()
        print(f"sent within {sent - started:.0f} s: {dict(counts)}", flush=True)
        heartbeats = asyncio.run(check(url, fleet))
        print(f"{heartbeats:,} heartbeats checked within {time.monotonic() - sent:.0f} s", flush=True)
    assert counts["heartbeats"] == heartbeats
    assert counts["service killed"] >= 3
    assert cluster is None or counts["database killed"] >= 2


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
