"""The schema: installed, upgraded, described; and refused where it is not this service's."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from service.database import schema
from service.database.schema import SchemaError
from service.settings import Settings
from tests.conftest import with_database
from tests.helpers.aggregates import RELATIONS

COMMAND = "python -m service migrate"
TABLES = ("servers", "server_boots", "network_interface_metrics", "server_metrics", "filesystem_metrics")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, statement: str) -> None:
    async with connected(url) as connection:
        await connection.execute(statement)


async def catalogue(url: str) -> list[tuple[Any, ...]]:
    """Everything of the schema, each with the transaction that last wrote it."""
    async with connected(url) as connection:
        rows = await connection.fetch(
            """
            SELECT 'relation', oid::text, relname::text, xmin::text FROM pg_class
            WHERE relnamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace)
            UNION ALL SELECT 'column', attrelid::text, attname::text, a.xmin::text FROM pg_attribute a
            JOIN pg_class c ON c.oid = a.attrelid
            WHERE relnamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace)
            UNION ALL SELECT 'function', oid::text, proname::text, xmin::text FROM pg_proc
            WHERE pronamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace)
            UNION ALL SELECT 'type', oid::text, typname::text, xmin::text FROM pg_type
            WHERE typnamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace)
            UNION ALL SELECT 'trigger', oid::text, tgname::text, xmin::text FROM pg_trigger
            UNION ALL SELECT 'comment', objoid::text || '/' || objsubid::text, description, xmin::text
            FROM pg_description
            UNION ALL SELECT 'version', '', version_num, xmin::text FROM linkbeat.schema_version
            UNION ALL SELECT 'installation', edition, fingerprint, xmin::text FROM linkbeat.installation
            ORDER BY 1, 2, 3
            """
        )
    return [tuple(row) for row in rows]


async def test_an_empty_database_is_installed_and_then_accepted(empty_database_url: str) -> None:
    said: list[str] = []

    await schema.migrate(empty_database_url, said.append)

    assert said == [f"Schema: installed, now at {schema.head()}"]
    async with connected(empty_database_url) as connection:
        running = await connection.fetchval("SHOW timescaledb.license")
    assert await schema.check(empty_database_url) == ("apache" if running == "apache" else "community")


async def test_a_second_upgrade_changes_nothing(database_url: str) -> None:
    before = await catalogue(database_url)
    name = urlsplit(database_url).path.removeprefix("/")
    # Whatever would write anything now fails.
    await execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    said: list[str] = []

    await schema.migrate(database_url, said.append)

    assert said == [f"Schema: up to date at {schema.head()}"]
    assert len(before) > 100
    assert await catalogue(database_url) == before


async def test_a_database_without_the_schema_is_refused_with_the_command(empty_database_url: str) -> None:
    with pytest.raises(SchemaError, match=f"no Linkbeat schema; run: {COMMAND}$"):
        await schema.check(empty_database_url)


async def test_an_older_schema_is_refused_with_the_command_and_upgraded_by_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer_service:
        shutil.copytree(schema.ROOT / "migrations", tmp_path / "migrations")
        shutil.copytree(schema.ROOT / "sql", tmp_path / "sql")
        (tmp_path / "migrations" / "versions" / "9999_next.py").write_text(
            "from alembic import op\n"
            f'revision = "9999"\ndown_revision = "{schema.head()}"\n'
            'def upgrade() -> None:\n    op.execute("CREATE TABLE added_by_the_next ()")\n'
        )
        released = schema.head()
        newer_service.setattr(schema, "ROOT", tmp_path)
        said: list[str] = []

        with pytest.raises(SchemaError, match=f"at {released}, older than this service's 9999; run: {COMMAND}$"):
            await schema.check(database_url)
        await schema.migrate(database_url, said.append)

        assert said == [f"Schema: upgraded from {released}, now at 9999"]
        await schema.check(database_url)
        await execute(database_url, "SELECT FROM added_by_the_next")

    # This service, which knows nothing of 9999.
    for refused in (schema.check(database_url), schema.migrate(database_url, said.append)):
        with pytest.raises(SchemaError, match=r"at 9999, which this service does not know: .*upgrade the service$"):
            await refused


async def test_changed_functions_are_refused_with_the_command_and_restored_by_it(database_url: str) -> None:
    await execute(
        database_url,
        "UPDATE linkbeat.installation SET fingerprint = 'of another'; DROP FUNCTION linkbeat.ingest_heartbeats",
    )

    with pytest.raises(SchemaError, match=f"functions are not this service's; run: {COMMAND}$"):
        await schema.check(database_url)
    await schema.migrate(database_url, lambda _: None)

    await schema.check(database_url)
    await execute(database_url, "SELECT 'linkbeat.ingest_heartbeats'::regproc")


async def test_another_edition_is_refused_saying_what_to_do(database_url: str) -> None:
    await execute(
        database_url,
        "UPDATE linkbeat.installation SET edition = CASE edition WHEN 'apache' THEN 'community' ELSE 'apache' END",
    )

    with pytest.raises(SchemaError, match=r"edition and the server now runs the .* set timescaledb.license back"):
        await schema.check(database_url)


async def test_what_the_database_refuses_is_told_in_its_words(empty_database_url: str) -> None:
    await execute(empty_database_url, "CREATE EXTENSION timescaledb")
    await execute(
        empty_database_url,
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not on a Friday' USING HINT = 'Come on Monday.'; END $$;"
        "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION refuse()",
    )

    with pytest.raises(SchemaError, match=r"^the database cannot be migrated: not on a Friday\n") as raised:
        await schema.migrate(empty_database_url, lambda _: None)

    assert str(raised.value).endswith("Come on Monday.")


async def test_a_database_that_is_not_there_is_told(database_url: str) -> None:
    with pytest.raises(SchemaError, match=r'^the database cannot be used: database "nowhere" does not exist$'):
        await schema.check(with_database(database_url, "nowhere"))


async def test_it_lies_where_analysts_look_whatever_the_role_is_called(database: asyncpg.Connection) -> None:
    # The role that installs has a schema of its own name here, which its search path puts before public.
    await database.execute("SET search_path = public")

    for relation in (*RELATIONS, *TABLES):
        await database.fetch(f"SELECT FROM {relation}")


async def test_names_sort_by_their_bytes_at_every_level(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        "SELECT attrelid::regclass::text AS relation, attname, collname FROM pg_attribute a "
        "JOIN pg_collation c ON c.oid = a.attcollation "
        "WHERE attrelid = ANY ($1::text[]::regclass[]) AND attname IN ('server_id', 'interface_name', 'mount_point')",
        [*RELATIONS, *TABLES],
    )

    assert len(rows) == 27
    assert [tuple(row) for row in rows if row["collname"] != "C"] == []


async def test_a_schema_of_before_the_first_release_is_refused_with_what_to_do(database_url: str) -> None:
    await execute(database_url, "UPDATE linkbeat.schema_version SET version_num = '0001'")

    with pytest.raises(SchemaError, match=r"from before the first release, .* remove the database"):
        await schema.check(database_url)
    with pytest.raises(SchemaError, match=r"from before the first release, .* remove the database"):
        await schema.migrate(database_url, lambda _: None)


async def test_a_database_that_works_by_other_settings_is_refused_naming_them_and_configured_by_the_command(
    database_url: str,
) -> None:
    settings = Settings(retain_raw_days=20.0, oldest_heartbeat_days=7.5)
    said: list[str] = []

    with pytest.raises(
        SchemaError,
        match=r"^the database works by other settings than this service's "
        rf"LINKBEAT_OLDEST_HEARTBEAT_DAYS = 7.5, LINKBEAT_RETAIN_RAW_DAYS = 20; run: {COMMAND}$",
    ):
        await schema.check(database_url, settings)
    await schema.migrate(database_url, said.append, settings)

    applied = "LINKBEAT_OLDEST_HEARTBEAT_DAYS = 7.5, LINKBEAT_RETAIN_RAW_DAYS = 20"
    assert said == [f"Schema: up to date at {schema.head()}; applied {applied}"]
    await schema.check(database_url, settings)
    before = await catalogue(database_url)
    await schema.migrate(database_url, said.append, settings)
    assert await catalogue(database_url) == before


async def test_the_policies_are_what_the_settings_say(database_url: str) -> None:
    """On Community: every offset of every policy. On Apache there are none: retention reads the settings."""
    settings = Settings(
        oldest_heartbeat_days=3, compress_after_days=5, retain_raw_days=6, retain_1m_days=7, retain_15m_days=8,
        retain_1h_days=9, retain_1d_days=10,
    )  # fmt: skip

    await schema.migrate(database_url, lambda _: None, settings)

    async with connected(database_url) as connection:
        edition = await connection.fetchval("SELECT edition FROM linkbeat.installation")
        rows = await connection.fetch(
            "SELECT coalesce(hypertable_name, config->>'hypertable'), proc_name, extract(epoch FROM "
            "coalesce(config->>'start_offset', config->>'compress_after', config->>'drop_after')::interval) / 86400 "
            "FROM timescaledb_information.jobs WHERE (hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat')"
        )
    expected: set[tuple[str, str, int | None]] = set()
    for table in ("network_interface_metrics", "server_metrics", "filesystem_metrics"):
        expected |= {(table, "policy_compression", 5), (table, "policy_retention", 6)}
    # It asks for the setting when it runs.
    expected -= {("network_interface_metrics", "policy_compression", 5)}
    expected |= {("network_interface_metrics", "columnstore_job", None)}
    for relation in RELATIONS:
        further = relation.endswith("_1d")
        expected |= {
            (relation, "policy_refresh_continuous_aggregate", 4 + further),
            (relation, "policy_compression", 5 + further),
            (relation, "policy_retention", {"1m": 7, "15m": 8, "1h": 9, "1d": 10}[relation.rpartition("_")[2]]),
        }
    assert {tuple(row) for row in rows} == (expected if edition == "community" else set())
