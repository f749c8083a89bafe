"""What clients need to read the answers: when a server is late or offline, what counts as full, and the periods."""

from typing import Any

import msgspec
from litestar import Request, Response, Router, get

from service.cache import LONGEST_SECONDS, Answers
from service.fleet.listing import DEFAULT_INTERVAL_SECONDS, OFFLINE_AFTER_INTERVALS
from service.http.conditional import NOT_MODIFIED
from service.http.problems import problems
from service.traffic.periods import LEVELS, PERIODS, WIDTHS

# A heartbeat takes a moment to arrive, and an agent's timer is not exact.
LATE_AFTER_INTERVALS = 1.5
CLOCK_SKEW_SECONDS = 5.0
FILESYSTEM_WARNING_PERCENT = 80.0
FILESYSTEM_FULL_PERCENT = 95.0


class PeriodDefinition(msgspec.Struct, frozen=True):
    """A period of sparklines, which ends now.

    seconds         its length
    base_seconds    the finest bucket that can be asked for; any other is a multiple of it
    bucket_seconds  the bucket of an answer, unless the request names another
    """

    name: str
    seconds: int
    base_seconds: int
    bucket_seconds: int


class Definitions(msgspec.Struct, frozen=True):
    """The thresholds and periods that the service and its dashboard go by. They change with the version only.

    default_interval_seconds    between heartbeats, of an agent that does not report its interval
    late_after_intervals        a server is late once so many intervals have passed since its `received_at`
    offline_after_intervals     its `status` is offline once so many have
    clock_skew_seconds          a clock that is off by this much or more deserves a warning
    filesystem_warning_percent  a filesystem is nearly full from here on, and full from filesystem_full_percent
    periods                     shortest first
    bucket_widths_seconds       widths of buckets that divide hours or days evenly, narrowest first
    """

    default_interval_seconds: float
    late_after_intervals: float
    offline_after_intervals: float
    clock_skew_seconds: float
    filesystem_warning_percent: float
    filesystem_full_percent: float
    periods: list[PeriodDefinition]
    bucket_widths_seconds: list[int]


DEFINITIONS = Definitions(
    DEFAULT_INTERVAL_SECONDS,
    LATE_AFTER_INTERVALS,
    OFFLINE_AFTER_INTERVALS,
    CLOCK_SKEW_SECONDS,
    FILESYSTEM_WARNING_PERCENT,
    FILESYSTEM_FULL_PERCENT,
    [
        PeriodDefinition(one.name, one.duration_seconds, one.base_seconds, one.bucket_seconds)
        for one in PERIODS.values()
    ],
    [LEVELS[0][1], *WIDTHS],
)


def router(answers: Answers) -> Router:
    """GET /system/definitions."""

    @get("/", summary="Thresholds and periods", responses=problems(401) | NOT_MODIFIED)
    async def definitions(request: Request[Any, Any, Any]) -> Response[Definitions]:
        async def read() -> Definitions:
            return DEFINITIONS

        return await answers.get(request, "definitions", read, keep_seconds=LONGEST_SECONDS)

    return Router("/system/definitions", route_handlers=[definitions], tags=["system"])
