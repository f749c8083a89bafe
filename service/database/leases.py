"""Leases, rows of linkbeat.leases: only the process that holds the lease of a task works on it."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import asyncpg

from service.database.hosts import connect
from service.database.pool import CONNECT_SECONDS, UNREACHABLE, WRITE_SECONDS

LEASE_SECONDS = 30.0
EXTEND_SECONDS = 10.0
RELEASE_SECONDS = 1.0  # a service that shuts down does not wait for a database that hangs
# The server detects a lost client of a running statement within this time, long before the lease of the process
# expires.
_CLIENT_CHECK = "2s"
# Not errors from the server: the statement may still be running.
_LOST = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError)

_TAKE = "SELECT linkbeat.take_lease(of_name => $1, new_holder => $2, for_seconds => $3)"
_EXTEND = "SELECT linkbeat.extend_lease(of_name => $1, of_holder => $2, for_seconds => $3)"
_RELEASE = "SELECT linkbeat.release_lease(of_name => $1, of_holder => $2)"


@asynccontextmanager
async def leased(
    url: str, name: str, *, command_seconds: float, settings: Mapping[str, str]
) -> AsyncIterator[asyncpg.Connection | None]:
    """A connection for the task `name` while this process holds its lease; None if another process holds it.

    command_seconds  time limit for one statement of the task
    settings         of the session

    A second connection extends the lease, so a statement may take longer than LEASE_SECONDS. If the lease is lost, the
    connection is closed and the task fails. If the database became unreachable, the last statement may still be
    running, and the lease is kept until it expires.

    Raises one of UNREACHABLE, asyncpg.PostgresError.
    """
    holder = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
    keeping = await _connect(url, WRITE_SECONDS, {"application_name": f"linkbeat lease of {name}"})
    try:
        if not await keeping.fetchval(_TAKE, name, holder, LEASE_SECONDS):
            yield None
            return
        working = await _connect(url, command_seconds, {**settings, "client_connection_check_interval": _CLIENT_CHECK})
        extending = asyncio.create_task(_extend(keeping, name, holder, working), name=f"linkbeat lease of {name}")
        is_reachable = True
        try:
            yield working
        except _LOST:
            is_reachable = False
            raise
        finally:
            extending.cancel()
            with suppress(asyncio.CancelledError):
                await extending
            working.terminate()
            if is_reachable:
                with suppress(*UNREACHABLE, asyncpg.PostgresError):
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await keeping.execute(_RELEASE, name, holder)
    finally:
        keeping.terminate()


async def _extend(keeping: asyncpg.Connection, name: str, holder: str, working: asyncpg.Connection) -> None:
    """Extends the lease until this task is cancelled or the lease is lost."""
    is_held = True
    while is_held:
        await asyncio.sleep(EXTEND_SECONDS)
        try:
            is_held = await keeping.fetchval(_EXTEND, name, holder, LEASE_SECONDS)
        except (*UNREACHABLE, asyncpg.PostgresError):
            is_held = False  # assumed lost; unfinished work is repeated once the database is back
    working.terminate()


async def _connect(url: str, command_seconds: float, settings: Mapping[str, str]) -> asyncpg.Connection:
    return await connect(
        url,
        seconds=CONNECT_SECONDS,
        command_timeout=command_seconds,
        server_settings={"lock_timeout": "5s", "timezone": "UTC", **settings},
    )
