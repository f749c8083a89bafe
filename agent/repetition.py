"""Sends acknowledged heartbeats again when the responses name another database."""

import logging
from collections import deque
from typing import Protocol

from .answers import RejectedHeartbeat
from .segments import Record

log = logging.getLogger(__name__)

EPOCHS_REMEMBERED = 8
RETURNS_EXPECTED = 2  # a response in flight during a failover may arrive after newer ones


class Kept(Protocol):
    """The part of Spool that Repetition uses."""

    @property
    def epoch(self) -> str: ...
    def again(self, count: int, max_bytes: int) -> list[Record]: ...
    def due(self) -> int: ...
    def acknowledge(self, sequences: list[int], epoch: str = "", *, asked: str = "") -> None: ...


class Repetition:
    """Tracks the epoch of the responses to both lanes."""

    def __init__(self, spool: Kept, destination: str) -> None:
        self._spool, self._destination = spool, destination
        self._seen = deque([spool.epoch], maxlen=EPOCHS_REMEMBERED)
        self._returns = 0  # to an earlier epoch; a failover never causes one
        self._is_under_way = spool.due() > 0

    def has_begun(self, epoch: str) -> bool:
        """Whether this response is the first with its epoch and there are heartbeats to send again for it.

        Called after the spool has recorded the response.
        """
        was = self._seen[-1]
        if epoch in ("", was):
            return False
        self._returns += epoch in self._seen
        self._seen.append(epoch)
        if self._returns == RETURNS_EXPECTED + 1:
            log.warning(
                "%s alternates between several databases (%s, %s); acknowledged heartbeats are sent to each of them",
                self._destination,
                was,
                epoch,
            )
        if not (due := self._spool.due()):
            return False
        if not self._is_under_way and self._returns <= RETURNS_EXPECTED:
            log.info(
                "%s has another database now (%s, was %s); sending %d acknowledged heartbeats again",
                self._destination,
                epoch,
                was,
                due,
            )
        self._is_under_way = True
        return True

    def settle(self, batch: list[Record], refused: list[RejectedHeartbeat], epoch: str, asked: str) -> None:
        """Handles a response with `epoch` to heartbeats that were sent again for `asked`.

        Refused heartbeats are not dead letters: they were acknowledged once, and stay in the spool.
        """
        self._spool.acknowledge([each.sequence for each in batch], epoch, asked=asked)
        if refused:
            log.warning(
                "%s refused %d heartbeats that were acknowledged before and sent again: %s",
                self._destination,
                len(refused),
                refused[0].reason,
            )
        if self._is_under_way and not self._spool.due():
            self._is_under_way = False
            if self._returns <= RETURNS_EXPECTED:
                log.info("%s: all kept heartbeats have been sent again", self._destination)
