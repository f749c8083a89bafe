"""What a picture shows of a sparkline's JSON."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from service.pictures.charts import of_traffic
from service.traffic.periods import grid
from service.traffic.sparkline import Point, Sparkline

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


def test_buckets_that_are_wider_than_asked_for_are_drawn_and_said() -> None:
    """Of a server that reports every five minutes, in a period whose buckets are a minute wide."""
    wide = BUCKETS.filled_by(300)
    data = [Point(start, 3_600_000_000, 1, 96e6, 1.0) for start in wide.starts()]

    chart = of_traffic(msgspec.json.encode(Sparkline("nas", "network", "eth0", "1h", 300, data)), BUCKETS)

    assert list(chart.curves[0].values) == [96e6] * (wide.count - 1)
    assert chart.curves[0].peak == "96.0\N{NO-BREAK SPACE}Mb/s"
    assert "one value for each 5 minutes." in chart.description


def test_the_bucket_under_way_is_left_out_unless_it_is_all_there_is() -> None:
    assert shown(100.0, 1.0) == [100.0]
    assert of_traffic(sparkline(7.0), BUCKETS).curves[0].values[-1] == 7.0
