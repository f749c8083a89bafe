"""Time ranges in queries: half-open, in UTC, and limited to times that can have samples."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from litestar.params import QueryParameter
from msgspec import Meta

from service.http.errors import Problem
from service.traffic.periods import EPOCH

_DAY = timedelta(days=1)


Moment = Annotated[datetime, Meta(tz=True)]


def moment(description: str) -> QueryParameter:
    """The annotation of a `str` that read_moment parses. Not a datetime: the framework would accept any number as
    seconds since 1970."""
    return QueryParameter(description=description, max_length=40, schema_extra={"format": "date-time"})


Since = Annotated[
    str | None, moment("Start of the range (inclusive), RFC 3339 with an offset; default: a day before `until`.")
]

Until = Annotated[str | None, moment("End of the range (exclusive), RFC 3339 with an offset; default: now.")]


def range_of(since: str | None, until: str | None, moment: datetime) -> tuple[datetime, datetime]:
    """[since, until) in UTC, limited to times that can have samples. Raises Problem (422)."""
    end = moment if until is None else read_utc("until", until)
    first = end - _DAY if since is None else read_utc("since", since)
    if first > end:
        raise Problem.invalid("since", "expected a time before `until`")
    return first, end


def read_moment(parameter: str, text: str) -> datetime:
    """Parses a time in a query. Raises Problem (422)."""
    try:
        return msgspec.convert(text, Moment)
    except msgspec.ValidationError as raised:
        raise Problem.invalid(parameter, "expected a time with an offset, such as 2026-01-29T10:00:00Z") from raised


def read_utc(parameter: str, text: str) -> datetime:
    """Parses a time in a query, and limits it to times that can have samples. Raises Problem (422)."""
    return utc(parameter, read_moment(parameter, text))


def utc(parameter: str, moment: datetime) -> datetime:
    """The time in UTC, limited to times that can have samples. Raises Problem (422)."""
    try:
        # Nothing was measured before the origin of time_bucket. At the other end, buckets must end before the last
        # date.
        return min(max(moment.astimezone(UTC), EPOCH), datetime(2200, 1, 1, tzinfo=UTC))
    except OverflowError as raised:  # times in the years 1 and 9999 may not exist in UTC
        raise Problem.invalid(parameter, "expected a time between the years 2 and 9998") from raised
