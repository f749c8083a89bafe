"""Lets only one of several services that start at the same time migrate the database.

Uses a transaction-level advisory lock instead of a lease (service/database/leases.py): the table of leases is created
by a migration, and the lock is always released with the transaction that it protects.
"""

import asyncio
from collections.abc import Callable

import asyncpg

POLL_SECONDS = 0.5
ASK_SECONDS = 10.0

# If the machine of a migrating service fails, the server notices within a minute and the others can continue.
SESSION = {
    "application_name": "linkbeat migrate",
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "client_connection_check_interval": "5s",
}

_LOCK = 0x6C696E6B62656174  # "linkbeat"
_TAKE = "SELECT pg_try_advisory_xact_lock($1)"
# pg_locks shows the key in two halves.
_HOLDER = """
SELECT coalesce(host(client_addr), 'this machine') AS host, pid
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = ($1::bigint >> 32)::oid
  AND objid = ($1::bigint & 4294967295)::oid
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Turn:
    """Waits for other services that migrate, and reports that once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._has_said = False

    async def take(self, connection: asyncpg.Connection) -> None:
        """Returns once this connection has the lock, which its transaction holds until it ends."""
        while not await connection.fetchval(_TAKE, _LOCK, timeout=ASK_SECONDS):
            if not self._has_said:
                self._has_said = True
                self._say(await _waiting(connection))
            await asyncio.sleep(POLL_SECONDS)


async def _waiting(connection: asyncpg.Connection) -> str:
    holder = await connection.fetchrow(_HOLDER, _LOCK)
    if holder is None:  # it has ended in the meantime
        return "Schema: waiting for another service that is migrating this database"
    return (
        f"Schema: waiting for another service that is migrating this database "
        f"(from {holder['host']}, server process {holder['pid']})"
    )
