"""What makes a range of traffic other than plain: counters that restarted, what no line could have carried, and wrong
readings that later ones corrected."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from litestar import Router, get
from litestar.params import QueryParameter

from service.clock import Clock
from service.database.names import check_known, storable
from service.database.pool import Database
from service.http import cursor
from service.http.parameters import After, InterfaceFilter, Rows
from service.http.problems import problems
from service.traffic.ranges import Moment, Since, Until, range_of, utc

# The aggregate tells which hours have any, and only the samples of those hours are searched. It does not tell glitches:
# where they are sought, every hour is searched, so the range is short and of one interface.
_GLITCHES_WITHIN = timedelta(hours=25)
_EVENTS = """
WITH hour AS MATERIALIZED (
    SELECT interface_name, bucket FROM network_traffic_1h
    WHERE server_id = $1 AND bucket >= date_trunc('hour', $2::timestamptz, 'UTC') AND bucket < $3
      AND {eventful} {where})
SELECT e.time, e.delta_kind AS kind, array_agg(e.interface_name ORDER BY e.interface_name) AS interfaces,
       max(e.elapsed_seconds) AS elapsed_seconds
FROM hour CROSS JOIN LATERAL (
    SELECT time, interface_name, delta_kind, elapsed_seconds FROM network_samples
    WHERE server_id = $1 AND interface_name = hour.interface_name
      AND time >= hour.bucket AND time < hour.bucket + INTERVAL '1 hour' AND time >= $2 AND time < $3
      AND delta_kind IN ('reboot', 'reset', 'rejected', 'glitch') {after}
    OFFSET 0) AS e
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $4
"""

Kind = Literal["reboot", "reset", "rejected", "glitch"]


class TrafficEvent(msgspec.Struct, frozen=True):
    """A sample of a server that is not counted plainly, of all its interfaces of which that is so.

    kind             reboot: counters restarted with the machine; reset: without it; what they show since counts.
                     rejected: more than the line can carry; nothing of it counts. glitch: a wrong reading, which later
                     ones corrected; nothing was lost. Told of one interface, in a range of 25 hours at most
    elapsed_seconds  since the sample before: what was counted before a reset and after it, is not known; null: there is
                     none
    """

    timestamp: datetime
    kind: Kind
    interfaces: list[str]
    elapsed_seconds: float | None


class TrafficEvents(msgspec.Struct, frozen=True):
    """Events of [since, until) in the order of time; `next` continues after the last, null at the end."""

    server_id: str
    since: datetime
    until: datetime
    data: list[TrafficEvent]
    next: str | None


Server = Annotated[str, QueryParameter(description="Of this server.", max_length=255)]


def router(database: Database, clock: Clock) -> Router:
    """GET /traffic/events."""

    @get("/events", summary="Resets, reboots and what was rejected", responses=problems(401, 404, 422, 503))
    async def events(
        server: Server,
        interface: InterfaceFilter = None,
        since: Since = None,
        until: Until = None,
        limit: Rows = 1_000,
        after: After = None,
    ) -> TrafficEvents:
        """As far back as samples are kept (LINKBEAT_RETAIN_RAW_DAYS); `resets` of the history are there for longer."""
        first, end = range_of(since, until, clock.now())
        arguments: list[object] = [storable(server), first, end, limit + 1]
        where = position = ""
        eventful = "resets + rejected > 0"
        if interface is not None:
            arguments.append(storable(interface))
            where = f"AND interface_name = ${len(arguments)}"
            if end - first <= _GLITCHES_WITHIN:
                eventful = "true"
        if after is not None:
            moment, kind = cursor.read(after, tuple[Moment, Kind])
            arguments += [utc("after", moment), kind]
            position = f"AND (time, delta_kind) > (${len(arguments) - 1}, ${len(arguments)})"
        rows = await database.fetch(_EVENTS.format(eventful=eventful, where=where, after=position), *arguments)
        if not rows:
            await check_known(database, server)
        data = [TrafficEvent(*row) for row in rows[:limit]]
        following = cursor.write(data[-1].timestamp, data[-1].kind) if len(rows) > limit else None
        return TrafficEvents(server, first, end, data, following)

    return Router("/traffic", route_handlers=[events], tags=["traffic"])
