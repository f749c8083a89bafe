"""Evaluation of alerts, and the ledger of the times at which this process could store heartbeats. The logic is in the
database (sql/function/evaluate_alerts.sql); each process calls it, and the first one evaluates.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg

from service.background import BackgroundTask
from service.database import roles
from service.database.pool import CONNECT_SECONDS, UNREACHABLE, connect_writer
from service.http.log_limit import limited

log = logging.getLogger("linkbeat")

LISTEN_SECONDS = 5.0  # linkbeat.listening_pause() is three of them
LIMIT_SECONDS = 120.0  # for one evaluation; at the limit it is rolled back, and the next one covers its range too

PAUSES = 100  # how many times as long as a turn its distance to the next one is (linkbeat.turn_distance)
POLLS = 3  # within `seconds`; the database decides when an evaluation is due, by how long the last one took

_EVALUATE = f"SELECT is_evaluated, took_seconds FROM linkbeat.evaluate_alerts(every => $1, pauses => {PAUSES})"
_LISTEN = "SELECT linkbeat.listen($1)"


class Alerts(BackgroundTask):
    """Runs both loops while the service runs.

    seconds        between two evaluations
    can_store      whether heartbeats can be written now
    after_turn     called after an evaluation by this process was committed
    """

    def __init__(
        self, url: str, seconds: float, can_store: Callable[[], bool], after_turn: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__("alerts")
        self._url = url
        self._seconds = seconds
        self._can_store = can_store
        self._after_turn = after_turn
        # Not only the process id: it may be the same in several containers.
        self._process = f"{socket.gethostname()[:60]}/{os.getpid()}/{secrets.token_hex(4)}"

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="linkbeat listening")
            group.create_task(self._evaluate(), name="linkbeat alerts evaluation")

    async def _listen(self) -> None:
        """Each entry is committed like a heartbeat: flushed, with the rights and limits of ingest."""
        connection: asyncpg.Connection | None = None
        try:
            while True:
                try:
                    if self._can_store():
                        connection = connection or await connect_writer(self._url, waits_for_disk=True)
                        await connection.execute(_LISTEN, self._process)
                except (*UNREACHABLE, asyncpg.PostgresError) as raised:
                    # The ledger then has a gap, and rightly: no heartbeat could be stored.
                    limited(logging.WARNING, "alerts ledger", "the ledger of alerts was not extended: %s", raised)
                    _drop(connection)
                    connection = None
                await asyncio.sleep(LISTEN_SECONDS)
        finally:
            _drop(connection)

    async def _evaluate(self) -> None:
        connection: asyncpg.Connection | None = None
        try:
            while True:
                try:
                    connection = connection or await self._connect()
                    row = await connection.fetchrow(_EVALUATE, timedelta(seconds=self._seconds))
                except (*UNREACHABLE, asyncpg.PostgresError) as raised:
                    limited(logging.WARNING, "alerts turn", "alerts were not evaluated: %s", raised)
                    _drop(connection)
                    connection = None
                else:
                    if row and row["is_evaluated"]:
                        await self._after_turn()
                    if row and row["is_evaluated"] and row["took_seconds"] > self._seconds:
                        limited(
                            logging.WARNING, "alerts slow", "the evaluation of alerts took %.1f s", row["took_seconds"]
                        )
                await asyncio.sleep(self._seconds / POLLS)
        finally:
            _drop(connection)

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            command_timeout=LIMIT_SECONDS + 1,
            server_settings={
                "application_name": "linkbeat alerts",
                "statement_timeout": f"{LIMIT_SECONDS * 1000:.0f}",
                "timezone": "UTC",
            },
        )
        try:
            await roles.take(connection, roles.INGEST)
        except BaseException:
            connection.terminate()
            raise
        return connection


def _drop(connection: asyncpg.Connection | None) -> None:
    if connection is not None:
        connection.terminate()
