"""Removes servers: their data is erased in the background, in steps that do not block ingest."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
from litestar import Request, Response, Router, delete
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from service.access.identity import Caller
from service.access.tokens import Tokens
from service.background import BackgroundTask
from service.cache import Answers
from service.database.audit import by
from service.database.leases import leased
from service.database.names import storable, unknown_server
from service.database.pool import UNREACHABLE, Database
from service.http.errors import Problem
from service.http.problems import problems

log = logging.getLogger("linkbeat")

LOOK_SECONDS = 60.0  # for removals that another process did not finish
RETRY_SECONDS = 5.0
LIMIT_SECONDS = 3_600.0
ANSWER_SECONDS = 3.0
LEASE = "removal"

_REMOVE = "linkbeat.remove_server($1) AS is_known"
_PENDING = "SELECT server_id FROM linkbeat.removals"
PENDING = f"{_PENDING} LIMIT 1"


class Removals(BackgroundTask):
    """Erases servers marked for removal while the service runs; one process at a time."""

    def __init__(self, url: str, database: Database, is_reachable: Callable[[], bool]) -> None:
        super().__init__("removals")
        self._url = url
        self._database = database
        self._is_reachable = is_reachable
        self._asked = asyncio.Event()

    async def erased(self, server_id: str) -> bool:
        """Requests the removal. Returns whether it is done within ANSWER_SECONDS."""
        self._asked.set()
        for _ in range(round(ANSWER_SECONDS / 0.05)):
            if not await self._database.fetch(f"{_PENDING} WHERE server_id = $1", server_id):
                return True
            await asyncio.sleep(0.05)
        return False

    async def _run(self) -> None:
        while True:
            seconds = LOOK_SECONDS
            # Also while nothing can be erased: left set, the wait below would return at once, again and again.
            self._asked.clear()
            if self._is_reachable():
                try:
                    if await self._database.fetch(PENDING):
                        await erase(self._url)
                        seconds = 1.0  # another process is erasing, or another server was marked meanwhile
                except Problem:
                    pass
                except (*UNREACHABLE, asyncpg.PostgresError) as raised:
                    seconds = RETRY_SECONDS
                    log.warning("removing a server failed, next try in %.0f s: %s", seconds, raised)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), seconds)


async def erase(url: str) -> bool:
    """Erases all servers that are to be; False where another process is at it."""
    settings = {
        "application_name": "linkbeat removal",
        "timescaledb.max_tuples_decompressed_per_dml_transaction": "0",
    }
    async with leased(url, LEASE, command_seconds=LIMIT_SECONDS, settings=settings) as connection:
        if connection is None:
            return False
        await connection.execute("CALL linkbeat.erase_removed()")
        return True


def router(writing: Database, tokens: Tokens, removals: Removals, answers: Answers) -> Router:
    """DELETE /servers/{server_id}."""
    pending = ResponseSpec(None, generate_examples=False, description="The removal continues in the background.")

    @delete(
        "/servers/{server_id:str}",
        scope="admin",
        summary="Remove a server with its history",
        responses={202: pending} | problems(404, 503),
    )
    async def delete_server(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> Response[None]:
        """Revokes its tokens immediately. 204: its data is erased; 202: the removal continues in the background.

        A later heartbeat with a fleet token or the fleet key registers the server again.
        """
        known = storable(server_id)
        (row,) = await by(writing.fetch, request.auth.actor)(_REMOVE, known)
        if not row["is_known"]:
            raise unknown_server(server_id)
        log.info("server %s removed by %s from %s", known[:100], request.auth.name, request.auth.peer)
        is_gone = False
        with suppress(Problem):  # the removal continues in any case
            await tokens.refresh()
            is_gone = await removals.erased(known)
        answers.forget([known])
        return Response(None, status_code=204 if is_gone else 202)

    return Router("/", route_handlers=[delete_server], tags=["servers"])
