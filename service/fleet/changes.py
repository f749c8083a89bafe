"""Changes of the fleet for long polling: one statement per second, however many clients wait.

A poll finds the servers that received a heartbeat since the previous poll, whichever process stored it; while no client
waits, there are no polls. A cursor is a time of the database's clock, which all processes share, so that a client can
continue with another process.
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
# The longest wait: proxies end longer requests, and a client that was signed out meanwhile gets no more data.
WAIT_SECONDS = 5.0
REMEMBERED = timedelta(seconds=60)
# A statement of ingest writes the time of its start, and is visible after its end; none takes longer.
LATE = timedelta(seconds=5)

R = TypeVar("R")


class Look(Generic[R]):
    """The result of one poll.

    at    time by the database's clock before it read; `seen`: after it read
    rows  by server: when it last received a heartbeat, and its row
    """

    def __init__(self, at: datetime, seen: datetime, rows: Mapping[str, tuple[datetime, R]]) -> None:
        self.at = at
        self.seen = seen
        self.rows = rows


class Live(BackgroundTask, Generic[R]):
    """The servers that changed within the last REMEMBERED, while any client was waiting."""

    def __init__(self, look: Callable[[datetime | None, Mapping[str, datetime]], Awaitable[Look[R]]]) -> None:
        """`look(since, known)` polls the servers that received a heartbeat after `since`, or recently if it is None,
        except those whose time is the known one."""
        super().__init__("live")
        self._look = look
        self._rows: dict[str, tuple[datetime, datetime, datetime, R]] = {}  # received, at, seen, row
        self._ats: set[datetime] = set()  # of the polls whose rows are remembered
        self._at: datetime | None = None  # of the last poll
        self._whole_since: datetime | None = None  # _rows has everything that became visible since then
        self._polled = float("-inf")  # by the event loop's clock
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None
        self._is_ending = False

    async def __aenter__(self) -> Self:
        self._is_ending = False
        return await super().__aenter__()

    def end(self) -> None:
        """Ends all waits, because the service is about to stop."""
        self._is_ending = True
        self._end_turn(None)

    async def changes(self, since: datetime) -> tuple[datetime, list[R]] | None:
        """The changes after `since`, as soon as there are any, or [] after WAIT_SECONDS; and the next `since`.

        None: more may have changed than is remembered. Raises Problem (503) while the database is unavailable.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS
        self._waiting += 1
        self._wanted.set()
        try:
            if loop.time() - self._polled > LOOK_SECONDS:
                await self._next_poll(WAIT_SECONDS)
            while True:
                if self._at is not None and self._whole_since is not None:
                    if since < self._whole_since:
                        return None
                    rows = self._changed(since)
                    if rows or self._is_ending or loop.time() >= until:
                        # If the clock was set back, the cursor stays: otherwise it would return the same changes again.
                        return max(self._at, since), rows
                elif self._is_ending or loop.time() >= until:
                    return None
                await self._next_poll(until - loop.time())
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()

    def _changed(self, since: datetime) -> list[R]:
        if since in self._ats:  # the client has everything that this poll found
            return [row for _, at, _, row in self._rows.values() if at > since]
        # `since` comes from another process or statement, which saw everything committed by then. Older heartbeats it
        # saw too, even if this process was not polling.
        received_after = since - LATE
        return [row for received, _, seen, row in self._rows.values() if seen > since and received > received_after]

    async def _next_poll(self, seconds: float) -> None:
        if self._is_ending:
            return
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
        with suppress(TimeoutError):
            # Shielded: a client that disconnects or times out must not end the poll for the others.
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
        if started - self._polled > REMEMBERED.total_seconds():
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
        self._polled = started

    def _end_turn(self, raised: Exception | None) -> None:
        turn, self._turn = self._turn, None
        if turn is None or turn.done():
            return
        if raised is None:
            turn.set_result(None)
        else:
            turn.set_exception(raised)
            turn.exception()  # retrieved, even if no client waits any more
