"""Overview of the fleet: the data for a page with a row for each server, and its changes.

For each server it has the primary interface and the busiest others, SHOWN in total: five hundred servers are then some
tens of kilobytes on the wire. /servers/{server_id}/interfaces has all interfaces.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Request, Response, Router, get
from litestar.params import QueryParameter

from service.cache import Reader, beside, keep_seconds
from service.database.names import storable, wanted_tags
from service.database.pool import Database
from service.database.series_links import Sums
from service.fleet.changes import LATE, REMEMBERED, Live, Look
from service.fleet.listing import DEFAULT_INTERVAL_SECONDS, ONLINE, Status
from service.http.conditional import NOT_MODIFIED
from service.http.errors import Problem
from service.http.numbers import plain_json
from service.http.parameters import Limit, TagFilter
from service.http.problems import problems
from service.traffic.periods import Bucket, Grid, PeriodName, grid
from service.traffic.ranges import moment, read_moment
from service.traffic.series import filled, first_of, of_pairs, unpacked

SHOWN = 4
MAX_SERIES = 500

# Busiest by their counters since boot: ordered by rates, they would change places with every heartbeat.
_PLACES = f"""
    SELECT i.*, row_number() OVER (
               ORDER BY i.interface_name IS NOT DISTINCT FROM s.primary_interface DESC,
                        linkbeat.unsigned(i.rx_bytes) + linkbeat.unsigned(i.tx_bytes) DESC, i.interface_name) <= {SHOWN}
               AS is_shown
    FROM unnest(s.interfaces) i
    WHERE i.time = s.last_seen AND NOT i.is_folded
"""
_COLUMNS = f"""
    s.server_id AS id, s.hostname, CASE WHEN {ONLINE} THEN 'online' ELSE 'offline' END AS status,
    s.reported_status IS NOT DISTINCT FROM 'paused' AS paused, s.received_at,
    coalesce(s.interval_seconds, {DEFAULT_INTERVAL_SECONDS}) AS interval_seconds, s.primary_interface,
    i.interface_count, i.interfaces_down, i.interfaces::text, l.display_name,
    linkbeat.tags_of(l.tags, s.agent_report) AS tags
"""
_INTERFACES = f"""
CROSS JOIN LATERAL (
    SELECT count(*) AS interface_count, count(*) FILTER (WHERE NOT is_up) AS interfaces_down,
           coalesce(json_agg(json_build_object(
               'name', interface_name, 'is_up', is_up, 'kind', kind,
               'rx_bps', round(linkbeat.bps(rx_bytes_delta, elapsed_ms, delta_kind)),
               'tx_bps', round(linkbeat.bps(tx_bytes_delta, elapsed_ms, delta_kind)))) FILTER (WHERE is_shown), '[]')
               AS interfaces
    FROM (SELECT * FROM ({_PLACES}) p ORDER BY NOT is_shown, interface_name) i
) i
"""
# Without servers, a row with only the clock.
_PAGE = f"""
WITH page AS (
    SELECT {_COLUMNS} FROM servers s LEFT JOIN linkbeat.server_labels l USING (server_id) {_INTERFACES}
    WHERE s.server_id > $1 AND ($3::text[] IS NULL OR linkbeat.has_tags(linkbeat.tags_of(l.tags, s.agent_report), $3))
    ORDER BY s.server_id LIMIT $2
)
SELECT now() AS at, p.* FROM (SELECT) clock LEFT JOIN page p ON true ORDER BY p.id
"""
LOOK = f"""
WITH changed AS MATERIALIZED (
    -- Labels count as a change too: they come without a heartbeat.
    SELECT s.*, l.changed_at FROM servers s
    LEFT JOIN (SELECT server_id, changed_at FROM linkbeat.server_labels) l USING (server_id)
    WHERE greatest(s.received_at, l.changed_at) > coalesce($1::timestamptz, now() - $4::interval)
      AND NOT EXISTS (SELECT FROM unnest($2::text[], $3::timestamptz[]) AS k(server_id, changed_at)
                      WHERE (k.server_id, k.changed_at) = (s.server_id, greatest(s.received_at, l.changed_at)))
), found AS (
    SELECT {_COLUMNS}, greatest(s.received_at, s.changed_at) AS changed_at
    FROM changed s LEFT JOIN linkbeat.server_labels l USING (server_id) {_INTERFACES}
)
SELECT now() AS at, clock_timestamp() AS seen, f.* FROM (SELECT) clock LEFT JOIN found f ON true
"""
_OF_PEAKS = """
    bucket, server_id, interface_name, rx_bps_max, tx_bps_max, rx_errors, tx_errors, rx_dropped, tx_dropped
"""
_PEAKS = f"""
WITH page AS MATERIALIZED (
    SELECT s.server_id, s.last_seen, s.primary_interface, s.interfaces
    FROM servers s WHERE s.server_id > $1 ORDER BY s.server_id LIMIT $2
), shown AS (
    SELECT s.server_id, p.interface_name FROM page s CROSS JOIN LATERAL ({_PLACES}) p WHERE p.is_shown
), traffic AS (
    SELECT server_id, interface_name, max(rx_bps_max) AS rx_bps_max, max(tx_bps_max) AS tx_bps_max,
           coalesce(sum(rx_errors + tx_errors), 0)::bigint AS errors,
           coalesce(sum(rx_dropped + tx_dropped), 0)::bigint AS dropped
    FROM {{relation}}
    WHERE bucket >= TIMESTAMPTZ '{{first}}' AND server_id = ANY (ARRAY(SELECT server_id FROM page))
    GROUP BY 1, 2
)
SELECT server_id, interface_name AS interface, round(rx_bps_max)::float8 AS rx_bps_max,
       round(tx_bps_max)::float8 AS tx_bps_max, errors, dropped
FROM shown JOIN traffic USING (server_id, interface_name) ORDER BY 1, 2
"""


class FleetInterface(msgspec.Struct, frozen=True):
    """An interface in its server's newest heartbeat. `rx_bps`, `tx_bps`: current rates; null: unknown."""

    name: str
    is_up: bool
    kind: str | None
    rx_bps: float | None
    tx_bps: float | None


class FleetServer(msgspec.Struct, frozen=True):
    """A server with its primary interface and the busiest ones since boot, four in total, by name.

    status            online until three intervals have passed without a heartbeat
    received_at       when a heartbeat was last stored, by the database's clock
    interval_seconds  interval between heartbeats
    display_name      the name that an administrator gave the server; null: none
    tags              words and key=value pairs: those set for it, and the agent's own
    interface_count   interfaces with their own series; interfaces_down: those of them that are down
    """

    id: str
    hostname: str
    status: Status
    paused: bool
    received_at: datetime
    interval_seconds: float
    primary_interface: str | None
    interface_count: int
    interfaces_down: int
    interfaces: list[FleetInterface]
    display_name: str | None
    tags: list[str]


class Fleet(msgspec.Struct, frozen=True):
    """Servers by id, or those that changed after `since`.

    at        time by the database's clock, like `received_at`; send it as `since` to receive later changes
    next      send it as `after` to receive the next page; null at the end
    is_whole  nothing is missing; false: too much has changed since `since`, request everything again
    """

    at: datetime
    servers: list[FleetServer]
    next: str | None = None
    is_whole: bool = True


class Peak(msgspec.Struct, frozen=True):
    """Peaks and errors of an interface in the period.

    rx_bps_max, tx_bps_max  highest rate between two samples, in bits per second; null: unknown
    errors                  receive and transmit errors; `dropped`: packets dropped; 0 if not reported
    """

    server_id: str
    interface: str
    rx_bps_max: float | None
    tx_bps_max: float | None
    errors: int
    dropped: int


class FleetPeaks(msgspec.Struct, frozen=True):
    """Peaks of the interfaces that the fleet overview shows, if they have samples in the period."""

    period: str
    peaks: list[Peak]
    sums: Sums = msgspec.UNSET


class Columns(msgspec.Struct, frozen=True):
    """Rates of one interface, a number for each bucket, in bits per second; null without samples.

    bucket_seconds, first  of this series, if its server reports less often than the response's buckets
    """

    server_id: str
    interface: str
    rx_bps: list[int | None]
    tx_bps: list[int | None]
    bucket_seconds: int | msgspec.UnsetType = msgspec.UNSET
    first: datetime | msgspec.UnsetType = msgspec.UNSET


class FleetColumns(msgspec.Struct, frozen=True):
    """Sparklines without timestamps: the first bucket of each starts at `first`; the last one is not complete.

    Only requested interfaces with samples are included.
    """

    period: str
    bucket_seconds: int
    first: datetime
    series: list[Columns]
    sums: Sums = msgspec.UNSET


AfterServer = Annotated[str, QueryParameter(description="`next` of the previous page.", max_length=100)]
Since = Annotated[str | None, moment("`at` of the previous response: waits up to five seconds for later changes.")]
Names = Annotated[
    list[str] | None,
    QueryParameter(
        description=f"A server and one of its interfaces, such as nas/eth0; may be repeated up to {MAX_SERIES} times."
    ),
]


def live(database: Database) -> Live[FleetServer]:
    """The changes of the fleet, a context manager that runs with the service."""

    async def look(since: datetime | None, known: Mapping[str, datetime]) -> Look[FleetServer]:
        rows = await database.fetch(LOOK, since, list(known), list(known.values()), REMEMBERED + LATE)
        found = {row["id"]: (row["changed_at"], _server(row)) for row in rows if row["id"] is not None}
        return Look(rows[0]["at"], rows[0]["seen"], found)

    return Live(look)


def router(
    reader: Reader,
    sparklines: Database,
    changing: Live[FleetServer],
) -> Router:
    """GET /fleet, /fleet/peaks and /fleet/sparklines."""

    # By the primary: `at` is the cursor of what changes after it, and a replica's clock is ahead of what it has.
    @get("/", is_fresh=True, summary="The fleet at a glance", responses=problems(401, 422, 503) | NOT_MODIFIED)
    async def fleet(
        request: Request[Any, Any, Any], since: Since = None, tag: TagFilter = None, limit: Limit = 500,
        after: AfterServer = "",
    ) -> Response[Fleet]:  # fmt: skip
        """With `since`, a long poll: returns the changed servers of the whole fleet, whatever their tags, as soon as
        there are any."""
        tags = wanted_tags(tag)
        if since is not None:
            cursor = read_moment("since", since)
            found = await changing.changes(cursor)
            changed = Fleet(cursor, [], is_whole=False) if found is None else Fleet(*found)
            return Response(changed, headers={"Cache-Control": "no-store"})

        async def read() -> Fleet:
            # By the pool that keeps plans: there is no range of time to plan for, and planning takes a millisecond.
            rows = await sparklines.fetch(_PAGE, storable(after), limit + 1, tags or None)
            found = [_server(row) for row in rows if row["id"] is not None]
            return Fleet(rows[0]["at"], found[:limit], found[limit - 1].id if len(found) > limit else None)

        return await reader.answers.get(request, ("glance", limit, after, *tags), read, keep_seconds=1.0)

    @get("/peaks", summary="Peaks and errors of the fleet", responses=problems(401, 422, 503) | NOT_MODIFIED)
    async def peaks(
        request: Request[Any, Any, Any], period: PeriodName = "1h", limit: Limit = 500, after: AfterServer = ""
    ) -> Response[FleetPeaks]:
        buckets = grid(period, None, reader.clock.now())
        linked = await reader.links.of()

        async def read() -> FleetPeaks:
            relation = buckets.period.relation
            if linked:
                relation = linked.rows_of_all(
                    relation, _OF_PEAKS, servers="SELECT server_id FROM page", first=first_of(buckets)
                )
            sql = _PEAKS.format(relation=relation, first=buckets.first.isoformat())
            rows = await reader.database.fetch(sql, storable(after), limit)
            return FleetPeaks(period, [Peak(**row) for row in rows], linked.sums())

        keep = keep_seconds(buckets.bucket_seconds) + 4.0
        return await reader.answers.get(
            request, ("peaks", buckets, limit, after, *linked.mark), read, keep_seconds=keep
        )

    @get("/sparklines", summary="Sparklines in columns", responses=problems(401, 422, 503) | NOT_MODIFIED)
    async def columns(
        request: Request[Any, Any, Any], series: Names = None, period: PeriodName = "1h", bucket: Bucket = None
    ) -> Response[FleetColumns]:
        buckets = grid(period, bucket, reader.clock.now())
        pairs = sorted({_pair(one) for one in series or ()})
        if len(pairs) > MAX_SERIES:
            raise Problem.invalid("series", f"at most {MAX_SERIES} are answered at once, got {len(pairs)}")

        linked = await reader.links.of(*{server_id for server_id, _ in pairs})

        async def read() -> bytes:
            rows = await of_pairs(sparklines, buckets, pairs, linked)
            found = await filled(sparklines, buckets, rows, linked)
            return await beside(encoded, found)

        def encoded(found: Mapping[Grid, Sequence[asyncpg.Record]]) -> bytes:
            series = [
                Columns(
                    row["server_id"], row["interface_name"],
                    _on_grid(row, wide, "rx_bps"), _on_grid(row, wide, "tx_bps"),
                    msgspec.UNSET if wide is buckets else wide.bucket_seconds,
                    msgspec.UNSET if wide is buckets else wide.first,
                )
                for wide, rows in found.items() for row in rows
            ]  # fmt: skip
            series.sort(key=lambda one: (one.server_id, one.interface))
            return plain_json(FleetColumns(period, buckets.bucket_seconds, buckets.first, series, linked.sums()))

        return await reader.answers.get(
            request, ("columns", buckets, *pairs, *linked.mark), read,
            keep_seconds=keep_seconds(buckets.bucket_seconds), servers=sorted({server_id for server_id, _ in pairs}),
        )  # fmt: skip

    return Router("/fleet", route_handlers=[fleet, peaks, columns], tags=["fleet"])


def _server(row: asyncpg.Record) -> FleetServer:
    values = {name: row[name] for name in FleetServer.__struct_fields__}
    # Returned as the database has them.
    return FleetServer(**values | {"interfaces": msgspec.Raw(row["interfaces"].encode())})


def _pair(text: str) -> tuple[str, str]:
    """`nas/eth0` as server and interface: neither contains a slash."""
    server_id, _, interface = storable(text).partition("/")
    if not interface:
        raise Problem.invalid("series", f"expected a server and an interface such as nas/eth0, got {text!r}")
    return server_id, interface


def _on_grid(row: asyncpg.Record, buckets: Grid, name: str) -> list[int | None]:
    """The row's column on the whole grid. Buckets beyond its end, from a clock that is ahead, are left out."""
    values: list[int | None] = [None] * buckets.count
    for place, value in zip(*unpacked(row, "places", name), strict=True):
        if place < buckets.count:
            values[place] = round(value)
    return values
