"""Days and months of a calendar, over every change of the clocks."""

from datetime import UTC, datetime, timedelta

import pytest

from service.fleet.calendar import day_range, month_range, zone
from service.http.errors import Problem

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("tz", "now", "since", "hours"),
    [
        ("UTC", "2026-01-29T10:00", "2026-01-29T00:00", 24),
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", 25),
        ("Asia/Kathmandu", "2026-01-29T18:14", "2026-01-28T18:15", 24),
        # Midnight is skipped: the day begins with the change. And it comes twice: the day begins with the first.
        ("Africa/Cairo", "2026-04-24T12:00", "2026-04-23T22:00", 23),
        ("America/Havana", "2026-11-01T12:00", "2026-11-01T04:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T06:00", "2026-04-04T13:00", 24.5),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(tz: str, now: str, since: str, hours: float) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)

    found = day_range(zone(tz), moment)

    assert found == (begin := datetime.fromisoformat(since).replace(tzinfo=UTC), begin + hours * HOUR)
    assert found.since <= moment < found.until
    assert day_range(zone(tz), found.until).since == found.until


@pytest.mark.parametrize(
    ("tz", "now", "since", "until"),
    [
        ("UTC", "2026-02-28T23:59", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("Europe/Berlin", "2026-10-31T22:59", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("Pacific/Kiritimati", "2025-12-31T10:00", "2025-12-31T10:00", "2026-01-31T10:00"),
    ],
)
def test_a_month_begins_and_ends_at_the_zones_midnights(tz: str, now: str, since: str, until: str) -> None:
    found = month_range(zone(tz), datetime.fromisoformat(now).replace(tzinfo=UTC))

    assert found == tuple(datetime.fromisoformat(one).replace(tzinfo=UTC) for one in (since, until))


@pytest.mark.parametrize("name", ["", "Mars/Base", "/etc/passwd", "../zone", "Europe", "Europe/Berlin\0", "a" * 300])
def test_a_zone_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(Problem) as raised:
        zone(name)

    assert raised.value.status == 422
