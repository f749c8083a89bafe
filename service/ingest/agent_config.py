"""Remote configurations of agents, which the response to a heartbeat delivers."""

from collections.abc import Callable
from typing import Any

import msgspec

from service.database.follow import POLL_SECONDS, PolledCache
from service.database.pool import Database
from service.wire import AgentConfig

__all__ = ["POLL_SECONDS", "Configurations"]

# All configurations in one statement if anything has changed, otherwise one empty row.
CHANGED = """
SELECT i.config_revision AS revision, c.server_id,
       (coalesce(c.config, '{}') || CASE WHEN c.report_at IS NULL THEN '{}'
                                         ELSE jsonb_build_object('report_at', c.report_at) END)::text AS config
FROM linkbeat.installation i LEFT JOIN linkbeat.server_config c ON i.config_revision <> $1
"""


_NOTHING: Any = msgspec.Raw(b"{}")


class Configurations(PolledCache):
    """A cache of the remote configuration of every server."""

    def __init__(self, database: Database, is_reachable: Callable[[], bool]) -> None:
        super().__init__(database, is_reachable, "configurations")
        self._of: dict[str, Any] = {}
        self._revision = -1

    @property
    def are_known(self) -> bool:
        """Waits for the first poll: before it, `{}` would resume a paused agent."""
        return self._revision >= 0

    def of(self, server_id: str) -> AgentConfig:
        """The configuration of a server as JSON."""
        return self._of.get(server_id, _NOTHING)  # type: ignore[no-any-return]  # its JSON, which is encoded as such

    async def take(self) -> None:
        rows = await self._database.fetch(CHANGED, self._revision)
        if rows and rows[0]["revision"] != self._revision:
            self._of = {row["server_id"]: msgspec.Raw(row["config"].encode()) for row in rows if row["server_id"]}
            self._revision = rows[0]["revision"]
