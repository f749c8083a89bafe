"""Delivery of the messages in the outbox, by every process of the service, each message at least once.

A process claims a message with a lease of one minute, sends it, and reports the result. If it dies in between, the
lease expires and another process sends the same bytes again. The database decides on order, attempts and pauses
(sql/function/alert_messages.sql).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
import msgspec

from service.alerts import store
from service.alerts.channels.message import message
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome
from service.alerts.channels.send import send
from service.background import BackgroundTask
from service.database.pool import Database
from service.http.errors import Problem
from service.http.log_limit import limited

log = logging.getLogger("linkbeat")

POLL_SECONDS = 1.0
AT_ONCE = 16
DRAIN_SECONDS = 5.0
# With the longest deadline of a channel, less than the lease: a later report would be for another delivery.
REPORT_SECONDS = 15.0

CLAIM = """
SELECT message_id, channel_id, kind, spec::text, secret, time_zone, payload::text, attempts, created_at,
       clock_timestamp() AS now
FROM linkbeat.claim_deliveries(at_most => $1)
"""
_DELIVERED = "SELECT linkbeat.message_delivered(of_message => $1, status => $2)"
_FAILED = "SELECT linkbeat.message_failed(of_message => $1, status => $2, error => $3, retry_after => $4) AS next"


class Delivery(BackgroundTask):
    """Claims and sends messages while the service runs."""

    def __init__(self, writing: Database, network: Network, is_reachable: Callable[[], bool]) -> None:
        super().__init__("delivery")
        self._writing = writing
        self._network = network
        self._is_reachable = is_reachable
        self._sending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Makes the next poll immediate: a message may be due."""
        self._wake.set()

    async def __aexit__(self, *raised: object) -> None:
        """Stops claiming and waits for the current sends. Those that take too long are sent again after their lease."""
        await super().__aexit__(*raised)
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._is_reachable():
                with suppress(Problem, asyncpg.PostgresError):  # the pool has logged it
                    await self._claim()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)

    async def _claim(self) -> None:
        """Starts to send due messages, up to AT_ONCE at a time. Raises Problem (503)."""
        free = AT_ONCE - len(self._sending)
        if free <= 0:
            return
        # Shielded: a cancelled claim may have been committed, and its messages would wait until their lease expires.
        claiming = asyncio.ensure_future(self._writing.fetch(CLAIM, free))
        try:
            rows = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(Problem, asyncpg.PostgresError):
                self._begin(await claiming)
            raise
        self._begin(rows)
        if len(rows) == free:
            self.wake()

    def _begin(self, rows: list[asyncpg.Record]) -> None:
        for row in rows:
            task = asyncio.create_task(self._deliver(row), name=f"linkbeat message {row['message_id']}")
            self._sending.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self.wake()

    async def _deliver(self, row: asyncpg.Record) -> None:
        outcome = await self._attempt(row)
        if outcome.is_delivered:
            await self._report(_DELIVERED, row["message_id"], outcome.status)
            return
        key = ("alert channel", row["channel_id"], outcome.error)
        limited(logging.WARNING, key, "alert channel %s: %s (attempt %d)", row["channel_id"], outcome.error,
                row["attempts"])  # fmt: skip
        await self._report(_FAILED, row["message_id"], _http_status(row["kind"], outcome), outcome.error,
                           outcome.retry_after_seconds)  # fmt: skip

    async def _attempt(self, row: asyncpg.Record) -> Outcome:
        try:
            channel = store.channel_of(row)
            return await send(self._network, channel, message(row["payload"], row["created_at"]), row["now"])
        except msgspec.MsgspecError as raised:
            return Outcome(error=f"the channel's settings or the message cannot be read: {type(raised).__name__}")
        except Exception as raised:  # noqa: BLE001 - a bug in one channel must not stop the others
            limited(logging.ERROR, ("alert channel", type(raised).__name__), "alert channel %s failed",
                    row["channel_id"], exc_info=raised)  # fmt: skip
            return Outcome(error=f"failed: {type(raised).__name__}")

    async def _report(self, sql: str, *arguments: Any) -> None:
        """Stores the result. If the database stays unreachable, the lease expires and the message is sent again."""
        until = time.monotonic() + REPORT_SECONDS
        while True:
            try:
                await self._writing.fetch(sql, *arguments)
            except (Problem, asyncpg.PostgresError):
                if time.monotonic() > until:
                    return
                await asyncio.sleep(1.0)
            else:
                return


def _http_status(kind: str, outcome: Outcome) -> int | None:
    """The status for counting attempts. None for mail: 4yz of SMTP means "later", 4xx of HTTP means "never"."""
    return None if kind == "email" else outcome.status
