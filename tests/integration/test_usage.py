"""/api/v1/usage: what the API says of a month equals what Python counts from the raw counters, hour by hour."""

import math
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.app import create_app
from service.clock import Clock
from service.database import schema
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.oracle import COUNTERS, Account, Beat, Sample, account
from tests.helpers.support import KEY, Client, boot_id, connected, heartbeat, hours_ago

# In it the clock goes forward by 30 minutes on Lord Howe (5 October), and back in Berlin (26th) and New York (2nd).
SINCE, UNTIL = datetime(2025, 9, 29, tzinfo=UTC), datetime(2025, 11, 6, tzinfo=UTC)
NOW = datetime(2025, 11, 5, 9, 7, 30, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "UTC")
EVERY = timedelta(minutes=15)  # as all these zones begin their days; each is in any of three slots of a percentile
PACKET = 1_000  # octets


def kept_for_ever(tmp_path: Path) -> Settings:
    return Settings(
        api_key=KEY, data_dir=str(tmp_path), oldest_heartbeat_days=3_000, compress_after_days=3_002,
        retain_raw_days=3_003, retain_1m_days=3_004, retain_15m_days=3_005, retain_1h_days=3_006, retain_1d_days=3_007,
    )  # fmt: skip


async def keep(database_url: str, settings: Settings) -> None:
    """Tells the database the settings; its policies, which that wakes, rest on: a test itself refreshes."""
    await schema.migrate(database_url, lambda _: None, settings)
    async with connected(database_url) as connection:
        await connection.execute(
            "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs "
            "WHERE hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat'"
        )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return kept_for_ever(tmp_path)


@pytest.fixture
async def service(database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """At NOW, with all that was ever reported."""
    await keep(database_url, settings)
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as client:
        yield client


def month_of_beats(rng: random.Random) -> list[Beat]:
    """Once in every quarter of an hour: bursts, reboots, resets, two gaps, a wrap; br0 above eth0."""
    beats: list[Beat] = []
    counters = {name: [rng.randrange(2**33), rng.randrange(2**20)] for name in ("eth0", "br0", "wlan0")}
    boot, at = 0, SINCE
    while at < UNTIL:
        at += EVERY
        if rng.random() < 0.006:
            at += timedelta(hours=rng.uniform(0.2, 9))
        if rng.random() < 0.006:
            boot += 1
            counters = {name: [0, 0] for name in counters}
        if rng.random() < 0.006:
            counters["wlan0"] = [0, 0]
        burst = rng.lognormvariate(16, 2)
        for name, (rx, tx) in counters.items():
            share = 0.1 if name == "wlan0" else 1.0
            counters[name] = [rx + int(burst * share), tx + int(burst * share * rng.random())]
        samples = {
            name: Sample((rx, tx, rx // PACKET, tx // PACKET, None, None, None, None))
            for name, (rx, tx) in counters.items()
        }
        beats.append(Beat(at + timedelta(seconds=rng.randrange(900)), boot_id(str(boot)), samples, 900))
    return beats


async def store(service: Client, beats: list[Beat]) -> None:
    stacked: dict[str, dict[str, Any]] = {"br0": {"kind": "bridge", "stacked_on": ["eth0"]}}
    bodies = [
        heartbeat(at=beat.time, boot=beat.boot)
        | {"interval_seconds": beat.interval_seconds}
        | {
            "network_interfaces": [
                {
                    "name": name,
                    "is_up": True,
                    **dict(zip(COUNTERS, sample.counters, strict=True)),
                    **stacked.get(name, {}),
                }
                for name, sample in beat.samples.items()
            ]
        }
        for beat in beats
    ]
    for first in range(0, len(bodies), 100):  # more of one server may take longer than an answer on a busy machine
        assert (await service.post_batch(bodies[first : first + 100]))["rejected"] == []


def moved(of: Account, names: tuple[str, ...], since: datetime, until: datetime) -> tuple[int, int]:
    """From the counters: octets received and sent in [since, until)."""
    found = [gain.deltas for (name, at), gain in of.gains.items() if name in names and since <= at < until]
    return sum(rx or 0 for rx, *_ in found), sum(tx or 0 for _, tx, *_ in found)


def by_day(of: Account, names: tuple[str, ...], zone: str) -> dict[str, tuple[int, int]]:
    """From the counters: by the date that a clock on the wall showed."""
    days: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (name, at), gain in of.gains.items():
        if name in names:
            day = days[at.astimezone(ZoneInfo(zone)).date().isoformat()]
            day[0] += gain.deltas[0] or 0
            day[1] += gain.deltas[1] or 0
    return {day: (rx, tx) for day, (rx, tx) in days.items()}


def midnight(day: date, zone: str) -> datetime:
    """The first, where the clock is set back over it; where it is set forward over it, the moment of that."""
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def billing_start(year: int, month: int, first_day: int) -> date:
    """The month's billing day, or its last."""
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, min(first_day, (following - timedelta(days=1)).day))


def percentiles(of: Account, names: tuple[str, ...], since: datetime, until: datetime) -> dict[str, Any]:
    """From the counters: of samples and of slots, by sorting and counting."""
    slots: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for (name, at), gain in of.gains.items():
        if name in names and since <= at < until:
            slots[int(at.timestamp()) // 300][0] += gain.deltas[0] or 0
            slots[int(at.timestamp()) // 300][1] += gain.deltas[1] or 0
    number = int((until - since).total_seconds()) // 300
    answer: dict[str, Any] = {"samples": len(slots), "slots": number}
    for kind, missing in (("of_samples", 0), ("of_slots", number - len(slots))):
        rates = []
        for amounts in ([rx for rx, _ in slots.values()], [tx for _, tx in slots.values()], map(sum, slots.values())):
            values = sorted([*amounts] + [0] * missing)
            rates.append(values[len(values) - 1 - math.floor(len(values) * 0.05 + 1e-9)] * 8 / 300)
        rx_bps, tx_bps, sum_bps = rates
        answer[kind] = {"rx_bps": rx_bps, "tx_bps": tx_bps, "max_bps": max(rx_bps, tx_bps), "sum_bps": sum_bps}
    return answer


def leaves(tree: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= {f"{name}.{below}": leaf for below, leaf in leaves(value).items()}
        else:
            found[name] = value
    return found


async def test_a_month_over_summer_times_end_is_what_the_counters_say_in_every_zone(
    service: Client, database: asyncpg.Connection
) -> None:
    seed = int(os.environ.get("LINKBEAT_USAGE_SEED") or random.randrange(10**9))
    beats = month_of_beats(random.Random(seed))
    counted = account(beats)
    await store(service, beats)
    seen = [beat.time for beat in beats]
    now_slot = NOW - timedelta(minutes=2, seconds=30)

    for refreshed in (False, True):
        if refreshed:
            await database.execute("CALL linkbeat.refresh_aggregates(now())")
        for zone in ZONES:
            for which in (None, "br0"):
                names = ("eth0", "wlan0") if which is None else (which,)
                query = {"time_zone": zone, "since": "2025-09-20", "until": "2025-11-20"}
                query |= {"interface": which} if which else {}
                answer = await service.get("/usage/nas", **query)

                found = {day["day"]: (day["rx_bytes"], day["tx_bytes"]) for day in answer["days"]}
                assert found == by_day(counted, names, zone), f"seed {seed}, {zone}"
                assert all(day["total_bytes"] == day["rx_bytes"] + day["tx_bytes"] for day in answer["days"])
                assert sum(day["samples"] for day in answer["days"]) == len(seen) * len(names)
        for zone, first_day in (
            ("Europe/Berlin", 1),
            ("America/New_York", 31),
            ("America/Havana", 2),
            ("Australia/Lord_Howe", 15),
        ):
            answer = await service.get(
                "/usage/nas", by="month", time_zone=zone, billing_day=first_day, since="2025-09-01", until="2025-12-01"
            )
            starts = [billing_start(2025, month, first_day) for month in (9, 10, 11, 12)]
            spans = [(midnight(one, zone), midnight(other, zone)) for one, other in pairwise(starts)]
            spans = [span for span in spans if any(span[0] <= at < span[1] for at in seen)]
            assert [(month["since"], month["until"]) for month in answer["months"]] == [
                (f"{since:%Y-%m-%dT%H:%M:%SZ}", f"{until:%Y-%m-%dT%H:%M:%SZ}") for since, until in spans
            ]
            for month, (since, until) in zip(answer["months"], spans, strict=True):
                names = ("eth0", "wlan0")
                assert (month["rx_bytes"], month["tx_bytes"]) == moved(counted, names, since, until), f"seed {seed}"
                expected = percentiles(counted, names, since, min(until, now_slot))
                assert leaves(month["percentile"]) == pytest.approx(leaves(expected)), f"seed {seed}"
            whole = [moved(counted, (name,), spans[0][0], spans[-1][1]) for name in ("br0", "eth0", "wlan0")]
            assert [
                (one["interface"], one["is_lowest"], one["rx_bytes"], one["tx_bytes"]) for one in answer["interfaces"]
            ] == [(name, name != "br0", *both) for name, both in zip(("br0", "eth0", "wlan0"), whole, strict=True)]
        fleet = await service.get("/usage", time_zone="Australia/Lord_Howe", billing_day=5, at="2025-10-20")
        span = midnight(date(2025, 10, 5), "Australia/Lord_Howe"), midnight(date(2025, 11, 5), "Australia/Lord_Howe")
        (server,) = fleet["servers"]
        assert (server["rx_bytes"], server["tx_bytes"]) == moved(counted, ("eth0", "wlan0"), *span), f"seed {seed}"


def moments() -> Iterator[st.SearchStrategy[Any]]:
    # About later changes of the clocks the time zone data of Python and of a database elsewhere may differ.
    yield st.datetimes(datetime(2005, 1, 1), datetime(2025, 11, 1)).map(  # noqa: DTZ001 - made aware right here
        lambda at: at.replace(tzinfo=UTC, microsecond=0)
    )
    yield st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Australia/Eucla", "Asia/Tehran",
         "America/St_Johns", "Pacific/Chatham", "America/Havana", "Atlantic/Azores", "Africa/Cairo",
         "Asia/Kolkata", "America/Sao_Paulo", "UTC"]
    )  # fmt: skip
    yield st.integers(1, 31)


@hypothesis_settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(at_zone_day=st.tuples(*moments()))
async def test_a_billing_month_begins_and_ends_at_the_midnights_of_its_zone(
    database: asyncpg.Connection, at_zone_day: tuple[datetime, str, int]
) -> None:
    at, zone, first_day = at_zone_day
    local = at.astimezone(ZoneInfo(zone))
    months = [(local.year * 12 + local.month - 1) + step for step in (-1, 0, 1)]
    starts = [midnight(billing_start(month // 12, month % 12 + 1, first_day), zone) for month in months]
    since = max(start for start in starts if start <= at)
    until = min(start for start in starts if start > at)

    row = await database.fetchrow("SELECT lower(p), upper(p) FROM billing_period($1, $2, $3) p", at, first_day, zone)

    assert row is not None
    assert (row[0], row[1]) == (since, until)
    # Every end is on a quarter of an hour: buckets of one make up each month.
    assert {since.minute % 15, until.minute % 15, since.second, until.second} == {0}


class TestTheMonthUnderWay:
    async def test_the_newest_heartbeat_counts_and_the_forecast_goes_on_at_its_rate(self, service: Client) -> None:
        start = datetime(2025, 11, 1, tzinfo=UTC)
        await service.post(heartbeat(at=start - timedelta(days=30), eth0=(0, 0)))
        await service.post(heartbeat(at=start, eth0=(0, 0)))
        await service.post(heartbeat(at=NOW, eth0=(9_000_000, 1_000_000)))

        month = (await service.get("/usage/nas"))["month"]

        assert (month["rx_bytes"], month["tx_bytes"], month["total_bytes"]) == (9_000_000, 1_000_000, 10_000_000)
        share = timedelta(days=30) / (NOW - start)
        assert month["expected"]["rx_bytes"] == round(9_000_000 * share)
        assert (month["since"], month["until"]) == ("2025-11-01T00:00:00Z", "2025-12-01T00:00:00Z")

    async def test_a_server_that_came_later_is_expected_to_go_on_as_since_then(self, service: Client) -> None:
        came = NOW - timedelta(days=2)
        await service.post(heartbeat(at=came, eth0=(0, 0)))
        await service.post(heartbeat(at=NOW, eth0=(2_000, 0)))

        month = (await service.get("/usage/nas"))["month"]

        rest = datetime(2025, 12, 1, tzinfo=UTC) - came
        assert month["expected"]["rx_bytes"] == round(2_000 * (rest / timedelta(days=2)))

    async def test_nothing_is_expected_of_less_than_a_day(self, service: Client) -> None:
        await service.post(heartbeat(at=NOW - timedelta(hours=23), eth0=(0, 0)))
        await service.post(heartbeat(at=NOW, eth0=(2_000, 0)))

        assert (await service.get("/usage/nas"))["month"]["expected"] is None

    async def test_a_percentile_whose_minutes_are_gone_is_null(
        self, database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(Clock, "now", lambda _: NOW)
        await keep(database_url, settings)
        for kept, is_known in ((35.0, True), (3.0, False)):
            told = Settings(
                api_key=KEY, data_dir=str(tmp_path), oldest_heartbeat_days=3_000, retain_1m_days=kept,
                retain_15m_days=400,
            )  # fmt: skip
            async with in_process(create_app(told, database_url=database_url, key=KEY)) as service:
                await service.post(heartbeat(at=NOW - timedelta(days=20), eth0=(0, 0)))
                await service.post(heartbeat(at=NOW - timedelta(hours=1), eth0=(3_000, 0)))

                month = (await service.get("/usage/nas"))["month"]

                assert (month["percentile"] is not None) is is_known


class TestBadInput:
    QUERIES = (
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "day1"}, "time_zone"),
        ({"time_zone": "x\0"}, "time_zone"),
        ({"billing_day": "0"}, "billing_day"),
        ({"billing_day": "32"}, "billing_day"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2025-11-05", "until": "2025-11-05"}, "since"),
        ({"since": "2020-01-01"}, "since"),
        ({"since": "0001-01-01", "by": "month"}, "since"),
        ({"until": "9999-12-31"}, "until"),
        ({"by": "week"}, "by"),
    )
    CURSORS = ("x", "W10=", "WyJzdW0iLC0xLCJhIl0=", "WyJzdW0iLDk5OTk5OTk5OTk5OTk5OTk5OTk5OSwiYSJd", "\0", "ä")

    async def test_it_is_422_and_names_the_parameter(self, service: Client, subtests: pytest.Subtests) -> None:
        await service.post(heartbeat(at=NOW, eth0=(0, 0)))

        for query, field in self.QUERIES:
            with subtests.test(str(query)):
                answer = await service.http.get("/api/v1/usage/nas", params=query)

                assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, field)

    async def test_a_cursor_that_is_none_is_422(self, service: Client, subtests: pytest.Subtests) -> None:
        for after in self.CURSORS:
            with subtests.test(repr(after)):
                answer = await service.http.get("/api/v1/usage", params={"after": after})

                assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "after")

    async def test_a_server_that_never_was_is_404_and_an_interface_that_never_was_is_empty(
        self, service: Client
    ) -> None:
        await service.post(heartbeat(at=NOW, eth0=(0, 0)))

        assert (await service.http.get("/api/v1/usage/nobody")).status_code == 404
        answer = await service.get("/usage/nas", interface="eth9\0")
        assert (answer["days"], answer["interfaces"], answer["month"]["samples"]) == ([], [], 0)
        assert answer["month"]["percentile"]["of_samples"] is None


class TestTheFleet:
    async def test_the_most_stand_first_and_pages_join(self, service: Client) -> None:
        for number in range(5):
            name = f"s{number}"
            await service.post(heartbeat(name, at=NOW - timedelta(days=1), eth0=(0, 0)))
            await service.post(heartbeat(name, at=NOW, eth0=(min(number, 3) * 1_000, 5_000 - number)))

        for direction, expected in (
            ("in", ["s3", "s4", "s2", "s1", "s0"]),
            ("out", ["s0", "s1", "s2", "s3", "s4"]),
            ("max", ["s0", "s1", "s2", "s3", "s4"]),
            ("sum", ["s3", "s4", "s2", "s1", "s0"]),
        ):
            found: list[str] = []
            after: dict[str, str] = {}
            while True:
                page = await service.get("/usage", direction=direction, limit=2, **after)
                found += [server["server_id"] for server in page["servers"]]
                if page["next"] is None:
                    break
                after = {"after": page["next"]}
            assert found == expected, direction
        assert page["servers"][-1]["quota"] is None

    async def test_a_month_that_is_no_longer_kept_whole_is_422(self, service: Client) -> None:
        answer = await service.http.get("/api/v1/usage", params={"at": "2015-01-01"})

        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "at")


async def test_an_upgrade_replaces_a_percentile_of_fewer_columns(
    database: asyncpg.Connection, database_url: str
) -> None:
    await database.execute(
        """
        DROP FUNCTION public.network_percentile;
        CREATE FUNCTION public.network_percentile(
            of_server text, since timestamptz, until timestamptz, of_interface text DEFAULT NULL,
            percentile numeric DEFAULT 95
        ) RETURNS TABLE (samples bigint, rx_bps double precision) LANGUAGE sql AS 'SELECT 0::bigint, 0::float8';
        UPDATE linkbeat.installation SET fingerprint = 'of another';
        """
    )

    await schema.migrate(database_url, lambda _: None)

    (row,) = await database.fetch("SELECT * FROM network_percentile('nas', now() - INTERVAL '1 hour', now())")
    assert (row["samples"], row["slots"], row["sum_bps"], row["sum_bps_of_slots"]) == (0, 12, None, None)


async def test_the_percentile_of_both_directions_is_that_of_their_sums(
    service: Client, database: asyncpg.Connection
) -> None:
    """Twenty slots: it sends where it does not receive, so that the sum is steady and each direction is not."""
    start = hours_ago(3).replace(minute=0)
    moved = [(30_000, 0), (0, 30_000)] * 10
    totals = [(0, 0), *accumulate(moved, lambda total, one: (total[0] + one[0], total[1] + one[1]))]
    for n, (rx, tx) in enumerate(totals):
        await service.post(heartbeat(at=start + timedelta(minutes=5 * n), eth0=(rx, tx)))

    (row,) = await database.fetch(
        "SELECT * FROM network_percentile('nas', $1, $2)", start + timedelta(minutes=5), start + timedelta(minutes=105)
    )

    assert dict(row) == {
        "samples": 20, "slots": 20, "rx_bps": 800, "tx_bps": 800, "rx_bps_of_slots": 800, "tx_bps_of_slots": 800,
        "sum_bps": 800, "sum_bps_of_slots": 800,
    }  # fmt: skip
    (half,) = await database.fetch(
        "SELECT * FROM network_percentile('nas', $1, $2, NULL, 50)",
        start + timedelta(minutes=5), start + timedelta(minutes=105),
    )  # fmt: skip
    assert (half["rx_bps"], half["tx_bps"], half["sum_bps"]) == (0, 0, 800)
