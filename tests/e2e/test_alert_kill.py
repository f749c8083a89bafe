"""A service that is killed around a delivery: no message is lost, and what is sent again is the same, byte for byte."""

from pathlib import Path

import asyncpg

from tests.helpers.alert_kills import killed_while_it_delivers


async def test_killed_while_it_delivers_it_sends_every_message_at_least_once_with_the_same_bytes(
    database_url: str, database: asyncpg.Connection, tmp_path: Path
) -> None:
    """A1 and A2; fifty times in `make drill-alerts`."""
    await killed_while_it_delivers(database_url, database, tmp_path, kills=2)
