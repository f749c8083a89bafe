"""Group commit: heartbeats that arrive while a transaction runs are gathered into the next one.

There is no timer: the running commit is the timer. Each heartbeat is answered when its own transaction has
committed, so an answer of 200 means that it is on the database's disk. Nothing waits without a bound.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg

from service.batch import CALL, Pending, arguments
from service.database import RETRY_AFTER_SECONDS, UNREACHABLE, connect_writer
from service.errors import FieldError, Problem
from service.wire import Heartbeat

log = logging.getLogger("linkbeat")

BATCH_HEARTBEATS = 200  # past it a batch's time grows and its rate hardly does
BATCH_SAMPLES = 2_000  # hosts with hundreds of interfaces fill a batch sooner
ANSWER_SECONDS = 5.0
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


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one heartbeat: it is on the database's disk.

    registered  it made the server known
    duplicate   all of it was there before
    conflict    part of it was there before with other values; the first ones stay
    """

    registered: bool = False
    duplicate: bool = False
    conflict: bool = False


_STORED = Stored()


class Ingest:
    """The queue and its writers. `async with Ingest(url, limit) as ingest: await ingest.store(heartbeat, time)`.

    More than one writer lets one batch be put together while the other is in the database.
    """

    def __init__(self, url: str, queue_heartbeats: int, *, writers: int = 2) -> None:
        self._url = url
        self._limit = queue_heartbeats
        self._writers = writers
        self._queue: deque[Pending[Stored]] = deque()
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connected = 0
        self._closing = False
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        ready = [asyncio.Event() for _ in range(self._writers)]
        self._tasks = [asyncio.create_task(self._write(event), name="linkbeat writer") for event in ready]
        for event in ready:
            await event.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        """What is queued is written first, as long as the database takes it."""
        self._closing = True
        self._arrived.set()
        _done, unfinished = await asyncio.wait(self._tasks, timeout=ANSWER_SECONDS)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse_queue()

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
        if len(self._queue) >= self._limit:
            self.counts["overloaded"] += 1
            raise Problem.retry("overloaded", "too many heartbeats wait for the database", RETRY_AFTER_SECONDS)
        pending = Pending[Stored](heartbeat, time, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._arrived.set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await pending.answer
        except TimeoutError:
            raise _away() from None

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
                    self._refuse_queue()
                tried.set()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            self._connected += 1
            tried.set()
            batch: Sequence[Pending[Stored]] = ()
            try:
                while batch := await self._next_batch():
                    await self._commit(connection, batch)
            except UNREACHABLE as raised:
                log.warning("connection to the database lost: %s: %s", type(raised).__name__, raised)
                # Whether it was committed is not known; writing it again changes nothing if it was.
                self._queue.extendleft(reversed(batch))
                self._arrived.set()
            except Exception:
                # A bug. The writer lives on, with a connection in a known state.
                log.exception("a batch of %d heartbeats failed", len(batch))
                self.counts["bugs"] += 1
                _refuse(batch, _away())
            finally:
                self._connected -= 1
                connection.terminate()

    async def _next_batch(self) -> list[Pending[Stored]]:
        """What waits, up to a batch; empty only at the end.

        A key stands once in a batch: its second heartbeat is left to the next, where it is a duplicate like any.
        """
        while not self._queue:
            if self._closing:
                return []
            self._arrived.clear()
            await self._arrived.wait()
        batch: dict[tuple[str, datetime], Pending[Stored]] = {}
        left: list[Pending[Stored]] = []
        samples = 0
        while self._queue and len(batch) < BATCH_HEARTBEATS and samples < BATCH_SAMPLES:
            pending = self._queue.popleft()
            if pending.answer.done():
                continue  # its client was told to come again
            if pending.key in batch:
                left.append(pending)
                continue
            batch[pending.key] = pending
            samples += len(pending.heartbeat.network_interfaces or ())
        self._queue.extendleft(reversed(left))
        return list(batch.values()) or await self._next_batch()

    async def _commit(self, connection: asyncpg.Connection, batch: Sequence[Pending[Stored]]) -> None:
        """Writes the batch and answers each of it. Raises one of UNREACHABLE when the connection is lost."""
        batch = sorted(batch, key=Pending[Stored].in_key_order)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                row = await connection.fetchrow(CALL, *arguments(batch))
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

    async def _isolate(
        self, connection: asyncpg.Connection, batch: Sequence[Pending[Stored]], raised: Exception
    ) -> None:
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

    def _answer(self, batch: Sequence[Pending[Stored]], row: asyncpg.Record) -> None:
        registered, repeated = set(row["registered"] or ()), set(row["repeated"] or ())
        duplicates, conflicts = Counter(row["duplicate"] or ()), set(row["conflict"] or ())
        self.counts["heartbeats"] += len(batch)
        self.counts["batches"] += 1
        for number, pending in enumerate(batch):
            stored = _STORED
            if registered or repeated or duplicates:
                samples = len(pending.heartbeat.network_interfaces or ())
                server_id = pending.heartbeat.server_id
                stored = Stored(
                    registered=server_id in registered,
                    duplicate=duplicates[number] == samples if samples else server_id in repeated,
                    conflict=number in conflicts,
                )
                registered.discard(server_id)  # the earliest of the batch registered it
                self.counts["duplicates"] += stored.duplicate
                self.counts["conflicts"] += stored.conflict
            if not pending.answer.done():
                pending.answer.set_result(stored)

    def _refuse_queue(self) -> None:
        _refuse(self._queue, _away())
        self._queue.clear()


def _away() -> Problem:
    return Problem.retry("database_unavailable", "whether the heartbeat is stored is not known", RETRY_AFTER_SECONDS)


def _refuse(batch: Sequence[Pending[Stored]] | deque[Pending[Stored]], problem: Problem) -> None:
    for pending in batch:
        if not pending.answer.done():
            pending.answer.set_exception(problem)
