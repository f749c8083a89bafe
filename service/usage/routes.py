"""Usage: the traffic of servers by day and month in a time zone, for billing.

Days and months are computed by the database (sql/view/usage.sql), where analysts can call the same functions.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Literal

import asyncpg
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from service.clock import Clock
from service.database.names import storable, unknown_server
from service.database.pool import Database
from service.database.series_links import SeriesLinks, series_asked_for
from service.database.zones import Zones
from service.http import cursor
from service.http.errors import Problem
from service.http.parameters import After, InterfaceFilter, Limit, TimeZone
from service.http.problems import problems
from service.settings import Settings
from service.usage.answers import Day, FleetUsage, Month, ServerUsage, Usage, amount, by_day, by_interface, month_of
from service.usage.quotas import STATES, state_of

MAX_DAYS = 400
MAX_MONTHS = 120

BillingDay = Annotated[
    int,
    QueryParameter(ge=1, le=31, description="Day on which billing months begin; in shorter months, the last day."),
]
Direction = Annotated[
    Literal["in", "out", "sum", "max"],
    QueryParameter(description="Order of the servers: by received or sent traffic, both, or the greater of the two."),
]
_FIRST, _LAST = date(2000, 1, 1), date(2100, 1, 1)


# The billing month of now, or of a given day.
_CALENDAR = """
SELECT ($1 AT TIME ZONE $2)::date AS today, (lower(p) AT TIME ZONE $2)::date AS first_day,
       lower(p) AS since, upper(p) AS until
FROM billing_period(
    at => coalesce(($4::date + TIME '12:00') AT TIME ZONE $2, $1::timestamptz), first_day => $3, time_zone => $2) AS p
"""
# The months that {at} overlaps.
_MONTHS = """
SELECT m.since, m.until, m.rx_bytes::bigint, m.tx_bytes::bigint, m.samples,
       CASE WHEN m.until > $2 THEN m.expected_rx_bytes::bigint END AS expected_rx_bytes,
       CASE WHEN m.until > $2 THEN m.expected_tx_bytes::bigint END AS expected_tx_bytes,
       p.samples AS percentile_samples, p.slots, p.rx_bps, p.tx_bps, p.sum_bps,
       p.rx_bps_of_slots, p.tx_bps_of_slots, p.sum_bps_of_slots
FROM servers s
CROSS JOIN LATERAL ({at}) AS a
CROSS JOIN LATERAL network_month(
    of_server => $1, at => a.at, first_day => $4, time_zone => $3, of_interface => $5, as_of => $2) m
LEFT JOIN LATERAL network_percentile($1, m.since, least(m.until, time_bucket(INTERVAL '5 minutes', $2)), $5) p
     ON greatest(m.since, linkbeat.account_since(s.server_id, s.first_seen)) >= $6
WHERE s.server_id = $1
"""
_THIS = "SELECT $2::timestamptz AS at"
# The billing month that begins in a calendar month contains the last noon of that calendar month.
_EACH = """
SELECT (c.month + INTERVAL '1 month' - INTERVAL '12 hours') AT TIME ZONE $3 AS at
FROM generate_series(date_trunc('month', $7::date::timestamp), ($8::date - 1)::timestamp,
                     INTERVAL '1 month') AS c(month)
"""
_IN_RANGE = """
AND (m.since AT TIME ZONE $3)::date >= $7 AND (m.since AT TIME ZONE $3)::date < $8
AND m.samples > 0
ORDER BY m.since
"""
_DAYS = """
SELECT day, interface_name, is_lowest, rx_bytes, tx_bytes, samples FROM network_days(
    of_server => $1, since => $2, until => $3, time_zone => $4, of_interface => $5) ORDER BY day
"""
_INTERFACES = """
SELECT interface_name, is_lowest, rx_bytes, tx_bytes FROM server_total($1, $2, $3)
"""
_MOVED = {
    "in": "t.rx_bytes", "out": "t.tx_bytes", "sum": "t.rx_bytes + t.tx_bytes",
    "max": "greatest(t.rx_bytes, t.tx_bytes)",
}  # fmt: skip
_FLEET = """
SELECT s.server_id, s.hostname, t.rx_bytes::bigint, t.tx_bytes::bigint, ({moved})::bigint AS moved
FROM (
    SELECT server_id, sum(rx_bytes) AS rx_bytes, sum(tx_bytes) AS tx_bytes
    FROM network_total($1, $2) WHERE is_lowest GROUP BY server_id) AS t
JOIN servers s USING (server_id)
WHERE $3::bigint IS NULL OR {moved} < $3 OR {moved} = $3 AND s.server_id > $4
ORDER BY {moved} DESC, s.server_id
LIMIT $5
"""


def router(database: Database, zones: Zones, clock: Clock, settings: Settings, links: SeriesLinks) -> Router:
    """GET /usage and /usage/{server_id}."""

    async def calendar_of(time_zone: str, billing_day: int, day: date | None = None) -> asyncpg.Record:
        await zones.check(time_zone)
        (row,) = await database.fetch(_CALENDAR, clock.now(), time_zone, billing_day, day)
        return row

    @get("/", summary="Usage of the fleet, busiest servers first", responses=problems(401, 422, 503))
    async def fleet(
        time_zone: TimeZone = "UTC",
        billing_day: BillingDay = 1,
        at: Annotated[date | None, QueryParameter(description="A day of the billing month; default: today.")] = None,
        direction: Direction = "sum",
        limit: Limit = 100,
        after: After = None,
    ) -> FleetUsage:
        position = _position(after, direction) if after is not None else (None, None)
        if at is not None:
            _check_date("at", at)
        month = await calendar_of(time_zone, billing_day, at)
        if month["since"] < _kept_since(settings, clock.now(), month["since"], month["until"]):
            raise Problem.invalid("at", f"the month that began on {month['first_day']} is not completely retained")
        rows = await database.fetch(
            _FLEET.format(moved=_MOVED[direction]), month["since"], month["until"], *position, limit + 1
        )
        page = rows[:limit]
        found = await database.fetch(STATES, clock.now(), [row["server_id"] for row in page])
        quotas = {row["server_id"]: state_of(row) for row in found}
        servers = [
            ServerUsage(
                **amount(row["rx_bytes"], row["tx_bytes"]),
                server_id=row["server_id"],
                hostname=row["hostname"],
                quota=quotas.get(row["server_id"]),
            )
            for row in page
        ]
        following = cursor.write(direction, page[-1]["moved"], page[-1]["server_id"]) if len(rows) > limit else None
        linked = await links.of()
        return FleetUsage(time_zone, billing_day, month["since"], month["until"], servers, following, linked.sums())

    @get("/{server_id:str}", summary="One server's usage", responses=problems(401, 404, 422, 503))
    async def one_server(
        server_id: FromPath[str],
        interface: InterfaceFilter = None,
        by: Annotated[Literal["day", "month"], QueryParameter(description="Unit of the entries.")] = "day",
        since: Annotated[
            date | None,
            QueryParameter(
                description="First day. Default: the first day of the billing month; by month, that of eleven months "
                "earlier."
            ),
        ] = None,
        until: Annotated[
            date | None,
            QueryParameter(
                description="Day after the last one; default: tomorrow. By month: months that begin before it."
            ),
        ] = None,
        time_zone: TimeZone = "UTC",
        billing_day: BillingDay = 1,
    ) -> Usage:
        current = clock.now()
        calendar = await calendar_of(time_zone, billing_day)
        first, last = _days(by, since, until, calendar)
        linked = await links.of(server_id)
        who = storable(server_id)
        which = await series_asked_for(database, linked, who, interface) if interface is not None else None
        of_months = (who, current, time_zone, billing_day, which, current - timedelta(days=settings.retain_1m_days))
        month = await database.fetch(_MONTHS.format(at=_THIS), *of_months)
        if not month:
            raise unknown_server(server_id)
        days: list[Day] = []
        months: list[Month] = []
        if by == "day":
            # Days are sums of hours, or of quarters of an hour, which are retained for a shorter time.
            kept = (current - timedelta(days=settings.retain_15m_days)).date() + timedelta(days=2)
            rows: Sequence[asyncpg.Record] = await database.fetch(
                _DAYS, who, max(first, min(kept, last)), last, time_zone, which
            )
            days = by_day(row for row in rows if which is not None or row["is_lowest"])
        else:
            found = await database.fetch(_MONTHS.format(at=_EACH) + _IN_RANGE, *of_months, first, last)
            months = [
                month_of(row)
                for row in found
                if row["since"] >= _kept_since(settings, current, row["since"], row["until"])
            ]
            rows = []
            if months and which is None:
                rows = await database.fetch(_INTERFACES, who, months[0].since, months[-1].until)
        quota = await database.fetch(STATES, current, [who])
        return Usage(
            server_id,
            interface,
            time_zone,
            billing_day,
            month_of(month[0]),
            by,
            first,
            last,
            days,
            months,
            by_interface(rows) if which is None else [],
            state_of(quota[0]) if quota else None,
            linked.sums(which),
        )

    return Router("/usage", route_handlers=[fleet, one_server], tags=["usage"])


def _kept_since(settings: Settings, now: datetime, *ends: datetime) -> datetime:
    """The time from which on all buckets of a month are retained: days, and hours or quarters of an hour at its
    ends."""
    is_of_hours = not any(end.minute for end in ends)
    days = settings.retain_1h_days if is_of_hours else settings.retain_15m_days
    return now - timedelta(days=days - 1)


def _days(by: str, since: date | None, until: date | None, calendar: asyncpg.Record) -> tuple[date, date]:
    """The requested days, or the default ones. Raises Problem (422)."""
    last = until if until is not None else calendar["today"] + timedelta(days=1)
    _check_date("until", last)
    first = since
    if first is None:
        first = min(calendar["first_day"], last - timedelta(days=1))
        if by == "month":
            months = first.year * 12 + first.month - 1 - 11
            first = date(months // 12, months % 12 + 1, 1)
    _check_date("since", first)
    if first >= last:
        raise Problem.invalid("since", f"expected a day before {last}, got {first}")
    most = timedelta(days=MAX_DAYS if by == "day" else MAX_MONTHS * 31)
    if last - first > most:
        raise Problem.invalid("since", f"expected at most {most.days} days before {last}, got {first}")
    return first, last


def _check_date(name: str, day: date) -> None:
    if not _FIRST <= day < _LAST:
        raise Problem.invalid(name, f"expected a day from {_FIRST} to before {_LAST}, got {day}")


def _position(after: str, direction: str) -> tuple[int, str]:
    of, moved, server_id = cursor.read(after, tuple[str, int, str])
    if of != direction:
        raise Problem.invalid("after", f"continues a list by {of}, not {direction}")
    if not 0 <= moved < 2**63:
        raise Problem.invalid("after", "is not the `next` of a page of this list")
    return moved, storable(server_id)
