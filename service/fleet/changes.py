"""What has changed in the fleet, for whoever looks at it now: one statement a second, however many do.

A look finds the servers that received something since the look before, whichever process stored it; while nobody waits,
there are none. A cursor is a moment of the database's clock, which all processes share: who was answered by one of them
can go on with another.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Generic, Self, TypeVar

import asyncpg

from service.background import BackgroundTask
from service.http.errors import Problem

LOOK_SECONDS = 1.0
# A request ends by then: proxies cut off what takes longer, and who was signed out meanwhile learns no more.
WAIT_SECONDS = 5.0
REMEMBERED = timedelta(seconds=60)
# What a statement of ingest writes is dated at its beginning and seen after its end; none takes longer.
LATE = timedelta(seconds=5)

R = TypeVar("R")


class Look(Generic[R]):
    """What one look found.

    at    by the database's clock, before it saw anything, and `seen`, after it did
    rows  by server: when it received something last, and what there is to say of it
    """

    def __init__(self, at: datetime, seen: datetime, rows: Mapping[str, tuple[datetime, R]]) -> None:
        self.at = at
        self.seen = seen
        self.rows = rows


class Live(BackgroundTask, Generic[R]):
    """The servers that changed within the last REMEMBERED, as far as somebody was waiting."""

    def __init__(self, look: Callable[[datetime | None, Mapping[str, datetime]], Awaitable[Look[R]]]) -> None:
        """`look(since, known)`: the servers that received something after `since`, or lately where it is None, but for
        those that received it at the moment that is known of them."""
        super().__init__("live")
        self._look = look
        self._rows: dict[str, tuple[datetime, datetime, datetime, R]] = {}  # received, at, seen, row
        self._ats: set[datetime] = set()  # of the looks whose rows are remembered
        self._at: datetime | None = None  # of the last look
        self._whole_since: datetime | None = None  # what was not to be seen then, and is now, is in _rows
        self._looked = float("-inf")  # by the event loop's clock
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None
        self._is_ending = False

    async def __aenter__(self) -> Self:
        self._is_ending = False
        return await super().__aenter__()

    def end(self) -> None:
        """The service is about to end: who waits is answered now."""
        self._is_ending = True
        self._end_turn(None)

    async def changes(self, since: datetime) -> tuple[datetime, list[R]] | None:
        """What changed after `since`, as soon as there is something, or [] after WAIT_SECONDS; and the next `since`.

        None: more may have changed than is remembered. Raises Problem (503) while the database is away.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS
        self._waiting += 1
        self._wanted.set()
        try:
            if loop.time() - self._looked > LOOK_SECONDS:
                await self._next_look(WAIT_SECONDS)
            while True:
                if self._at is not None and self._whole_since is not None:
                    if since < self._whole_since:
                        return None
                    rows = self._changed(since)
                    if rows or self._is_ending or loop.time() >= until:
                        # Where a clock was set back, the cursor is not: it would bring the same again.
                        return max(self._at, since), rows
                elif self._is_ending or loop.time() >= until:
                    return None
                await self._next_look(until - loop.time())
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()

    def _changed(self, since: datetime) -> list[R]:
        if since in self._ats:  # it has all that this look found
            return [row for _, at, _, row in self._rows.values() if at > since]
        # Another process, or another statement, saw at `since` what was committed by then. What was received long
        # before, it saw, though nobody was looking here.
        received_after = since - LATE
        return [row for received, _, seen, row in self._rows.values() if seen > since and received > received_after]

    async def _next_look(self, seconds: float) -> None:
        if self._is_ending:
            return
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
        with suppress(TimeoutError):
            # Shielded: one who goes away, or has waited long enough, does not end it for the others.
            await asyncio.wait_for(asyncio.shield(self._turn), max(0.0, seconds))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            started = loop.time()
            try:
                await self._take(started)
            except (Problem, asyncpg.PostgresError) as raised:
                self._end_turn(raised)
            else:
                self._end_turn(None)
            await asyncio.sleep(max(0.0, started + LOOK_SECONDS - loop.time()))

    async def _take(self, started: float) -> None:
        if started - self._looked > REMEMBERED.total_seconds():
            self._rows, self._ats, self._at, self._whole_since = {}, set(), None, None
        since = None if self._at is None else self._at - LATE
        known = {
            server_id: received
            for server_id, (received, *_) in self._rows.items()
            if since is not None and received > since
        }
        look = await self._look(since, known)
        for server_id, (received, row) in look.rows.items():
            self._rows[server_id] = (received, look.at, look.seen, row)
        floor = look.at - REMEMBERED
        self._rows = {server_id: one for server_id, one in self._rows.items() if one[1] > floor}
        self._ats = {at for at in self._ats if at > floor} | {look.at}
        self._at = look.at
        self._whole_since = floor if self._whole_since is None else max(self._whole_since, floor)
        self._looked = started

    def _end_turn(self, raised: Exception | None) -> None:
        turn, self._turn = self._turn, None
        if turn is None or turn.done():
            return
        if raised is None:
            turn.set_result(None)
        else:
            turn.set_exception(raised)
            turn.exception()  # seen, even if all who waited have gone
