"""Applies migrations. Only a process that has some to apply imports this: Alembic and SQLAlchemy take as long to import
as all the rest of the service.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service.database import migrating, replaceable
from service.database.hosts import connect
from service.database.migrating import Turn


class UpgradeError(Exception):
    """A migration failed; the message is the driver's."""


async def upgrade(
    url: str,
    root: Path,
    turn: Turn,
    configuration: dict[str, float],
    *,
    seconds: float,
    is_outdated: Callable[[], Awaitable[bool]],
) -> bool:
    """Applies what is in `root`/migrations and `root`/sql, and the settings, in one transaction.

    seconds      the longest that a connection may take
    is_outdated  asked once it is our turn: another service may have migrated in the meantime

    Returns whether it was. Raises UpgradeError, and what asyncpg raises.
    """
    # SQLAlchemy reads a URL of several hosts its own way; whom it connects to is settled here as elsewhere.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        async_creator=partial(connect, url, seconds=seconds, server_settings=migrating.SESSION),
    )
    try:
        async with engine.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            # By SQLAlchemy, so that its transaction has begun.
            await connection.execute(text("SELECT 1"))
            await turn.take(driver)
            if not await is_outdated():
                return False
            await connection.run_sync(_upgrade, root, configuration)
    except SQLAlchemyError as raised:
        # The message of the driver: SQLAlchemy adds the statement, a class name and a link to its manual.
        cause = getattr(getattr(raised, "orig", None), "__cause__", None) or raised
        raise UpgradeError(str(cause)) from raised
    finally:
        await engine.dispose()
    return True


def _upgrade(connection: Connection, root: Path, configuration: dict[str, float]) -> None:
    config = alembic_config(root)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    edition = connection.execute(text("SELECT edition FROM linkbeat.installation")).scalar_one()
    sql = root / "sql"
    connection.connection.dbapi_connection.run_async(lambda driver: replaceable.apply(driver, sql, edition))  # type: ignore[union-attr]
    connection.execute(
        text("UPDATE linkbeat.installation SET fingerprint = :found"), {"found": replaceable.fingerprint(sql, edition)}
    )
    connection.execute(
        text("SELECT linkbeat.configure(cast(:settings AS jsonb))"),
        {"settings": msgspec.json.encode(configuration).decode()},
    )


def alembic_config(root: Path) -> Config:
    """Of the migrations in `root`/migrations."""
    config = Config()
    config.set_main_option("script_location", str(root / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
