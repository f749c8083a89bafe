"""Reads on replicas within a bound of staleness.

Each process polls the flushed WAL position of the primary and the replayed position of each replica. A replica that has
replayed everything flushed at a time T shows everything acknowledged by T: it is as of T. So only the clock of this
process matters, and the replica of an idle fleet is not considered stale, as it would be by the time of its last
transaction (pg_last_xact_replay_timestamp).

A replica is used if it is as of at most `lag_seconds` ago and, for the servers that a request names, as of a time after
the last heartbeat that this process stored of them.
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
ASK_SECONDS = 2.0  # time limit for a position
# A statement that failed after this time is not retried: the client would wait twice as long.
RETRY_SECONDS = 2.0
REMEMBERED_SECONDS = 5.0

# Executable by every login. The name of a WAL file begins with the timeline of the primary.
_PRIMARY = """
SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn AS position,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS timeline
"""
# After a failover, another standby may have replayed WAL that the new primary never had: only its timeline shows that.
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
    as_of     it has replayed everything acknowledged by this time (monotonic clock)
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.as_of = float("-inf")


class Replicas:
    """The state of the replicas, and the servers that this process stored recently. `async with` starts the polling.

    reads      statements that a replica may answer, by the server that answered: its name, or "primary"
    retries    those of them that another server answered, by the replica that failed
    """

    def __init__(self, url: str, primary_url: str, lag_seconds: float) -> None:
        """`url` has the hosts of all replicas, separated by commas. Raises asyncpg.ClientConfigurationError."""
        self._primary_url = primary_url
        self._lag_seconds = lag_seconds
        self._poll_seconds = min(POLL_SECONDS, lag_seconds / 4)
        self.members = [Replica(name, one) for name, one in split(url).items()]
        self._turns = itertools.count()
        self._samples: deque[tuple[float, int]] = deque()  # time, and flushed WAL position of the primary
        self._of: tuple[int, int] | None = None  # system and timeline of the samples
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
        """Records that heartbeats of these servers were flushed now."""
        now = time.monotonic()
        for server_id in server_ids:
            self._stored.pop(server_id, None)
            self._stored[server_id] = now
        # Every replica in use has the heartbeats that are older than the bound.
        least = now - max(REMEMBERED_SECONDS, self._lag_seconds)
        while self._stored:
            server_id, stored = next(iter(self._stored.items()))
            if stored >= least:
                break
            del self._stored[server_id]

    def usable(self, wanted: Reading) -> Iterator[Replica]:
        """The replicas that are recent enough, in rotating order."""
        least = time.monotonic() - self._lag_seconds
        for server_id in wanted.servers:
            least = max(least, self._stored.get(server_id, least))
        first = next(self._turns)
        for number in range(len(self.members)):
            replica = self.members[(first + number) % len(self.members)]
            if replica.as_of >= least:
                yield replica

    def behind_seconds(self) -> dict[str, float]:
        """Upper bound of the staleness of each replica; infinite if unknown."""
        now = time.monotonic()
        return {one.name: now - one.as_of for one in self.members}

    async def _follow_primary(self) -> None:
        while True:
            await self._ask("the primary", self._primary_url, "primary", self._take_primary)

    async def _follow_replica(self, replica: Replica) -> None:
        while True:
            await self._ask(replica.name, replica.url, "any", partial(self._take_replica, replica))
            # If it was restarted, it shows an older state until it has replayed the WAL again.
            replica.as_of = float("-inf")

    async def _ask(
        self, name: str, url: str, target: Target, take: Callable[[asyncpg.Connection], Awaitable[None]]
    ) -> None:
        """Polls until the connection is lost, then waits for one poll interval."""
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
            limited(logging.WARNING, ("replica", name), "replicas: %s cannot be polled: %s", name, reason(raised))
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
                logging.WARNING,
                ("replica", replica.name),
                "replicas: %s is not a standby and is not used",
                replica.name,
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
    """Reads on a replica if the request allows it and one is recent enough, otherwise on the primary."""

    def __init__(self, url: str, replicas: Replicas, **options: Any) -> None:
        """`options`: those of Database. Each server has its own pool."""
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
        """As in Database. If a replica fails, another server is asked."""
        return await self._anywhere(
            lambda copy: copy.fetch(sql, *arguments), lambda: super(ReplicatedDatabase, self).fetch(sql, *arguments)
        )

    async def copy(self, sql: str, *arguments: Any, **options: Any) -> tuple[bytearray, int]:
        """As in Database. If a replica fails, another server is asked."""
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
    """Whether the replica failed, not the statement: it is unreachable, or its recovery cancelled the statement."""
    if refused.code != "database_unavailable" or time.monotonic() - started > RETRY_SECONDS:
        return False
    cause = refused.__cause__
    return not isinstance(cause, asyncpg.QueryCanceledError) or "recovery" in str(cause)
