"""One session makes durable what others have executed, and knows on which server.

Writers do not wait for the disk. A flush by another session makes their transactions durable only where both are on the
same run of the same server, so writers join the sealer: they connect after it, compare the server with its, and are
ended with it. Otherwise, after a failover, a commit on the new primary would vouch for rows that only the old one has.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal, TypeVar

import asyncpg

from service.database.hosts import NoHostError, distrust, reason
from service.database.pool import UNREACHABLE
from service.database.server import ServerIdentity
from service.ingest.batch import Pending
from service.ingest.durability import Durability, DurabilityState, NotSealedError, SealerSession

log = logging.getLogger("linkbeat")

RECONNECT_SECONDS = 0.5
POLL_SECONDS = 0.5  # of an idle sealer
SLOW_SECONDS = 1.0  # a standby that has not confirmed for so long is away, as far as readiness is concerned

_UNCONFIRMED = "commits wait for a synchronous standby, and none confirms"

T = TypeVar("T")

Executed = tuple[list[Pending], asyncpg.Record]
"""A batch, and the row that its statement returned: with `lsn`, the log's position at its end."""


class Sealer:
    """Seals what was executed, session after session, and hands it on: `answer` what is durable, `put_back` the rest.

    began   called when a session has sealed for the first time: writers may join it. With whether it is on another
            server than the session before
    ended   called when it is over: writers on its server must end
    failed  called where there is none, with the reason
    """

    def __init__(
        self,
        url: str,
        asked: Durability,
        counts: Counter[str],
        *,
        answer: Callable[[Sequence[Pending], asyncpg.Record], None],
        put_back: Callable[[Iterable[Pending]], None],
        refuse: Callable[[Iterable[Pending]], None],
        began: Callable[[bool], None],
        ended: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self._url = url
        self._asked: Durability = asked
        self._counts = counts
        self._answer, self._put_back, self._refuse = answer, put_back, refuse
        self._began, self._ended, self._failed = began, ended, failed
        self._executed: list[Executed] = []
        self._unsealed = asyncio.Event()
        self._finishing = False
        self._in_force: Literal["local", "none"] = "none"
        self._reason = ""
        self._waiting_since: float | None = None
        self._sealed_at = 0.0
        self.tried = asyncio.Event()
        """Set once the first session has begun, or could not."""
        self.is_reached = False
        """Whether the last attempt at a session came as far as the server."""
        self.session: SealerSession | None = None
        self.server: ServerIdentity | None = None
        """Of the last session that sealed."""

    @property
    def state(self) -> DurabilityState:
        if self.session is None:
            return DurabilityState(self._asked, self._in_force, self._reason or "no connection to the database")
        if self._asked == "replicated" and self._waiting_seconds() > SLOW_SECONDS:
            return DurabilityState(self._asked, "none", _UNCONFIRMED)
        return DurabilityState(self._asked, self.session.in_force, "")

    def add(self, batch: list[Pending], row: asyncpg.Record, session: SealerSession) -> None:
        """Takes what was executed under `session`. Raises ConnectionResetError where that is over."""
        if session is not self.session:
            raise ConnectionResetError("the session that was to seal it has ended")
        self._executed.append((batch, row))
        self._unsealed.set()

    def poll(self, now: float) -> None:
        """Has an idle sealer find out what is in force; called now and then, `now` by the loop's clock."""
        if now - self._sealed_at > POLL_SECONDS:
            self._unsealed.set()

    def finish(self) -> None:
        """run() ends when all that was executed is sealed."""
        self._finishing = True
        self._unsealed.set()

    async def run(self) -> None:
        """Until finish()."""
        self._finishing = False
        self.tried.clear()
        while not self._finishing or self._executed:
            session = await self._open()
            if session is None:
                self.tried.set()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            self._begin(session)
            self.tried.set()
            try:
                while not self._finishing or self._executed:
                    await self._unsealed.wait()
                    self._unsealed.clear()
                    await self._seal_executed(session)
            except UNREACHABLE as raised:
                self._note_failure(raised, session)
                log.warning("connection to the database lost: %s: %s", type(raised).__name__, raised)
            finally:
                self.session = None
                session.terminate()
                self._ended()

    async def _open(self) -> SealerSession | None:
        """A session that has sealed once; None where there is none now."""
        session = None
        try:
            self.is_reached = False
            session = await SealerSession.open(self._url, self._asked)
            self.is_reached = True
            await self._timed(session.seal())
        except (*UNREACHABLE, asyncpg.PostgresError) as raised:
            level = logging.DEBUG if self.tried.is_set() else logging.WARNING
            log.log(level, "no connection to the database: %s", reason(raised))
            self._note_failure(raised, session)
            if session is not None:
                session.terminate()
            self._failed()
            return None
        except BaseException:
            if session is not None:
                session.terminate()
            raise
        return session

    def _begin(self, session: SealerSession) -> None:
        # What was executed before this session began, a server may have executed that has crashed since, or another
        # one: this session's flush tells nothing of it. Writing it again does.
        for batch, _ in reversed(self._executed):  # each goes before those that wait: the oldest is first in the end
            self._put_back(batch)
        self._executed.clear()
        before, self.session, self.server = self.server, session, session.server
        self._reason, self._in_force = "", "none"
        if before is not None and before.epoch != self.server.epoch:
            log.warning("the database is another server: epoch %s, before %s", self.server.epoch, before.epoch)
        self._began(before is not None and before != self.server)

    async def _seal_executed(self, session: SealerSession) -> None:
        batches, self._executed = self._executed, []
        try:
            if not batches:
                await self._timed(session.poll())
                return
            position = await self._timed(session.seal())
            if any(row["lsn"] > position for _, row in batches):
                raise NotSealedError("seal_behind", "the log is shorter than when a batch was executed")
        except UNREACHABLE:
            self._executed[:0] = batches  # the next session has them written again
            raise
        except asyncpg.PostgresError as raised:
            log.error("the database cannot flush its log: %s: %s", type(raised).__name__, raised)
            self._counts[f"refused {raised.sqlstate}"] += 1
            for batch, _ in batches:
                self._refuse(batch)
        else:
            for batch, row in batches:
                self._answer(batch, row)

    async def _timed(self, sealing: Awaitable[T]) -> T:
        loop = asyncio.get_running_loop()
        self._waiting_since = loop.time()
        try:
            return await sealing
        finally:
            self._waiting_since, self._sealed_at = None, loop.time()

    def _waiting_seconds(self) -> float:
        return 0.0 if self._waiting_since is None else asyncio.get_running_loop().time() - self._waiting_since

    def _note_failure(self, raised: BaseException, session: SealerSession | None) -> None:
        distrust(self._url)
        self._in_force, self._reason = "none", reason(raised)
        if isinstance(raised, NotSealedError):
            self._counts[raised.kind] += 1
            self._in_force = raised.in_force
        elif isinstance(raised, TimeoutError) and session is not None and session.in_force == "replicated":
            self._reason = _UNCONFIRMED
        else:
            count_reconnects(self._counts, raised)


def count_reconnects(counts: Counter[str], raised: BaseException) -> None:
    """Counts servers that are starting, or have become a standby: a connection ends with that, and no heartbeat."""
    for one in raised.errors if isinstance(raised, NoHostError) else [raised]:
        if isinstance(one, asyncpg.CannotConnectNowError | asyncpg.ReadOnlySQLTransactionError):
            counts[f"reconnect {one.sqlstate}"] += 1
