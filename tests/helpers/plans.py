"""What a statement that the service sent would read."""

from datetime import datetime
from typing import Any

import asyncpg
from asyncpg.connection import LoggedQuery

# Of the rows themselves; finished buckets are in chunks of their own.
_OLD = """
SELECT chunk_name FROM timescaledb_information.chunks
WHERE hypertable_name IN ('network_interface_metrics', 'server_metrics', 'filesystem_metrics') AND range_end < $1
"""


async def old_chunks_read(database: asyncpg.Connection, statement: LoggedQuery, before: datetime) -> list[str]:
    """Chunks of rows that end before a time, and that its plan reads: expect []. There must be such chunks."""
    old = [row["chunk_name"] for row in await database.fetch(_OLD, before)]
    assert old
    await database.execute("SET plan_cache_mode = force_custom_plan")
    plan = "\n".join(row[0] for row in await database.fetch(f"EXPLAIN {_with_values(statement)}"))
    return [chunk for chunk in old if chunk in plan]


def _with_values(statement: LoggedQuery) -> str:
    sql = statement.query
    for place in range(len(statement.args), 0, -1):
        value: Any = statement.args[place - 1]
        sql = sql.replace(
            f"${place}", f"TIMESTAMPTZ '{value.isoformat()}'" if isinstance(value, datetime) else repr(value)
        )
    return sql
