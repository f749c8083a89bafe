"""What a picture shows of a sparkline's JSON."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from service.periods import grid
from service.pictures.charts import of_traffic
from service.sparkline import Point, Sparkline

NOW = datetime(2026, 1, 29, 12, 0, 30, tzinfo=UTC)
BUCKETS = grid("1h", None, NOW)


def sparkline(*rates: float | None) -> bytes:
    """Of the newest buckets, the last one under way; None is a bucket without samples."""
    first = BUCKETS.first + (BUCKETS.count - len(rates)) * BUCKETS.bucket
    data = [
        Point(first + place * timedelta(minutes=1), 1, 1, rate, rate)
        for place, rate in enumerate(rates)
        if rate is not None
    ]
    return msgspec.json.encode(Sparkline("nas", "network", "eth0", "1h", 60, data))


def shown(*rates: float | None) -> list[Any]:
    return list(of_traffic(sparkline(*rates), BUCKETS).curves[0].values[-len(rates) + 1 :])


def test_what_crossed_a_gap_is_the_mean_over_it() -> None:
    assert shown(100.0, None, None, 330.0, 50.0, 1.0) == [100.0, None, None, pytest.approx(110), 50.0]


def test_the_first_bucket_of_all_is_behind_no_gap() -> None:
    assert shown(None, 90.0, 80.0, 1.0) == [None, 90.0, 80.0]


def test_the_bucket_under_way_is_left_out_unless_it_is_all_there_is() -> None:
    assert shown(100.0, 1.0) == [100.0]
    assert of_traffic(sparkline(7.0), BUCKETS).curves[0].values[-1] == 7.0
