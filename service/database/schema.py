"""The schema of the database: upgrades it, and rejects an outdated one.

Alembic migrates tables (migrations/); functions, views and roles (sql/order.txt) are reapplied whenever they differ,
and so are the settings that the database uses (linkbeat.configure). service/database/upgrade.py does both.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from service.command import COMMAND
from service.database import migrating, pooler, replaceable, roles
from service.database.hosts import Target, connect, reason
from service.database.migrating import Turn
from service.settings import Settings, variable

ROOT = Path(__file__).resolve().parents[2]
MIGRATE = f"{COMMAND} migrate"
CONNECT_SECONDS = 10.0
INSTALL_SECONDS = 120.0
BEFORE_RELEASE = "0001"
# The first version with the fixes that continuous aggregates and replays into compressed chunks need.
COMMUNITY_AT_LEAST = (2, 29, 1)
DEFAULTS = Settings()


class SchemaError(Exception):
    """The database cannot be used; the message has the remedy."""


async def migrate(url: str, say: Callable[[str], None], settings: Settings = DEFAULTS) -> None:
    """Upgrades the schema and the settings in the database, if they are outdated.

    Of several that migrate at once one works; the others say so, wait, and find it done. A login that may not make the
    roles of sql/role/ is told so by a line, and does without them.

    Raises SchemaError if the database has a newer schema than this service knows, or cannot be migrated.
    """
    newest = head()
    wanted = settings.database_configuration()
    found: _Found | None = None

    async def is_outdated() -> bool:
        nonlocal found
        found = await _found_known(url)
        return found is None or not found.is_current(newest, wanted)

    try:
        await pooler.require_sessions(url, seconds=CONNECT_SECONDS)
        if not await is_outdated():
            say(f"Schema: up to date at {newest}")
            return
        turn = Turn(say)
        await _install_extension(url, turn)
        if not await _upgrade(url, turn, wanted, is_outdated):
            say(f"Schema: up to date at {newest}")
            return
        migrated = await _found(url)
        assert migrated is not None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as raised:
        raise SchemaError(f"the database cannot be migrated: {reason(raised)}") from raised
    if found is None:
        say(f"Schema: installed, now at {newest}")
    elif not found.is_newest(newest):
        say(f"Schema: upgraded from {found.revision}, now at {newest}")
    else:
        say(f"Schema: up to date at {newest}; applied {_differing(wanted, found.configuration) or 'its roles'}")
    if migrated.wanting_roles:
        say(
            f"Roles: {migrated.login} may not make or take {', '.join(migrated.wanting_roles)} and does without; a "
            f"superuser can make them, in this database: psql {' '.join(f'-f {path}' for path in _role_files())}"
        )


async def check(url: str, settings: Settings = DEFAULTS, *, target: Target = "primary") -> str:
    """The edition that the schema was installed for, if the schema is this service's own.

    Raises SchemaError, with the command to run, if it is older or newer, has other settings, or the edition has
    changed.
    """
    try:
        await pooler.require_sessions(url, seconds=CONNECT_SECONDS)
        found = await _found(url, target)
        if found is None:
            raise SchemaError(f"the database has no Linkbeat schema; run: {MIGRATE}")
        if found.revision not in revisions():
            raise SchemaError(_unknown(found.revision))
        if found.revision != head():
            raise SchemaError(
                f"the database's schema is at {found.revision}, older than this service's {head()}; run: {MIGRATE}"
            )
        if found.edition != found.running:
            raise SchemaError(
                f"the schema was installed for TimescaleDB's {found.edition} edition and the server now runs the "
                f"{found.running} edition; set timescaledb.license back, or restore into a new database"
            )
        if not found.has_functions:
            raise SchemaError(f"the database's functions are not this service's; run: {MIGRATE}")
        wanted = settings.database_configuration()
        if found.configuration != wanted:
            raise SchemaError(
                f"the database works by other settings than this service's "
                f"{_differing(wanted, found.configuration)}; run: {MIGRATE}"
            )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as raised:
        raise SchemaError(f"the database cannot be used: {reason(raised)}") from raised
    return found.edition


def head() -> str:
    """The revision that this checkout migrates to."""
    return revisions()[-1]


def revisions() -> list[str]:
    """The revisions of this checkout, oldest first, by the names of their files: NNNN_topic.py."""
    versions = ROOT / "migrations" / "versions"
    return sorted(path.name.partition("_")[0] for path in versions.glob("[0-9]*_*.py"))


class _Found:
    def __init__(
        self, revision: str, row: asyncpg.Record, configuration: dict[str, float], wanting_roles: list[str]
    ) -> None:
        self.revision = revision
        self.configuration = configuration
        self.wanting_roles = wanting_roles
        self.login: str = row["login"]
        self.edition: str = row["edition"]
        self.has_functions = row["fingerprint"] == replaceable.fingerprint(ROOT / "sql", self.edition)
        self.running = "apache" if row["license"] == "apache" else "community"

    def is_newest(self, newest: str) -> bool:
        """Whether structure and functions are this service's."""
        return self.revision == newest and self.has_functions

    def is_current(self, newest: str, configuration: dict[str, float]) -> bool:
        """Whether nothing is left to do."""
        return self.is_newest(newest) and self.configuration == configuration and not self.wanting_roles


async def _found(url: str, target: Target = "primary") -> _Found | None:
    connection = await connect(url, seconds=CONNECT_SECONDS, target=target, command_timeout=CONNECT_SECONDS)
    try:
        if await connection.fetchval("SELECT to_regclass('linkbeat.schema_version')") is None:
            return None
        revision = await connection.fetchval("SELECT version_num FROM linkbeat.schema_version")
        if revision is None:
            return None
        row = await connection.fetchrow(
            "SELECT edition, fingerprint, current_setting('timescaledb.license', true) AS license, "
            "current_user AS login FROM linkbeat.installation"
        )
        assert row is not None
        configuration: list[asyncpg.Record] = []
        if await connection.fetchval("SELECT to_regclass('linkbeat.configuration')") is not None:
            configuration = await connection.fetch("SELECT setting, days FROM linkbeat.configuration")
        applied = {row["setting"]: row["days"] for row in configuration}
        return _Found(revision, row, applied, await roles.wanting(connection))
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


async def _found_known(url: str) -> _Found | None:
    """Raises SchemaError where it is of a later version."""
    found = await _found(url)
    if found is not None and found.revision not in revisions():
        raise SchemaError(_unknown(found.revision))
    return found


async def _install_extension(url: str, turn: Turn) -> None:
    """Before the migration, because the edition can only be asked for where the extension is there."""
    connection = await connect(
        url, seconds=CONNECT_SECONDS, command_timeout=INSTALL_SECONDS, server_settings=migrating.SESSION
    )
    try:
        if await connection.fetchval("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'") is None:
            raise SchemaError("TimescaleDB is not installed on the database server; install its package there")
        try:
            # Two that make it at once would both find it missing.
            async with connection.transaction():
                await turn.take(connection)
                await connection.execute(
                    "SET LOCAL client_min_messages = 'error'; CREATE EXTENSION IF NOT EXISTS timescaledb"
                )
        except asyncpg.PostgresError as raised:
            raise SchemaError(f"TimescaleDB cannot be installed in the database: {raised}") from raised
        version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
        license_name = await connection.fetchval("SHOW timescaledb.license")
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
    if license_name != "apache" and tuple(int(part) for part in version.split("-")[0].split(".")) < COMMUNITY_AT_LEAST:
        wanted = ".".join(map(str, COMMUNITY_AT_LEAST))
        raise SchemaError(
            f"TimescaleDB {version} is too old: the Community edition is used from {wanted} on; upgrade it"
        )


async def _upgrade(
    url: str, turn: Turn, configuration: dict[str, float], is_outdated: Callable[[], Awaitable[bool]]
) -> bool:
    from service.database import upgrade  # noqa: PLC0415  # its libraries take as long as all the rest to import

    try:
        return await upgrade.upgrade(url, ROOT, turn, configuration, seconds=CONNECT_SECONDS, is_outdated=is_outdated)
    except upgrade.UpgradeError as raised:
        raise SchemaError(f"the database cannot be migrated: {raised}") from raised


def _differing(wanted: dict[str, float], found: dict[str, float]) -> str:
    """The settings that differ, as variables with the required values."""
    return ", ".join(f"{variable(name)} = {days:g}" for name, days in wanted.items() if found.get(name) != days)


def _role_files() -> list[Path]:
    return [path for path in replaceable.files(ROOT / "sql", "apache") if path.parent.name == "role"]


def _unknown(revision: str) -> str:
    if revision == BEFORE_RELEASE:
        return (
            f"the database's schema is at {revision}, from before the first release, and cannot be upgraded; "
            "remove the database (of the embedded one, postgres and database-kind in LINKBEAT_DATA_DIR) and start again"
        )
    return f"the database's schema is at {revision}, which this service does not know: it is newer; upgrade the service"
