"""Mutes: times without messages about matching alerts. Alerts still firing at the end of a mute are sent then."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Request, Router, delete, get, put
from msgspec import Meta

from service.access.identity import Caller
from service.alerts import store
from service.alerts.channels.kinds import TimeZone
from service.alerts.names import AfterName, MuteId, check_name
from service.alerts.rules import Globs, Text
from service.clock import Clock
from service.database.audit import by
from service.database.names import storable
from service.database.pool import Database
from service.database.zones import Zones
from service.http.errors import Problem
from service.http.json_body import body
from service.http.parameters import Limit
from service.http.problems import problems

log = logging.getLogger("linkbeat")

_LIST = """
SELECT mute_id AS id, matcher::text, starts_at, ends_at, weekly::text, time_zone, comment, created_by, created_at,
       linkbeat.is_mute_on(m, now()) AS is_on
FROM linkbeat.alert_mutes m
WHERE ($1::text IS NULL OR mute_id = $1) AND mute_id > $2 ORDER BY mute_id LIMIT $3
"""
_SET = (
    "linkbeat.set_alert_mute(of_mute => $1, new_matcher => $2::jsonb, new_starts_at => $3, new_ends_at => $4, "
    "new_weekly => $5::jsonb, new_time_zone => $6, new_created_by => $7, new_comment => $8)"
)
_DELETE = "linkbeat.delete_alert_mute($1) AS is_known"
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

Moment = Annotated[datetime, Meta(tz=True)]
ClockTime = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", examples=["22:00"])]


class Matcher(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Alerts to mute, by patterns of ids, and of tags of the server or their keys; null: all."""

    servers: Globs | None = None
    rules: Globs | None = None
    tags: Globs | None = None


class Weekly(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Hours on days of the week, by local time in the time zone of the mute.

    from, until  HH:MM; an `until` that is not after `from` is on the next day
    days         on which it begins: 1 (Monday) to 7 (Sunday); null: all
    """

    from_: ClockTime = msgspec.field(name="from")
    until: ClockTime = msgspec.field()
    days: Annotated[list[Annotated[int, Meta(ge=1, le=7)]], Meta(min_length=1, max_length=7)] | None = None


class Mute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mute: from starts_at to ends_at, weekly, or weekly between both.

    starts_at  null: immediately
    ends_at    null: never; only allowed for a weekly mute
    """

    matcher: Matcher = Matcher()
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    weekly: Weekly | None = None
    time_zone: TimeZone = "UTC"
    comment: Text = ""


class AlertMute(msgspec.Struct, frozen=True, kw_only=True):
    """A stored mute. `is_on`: whether it is in effect now; `created_by`: the name of the client that last set it."""

    id: str
    matcher: Matcher
    starts_at: datetime | None
    ends_at: datetime | None
    weekly: Weekly | None
    time_zone: str
    comment: str | None
    created_by: str | None
    created_at: datetime
    is_on: bool


class AlertMutes(msgspec.Struct, frozen=True):
    """Mutes by id; `next` continues after the last of them, null at the end."""

    mutes: list[AlertMute]
    next: str | None


def router(database: Database, writing: Database, zones: Zones, clock: Clock) -> Router:
    """/alert-mutes."""

    async def stored(mute_id: str) -> AlertMute:
        rows = await database.fetch(_LIST, storable(mute_id), "", 1)
        if not rows:
            raise unknown(mute_id)
        return _mute(rows[0])

    @get("/", summary="List mutes", responses=problems(401, 422, 503))
    async def list_mutes(limit: Limit = 100, after: AfterName = "") -> AlertMutes:
        rows = await database.fetch(_LIST, None, storable(after), limit + 1)
        found = [_mute(row) for row in rows[:limit]]
        return AlertMutes(found, found[-1].id if len(rows) > limit else None)

    @get("/{mute_id:str}", summary="A mute", responses=problems(401, 404, 503))
    async def get_mute(mute_id: MuteId) -> AlertMute:
        return await stored(mute_id)

    @put("/{mute_id:str}", summary="Set a mute", responses=problems(400, 401, 408, 413, 415, 422, 503))
    async def put_mute(mute_id: MuteId, request: Request[Any, Caller, Any]) -> AlertMute:
        """Creates or replaces the mute."""
        mute = await body(request, Mute)
        check_name(mute_id)
        check(mute, clock.now())
        await zones.check(mute.time_zone)
        weekly = None if mute.weekly is None else store.json_of(mute.weekly)
        try:
            await by(writing.fetch, request.auth.actor)(
                _SET, mute_id, store.json_of(mute.matcher), mute.starts_at, mute.ends_at, weekly, mute.time_zone,
                request.auth.name, mute.comment,
            )  # fmt: skip
        except asyncpg.InvalidRegularExpressionError:
            raise Problem.invalid("matcher", "a pattern has an invalid [range]") from None
        log.info("alert mute %s set by %s from %s", mute_id, request.auth.name, request.auth.peer)
        return await stored(mute_id)

    @delete("/{mute_id:str}", summary="Remove a mute", responses=problems(401, 404, 503))
    async def delete_mute(mute_id: MuteId, request: Request[Any, Caller, Any]) -> None:
        """Messages about alerts that are still firing are sent then."""
        (row,) = await by(writing.fetch, request.auth.actor)(_DELETE, storable(mute_id))
        if not row["is_known"]:
            raise unknown(mute_id)
        log.info("alert mute %s removed by %s from %s", storable(mute_id)[:100], request.auth.name, request.auth.peer)

    handlers = [list_mutes, get_mute, put_mute, delete_mute]
    return Router("/alert-mutes", route_handlers=handlers, tags=["alerts"])


def check(mute: Mute, now: datetime) -> None:
    """Checks that the types do not cover. Raises Problem (422)."""
    for name in ("starts_at", "ends_at"):
        moment = getattr(mute, name)
        if moment is not None and not _FIRST <= moment <= _LAST:
            raise Problem.invalid(name, "expected a time between the years 2000 and 2200")
    if mute.ends_at is None and mute.weekly is None:
        raise Problem.invalid("ends_at", "is required, unless the mute is weekly")
    if mute.ends_at is not None and mute.ends_at <= (mute.starts_at or now):
        raise Problem.invalid("ends_at", "expected a time after starts_at, or in the future if starts_at is not set")
    if mute.weekly is not None and mute.weekly.from_ == mute.weekly.until:
        raise Problem.invalid("weekly.until", "expected a time other than `from`")


def unknown(mute_id: str) -> Problem:
    """404 for an unknown mute."""
    return Problem("not_found", f"there is no mute {mute_id!r}")


def _mute(row: asyncpg.Record) -> AlertMute:
    """A row of _LIST."""
    values = dict(row)
    matcher = msgspec.json.decode(values.pop("matcher"), type=Matcher)
    weekly = values.pop("weekly")
    return AlertMute(
        **values, matcher=matcher, weekly=None if weekly is None else msgspec.json.decode(weekly, type=Weekly)
    )
