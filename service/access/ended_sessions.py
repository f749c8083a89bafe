"""Sessions that were signed out and codes that were used. Every process refuses them, also after a restart."""

import time
from collections.abc import Callable

import asyncpg

from service.access.sessions import Session
from service.database.follow import PolledCache
from service.database.pool import Database

CHANGED = """
SELECT session, extract(epoch FROM ends_at)::float8 AS ends_at, revision
FROM linkbeat.ended_sessions WHERE revision > $1 ORDER BY revision
"""
_END = "SELECT linkbeat.end_session(of_session => $1, would_end => to_timestamp($2))"


class EndedSessions(PolledCache):
    """The ended sessions, cached from the database. Entries are dropped once the session would have expired."""

    def __init__(self, database: Database, writing: Database, is_reachable: Callable[[], bool]) -> None:
        super().__init__(database, is_reachable, "ended sessions")
        self._writing = writing
        self._ends_at: dict[bytes, float] = {}
        self._revision = 0

    def __contains__(self, session: Session) -> bool:
        return session.digest in self._ends_at

    async def end(self, session: Session) -> bool:
        """Ends the session for every process. Returns False if it had ended before. Raises Problem (503)."""
        if session in self:
            return False
        rows = await self._writing.fetch(_END, session.digest, session.ends_at)
        self._ends_at[session.digest] = session.ends_at
        return bool(rows[0][0])

    async def take(self) -> None:
        for row in await self._database.fetch(CHANGED, self._revision):
            self._take(row)

    def _take(self, row: asyncpg.Record) -> None:
        self._ends_at[row["session"]] = row["ends_at"]
        self._revision = row["revision"]

    async def after_poll(self) -> None:
        now = time.time()
        for digest in [digest for digest, ends_at in self._ends_at.items() if ends_at < now]:
            del self._ends_at[digest]
