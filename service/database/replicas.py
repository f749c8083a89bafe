"""Reads on replicas that are near enough to the primary.

Each process asks the primary again and again how far its log is flushed, and each replica how far it has replayed it. A
replica that has replayed all that was flushed at a moment shows all that was acknowledged by then: it is as of that
moment. So no clock but this process's counts, and an idle fleet's replica is never behind, which the time of its last
transaction (pg_last_xact_replay_timestamp) would say.

A replica is used while it is as of `lag_seconds` ago at the most, and, for a server that this process has stored
something of, as of a moment after that.
"""

import asyncio
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Self, TypeVar

import asyncpg

from service.database.hosts import Target, connect, reason, split
from service.database.pool import CONNECT_SECONDS, UNREACHABLE, Database
from service.database.reading import Reading, reading
from service.http.errors import Problem
from service.http.log_limit import limited

POLL_SECONDS = 0.5
ASK_SECONDS = 2.0  # that a server has for its position
RETRY_SECONDS = 2.0  # a statement that failed later is not sent to another server: nobody waits for as long again
REMEMBERED_SECONDS = 5.0

# Any login may execute these. The name of a log file begins with the primary's timeline.
_PRIMARY = """
SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn AS position,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS timeline
"""
# After a failover, another standby may have replayed what the new primary never had: only its timeline tells.
_REPLICA = """
SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn AS position,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       greatest((SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                (SELECT timeline_id FROM pg_control_checkpoint()))::bigint AS timeline
WHERE pg_is_in_recovery()
"""

T = TypeVar("T")


class Replica:
    """One host.

    name      host:port, for logs and metrics
    as_of     all that was acknowledged by then it has replayed, by the monotonic clock
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.as_of = float("-inf")


class Replicas:
    """What this process knows of the replicas, and what it has stored lately. `async with` begins to follow them.

    reads      statements that a replica would have done for, by the server that answered: its name, or "primary"
    retries    of those, the ones that another server answered, by the server that could not
    """

    def __init__(self, url: str, primary_url: str, lag_seconds: float) -> None:
        """`url`: of all replicas, hosts separated by commas. Raises asyncpg.ClientConfigurationError."""
        self._primary_url = primary_url
        self._lag_seconds = lag_seconds
        self._poll_seconds = min(POLL_SECONDS, lag_seconds / 4)
        self.members = [Replica(name, one) for name, one in split(url).items()]
        self._turns = itertools.count()
        self._samples: deque[tuple[float, int]] = deque()  # when, and how far the primary's log was flushed then
        self._of: tuple[int, int] | None = None  # system and timeline that the samples are of
        self._stored: dict[str, float] = {}  # servers, oldest first
        self._tasks: list[asyncio.Task[None]] = []
        self.reads: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._follow_primary(), name="linkbeat primary's position"),
            *(asyncio.create_task(self._follow_replica(one), name=f"linkbeat {one.name}") for one in self.members),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def note_stored(self, server_ids: Iterable[str]) -> None:
        """Something of these servers has just been flushed."""
        now = time.monotonic()
        for server_id in server_ids:
            self._stored.pop(server_id, None)
            self._stored[server_id] = now
        # What is older than the bound every replica in use has.
        least = now - max(REMEMBERED_SECONDS, self._lag_seconds)
        while self._stored:
            server_id, stored = next(iter(self._stored.items()))
            if stored >= least:
                break
            del self._stored[server_id]

    def usable(self, wanted: Reading) -> Iterator[Replica]:
        """Those that will do, beginning with another one each time."""
        least = time.monotonic() - self._lag_seconds
        for server_id in wanted.servers:
            least = max(least, self._stored.get(server_id, least))
        first = next(self._turns)
        for number in range(len(self.members)):
            replica = self.members[(first + number) % len(self.members)]
            if replica.as_of >= least:
                yield replica

    def behind_seconds(self) -> dict[str, float]:
        """How far each may be behind, at most; infinite where that is not known."""
        now = time.monotonic()
        return {one.name: now - one.as_of for one in self.members}

    async def _follow_primary(self) -> None:
        while True:
            await self._ask("the primary", self._primary_url, "primary", self._take_primary)

    async def _follow_replica(self, replica: Replica) -> None:
        while True:
            await self._ask(replica.name, replica.url, "any", partial(self._take_replica, replica))
            # It may have been restarted, and shows less than before until it has replayed that again.
            replica.as_of = float("-inf")

    async def _ask(
        self, name: str, url: str, target: Target, take: Callable[[asyncpg.Connection], Awaitable[None]]
    ) -> None:
        """Asks until the connection is lost, and a moment longer."""
        connection = None
        try:
            connection = await connect(
                url,
                seconds=CONNECT_SECONDS,
                target=target,
                command_timeout=ASK_SECONDS,
                server_settings={"application_name": "linkbeat replicas"},
            )
            while True:
                await take(connection)
                await asyncio.sleep(self._poll_seconds)
        except (*UNREACHABLE, asyncpg.PostgresError) as raised:
            limited(logging.WARNING, ("replica", name), "replicas: %s is not followed: %s", name, reason(raised))
        finally:
            if connection is not None:
                connection.terminate()
        await asyncio.sleep(self._poll_seconds)

    async def _take_primary(self, connection: asyncpg.Connection) -> None:
        asked = time.monotonic()
        row = await connection.fetchrow(_PRIMARY)
        assert row is not None
        found = row["system"], row["timeline"]
        if found != self._of:
            # Positions of two timelines are not comparable.
            self._of = found
            self._samples.clear()
            for replica in self.members:
                replica.as_of = float("-inf")
        self._samples.append((asked, int(row["position"])))
        while self._samples[0][0] < asked - self._lag_seconds - ASK_SECONDS:
            self._samples.popleft()

    async def _take_replica(self, replica: Replica, connection: asyncpg.Connection) -> None:
        row = await connection.fetchrow(_REPLICA)
        if row is None:
            limited(
                logging.WARNING, ("replica", replica.name), "replicas: %s is no standby, and not read", replica.name
            )
        if row is None or (row["system"], row["timeline"]) != self._of or row["position"] is None:
            replica.as_of = float("-inf")
            return
        position = int(row["position"])
        for at, flushed in reversed(self._samples):
            if flushed <= position:
                replica.as_of = max(replica.as_of, at)
                break


class ReplicatedDatabase(Database):
    """Reads on a replica where the request allows that and one will do, else on the primary."""

    def __init__(self, url: str, replicas: Replicas, **options: Any) -> None:
        """`options` of Database: each server has a pool of its own."""
        super().__init__(url, **options)
        self._replicas = replicas
        self._copies = {one: Database(one.url, target="any", **options) for one in replicas.members}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for copy in self._copies.values():
            await copy.__aenter__()
        return self

    async def __aexit__(self, *of: object) -> None:
        for copy in self._copies.values():
            await copy.__aexit__(*of)
        await super().__aexit__(*of)

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """As Database has it; a replica that cannot answer is asked once, and then another server."""
        return await self._anywhere(
            lambda copy: copy.fetch(sql, *arguments), lambda: super(ReplicatedDatabase, self).fetch(sql, *arguments)
        )

    async def copy(self, sql: str, *arguments: Any, **options: Any) -> tuple[bytearray, int]:
        """As Database has it; a replica that cannot answer is asked once, and then another server."""
        return await self._anywhere(
            lambda copy: copy.copy(sql, *arguments, **options),
            lambda: super(ReplicatedDatabase, self).copy(sql, *arguments, **options),
        )

    async def _anywhere(
        self, on_replica: Callable[[Database], Awaitable[T]], on_primary: Callable[[], Awaitable[T]]
    ) -> T:
        wanted = reading.get()
        started = time.monotonic()
        if wanted is not None and wanted.may_lag:
            candidates = list(self._replicas.usable(wanted))
            for replica in candidates[:2]:
                as_of = replica.as_of
                try:
                    found = await on_replica(self._copies[replica])
                except Problem as refused:
                    if not _may_pass_elsewhere(refused, started):
                        raise
                    self._replicas.retries[replica.name] += 1
                    continue
                self.queries += 1
                self._replicas.reads[replica.name] += 1
                wanted.note(as_of)
                return found
            self._replicas.reads["primary"] += 1
        found = await on_primary()
        if wanted is not None:
            wanted.note(started)
        return found


def _may_pass_elsewhere(refused: Problem, started: float) -> bool:
    """Whether the replica is to blame, and not the statement: it is gone, or its recovery had to cancel that."""
    if refused.code != "database_unavailable" or time.monotonic() - started > RETRY_SECONDS:
        return False
    cause = refused.__cause__
    return not isinstance(cause, asyncpg.QueryCanceledError) or "recovery" in str(cause)
