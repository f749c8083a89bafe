"""Sparklines: traffic per bucket of a period, read from one aggregate in one query.

If a server's interval is longer than the buckets, a second query reads wider ones, because a heartbeat does not show
when within its interval the traffic moved.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from litestar import Request, Response, Router, get
from litestar.params import FromPath, QueryParameter

from service.cache import Form, Reader, beside, keep_seconds
from service.database.names import names_of, series_called, storable, unknown_server, wanted_tags
from service.database.series_links import Sums
from service.http import cursor
from service.http.conditional import NOT_MODIFIED
from service.http.numbers import plain_json
from service.http.parameters import After, InterfaceFilter, ServerNames, TagFilter
from service.http.problems import problems
from service.traffic.periods import Bucket, Grid, PeriodName, grid
from service.traffic.series import (
    COLUMNS,
    Fill,
    buckets_of,
    filled,
    first_of,
    interval_seconds,
    packed,
    points,
    unpacked,
)

POINTS_AT_ONCE = 4_000  # encoded in the event loop: a few milliseconds' work
PAGES_AT_ONCE = 2  # pages of the fleet that are read at the same time
MAX_POINTS = 50_000  # of a page of the fleet: about five megabytes


class Point(msgspec.Struct, frozen=True, gc=False):
    """Traffic of one bucket, [timestamp, timestamp + bucket_seconds).

    rx_bytes, tx_bytes  sum of the octets of the bucket's samples; after a gap, including all traffic of the gap
    rx_bps, tx_bps      bits per second over the bucket, or over the time that its samples cover; never above the
    highest
                        rate between two samples
    """

    timestamp: datetime
    rx_bytes: int | None
    tx_bytes: int | None
    rx_bps: float | None
    tx_bps: float | None


class Sparkline(msgspec.Struct, frozen=True, omit_defaults=True):
    """Traffic of one server, oldest bucket first; [] for an interface that was never reported.

    bucket_seconds  width of a bucket; wider than requested if the server reports less often than that
    interface       null: the sum over `interfaces`, the lowest ones, so that traffic that crosses a bond, a bridge or a
                    tunnel is counted once
    sums            interfaces that links add up, also where both have samples at the same time; absent: none
    """

    server_id: str
    metric: Literal["network"]
    interface: str | None
    period: str
    bucket_seconds: int
    data: list[Point]
    interfaces: list[str] | msgspec.UnsetType = msgspec.UNSET
    sums: Sums = msgspec.UNSET


class Series(msgspec.Struct, frozen=True):
    """Traffic of one interface."""

    interface: str
    data: list[Point]


class GroupedSparkline(msgspec.Struct, frozen=True):
    """Traffic of one server, with a series for each interface; bucket_seconds and sums as in Sparkline."""

    server_id: str
    metric: Literal["network"]
    period: str
    bucket_seconds: int
    series: list[Series]
    sums: Sums = msgspec.UNSET


class FleetSeries(msgspec.Struct, frozen=True):
    """Traffic of one interface of one server.

    bucket_seconds  width of the buckets of this series, if its server reports less often than the response's buckets
    """

    server_id: str
    interface: str
    data: list[Point]
    bucket_seconds: int | msgspec.UnsetType = msgspec.UNSET


class FleetSparkline(msgspec.Struct, frozen=True):
    """Series of the fleet, or of the requested servers, by server and interface; `next` continues after the last one,
    null at the end. A page has at most MAX_POINTS points, and therefore fewer series if they have many. `sums` as in
    Sparkline."""

    metric: Literal["network"]
    period: str
    bucket_seconds: int
    series: list[FleetSeries]
    next: str | None
    sums: Sums = msgspec.UNSET


# The query includes the server: no row means an unknown server; a row without buckets, an empty response.
_ONE_SERVER = """
WITH bucket AS ({buckets})
SELECT t.* FROM servers s LEFT JOIN LATERAL ({series}) t ON true WHERE s.server_id = $1
"""
# The servers of a page, so that the aggregate is read only for them. The previous page ended at $1, $2; null: after all
# series of that server.
_FLEET_PAGE = """
WITH page AS MATERIALIZED (
    SELECT server_id FROM servers
    WHERE server_id >= $1 AND (server_id > $1 OR $2::text IS NOT NULL) {named} ORDER BY server_id LIMIT $3
), bucket AS ({buckets}), series AS MATERIALIZED (
    -- Apart, because PostgreSQL would sort all buckets by series in order to sort the series.
    SELECT server_id, interface_name, {columns} FROM bucket GROUP BY 1, 2
)
SELECT p.servers, p.last_server, f.*
FROM (SELECT count(*) AS servers, max(server_id) AS last_server FROM page) p
LEFT JOIN (
    SELECT * FROM series WHERE server_id IN (SELECT server_id FROM page) ORDER BY 1, 2 LIMIT $3 + 1
) f ON true
ORDER BY server_id, interface_name
"""
# Within coalesce, OR does not become two scans of an index, each of nearly all rows of these servers.
_IN_PAGE = """
server_id = ANY (ARRAY(SELECT server_id FROM page)) AND coalesce(server_id > $1 OR interface_name > $2, false)
"""
# Where the page has the whole fleet, buckets are found by time alone: by server, PostgreSQL would read all minutes of a
# day in the index in order to find those of the last hour.
_WHOLE = "true"
_NAMED = "AND server_id = ANY ($4)"
_TAGGED = " AND linkbeat.is_tagged(server_id, ${place}::text[])"
_SERIES = {
    "one": "SELECT {columns} FROM bucket",
    "each": "SELECT interface_name, {columns} FROM bucket GROUP BY 1 ORDER BY 1",
    "sum": """
        SELECT {columns}, (SELECT array_agg(DISTINCT interface_name) FROM bucket) AS interfaces FROM (
            SELECT start, sum(rx_bytes)::bigint AS rx_bytes, sum(tx_bytes)::bigint AS tx_bytes,
                   sum(rx_bps) AS rx_bps, sum(tx_bps) AS tx_bps, max(interval_ms) AS interval_ms
            FROM bucket GROUP BY 1 ORDER BY 1) AS total
    """,
}

_COLUMNS = ("places", "rx_bytes", "tx_bytes", "rx_bps", "tx_bps")


def router(reader: Reader) -> Router:
    """GET /metrics/sparkline/network and /metrics/sparkline/{server_id}/network."""
    pages = asyncio.Semaphore(PAGES_AT_ONCE)
    # Servers of the fleet, if the last page without a filter had all of them. Where it is wrong, a page costs more.
    size: int | None = None

    @get("/network", summary="Network sparklines of the fleet", responses=problems(401, 422, 503) | NOT_MODIFIED)
    async def fleet(
        request: Request[Any, Any, Any],
        period: PeriodName = "1h",
        server: ServerNames = None,
        tag: TagFilter = None,
        bucket: Bucket = None,
        fill: Fill = "none",
        limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Maximum number of series per page.")] = 1000,
        after: After = None,
    ) -> Response[FleetSparkline]:
        buckets = grid(period, bucket, reader.clock.now())
        servers, tags = names_of(server), wanted_tags(tag)
        most = min(limit, max(MAX_POINTS // buckets.count, 1))
        at = cursor.read(after, tuple[str, str | None]) if after is not None else ("", "")
        linked = await reader.links.of(*servers)

        async def read() -> bytes:
            async with pages:
                return await read_page()

        async def read_page() -> bytes:
            nonlocal size
            is_first = after is None and not servers and not tags
            where = _WHOLE if is_first and size is not None and size < most else _IN_PAGE
            of_page = linked.rows_of_all(
                buckets.period.relation, ", ".join(("bucket", "server_id", "interface_name", *COLUMNS)),
                servers="SELECT server_id FROM page", first=first_of(buckets),
            ) if linked else None  # fmt: skip
            rows = await reader.database.fetch(
                _FLEET_PAGE.format(
                    named=(_NAMED if servers else "") + (_TAGGED.format(place=5 if servers else 4) if tags else ""),
                    buckets=buckets_of(buckets, where, "server_id, interface_name", of_page),
                    columns=packed(buckets),
                ),
                storable(at[0]), None if at[1] is None else storable(at[1]), most, *([servers] if servers else ()),
                *([tags] if tags else ()),
            )  # fmt: skip
            counted = rows[0]["servers"]
            if is_first and (counted < most or (size is not None and counted > size)):
                size = counted if counted < most else None
            found = [row for row in rows if row["server_id"] is not None]
            following = None
            if len(found) > most:
                following = cursor.write(found[most - 1]["server_id"], found[most - 1]["interface_name"])
            elif counted == most:
                following = cursor.write(rows[0]["last_server"], None)
            return await beside(encoded, await filled(reader.database, buckets, found[:most], linked), following)

        def encoded(found: Mapping[Grid, Sequence[asyncpg.Record]], following: str | None) -> bytes:
            # Series by series: encoding all of them in one call would block the interpreter.
            made = [
                (row["server_id"], row["interface_name"], plain_json(FleetSeries(
                    row["server_id"], row["interface_name"], data,
                    msgspec.UNSET if wide is buckets else wide.bucket_seconds,
                )))
                for wide, rows in found.items()
                for row, data in zip(rows, _points(rows, wide, fill), strict=True)
            ]  # fmt: skip
            series = [msgspec.Raw(one) for *_, one in sorted(made)]
            return msgspec.json.encode(
                FleetSparkline("network", period, buckets.bucket_seconds, series, following, linked.sums())  # type: ignore[arg-type]
            )

        # Some server of the fleet reports at any moment, so this response is cached for its whole time.
        return await reader.answers.get(
            request, ("fleet", servers, buckets, fill, most, at, *tags, *linked.mark), read,
            keep_seconds=keep_seconds(buckets.bucket_seconds), servers=servers,
        )  # fmt: skip

    @get(
        "/{server_id:str}/network",
        summary="Network sparkline of one server",
        responses=problems(401, 404, 422, 503) | NOT_MODIFIED,
    )
    async def one_server(
        request: Request[Any, Any, Any],
        server_id: FromPath[str],
        period: PeriodName = "1h",
        interface: InterfaceFilter = None,
        group_by: Annotated[
            Literal["interface"] | None, QueryParameter(description="`interface`: a series for each interface.")
        ] = None,
        bucket: Bucket = None,
        fill: Fill = "none",
    ) -> Response[Sparkline | GroupedSparkline]:
        buckets = grid(period, bucket, reader.clock.now())
        return await of_server(
            request, reader, server_id, interface, buckets, fill=fill, is_grouped=group_by is not None
        )

    return Router("/metrics/sparkline", route_handlers=[fleet, one_server], tags=["sparklines"])


async def of_server(
    request: Request[Any, Any, Any],
    reader: Reader,
    server_id: str,
    interface: str | None,
    asked: Grid,
    *,
    fill: str = "none",
    is_grouped: bool = False,
    form: Form | None = None,
) -> Response[Any]:
    """Traffic of one server as Sparkline or GroupedSparkline, or as `form` of that. Raises Problem (404, 503)."""
    linked = await reader.links.of(server_id)

    async def read() -> msgspec.Struct | bytes:
        where = "server_id = $1"
        arguments = [storable(server_id)]
        if interface is not None:
            where += " AND interface_name = $2"
            arguments.append(linked.series(storable(interface)))
        kind = "each" if is_grouped else "one" if interface is not None else "sum"
        if kind == "sum":
            where += " AND is_lowest"

        async def rows_of(shown: Grid) -> Sequence[asyncpg.Record]:
            of_links = linked.rows(
                shown.period.relation, servers="ARRAY[$1]", interface="NULL" if interface is None else "$2",
                first=first_of(shown),
            ) if linked else None  # fmt: skip
            return await reader.database.fetch(_statement(kind, where, shown, of_links), *arguments)

        rows, shown = await rows_of(asked), asked
        if not rows:
            raise unknown_server(server_id)
        if (
            kind == "one"
            and not rows[0]["places"]
            and (series := await series_called(reader.database, server_id, arguments[1]))
        ):
            arguments[1] = series
            rows = await rows_of(asked)
        if (wide := asked.filled_by(interval_seconds(rows))) is not asked:
            rows, shown = await rows_of(wide), wide
        if len(rows) * shown.count > POINTS_AT_ONCE:
            return await beside(lambda: plain_json(made_of(rows, shown)))
        return made_of(rows, shown)

    def made_of(rows: Sequence[asyncpg.Record], shown: Grid) -> Sparkline | GroupedSparkline:
        made = _points(rows, shown, fill)
        period = asked.period.name
        if is_grouped:
            series = [
                Series(row["interface_name"], data)
                for row, data in zip(rows, made, strict=True)
                if row["interface_name"] is not None
            ]
            return GroupedSparkline(server_id, "network", period, shown.bucket_seconds, series, linked.sums())
        data = made[0]
        if interface is not None:
            sums = linked.sums(linked.series(interface))
            return Sparkline(server_id, "network", interface, period, shown.bucket_seconds, data, sums=sums)
        counted = sorted(rows[0]["interfaces"] or [])
        return Sparkline(server_id, "network", None, period, shown.bucket_seconds, data, counted, linked.sums())

    return await reader.answers.get(
        request, ("network", server_id, interface, is_grouped, asked, fill, *linked.mark), read,
        keep_seconds=keep_seconds(asked.bucket_seconds), servers=[server_id], form=form,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _statement(kind: str, where: str, buckets: Grid, rows: str | None) -> str:
    return _ONE_SERVER.format(
        # A sum of rates depends on the order in which they are added up, in its last digit.
        buckets=buckets_of(buckets, where, "interface_name", rows, is_ordered=kind == "sum"),
        series=_SERIES[kind].format(columns=packed(buckets)),
    )


def _points(rows: Sequence[asyncpg.Record], buckets: Grid, fill: str) -> list[list[Point]]:
    return points((unpacked(row, *_COLUMNS) for row in rows), buckets, fill, Point)
