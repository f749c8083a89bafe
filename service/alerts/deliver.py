"""Delivery: messages of the outbox, sent by every process of the service, each at least once.

A message is claimed with a lease of a minute, sent, and reported. A process that dies in between leaves a lease that
runs out, and another one sends the same bytes again. Order, attempts and pauses are the database's
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
# Less than the lease, with the longest deadline of a channel: a report that comes later is another delivery's.
REPORT_SECONDS = 15.0

CLAIM = """
SELECT message_id, channel_id, kind, spec::text, secret, time_zone, payload::text, attempts, created_at,
       clock_timestamp() AS now
FROM linkbeat.claim_deliveries(at_most => $1)
"""
_DELIVERED = "SELECT linkbeat.message_delivered(of_message => $1, status => $2)"
_FAILED = "SELECT linkbeat.message_failed(of_message => $1, status => $2, error => $3, retry_after => $4) AS next"


class Delivery(BackgroundTask):
    """Claims and sends, for as long as the service lives."""

    def __init__(self, writing: Database, network: Network, is_reachable: Callable[[], bool]) -> None:
        super().__init__("delivery")
        self._writing = writing
        self._network = network
        self._is_reachable = is_reachable
        self._sending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something to send: the next poll is at once."""
        self._wake.set()

    async def __aexit__(self, *raised: object) -> None:
        """Claims nothing more, and lets what is being sent end; what does not is sent again when its lease runs out."""
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
        """Begins to send what is due, as far as there is room. Raises Problem (503)."""
        free = AT_ONCE - len(self._sending)
        if free <= 0:
            return
        # Shielded: a cancelled claim may have been committed, and its messages would wait for their lease.
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
        except Exception as raised:  # noqa: BLE001 - one channel's bug must not keep the others from being told
            limited(logging.ERROR, ("alert channel", type(raised).__name__), "alert channel %s failed",
                    row["channel_id"], exc_info=raised)  # fmt: skip
            return Outcome(error=f"failed: {type(raised).__name__}")

    async def _report(self, sql: str, *arguments: Any) -> None:
        """Writes down how it ended; where the database stays away, the lease runs out, and it is sent again."""
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
    """The status by which attempts are counted. SMTP's 4yz say "later", where HTTP's 4xx say "never"."""
    return None if kind == "email" else outcome.status
