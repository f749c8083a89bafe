"""Corrects timestamps from a clock that was ahead, once the clock is correct, so that agent and backlog can
continue."""

import logging
import threading
from collections.abc import Callable, Sequence

from .clock import REFUSED_AHEAD_MS, Clock, Moment, moment_of, rfc3339, slewed_ms
from .segments import Record
from .spool import Spool

log = logging.getLogger(__name__)

_JITTER_MS = 1000  # a wall clock that is slewed, not set


class Timekeeper:
    """Applies the service's verdict on timestamps to the clock and the spool. Thread-safe.

    A heartbeat contains its time by two clocks. If the wall clock has been corrected since, the time since boot shows
    what it should have been, unless the machine has been booted in between. A heartbeat that the service rejected
    because it is in the future, or that waited behind one, was never stored, so its time can be corrected.
    """

    def __init__(self, clock: Clock, spool: Spool, boot_id: Callable[[], str | None]) -> None:
        self._clock, self._spool, self._boot_id = clock, spool, boot_id
        self._lock = threading.Lock()
        self._stored: Moment | None = None  # of the newest live heartbeat that the service has stored

    def accepted(self, record: Record) -> None:
        """The service has stored this live heartbeat: no later one may have a lower timestamp."""
        # Systems other than Linux have no since_boot_ms; the heartbeat was collected just now.
        moment = moment_of(record, self._boot_id()) or self._clock.wall()._replace(stamp_ms=record.stamp_ms)
        with self._lock:
            self._stored = moment

    def refused(self, records: Sequence[Record], service_ms: int | None) -> frozenset[int]:
        """The service rejected these heartbeats because they are in the future by its clock, `service_ms`.

        If the wall clock has been corrected since they were collected, all waiting heartbeats from the time when it was
        ahead get their true time, and the agent's clock may go back. Returns the sequences that changed. While the wall
        clock is still wrong, nothing changes.
        """
        with self._lock:
            boot_id, wall = self._boot_id(), self._clock.wall()
            offset_ms = wall.stamp_ms - wall.since_boot_ms
            moments = [moment for record in records if (moment := moment_of(record, boot_id))]
            if self._clock.last.stamp_ms <= wall.stamp_ms + _JITTER_MS and not any(
                moment.stamp_ms > moment.since_boot_ms + offset_ms + _JITTER_MS for moment in moments
            ):
                return frozenset()
            service = wall if service_ms is None else wall._replace(stamp_ms=service_ms)
            revision = _Revision(boot_id, wall, service)
            revision.note(self._stored)
            was_ms = self._clock.last.stamp_ms
            changed = self._spool.revise(revision.revised)
            self._clock.go_back(revision.last)
        if changed or was_ms - (revision.last or wall).stamp_ms > REFUSED_AHEAD_MS:
            log.warning(
                "the clock was %.0f s ahead and has been corrected; corrected the time of %d waiting heartbeats",
                (was_ms - wall.stamp_ms) / 1000,
                len(changed),
            )
        return changed


class _Revision:
    """One pass over the spool, oldest first: each heartbeat gets the timestamp that Clock would give it by the current
    clock."""

    def __init__(self, boot_id: str | None, wall: Moment, service: Moment) -> None:
        """`wall`, `service`: the current time by this machine's wall clock and by the service's clock."""
        self._boot_id = boot_id
        self._offset_ms = wall.stamp_ms - wall.since_boot_ms
        self._highest_ms = max(wall.stamp_ms, service.stamp_ms) + REFUSED_AHEAD_MS
        self._refused_offset_ms = min(wall.stamp_ms, service.stamp_ms) - wall.since_boot_ms + REFUSED_AHEAD_MS
        self.last: Moment | None = None
        """The highest valid timestamp so far."""

    def note(self, moment: Moment | None) -> None:
        """Keeps `moment`, unless it cannot have been stored."""
        if moment and moment.stamp_ms <= self._highest_ms and (not self.last or moment.stamp_ms >= self.last.stamp_ms):
            self.last = moment

    def revised(self, record: Record, is_waiting: bool) -> Record:
        moment = moment_of(record, self._boot_id)
        if moment is None:
            return record
        # A heartbeat that would not have been rejected may be stored, even if its acknowledgement was lost.
        if not is_waiting or moment.stamp_ms <= moment.since_boot_ms + self._refused_offset_ms:
            self.note(moment)
            return record
        stamp_ms = moment.since_boot_ms + self._offset_ms
        if self.last:
            stamp_ms = max(stamp_ms, slewed_ms(self.last, moment.since_boot_ms))
        replaced = _restamped(record, stamp_ms)
        self.note(moment._replace(stamp_ms=replaced.stamp_ms))
        return replaced


def _restamped(record: Record, stamp_ms: int) -> Record:
    """The heartbeat with another timestamp; unchanged if that is not earlier, or if its text is not as expected."""
    # Inside a JSON string the quotes would be escaped, and no field before it is an object.
    old = b'"timestamp":"%b"' % rfc3339(record.stamp_ms).encode()
    if stamp_ms >= record.stamp_ms or old not in record.body:
        return record
    new = b'"timestamp":"%b"' % rfc3339(stamp_ms).encode()
    return record._replace(stamp_ms=stamp_ms, body=record.body.replace(old, new, 1))
