"""Sparklines: traffic per bucket of a period, read from one aggregate in one query.

Where a server reports less often than the buckets are wide, a second query reads wider ones: what a heartbeat counted
does not say when in its interval it moved.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from litestar import Request, Response, Router, get
from litestar.params import FromPath, QueryParameter

from service.cache import Form, Reader, beside, keep_seconds
from service.database.names import names_of, storable, unknown_server
from service.http import cursor
from service.http.conditional import NOT_MODIFIED
from service.http.numbers import plain_json
from service.http.parameters import After, InterfaceFilter, ServerNames
from service.http.problems import problems
from service.traffic.periods import Bucket, Grid, PeriodName, grid
from service.traffic.series import Fill, arrays_of, buckets_of, filled, interval_seconds, points

POINTS_AT_ONCE = 4_000  # made in the event loop: some milliseconds' work
PAGES_AT_ONCE = 2  # of the fleet's that are made, however many are asked for
MAX_POINTS = 50_000  # of a page of the fleet's: some five megabytes


class Point(msgspec.Struct, frozen=True, gc=False):
    """Traffic of one bucket, [timestamp, timestamp + bucket_seconds).

    rx_bytes, tx_bytes  octets that the bucket's samples counted; behind a gap, all that crossed it
    rx_bps, tx_bps      bits per second over the bucket, or over the time that its samples cover; never more than the
                        highest rate between two samples
    """

    timestamp: datetime
    rx_bytes: int | None
    tx_bytes: int | None
    rx_bps: float | None
    tx_bps: float | None


class Sparkline(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server's traffic, oldest bucket first; [] for an interface never seen.

    bucket_seconds  width of a bucket; wider than asked for where the server reports less often than that
    interface   null: the sum over `interfaces`, those that have no other one below them: traffic that crosses a bond,
                a bridge or a tunnel is counted once
    """

    server_id: str
    metric: Literal["network"]
    interface: str | None
    period: str
    bucket_seconds: int
    data: list[Point]
    interfaces: list[str] | msgspec.UnsetType = msgspec.UNSET


class Series(msgspec.Struct, frozen=True):
    """One interface's traffic."""

    interface: str
    data: list[Point]


class GroupedSparkline(msgspec.Struct, frozen=True):
    """One server's traffic, a series for each interface; bucket_seconds as in Sparkline."""

    server_id: str
    metric: Literal["network"]
    period: str
    bucket_seconds: int
    series: list[Series]


class FleetSeries(msgspec.Struct, frozen=True):
    """One interface of one server.

    bucket_seconds  width of this series' buckets, where its server reports less often than the answer's buckets
    """

    server_id: str
    interface: str
    data: list[Point]
    bucket_seconds: int | msgspec.UnsetType = msgspec.UNSET


class FleetSparkline(msgspec.Struct, frozen=True):
    """Series of the fleet, or of the servers asked for, by server and interface; `next` continues after the last of
    them, null at the end. A page holds MAX_POINTS points at most, and fewer series where they have many."""

    metric: Literal["network"]
    period: str
    bucket_seconds: int
    series: list[FleetSeries]
    next: str | None


# The server is asked for in the same query: no row at all is an unknown server, one without buckets an empty answer.
_ONE_SERVER = """
WITH bucket AS ({buckets})
SELECT t.* FROM servers s LEFT JOIN LATERAL ({series}) t ON true WHERE s.server_id = $1
"""
# The servers that a page may be of, so that the aggregate is read for them alone. The page before ended at $1, $2; a
# null stands for all of that server.
_FLEET_PAGE = """
WITH page AS MATERIALIZED (
    SELECT server_id FROM servers
    WHERE server_id >= $1 AND (server_id > $1 OR $2::text IS NOT NULL) {named} ORDER BY server_id LIMIT $3
), bucket AS ({buckets})
SELECT p.servers, p.last_server, f.*
FROM (SELECT count(*) AS servers, max(server_id) AS last_server FROM page) p LEFT JOIN (
    SELECT server_id, interface_name, {arrays} FROM bucket GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $3 + 1
) f ON true
ORDER BY server_id, interface_name
"""
_IN_PAGE = """
server_id = ANY (ARRAY(SELECT server_id FROM page)) AND (server_id > $1 OR interface_name > $2)
"""
_SERIES = {
    "one": "SELECT {arrays} FROM bucket",
    "each": "SELECT interface_name, {arrays} FROM bucket GROUP BY 1 ORDER BY 1",
    "sum": """
        SELECT {arrays}, (SELECT array_agg(DISTINCT interface_name) FROM bucket) AS interfaces FROM (
            SELECT start, sum(rx_bytes)::bigint AS rx_bytes, sum(tx_bytes)::bigint AS tx_bytes,
                   sum(rx_bps) AS rx_bps, sum(tx_bps) AS tx_bps, max(interval_ms) AS interval_ms
            FROM bucket GROUP BY 1 ORDER BY 1) AS total
    """,
}

_COLUMNS = ("rx_bytes", "tx_bytes", "rx_bps", "tx_bps")


def router(reader: Reader) -> Router:
    """GET /metrics/sparkline/network and /metrics/sparkline/{server_id}/network."""
    pages = asyncio.Semaphore(PAGES_AT_ONCE)

    @get("/network", summary="Network sparklines of the fleet", responses=problems(401, 422, 503) | NOT_MODIFIED)
    async def fleet(
        request: Request[Any, Any, Any],
        period: PeriodName = "1h",
        server: ServerNames = None,
        bucket: Bucket = None,
        fill: Fill = "none",
        limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Series a page.")] = 1000,
        after: After = None,
    ) -> Response[FleetSparkline]:
        buckets = grid(period, bucket, reader.clock.now())
        servers = names_of(server)
        most = min(limit, max(MAX_POINTS // buckets.count, 1))
        at = cursor.read(after, tuple[str, str | None]) if after is not None else ("", "")

        async def read() -> bytes:
            async with pages:
                return await read_page()

        async def read_page() -> bytes:
            rows = await reader.database.fetch(
                _FLEET_PAGE.format(
                    named="AND server_id = ANY ($4)" if servers else "",
                    buckets=buckets_of(buckets, _IN_PAGE, "server_id, interface_name"),
                    arrays=arrays_of(buckets),
                ),
                storable(at[0]), None if at[1] is None else storable(at[1]), most, *([servers] if servers else ()),
            )  # fmt: skip
            found = [row for row in rows if row["server_id"] is not None]
            following = None
            if len(found) > most:
                following = cursor.write(found[most - 1]["server_id"], found[most - 1]["interface_name"])
            elif rows[0]["servers"] == most:
                following = cursor.write(rows[0]["last_server"], None)
            return await beside(encoded, await filled(reader.database, buckets, found[:most]), following)

        def encoded(found: Mapping[Grid, Sequence[asyncpg.Record]], following: str | None) -> bytes:
            # A series at a time: encoding all of them at once would hold the interpreter for as long.
            made = [
                (row["server_id"], row["interface_name"], plain_json(FleetSeries(
                    row["server_id"], row["interface_name"], data,
                    msgspec.UNSET if wide is buckets else wide.bucket_seconds,
                )))
                for wide, rows in found.items()
                for row, data in zip(rows, points(rows, wide, fill, Point, _COLUMNS), strict=True)
            ]  # fmt: skip
            series = [msgspec.Raw(one) for *_, one in sorted(made)]
            return msgspec.json.encode(
                FleetSparkline("network", period, buckets.bucket_seconds, series, following)  # type: ignore[arg-type]
            )

        # Of the whole fleet, a heartbeat comes every moment: this answer is as old as the kept one may be.
        return await reader.answers.get(
            request, ("fleet", servers, buckets, fill, most, at), read,
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
            Literal["interface"] | None, QueryParameter(description="`interface`: a series for each.")
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
    """One server's traffic: Sparkline or GroupedSparkline, or the form of that. Raises Problem (404, 503)."""

    async def read() -> msgspec.Struct | bytes:
        where = "server_id = $1"
        arguments = [storable(server_id)]
        if interface is not None:
            where += " AND interface_name = $2"
            arguments.append(storable(interface))
        kind = "each" if is_grouped else "one" if interface is not None else "sum"
        if kind == "sum":
            where += " AND is_lowest"

        async def rows_of(shown: Grid) -> Sequence[asyncpg.Record]:
            statement = _ONE_SERVER.format(
                buckets=buckets_of(shown, where, "interface_name"), series=_SERIES[kind].format(arrays=arrays_of(shown))
            )
            return await reader.database.fetch(statement, *arguments)

        rows, shown = await rows_of(asked), asked
        if not rows:
            raise unknown_server(server_id)
        if (wide := asked.filled_by(interval_seconds(rows))) is not asked:
            rows, shown = await rows_of(wide), wide
        if len(rows) * shown.count > POINTS_AT_ONCE:
            return await beside(lambda: plain_json(made_of(rows, shown)))
        return made_of(rows, shown)

    def made_of(rows: Sequence[asyncpg.Record], shown: Grid) -> Sparkline | GroupedSparkline:
        made = points(rows, shown, fill, Point, _COLUMNS)
        period = asked.period.name
        if is_grouped:
            series = [
                Series(row["interface_name"], data)
                for row, data in zip(rows, made, strict=True)
                if row["interface_name"] is not None
            ]
            return GroupedSparkline(server_id, "network", period, shown.bucket_seconds, series)
        data = made[0]
        if interface is not None:
            return Sparkline(server_id, "network", interface, period, shown.bucket_seconds, data)
        counted = sorted(rows[0]["interfaces"] or [])
        return Sparkline(server_id, "network", None, period, shown.bucket_seconds, data, counted)

    return await reader.answers.get(
        request, ("network", server_id, interface, is_grouped, asked, fill), read,
        keep_seconds=keep_seconds(asked.bucket_seconds), servers=[server_id], form=form,
    )  # fmt: skip
