"""Poolers such as PgBouncer between Linkbeat and its database: one that pools sessions will do, others are refused.

A session of Linkbeat is more than its statements: it has settings that it began with, a role that it took on, prepared
statements and advisory locks. A pooler that gives each transaction another server connection mixes those of all its
clients: a reader would write as linkbeat_ingest, and a commit would be waited for or not as another session asked.
"""

import asyncpg

from service.database.hosts import connect, pass_parameters_by_statement, reason

ROUNDS = 5
_ASKED = "force_generic_plan"
_SESSION = "SELECT current_setting('plan_cache_mode') AS plans, pg_backend_pid() AS pid"
REFUSAL = (
    "a connection pooler stands before the database and gives each transaction another session; connect to PostgreSQL "
    "itself, or set pool_mode = session for this database (docs/durability.md)"
)

# Of prepared statements that another session has, or this one no longer.
_MIXED_UP = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)


class PoolerError(ConnectionError):
    """A pooler in between that cannot be used; the message has the remedy."""


async def require_sessions(url: str, *, seconds: float) -> None:
    """Returns where a connection is a session of its own, however many poolers and proxies stand in between.

    Raises PoolerError, and whatever hosts.connect raises.
    """
    try:
        first = await _connect(url, seconds)
        try:
            if await _is_pooled(url, first):
                second = await _connect(url, seconds)
                try:
                    await _require_own(first, second)
                finally:
                    second.terminate()
        finally:
            first.terminate()
    except _MIXED_UP as raised:
        raise PoolerError(f"{REFUSAL}: {reason(raised)}") from raised


async def _connect(url: str, seconds: float) -> asyncpg.Connection:
    return await connect(
        url, seconds=seconds, target="any", command_timeout=seconds, server_settings={"plan_cache_mode": _ASKED}
    )


async def _is_pooled(url: str, connection: asyncpg.Connection) -> bool:
    """Whether a pooler answers: it drops the settings that a session begins with, or gives process ids of its own."""
    session = await connection.fetchrow(_SESSION)
    assert session is not None
    if session["plans"] != _ASKED:
        pass_parameters_by_statement(url)
        return True
    return bool(session["pid"] != connection.get_server_pid())


async def _require_own(first: asyncpg.Connection, second: asyncpg.Connection) -> None:
    """Raises PoolerError where the second connection comes by the first one's session, or takes it away.

    While a transaction of the second is open, the first must still be where it was. Some rounds, because other clients
    of the pooler may have taken the session that would have shown it.
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
