"""Messages about alerts in tests: written as a turn writes them, and waited for."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg


async def write(
    database: asyncpg.Connection,
    channel_id: str,
    *episodes: UUID,
    transition: str = "firing",
    sequence: int = 1,
    reason: str | None = None,
    seconds_ago: float = 11,
) -> None:
    """As a turn writes a message, which is due at once; one of ten seconds later does not join it."""
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    state = transition if transition in ("resolved", "closed") else "firing"
    until = at if state != "firing" else None
    shown = [
        json.dumps({
            "id": f"{one}.{sequence}", "episode": str(one), "state": state, "rule": "busy", "severity": "critical",
            "server_id": "nas", "subject": "eth0", "value": 9e8, "peak": 9e8,
            "since": (at - timedelta(minutes=5)).isoformat(), "until": until and until.isoformat(), "reason": reason,
        })
        for one in episodes
    ]  # fmt: skip
    count = len(episodes)
    await database.execute(
        "SELECT linkbeat.write_messages($1, $2, $3, $4, $5::jsonb[], $6)",
        [channel_id] * count, list(episodes), [sequence] * count, [transition] * count, shown, at,
    )  # fmt: skip


async def until(
    database: asyncpg.Connection,
    condition: str,
    *arguments: Any,
    during: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Waits until it is so in the outbox; `during` is called again and again."""
    async with asyncio.timeout(60 if during is None else 240):
        while not await database.fetchval(f"SELECT {condition}", *arguments):
            if during is not None:
                await during()
            await asyncio.sleep(0.05)


ALL_DELIVERED = "bool_and(delivered_at IS NOT NULL) FROM linkbeat.outbox"


async def retry_now(database: asyncpg.Connection) -> None:
    await database.execute("UPDATE linkbeat.outbox SET next_attempt_at = clock_timestamp() - INTERVAL '1 second'")
