"""Statements on a database, each by a connection of its own: what is measured shares none with it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from benchmarks.processes import name, parent

Found = TypeVar("Found")


def execute(url: str, *statements: str) -> None:
    """One after the other, each in a transaction of its own."""

    async def run(connection: asyncpg.Connection) -> None:
        for statement in statements:
            await connection.execute(statement)

    connected(url, run)


def fetchval(url: str, query: str, *arguments: Any) -> Any:
    """The first column of the first row."""
    return connected(url, lambda connection: connection.fetchval(query, *arguments))


def postmaster(url: str) -> int | None:
    """Process id of the database server, below which all its work is done; None where it is not on this machine."""

    async def ask(connection: asyncpg.Connection) -> int | None:
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        try:
            return parent(backend) if name(backend) == "postgres" else None
        except FileNotFoundError:
            return None

    return connected(url, ask)


def connected(url: str, use: Callable[[asyncpg.Connection], Awaitable[Found]]) -> Found:
    """What `use` returns of a connection, closed afterwards."""

    async def run() -> Found:
        connection = await asyncpg.connect(url)
        try:
            return await use(connection)
        finally:
            await connection.close()

    return asyncio.run(run())
