"""Today and this month according to the database: half-open ranges, correct across changes of daylight saving time."""

from datetime import datetime
from typing import NamedTuple

from service.database.pool import Database

# public.day_start and billing_period have the rules; calendar months are billing months that begin on the 1st.
_CALENDAR = """
SELECT day_start(c.today, $2), day_start(c.today + 1, $2), lower(c.month), upper(c.month)
FROM (SELECT ($1::timestamptz AT TIME ZONE $2)::date AS today, billing_period(at => $1, time_zone => $2) AS month) AS c
"""


class Range(NamedTuple):
    """[since, until), both in UTC."""

    since: datetime
    until: datetime


async def day_and_month(database: Database, time_zone: str, moment: datetime) -> tuple[Range, Range]:
    """The day and the month that contain `moment`, in a checked time zone. Raises Problem (503)."""
    ((day_since, day_until, month_since, month_until),) = await database.fetch(_CALENDAR, moment, time_zone)
    return Range(day_since, day_until), Range(month_since, month_until)
