"""Which server a session is on: an acknowledgement holds for one server and not for its namesake after a failover."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg

# Any login may execute these. The name of a log file begins with the timeline that this server writes at the moment;
# pg_control_checkpoint() names the old one until the first checkpoint after a promotion.
_IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS timeline,
       pg_postmaster_start_time() AS started_at
"""


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """One run of one database server.

    system_identifier  of the cluster, which its standbys share; initdb chooses it
    timeline           grows with each promotion and each restore to a point in time
    started_at         when the server's postmaster started
    """

    system_identifier: int
    timeline: int
    started_at: datetime

    @property
    def epoch(self) -> str:
        """`<system_identifier>.<timeline>`: another one means that acknowledged data may be gone.

        A failover, a restore or another cluster changes it, a restart does not. Compared for equality only.
        """
        return f"{self.system_identifier}.{self.timeline}"

    @classmethod
    async def read(cls, connection: asyncpg.Connection) -> Self:
        """The identity of the server that `connection` is on.

        Raises asyncpg.ObjectNotInPrerequisiteStateError on a standby, which writes no log of its own.
        """
        row = await connection.fetchrow(_IDENTITY)
        assert row is not None  # a SELECT without FROM has one row
        return cls(row["system_identifier"], row["timeline"], row["started_at"])
