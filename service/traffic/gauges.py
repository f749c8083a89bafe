"""Sparklines of host metrics: processor, memory, disk, load, temperature, and each filesystem."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from service.cache import Form, Reader, keep_seconds
from service.database.names import storable, unknown_server
from service.database.pool import Database
from service.http.conditional import NOT_MODIFIED
from service.http.problems import problems
from service.traffic.periods import Bucket, Grid, PeriodName, grid
from service.traffic.series import Fill, P, points

HostMetric = Literal["cpu", "memory", "disk", "load", "temperature"]
Unit = Literal["percent", "processes", "celsius"]


class GaugePoint(msgspec.Struct, frozen=True, gc=False):
    """Minimum, maximum and mean of the samples in [timestamp, timestamp + bucket_seconds)."""

    timestamp: datetime
    min: float | None
    max: float | None
    avg: float | None


class GaugeSparkline(msgspec.Struct, frozen=True):
    """A host metric, oldest bucket first; [] if it was not reported.

    bucket_seconds  width of a bucket; wider than requested if the server reports less often than that
    unit            percent; for the load, processes that ran or waited, averaged over a minute; for the temperature,
                    degrees Celsius of the hottest sensor
    """

    server_id: str
    metric: HostMetric
    unit: Unit
    period: str
    bucket_seconds: int
    data: list[GaugePoint]


class FilesystemPoint(msgspec.Struct, frozen=True, gc=False):
    """Use of a filesystem in [timestamp, timestamp + bucket_seconds), in percent as shown by df.

    used_bytes, total_bytes   maximum in the bucket
    """

    timestamp: datetime
    min: float | None
    max: float | None
    avg: float | None
    used_bytes: int | None
    total_bytes: int | None


class FilesystemSparkline(msgspec.Struct, frozen=True):
    """Use of one filesystem, oldest bucket first; [] for a mount point that was never reported."""

    server_id: str
    metric: Literal["filesystem"]
    unit: Literal["percent"]
    mount_point: str
    period: str
    bucket_seconds: int
    data: list[FilesystemPoint]


MountPoint = Annotated[
    str,
    QueryParameter(description="The mount point, such as `/`.", min_length=1, max_length=4096),
]

# The column that is aggregated, and its unit.
_HOST_METRICS: dict[HostMetric, tuple[str, Unit]] = {
    "cpu": ("cpu_percent", "percent"),
    "memory": ("memory_percent", "percent"),
    "disk": ("disk_percent", "percent"),
    "load": ("load_1m", "processes"),
    "temperature": ("temperature_celsius", "celsius"),
}
_COLUMNS = ("min", "max", "avg")
_FILESYSTEM_COLUMNS = (*_COLUMNS, "used_bytes", "total_bytes")
# Aggregates store sums and counts, so the mean is that of all samples, not a mean of means. A bucket without values is
# a gap. The range is a literal in the statement, as for the network (service/traffic/sparkline.py).
_READ = """
WITH bucket AS (
    SELECT ((date_part('epoch', time_bucket(INTERVAL '{width} seconds', bucket, TIMESTAMPTZ '{since}')) - {first})
                / {width})::integer AS place,
           min({column}_min) AS min, max({column}_max) AS max,
           round(sum({column}_sum) / sum({column}_count), 3)::double precision AS avg {more}
    FROM {relation} WHERE server_id = $1 {where} AND bucket >= TIMESTAMPTZ '{since}'
    GROUP BY 1 HAVING sum({column}_count) > 0 ORDER BY 1)
SELECT t.*, s.interval_seconds FROM servers s LEFT JOIN LATERAL (
    SELECT array_agg(place) AS places, {arrays} FROM bucket) t ON true
WHERE s.server_id = $1
"""
_SIZES = ", max(used_bytes_max) AS used_bytes, max(total_bytes_max) AS total_bytes"


def router(reader: Reader) -> Router:
    """GET /metrics/sparkline/{server_id}/cpu, /memory, /disk, /load, /temperature and /filesystem."""

    def host(metric: HostMetric) -> HTTPRouteHandler:
        @get(
            f"/{{server_id:str}}/{metric}",
            summary=f"Sparkline of a server's {metric}",
            operation_id=f"Sparkline{metric.title()}",
            responses=problems(401, 404, 422, 503) | NOT_MODIFIED,
        )
        async def read_host(
            request: Request[Any, Any, Any],
            server_id: FromPath[str],
            period: PeriodName = "1h",
            bucket: Bucket = None,
            fill: Fill = "none",
        ) -> Response[GaugeSparkline]:
            buckets = grid(period, bucket, reader.clock.now())
            return await of_host(request, reader, metric, server_id, buckets, fill=fill)

        return read_host

    @get(
        "/{server_id:str}/filesystem",
        summary="Sparkline of a server's filesystem",
        operation_id="SparklineFilesystem",
        responses=problems(401, 404, 422, 503) | NOT_MODIFIED,
    )
    async def filesystem(
        request: Request[Any, Any, Any],
        server_id: FromPath[str],
        mount_point: MountPoint,
        period: PeriodName = "1h",
        bucket: Bucket = None,
        fill: Fill = "none",
    ) -> Response[FilesystemSparkline]:
        buckets = grid(period, bucket, reader.clock.now())
        return await of_filesystem(request, reader, server_id, mount_point, buckets, fill=fill)

    return Router(
        "/metrics/sparkline",
        route_handlers=[*map(host, _HOST_METRICS), filesystem],
        tags=["sparklines"],
    )


async def of_host(
    request: Request[Any, Any, Any],
    reader: Reader,
    metric: HostMetric,
    server_id: str,
    buckets: Grid,
    *,
    fill: str = "none",
    form: Form | None = None,
) -> Response[Any]:
    """The metric as GaugeSparkline, or as `form` of that. Raises Problem (404, 503)."""

    column, unit = _HOST_METRICS[metric]

    async def read() -> GaugeSparkline:
        def statement(shown: Grid) -> str:
            return _statement("server_metrics", column, shown, _COLUMNS)

        shown, data = await _points(reader.database, statement, [server_id], buckets, fill, GaugePoint, _COLUMNS)
        return GaugeSparkline(server_id, metric, unit, shown.period.name, shown.bucket_seconds, data)

    return await reader.answers.get(
        request, (metric, server_id, buckets, fill), read,
        keep_seconds=keep_seconds(buckets.bucket_seconds), servers=[server_id], form=form,
    )  # fmt: skip


async def of_filesystem(
    request: Request[Any, Any, Any],
    reader: Reader,
    server_id: str,
    mount_point: str,
    buckets: Grid,
    *,
    fill: str = "none",
    form: Form | None = None,
) -> Response[Any]:
    """The filesystem as FilesystemSparkline, or as `form` of that. Raises Problem (404, 503)."""

    async def read() -> FilesystemSparkline:
        def statement(shown: Grid) -> str:
            return _statement(
                "filesystem_metrics", "percent", shown, _FILESYSTEM_COLUMNS, _SIZES, "AND mount_point = $2"
            )

        shown, data = await _points(
            reader.database, statement, [server_id, mount_point], buckets, fill, FilesystemPoint, _FILESYSTEM_COLUMNS
        )
        return FilesystemSparkline(
            server_id, "filesystem", "percent", mount_point, shown.period.name, shown.bucket_seconds, data
        )

    return await reader.answers.get(
        request, ("filesystem", server_id, mount_point, buckets, fill), read,
        keep_seconds=keep_seconds(buckets.bucket_seconds), servers=[server_id], form=form,
    )  # fmt: skip


async def _points(
    database: Database, statement: Callable[[Grid], str], of: list[str], asked: Grid, fill: str, kind: type[P],
    columns: Sequence[str],
) -> tuple[Grid, list[P]]:  # fmt: skip
    """The points of one series, and the buckets that its server fills.

    Raises Problem (404) for an unknown server.
    """
    arguments = [storable(one) for one in of]
    rows, shown = await database.fetch(statement(asked), *arguments), asked
    if not rows:
        raise unknown_server(of[0])
    if (wide := asked.filled_by(rows[0]["interval_seconds"] or 0)) is not asked:
        rows, shown = await database.fetch(statement(wide), *arguments), wide
    (data,) = points([[rows[0][name] or () for name in ("places", *columns)]], shown, fill, kind)
    return shown, data


def _statement(
    family: str, column: str, buckets: Grid, columns: tuple[str, ...], more: str = "", where: str = ""
) -> str:
    return _READ.format(
        relation=buckets.period.relation_of(family),
        column=column,
        width=buckets.bucket_seconds,
        first=f"{buckets.first.timestamp():.0f}",
        since=buckets.first.isoformat(),
        more=more,
        where=where,
        arrays=", ".join(f"array_agg({name}) AS {name}" for name in columns),
    )
