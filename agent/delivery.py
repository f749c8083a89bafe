"""Empties the backlog into the service: what goes first, when to try again, what may be forgotten."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from agent.backlog import Backlog, Queued
from agent.identity import ApiKey
from agent.sender import Delivered, Failed, Outcome, Refused, Unauthorized

log = logging.getLogger(__name__)

BATCH_HEARTBEATS = 100
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0


class Transport(Protocol):
    """What Delivery needs of a Sender."""

    def heartbeat(self, body: bytes) -> Outcome: ...
    def heartbeats(self, bodies: list[bytes]) -> Outcome: ...
    def hurry(self, timeout_seconds: float) -> None: ...
    def close(self) -> None: ...


class Delivery:
    """Sends in a thread of its own, so that collecting never waits for the network.

    A live heartbeat goes before the backlog: after an outage the present is known at once and the past fills in,
    oldest first. A heartbeat leaves the backlog only when the service has acknowledged it or refused it for good.
    """

    def __init__(
        self,
        sender: Transport,
        key: ApiKey,
        backlog: Backlog,
        destination: str,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._sender, self._key, self._backlog, self._destination = sender, key, backlog, destination
        self._uniform = uniform
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._live_sequence = 0  # the newest that was sent as a live heartbeat
        self._batch_limit = BATCH_HEARTBEATS
        self._failures = 0  # in a row
        self._cause: str | None = None  # of the failure that was logged last
        self._is_new = True
        self._down_since = 0.0
        self._not_before = 0.0  # monotonic; until then the service has asked to be left alone
        self._flush_seconds = 1.0
        self.rejected = 0
        """Heartbeats that the service refused for good, since the start."""

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        """There is a new heartbeat in the backlog."""
        self._wake.set()

    def stop(self, within_seconds: float) -> None:
        """Tries once more to deliver what is left, and returns in time whether that works or not."""
        deadline = time.monotonic() + within_seconds
        self._flush_seconds = within_seconds
        self._stopping.set()
        self._wake.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def step(self) -> float | None:
        """One request. Returns the seconds to wait before the next, or None when there is nothing to send."""
        newest = self._backlog.newest()
        if newest is None:
            return None
        if newest.sequence > self._live_sequence:
            sent = [newest]
            outcome = self._sender.heartbeat(newest.body)
        else:
            sent = self._backlog.oldest(self._batch_limit)
            outcome = self._sender.heartbeats([each.body for each in sent])
        return self._settle(sent, outcome)

    def _settle(self, sent: list[Queued], outcome: Outcome) -> float:
        match outcome:
            case Delivered(rejected, _):
                for each in rejected:
                    if 0 <= each.position < len(sent):
                        self._count_rejected(each.reason)
                self._forget(sent)
                # Grown again after a split, so that one oversized heartbeat does not slow the rest for good.
                self._batch_limit = min(BATCH_HEARTBEATS, self._batch_limit * 2)
                self._note_success()
                return 0.0
            case Refused(_, reason):
                if len(sent) > 1:
                    # Only one of them may be bad, or only all together too large: halve until that one is alone.
                    self._batch_limit = len(sent) // 2
                    return 0.0
                self._count_rejected(reason)
                self._forget(sent)
                return 0.0
            case Unauthorized(cause, reason):
                if self._key.read_again():
                    return 0.0
                self._note_failure(
                    cause,
                    "%s refuses the token (%s); heartbeats are kept; check LINKBEAT_API_KEY or LINKBEAT_API_KEY_FILE",
                    reason,
                )
                return self._backoff(None)
            case Failed(cause, reason, retry_after):
                if cause == "TimeoutError" and len(sent) > 1:
                    # A slow line may never carry the whole batch in time.
                    self._batch_limit = len(sent) // 2
                self._note_failure(cause, "%s: %s; heartbeats are kept and sent later", reason)
                return self._backoff(retry_after)

    def _forget(self, sent: list[Queued]) -> None:
        self._backlog.remove([each.sequence for each in sent])
        self._live_sequence = max(self._live_sequence, sent[-1].sequence)

    def _backoff(self, retry_after: float | None) -> float:
        """Full jitter from 1 s to 60 s, without end; on top of what the service asked for.

        Added and not the greater of both: a fleet that was told the same number must not come back at once.
        """
        ceiling = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(self._failures, 10))
        self._failures += 1
        self._not_before = time.monotonic() + (retry_after or 0.0)
        return (retry_after or 0.0) + self._uniform(0.0, ceiling)

    def _count_rejected(self, reason: str) -> None:
        self.rejected += 1
        log.warning(
            "%s will not take a heartbeat, which is dropped (%d so far): %s", self._destination, self.rejected, reason
        )

    def _note_failure(self, cause: str, message: str, reason: str) -> None:
        if cause != self._cause:
            log.warning(message, self._destination, reason)
        if self._cause is None:
            self._down_since = time.monotonic()
        self._cause = cause

    def _note_success(self) -> None:
        if self._cause is not None:
            log.info(
                "%s: delivering again after %.0f s; %d heartbeats to catch up, %d dropped since the start",
                self._destination,
                time.monotonic() - self._down_since,
                len(self._backlog),
                self._backlog.dropped,
            )
        elif self._is_new:
            log.info("%s: first heartbeat delivered", self._destination)
        self._is_new, self._cause, self._failures = False, None, 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            wait = self.step()
            if wait is None:
                self._wake.wait()
            elif wait > 0:
                self._stopping.wait(wait)
        self._flush()
        self._sender.close()

    def _flush(self) -> None:
        """The live heartbeat and one batch, if they go at once and the service has not asked to be left alone."""
        if time.monotonic() >= self._not_before:
            self._sender.hurry(self._flush_seconds)
            if self.step() == 0.0:
                self.step()
