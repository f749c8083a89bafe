"""The database's roles: what each may do, and what is done where they cannot be made."""

import asyncio
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from service import roles, schema
from service.database import connect_writer, open_database
from service.roles import ANALYST, INGEST, READ

REFUSED = asyncpg.InsufficientPrivilegeError
OURS = "('public'::regnamespace, 'linkbeat'::regnamespace)"
NOT_OF_AN_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend WHERE objid = {0}.oid AND deptype = 'e')"


@asynccontextmanager
async def connected(url: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


def as_login(url: str, login: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}:{login}@{parts.netloc.rpartition('@')[2]}"))


@pytest.fixture
async def login(database: asyncpg.Connection) -> AsyncIterator[str]:
    """A person's own login, with its name for a password; it has no rights yet."""
    name = f"linkbeat_test_{uuid.uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    yield name
    await database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def relations(database: asyncpg.Connection, role: str, privilege: str) -> dict[str, str]:
    """What of our own relations the role has a privilege on, each with its kind."""
    rows = await database.fetch(
        f"SELECT oid::regclass::text, relkind::text FROM pg_class c WHERE relkind IN ('r', 'p', 'v', 'm', 'f') "
        f"AND relnamespace IN {OURS} AND {NOT_OF_AN_EXTENSION.format('c')} "
        "AND has_table_privilege($1, oid, $2) OR relkind = 'S' AND has_sequence_privilege($1, oid, 'USAGE')",
        role,
        privilege,
    )
    return {row[0]: row[1] for row in rows}


async def test_an_analyst_reads_the_views_and_no_table(database: asyncpg.Connection) -> None:
    readable = await relations(database, ANALYST, "SELECT")
    everything = await relations(database, "postgres" if False else await database.fetchval("SELECT current_user"), "SELECT")
    await database.execute(f"SET ROLE {ANALYST}")
    for view in readable:
        await database.fetch(f"SELECT * FROM {view} LIMIT 1")
    denied = []
    for relation in sorted(everything.keys() - readable.keys()):
        with pytest.raises(REFUSED):
            await database.fetch(f"SELECT * FROM {relation} LIMIT 1")
        denied.append(relation)

    assert set(readable.values()) == {"v"}
    assert {"network_samples", "network_traffic_1h", "server_overview"} <= readable.keys()
    assert {"servers", "network_interface_metrics", "server_boots", "linkbeat.installation"} <= set(denied)


@pytest.mark.parametrize("role", [ANALYST, READ, INGEST])
@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"])
async def test_no_role_writes_a_relation(database: asyncpg.Connection, role: str, privilege: str) -> None:
    assert await relations(database, role, privilege) == {}


async def test_ingest_executes_one_function_and_reads_nothing(database: asyncpg.Connection) -> None:
    functions = await database.fetch(
        f"SELECT oid::regproc::text FROM pg_proc p WHERE pronamespace IN {OURS} AND {NOT_OF_AN_EXTENSION.format('p')} "
        f"AND has_function_privilege('{INGEST}', oid, 'EXECUTE')"
    )

    assert [row[0] for row in functions] == ["linkbeat.ingest_heartbeats"]
    assert await relations(database, INGEST, "SELECT") == {}


async def test_public_has_nothing_in_our_schema(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        """
        SELECT o.name, a.privilege_type
        FROM (
            SELECT nspname::text AS name, coalesce(nspacl, acldefault('n', nspowner)) AS acl
            FROM pg_namespace WHERE nspname = 'linkbeat'
            UNION ALL SELECT oid::regclass::text, coalesce(relacl, acldefault('r', relowner))
            FROM pg_class WHERE relnamespace = 'linkbeat'::regnamespace AND relkind IN ('r', 'v', 'm')
            UNION ALL SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner))
            FROM pg_proc WHERE pronamespace = 'linkbeat'::regnamespace
            UNION ALL SELECT oid::regtype::text, coalesce(typacl, acldefault('T', typowner))
            FROM pg_type WHERE typnamespace = 'linkbeat'::regnamespace AND typtype = 'c'
              AND typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c')
        ) o, aclexplode(o.acl) a
        WHERE a.grantee = 0
        """
    )

    assert rows == []


# E48: whatever default_transaction_read_only is set to.
WRITES = [
    "INSERT INTO network_interface_metrics DEFAULT VALUES",
    "INSERT INTO network_samples (server_id) VALUES ('nas')",
    "DELETE FROM servers",
    "UPDATE server_overview SET hostname = 'x'",
    "TRUNCATE server_metrics",
    "SELECT server_id, interfaces FROM servers",
    "SELECT * FROM linkbeat.installation",
    "SELECT linkbeat.unsigned(1)",
    "CALL linkbeat.maintain()",
    "CREATE TABLE public.mine ()",
    "CREATE SCHEMA mine",
    "SELECT drop_chunks('network_interface_metrics', now())",
    "SELECT create_hypertable('servers', by_range('last_seen'))",
    "SELECT set_chunk_time_interval('network_interface_metrics', INTERVAL '1 hour')",
    "SELECT add_job('_timescaledb_functions.policy_job_stat_history_retention', '1h')",
    "SELECT timescaledb_pre_restore()",
    "SELECT _timescaledb_functions.stop_background_workers()",
    "INSERT INTO _timescaledb_catalog.metadata VALUES ('a', 'b', true)",
    "DELETE FROM _timescaledb_catalog.hypertable",
    "DELETE FROM _timescaledb_catalog.chunk",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT rolpassword FROM pg_authid",
    "SET ROLE linkbeat_ingest",
    "ALTER ROLE analyst SUPERUSER",
]


@pytest.mark.parametrize("statement", WRITES)
async def test_an_analysts_login_is_refused(
    database: asyncpg.Connection, database_url: str, login: str, statement: str
) -> None:
    await database.execute(f"GRANT {ANALYST} TO {login}")

    async with connected(as_login(database_url, login), default_transaction_read_only="off") as person:
        with pytest.raises((REFUSED, asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.RaiseError, asyncpg.PostgresError)) as raised:
            await person.execute(statement)

    print(statement, type(raised.value).__name__, raised.value)


async def test_no_chunk_or_internal_table_can_be_written(database: asyncpg.Connection) -> None:
    writable = await database.fetch(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace::regnamespace::text LIKE '%timescaledb%' "
        f"AND relkind IN ('r', 'v', 'm', 'p', 'f') AND has_table_privilege('{ANALYST}', oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
    )

    assert writable == []
