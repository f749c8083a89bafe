"""Events of traffic: counters that restarted, implausible gains, and wrong readings that later ones corrected."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from litestar import Router, get
from litestar.params import QueryParameter

from service.clock import Clock
from service.database.names import check_known, storable
from service.database.pool import Database
from service.database.series_links import SeriesLinks, Sums, series_asked_for
from service.http import cursor
from service.http.parameters import After, InterfaceFilter, Rows
from service.http.problems import problems
from service.traffic.ranges import Moment, Since, Until, range_of, utc

# The aggregate shows which hours have events, and only the samples of those hours are read. It does not show glitches:
# they need the samples of every hour, so they are only returned for one interface and a short range.
_GLITCHES_WITHIN = timedelta(hours=25)
_EVENTS = """
WITH hour AS MATERIALIZED (
    SELECT interface_name, bucket FROM {hours}
    WHERE server_id = $1 AND bucket >= date_trunc('hour', $2::timestamptz, 'UTC') AND bucket < $3
      AND {eventful} {where})
SELECT e.time, e.delta_kind AS kind, array_agg(e.interface_name ORDER BY e.interface_name) AS interfaces,
       max(e.elapsed_seconds) AS elapsed_seconds
FROM hour CROSS JOIN LATERAL (
    SELECT time, interface_name, delta_kind, elapsed_seconds FROM {samples}
    WHERE server_id = $1 AND interface_name = hour.interface_name
      AND time >= hour.bucket AND time < hour.bucket + INTERVAL '1 hour' AND time >= $2 AND time < $3
      AND delta_kind IN ('reboot', 'reset', 'rejected', 'glitch') {after}
    OFFSET 0) AS e
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $4
"""

Kind = Literal["reboot", "reset", "rejected", "glitch"]


class TrafficEvent(msgspec.Struct, frozen=True):
    """An event in a sample of a server, with the interfaces that it affects.

    kind             reboot: counters restarted with the machine; reset: without it; traffic since the restart counts.
                     rejected: an implausible gain, which does not count. glitch: a wrong reading that later ones
                     corrected; no traffic is lost. Glitches are only returned for one interface and up to 25 hours
    elapsed_seconds  since the previous sample; the traffic between it and a restart is unknown; null: there is no
                     previous sample
    """

    timestamp: datetime
    kind: Kind
    interfaces: list[str]
    elapsed_seconds: float | None


class TrafficEvents(msgspec.Struct, frozen=True):
    """Events in [since, until) in order of time; `next` continues after the last one, null at the end.

    sums  interfaces that links add up, also where both have samples at the same time; absent: none
    """

    server_id: str
    since: datetime
    until: datetime
    data: list[TrafficEvent]
    next: str | None
    sums: Sums = msgspec.UNSET


Server = Annotated[str, QueryParameter(description="The server.", max_length=255)]


def router(database: Database, clock: Clock, links: SeriesLinks) -> Router:
    """GET /traffic/events."""

    @get("/events", summary="Resets, reboots and rejected samples", responses=problems(401, 404, 422, 503))
    async def events(
        server: Server,
        interface: InterfaceFilter = None,
        since: Since = None,
        until: Until = None,
        limit: Rows = 1_000,
        after: After = None,
    ) -> TrafficEvents:
        """Available for as long as samples are retained (LINKBEAT_RETAIN_RAW_DAYS); the history has `resets` for
        longer."""
        first, end = range_of(since, until, clock.now())
        arguments: list[object] = [storable(server), first, end, limit + 1]
        where = position = ""
        eventful = "resets + rejected > 0"
        linked = await links.of(server)
        hours, samples = "network_traffic_1h", "network_samples"
        if linked:
            of_links = linked.rows(
                hours, servers="ARRAY[$1]", first="date_trunc('hour', $2::timestamptz, 'UTC')", last="$3"
            )
            hours = (
                "(SELECT server_id, interface_name, bucket, sum(resets) AS resets, sum(rejected) AS rejected "
                f"FROM {of_links} GROUP BY 1, 2, 3) AS hours"
            )
            samples = "linked_samples($1, hour.bucket, hour.bucket + INTERVAL '1 hour', hour.interface_name)"
        which = await series_asked_for(database, linked, server, interface) if interface is not None else None
        if which is not None:
            arguments.append(which)
            where = f"AND interface_name = ${len(arguments)}"
            if end - first <= _GLITCHES_WITHIN:
                eventful = "true"
        if after is not None:
            moment, kind = cursor.read(after, tuple[Moment, Kind])
            arguments += [utc("after", moment), kind]
            position = f"AND (time, delta_kind) > (${len(arguments) - 1}, ${len(arguments)})"
        rows = await database.fetch(
            _EVENTS.format(hours=hours, samples=samples, eventful=eventful, where=where, after=position), *arguments
        )
        if not rows:
            await check_known(database, server)
        data = [TrafficEvent(*row) for row in rows[:limit]]
        following = cursor.write(data[-1].timestamp, data[-1].kind) if len(rows) > limit else None
        return TrafficEvents(server, first, end, data, following, linked.sums(which))

    return Router("/traffic", route_handlers=[events], tags=["traffic"])
