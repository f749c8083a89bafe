"""The spool's segments on the disk: what is written, read, and deleted when there is no room or no need for it."""

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from .acknowledged import Acknowledged
from .directory import Directory
from .keeping import Keeping
from .segments import Record, Segment

log = logging.getLogger(__name__)

# Only what has been too old for so long is dropped: a clock that is wrong for a while must not cost a week.
AGE_GRACE_SECONDS = 3600.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """Segments, oldest first. For one thread at a time."""

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
        """`on_given_up` is called with the sequences of heartbeats that waited and are lost for want of room."""
        self._directory, self._keeping = directory, keeping
        self._max_bytes, self._max_age_ms = max_bytes, max_age_ms
        self._segment_bytes = min(segment_bytes, max_bytes // 4)
        self._now_ms, self._monotonic = now_ms, monotonic
        self._on_given_up = on_given_up
        self._active: Segment | None = None  # the last segment, while it may be appended to
        self._too_old_since: float | None = None  # monotonic; of the oldest segment
        self.segments: list[Segment] = []

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)

    @property
    def room(self) -> int:
        """Bytes of records that fit the segment that is written next."""
        used = self._active.size if self._active else 0
        return self._segment_bytes - (used if used < self._segment_bytes else 0)

    def take(self, segments: list[Segment], *, is_last_whole: bool) -> None:
        """These were found in the directory."""
        self.segments = segments
        self._active = segments[-1] if segments and is_last_whole else None
        self._keeping.resume(max((segment.acknowledged_ms for segment in segments), default=0))
        self.forget_old()
        self.delete_done()

    def leave(self) -> None:
        """Writes nothing more to the segment that was written last."""
        self._active = None

    def write(self, records: Sequence[Record]) -> Segment:
        """Returns the segment that has these now. Raises OSError: none of them counts as written."""
        if self._active is not None and self._active.size >= self._segment_bytes:
            self._active = None
            self.delete_done()
        self._make_room(sum(len(record.body) for record in records))
        segment = self._active or Segment(self._directory.next_path())
        self._active = None  # for good, unless this succeeds
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
        """These of a segment; what it has lost since it was written is counted and not asked for again."""
        try:
            records = segment.read(set(sequences))
        except OSError as error:
            # Left where it is: the next start reads it again.
            log.warning("%s: %s; %d heartbeats of it are passed over", segment.path, error.strerror, segment.waiting)
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
        """Best effort: what is not noted comes again at the next start, as duplicates."""
        try:
            segment.acknowledge(sequences, how)
        except OSError as error:
            log.debug("%s: acknowledgements are not noted: %s", segment.path, error.strerror)

    def forget_old(self) -> None:
        """Keeps nothing on that need not be kept any longer."""
        for segment in self.segments:
            for sequence in segment.kept_sequences(self._keeping.is_over):
                segment.forget(sequence)

    def delete_done(self) -> None:
        """Deletes the segments of which nothing is needed."""
        for segment in list(self._done()):
            if segment.kept and (
                self._keeping.is_recent(segment.acknowledged_ms)
                or len(segment.kept_sequences(self._keeping.is_over)) < segment.kept
            ):
                continue
            try:
                segment.delete()
            except OSError as error:
                # It comes again at the next start, as duplicates.
                log.debug("%s: %s", segment.path, error.strerror)
            self.segments.remove(segment)

    def delete_kept(self) -> bool:
        """Deletes the oldest segment in which nothing waits, if there is one. Raises OSError."""
        done = next(self._done(), None)
        if done is not None:
            done.delete()
            self.segments.remove(done)
        return done is not None

    def _make_room(self, size: int) -> None:
        """Gives up the oldest segments, those past the age and those without which `size` bytes more do not fit; before
        any that waits, all that is only kept.

        Raises OSError if one cannot be deleted: the disk must not fill up beyond its bound.
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
        """Removes what is acknowledged from one segment, if that makes one smaller."""
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
            except OSError as error:  # as on a disk that others have filled: there, only deleting helps
                log.debug("%s cannot be made smaller: %s", segment.path, error.strerror)
        return False

    def _is_too_old(self, segment: Segment) -> bool:
        """Of the oldest segment: whether all in it has been past the age for long enough."""
        if segment is self._active or self._now_ms() - segment.newest_ms <= self._max_age_ms:
            self._too_old_since = None
            return False
        now = self._monotonic()
        if self._too_old_since is None:
            self._too_old_since = now
        return now - self._too_old_since >= AGE_GRACE_SECONDS

    def _boundary(self) -> Segment | None:
        """The last with an acknowledged heartbeat: below that timestamp none may be, and those after it may have been
        stamped by a wrong clock.
        """
        return next((each for each in reversed(self.segments) if each.has_acknowledged), None)

    def _done(self) -> Iterator[Segment]:
        """Those in which nothing waits, oldest first; never the last segment, which holds the newest timestamp."""
        boundary = self._boundary()
        return (each for each in self.segments[:-1] if not each.waiting and each is not boundary)
