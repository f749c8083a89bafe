"""Requests after every evaluation: pings, and alerts repeated to Alertmanagers, which forget them otherwise."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, Self

import asyncpg
import msgspec

from service.alerts import store
from service.alerts.channels import alertmanager, ping
from service.alerts.channels.alertmanager import RESEND_SECONDS
from service.alerts.channels.kinds import AlertmanagerChannel, PingChannel
from service.alerts.channels.message import Alert
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome
from service.database.pool import Database
from service.http.errors import Problem
from service.http.log_limit import limited

# A message that has waited longer than this is not delivered in time; pings stop, so that their receiver notices.
LATE = timedelta(minutes=10)

_OLDEST = "SELECT clock_timestamp() AS now, linkbeat.oldest_undelivered() AS oldest"
_STANDING = "SELECT alert::text FROM linkbeat.standing_alerts(of_channel => $1, ended_within => $2) AS alert"


class Pulse:
    """Called after an evaluation by this process. Never waits for a receiver."""

    def __init__(self, writing: Database, network: Network) -> None:
        self._writing = writing
        self._network = network
        self._told_at: dict[str, float] = {}  # per Alertmanager channel, monotonic
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancels the current requests."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def beat(self) -> None:
        """Starts the requests after a committed evaluation."""
        with suppress(Problem, asyncpg.PostgresError):  # the pool has logged it
            await self._beat()

    async def _beat(self) -> None:
        """Raises Problem (503) while the database is unreachable."""
        rows = [
            row for row in await self._writing.fetch(store.SECRETS, None) if row["kind"] in ("ping", "alertmanager")
        ]
        if not rows:
            return
        (state,) = await self._writing.fetch(_OLDEST)
        is_late = state["oldest"] is not None and state["now"] - state["oldest"] >= LATE
        for row in rows:
            channel = store.channel_of(row)
            name = row["channel_id"]
            if name in self._tasks:
                continue  # the previous request is still running
            if isinstance(channel, PingChannel) and not is_late:
                self._begin(name, self._ping(name, channel))
            elif isinstance(channel, AlertmanagerChannel) and self._is_due(name):
                self._begin(name, self._repeat(name, channel, state))

    def _is_due(self, name: str) -> bool:
        now = time.monotonic()
        # Rather one evaluation too early than too late: the timing of Alertmanager expects about one minute.
        if now - self._told_at.get(name, float("-inf")) < RESEND_SECONDS - 15:
            return False
        self._told_at[name] = now
        return True

    def _begin(self, name: str, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending, name=f"linkbeat {name}")
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _ping(self, name: str, channel: PingChannel) -> None:
        _warn(name, await ping.send(self._network, channel))

    async def _repeat(self, name: str, channel: AlertmanagerChannel, state: asyncpg.Record) -> None:
        try:
            rows = await self._writing.fetch(_STANDING, name, alertmanager.RESOLVED_FOR)
        except (Problem, asyncpg.PostgresError):
            return  # the pool has logged it
        alerts = [msgspec.json.decode(row["alert"], type=Alert) for row in rows]
        if alerts:
            _warn(name, await alertmanager.send(self._network, channel, alerts, state["now"]))


def _warn(name: str, outcome: Outcome) -> None:
    if not outcome.is_delivered:
        limited(logging.WARNING, ("alert channel", name, outcome.error), "alert channel %s: %s", name, outcome.error)
