"""service.traffic.periods: where the buckets of an answer lie."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.http.errors import Problem
from service.traffic.periods import PERIODS, Grid, grid

ORIGIN = datetime(2000, 1, 3, tzinfo=UTC)  # of TimescaleDB's time_bucket for widths below a month
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

# Any moment, and those where an edge is missed by a microsecond or a second.
moments = st.one_of(
    st.integers(1, 10**14).map(lambda number: ORIGIN + timedelta(days=366, microseconds=31 * number)),
    st.builds(
        lambda days, minutes, microseconds: ORIGIN + timedelta(days=days, minutes=minutes, microseconds=microseconds),
        st.integers(1, 36_000),
        st.integers(0, 1_439),
        st.sampled_from([-1_000_000, -1, 0, 1, 500_000, 1_000_000]),
    ),
)


@st.composite
def buckets(draw: st.DrawFn) -> tuple[str, str | None]:
    """A period and a bucket that it allows, in any unit that says it."""
    period = PERIODS[draw(st.sampled_from(list(PERIODS)))]
    if draw(st.booleans()):
        return period.name, None
    seconds = draw(st.integers(1, period.duration_seconds // period.base_seconds)) * period.base_seconds
    unit = draw(st.sampled_from([unit for unit, length in UNITS.items() if seconds % length == 0]))
    number = seconds // UNITS[unit]
    return period.name, f"{number}{unit}" if number <= 999_999 else None


@given(asked=buckets(), now=moments)
@example(asked=("1h", None), now=datetime(2026, 1, 29, 12, 0, 0, 500_000, UTC))
@example(asked=("24h", None), now=datetime(2026, 1, 29, tzinfo=UTC))
def test_the_buckets_fill_the_period_and_nothing_else(asked: tuple[str, str | None], now: datetime) -> None:
    found = grid(*asked, now)

    starts, width, since = found.starts(), found.bucket, now - found.period.duration
    assert starts[0] >= since, "nothing is older than the period"
    assert starts[0] - width < since, "no bucket of the period is missing"
    assert starts[-1] <= now < starts[-1] + width, "the last bucket is under way"
    assert len(starts) == found.count
    assert all(later - earlier == width for earlier, later in pairwise(starts))
    assert all((start - ORIGIN) % width == timedelta(0) for start in starts), "as time_bucket cuts them"


@given(asked=buckets(), now=moments)
def test_a_bucket_is_a_multiple_of_its_aggregates(asked: tuple[str, str | None], now: datetime) -> None:
    found = grid(*asked, now)

    assert found.bucket_seconds % found.period.base_seconds == 0
    assert found.period.base_seconds <= found.bucket_seconds <= found.period.duration_seconds


@pytest.mark.parametrize("name", list(PERIODS))
def test_no_answer_has_more_buckets_than_a_client_can_draw(name: str) -> None:
    finest = grid(name, f"{PERIODS[name].base_seconds}s", datetime(2026, 1, 29, 12, 34, 56, tzinfo=UTC))

    assert finest.count <= 750


def test_periods_map_to_their_aggregates() -> None:
    found = {name: (one.duration_seconds, one.relation, one.bucket_seconds) for name, one in PERIODS.items()}

    assert found == {
        "1h": (3_600, "network_traffic_1m", 60),
        "24h": (86_400, "network_traffic_15m", 900),
        "7d": (604_800, "network_traffic_1h", 3_600),
        "30d": (2_592_000, "network_traffic_1h", 21_600),
        "1y": (31_536_000, "network_traffic_1d", 86_400),
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("1m", 60), ("5m", 300), ("3600s", 3_600), ("60m", 3_600), ("1h", 3_600)]
)
def test_units(text: str, seconds: int) -> None:
    found: Grid = grid("1h", text, datetime(2026, 1, 29, 12, 34, 56, tzinfo=UTC))

    assert found.bucket_seconds == seconds


@pytest.mark.parametrize("now_minute", [0, 59])
def test_a_bucket_as_long_as_the_period(now_minute: int) -> None:
    found = grid("1h", "1h", datetime(2026, 1, 29, 12, now_minute, tzinfo=UTC))

    assert found.starts() == [datetime(2026, 1, 29, 11 + n, tzinfo=UTC) for n in range(0 if now_minute == 0 else 1, 2)]


@pytest.mark.parametrize(
    ("period", "bucket"),
    [("1h", "30s"), ("1h", "90s"), ("1h", "61m"), ("24h", "20m"), ("7d", "90m"), ("1y", "36h"), ("1y", "366d"),
     ("1h", ""), ("1h", "5"), ("1h", "m"), ("1h", "0m"), ("1h", "-5m"), ("1h", "5M"), ("1h", "5 m"), ("1h", "05m"),
     ("1h", "5m\n"), ("1h", "\u0665m"), ("1h", "1e3s"), ("1h", "9999999s")],
)  # fmt: skip
def test_a_bucket_that_there_is_not_is_refused(period: str, bucket: str) -> None:
    with pytest.raises(Problem) as raised:
        grid(period, bucket, datetime(2026, 1, 29, tzinfo=UTC))

    assert (raised.value.status, raised.value.errors[0].path) == (422, "bucket")


@pytest.mark.parametrize("period", ["", "2h", "1H", "1h ", "forever", "network_traffic_1m"])
def test_an_unknown_period_is_refused_naming_those_there_are(period: str) -> None:
    with pytest.raises(Problem) as raised:
        grid(period, None, datetime(2026, 1, 29, tzinfo=UTC))

    assert (raised.value.status, raised.value.errors[0].path) == (422, "period")
    for name in PERIODS:
        assert name in raised.value.detail


@given(
    asked=buckets(), now=moments, interval=st.one_of(st.floats(0.001, 86_400), st.sampled_from([300, 3_600, 86_400]))
)
@example(asked=("1h", None), now=datetime(2026, 1, 29, 12, 0, tzinfo=UTC), interval=3_600)
@example(asked=("1h", "7m"), now=datetime(2026, 1, 29, 12, 0, tzinfo=UTC), interval=1_000)
def test_wider_buckets_fill_the_period_and_nothing_else(
    asked: tuple[str, str | None], now: datetime, interval: float
) -> None:
    narrow = grid(*asked, now)

    found = narrow.filled_by(interval)

    starts, width, since = found.starts(), found.bucket, now - found.period.duration
    assert found.bucket_seconds >= min(interval, found.period.duration_seconds)
    assert (found is narrow) == (interval <= narrow.bucket_seconds)
    assert found.bucket_seconds % found.period.base_seconds == 0
    assert starts[0] >= since, "nothing is older than the period"
    assert starts[-1] <= now, "no bucket is ahead of the clock"
    assert now < starts[-1] + width, "now is in the last bucket"
    assert starts[0] - width < since + narrow.bucket, "no bucket of the period is missing"
    assert all(later - earlier == width for earlier, later in pairwise(starts))
    # What the answer says of its buckets is enough to find them again.
    assert narrow.of_width(found.bucket_seconds) == found


@pytest.mark.parametrize(
    ("period", "interval", "seconds"),
    [("1h", 60, 60), ("1h", 60.1, 120), ("1h", 300, 300), ("1h", 301, 600), ("1h", 3_600, 3_600), ("1h", 86_400, 3_600),
     ("24h", 600, 900), ("24h", 901, 1_800), ("24h", 86_400, 86_400), ("7d", 3_601, 7_200), ("7d", 86_400, 86_400),
     ("30d", 86_400, 86_400), ("1y", 86_400, 86_400)],
)  # fmt: skip
def test_the_next_bucket_that_an_interval_fills(period: str, interval: float, seconds: int) -> None:
    found = grid(period, None, datetime(2026, 1, 29, 12, 34, 56, tzinfo=UTC)).filled_by(interval)

    assert found.bucket_seconds == seconds


def test_wider_buckets_stand_on_the_clock_while_there_are_four_of_them() -> None:
    now = datetime(2026, 1, 29, 12, 34, 56, tzinfo=UTC)

    assert grid("1h", None, now).filled_by(900).starts() == [
        now.replace(hour=11 + n // 60, minute=n % 60, second=0) for n in (45, 60, 75, 90)
    ]
    assert grid("1h", None, now).filled_by(1_800).starts() == [
        now.replace(hour=11, minute=35, second=0),
        now.replace(hour=12, minute=5, second=0),
    ]
    assert grid("1h", None, now).filled_by(7_200).starts() == [now.replace(hour=11, minute=35, second=0)]
