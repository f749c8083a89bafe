"""Ranges of time in a query: half-open, in UTC, and no longer than there can be anything in them."""

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
    """Of a `str`, to be read by read_moment. Not a datetime: the framework would take any number for seconds since
    1970."""
    return QueryParameter(description=description, max_length=40, schema_extra={"format": "date-time"})


Since = Annotated[str | None, moment("From here on, RFC 3339 with an offset; without it, a day before `until`.")]

Until = Annotated[str | None, moment("Up to here and without it, RFC 3339 with an offset; without it, now.")]


def range_of(since: str | None, until: str | None, moment: datetime) -> tuple[datetime, datetime]:
    """[since, until) in UTC, no longer than there can be anything in it. Raises Problem (422)."""
    end = moment if until is None else read_utc("until", until)
    first = end - _DAY if since is None else read_utc("since", since)
    if first > end:
        raise Problem.invalid("since", "expected a time before `until`")
    return first, end


def read_moment(parameter: str, text: str) -> datetime:
    """A time of a query. Raises Problem (422)."""
    try:
        return msgspec.convert(text, Moment)
    except msgspec.ValidationError as raised:
        raise Problem.invalid(parameter, "expected a time with an offset, such as 2026-01-29T10:00:00Z") from raised


def read_utc(parameter: str, text: str) -> datetime:
    """A time of a query as anything that was measured has it. Raises Problem (422)."""
    return utc(parameter, read_moment(parameter, text))


def utc(parameter: str, moment: datetime) -> datetime:
    """The moment as anything that was measured has it. Raises Problem (422)."""
    try:
        # Before it, nothing was measured; and time_bucket has its origin there. After, buckets must have an end.
        return min(max(moment.astimezone(UTC), EPOCH), datetime(2200, 1, 1, tzinfo=UTC))
    except OverflowError as raised:  # years 1 and 9999 have moments that UTC has not
        raise Problem.invalid(parameter, "expected a time between the years 2 and 9998") from raised
