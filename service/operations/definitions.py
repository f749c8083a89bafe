"""Definitions for clients: when a server is late or offline, when a filesystem counts as full, and the periods."""

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
CLOCK_SKEW_SECONDS = 30.0
FILESYSTEM_WARNING_PERCENT = 80.0
FILESYSTEM_FULL_PERCENT = 95.0


class PeriodDefinition(msgspec.Struct, frozen=True):
    """A period of sparklines, which ends now.

    seconds         its length
    base_seconds    the finest bucket that can be requested; any other is a multiple of it
    bucket_seconds  the default bucket
    """

    name: str
    seconds: int
    base_seconds: int
    bucket_seconds: int


class Definitions(msgspec.Struct, frozen=True):
    """The thresholds and periods that the service and its dashboard use. They change only with the version.

    default_interval_seconds    interval between heartbeats of an agent that does not report it
    late_after_intervals        a server is late once this many intervals have passed since its `received_at`
    offline_after_intervals     its `status` is offline once this many have passed
    clock_skew_seconds          alert rules of kind agent fire while a clock is off by more than this
    filesystem_warning_percent  a filesystem is nearly full from here on, and full from filesystem_full_percent on
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
