"""The database's roles: what each may do, and what is done where they cannot be made."""

import asyncio
import uuid
from urllib.parse import urlsplit

import asyncpg
import pytest

from service.database import roles, schema
from service.database.pool import Database, connect_writer
from service.database.roles import ANALYST, INGEST, READ
from tests.helpers.support import as_login, connected

ROLES = (INGEST, READ, ANALYST)
FILES = sorted((schema.ROOT / "sql" / "role").glob("*.sql"))
OURS = "relnamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace)"
CAN = "has_table_privilege($1, c.oid, $2)"
NOT_OF_AN_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend WHERE objid = {0}.oid AND deptype = 'e')"

# What an analyst's login tries, whatever default_transaction_read_only is set to (E48).
FORBIDDEN = [
    "INSERT INTO network_interface_metrics DEFAULT VALUES",
    "INSERT INTO network_samples (server_id) VALUES ('nas')",
    "DELETE FROM servers",
    "UPDATE server_overview SET hostname = 'x'",
    "TRUNCATE server_metrics",
    "SELECT * FROM network_interface_metrics",
    "SELECT server_id, interfaces FROM servers",
    "SELECT * FROM linkbeat.installation",
    "SELECT hash FROM linkbeat.tokens",
    "SELECT linkbeat.revoke_token('a')",
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
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1, 1)",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT rolpassword FROM pg_authid",
    "SET ROLE linkbeat_ingest",
    "ALTER ROLE analyst SUPERUSER",
]


async def relations(database: asyncpg.Connection, condition: str, *arguments: str) -> list[str]:
    """Of our own relations, those that meet the condition."""
    rows = await database.fetch(
        "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class c "
        "WHERE relkind IN ('r', 'p', 'v', 'm', 'f') "
        f"AND {OURS} AND {NOT_OF_AN_EXTENSION.format('c')} AND {condition} ORDER BY 1",
        *arguments,
    )
    return [row[0] for row in rows]


async def test_an_analyst_reads_every_view_in_public_and_no_table(database: asyncpg.Connection) -> None:
    readable = await relations(database, CAN, ANALYST, "SELECT")
    others = await relations(database, f"NOT {CAN}", ANALYST, "SELECT")
    await database.execute(f"SET ROLE {ANALYST}")

    for view in readable:
        await database.fetch(f"SELECT * FROM {view} LIMIT 1")  # what it calls and reads is allowed too
    for relation in others:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.fetch(f"SELECT * FROM {relation} LIMIT 1")

    assert {"public.network_samples", "public.network_traffic_1h", "public.server_overview"} <= set(readable)
    assert {"public.servers", "public.network_interface_metrics", "linkbeat.installation"} <= set(others)


async def test_no_role_can_write_a_relation(database: asyncpg.Connection) -> None:
    writing = "INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES"
    internal = "nspname LIKE '%timescaledb%' AND relkind IN ('r', 'p', 'v', 'm', 'f')"

    for role in ROLES:
        assert await relations(database, CAN, role, writing) == []
        assert not await database.fetch(
            f"SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            f"WHERE {internal} AND {CAN}",
            role,
            writing,
        )


async def test_ingest_writes_by_functions_and_reads_nothing(database: asyncpg.Connection) -> None:
    functions = await database.fetch(
        "SELECT pronamespace::regnamespace || '.' || proname FROM pg_proc p "
        "WHERE has_function_privilege($1, oid, 'EXECUTE') "
        "AND pronamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace) "
        f"AND {NOT_OF_AN_EXTENSION.format('p')} ORDER BY 1",
        INGEST,
    )

    assert [row[0].removeprefix("linkbeat.") for row in functions] == [
        "acknowledge_alert", "act_as", "add_alias", "add_link", "alert_channel_secrets", "audit",
        "claim_deliveries", "claim_messages", "configure_server", "create_token", "delete_alert_channel",
        "delete_alert_mute", "delete_alert_rule", "delete_alias", "delete_link", "end_session", "enrol_server",
        "evaluate_alerts", "ingest_heartbeats", "listen", "message_delivered", "message_failed", "note_token_use",
        "oldest_undelivered", "preview_link", "preview_predecessor", "register_server", "remove_server",
        "request_report", "resolve_interfaces", "revoke_token", "set_alert_channel", "set_alert_mute",
        "set_alert_rule", "set_interface_label", "set_labels", "set_predecessor", "set_quota", "standing_alerts",
    ]  # fmt: skip
    assert await relations(database, CAN, INGEST, "SELECT") == []


async def test_public_has_nothing_in_schema_linkbeat(database: asyncpg.Connection) -> None:
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
            FROM pg_type WHERE typnamespace = 'linkbeat'::regnamespace
              AND typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c')
        ) o, aclexplode(o.acl) a
        WHERE a.grantee = 0
        """
    )

    assert rows == []


async def test_an_analysts_login_is_refused_what_it_may_not_do(
    database: asyncpg.Connection, database_url: str, login: str
) -> None:
    await database.execute(f"GRANT {ANALYST} TO {login}")
    allowed = []

    async with connected(as_login(database_url, login), default_transaction_read_only="off") as person:
        for statement in FORBIDDEN:
            try:
                await person.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            allowed.append(statement)

    assert allowed == []


async def test_the_service_reads_and_stores_in_its_roles(database_url: str) -> None:
    async with Database(database_url) as database:
        reader = await database.fetch("SELECT current_user AS name")
    writer = await connect_writer(database_url, waits_for_disk=False)
    try:
        name = await writer.fetchval("SELECT current_user")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.fetch("SELECT FROM servers")
    finally:
        await writer.close()

    assert (reader[0]["name"], name) == (READ, INGEST)


async def test_databases_of_one_cluster_may_make_the_roles_at_once(
    database: asyncpg.Connection, database_url: str
) -> None:
    mark = uuid.uuid4().hex[:8]
    # Other names, because the cluster has the real ones.
    script = FILES[0].read_text(encoding="utf-8")
    for role in ROLES:
        script = script.replace(role, f"{role}_{mark}")
    migrating = [await asyncpg.connect(database_url) for _ in range(8)]

    async def make(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await connection.execute(script)
            await asyncio.sleep(0.02)  # not yet committed when the next one comes

    try:
        await asyncio.gather(*map(make, migrating))
        made = await database.fetch(
            "SELECT rolname, setconfig FROM pg_roles LEFT JOIN pg_db_role_setting ON setrole = pg_roles.oid "
            "WHERE rolname = ANY ($1::text[]) ORDER BY rolname",
            [f"{role}_{mark}" for role in ROLES],
        )
    finally:
        for connection in migrating:
            await connection.close()
        for role in ROLES:
            await database.execute(f"DROP ROLE IF EXISTS {role}_{mark}")

    assert [row["rolname"] for row in made] == sorted(f"{role}_{mark}" for role in ROLES)
    assert "default_transaction_read_only=on" in made[0]["setconfig"]


async def test_a_login_without_the_right_to_make_roles_migrates_and_is_told(
    database: asyncpg.Connection, login: str, empty_database_url: str
) -> None:
    name = urlsplit(empty_database_url).path.removeprefix("/")
    await database.execute(f"ALTER DATABASE {name} OWNER TO {login}")
    url = as_login(empty_database_url, login)
    first: list[str] = []
    again: list[str] = []

    await schema.migrate(url, first.append)
    async with connected(url) as person:
        await roles.take(person, READ)
        as_before = await person.fetchval("SELECT current_user")
    # As the line says: a superuser, in this database, with psql; here by the same protocol.
    async with connected(empty_database_url) as superuser:
        for path in FILES:
            await superuser.execute(path.read_text(encoding="utf-8"))
    await schema.migrate(url, again.append)
    async with connected(url) as person:
        await roles.take(person, READ)
        reader = await person.fetchval("SELECT current_user")
    async with connected(empty_database_url) as superuser:
        # Which are at work by now, and would hold what changes its owner.
        await superuser.execute("SELECT _timescaledb_functions.stop_background_workers()")
        await superuser.execute(f"REASSIGN OWNED BY {login} TO CURRENT_USER")

    told = f"Roles: {login} may not make or take {INGEST}, {READ}, {ANALYST} and does without"
    remedy = f"a superuser can make them, in this database: psql -f {FILES[0]} -f {FILES[1]}"
    assert first == [f"Schema: installed, now at {schema.head()}", f"{told}; {remedy}"]
    assert again == [f"Schema: up to date at {schema.head()}"]
    assert (as_before, reader) == (login, READ)


async def test_an_analyst_fills_no_disk(database: asyncpg.Connection, database_url: str, login: str) -> None:
    """A clone has no rights of its template's: they are given as a migration gives them."""
    await database.execute(f"GRANT {ANALYST} TO {login}")
    for file in FILES:
        await database.execute(file.read_text())

    async with connected(as_login(database_url, login)) as person:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await person.execute("CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10)")
        await person.fetch("SELECT * FROM server_overview")

    limits = await database.fetchval("SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'analyst'::regrole")
    assert "temp_file_limit=1GB" in limits


async def test_a_limit_that_an_administrator_has_set_stays(database: asyncpg.Connection) -> None:
    before = await database.fetchval("SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'analyst'::regrole")
    assert before is not None
    await database.execute("ALTER ROLE analyst SET temp_file_limit = '5GB'")
    try:
        for file in FILES:
            await database.execute(file.read_text())

        after = await database.fetchval("SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'analyst'::regrole")
        assert "temp_file_limit=5GB" in after
    finally:
        await database.execute("ALTER ROLE analyst SET temp_file_limit = '1GB'")


async def test_limits_that_a_login_may_not_set_do_not_refuse_its_session(
    database: asyncpg.Connection, database_url: str, login: str
) -> None:
    await database.execute(f"GRANT {ANALYST} TO {login}")

    options, _ = await roles.analyst_session(as_login(database_url, login))
    by_owner, _ = await roles.analyst_session(database_url)

    assert "statement_timeout=60s" in options
    assert "temp_file_limit" not in options
    assert "temp_file_limit=" in by_owner
