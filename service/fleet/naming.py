"""Names of the interfaces of a server over time, and events of their devices. docs/names.md has the rules."""

from datetime import datetime
from typing import Any, Literal

import asyncpg
import msgspec
from litestar import Router, get
from litestar.params import FromPath

from service.database.names import check_known, storable
from service.database.pool import Database
from service.http.problems import problems

MOST_EVENTS = 1_000
_NAMES = "SELECT interface_name, os_name, since, until FROM interface_names WHERE server_id = $1 ORDER BY 1, 3"
_EVENTS = f"""
SELECT time, interface_name, event, detail::text FROM interface_events WHERE server_id = $1
ORDER BY time DESC, interface_name, event LIMIT {MOST_EVENTS}
"""
# An interface disappeared, and another of the same kind appeared within a day.
_SUGGESTIONS = """
SELECT g.interface_name, c.interface_name AS into, g.time AS gone_at, c.first_seen AS appeared_at
FROM interface_overview g JOIN interface_overview c USING (server_id)
WHERE server_id = $1 AND NOT g.is_current AND c.is_current AND NOT g.is_folded AND NOT c.is_folded
  AND coalesce(g.kind, 'physical') = 'physical' AND g.kind IS NOT DISTINCT FROM c.kind
  AND c.first_seen > g.time AND c.first_seen <= g.time + INTERVAL '1 day'
  AND NOT EXISTS (SELECT FROM interface_links l
                  WHERE l.server_id = $1 AND l.interface_name = g.interface_name
                    AND l.into_interface_name = c.interface_name)
ORDER BY 1, 2
"""


class NameSpan(msgspec.Struct, frozen=True):
    """The name that the operating system gave an interface in [since, until). `until` is null for the latest name."""

    interface: str
    os_name: str
    since: datetime
    until: datetime | None


class DeviceEvent(msgspec.Struct, frozen=True):
    """Something that happened to the device of an interface.

    event   renamed; hardware_changed: another device under the same name or in the same slot; duplicate_address:
            several interfaces report one permanent address, so it does not identify any of them
    detail  from what to what, and by which evidence
    """

    timestamp: datetime
    interface: str
    event: Literal["renamed", "hardware_changed", "duplicate_address"]
    detail: dict[str, Any]


class Suggestion(msgspec.Struct, frozen=True):
    """Two interfaces that may be one: the first disappeared, and `into` appeared within a day. Nothing is merged.

    A link of the two (POST /servers/{server_id}/links) ends the suggestion.
    """

    interface: str
    into: str
    gone_at: datetime
    appeared_at: datetime


class Names(msgspec.Struct, frozen=True):
    """Names of the interfaces of a server, events of their devices (the newest first), and suggestions.

    names  empty for an agent that sends no evidence: the name is the series
    """

    server_id: str
    names: list[NameSpan]
    events: list[DeviceEvent]
    suggestions: list[Suggestion]


def router(database: Database) -> Router:
    """GET /servers/{server_id}/names."""

    @get("/", summary="Names of the interfaces of a server", responses=problems(401, 404, 503))
    async def get_names(server_id: FromPath[str]) -> Names:
        known = storable(server_id)
        await check_known(database, known)
        return Names(
            server_id,
            [NameSpan(*row) for row in await database.fetch(_NAMES, known)],
            [_event(row) for row in await database.fetch(_EVENTS, known)],
            [Suggestion(*row) for row in await database.fetch(_SUGGESTIONS, known)],
        )

    return Router("/servers/{server_id:str}/names", route_handlers=[get_names], tags=["servers"])


def _event(row: asyncpg.Record) -> DeviceEvent:
    return DeviceEvent(row["time"], row["interface_name"], row["event"], msgspec.json.decode(row["detail"]))
