"""A session that executes batches without waiting for the disk, on the server of the sealer that it has joined."""

import logging
from collections import Counter
from dataclasses import dataclass

import asyncpg

from service.database.hosts import reason
from service.database.pool import UNREACHABLE, connect_writer
from service.database.server import ServerIdentity
from service.http.log_limit import limited
from service.ingest.durability import SealerSession
from service.ingest.sealing import count_reconnects


@dataclass(frozen=True, slots=True, eq=False)
class Writer:
    """`session` of the sealer vouches for what is executed by `connection`."""

    connection: asyncpg.Connection
    session: SealerSession


async def join(session: SealerSession, url: str, counts: Counter[str]) -> Writer | None:
    """A writer on the server that `session` is on; None where there is none now."""
    try:
        connection = await connect_writer(url, waits_for_disk=False)
        try:
            server = await ServerIdentity.read(connection)
        except BaseException:
            connection.terminate()
            raise
    except (*UNREACHABLE, asyncpg.PostgresError) as raised:
        limited(logging.WARNING, ("writer", type(raised).__name__), "a writer has no connection: %s", reason(raised))
        count_reconnects(counts, raised)
        return None
    if server == session.server:
        return Writer(connection, session)
    connection.terminate()
    counts["other_server"] += 1
    epochs = server.epoch, session.server.epoch
    limited(logging.WARNING, ("writer", "other server"), "a writer came to server %s, and the sealer to %s", *epochs)
    return None
