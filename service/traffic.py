"""Traffic as tables: any range of it bucket by bucket, who moved most, and what moves now."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Request, Response, Router, get
from litestar.params import QueryParameter
from msgspec import Meta

from service import cursor
from service.answers import LONGEST_SECONDS, NOT_MODIFIED, Answers
from service.database import Database
from service.errors import Problem
from service.listing import storable, unknown_server
from service.openapi import problems
from service.periods import EPOCH, LEVELS, bucket_seconds, grid
from service.sparkline import InterfaceFilter, PeriodName

_DAY = timedelta(days=1)
# Buckets of an answer that nobody chose: the widest range that each width serves.
_DEFAULTS = ((timedelta(hours=6), 60), (timedelta(days=3), 900), (timedelta(days=60), 3_600), (timedelta.max, 86_400))
# Rows are sought in windows that double, so that a page costs what it holds and not what the range does.
_FIRST_WINDOW_BUCKETS = 4

_SUMS = (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
    "samples", "up_samples", "resets", "rejected",
)  # fmt: skip
_HISTORY = f"""
SELECT time_bucket(make_interval(secs => $1), bucket) AS start, server_id, interface_name,
       {", ".join(f"sum({name})::bigint AS {name}" for name in _SUMS)},
       max(rx_bps_max) AS rx_bps_max, max(tx_bps_max) AS tx_bps_max, min(interval_ms) AS interval_ms
FROM {{relation}} WHERE bucket >= $2 AND bucket < $3 {{where}}
GROUP BY start, server_id, interface_name {{having}}
ORDER BY start, server_id, interface_name LIMIT $4
"""
_SUMMARY = """
WITH series AS MATERIALIZED (
    SELECT server_id, interface_name, sum(rx_bytes)::bigint AS rx, sum(tx_bytes)::bigint AS tx
    FROM {relation} WHERE bucket >= $1 AND is_lowest {where} GROUP BY 1, 2),
servers AS MATERIALIZED (SELECT server_id, sum(rx) AS rx, sum(tx) AS tx FROM series GROUP BY 1)
SELECT NULL AS server_id, NULL AS interface_name, coalesce(sum(rx), 0) AS rx_bytes, coalesce(sum(tx), 0) AS tx_bytes,
       count(*) AS servers, (SELECT count(*) FROM series) AS interfaces FROM servers
UNION ALL
(SELECT server_id, NULL, rx, tx, NULL, NULL FROM servers ORDER BY rx + tx DESC, server_id LIMIT $2)
UNION ALL
(SELECT server_id, interface_name, rx, tx, NULL, NULL FROM series
 ORDER BY rx::numeric + tx DESC, server_id, interface_name LIMIT $2)
"""
_LATEST = """
SELECT i.server_id, i.interface_name, i.time, i.is_up, i.is_lowest, i.is_folded, i.speed_mbps, i.rx_bps, i.tx_bps,
       i.delta_kind, i.elapsed_seconds
FROM interface_overview i WHERE i.is_current {where} ORDER BY i.server_id, i.interface_name LIMIT $1
"""
_KNOWN = "SELECT 1 FROM servers WHERE server_id = $1"


Moment = Annotated[datetime, Meta(tz=True)]


class TrafficBucket(msgspec.Struct, frozen=True, gc=False):
    """What crossed an interface in [timestamp, timestamp + bucket_seconds).

    rx_bps, tx_bps          bits per second over the bucket; of the one under way, over what has passed of it
    rx_bps_max, tx_bps_max  highest rate between two samples; null: none is known
    samples                 heartbeats in it; expected_samples, how many there should be by the agent's interval
    coverage                samples of expected_samples, 0 to 1: below 1, heartbeats are missing
    up_samples              of them found the interface up
    resets                  times that its counters began anew; rejected, those that no line could have carried
    """

    timestamp: datetime
    server_id: str
    interface: str
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
    """Buckets of [since, until) by time, server and interface; `next` continues after the last, null at the end."""

    since: datetime
    until: datetime
    bucket_seconds: int
    data: list[TrafficBucket]
    next: str | None


class Talker(msgspec.Struct, frozen=True):
    """A server's or an interface's traffic; `interface` null: over the server's lowest interfaces."""

    server_id: str
    interface: str | None
    rx_bytes: int
    tx_bytes: int
    total_bytes: int


class TrafficSummary(msgspec.Struct, frozen=True):
    """Traffic of a period up to now, each octet counted once, at the lowest interface that it crosses.

    servers, interfaces               that have samples in it
    top_servers, top_interfaces       the most first
    """

    period: str
    since: datetime
    rx_bytes: int
    tx_bytes: int
    total_bytes: int
    servers: int
    interfaces: int
    top_servers: list[Talker]
    top_interfaces: list[Talker]


class LatestTraffic(msgspec.Struct, frozen=True):
    """An interface in its server's newest heartbeat; rx_bps, tx_bps since the one before, null: not known."""

    server_id: str
    interface: str
    time: datetime
    is_up: bool
    is_lowest: bool
    is_folded: bool
    speed_mbps: int | None
    rx_bps: float | None
    tx_bps: float | None
    delta_kind: str
    elapsed_seconds: float | None


class LatestPage(msgspec.Struct, frozen=True):
    """By server and interface; `next` continues after the last of them, null at the end."""

    data: list[LatestTraffic]
    next: str | None


ServerFilter = Annotated[str | None, QueryParameter(description="Only this server.", max_length=255)]
# Not datetime: the framework would take any number for seconds since 1970.
Since = Annotated[
    str | None,
    QueryParameter(
        description="From here on, RFC 3339 with an offset; without it, a day before `until`.",
        max_length=40, schema_extra={"format": "date-time"},
    ),
]  # fmt: skip
Until = Annotated[
    str | None,
    QueryParameter(
        description="Up to here and without it, RFC 3339 with an offset; without it, now.",
        max_length=40, schema_extra={"format": "date-time"},
    ),
]  # fmt: skip
Bucket = Annotated[
    str | None,
    QueryParameter(
        description="Width of a bucket, such as 1m, 15m, 1h or 1d: whole minutes up to 366 days, from the beginning of "
        "2000-01-03 UTC on. Without it, what suits the range. Narrow ones are kept for a shorter time.",
        max_length=10,
    ),
]
Rows = Annotated[int, QueryParameter(ge=1, le=10_000, description="Rows a page.")]
Cursor = Annotated[
    str | None,
    QueryParameter(description="`next` of the page before; all other parameters as they were.", max_length=1_000),
]
Top = Annotated[int, QueryParameter(ge=1, le=100, description="How many of those that moved most.")]


def router(database: Callable[[], Database], answers: Answers) -> Router:
    """GET /traffic/history, /traffic/summary and /traffic/latest."""

    @get("/history", summary="Traffic of any range, bucket by bucket", responses=problems(401, 404, 422, 503))
    async def history(
        server: ServerFilter = None,
        interface: InterfaceFilter = None,
        since: Since = None,
        until: Until = None,
        bucket: Bucket = None,
        limit: Rows = 1_000,
        after: Cursor = None,
    ) -> TrafficHistory:
        """Each bucket that begins in the range and has samples, whole.

        What comes late for a bucket that a walk has passed is not in that walk any more.
        """
        moment = now()
        first, end = _range(since, until, moment)
        width = _width(bucket, end - first)
        step = timedelta(seconds=width)
        start, stop_at = _ceil(first, step), _ceil(end, step)
        at = None if after is None else _position(after)
        if at is not None:
            start = max(start, _ceil(at[0], step))
        rows: list[asyncpg.Record] = []
        # One series has a row a bucket at most.
        window = _FIRST_WINDOW_BUCKETS if server is None or interface is None else limit + 1
        while start < stop_at and len(rows) <= limit:
            stop = min(stop_at, start + window * step)
            rows += await _window(database(), width, start, stop, server, interface, at, limit + 1 - len(rows))
            start, window = stop, window * 2
        if server is not None and not rows:
            await _check_known(database(), server)
        data = [_bucket(row, width, moment) for row in rows[:limit]]
        last = data[-1] if len(rows) > limit else None
        return TrafficHistory(
            first, end, width, data, cursor.write(last.timestamp, last.server_id, last.interface) if last else None
        )

    @get("/summary", summary="Totals and who moved most", responses=problems(401, 404, 422, 503) | NOT_MODIFIED)
    async def summary(
        request: Request[Any, Any, Any], period: PeriodName = "24h", server: ServerFilter = None, top: Top = 10
    ) -> Response[TrafficSummary]:
        """Of a period up to now, in whole buckets of its aggregate."""
        buckets = grid(period, None, now())

        async def read() -> TrafficSummary:
            rows = await database().fetch(
                _SUMMARY.format(relation=buckets.period.relation, where="AND server_id = $3" if server else ""),
                buckets.first, top, *([storable(server)] if server else ()),
            )  # fmt: skip
            if server and not rows[0]["servers"]:
                await _check_known(database(), server)
            total, *talkers = rows
            made = [Talker(one["server_id"], one["interface_name"], *_octets(one)) for one in talkers]
            return TrafficSummary(
                period, buckets.first, *_octets(total), total["servers"], total["interfaces"],
                [one for one in made if one.interface is None], [one for one in made if one.interface is not None],
            )  # fmt: skip

        return await answers.get(
            request, ("summary", server, top, buckets), read,
            keep_seconds=LONGEST_SECONDS, servers=[server] if server else (),
        )  # fmt: skip

    @get("/latest", summary="What moves now", responses=problems(401, 404, 422, 503))
    async def latest(server: ServerFilter = None, limit: Rows = 1_000, after: Cursor = None) -> LatestPage:
        """The rates of every interface in its server's newest heartbeat; no history is read for it."""
        where = ""
        arguments: list[object] = [limit + 1]
        if server is not None:
            arguments.append(storable(server))
            where += f" AND i.server_id = ${len(arguments)}"
        if after is not None:
            server_id, name = cursor.read(after, tuple[str, str])
            arguments += [storable(server_id), storable(name)]
            # The first condition by itself finds the place in the index of servers.
            where += " AND i.server_id >= ${0} AND (i.server_id, i.interface_name) > (${0}, ${1})".format(
                len(arguments) - 1, len(arguments)
            )
        rows = await database().fetch(_LATEST.format(where=where), *arguments)
        if server is not None and not rows:
            await _check_known(database(), server)
        data = [LatestTraffic(*row) for row in rows[:limit]]
        return LatestPage(data, cursor.write(data[-1].server_id, data[-1].interface) if len(rows) > limit else None)

    return Router("/traffic", route_handlers=[history, summary, latest], tags=["traffic"])


def now() -> datetime:
    """Where every period ends."""
    return datetime.now(UTC)


async def _check_known(database: Database, server_id: str) -> None:
    if not await database.fetch(_KNOWN, storable(server_id)):
        raise unknown_server(server_id)


def _range(since: str | None, until: str | None, moment: datetime) -> tuple[datetime, datetime]:
    """[since, until) in UTC, no longer than there can be anything in it. Raises Problem (422)."""
    end = moment if until is None else _utc("until", _read(until, "until"))
    first = end - _DAY if since is None else _utc("since", _read(since, "since"))
    if first > end:
        raise Problem.invalid("since", "expected a time before `until`")
    return first, end


def _read(text: str, parameter: str) -> datetime:
    try:
        return msgspec.convert(text, Moment)
    except msgspec.ValidationError as raised:
        raise Problem.invalid(parameter, "expected a time with an offset, such as 2026-01-29T10:00:00Z") from raised


def _utc(parameter: str, moment: datetime) -> datetime:
    try:
        # Before it, nothing was measured; and time_bucket has its origin there. After, buckets must have an end.
        return min(max(moment.astimezone(UTC), EPOCH), datetime(2200, 1, 1, tzinfo=UTC))
    except OverflowError as raised:  # years 1 and 9999 have moments that UTC has not
        raise Problem.invalid(parameter, "expected a time between the years 2 and 9998") from raised


def _width(bucket: str | None, span: timedelta) -> int:
    """Seconds of a bucket. Raises Problem (422)."""
    if bucket is None:
        return next(seconds for longest, seconds in _DEFAULTS if span <= longest)
    seconds = bucket_seconds(bucket)
    if seconds % 60 or seconds > 366 * 86_400:
        raise Problem.invalid("bucket", f"expected whole minutes up to 366 days, got {bucket!r}")
    return seconds


def _ceil(moment: datetime, step: timedelta) -> datetime:
    """Where the first bucket that does not begin before `moment` begins."""
    return moment + (EPOCH - moment) % step


def _position(after: str) -> tuple[datetime, str, str]:
    moment, server_id, name = cursor.read(after, tuple[Moment, str, str])
    return _utc("after", moment), storable(server_id), storable(name)


async def _window(
    database: Database, width: int, start: datetime, stop: datetime, server: str | None, interface: str | None,
    at: tuple[datetime, str, str] | None, limit: int,
) -> list[asyncpg.Record]:  # fmt: skip
    """Buckets that begin in [start, stop), after the position `at`; of the coarsest aggregate that they are made of."""
    relation = next(relation for relation, seconds in reversed(LEVELS) if width % seconds == 0)
    where, having, arguments = "", "", [width, start, stop, limit]
    for column, value in (("server_id", server), ("interface_name", interface)):
        if value is not None:
            arguments.append(storable(value))
            where += f" AND {column} = ${len(arguments)}"
    if at is not None:
        arguments += at
        last = len(arguments)
        having = (
            f"HAVING (time_bucket(make_interval(secs => $1), bucket), server_id, interface_name)"
            f" > (${last - 2}, ${last - 1}, ${last})"
        )
    return await database.fetch(_HISTORY.format(relation=relation, where=where, having=having), *arguments)


def _octets(row: asyncpg.Record) -> tuple[int, int, int]:
    rx, tx = int(row["rx_bytes"]), int(row["tx_bytes"])
    return rx, tx, rx + tx


def _bucket(row: asyncpg.Record, width: int, moment: datetime) -> TrafficBucket:
    passed = min(max((moment - row["start"]).total_seconds(), 1.0), width)
    interval = row["interval_ms"] / 1000
    expected = max(1, round(passed / interval)) if interval > 0 else row["samples"]
    return TrafficBucket(
        row["start"], row["server_id"], row["interface_name"],
        row["rx_bytes"], row["tx_bytes"], row["rx_packets"], row["tx_packets"],
        row["rx_errors"], row["tx_errors"], row["rx_dropped"], row["tx_dropped"],
        round(row["rx_bytes"] * 8 / passed, 1), round(row["tx_bytes"] * 8 / passed, 1),
        row["rx_bps_max"], row["tx_bps_max"],
        row["samples"], expected, round(min(1.0, row["samples"] / expected), 4),
        row["up_samples"], row["resets"], row["rejected"],
    )  # fmt: skip
