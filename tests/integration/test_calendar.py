"""Days and months of a calendar, over every change of the clocks; and the zones that there are."""

from datetime import UTC, datetime, timedelta

import pytest

from service.database.pool import Database
from service.database.zones import Zones
from service.fleet.calendar import day_and_month
from service.http.errors import Problem
from tests.helpers.support import Client, heartbeat

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("tz", "now", "since", "hours"),
    [
        ("UTC", "2026-01-29T10:00", "2026-01-29T00:00", 24),
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", 25),
        ("Asia/Kathmandu", "2026-01-29T18:14", "2026-01-28T18:15", 24),
        # Changes of 2024, which no release of the time zone data can undo: by that of 2026f, Havana's clocks are not
        # set back any more.
        # Midnight is skipped: the day begins with the change. And it comes twice: the day begins with the first.
        ("Africa/Cairo", "2024-04-26T12:00", "2024-04-25T22:00", 23),
        ("America/Havana", "2024-11-03T12:00", "2024-11-03T04:00", 25),
        ("Australia/Lord_Howe", "2024-04-07T06:00", "2024-04-06T13:00", 24.5),
    ],
)
async def test_a_day_is_as_long_as_the_clocks_make_it(
    database_url: str, tz: str, now: str, since: str, hours: float
) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)

    async with Database(database_url) as database:
        found, _ = await day_and_month(database, tz, moment)
        following, _ = await day_and_month(database, tz, found.until)

    assert found == (begin := datetime.fromisoformat(since).replace(tzinfo=UTC), begin + hours * HOUR)
    assert found.since <= moment < found.until
    assert following.since == found.until


@pytest.mark.parametrize(
    ("tz", "now", "since", "until"),
    [
        ("UTC", "2026-02-28T23:59", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("Europe/Berlin", "2026-10-31T22:59", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("Pacific/Kiritimati", "2025-12-31T10:00", "2025-12-31T10:00", "2026-01-31T10:00"),
    ],
)
async def test_a_month_begins_and_ends_at_the_zones_midnights(
    database_url: str, tz: str, now: str, since: str, until: str
) -> None:
    async with Database(database_url) as database:
        _, found = await day_and_month(database, tz, datetime.fromisoformat(now).replace(tzinfo=UTC))

    assert found == tuple(datetime.fromisoformat(one).replace(tzinfo=UTC) for one in (since, until))


NO_ZONES = ["", "Mars/Base", "/etc/passwd", "../zone", "Europe", "Europe/Berlin\0", "a" * 300, "localtime", "day1"]


async def test_a_zone_that_there_is_not_is_refused(database_url: str) -> None:
    async with Database(database_url) as database:
        zones = Zones(database)
        for name in NO_ZONES:
            with pytest.raises(Problem) as raised:
                await zones.check(name)
            assert raised.value.status == 422, name


async def test_every_route_refuses_the_same_zones_in_the_same_words(service: Client) -> None:
    await service.post(heartbeat(eth0=(1, 1)))

    for zone in ("localtime", "Factory", "posixrules", "Mars/Base", "utc+1"):
        answers = [
            await service.http.get(f"/api/v1{path}", params={"time_zone": zone})
            for path in ("/servers/nas/interfaces/eth0/stats", "/usage", "/usage/nas")
        ]
        quota = {"bytes": 1_000, "time_zone": zone}
        answers.append(await service.http.put("/api/v1/servers/nas/quota", json=quota))
        assert [one.status_code for one in answers] == [422] * 4, zone
        assert len({one.json()["detail"] for one in answers}) == 1, zone
