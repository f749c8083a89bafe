"""Traffic of any range, bucket by bucket: pages of rows by time, server and interface."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

import asyncpg
import msgspec
from litestar import Router, get
from litestar.params import QueryParameter

from service.clock import Clock
from service.database.names import check_known, storable
from service.database.pool import Database
from service.database.series_links import Linked, SeriesLinks, Sums, series_asked_for
from service.http import cursor
from service.http.errors import Problem
from service.http.parameters import After, InterfaceFilter, Rows, ServerFilter
from service.http.problems import problems
from service.traffic.periods import EPOCH, LEVELS, bucket_seconds
from service.traffic.ranges import Moment, Since, Until, range_of, utc
from service.traffic.rates import rates

# Default buckets: the widest range for each width.
_DEFAULTS = ((timedelta(hours=6), 60), (timedelta(days=3), 900), (timedelta(days=60), 3_600), (timedelta.max, 86_400))
# Rows are read in windows that double, so that the cost of a page depends on its rows and not on the range.
_FIRST_WINDOW_BUCKETS = 4

_SUMS = (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
    "samples", "up_samples", "resets", "rejected",
)  # fmt: skip
_READ = (*_SUMS, "up_ms", "rx_bps_max", "tx_bps_max", "interval_ms")
_PUT_TOGETHER = f"""
    SELECT time_bucket(make_interval(secs => $1), bucket) AS start, server_id, interface_name,
           {", ".join(f"sum({name})::bigint AS {name}" for name in (*_SUMS, "up_ms"))},
           max(rx_bps_max) AS rx_bps_max, max(tx_bps_max) AS tx_bps_max, min(interval_ms) AS interval_ms
    FROM {{relation}} WHERE bucket >= $2 AND bucket < $3 {{where}}
    GROUP BY start, server_id, interface_name {{having}}
"""
# The rate of the current bucket is over its elapsed part, up to $5.
_PASSED_MS = "least($1 * 1000, greatest(1000, (extract(epoch FROM $5::timestamptz - start) * 1000)::bigint))"
_HISTORY = f"""
SELECT *, {rates(_PASSED_MS)} FROM ({_PUT_TOGETHER}) AS series ORDER BY start, server_id, interface_name LIMIT $4
"""
# Each octet once, at the lowest interface. One heartbeat contains all interfaces, and one reboot resets them all; the
# peaks of several interfaces may have occurred at different times.
_TOTAL = f"""
SELECT start, server_id, '' AS interface_name,
       {", ".join(f"sum({name})::bigint AS {name}" for name in _SUMS[:8])},
       {", ".join(f"max({name}) AS {name}" for name in _SUMS[8:])},
       CASE WHEN count(*) = 1 THEN max(rx_bps_max) END AS rx_bps_max,
       CASE WHEN count(*) = 1 THEN max(tx_bps_max) END AS tx_bps_max, min(interval_ms) AS interval_ms,
       sum(rx_bps) AS rx_bps, sum(tx_bps) AS tx_bps
FROM (SELECT *, {rates(_PASSED_MS)} FROM ({_PUT_TOGETHER}) AS one) AS series
GROUP BY start, server_id ORDER BY start, server_id LIMIT $4
"""


class TrafficBucket(msgspec.Struct, frozen=True, gc=False):
    """Traffic of an interface in [timestamp, timestamp + bucket_seconds).

    interface               null: the sum over the server's lowest interfaces; samples, resets and rejected are then the
                            maximum over them
    rx_bps, tx_bps          bits per second over the bucket, or over the time that its samples cover; for the current
                            bucket, over its elapsed part; never above the highest rate between two samples
    rx_bps_max, tx_bps_max  highest rate between two samples; null: unknown
    samples                 heartbeats in the bucket; expected_samples: number according to the agent's interval
    coverage                samples / expected_samples, 0 to 1: below 1, heartbeats are missing
    up_samples              samples in which the interface was up
    resets                  how often the counters restarted; rejected: samples with an implausible gain
    """

    timestamp: datetime
    server_id: str
    interface: str | None
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int
    rx_bps: float
    tx_bps: float
    rx_bps_max: float | None
    tx_bps_max: float | None
    samples: int
    expected_samples: int
    coverage: float
    up_samples: int
    resets: int
    rejected: int


class TrafficHistory(msgspec.Struct, frozen=True):
    """Buckets in [since, until) by time, server and interface; `next` continues after the last one, null at the end.

    sums  interfaces that links add up, also where both have samples at the same time; absent: none
    """

    since: datetime
    until: datetime
    bucket_seconds: int
    data: list[TrafficBucket]
    next: str | None
    sums: Sums = msgspec.UNSET


Bucket = Annotated[
    str | None,
    QueryParameter(
        description="Width of a bucket, such as 1m, 15m, 1h or 1d: whole minutes up to 366 days, aligned to 2000-01-03 "
        "00:00 UTC. The default depends on the range. Narrow buckets are retained for a shorter time.",
        max_length=10,
    ),
]


def router(database: Database, clock: Clock, links: SeriesLinks) -> Router:
    """GET /traffic/history."""

    @get("/history", summary="Traffic of any range, bucket by bucket", responses=problems(401, 404, 422, 503))
    async def history(
        server: ServerFilter = None,
        interface: InterfaceFilter = None,
        since: Since = None,
        until: Until = None,
        bucket: Bucket = None,
        group_by: Annotated[
            Literal["server"] | None,
            QueryParameter(description="`server`: the sum over a server's lowest interfaces, each octet once."),
        ] = None,
        limit: Rows = 1_000,
        after: After = None,
    ) -> TrafficHistory:
        """Each complete bucket that starts in the range and has samples.

        Samples that arrive late for a bucket of an earlier page are not in later pages.
        """
        moment = clock.now()
        first, end = range_of(since, until, moment)
        if group_by is not None and interface is not None:
            raise Problem.invalid("group_by", "cannot be combined with `interface`")
        width = _width(bucket, end - first)
        step = timedelta(seconds=width)
        start, stop_at = _ceil(first, step), _ceil(end, step)
        at = None if after is None else _position(after)
        if at is not None:
            start = max(start, _ceil(at[0], step))
        linked = await (links.of(server) if server is not None else links.of())
        if interface is not None:
            interface = (
                linked.series(storable(interface))
                if server is None
                else await series_asked_for(database, linked, server, interface)
            )
        rows: list[asyncpg.Record] = []
        # One series has at most one row per bucket.
        is_one = server is not None and (interface is not None or group_by is not None)
        window = limit + 1 if is_one else _FIRST_WINDOW_BUCKETS
        statement = _HISTORY if group_by is None else _TOTAL
        while start < stop_at and len(rows) <= limit:
            stop = min(stop_at, start + window * step)
            rows += await _window(
                database, statement, width, start, stop, server, interface, at, limit + 1 - len(rows), moment, linked
            )
            start, window = stop, window * 2
        if server is not None and not rows:
            await check_known(database, server)
        data = [_bucket(row, width, moment) for row in rows[:limit]]
        last = data[-1] if len(rows) > limit else None
        return TrafficHistory(
            first,
            end,
            width,
            data,
            cursor.write(last.timestamp, last.server_id, last.interface or "") if last else None,
            linked.sums(interface),
        )

    return Router("/traffic", route_handlers=[history], tags=["traffic"])


def _width(bucket: str | None, span: timedelta) -> int:
    """Width of a bucket in seconds. Raises Problem (422)."""
    if bucket is None:
        return next(seconds for longest, seconds in _DEFAULTS if span <= longest)
    seconds = bucket_seconds(bucket)
    if seconds % 60 or seconds > 366 * 86_400:
        raise Problem.invalid("bucket", f"expected whole minutes up to 366 days, got {bucket!r}")
    return seconds


def _ceil(moment: datetime, step: timedelta) -> datetime:
    """The start of the first bucket that does not start before `moment`."""
    return moment + (EPOCH - moment) % step


def _position(after: str) -> tuple[datetime, str, str]:
    moment, server_id, name = cursor.read(after, tuple[Moment, str, str])
    return utc("after", moment), storable(server_id), storable(name)


async def _window(
    database: Database, statement: str, width: int, start: datetime, stop: datetime, server: str | None,
    interface: str | None, at: tuple[datetime, str, str] | None, limit: int, moment: datetime,
    linked: Linked,
) -> list[asyncpg.Record]:  # fmt: skip
    """Buckets that start in [start, stop), after the position `at`, from the coarsest aggregate that divides them."""
    relation = next(relation for relation, seconds in reversed(LEVELS) if width % seconds == 0)
    where, having, arguments = "AND is_lowest" if statement is _TOTAL else "", "", [width, start, stop, limit, moment]
    place_of_server = len(arguments) + 1
    for column, value in (("server_id", server), ("interface_name", interface)):
        if value is not None:
            arguments.append(storable(value))
            where += f" AND {column} = ${len(arguments)}"
    if at is not None:
        arguments += at
        last = len(arguments)
        series = "interface_name" if statement is _HISTORY else "''"
        having = (
            f"HAVING (time_bucket(make_interval(secs => $1), bucket), server_id, {series})"
            f" > (${last - 2}, ${last - 1}, ${last})"
        )
    if linked and server is not None:
        relation = linked.rows(
            relation, servers=f"ARRAY[${place_of_server}]", first="$2", last="$3",
            interface="NULL" if interface is None else f"${place_of_server + 1}",
        )  # fmt: skip
    elif linked:
        relation = linked.rows_of_all(
            relation, ", ".join(("bucket", "server_id", "interface_name", "is_lowest", *_READ)),
            first="$2", last="$3",
        )  # fmt: skip
    return await database.fetch(statement.format(relation=relation, where=where, having=having), *arguments)


def _bucket(row: asyncpg.Record, width: int, moment: datetime) -> TrafficBucket:
    passed = min(max((moment - row["start"]).total_seconds(), 1.0), width)
    interval = row["interval_ms"] / 1000
    expected = max(1, round(passed / interval)) if interval > 0 else row["samples"]
    return TrafficBucket(
        row["start"], row["server_id"], row["interface_name"] or None,
        row["rx_bytes"], row["tx_bytes"], row["rx_packets"], row["tx_packets"],
        row["rx_errors"], row["tx_errors"], row["rx_dropped"], row["tx_dropped"],
        row["rx_bps"], row["tx_bps"],
        row["rx_bps_max"], row["tx_bps_max"],
        row["samples"], expected, round(min(1.0, row["samples"] / expected), 4),
        row["up_samples"], row["resets"], row["rejected"],
    )  # fmt: skip
