"""Connection poolers such as PgBouncer: session pooling is supported, transaction and statement pooling are refused.

Linkbeat relies on session state: initial settings, a role, prepared statements and advisory locks. With transaction
pooling, clients share server connections and mix their state: a reader would write as linkbeat_ingest, and a commit
would wait for the disk or not, depending on the settings of another session.
"""

import asyncpg

from service.database.hosts import connect, pass_parameters_by_statement, reason

ROUNDS = 5
_ASKED = "force_generic_plan"
_SESSION = "SELECT current_setting('plan_cache_mode') AS plans, pg_backend_pid() AS pid"
REFUSAL = (
    "a connection pooler in front of the database pools transactions or statements; connect to PostgreSQL directly, or "
    "set pool_mode = session for this database (docs/durability.md)"
)

# A prepared statement belongs to another session or is missing; statement pooling rejects BEGIN.
_MIXED_UP = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.ConnectionDoesNotExistError,
)


class PoolerError(ConnectionError):
    """The pooler in front of the database is not supported; the message has the remedy."""


async def require_sessions(url: str, *, seconds: float) -> None:
    """Checks that every connection has its own session, through any poolers and proxies.

    Raises PoolerError, and the exceptions of hosts.connect.
    """
    first = await _connect(url, seconds)
    try:
        if await _is_pooled(url, first):
            second = await _connect(url, seconds)
            try:
                await _require_own(first, second)
            except _MIXED_UP as raised:
                raise PoolerError(f"{REFUSAL}: {reason(raised)}") from raised
            finally:
                second.terminate()
    finally:
        first.terminate()


async def _connect(url: str, seconds: float) -> asyncpg.Connection:
    return await connect(
        url, seconds=seconds, target="any", command_timeout=seconds, server_settings={"plan_cache_mode": _ASKED}
    )


async def _is_pooled(url: str, connection: asyncpg.Connection) -> bool:
    """Whether a pooler responds: it drops the initial settings of a session, or reports its own process ids."""
    session = await connection.fetchrow(_SESSION)
    assert session is not None
    if session["plans"] != _ASKED:
        pass_parameters_by_statement(url)
        return True
    return bool(session["pid"] != connection.get_server_pid())


async def _require_own(first: asyncpg.Connection, second: asyncpg.Connection) -> None:
    """Raises PoolerError if both connections get the same session, or the first one is moved to another.

    While the second connection has an open transaction, the first must still have its session. Repeated for some
    rounds, because other clients of the pooler may hold the session in question.
    """
    for _ in range(ROUNDS):
        before = await first.fetchrow(_SESSION)
        async with second.transaction():
            others = await second.fetchrow(_SESSION)
            after = await first.fetchrow(_SESSION)
        assert before is not None
        assert others is not None
        assert after is not None
        if others["pid"] == before["pid"] or after["pid"] != before["pid"]:
            raise PoolerError(REFUSAL)
