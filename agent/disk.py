"""The spool's segments on the disk: writes and reads them, and deletes those that are not needed or do not fit."""

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from .acknowledged import Acknowledged
from .directory import Directory
from .keeping import Keeping
from .segments import Record, Segment

log = logging.getLogger(__name__)

# Heartbeats are dropped only after they have been too old for this long: a clock that is briefly wrong must not cost a
# week of them.
AGE_GRACE_SECONDS = 3600.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """Segments, oldest first. Not thread-safe."""

    def __init__(
        self,
        directory: Directory,
        keeping: Keeping,
        *,
        max_bytes: int,
        max_age_ms: float,
        segment_bytes: int,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        on_given_up: Callable[[list[int]], None],
    ) -> None:
        """`on_given_up` gets the sequence numbers of unacknowledged heartbeats that are dropped to make room."""
        self._directory, self._keeping = directory, keeping
        self._max_bytes, self._max_age_ms = max_bytes, max_age_ms
        self._segment_bytes = min(segment_bytes, max_bytes // 4)
        self._now_ms, self._monotonic = now_ms, monotonic
        self._on_given_up = on_given_up
        self._active: Segment | None = None  # the last segment, while appending to it is allowed
        self._too_old_since: float | None = None  # monotonic; of the oldest segment
        self.segments: list[Segment] = []

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)

    @property
    def room(self) -> int:
        """Bytes of records that still fit into the segment to be written next."""
        used = self._active.size if self._active else 0
        return self._segment_bytes - (used if used < self._segment_bytes else 0)

    def take(self, segments: list[Segment], *, is_last_whole: bool) -> None:
        """Takes over the segments found in the directory."""
        self.segments = segments
        self._active = segments[-1] if segments and is_last_whole else None
        self._keeping.resume(max((segment.acknowledged_ms for segment in segments), default=0))
        self.forget_old()
        self.delete_done()

    def leave(self) -> None:
        """Stops appending to the last segment."""
        self._active = None

    def write(self, records: Sequence[Record]) -> Segment:
        """Returns the segment to which these were written. Raises OSError: none of them counts as written."""
        if self._active is not None and self._active.size >= self._segment_bytes:
            self._active = None
            self.delete_done()
        self._make_room(sum(len(record.body) for record in records))
        segment = self._active or Segment(self._directory.next_path())
        self._active = None  # set again below if the write succeeds
        try:
            segment.append(records)
        except OSError:
            if not segment.size:
                with suppress(OSError):
                    segment.delete()
            raise
        if segment not in self.segments:
            self.segments.append(segment)
        self._active = segment
        return segment

    def read(self, segment: Segment, sequences: Sequence[int]) -> list[Record]:
        """The records of these sequence numbers. Records that the file has lost are counted and not requested again."""
        try:
            records = segment.read(set(sequences))
        except OSError as error:
            # The file is left in place: the next start reads it again.
            log.warning("%s: %s; its %d heartbeats are skipped", segment.path, error.strerror, segment.waiting)
            self._directory.damaged += 1
            self.segments.remove(segment)
            self._active = None if segment is self._active else self._active
            return []
        if len(records) < len(sequences):
            found = {record.sequence for record in records}
            self._directory.keep_damaged(segment.path)
            self._active = None if segment is self._active else self._active
            for lost in [each for each in sequences if each not in found]:
                segment.forget(lost)
        return records

    def read_waiting(self, segment: Segment) -> list[Record]:
        return self.read(segment, segment.waiting_sequences) if segment.waiting else []

    def acknowledge(self, segment: Segment, sequences: Sequence[int], how: Acknowledged) -> None:
        """Best effort: heartbeats whose acknowledgement is not written are sent again after the next start, as
        duplicates.
        """
        try:
            segment.acknowledge(sequences, how)
        except OSError as error:
            log.debug("%s: acknowledgements cannot be written: %s", segment.path, error.strerror)

    def forget_old(self) -> None:
        """Forgets the acknowledged heartbeats that need not be kept any longer."""
        for segment in self.segments:
            for sequence in segment.kept_sequences(self._keeping.is_over):
                segment.forget(sequence)

    def delete_done(self) -> None:
        """Deletes the segments without needed heartbeats."""
        for segment in list(self._done()):
            if segment.kept and (
                self._keeping.is_recent(segment.acknowledged_ms)
                or len(segment.kept_sequences(self._keeping.is_over)) < segment.kept
            ):
                continue
            try:
                segment.delete()
            except OSError as error:
                # The next start reads it again and sends duplicates.
                log.debug("%s: %s", segment.path, error.strerror)
            self.segments.remove(segment)

    def delete_kept(self) -> bool:
        """Deletes the oldest segment without waiting heartbeats; False if all segments have some. Raises OSError."""
        done = next(self._done(), None)
        if done is not None:
            done.delete()
            self.segments.remove(done)
        return done is not None

    def _make_room(self, size: int) -> None:
        """Drops the oldest segments: those past the age limit, and as many as needed to fit `size` more bytes.
        Acknowledged heartbeats are removed before any that waits.

        Raises OSError if a segment cannot be deleted: the spool must not exceed its size limit.
        """
        while self.segments:
            oldest = self.segments[0]
            is_too_old = self._is_too_old(oldest)
            if self.size + size <= self._max_bytes and not is_too_old:
                return
            if not is_too_old and (self.delete_kept() or self._remove_kept()):
                continue
            oldest.delete()
            del self.segments[0]
            if oldest is self._active:
                self._active = None
            if oldest.waiting:
                self._on_given_up(oldest.waiting_sequences)

    def _remove_kept(self) -> bool:
        """Removes the acknowledged heartbeats of one segment. Returns False if that makes no segment smaller."""
        boundary = self._boundary()
        for segment in self.segments[:-1]:
            if not segment.has_acknowledged:
                continue
            left = self.read_waiting(segment)
            if segment not in self.segments:
                return True
            try:
                if segment is boundary and (newest := segment.newest_acknowledged) is not None:
                    left = sorted([*left, *segment.read({newest})])
                if segment.reduce_to(left):
                    return True
            except OSError as error:  # for example on a full disk, where only deleting helps
                log.debug("%s cannot be made smaller: %s", segment.path, error.strerror)
        return False

    def _is_too_old(self, segment: Segment) -> bool:
        """Whether everything in the oldest segment has been past the age limit for the grace period."""
        if segment is self._active or self._now_ms() - segment.newest_ms <= self._max_age_ms:
            self._too_old_since = None
            return False
        now = self._monotonic()
        if self._too_old_since is None:
            self._too_old_since = now
        return now - self._too_old_since >= AGE_GRACE_SECONDS

    def _boundary(self) -> Segment | None:
        """The last segment with an acknowledged heartbeat: no later heartbeat may have a lower timestamp than that one,
        and heartbeats after it may have been stamped by a wrong clock.
        """
        return next((each for each in reversed(self.segments) if each.has_acknowledged), None)

    def _done(self) -> Iterator[Segment]:
        """Segments without waiting heartbeats, oldest first; never the last segment, which has the newest timestamp."""
        boundary = self._boundary()
        return (each for each in self.segments[:-1] if not each.waiting and each is not boundary)
