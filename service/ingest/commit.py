"""Group commit: heartbeats that arrive while a transaction runs are gathered into the next one.

There is no timer: the running transaction is the timer. Writers execute batches without waiting for the disk; beside
them a sealer (service/ingest/sealing.py) flushes the write-ahead log, which makes all batches durable that were
executed before, and only then are their heartbeats answered. So an answer of 200 means that the heartbeat is on the
database's disk, and on a standby's too where that is asked for, while the database works on the next batch instead of
waiting for the disk. Nothing waits without a bound.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Self

import asyncpg

from service.database.hosts import distrust
from service.database.pool import RETRY_AFTER_SECONDS, UNREACHABLE
from service.http.errors import FieldError, Problem
from service.http.log_limit import limited
from service.ingest.batch import CALL, Answer, Pending, Stored, arguments
from service.ingest.durability import Durability, DurabilityState
from service.ingest.identities import RESOLVE, Identities
from service.ingest.identities import arguments as evidence
from service.ingest.queue import Queue
from service.ingest.sealing import RECONNECT_SECONDS, Sealer, count_reconnects
from service.ingest.writer import Writer, join
from service.wire import Heartbeat

log = logging.getLogger("linkbeat")

# A batch costs a millisecond before its first heartbeat: a second one beside it is worth it from here on.
PARALLEL_HEARTBEATS = 100
STALLED_SECONDS = 0.05  # a batch that waits for a lock does not keep the others waiting for longer
KNOWN_SERVERS = 1_000_000  # remembered, some 100 bytes each; past it they are learned again
ANSWER_SECONDS = 5.0
ATTEMPTS = 4

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


class Ingest:
    """The queue, its writers and the sealer. `async with Ingest(url, limit, …) as ingest: await ingest.store(…)`."""

    def __init__(
        self,
        url: str,
        queue_heartbeats: int,
        *,
        series_budget: int,
        fold_seconds: int,
        writers: int = 2,
        durability: Durability = "local",
        on_stored: Callable[[Sequence[str]], None] = lambda _: None,
        on_server: Callable[[], None] = lambda: None,
    ) -> None:
        """durability  what 200 is to mean
        on_stored   called with the servers, before their heartbeats are answered
        on_server   called when the database is another server than before, or has been restarted
        """
        self._url = url
        self._on_stored = on_stored
        self._on_server = on_server
        self._folding = {"series_budget": series_budget, "fold_seconds": fold_seconds}
        self._known: set[str] = set()  # servers that the database has a row of
        self._identities = Identities()
        self._queue = Queue(queue_heartbeats)
        self._unanswered: set[Pending] = set()
        self._writers = writers
        self._idle: list[asyncio.Future[list[Pending]]] = []  # writers that wait for a batch
        self._executing = 0
        self._started = 0.0  # when the newest batch was given to a writer, by the event loop's clock
        self._is_dispatching = False
        self._joined: set[Writer] = set()
        self._may_connect = asyncio.Event()
        self._closing = False
        self.counts: Counter[str] = Counter()
        self._sealer = Sealer(
            url,
            durability,
            self.counts,
            answer=self._answer,
            put_back=self._queue.put_back,
            refuse=lambda batch: _refuse(batch, _away()),
            began=self._begin,
            ended=self._end_writers,
            failed=lambda: _refuse(self._unanswered, self._unavailable()),
        )

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._tried = [asyncio.Event() for _ in range(self._writers)]
        self._sealing = asyncio.create_task(self._sealer.run(), name="linkbeat sealer")
        self._tasks = [asyncio.create_task(self._write(event), name="linkbeat writer") for event in self._tried]
        self._watch = asyncio.create_task(self._look(), name="linkbeat overdue heartbeats")
        await self._sealer.tried.wait()
        if self._sealer.session is not None:
            for event in self._tried:
                await event.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        """What is queued is written first, as long as the database takes it."""
        self._closing = True
        self._may_connect.set()
        self._dispatch()
        await asyncio.wait(self._tasks, timeout=ANSWER_SECONDS)
        self._sealer.finish()
        await asyncio.wait([self._sealing], timeout=1.0)
        everything = (*self._tasks, self._sealing, self._watch)
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
        _refuse(self._unanswered, _away())

    @property
    def is_connected(self) -> bool:
        """Whether heartbeats can be written now."""
        return bool(self._joined) and self._sealer.session is not None

    @property
    def is_reached(self) -> bool:
        """Whether the database can be reached, if only to be read."""
        return self._sealer.is_reached

    @property
    def durability(self) -> DurabilityState:
        """What 200 is to mean, and what the database offers now."""
        return self._sealer.state

    @property
    def epoch(self) -> str:
        """Of the server that the last acknowledgements are from (ServerIdentity.epoch); "" before the first."""
        return self._sealer.server.epoch if self._sealer.server else ""

    @property
    def queued(self) -> int:
        """Heartbeats that wait for a writer."""
        return len(self._queue)

    async def store(self, heartbeat: Heartbeat, time: datetime, *, skew_ms: int | None = None) -> Stored:
        """Returns when the heartbeat has been committed and flushed; `skew_ms` is what Pending has.

        Raises Problem: 503 where that is not known within ANSWER_SECONDS, at once where it cannot be; 422 where the
        database refuses the heartbeat's values.
        """
        answer: asyncio.Future[Stored] = self._loop.create_future()
        pending = self.put(heartbeat, time, answer, skew_ms=skew_ms)
        try:
            return await answer
        finally:
            self.answered(pending)

    def put(self, heartbeat: Heartbeat, time: datetime, answer: Answer, *, skew_ms: int | None = None) -> Pending:
        """The same for a caller that cannot wait: `answer` is given the result or the Problem, and calls answered().

        Raises Problem (503) where it cannot be stored now.
        """
        if not self.is_connected or self._closing:
            raise self._unavailable()
        self.check_room(heartbeat.server_id)
        pending = Pending(heartbeat, time, self._loop.time() + ANSWER_SECONDS, answer, skew_ms)
        self._unanswered.add(pending)
        self._queue.put(pending)
        if self._idle:
            self._wake()
        return pending

    def answered(self, pending: Pending) -> None:
        """Ends what put() began."""
        self._unanswered.discard(pending)

    def check_room(self, server_id: str) -> None:
        """Raises Problem (503) where no more heartbeats of this server may wait."""
        if self._queue.is_full_for(server_id):
            self.counts["overloaded"] += 1
            raise Problem.retry("overloaded", "too many heartbeats wait for the database", RETRY_AFTER_SECONDS)

    def _wake(self) -> None:
        """Dispatches, once all that has arrived in this turn of the loop is queued."""
        if not self._is_dispatching:
            self._is_dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Gives batches to idle writers; at the end, nothing, which ends them."""
        self._is_dispatching = False
        while self._idle and self._queue:
            now = self._loop.time()
            if (
                self._executing
                and len(self._queue) < PARALLEL_HEARTBEATS
                and now - self._started < STALLED_SECONDS
                and not self._queue.is_heavy_executing
                and not self._closing
            ):
                return
            batch = self._queue.take()
            if not batch:
                return
            self._executing += 1
            self._started = now
            self._idle.pop().set_result(batch)
        if self._closing and not self._queue:
            while self._idle:
                self._idle.pop().set_result([])

    async def _look(self) -> None:
        """Refuses what waits for too long: a timer for each heartbeat would cost more than the heartbeat."""
        while True:
            await asyncio.sleep(STALLED_SECONDS)
            now = self._loop.time()
            overdue = [pending for pending in self._unanswered if pending.deadline < now]
            if overdue:
                _refuse(overdue, _away())
            self._sealer.poll(now)
            if self._queue:
                self._dispatch()

    def _begin(self, is_other_server: bool) -> None:
        """The sealer has a session: writers may join it."""
        if is_other_server:
            self._known.clear()  # the newest may not have come there
            self._identities.forget()
            self._on_server()
        self._may_connect.set()

    def _end_writers(self) -> None:
        """The sealer's session is over: what its writers execute from here on, nobody would vouch for."""
        if not self._closing:
            self._may_connect.clear()
        while self._idle:
            self._idle.pop().set_result([])
        for writer in self._joined:
            writer.connection.terminate()
        for event in self._tried:
            event.set()

    async def _write(self, tried: asyncio.Event) -> None:
        """One writer: joins the sealer, executes batch after batch, and joins it again when a connection is lost."""
        while not self._closing:
            session = self._sealer.session
            if session is None:
                await self._may_connect.wait()
                continue
            writer = await join(session, self._url, self.counts)
            tried.set()
            if writer is None:
                if not self.is_connected:
                    _refuse(self._unanswered, _away())
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            self._joined.add(writer)
            try:
                while session is self._sealer.session and (batch := await self._next_batch()):
                    await self._write_batch(writer, batch)
            except UNREACHABLE as raised:
                count_reconnects(self.counts, raised)
                name = type(raised).__name__
                limited(logging.WARNING, ("writer", name), "connection to the database lost: %s: %s", name, raised)
                if isinstance(raised, asyncpg.ReadOnlySQLTransactionError):
                    distrust(self._url)
                    await asyncio.sleep(RECONNECT_SECONDS)  # it lets us in, and would refuse the next batch too
            finally:
                self._joined.discard(writer)
                writer.connection.terminate()

    async def _next_batch(self) -> list[Pending]:
        """Empty only at the end."""
        waiting: asyncio.Future[list[Pending]] = self._loop.create_future()
        self._idle.append(waiting)
        self._wake()
        return await waiting

    async def _write_batch(self, writer: Writer, batch: list[Pending]) -> None:
        """Raises one of UNREACHABLE when the connection is lost; the batch is then queued again."""
        try:
            await self._execute(writer, batch)
        except TimeoutError:
            # It has had all the time that its clients wait for: written again, it would take a writer as long again.
            log.warning("a batch of %d heartbeats took too long", len(batch))
            self.counts["refused timeout"] += 1
            _refuse(batch, _away())
            raise
        except UNREACHABLE:
            # Whether it was committed is not known; writing it again changes nothing if it was.
            self._queue.put_back(batch)
            raise
        except Exception:
            # A bug. The writer lives on, with a connection in a known state.
            log.exception("a batch of %d heartbeats failed", len(batch))
            self.counts["bugs"] += 1
            _refuse(batch, _away())
            raise ConnectionResetError("after a bug") from None
        finally:
            self._executing -= 1
            self._queue.release(batch)

    async def _execute(self, writer: Writer, batch: Sequence[Pending]) -> None:
        """Executes the batch and leaves it to the sealer. Raises one of UNREACHABLE when the connection is lost."""
        for attempt in range(1, ATTEMPTS + 1):
            servers = {pending.heartbeat.server_id for pending in batch}
            try:
                if attempt == 1:
                    row = await self._store(writer, batch, everything=False)
                else:
                    # Resolving locks the servers: no other process changes their names before the rows are written.
                    async with writer.connection.transaction():
                        row = await self._store(writer, batch, everything=True)
            except _PASSING as raised:
                self.counts[f"retry {raised.sqlstate}"] += 1
                self._known -= servers  # one may have been deleted
                self._identities.forget(servers)
                if attempt == ATTEMPTS:
                    log.warning("a batch failed %d times: %s: %s", attempt, type(raised).__name__, raised)
                    _refuse(batch, _away())
                    return
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
                batch = [pending for pending in batch if not pending.answer.done()]
                if not batch:
                    return  # all were told to come again while a lock was waited for
            except _POISON as raised:
                await self._isolate(writer, batch, raised)
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
                self._known |= servers
                if len(self._known) > KNOWN_SERVERS:
                    self._known = servers
                self._sealer.add(list(batch), row, writer.session)
                return

    async def _store(self, writer: Writer, batch: Sequence[Pending], *, everything: bool) -> asyncpg.Record | None:
        """Resolves the names of interfaces and writes the rows. `everything`: also names that were resolved before."""
        if asked := self._identities.unresolved(batch, everything=everything):
            self._identities.learn(asked, await writer.connection.fetch(RESOLVE, *evidence(asked)))
        may_register = any(pending.heartbeat.server_id not in self._known for pending in batch)
        return await writer.connection.fetchrow(CALL, *arguments(batch, may_register=may_register, **self._folding))

    async def _isolate(self, writer: Writer, batch: Sequence[Pending], raised: Exception) -> None:
        """One record that the database cannot take must not fail its neighbours: halves, until it stands alone."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._execute(writer, batch[:middle])
            await self._execute(writer, batch[middle:])
            return
        log.error("the database cannot take a heartbeat of %s: %s", batch[0].heartbeat.server_id, raised)
        self.counts["poisoned"] += 1
        reason = "holds a value that the database cannot take"
        _refuse(batch, Problem("invalid", reason, [FieldError("", reason)]))

    def _unavailable(self) -> Problem:
        state = self.durability
        if state.asked == "replicated" and state.reason:
            detail = f"heartbeats are to be replicated before they are acknowledged, and cannot be: {state.reason}"
            return Problem.retry("database_unavailable", detail, RETRY_AFTER_SECONDS)
        return _away()

    def _answer(self, batch: Sequence[Pending], row: asyncpg.Record) -> None:
        self._on_stored([pending.heartbeat.server_id for pending in batch])
        epoch = self.epoch  # now, and not when the answer goes out: by then another server may be the sealer's
        self.counts["heartbeats"] += len(batch)
        self.counts["batches"] += 1
        if row["registered"] or row["duplicate"]:
            registered, conflicts = set(row["registered"] or ()), set(row["conflict"] or ())
            duplicates = Counter(row["duplicate"] or ())
            for place, pending in enumerate(batch, start=1):
                samples = len(pending.heartbeat.network_interfaces or ())
                stored = Stored(epoch, place in registered, duplicates[place] >= max(samples, 1), place in conflicts)
                self.counts["duplicates"] += stored.duplicate
                self.counts["conflicts"] += stored.conflict
                if not pending.answer.done():
                    pending.answer.set_result(stored)
            return
        stored = Stored(epoch)
        for pending in batch:
            if not pending.answer.done():
                pending.answer.set_result(stored)


def _away() -> Problem:
    return Problem.retry("database_unavailable", "whether the heartbeat is stored is not known", RETRY_AFTER_SECONDS)


def _refuse(batch: Iterable[Pending], problem: Problem) -> None:
    for pending in list(batch):  # an answer may take its own off the set that is iterated over
        if not pending.answer.done():
            pending.answer.set_exception(problem)
