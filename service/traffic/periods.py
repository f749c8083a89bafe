"""Periods: the aggregate that each is read from, and the grid of its buckets."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated

from litestar.params import QueryParameter

from service.http.errors import Problem

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
EPOCH = datetime(2000, 1, 3, tzinfo=UTC)  # a Monday: the origin of TimescaleDB's time_bucket


@dataclass(frozen=True, eq=False)  # one of each: hashed by identity, which grids are many times in a request
class Period:
    """A span that ends now.

    relation        the aggregate that it is read from; never the raw rows
    base_seconds    bucket of that aggregate; any requested bucket is a multiple of it
    bucket_seconds  default bucket of the response
    span            name in pictures
    """

    name: str
    duration_seconds: int
    relation: str
    base_seconds: int
    bucket_seconds: int
    span: str

    @property
    def duration(self) -> timedelta:
        return timedelta(seconds=self.duration_seconds)

    def relation_of(self, family: str) -> str:
        """The aggregate with the same buckets in another family, such as server_metrics."""
        return self.relation.replace("network_traffic", family)


PERIODS = {
    period.name: period
    for period in (
        Period("1h", 3_600, "network_traffic_1m", 60, 60, "last hour"),
        Period("24h", 86_400, "network_traffic_15m", 900, 900, "last 24 hours"),
        Period("7d", 7 * 86_400, "network_traffic_1h", 3_600, 3_600, "last 7 days"),
        Period("30d", 30 * 86_400, "network_traffic_1h", 3_600, 6 * 3_600, "last 30 days"),
        Period("1y", 365 * 86_400, "network_traffic_1d", 86_400, 86_400, "last year"),
    )
}

PeriodName = Annotated[
    str,
    QueryParameter(
        description=f"The period, which ends now: one of {', '.join(PERIODS)}.", schema_extra={"enum": list(PERIODS)}
    ),
]
Bucket = Annotated[
    str | None,
    QueryParameter(
        description="Bucket of the response, such as 5m: a multiple of the period's finest one.", max_length=10
    ),
]

# Relation and width in seconds of each traffic aggregate, finest first.
LEVELS = (
    ("network_traffic_1m", 60),
    ("network_traffic_15m", 900),
    ("network_traffic_1h", 3_600),
    ("network_traffic_1d", 86_400),
)


# Preferred widths of wider buckets, in seconds.
WIDTHS = (120, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)


@dataclass(frozen=True)
class Grid:
    """The buckets of one response: they start at `first`, `bucket_seconds` apart; the last one is not complete.

    None of them starts before the period, so that nothing in the response is older than the period.
    """

    period: Period
    bucket_seconds: int
    first: datetime
    count: int

    @property
    def bucket(self) -> timedelta:
        return timedelta(seconds=self.bucket_seconds)

    def filled_by(self, interval_seconds: float) -> "Grid":
        """These buckets, or the next wider ones if a heartbeat every `interval_seconds` would leave some of them empty.

        They are never wider than the period: with a longer interval, the period is one bucket.
        """
        if interval_seconds <= self.bucket_seconds:
            return self
        least = -(-int(interval_seconds + 0.999) // self.bucket_seconds) * self.bucket_seconds
        width = next((one for one in WIDTHS if one >= interval_seconds and one % self.bucket_seconds == 0), least)
        return self.of_width(min(width, self.period.duration_seconds))

    def of_width(self, bucket_seconds: int) -> "Grid":
        """The same period in buckets of another width that `filled_by` has chosen.

        If there are few of them, they end with the period: buckets aligned to the clock would leave out so much of its
        beginning that the rest could have no sample.
        """
        if bucket_seconds == self.bucket_seconds:
            return self
        width, under_way = timedelta(seconds=bucket_seconds), self.first + (self.count - 1) * self.bucket
        if 4 * bucket_seconds > self.period.duration_seconds:
            count = self.period.duration_seconds // bucket_seconds
            return Grid(self.period, bucket_seconds, under_way + self.bucket - count * width, count)
        last = under_way - (under_way - EPOCH) % width
        count = (last - self.first) // width + 1
        return Grid(self.period, bucket_seconds, last - (count - 1) * width, count)

    def starts(self, count: int = 0) -> list[datetime]:
        """The start of each bucket; at least `count` of them, the last ones in the future, because clocks may be
        ahead."""
        first, width = self.first, self.bucket
        return [first + index * width for index in range(max(self.count, count))]

    def texts(self, count: int = 0) -> list[str]:
        """The same in JSON's form, made once for all series of a period: they cost more than reading one does."""
        return _texts(self, max(self.count, count))


@lru_cache(maxsize=16)
def _texts(buckets: Grid, count: int) -> list[str]:
    return [start.isoformat().replace("+00:00", "Z") for start in buckets.starts(count)]


def grid(period: str, bucket: str | None, now: datetime) -> Grid:
    """The buckets of `period` up to `now`. Raises Problem (422) for an unknown period or an invalid bucket."""
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
        raise Problem.invalid("bucket", f"expected a number followed by s, m, h or d, such as 5m, got {text!r}")
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
