"""Heartbeats that were acknowledged and are sent again, because the answers name another database."""

import logging
from collections import deque
from typing import Protocol

from .answers import RejectedHeartbeat
from .segments import Record

log = logging.getLogger(__name__)

EPOCHS_REMEMBERED = 8
RETURNS_EXPECTED = 2  # an answer that was on its way during a failover may come last


class Kept(Protocol):
    """What Repetition needs of a Spool."""

    @property
    def epoch(self) -> str: ...
    def again(self, count: int, max_bytes: int) -> list[Record]: ...
    def due(self) -> int: ...
    def acknowledge(self, sequences: list[int], epoch: str = "", *, asked: str = "") -> None: ...


class Repetition:
    """Follows the epoch of the answers, in both lanes."""

    def __init__(self, spool: Kept, destination: str) -> None:
        self._spool, self._destination = spool, destination
        self._seen = deque([spool.epoch], maxlen=EPOCHS_REMEMBERED)
        self._returns = 0  # to an epoch that there was before, which no failover brings about
        self._is_under_way = spool.due() > 0

    def has_begun(self, epoch: str) -> bool:
        """Whether this answer is the first with its epoch, and there are heartbeats to send again for it.

        The spool knows the answer already.
        """
        was = self._seen[-1]
        if epoch in ("", was):
            return False
        self._returns += epoch in self._seen
        self._seen.append(epoch)
        if self._returns == RETURNS_EXPECTED + 1:
            log.warning(
                "%s answers for several databases by turns (%s, %s); each of them gets what the others have",
                self._destination,
                was,
                epoch,
            )
        if not (due := self._spool.due()):
            return False
        if not self._is_under_way and self._returns <= RETURNS_EXPECTED:
            log.info(
                "%s has another database now (%s, was %s); %d heartbeats that were acknowledged before are sent again",
                self._destination,
                epoch,
                was,
                due,
            )
        self._is_under_way = True
        return True

    def settle(self, batch: list[Record], refused: list[RejectedHeartbeat], epoch: str, asked: str) -> None:
        """The service has answered with `epoch` to what was sent again for `asked`.

        Those that it refuses are not dead letters: they were acknowledged once, and are kept on.
        """
        self._spool.acknowledge([each.sequence for each in batch], epoch, asked=asked)
        if refused:
            log.warning(
                "%s will not take %d heartbeats again that were acknowledged before: %s",
                self._destination,
                len(refused),
                refused[0].reason,
            )
        if self._is_under_way and not self._spool.due():
            self._is_under_way = False
            if self._returns <= RETURNS_EXPECTED:
                log.info("%s: all that was kept has been sent again", self._destination)
