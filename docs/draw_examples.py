"""Draws docs/images/picture-*.svg, as the service draws them, of a day and a week that were made up."""

import math
import random
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from service.pictures import charts
from service.pictures.drawing import Look, draw
from service.traffic.gauges import GaugePoint, GaugeSparkline
from service.traffic.periods import Grid, grid
from service.traffic.sparkline import Point, Sparkline

IMAGES = Path(__file__).with_name("images")
NOW = datetime(2026, 1, 29, 10, 7, tzinfo=UTC)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    random.seed(6)
    day, week = grid("24h", None, NOW), grid("7d", None, NOW)
    network = charts.of_traffic(msgspec.json.encode(_traffic(day)), day)
    for name, chart, look in (
        ("dark", network, Look(600, 200, "dark", True)),
        ("badge", network, Look(160, 32, "auto", True)),
        ("cpu", charts.of_gauge(msgspec.json.encode(_cpu(week)), week), Look(320, 80, "auto", True)),
    ):
        (IMAGES / f"picture-{name}.svg").write_bytes(draw(chart, look))


def _traffic(day: Grid) -> Sparkline:
    points = []
    for n, start in enumerate(day.starts()):
        if 58 <= n < 63:
            continue  # nobody reported
        rx = 3e7 * max(0.0, math.sin((n + 14) / 97 * 9)) + random.lognormvariate(14.5, 1.3)
        points.append(Point(start, 0, 0, rx, rx * random.uniform(0.1, 0.35)))
    return Sparkline("mediaserver", "network", "eth0", "24h", day.bucket_seconds, points)


def _cpu(week: Grid) -> GaugeSparkline:
    points = []
    for n, start in enumerate(week.starts()):
        mean = 12 + 45 * max(0.0, math.sin(n / 24 * 2 * math.pi)) ** 2 + random.uniform(-4, 8)
        points.append(GaugePoint(start, mean / 2, mean * 1.3, mean))
    return GaugeSparkline("mediaserver", "cpu", "percent", "7d", week.bucket_seconds, points)


if __name__ == "__main__":
    main()
