"""Sends the heartbeats of the spool to the service: the order, the retries, and when a heartbeat may be removed.

Two lanes, each with its own thread and connection. The live lane sends the newest heartbeat at once, which also shows
whether the service is reachable; while it is, the backlog lane sends older heartbeats, in order and in batches. So a
slow batch never delays the newest heartbeat, however short the interval.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from .answers import CLOCK_FUTURE, Delivered, Failed, Outcome, Refused, RejectedHeartbeat, Unauthorized
from .deadletter import DeadLetters
from .heartbeat import DeliveryReport
from .identity import ApiKey
from .lanes import Backoff, Lane
from .repetition import Kept, Repetition
from .segments import Record
from .spool import Spooled

log = logging.getLogger(__name__)

BATCH_HEARTBEATS = 500
BATCH_SECONDS = 2.5  # the service responds within 5 s, or with 503 if it is overloaded
BATCH_BYTES = 512 * 1024  # in memory twice while it is sent; the agent may use 30 MB in all
# A batch every five to nine intervals, the first after up to nine: so when a whole fleet reconnects at once, the
# service gets an eighth more requests than usual. An interval counts for at most 30 s.
PACE = (5.0, 9.0)
LONGEST_PACED_INTERVAL_SECONDS = 30.0
# A failover to a standby that lags loses the last seconds: these heartbeats are sent again within two intervals of the
# first response of the new database, before the rest at the usual pace.
RECENT_SECONDS = 60.0
RECENT_WITHIN_INTERVALS = 2.0
# After this many requests in a row without an accepted heartbeat, the service is at fault, or all heartbeats are.
REFUSED_IN_A_ROW = 3
HOLD_SECONDS = 300.0


class Transport(Protocol):
    """The part of Sender that Delivery uses."""

    def heartbeat(self, body: bytes) -> Outcome: ...
    def heartbeats(self, bodies: list[bytes]) -> Outcome: ...
    def hurry(self, timeout_seconds: float) -> None: ...
    def close(self) -> None: ...


class Waiting(Kept, Protocol):
    """The part of Spool that Delivery uses."""

    dropped: int

    def newest(self) -> Record | None: ...
    def oldest(self, count: int, max_bytes: int, before: int) -> list[Record]: ...
    def latest(self, before: int) -> list[Record]: ...
    def discard(self, sequences: list[int]) -> None: ...
    def state(self) -> Spooled: ...
    def __len__(self) -> int: ...


class Timestamps(Protocol):
    """The part of Timekeeper that Delivery uses."""

    def accepted(self, record: Record) -> None: ...
    def refused(self, records: Sequence[Record], service_ms: int | None) -> frozenset[int]: ...


class Delivery:
    """Sends in its own threads, so that collecting never waits for the network.

    A heartbeat stops waiting only when the service has acknowledged it, or has rejected it permanently and it is in the
    file of dead letters. A live heartbeat that is refused as being in the future stays: once the clock is corrected, it
    gets its true time (agent/restamp.py). Acknowledged heartbeats that the spool keeps are sent again when the
    responses name another epoch, in the backlog lane: the latest within two intervals, the others at the usual pace,
    after all heartbeats that were never acknowledged.
    """

    def __init__(
        self,
        live: Transport,
        batches: Transport,
        key: ApiKey,
        spool: Waiting,
        letters: DeadLetters,
        destination: str,
        *,
        timestamps: Timestamps | None = None,
        interval_seconds: float = 30.0,
        on_config: Callable[[], None] = lambda: None,
        uniform: Callable[[float, float], float] = random.uniform,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`on_config` is called in a sending thread when `config` has changed.

        Without `timestamps`, heartbeats stamped in the future wait until the service accepts them.
        """
        self._live, self._batches, self._key = live, batches, key
        self._spool, self._letters, self._destination = spool, letters, destination
        self._timestamps = timestamps
        self._on_config = on_config
        self._uniform, self._monotonic, self._now = uniform, monotonic, now
        self._stopping = threading.Event()
        self._live_lane = Lane("live", self.step_live, self._stopping)
        self._backlog_lane = Lane("backlog", self.step_backlog, self._stopping, wakes_early=True)
        self._live_backoff = Backoff(uniform)
        self._backlog_backoff = Backoff(uniform)
        self.keep_pace(interval_seconds)
        self._live_sequence = 0  # of the newest heartbeat sent live; the backlog lane sends all before it
        self._is_up = False  # the service accepted the last live heartbeat
        self._live_refused = self._batches_refused = 0  # in a row
        self._batch_limit = max(1, round(BATCH_HEARTBEATS * self._paced_seconds / 30))
        self._next_batch = 0.0  # monotonic
        self._sending_batch = False
        self._is_spread = False  # the next batch is delayed at random, to spread the load of a fleet
        self._recent_at: float | None = None  # monotonic; when the latest acknowledged heartbeats are sent again
        self._repetition = Repetition(spool, destination)
        self._cause: str | None = None  # of the last logged failure of the live lane
        self._backlog_cause: str | None = None
        self._is_new = True
        self._down_since = 0.0
        self._not_before = 0.0  # monotonic; the Retry-After of the service
        self.rejected = 0
        """Heartbeats that the service rejected permanently, since the start."""
        self.config = b"{}"
        """The last configuration from the service, a JSON object; {} before the first."""

    def keep_pace(self, interval_seconds: float) -> None:
        """Adapts to a heartbeat every `interval_seconds`."""
        self._interval_seconds = interval_seconds
        self._paced_seconds = min(interval_seconds, LONGEST_PACED_INTERVAL_SECONDS)
        self._live_backoff.patient_seconds = self._backlog_backoff.patient_seconds = 2 * interval_seconds

    def start(self) -> None:
        self._live_lane.thread.start()
        self._backlog_lane.thread.start()

    def is_alive(self) -> bool:
        return self._live_lane.thread.is_alive() and self._backlog_lane.thread.is_alive()

    def wake(self) -> None:
        """Tells the live lane that the spool has a new heartbeat."""
        self._live_lane.wake()

    def report(self) -> DeliveryReport:
        """The state of delivery, for the next heartbeat."""
        spooled = self._spool.state()
        return DeliveryReport.of(spooled, rejected=self.rejected, now_ms=int(self._now() * 1000))

    def stop(self, within_seconds: float) -> None:
        """Tries once more to deliver the remaining heartbeats. Returns within `within_seconds` in any case."""
        deadline = time.monotonic() + within_seconds
        self._stopping.set()
        self._live_lane.wake()
        self._backlog_lane.wake()
        flush = threading.Thread(target=self._flush, args=(within_seconds,), name="flush", daemon=True)
        flush.start()
        flush.join(max(0.0, deadline - time.monotonic()))

    def _flush(self, within_seconds: float) -> None:
        """Sends the live heartbeat and one batch, without retries, unless a Retry-After of the service is pending."""
        self._live_lane.thread.join()
        if self._monotonic() >= self._not_before:
            self._live.hurry(within_seconds)
            self.step_live()
            if self._is_up and not self._sending_batch:
                self._batches.hurry(within_seconds)
                self._next_batch = 0.0
                self.step_backlog()
        self._live.close()

    def step_live(self) -> float | None:
        """Sends one request. Returns the seconds to wait before the next, or None if there is nothing to send."""
        newest = self._spool.newest()
        if newest is None:
            return None
        self._live_sequence = newest.sequence
        outcome = self._live.heartbeat(newest.body)
        match outcome:
            case Delivered(rejected, _, config, _, epoch):
                if rejected:
                    self._bury([(newest, rejected[0].reason)])
                elif self._timestamps:
                    self._timestamps.accepted(newest)
                self._spool.acknowledge([] if rejected else [newest.sequence], epoch)
                self._note_epoch(epoch)
                self._live_refused = 0
                self._live_backoff.reset()
                self._note_success()
                if config != self.config:
                    self.config = config
                    self._on_config()
                return 0.0
            case Refused():
                return self._after_refusal(newest, outcome)
            case Unauthorized() | Failed():
                return self._after_failure(outcome, self._live_backoff)

    def _after_refusal(self, newest: Record, outcome: Refused) -> float | None:
        """Handles the refusal of a live heartbeat. Returns the result of step_live."""
        if outcome.code == CLOCK_FUTURE:
            if newest.sequence in self._restamped([newest], outcome.service_ms):
                return 0.0
            message = "%s refuses the time of this machine's clock (%s); heartbeats are kept until it is corrected"
            self._note_failure(CLOCK_FUTURE, message, outcome.reason)
            return None  # until the next heartbeat: this one would be refused again
        self._live_refused += 1
        if self._live_refused <= REFUSED_IN_A_ROW:
            self._bury([(newest, outcome.reason)])
            return 0.0
        self._note_failure(outcome.cause, "%s refuses every heartbeat (%s); keeping them from now on", outcome.reason)
        return self._live_backoff.wait()

    def _restamped(self, early: list[Record], service_ms: int | None) -> frozenset[int]:
        """Corrects timestamps after the service refused these as being in the future. Returns the changed sequence
        numbers.
        """
        return self._timestamps.refused(early, service_ms) if early and self._timestamps else frozenset()

    def step_backlog(self) -> float | None:
        """Sends one request. Returns the seconds to wait before the next, or None: wait until a live heartbeat is
        accepted.
        """
        if not self._is_up:
            return None
        if self._recent_at is not None and self._recent_at <= self._monotonic():
            self._send_recent()
        following = self._next_batch if self._recent_at is None else min(self._next_batch, self._recent_at)
        if (wait := following - self._monotonic()) > 0:
            return wait
        is_probe = self._batches_refused > REFUSED_IN_A_ROW
        # The probe is the newest heartbeat: it would be the last to be refused for its age.
        batch = (
            self._spool.latest(self._live_sequence)
            if is_probe
            else self._spool.oldest(self._batch_limit, BATCH_BYTES, self._live_sequence)
        )
        asked = ""
        if not batch:
            asked = self._spool.epoch
            batch = self._spool.again(self._batch_limit, BATCH_BYTES)
        if not batch:
            return None
        self._is_spread = False
        outcome = self._send_batch(batch)
        wait = self._settle(batch, outcome, asked, is_probe=is_probe)
        self._next_batch = self._monotonic() + wait
        return wait if self._recent_at is None else 0.0

    def _send_recent(self) -> None:
        """Sends the latest acknowledged heartbeats to the database of a new epoch; after a failure, tries again."""
        asked, self._recent_at = self._spool.epoch, None
        limit = min(self._batch_limit, max(2, round(RECENT_SECONDS / self._interval_seconds)))
        if not (batch := self._spool.again(limit, BATCH_BYTES)):
            return
        outcome = self._send_batch(batch)
        wait = self._settle(batch, outcome, asked, is_probe=False)
        if not isinstance(outcome, Delivered) and self._spool.again(1, BATCH_BYTES):
            self._recent_at = self._monotonic() + wait
            self._next_batch = max(self._next_batch, self._recent_at)

    def _send_batch(self, batch: list[Record]) -> Outcome:
        self._sending_batch = True
        begin = self._monotonic()
        outcome = self._batches.heartbeats([each.body for each in batch])
        self._fit_limit(len(batch), self._monotonic() - begin)
        self._batches.close()  # the next batch is a minute away; the service would have closed the connection by then
        self._sending_batch = False
        return outcome

    def _fit_limit(self, count: int, seconds: float) -> None:
        """Limits batches to half an interval: the service stores the heartbeats of one server one after the other, so a
        live heartbeat waits there for a batch.

        The limit grows again after a split, so that one oversized heartbeat does not slow down the rest permanently.
        """
        longest = min(BATCH_SECONDS, self._interval_seconds / 2)
        if seconds > longest:
            self._batch_limit = max(1, int(count * longest / seconds))
        elif seconds < longest / 2:
            self._batch_limit = min(BATCH_HEARTBEATS, self._batch_limit * 2)

    def _settle(self, batch: list[Record], outcome: Outcome, asked: str, *, is_probe: bool) -> float:
        """Handles the outcome of a batch. `asked`: the epoch for which it was sent again, "" for a first delivery."""
        match outcome:
            case Delivered(rejected, _, _, service_ms, epoch):
                refused = {each.position: each for each in rejected if 0 <= each.position < len(batch)}
                if asked:
                    return self._after_repetition(batch, list(refused.values()), epoch, asked)
                return self._after_answer(batch, refused, service_ms, epoch, is_probe=is_probe)
            case Refused(_, reason, code, service_ms):
                if len(batch) > 1:
                    # One heartbeat may be bad, or the batch too large: halve it until the bad one is alone.
                    self._batch_limit = len(batch) // 2
                    return 0.0
                refusal = RejectedHeartbeat(0, reason, code)
                if asked:
                    return self._after_repetition(batch, [refusal], "", asked)
                return self._after_answer(batch, {0: refusal}, service_ms, "", is_probe=is_probe)
            case Failed(cause, _, _) if len(batch) > 1 and cause in ("TimeoutError", "HTTP 503", "HTTP 504"):
                # The connection or the service may be too slow for a batch of this size.
                self._batch_limit = len(batch) // 2
        return self._after_failure(outcome, self._backlog_backoff)

    def _after_repetition(self, batch: list[Record], refused: list[RejectedHeartbeat], epoch: str, asked: str) -> float:
        self._backlog_backoff.reset()
        self._backlog_cause = None
        self._repetition.settle(batch, refused, epoch, asked)
        self._note_epoch(epoch)
        return self._uniform(*PACE) * self._paced_seconds

    def _note_epoch(self, epoch: str) -> None:
        """Handles the epoch of a response. If it is new, the next batches are delayed at random, so that a fleet does
        not send again all at once; but only once per batch, or an epoch that keeps changing would delay them endlessly.
        """
        if not self._repetition.has_begun(epoch):
            return
        now = self._monotonic()
        if self._recent_at is None:
            self._recent_at = now + self._uniform(0.0, RECENT_WITHIN_INTERVALS) * self._paced_seconds
        if now >= self._next_batch and not self._is_spread:
            self._next_batch = now + self._uniform(0.0, PACE[1]) * self._paced_seconds
            self._is_spread = True

    def _after_answer(
        self,
        batch: list[Record],
        refused: dict[int, RejectedHeartbeat],
        service_ms: int | None,
        epoch: str,
        *,
        is_probe: bool,
    ) -> float:
        """Handles a response to a batch. The service will never accept the heartbeats of `refused` unchanged."""
        self._backlog_backoff.reset()
        self._backlog_cause = None
        early = [batch[position] for position, each in refused.items() if each.code == CLOCK_FUTURE]
        restamped = self._restamped(early, service_ms)
        if len(refused) < len(batch) or early:
            # Something was accepted, or refused for a clock that was wrong: the service itself works.
            self._batches_refused = 0
        elif is_probe:
            return self._uniform(HOLD_SECONDS / 2, HOLD_SECONDS)
        else:
            self._batches_refused += 1
            if self._batches_refused > REFUSED_IN_A_ROW:
                log.warning(
                    "%s refuses all waiting heartbeats (%s); keeping them and trying one every few minutes",
                    self._destination,
                    next(iter(refused.values())).reason,
                )
                return self._uniform(HOLD_SECONDS / 2, HOLD_SECONDS)
        dead = [(batch[each.position], each.reason) for each in refused.values()]
        self._bury([(record, reason) for record, reason in dead if record.sequence not in restamped])
        self._spool.acknowledge([each.sequence for n, each in enumerate(batch) if n not in refused], epoch)
        self._note_epoch(epoch)
        return self._uniform(*PACE) * self._paced_seconds

    def _bury(self, refused: Sequence[tuple[Record, str]]) -> None:
        """Writes heartbeats to the dead letters before it removes them from the spool, so that none is lost between."""
        if not refused:
            return
        self._letters.add([(reason, record.body) for record, reason in refused])
        self._spool.discard([record.sequence for record, _ in refused])
        self.rejected += len(refused)
        log.warning(
            "%s will not take %d heartbeats (%d so far): %s",
            self._destination,
            len(refused),
            self.rejected,
            refused[0][1],
        )

    def _after_failure(self, outcome: Outcome, backoff: Backoff) -> float:
        is_live = backoff is self._live_backoff
        retry_after: float | None = None
        match outcome:
            case Unauthorized(cause, reason):
                if self._key.read_again():
                    return 0.0
                self._note_failure(
                    cause,
                    "%s refuses the token (%s); heartbeats are kept; check LINKBEAT_API_KEY or LINKBEAT_API_KEY_FILE",
                    reason,
                    is_live=is_live,
                )
            case Failed(cause, reason, retry_after):
                self._note_failure(cause, "%s: %s; heartbeats are kept and sent later", reason, is_live=is_live)
                self._not_before = self._monotonic() + (retry_after or 0.0)
        return backoff.wait(retry_after)

    def _note_failure(self, cause: str, message: str, reason: str, *, is_live: bool = True) -> None:
        if not is_live:
            if cause != self._backlog_cause:
                log.info(message, self._destination, reason)
            self._backlog_cause = cause
            return
        if cause != self._cause:
            log.warning(message, self._destination, reason)
        if self._cause is None:
            self._down_since = self._monotonic()
        self._cause = cause
        self._is_up = False

    def _note_success(self) -> None:
        if self._cause is not None:
            log.info(
                "%s: delivering again after %.0f s; %d heartbeats to catch up, %d dropped since the start",
                self._destination,
                self._monotonic() - self._down_since,
                len(self._spool),
                self._spool.dropped,
            )
        elif self._is_new:
            log.info("%s: first heartbeat delivered", self._destination)
        if not self._is_up:
            self._next_batch = max(
                self._next_batch, self._monotonic() + self._uniform(0.0, PACE[1]) * self._paced_seconds
            )
        self._is_new, self._cause, self._is_up = False, None, True
        self._backlog_lane.wake()
