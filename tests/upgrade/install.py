"""Installs the schema of a released version as its own `migrate` did: by its own migrations, which import its own code.

Run as `python install.py URL CONFIGURATION` in the folder that holds the version's sql and migrations, with that folder
on PYTHONPATH.
"""

import asyncio
import sys
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


async def install(url: str, configuration: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SET client_min_messages = 'error'; CREATE EXTENSION IF NOT EXISTS timescaledb")
    await connection.close()
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    async with engine.begin() as transaction:
        await transaction.run_sync(_upgrade, configuration)
    await engine.dispose()


def _upgrade(connection: Connection, configuration: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path.cwd() / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    for kind in ("function", "view", "role"):  # as 0.1.0 ordered them
        for path in sorted(Path("sql", kind).glob("*.sql")):
            script = path.read_text(encoding="utf-8")
            connection.connection.dbapi_connection.run_async(lambda driver, script=script: driver.execute(script))  # type: ignore[union-attr]
    connection.execute(text("UPDATE linkbeat.installation SET fingerprint = 'of a release'"))
    connection.execute(text("SELECT linkbeat.configure(cast(:settings AS jsonb))"), {"settings": configuration})


if __name__ == "__main__":
    asyncio.run(install(*sys.argv[1:]))
