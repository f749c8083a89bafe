"""Days and months as a calendar somewhere has them: half-open ranges, right over every change of the clocks."""

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from service.http.errors import Problem


class Range(NamedTuple):
    """[since, until), both in UTC."""

    since: datetime
    until: datetime


def zone(name: str) -> zoneinfo.ZoneInfo:
    """The zone of that name. Raises Problem (422) where there is none."""
    if name not in _names():  # asked first: ZoneInfo takes a name for a path, and fails in many ways
        raise Problem.invalid("time_zone", f"unknown time zone {name!r}, expected an IANA name such as Europe/Berlin")
    return zoneinfo.ZoneInfo(name)


def day_range(tz: zoneinfo.ZoneInfo, now: datetime) -> Range:
    """The day that `now` is in: 23 or 25 hours where the clocks are changed."""
    today = now.astimezone(tz).date()
    return Range(midnight(tz, today), midnight(tz, today + timedelta(days=1)))


def month_range(tz: zoneinfo.ZoneInfo, now: datetime) -> Range:
    """The month that `now` is in."""
    first = now.astimezone(tz).date().replace(day=1)
    return Range(midnight(tz, first), midnight(tz, (first + timedelta(days=31)).replace(day=1)))


def midnight(tz: zoneinfo.ZoneInfo, day: date) -> datetime:
    """When a day begins, in UTC: where midnight comes twice, the first time; where it is skipped, the change itself."""
    return datetime(day.year, day.month, day.day, tzinfo=tz).astimezone(UTC)


@lru_cache(maxsize=1)
def _names() -> set[str]:
    return zoneinfo.available_timezones()
