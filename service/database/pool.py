"""Connections to TimescaleDB: deadlines on every wait, and driver errors turned into ours here alone."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Literal, Self
from weakref import WeakSet

import asyncpg

from service.database import roles
from service.database.hosts import Target, connect
from service.database.shares import Shares
from service.http.errors import Problem
from service.http.log_limit import limited

CONNECT_SECONDS = 3.0
ACQUIRE_SECONDS = 1.0
READ_SECONDS = 4.0
WRITE_SECONDS = 4.0
RETRY_AFTER_SECONDS = 2
READERS = 8  # connections of a pool for reads; where more than two processes share a port, they share twice as many
LEAST_READERS = 2

# For statements that make series of buckets. Parallel workers cost more to start than they save of some milliseconds.
# PostgreSQL takes each column of a series for 8 kB and would sort all buckets by series rather than hold so much; at
# MAX_POINTS a page (service/traffic/sparkline.py) they are a few megabytes.
_SERIES = {"max_parallel_workers_per_gather": "0", "work_mem": "64MB"}

# What the path to the database, and not the statement, is to blame for.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # an idle connection whose server said goodbye no longer knows its own state
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # it has become a standby
)

# The database is there and cannot do it now: out of memory, disk or time, or in conflict with a writer.
_OVERBURDENED = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # it takes no connections for now: ALLOW_CONNECTIONS false
)


class Database:
    """Statements, through a pool of one role: `async with` opens it. They never wait longer than `seconds`.

    Every wait has a deadline: without one, asyncpg's callers stay for ever on a path that hangs.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = READERS,
        plans: Literal["custom", "generic"] = "custom",
        role: str = roles.READ,
        seconds: float | None = None,
        share: int | None = None,
        target: Target = "primary",
    ) -> None:
        """At most `connections` of the server's, which take `role` on.

        plans    custom: each execution is planned for its arguments. generic: each statement once in five minutes, for
                 which its range of time must stand in it
        seconds  the longest that a statement may take; READ_SECONDS unless given
        share    connections that the requests of one token hold at most (service/database/shares.py)
        target   any: a standby will do
        """
        self._url = url
        self._connections = connections
        self._plans = plans
        self._role = role
        self._seconds = READ_SECONDS if seconds is None else seconds
        self._shares = Shares(share)
        self._target: Target = target
        self.queries = 0
        self.failures = 0  # that the database, or the path to it, is to blame for
        self._open: WeakSet[asyncpg.Connection] = WeakSet()

    async def __aenter__(self) -> Self:
        self._pool: asyncpg.Pool = await asyncpg.create_pool(
            self._url,
            min_size=0,  # asyncpg's keeping up of a floor fills the log with tracebacks while the database is away
            max_size=self._connections,
            connect=self._connect,
            command_timeout=self._seconds,
            init=partial(roles.take, role=self._role),  # whatever goes wrong in a read, it cannot write
            reset=_leave_as_it_is,
            server_settings={
                "application_name": f"linkbeat {'read' if self._role == roles.READ else 'configure'}",
                "statement_timeout": f"{self._seconds * 1000:.0f}",
                "timezone": "UTC",
                # Left to itself, the server would choose a generic plan from the sixth execution on, which no longer
                # leaves out the chunks outside a range that comes as an argument.
                "plan_cache_mode": f"force_{self._plans}_plan",
                **(_SERIES if self._plans == "generic" else {}),
            },
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.wait_for(self._pool.close(), ACQUIRE_SECONDS)
        except TimeoutError:
            self._pool.terminate()

    def disconnect(self) -> None:
        """Ends every connection, those in use too: the database has become another server."""
        # The pool's own way, expire_connections(), waits for a server that does not answer to say goodbye.
        for connection in self._open:
            connection.terminate()

    async def _connect(self, *arguments: Any, **options: Any) -> asyncpg.Connection:
        connection = await connect(*arguments, seconds=CONNECT_SECONDS, target=self._target, **options)
        self._open.add(connection)
        return connection

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """All rows. Raises Problem: 503 while the database is away, 429 where the token's share is used up."""
        self.queries += 1
        async with self._connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return rows

    async def copy(self, sql: str, *arguments: Any, **options: Any) -> tuple[bytearray, int]:
        """What COPY makes of all rows, and how many there are. Raises Problem (503) while the database is away."""
        lines = bytearray()

        async def take(data: bytes) -> None:
            lines.extend(data)

        async with self._connection() as connection:
            status: str = await connection.copy_from_query(sql, *arguments, output=take, **options)
        return lines, int(status.removeprefix("COPY "))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        async with self._shares.taken():
            with self._counted(), unavailable():
                try:
                    async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                        yield connection
                except asyncpg.ReadOnlySQLTransactionError:
                    self.disconnect()
                    raise

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Problem:
            self.failures += 1
            raise


async def _leave_as_it_is(_: object) -> None:
    """Reads leave nothing behind in a session; asyncpg's own reset is a second round trip for each of them."""


async def connect_writer(url: str, *, waits_for_disk: bool) -> asyncpg.Connection:
    """A connection for ingest: one plan for all batches, and limits that end a wait on the server too.

    waits_for_disk  whether a commit returns only when it is flushed, or replicated, as the server is set: the sealer's.
                    It writes no rows and keeps the login's own role, which may be allowed to see replication; and it
                    hears warnings, however the login is set
    """
    own = {"client_min_messages": "warning"} if waits_for_disk else {"synchronous_commit": "off"}
    connection = await connect(
        url,
        seconds=CONNECT_SECONDS,
        # The server ends a statement that is too slow first, and the connection stays; this is for a path that hangs.
        command_timeout=WRITE_SECONDS + 0.5,
        server_settings={
            "application_name": "linkbeat ingest",
            "statement_timeout": f"{WRITE_SECONDS * 1000:.0f}",
            "lock_timeout": "2000",
            "timezone": "UTC",
            "plan_cache_mode": "force_generic_plan",
            # A replay into compressed chunks opens a thousand rows for each that it brings; at the default of 100,000 a
            # transaction, a batch of a hundred machines would never succeed.
            "timescaledb.max_tuples_decompressed_per_dml_transaction": "0",
            # Compiling a batch's few milliseconds of work would cost more than the work.
            "jit": "off",
            **own,
        },
    )
    if not waits_for_disk:
        try:
            await roles.take(connection, roles.INGEST)
        except BaseException:
            connection.terminate()
            raise
    return connection


@contextmanager
def unavailable() -> Iterator[None]:
    """Turns a database that is away, or too slow, into 503 with Retry-After."""
    try:
        yield
    except (*UNREACHABLE, *_OVERBURDENED) as raised:
        name = type(raised).__name__
        limited(logging.WARNING, ("database", name), "database: %s: %s", name, raised)
        raise Problem.retry(
            "database_unavailable", "the database did not answer in time", RETRY_AFTER_SECONDS
        ) from raised
