"""Group commit: heartbeats that arrive while a transaction runs are gathered into the next one.

There is no timer: the running commit is the timer. Each heartbeat is answered when its own transaction has
committed, so an answer of 200 means that it is on the database's disk. Nothing waits without a bound.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Self

import asyncpg

from service.batch import CALL, Pending, Stored, arguments
from service.database import RETRY_AFTER_SECONDS, UNREACHABLE, connect_writer
from service.errors import FieldError, Problem
from service.wire import Heartbeat

log = logging.getLogger("linkbeat")

BATCH_HEARTBEATS = 200  # past it a batch's time grows and its rate hardly does
BATCH_SAMPLES = 2_000  # hosts with hundreds of interfaces fill a batch sooner
ANSWER_SECONDS = 5.0
OVERDUE_SECONDS = 0.25  # between two looks for heartbeats that waited too long
ATTEMPTS = 4
RECONNECT_SECONDS = 0.5

# Another writer or a migration was in the way: the same batch passes when tried again.
_PASSING = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,
    asyncpg.InvalidCachedStatementError,
)

# A value, and not the database's state, is to blame: the others of the batch pass without its heartbeat.
_POISON = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.RaiseError,  # a trigger of the operator's own
    ValueError,
)


_STORED = Stored()


class Ingest:
    """The queue and its writers. `async with Ingest(url, limit, …) as ingest: await ingest.store(heartbeat, time)`.

    More than one writer lets one batch be put together while the other is in the database. A batch holds one heartbeat
    of a server at most, and a server is in one batch at a time: its heartbeats are stored in the order of their
    arrival, and a machine that replays a day does not keep the others waiting.
    """

    def __init__(
        self,
        url: str,
        queue_heartbeats: int,
        *,
        series_budget: int,
        fold_seconds: int,
        writers: int = 2,
    ) -> None:
        self._url = url
        self._limit = queue_heartbeats
        self._folding = series_budget, fold_seconds
        self._writers = writers
        self._queue: dict[str, deque[Pending]] = {}  # by server; whose turn is next stands first
        self._busy: set[str] = set()  # servers of the batches that are in the database
        self._queued = 0
        self._unanswered: set[Pending] = set()
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connected = 0
        self._closing = False
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        ready = [asyncio.Event() for _ in range(self._writers)]
        self._tasks = [asyncio.create_task(self._write(event), name="linkbeat writer") for event in ready]
        self._watch = asyncio.create_task(self._refuse_overdue(), name="linkbeat overdue heartbeats")
        for event in ready:
            await event.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        """What is queued is written first, as long as the database takes it."""
        self._closing = True
        self._arrived.set()
        _done, unfinished = await asyncio.wait(self._tasks, timeout=ANSWER_SECONDS)
        for task in (*unfinished, self._watch):
            task.cancel()
        await asyncio.gather(*self._tasks, self._watch, return_exceptions=True)
        _refuse(self._unanswered, _away())

    @property
    def is_connected(self) -> bool:
        """Whether heartbeats can be written now."""
        return self._connected > 0

    async def store(self, heartbeat: Heartbeat, time: datetime) -> Stored:
        """Returns when the heartbeat has been committed.

        Raises Problem: 503 where that is not known within ANSWER_SECONDS, at once where it cannot be; 422 where the
        database refuses the heartbeat's values.
        """
        if not self._connected or self._closing:
            raise _away()
        if self._queued >= self._limit:
            self.counts["overloaded"] += 1
            raise Problem.retry("overloaded", "too many heartbeats wait for the database", RETRY_AFTER_SECONDS)
        loop = asyncio.get_running_loop()
        pending = Pending(heartbeat, time, loop.time() + ANSWER_SECONDS, loop.create_future())
        self._unanswered.add(pending)
        self._queued += 1
        waiting = self._queue.get(heartbeat.server_id)
        if waiting is None:
            self._queue[heartbeat.server_id] = deque((pending,))
        else:
            waiting.append(pending)
        self._arrived.set()
        try:
            return await pending.answer
        finally:
            self._unanswered.discard(pending)

    async def _refuse_overdue(self) -> None:
        """A timer for each heartbeat would cost more than the heartbeat."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(OVERDUE_SECONDS)
            now = loop.time()
            _refuse([pending for pending in self._unanswered if pending.deadline < now], _away())

    async def _write(self, tried: asyncio.Event) -> None:
        """One writer: connects, commits batch after batch, connects again when the connection is lost."""
        while not self._closing:
            try:
                connection = await connect_writer(self._url)
            except (*UNREACHABLE, asyncpg.PostgresError) as raised:
                if tried.is_set():
                    log.debug("no connection to the database: %s", raised)
                else:
                    log.warning("no connection to the database: %s", raised)
                if not self._connected:
                    _refuse(self._unanswered, _away())
                tried.set()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            self._connected += 1
            tried.set()
            try:
                while batch := await self._next_batch():
                    await self._write_batch(connection, batch)
            except UNREACHABLE as raised:
                log.warning("connection to the database lost: %s: %s", type(raised).__name__, raised)
            finally:
                self._connected -= 1
                connection.terminate()

    async def _write_batch(self, connection: asyncpg.Connection, batch: list[Pending]) -> None:
        """Raises one of UNREACHABLE when the connection is lost; the batch is then queued again."""
        servers = {pending.heartbeat.server_id for pending in batch}
        self._busy |= servers
        try:
            await self._commit(connection, batch)
        except UNREACHABLE:
            # Whether it was committed is not known; writing it again changes nothing if it was.
            for pending in batch:
                self._queue.setdefault(pending.heartbeat.server_id, deque()).appendleft(pending)
            self._queued += len(batch)
            raise
        except Exception:
            # A bug. The writer lives on, with a connection in a known state.
            log.exception("a batch of %d heartbeats failed", len(batch))
            self.counts["bugs"] += 1
            _refuse(batch, _away())
            raise ConnectionResetError("after a bug") from None
        finally:
            self._busy -= servers
            if self._queue:
                self._arrived.set()

    async def _next_batch(self) -> list[Pending]:
        """What waits, up to a batch, in key order; empty only at the end."""
        while True:
            batch = self._take()
            if batch or (self._closing and not self._queue):
                return batch
            self._arrived.clear()
            await self._arrived.wait()

    def _take(self) -> list[Pending]:
        batch: dict[str, Pending] = {}
        samples = 0
        for server_id in list(islice(self._queue, BATCH_HEARTBEATS + len(self._busy))):
            if len(batch) >= BATCH_HEARTBEATS or samples >= BATCH_SAMPLES:
                break
            if server_id in self._busy:
                continue
            waiting = self._queue.pop(server_id)
            while waiting:
                pending = waiting.popleft()
                self._queued -= 1
                if not pending.answer.done():  # else its client was told to come again
                    batch[server_id] = pending
                    samples += len(pending.heartbeat.network_interfaces or ())
                    break
            if waiting:
                self._queue[server_id] = waiting  # behind the others
        # Rows are locked in this order: two batches in one order cannot wait for each other.
        return [batch[server_id] for server_id in sorted(batch)]

    async def _commit(self, connection: asyncpg.Connection, batch: Sequence[Pending]) -> None:
        """Writes the batch and answers each of it. Raises one of UNREACHABLE when the connection is lost."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                row = await connection.fetchrow(CALL, *arguments(batch, *self._folding))
            except _PASSING as raised:
                self.counts[f"retry {raised.sqlstate}"] += 1
                if attempt == ATTEMPTS:
                    log.warning("a batch failed %d times: %s: %s", attempt, type(raised).__name__, raised)
                    _refuse(batch, _away())
                    return
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
                batch = [pending for pending in batch if not pending.answer.done()]
                if not batch:
                    return  # all were told to come again while a lock was waited for
            except _POISON as raised:
                await self._isolate(connection, batch, raised)
                return
            except UNREACHABLE:
                raise
            except asyncpg.PostgresError as raised:
                log.error("the database refused a batch: %s: %s", type(raised).__name__, raised)
                self.counts[f"refused {raised.sqlstate}"] += 1
                _refuse(batch, _away())
                return
            else:
                assert row is not None
                self._answer(batch, row)
                return

    async def _isolate(self, connection: asyncpg.Connection, batch: Sequence[Pending], raised: Exception) -> None:
        """One record that the database cannot take must not fail its neighbours: halves, until it stands alone."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._commit(connection, batch[:middle])
            await self._commit(connection, batch[middle:])
            return
        log.error("the database cannot take a heartbeat of %s: %s", batch[0].heartbeat.server_id, raised)
        self.counts["poisoned"] += 1
        reason = "holds a value that the database cannot take"
        _refuse(batch, Problem("invalid", reason, [FieldError("", reason)]))

    def _answer(self, batch: Sequence[Pending], row: asyncpg.Record) -> None:
        self.counts["heartbeats"] += len(batch)
        self.counts["batches"] += 1
        if row["registered"] or row["duplicate"]:
            registered, conflicts = set(row["registered"] or ()), set(row["conflict"] or ())
            duplicates = Counter(row["duplicate"] or ())
            for place, pending in enumerate(batch, start=1):
                samples = len(pending.heartbeat.network_interfaces or ())
                stored = Stored(place in registered, duplicates[place] >= max(samples, 1), place in conflicts)
                self.counts["duplicates"] += stored.duplicate
                self.counts["conflicts"] += stored.conflict
                if not pending.answer.done():
                    pending.answer.set_result(stored)
            return
        for pending in batch:
            if not pending.answer.done():
                pending.answer.set_result(_STORED)


def _away() -> Problem:
    return Problem.retry("database_unavailable", "whether the heartbeat is stored is not known", RETRY_AFTER_SECONDS)


def _refuse(batch: Iterable[Pending], problem: Problem) -> None:
    for pending in batch:
        if not pending.answer.done():
            pending.answer.set_exception(problem)
