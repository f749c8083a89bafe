"""Which aggregate answers which period, and how buckets lie in it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.errors import Problem

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
EPOCH = datetime(2000, 1, 3, tzinfo=UTC)  # a Monday: the origin of TimescaleDB's time_bucket


@dataclass(frozen=True)
class Period:
    """A span that ends now.

    relation        the aggregate that answers it; never the raw rows
    base_seconds    bucket of that aggregate; any bucket asked for is a multiple of it
    bucket_seconds  bucket of the answer, unless another is asked for
    """

    name: str
    duration_seconds: int
    relation: str
    base_seconds: int
    bucket_seconds: int

    @property
    def duration(self) -> timedelta:
        return timedelta(seconds=self.duration_seconds)

    def relation_of(self, family: str) -> str:
        """The aggregate of the same buckets of another family, such as server_metrics."""
        return self.relation.replace("network_traffic", family)


PERIODS = {
    period.name: period
    for period in (
        Period("1h", 3_600, "network_traffic_1m", 60, 60),
        Period("24h", 86_400, "network_traffic_15m", 900, 900),
        Period("7d", 7 * 86_400, "network_traffic_1h", 3_600, 3_600),
        Period("30d", 30 * 86_400, "network_traffic_1h", 3_600, 6 * 3_600),
        Period("1y", 365 * 86_400, "network_traffic_1d", 86_400, 86_400),
    )
}

# Relation and width in seconds of each aggregate of traffic, the finest first.
LEVELS = (
    ("network_traffic_1m", 60),
    ("network_traffic_15m", 900),
    ("network_traffic_1h", 3_600),
    ("network_traffic_1d", 86_400),
)


@dataclass(frozen=True)
class Grid:
    """Buckets of one answer: starts from `first` on, `bucket_seconds` apart, the last one under way.

    None of them starts before the period does, so that nothing in the answer is older than the period.
    """

    period: Period
    bucket_seconds: int
    first: datetime
    count: int

    @property
    def bucket(self) -> timedelta:
        return timedelta(seconds=self.bucket_seconds)

    def starts(self, count: int = 0) -> list[datetime]:
        """The start of each, and if there are not `count` of them, of those after now: clocks may run ahead."""
        first, width = self.first, self.bucket
        return [first + index * width for index in range(max(self.count, count))]


def grid(period: str, bucket: str | None, now: datetime) -> Grid:
    """The buckets of `period` up to `now`. Raises Problem (422) for a period or bucket that there is not."""
    chosen = PERIODS.get(period)
    if chosen is None:
        raise Problem.invalid("period", f"unknown period {period!r}, expected one of {', '.join(PERIODS)}")
    seconds = _bucket_seconds(bucket, chosen) if bucket is not None else chosen.bucket_seconds
    width = timedelta(seconds=seconds)
    last = now - (now - EPOCH) % width
    # To the microsecond: a first bucket that starts half a second too early would be older than the period.
    count = (chosen.duration - (now - last)) // width + 1
    return Grid(chosen, seconds, last - (count - 1) * width, count)


def bucket_seconds(text: str) -> int:
    """`5m` in seconds. Raises Problem (422)."""
    matched = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if matched is None:
        raise Problem.invalid("bucket", f"expected a number with s, m, h or d, such as 5m, got {text!r}")
    return int(matched[1]) * _UNITS[matched[2]]


def _bucket_seconds(text: str, period: Period) -> int:
    seconds = bucket_seconds(text)
    if seconds % period.base_seconds or not period.base_seconds <= seconds <= period.duration_seconds:
        raise Problem.invalid(
            "bucket",
            f"expected a multiple of {period.base_seconds} seconds up to {period.duration_seconds} "
            f"for period {period.name}, got {text!r}",
        )
    return seconds
