"""Databases as a released version left them, and that version's own SQL to fill them."""

import asyncio
import json
import os
import sys
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from service.ingest.batch import ARGUMENTS, Pending, arguments
from service.ingest.heartbeat import decode_heartbeat
from service.settings import Settings

FOLDER = Path(__file__).parents[1] / "upgrade"
_PARAMETERS = """
SELECT proargnames[1:pronargs] FROM pg_proc WHERE oid = 'linkbeat.ingest_heartbeats'::regproc
"""


async def install(url: str, version: str, into: Path) -> None:
    """Installs the version's schema into an empty database, with the policies of the Community edition turned off."""
    with tarfile.open(FOLDER / version / "schema.tar.xz") as archive:
        archive.extractall(into, filter="data")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(FOLDER / "install.py"), url, json.dumps(Settings().database_configuration()),
        cwd=into, env=os.environ | {"PYTHONPATH": str(into)},
    )  # fmt: skip
    assert await process.wait() == 0, f"{version} cannot be installed"
    await stop_policies(url)


async def stop_policies(url: str) -> None:
    """The test says when the background works."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs "
        "WHERE (hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat') AND scheduled"
    )
    await connection.close()


async def ingest(database: asyncpg.Connection, bodies: Sequence[dict[str, Any]]) -> None:
    """Stores heartbeats one by one by the database's own ingest_heartbeats, whichever version's it is.

    What is passed has names: of today's arguments, those that the function has.
    """
    names = await database.fetchval(_PARAMETERS)
    assert set(names) <= set(ARGUMENTS), "the function has an argument that the service does not know any more"
    call = "SELECT FROM linkbeat.ingest_heartbeats({})".format(
        ", ".join(f"{name} => ${n}::{ARGUMENTS[name]}" for n, name in enumerate(names, start=1))
    )
    for body in bodies:
        beat = decode_heartbeat(json.dumps(body).encode(), now=datetime.now(UTC), oldest=timedelta(days=30))
        pending = Pending(beat, datetime.fromisoformat(body["timestamp"]), 0, asyncio.Future())
        values = arguments([pending], may_register=True, series_budget=100, fold_seconds=600)
        named = dict(zip(ARGUMENTS, values, strict=True))
        await database.execute(call, *(named[name] for name in names))
