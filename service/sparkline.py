"""Sparklines: traffic per bucket of a period, read from one aggregate in one query.

The database answers with a row for each series and its buckets in arrays: a row for each bucket would cost several
times as much to carry and to unpack. The range of time stands in the statement, so that the plan that leaves out the
chunks outside it serves every series until the next bucket begins: planning would take longer than reading.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Annotated, Any, Literal, TypeVar

import asyncpg
import msgspec
from litestar import Request, Response, Router, get
from litestar.params import FromPath, QueryParameter

from service import cursor
from service.answers import NOT_MODIFIED, Answers, Form, beside, encode, keep_seconds
from service.database import Database
from service.listing import After, ServerNames, names_of, storable, unknown_server
from service.openapi import problems
from service.periods import PERIODS, Grid, grid

POINTS_AT_ONCE = 4_000  # made in the event loop: some milliseconds' work
PAGES_AT_ONCE = 2  # of the fleet's that are made, however many are asked for
MAX_POINTS = 50_000  # of a page of the fleet's: some five megabytes

_PERIODS = ", ".join(PERIODS)
PeriodName = Annotated[
    str, QueryParameter(description=f"How far back: one of {_PERIODS}.", schema_extra={"enum": list(PERIODS)})
]
InterfaceFilter = Annotated[str | None, QueryParameter(description="Only this interface.", max_length=255)]
Bucket = Annotated[
    str | None,
    QueryParameter(description="Bucket of the answer, such as 5m: a multiple of the period's own.", max_length=10),
]
# Not an optional Literal["null"]: the framework would read "null" as None.
Fill = Annotated[
    Literal["none", "null"],
    QueryParameter(description="`null`: the whole grid, with nulls where there are no samples. A gap is never 0."),
]


class Point(msgspec.Struct, frozen=True, gc=False):
    """Traffic of one bucket, [timestamp, timestamp + bucket_seconds): octets, and bits per second over the bucket."""

    timestamp: datetime
    rx_bytes: int | None
    tx_bytes: int | None
    rx_bps: float | None
    tx_bps: float | None


class Sparkline(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server's traffic, oldest bucket first; [] for an interface never seen.

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
    """One server's traffic, a series for each interface."""

    server_id: str
    metric: Literal["network"]
    period: str
    bucket_seconds: int
    series: list[Series]


class FleetSeries(msgspec.Struct, frozen=True):
    """One interface of one server."""

    server_id: str
    interface: str
    data: list[Point]


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
FLEET = """
WITH bucket AS ({buckets})
SELECT server_id, interface_name, {arrays} FROM bucket GROUP BY 1, 2 ORDER BY 1, 2
"""
_SERIES = {
    "one": "SELECT {arrays} FROM bucket",
    "each": "SELECT interface_name, {arrays} FROM bucket GROUP BY 1 ORDER BY 1",
    "sum": """
        SELECT {arrays}, (SELECT array_agg(DISTINCT interface_name) FROM bucket) AS interfaces FROM (
            SELECT start, sum(rx_bytes)::bigint AS rx_bytes, sum(tx_bytes)::bigint AS tx_bytes
            FROM bucket GROUP BY 1 ORDER BY 1) AS total
    """,
}
# The buckets' places in the grid, and what they hold; rates to the nearest tenth.
_ARRAYS = """
    array_agg(((date_part('epoch', start) - {first}) / {width})::integer) AS places,
    array_agg(rx_bytes) AS rx_bytes, array_agg(tx_bytes) AS tx_bytes,
    array_agg(round(rx_bytes * 80::double precision / {width}) / 10) AS rx_bps,
    array_agg(round(tx_bytes * 80::double precision / {width}) / 10) AS tx_bps
"""


_COLUMNS = ("rx_bytes", "tx_bytes", "rx_bps", "tx_bps")

P = TypeVar("P", bound=msgspec.Struct)


def router(database: Callable[[], Database], answers: Answers) -> Router:
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
        buckets = grid(period, bucket, now())
        servers = names_of(server)
        most = min(limit, max(MAX_POINTS // buckets.count, 1))
        at = cursor.read(after, tuple[str, str | None]) if after is not None else ("", "")

        async def read() -> bytes:
            async with pages:
                return await read_page()

        async def read_page() -> bytes:
            rows = await database().fetch(
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
            return await beside(encoded, found[:most], following)

        def encoded(rows: Sequence[asyncpg.Record], following: str | None) -> bytes:
            made = points(rows, buckets, fill, Point, _COLUMNS)
            # A series at a time: encoding all of them at once would hold the interpreter for as long.
            series = [
                msgspec.Raw(encode(FleetSeries(row["server_id"], row["interface_name"], data)))
                for row, data in zip(rows, made, strict=True)
            ]
            return encode(
                FleetSparkline("network", period, buckets.bucket_seconds, series, following)  # type: ignore[arg-type]
            )

        # Of the whole fleet, a heartbeat comes every moment: this answer is as old as the kept one may be.
        return await answers.get(
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
        buckets = grid(period, bucket, now())
        return await of_server(
            request, database, answers, server_id, interface, buckets, fill=fill, is_grouped=group_by is not None
        )

    return Router("/metrics/sparkline", route_handlers=[fleet, one_server], tags=["sparklines"])


async def of_server(
    request: Request[Any, Any, Any],
    database: Callable[[], Database],
    answers: Answers,
    server_id: str,
    interface: str | None,
    buckets: Grid,
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
        rows = await database().fetch(
            _ONE_SERVER.format(
                buckets=buckets_of(buckets, where if kind != "sum" else f"{where} AND is_lowest", "interface_name"),
                series=_SERIES[kind].format(arrays=arrays_of(buckets)),
            ),
            *arguments,
        )
        if not rows:
            raise unknown_server(server_id)
        if len(rows) * buckets.count > POINTS_AT_ONCE:
            return await beside(lambda: encode(made_of(rows)))
        return made_of(rows)

    def made_of(rows: list[asyncpg.Record]) -> Sparkline | GroupedSparkline:
        made = points(rows, buckets, fill, Point, _COLUMNS)
        period = buckets.period.name
        if is_grouped:
            series = [
                Series(row["interface_name"], data)
                for row, data in zip(rows, made, strict=True)
                if row["interface_name"] is not None
            ]
            return GroupedSparkline(server_id, "network", period, buckets.bucket_seconds, series)
        data = made[0]
        if interface is not None:
            return Sparkline(server_id, "network", interface, period, buckets.bucket_seconds, data)
        counted = sorted(rows[0]["interfaces"] or [])
        return Sparkline(server_id, "network", None, period, buckets.bucket_seconds, data, counted)

    return await answers.get(
        request, ("network", server_id, interface, is_grouped, buckets, fill), read,
        keep_seconds=keep_seconds(buckets.bucket_seconds), servers=[server_id], form=form,
    )  # fmt: skip


def now() -> datetime:
    """Where every period ends."""
    return datetime.now(UTC)


def buckets_of(buckets: Grid, where: str, series: str) -> str:
    """SQL for the buckets of the answer in the order of time; the aggregate's own, or several of them put together."""
    source = f"FROM {buckets.period.relation} WHERE {where} AND bucket >= TIMESTAMPTZ '{buckets.first.isoformat()}'"
    if buckets.bucket_seconds == buckets.period.base_seconds:
        return f"SELECT {series}, bucket AS start, rx_bytes, tx_bytes {source} ORDER BY bucket"
    return (
        f"SELECT {series}, time_bucket(INTERVAL '{buckets.bucket_seconds} seconds', bucket) AS start, "
        f"sum(rx_bytes)::bigint AS rx_bytes, sum(tx_bytes)::bigint AS tx_bytes {source} "
        f"GROUP BY {series}, start ORDER BY start"
    )


def arrays_of(buckets: Grid) -> str:
    """SQL for the columns of a series: where in the grid its buckets are, and an array of what they hold each."""
    return _ARRAYS.format(first=f"{buckets.first.timestamp():.0f}", width=buckets.bucket_seconds)


def points(
    series: Sequence[asyncpg.Record], buckets: Grid, fill: str, kind: type[P], columns: Sequence[str]
) -> list[list[P]]:
    """Of each series, its points. They are thousands: made and encoded without a line of Python for each.

    series   rows with `places`, where in the grid its buckets are, and an array of `columns` each
    kind     what a point is: made of its bucket's start and the columns
    """
    # The starts of all buckets once, those of clocks that run ahead among them.
    starts = buckets.starts(max((max(row["places"]) for row in series if row["places"]), default=0) + 1)
    made: list[list[P]] = []
    for row in series:
        places = row["places"] or []
        # An aggregate takes rows as they come: no database promises that a sort is kept.
        order = None if places == sorted(places) else sorted(range(len(places)), key=places.__getitem__)
        values: list[Sequence[Any]] = [row[column] or () for column in columns]
        if order is not None:
            values = [[one[index] for index in order] for one in values]
            places = sorted(places)
        found: list[P] = list(map(kind, map(starts.__getitem__, places), *values))
        if fill == "null":
            known = dict(zip(places, found, strict=True))
            found = [
                known.get(place) or kind(start, *repeat(None, len(columns)))
                for place, start in enumerate(starts[: buckets.count])
            ]
        made.append(found)
    return made
