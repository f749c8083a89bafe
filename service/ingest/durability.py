"""What 200 is to mean, and a session whose commits are worth that: on the primary's disk, or on a standby's too."""

import asyncio
from dataclasses import dataclass
from typing import Literal, Self

import asyncpg

from service.database.pool import connect_writer
from service.database.server import ServerIdentity

Durability = Literal["local", "replicated"]
ATTEMPTS = 3
RETRY_SECONDS = 0.05

# Returns when the log is flushed up to its own commit, so up to all that were executed before. A transaction, and not a
# bare flush, so that it waits for synchronous standbys too, where there are any. Its position is behind every commit
# that was answered before it began.
_SEAL = """
SELECT pg_logical_emit_message(true, 'linkbeat', '') AS lsn, current_setting('synchronous_standby_names') AS standbys,
       current_setting('synchronous_commit') AS waits_for, pg_conf_load_time() AS loaded
"""
_SETTINGS = """
SELECT current_setting('synchronous_standby_names') AS standbys, current_setting('synchronous_commit') AS waits_for
"""
# After the wait. Whoever may read all statistics sees how far each synchronous standby has flushed.
_CONFIRMED = """
SELECT current_setting('synchronous_standby_names') AS standbys, current_setting('synchronous_commit') AS waits_for,
       pg_conf_load_time() AS loaded,
       CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE')
            THEN EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND flush_lsn >= $1)
       END AS is_flushed
"""
_FLUSHED_BY_STANDBY = ("on", "remote_apply")
# A server, database or role that is set not to wait for its disk would make every 200 a promise that a crash breaks.
_WAIT_FOR_DISK = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)


@dataclass(frozen=True, slots=True)
class DurabilityState:
    """What 200 is to mean, and what it can mean at the moment.

    in_force  local: the primary's disk. replicated: a standby's too. none: nothing is acknowledged
    reason    why what was asked for is not in force; "" where it is
    """

    asked: Durability
    in_force: Literal["local", "replicated", "none"]
    reason: str


class NotSealedError(ConnectionError):
    """A commit that returned, and does not vouch for what was executed before it. The session is of no further use.

    kind      that it is counted as
    in_force  what commits are worth there
    """

    def __init__(self, kind: str, message: str, in_force: Literal["local", "none"] = "none") -> None:
        super().__init__(message)
        self.kind = kind
        self.in_force: Literal["local", "none"] = in_force


class SealerSession:
    """A session that waits for the disk, and for standbys as far as the server is set to."""

    def __init__(self, connection: asyncpg.Connection, server: ServerIdentity, asked: Durability) -> None:
        self._connection = connection
        self._asked = asked
        self._messages: list[str] = []
        self.server = server
        self.in_force: Durability = "local"
        connection.add_log_listener(self._on_message)

    @classmethod
    async def open(cls, url: str, asked: Durability) -> Self:
        """Raises one of UNREACHABLE, asyncpg.PostgresError."""
        connection = await connect_writer(url, waits_for_disk=True)
        try:
            if asked == "local":
                await connection.execute(_WAIT_FOR_DISK)
            session = cls(connection, await ServerIdentity.read(connection), asked)
            session._note(await session._row(_SETTINGS))
            return session
        except BaseException:
            connection.terminate()
            raise

    def terminate(self) -> None:
        self._connection.terminate()

    async def poll(self) -> None:
        """Learns what is in force while nothing is to be sealed. Raises NotSealedError, as seal() does."""
        if self._asked == "replicated":
            await self.seal()
        else:
            self._note(await self._row(_SETTINGS))

    async def seal(self) -> int:
        """Returns when all that was committed on this server before is as durable as was asked for; the position.

        That the wait for a standby ended says little by itself. It ends with success and a warning where somebody
        cancels it (so does the cancel request of a driver whose time is over), and with success and without a word
        where the list of synchronous standbys is emptied. So with `replicated`, after the wait:

        - any warning counts as no seal.
        - The list must name somebody and synchronous_commit must wait for a flush, now as before.
        - The list may have been emptied and filled again in between. Where this login may read pg_stat_replication, a
          synchronous standby must have flushed past this position, which proves it whatever the list was. Elsewhere
          no reload of the configuration may have come to this session during the wait: the postmaster signals its
          sessions before the checkpointer, which is what releases waiters, so a session that was released by a reload
          knows of it before its next statement. One gap remains there: right after a reload that fills the list, until
          the checkpointer has taken it up, commits wait for nobody. Membership in pg_read_all_stats closes it.

        A commit in doubt is repeated: in the order of the log, a later one vouches for all before it.

        Raises NotSealedError, one of UNREACHABLE, asyncpg.PostgresError.
        """
        for attempt in range(1, ATTEMPTS + 1):
            row = await self._row(_SEAL)
            self._note(row)
            if self._asked == "local":
                if row["waits_for"] == "off":
                    raise NotSealedError("not_flushed", "synchronous_commit is off: commits do not wait for the disk")
                break
            after = await self._row(_CONFIRMED, row["lsn"])
            for one in (row, after):
                _require_standby(one)
            if after["is_flushed"] or (after["is_flushed"] is None and after["loaded"] == row["loaded"]):
                break
            if attempt == ATTEMPTS:
                raise NotSealedError(
                    "not_replicated", "no synchronous standby has flushed what a commit did not wait for", "local"
                )
            await asyncio.sleep(RETRY_SECONDS)
        lsn: int = row["lsn"]
        return lsn

    async def _row(self, sql: str, *arguments: int) -> asyncpg.Record:
        self._messages.clear()
        row = await self._connection.fetchrow(sql, *arguments)
        # A message comes before the end of its statement, and its listener is called before whoever awaits the end.
        if self._messages:
            raise NotSealedError("seal_cancelled", f"the wait for the log's flush was cut off: {self._messages[0]}")
        assert row is not None  # a SELECT without FROM has one row
        return row

    def _note(self, row: asyncpg.Record) -> None:
        waits = row["standbys"].strip() and row["waits_for"] in _FLUSHED_BY_STANDBY
        self.in_force = "replicated" if waits else "local"

    def _on_message(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        self._messages.append(str(message))


def _require_standby(row: asyncpg.Record) -> None:
    if not row["standbys"].strip():
        raise NotSealedError("not_replicated", "synchronous_standby_names is empty", "local")
    if row["waits_for"] not in _FLUSHED_BY_STANDBY:
        message = f"synchronous_commit is {row['waits_for']}, which does not wait for a standby's disk"
        raise NotSealedError("not_replicated", message, "local")
