"""Identifies the server of a session: an acknowledgement is not valid for the server that replaces it in a failover."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg

# Executable by every login. The name of a WAL file begins with the current timeline of this server;
# pg_control_checkpoint() has the old timeline until the first checkpoint after a promotion.
_IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS timeline,
       pg_postmaster_start_time() AS started_at
"""


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """One run of one database server.

    system_identifier  chosen by initdb and shared by all standbys of the cluster
    timeline           increases with each promotion and each point-in-time recovery
    started_at         when the server's postmaster started
    """

    system_identifier: int
    timeline: int
    started_at: datetime

    @property
    def epoch(self) -> str:
        """`<system_identifier>.<timeline>`: if it changes, acknowledged data may be missing.

        It changes with a failover, a restore or another cluster, but not with a restart. Compared for equality only.
        """
        return f"{self.system_identifier}.{self.timeline}"

    @classmethod
    async def read(cls, connection: asyncpg.Connection) -> Self:
        """The identity of the server that `connection` is on.

        Raises asyncpg.ObjectNotInPrerequisiteStateError on a standby, which writes no WAL.
        """
        row = await connection.fetchrow(_IDENTITY)
        assert row is not None  # a SELECT without FROM has one row
        return cls(row["system_identifier"], row["timeline"], row["started_at"])
