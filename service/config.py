"""What agents are asked to do otherwise than their own settings say; the answer to a heartbeat brings it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import asyncpg
import msgspec

from service.database import Database
from service.errors import Problem
from service.wire import AgentConfig

POLL_SECONDS = 1.0

# All of it in one statement if anything has changed, else one row of nothing.
CHANGED = """
SELECT i.config_revision AS revision, c.server_id, c.config::text
FROM linkbeat.installation i LEFT JOIN linkbeat.server_config c ON i.config_revision <> $1
"""


_NOTHING: Any = msgspec.Raw(b"{}")


class Configurations:
    """What is set for every server, as this process knows it: POLL_SECONDS old at most while the database is there.

    Asked again and again rather than listened for: what a process missed while its connection was away, it sees the
    next time, and behind a connection that hangs unseen it does not stay with what it has.
    """

    def __init__(self, database: Database, is_reachable: Callable[[], bool]) -> None:
        self._database = database
        self._is_reachable = is_reachable
        self._of: dict[str, Any] = {}
        self._revision = -1
        self._refreshing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._poll(), name="linkbeat configurations")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def are_known(self) -> bool:
        """Before, `{}` would tell a paused agent to go on."""
        return self._revision >= 0

    def of(self, server_id: str) -> AgentConfig:
        """As it goes out."""
        return self._of.get(server_id, _NOTHING)  # type: ignore[no-any-return]  # its JSON, which is encoded as such

    async def refresh(self) -> None:
        """Sees all that is committed by now. Raises Problem (503)."""
        async with self._refreshing:  # in turns: what was read first must not replace what was read last
            rows = await self._database.fetch(CHANGED, self._revision)
            if rows and rows[0]["revision"] != self._revision:
                self._of = {row["server_id"]: msgspec.Raw(row["config"].encode()) for row in rows if row["server_id"]}
                self._revision = rows[0]["revision"]

    async def _poll(self) -> None:
        while True:
            if self._is_reachable():  # else ingest has said so, once
                with suppress(Problem, asyncpg.PostgresError):
                    await self.refresh()
            await asyncio.sleep(POLL_SECONDS)
