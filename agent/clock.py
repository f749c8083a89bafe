"""The agent's time: a wall clock that is set now and then, and a clock that nothing sets."""

import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from .segments import Record

REFUSED_AHEAD_MS = 5 * 60 * 1000  # how far ahead of its own clock the service takes a heartbeat
_SLEW_PERMILLE = 985
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(NamedTuple):
    """One moment by two clocks, in milliseconds.

    stamp_ms        since 1970, as a heartbeat of that moment says it.
    since_boot_ms   since the boot, by the clock that nothing sets.
    """

    stamp_ms: int
    since_boot_ms: int


class _Stamped(msgspec.Struct):
    boot_id: str | None = None
    since_boot_ms: int | None = None


def time_since_boot_ns() -> int:
    """Nanoseconds by a clock that nothing sets: it runs through suspend on Linux, and stands still in it elsewhere."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic_ns()


class Clock:
    """Wall-clock milliseconds that never repeat, and go back only to undo what was never stored. Thread-safe.

    The service keys samples by time: a time used twice would make the second sample a duplicate, and an older time
    would put newer counters before older ones. Nor may the time between two samples shrink by more than 2 %: the
    service holds what a link counted against its line rate over that time, with 2 % to spare, and would refuse a busy
    interval. So when the wall clock is set back, time goes on at 98.5 % of its pace until the wall clock has caught up;
    set forward, it is followed at once.

    From an hour ahead that would take days, and a year ahead the agent would not be heard for decades. But what the
    service refuses as being in the future was never stored: agent/restamp.py then goes back to the wall clock.
    """

    def __init__(
        self,
        now_ns: Callable[[], int] = time.time_ns,
        *,
        running_ns: Callable[[], int] = time_since_boot_ns,
        last: Moment | None = None,
    ) -> None:
        """`last`: of the last heartbeat of an earlier process in this boot, to stay above."""
        self._now_ns, self._running_ns = now_ns, running_ns
        self._lock = threading.Lock()
        self._last = last or Moment(0, self._now().since_boot_ms)

    def read(self) -> Moment:
        """Now, for one heartbeat; later than the wall clock for a while after that was set back."""
        with self._lock:
            wall = self._now()
            least_ms = max(self._last.stamp_ms + 1, slewed_ms(self._last, wall.since_boot_ms))
            self._last = wall._replace(stamp_ms=max(wall.stamp_ms, least_ms))
            return self._last

    def wall(self) -> Moment:
        """Now, by the wall clock alone."""
        with self._lock:
            return self._now()

    @property
    def last(self) -> Moment:
        """The last moment given; before the first, what to stay above."""
        with self._lock:
            return self._last

    def go_back(self, last: Moment | None) -> None:
        """From now on as if `last` had been the last moment given; None: as if there had been none."""
        with self._lock:
            self._last = last or Moment(0, self._now().since_boot_ms)

    def _now(self) -> Moment:
        return Moment(self._now_ns() // 1_000_000, self._running_ns() // 1_000_000)


def slewed_ms(last: Moment, since_boot_ms: int) -> int:
    """The least timestamp at `since_boot_ms` that leaves the time since `last` long enough."""
    return last.stamp_ms + (since_boot_ms - last.since_boot_ms) * _SLEW_PERMILLE // 1000


def rfc3339(stamp_ms: int) -> str:
    """Milliseconds since 1970 as a heartbeat says them: 2026-01-29T10:00:00.000Z."""
    moment = _EPOCH + timedelta(milliseconds=stamp_ms)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def moment_of(record: Record, boot_id: str | None) -> Moment | None:
    """When a heartbeat was collected; None for one of another boot, or of an agent that did not say since_boot_ms."""
    said = _said(record)
    if said is None or boot_id is None or said.boot_id != boot_id or said.since_boot_ms is None:
        return None
    return Moment(record.stamp_ms, said.since_boot_ms)


def last_moment(record: Record | None, boot_id: str | None) -> Moment | None:
    """The moment of an earlier process's last heartbeat, if the machine has not been booted since.

    Timestamps have to rise within a boot only: after one, a clock that was wrong is right at once.
    """
    said = _said(record) if record else None
    if record is None or said is None or boot_id is None or said.boot_id != boot_id:
        return None
    now_ms = time_since_boot_ns() // 1_000_000
    return Moment(record.stamp_ms, now_ms if said.since_boot_ms is None else min(now_ms, said.since_boot_ms))


def _said(record: Record) -> _Stamped | None:
    try:
        return msgspec.json.decode(record.body, type=_Stamped)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
