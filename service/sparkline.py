"""Sparklines: traffic per bucket of a period, read from one aggregate in one query."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from service.database import Database
from service.openapi import problems
from service.periods import PERIODS, Grid, grid
from service.servers import storable, unknown_server

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


class Point(msgspec.Struct, frozen=True):
    """Traffic of one bucket, [timestamp, timestamp + bucket_seconds): octets, and bits per second over the bucket."""

    timestamp: datetime
    rx_bytes: int | None
    tx_bytes: int | None
    rx_bps: float | None
    tx_bps: float | None


class Sparkline(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server's traffic, oldest bucket first; [] for an interface never seen.

    interface   null: the sum over `interfaces`
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
    """Every series of the fleet, or of the servers asked for, by server and interface."""

    metric: Literal["network"]
    period: str
    bucket_seconds: int
    series: list[FleetSeries]


# The server is asked for in the same query: no row at all is an unknown server, one without a bucket an empty answer.
_ONE_SERVER = """
SELECT t.*
FROM servers s
LEFT JOIN LATERAL (
    SELECT {columns}, sum(a.rx_bytes)::bigint AS rx_bytes, sum(a.tx_bytes)::bigint AS tx_bytes {more}
    FROM {relation} a
    WHERE a.server_id = $1 AND a.bucket >= $2 {where}
    GROUP BY {group}
    ORDER BY {group}
) t ON true
WHERE s.server_id = $1
"""
_FLEET = """
SELECT server_id, interface_name, {bucket} AS bucket,
       sum(rx_bytes)::bigint AS rx_bytes, sum(tx_bytes)::bigint AS tx_bytes
FROM {relation}
WHERE bucket >= $1 {where}
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
"""


def router(database: Callable[[], Database]) -> Router:
    """GET /metrics/sparkline/network and /metrics/sparkline/{server_id}/network."""

    @get("/network", summary="Network sparklines of the fleet", responses=problems(401, 422, 503))
    async def fleet(
        period: PeriodName = "1h",
        server: Annotated[list[str] | None, QueryParameter(description="Only these servers; may be repeated.")] = None,
        bucket: Bucket = None,
        fill: Fill = "none",
    ) -> FleetSparkline:
        buckets = grid(period, bucket, now())
        arguments: list[Any] = [buckets.first]
        if server:
            arguments.append([storable(one) for one in server])
        rows = await database().fetch(
            _FLEET.format(
                bucket=_bucket(buckets), relation=buckets.period.relation,
                where="AND server_id = ANY ($2)" if server else "",
            ),
            *arguments,
        )  # fmt: skip
        series = [
            FleetSeries(server_id, interface, _points(list(group), buckets, fill))
            for (server_id, interface), group in groupby(rows, lambda row: (row["server_id"], row["interface_name"]))
        ]
        return FleetSparkline("network", period, buckets.bucket_seconds, series)

    @get("/{server_id:str}/network", summary="Network sparkline of one server", responses=problems(401, 404, 422, 503))
    async def one_server(
        server_id: FromPath[str],
        period: PeriodName = "1h",
        interface: InterfaceFilter = None,
        group_by: Annotated[
            Literal["interface"] | None, QueryParameter(description="`interface`: a series for each.")
        ] = None,
        bucket: Bucket = None,
        fill: Fill = "none",
    ) -> Sparkline | GroupedSparkline:
        buckets = grid(period, bucket, now())
        arguments: list[Any] = [storable(server_id), buckets.first]
        where = ""
        if interface is not None:
            arguments.append(storable(interface))
            where = "AND a.interface_name = $3"
        columns, more, group = f"{_bucket(buckets, 'a.bucket')} AS bucket", "", "1"
        if group_by is not None:
            columns, group = f"a.interface_name, {columns}", "1, 2"
        elif interface is None:
            more = ", array_agg(DISTINCT a.interface_name) AS interfaces"
        rows = await database().fetch(
            _ONE_SERVER.format(columns=columns, more=more, relation=buckets.period.relation, where=where, group=group),
            *arguments,
        )
        if not rows:
            raise unknown_server(server_id)
        rows = [row for row in rows if row["bucket"] is not None]
        if group_by is not None:
            series = [
                Series(name, _points(list(group), buckets, fill))
                for name, group in groupby(rows, lambda row: row["interface_name"])
            ]
            return GroupedSparkline(server_id, "network", period, buckets.bucket_seconds, series)
        data = _points(rows, buckets, fill)
        if interface is not None:
            return Sparkline(server_id, "network", interface, period, buckets.bucket_seconds, data)
        counted = sorted({name for row in rows for name in row["interfaces"]})
        return Sparkline(server_id, "network", None, period, buckets.bucket_seconds, data, counted)

    return Router("/metrics/sparkline", route_handlers=[fleet, one_server], tags=["sparklines"])


def now() -> datetime:
    """Where every period ends."""
    return datetime.now(UTC)


def _bucket(buckets: Grid, column: str = "bucket") -> str:
    """The bucket of the answer. Its width stands in the statement: as a parameter it would keep chunks in the plan."""
    return f"time_bucket(INTERVAL '{buckets.bucket_seconds} seconds', {column})"


def _points(rows: list[asyncpg.Record], buckets: Grid, fill: str) -> list[Point]:
    width = buckets.bucket_seconds
    points = [
        Point(start, rx, tx, round(rx * 8 / width, 1), round(tx * 8 / width, 1))
        for start, rx, tx in ((row["bucket"], row["rx_bytes"], row["tx_bytes"]) for row in rows)
    ]
    if fill == "none":
        return points
    known = {point.timestamp: point for point in points}
    return [known.get(start) or Point(start, None, None, None, None) for start in buckets.starts()]
