"""Upgrades of what released versions left: no row differs, and everything goes on."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from service.app import create_app
from service.database import schema
from service.settings import Settings
from tests.conftest import in_process, run_on, with_database
from tests.helpers import released
from tests.helpers.aggregates import RELATIONS
from tests.helpers.history import write_rows
from tests.helpers.support import KEY, boot_id, connected, differing_rows, heartbeat, hours_ago, interface

pytestmark = pytest.mark.background

RIGHT = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
STORED = (
    "servers", "server_boots", "network_interface_metrics", "server_metrics", "filesystem_metrics", "linkbeat.tokens",
    "linkbeat.quotas", "linkbeat.server_config", "linkbeat.configuration", "linkbeat.removals",
    "linkbeat.ended_sessions",
)  # fmt: skip
READ = ("network_samples", "network_events", "server_samples", "filesystem_samples", "server_reboots", "quotas")


@pytest.fixture(scope="module")
def released_template(database_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database as 0.1.0 installs it, to be cloned."""
    name = f"linkbeat_released_{uuid.uuid4().hex[:8]}"
    asyncio.run(run_on(database_server, f"CREATE DATABASE {name} TEMPLATE template0"))
    url = with_database(database_server, name)
    asyncio.run(released.install(url, "0.1.0", tmp_path_factory.mktemp("0.1.0")))
    asyncio.run(run_on(database_server, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
    asyncio.run(
        run_on(database_server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    )
    yield name
    asyncio.run(run_on(database_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def released_url(database_server: str, released_template: str) -> AsyncIterator[str]:
    """A database of this test's own, as 0.1.0 installs it."""
    name = f"linkbeat_test_{uuid.uuid4().hex[:8]}"
    await run_on(database_server, f"CREATE DATABASE {name} TEMPLATE {released_template} STRATEGY FILE_COPY")
    yield with_database(database_server, name)
    await run_on(database_server, f"DROP DATABASE {name} WITH (FORCE)")


def beat(n: int, at: datetime, *, rx: int, boot: str = "a") -> dict[str, Any]:
    """The n-th heartbeat of a machine with interfaces of several kinds, metrics and filesystems."""
    interfaces = [
        interface("eth0", rx, rx // 3, kind="physical", speed_mbps=1000, ifindex=2, rx_errors=n // 9, tx_dropped=0)
        | {"rx_packets": rx // 1000, "tx_packets": rx // 3000},
        interface("wlan0", 2**63 - 10**6 + n * 7_919, 2**33 + n, is_up=n % 5 > 0),
        interface("wg0", n * 1_420, n * 80, kind="tunnel", stacked_on=["eth0"]),
        interface(f"veth{n // 20}", n * 100, n * 90, kind="veth", stacked_on=["eth0"]),
    ]
    return heartbeat("box", at=at, boot=boot_id(boot)) | {
        "network_interfaces": interfaces,
        "interval_seconds": 600,
        "metrics": {"cpu_percent": n % 100, "memory_used_mb": 100 + n, "load_1m": n % 7 / 7, "uptime_seconds": n * 300},
        "filesystems": [
            {"mount_point": "/", "device": "/dev/sda1", "fs_type": "ext4", "total_bytes": 2**64 - 1,
             "used_bytes": 2**63 + n, "available_bytes": 10**9 - n, "percent": n % 90},
        ],
    }  # fmt: skip


async def fill(database: asyncpg.Connection) -> None:
    """Two days of a fleet by the version's own functions, with all that they do to rows."""
    since = hours_ago(50)
    await write_rows(database, since, since + timedelta(hours=46), timedelta(minutes=15), temperatures=False)
    await refresh(database, since + timedelta(hours=20))
    rx, beats = 10**9, []
    for n in range(160):
        rx += 3_000_000 + n * 17
        if n == 65:
            rx = 5_000  # a reboot
        if n == 100:
            rx = 1_000  # a reset without one
        reading = rx - 20_000_000 if n == 120 else rx  # a reading that is lower for once
        beats.append(beat(n, since + timedelta(minutes=17 * n), rx=reading, boot="a" if n < 65 else "b"))
    late = set(range(35, 39)) | {85}
    await released.ingest(database, [one for n, one in enumerate(beats) if n not in late])
    await refresh(database, since + timedelta(hours=38))
    # Below the watermarks, one of them twice; then hours that no refresh has taken in.
    await released.ingest(database, [beats[n] for n in (*sorted(late), 85)])
    if await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"):
        await database.execute("CALL linkbeat.compress_samples(now() - INTERVAL '12 hours')")
        assert await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE rx_bytes IS NULL") > 100
    await refresh(database, since + timedelta(hours=40))
    await database.execute(
        """
        SELECT linkbeat.create_token('t1', 'server', 'box', NULL, 'a token', '\\x01', '\\x02', NULL, NULL);
        SELECT linkbeat.set_quota('box', 1000000, 'sum', 31, 'Europe/Berlin', NULL, 80);
        SELECT linkbeat.configure_server('box', '{"interval_seconds": 60}');
        SELECT linkbeat.end_session('\\x03', now() + INTERVAL '1 hour');
        """
    )
    kinds = await database.fetch("SELECT DISTINCT delta_kind FROM network_interface_metrics WHERE server_id = 'box'")
    assert {row[0] for row in kinds} >= {"first", "normal", "reboot", "reset", "dip", "folded"}


async def refresh(database: asyncpg.Connection, until: datetime) -> None:
    await database.execute(f"CALL linkbeat.refresh_aggregates('{until}')")


async def contents(database: asyncpg.Connection, relation: str) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in await database.fetch(f"SELECT to_jsonb(t)::text FROM {relation} t")]


def as_before(new: Any, old: Any) -> Any:
    """A row without the columns that it has gained, which hold nothing in rows of before; so too the rows in it."""
    if isinstance(new, list) and isinstance(old, list) and old:
        return [as_before(value, old[0]) for value in new]
    if isinstance(new, dict) and isinstance(old, dict):
        assert not any(new[name] for name in new.keys() - old.keys())
        return {name: as_before(value, old.get(name)) for name, value in new.items() if name in old}
    if isinstance(new, list) and isinstance(old, list) and old:
        return [as_before(each, old[0]) for each in new]
    return new


async def test_every_row_and_bucket_of_0_1_0_is_the_same_after_the_upgrade(
    released_url: str, settings: Settings
) -> None:
    async with connected(released_url, timezone="UTC") as database:
        await fill(database)
        before = {name: await contents(database, name) for name in (*STORED, *READ, *RELATIONS)}
    assert all(rows for name, rows in before.items() if name != "linkbeat.removals")

    said: list[str] = []
    await schema.migrate(released_url, said.append)

    assert said == [f"Schema: upgraded from 0007, now at {schema.head()}"]
    await schema.check(released_url)
    await released.stop_policies(released_url)
    async with connected(released_url, timezone="UTC") as database:
        for name, old in before.items():
            gone, come = Counter(map(json.dumps, old)), Counter[str]()
            for row in await contents(database, name):
                come[json.dumps(as_before(row, next(iter(old), {})))] += 1
            assert (gone - come, come - gone) == ({}, {}), name
        assert await differing_rows(database) == RIGHT or await database.fetchval(
            "SELECT edition = 'community' FROM linkbeat.installation"
        ), "late rows show at once on Apache"
        await refresh(database, hours_ago(0))
        assert await differing_rows(database) == RIGHT

        async with in_process(create_app(settings, database_url=released_url, key=KEY)) as service:
            for n in (161, 162, 163):
                new = beat(n, hours_ago(0) - timedelta(minutes=165 - n), rx=10**10 + n, boot="b")
                new["metrics"]["temperature_celsius"] = n / 4
                await service.post(new)
            # Late, below what was finished before there were temperatures.
            late = beat(34, hours_ago(50) + timedelta(minutes=17 * 34 + 1), rx=10**9, boot="a")
            late["metrics"]["temperature_celsius"] = 77
            await service.post(late)
            traffic = await service.get("/metrics/sparkline/box/network", period="1h")
            assert sum(point["rx_bytes"] or 0 for point in traffic["data"]) > 0
            assert len((await service.get("/metrics/sparkline/box/cpu", period="7d"))["data"]) > 10
            warm = await service.get("/metrics/sparkline/box/temperature", period="1h")
            assert max(point["max"] for point in warm["data"]) == 40.75
        await refresh(database, hours_ago(-1))
        assert await differing_rows(database) == RIGHT
        for level in ("1m", "15m", "1h", "1d"):
            highest = f"SELECT max(temperature_celsius_max), sum(temperature_celsius_count) FROM server_metrics_{level}"
            assert tuple((await database.fetch(highest))[0]) == (77, 4), level


async def test_an_upgraded_database_has_the_routines_and_columns_of_a_new_one(
    released_url: str, database: asyncpg.Connection
) -> None:
    await schema.migrate(released_url, lambda _: None)

    routines = (
        "SELECT oid::regprocedure::text, prokind::text, pg_get_function_result(oid) FROM pg_proc "
        "WHERE pronamespace = 'linkbeat'::regnamespace ORDER BY 1"
    )
    columns = (
        "SELECT table_name, column_name, data_type, ordinal_position FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = ANY ($1) ORDER BY 1, ordinal_position"
    )
    async with connected(released_url) as upgraded:
        # Functions of a second part of an aggregate are more than a new database needs.
        found = {tuple(row) for row in await upgraded.fetch(routines) if "_2(" not in row[0]}
        assert found == {tuple(row) for row in await database.fetch(routines)}
        assert await upgraded.fetch(columns, RELATIONS) == await database.fetch(columns, RELATIONS)


async def test_a_database_of_0002_is_upgraded_with_its_servers(released_url: str, settings: Settings) -> None:
    async with connected(released_url) as connection:
        await released.ingest(connection, [heartbeat(at=hours_ago(1), eth0=(1_000, 0))])
    # What came after it goes, and what it replaced is there again.
    await run_on(
        released_url,
        """
        DROP FUNCTION quota_usage;
        DROP VIEW public.quotas;
        DROP TABLE linkbeat.quotas;
        DROP VIEW agent_overview;
        DROP TABLE linkbeat.server_config, linkbeat.tokens, linkbeat.removals, linkbeat.ended_sessions CASCADE;
        DROP FUNCTION linkbeat.count_token_change;
        DROP FUNCTION linkbeat.configure_server, linkbeat.count_config_change, linkbeat.ingest_heartbeats;
        CREATE FUNCTION linkbeat.ingest_heartbeats(beat_servers text[]) RETURNS void LANGUAGE sql AS '';
        ALTER TABLE network_interface_metrics
            DROP COLUMN ifindex CASCADE, DROP COLUMN levels CASCADE, DROP COLUMN old_levels CASCADE,
            DROP COLUMN doubted_since CASCADE;
        ALTER TYPE linkbeat.interface_state
            DROP ATTRIBUTE ifindex CASCADE, DROP ATTRIBUTE levels CASCADE, DROP ATTRIBUTE old_levels CASCADE,
            DROP ATTRIBUTE doubted_since CASCADE;
        ALTER TABLE server_boots
            DROP COLUMN arrived_at CASCADE, DROP COLUMN alternates CASCADE, DROP COLUMN is_reboot CASCADE;
        ALTER TABLE servers DROP COLUMN live_at;
        CREATE TYPE linkbeat.delta AS (amount bigint, kind text);
        ALTER TABLE servers DROP COLUMN received_before, DROP COLUMN clock_skew_ms, DROP COLUMN agent_report;
        ALTER TABLE linkbeat.installation
            DROP COLUMN config_revision, DROP COLUMN token_revision, DROP COLUMN session_revision;
        UPDATE linkbeat.installation SET fingerprint = 'of 0002';
        UPDATE linkbeat.schema_version SET version_num = '0002';
        """,
    )
    said: list[str] = []

    await schema.migrate(released_url, said.append)

    assert said == [f"Schema: upgraded from 0002, now at {schema.head()}"]
    async with connected(released_url) as connection:
        assert await connection.fetchval(
            "SELECT count(*) FROM pg_proc WHERE proname = 'ingest_heartbeats'"
        ) == 1, "the old one stands beside the new one"  # fmt: skip
    async with in_process(create_app(settings, database_url=released_url, key=KEY)) as service:
        (agent,) = (await service.get("/agents"))["agents"]
        assert (agent["server_id"], agent["lateness_seconds"], agent["queued"]) == ("nas", 0, None)
        await service.post(heartbeat(at=hours_ago(0.5), eth0=(1_500, 0)) | {"delivery": {"queued": 1}})
        (agent,) = (await service.get("/agents"))["agents"]
        assert agent["queued"] == 1


async def test_functions_of_0006_with_other_results_do_not_stand_beside_the_new_ones(released_url: str) -> None:
    await run_on(
        released_url,
        """
        DROP TABLE linkbeat.ended_sessions;
        ALTER TABLE linkbeat.installation DROP COLUMN session_revision;
        DROP FUNCTION linkbeat.correct_glitch, linkbeat.judge_again, linkbeat.repair_deltas;
        CREATE FUNCTION linkbeat.correct_glitch(
            base network_interface_metrics, m network_interface_metrics, back boolean[]
        ) RETURNS network_interface_metrics LANGUAGE sql RETURN base;
        CREATE FUNCTION linkbeat.judge_again(previous network_interface_metrics, stored network_interface_metrics)
        RETURNS network_interface_metrics LANGUAGE sql RETURN stored;
        CREATE FUNCTION linkbeat.repair_deltas(
            of_server text, of_interface text, since timestamptz, is_whole boolean DEFAULT false
        ) RETURNS void LANGUAGE sql AS '';
        UPDATE linkbeat.installation SET fingerprint = 'of 0006';
        UPDATE linkbeat.schema_version SET version_num = '0006';
        """,
    )

    await schema.migrate(released_url, lambda _: None)

    await schema.check(released_url)
    async with connected(released_url) as connection:
        names = ["correct_glitch", "judge_again", "repair_deltas"]
        found = await connection.fetch("SELECT proname FROM pg_proc WHERE proname = ANY ($1) ORDER BY 1", names)
    assert [row["proname"] for row in found] == names


async def test_routines_that_no_file_defines_are_dropped_by_the_upgrade_and_nothing_of_others(
    database_url: str, login: str
) -> None:
    await run_on(
        database_url,
        f"""
        CREATE FUNCTION linkbeat.unsigned(stored integer) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN stored;
        CREATE FUNCTION linkbeat.renamed(stored integer) RETURNS numeric
        LANGUAGE sql RETURN linkbeat.unsigned(stored) + 1;
        CREATE PROCEDURE linkbeat.recount(of_server text) LANGUAGE sql AS '';
        CREATE FUNCTION public.unsigned(stored integer) RETURNS integer LANGUAGE sql RETURN stored;
        CREATE FUNCTION linkbeat.mine() RETURNS integer LANGUAGE sql RETURN 1;
        ALTER FUNCTION linkbeat.mine OWNER TO {login};
        UPDATE linkbeat.installation SET fingerprint = 'of another';
        """,
    )

    await schema.migrate(database_url, lambda _: None)

    async with connected(database_url) as connection:
        found = await connection.fetch(
            "SELECT pronamespace::regnamespace::text, proname, oidvectortypes(proargtypes) FROM pg_proc "
            "WHERE proname IN ('unsigned', 'renamed', 'recount', 'mine') ORDER BY 1, 2"
        )
    assert [tuple(row) for row in found] == [
        ("linkbeat", "mine", ""),
        ("linkbeat", "recount", "text, timestamp with time zone, jsonb"),
        ("linkbeat", "unsigned", "bigint"),
        ("public", "unsigned", "integer"),
    ]


@pytest.mark.parametrize(
    "older",
    [
        # Another result, of a function that views and SQL bodies use.
        """CREATE OR REPLACE FUNCTION linkbeat.bps(bytes_delta bigint, elapsed_ms integer, delta_kind text)
        RETURNS text LANGUAGE sql RETURN '';
        CREATE VIEW linkbeat.user_of_it AS SELECT linkbeat.bps(1, 1, '') AS bps; DROP VIEW linkbeat.user_of_it""",
        # Another name of an argument.
        "CREATE FUNCTION linkbeat.revoke_token(id text) RETURNS boolean LANGUAGE sql RETURN true",
        # A procedure that becomes a function.
        "CREATE PROCEDURE linkbeat.revoke_token(of_id text) LANGUAGE sql AS ''",
    ],
)
async def test_a_routine_with_another_signature_is_replaced_by_the_upgrade(database_url: str, older: str) -> None:
    async with connected(database_url) as connection:
        routines = (
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'linkbeat'::regnamespace ORDER BY 1"
        )
        views = "SELECT viewname, definition FROM pg_views WHERE schemaname IN ('public', 'linkbeat') ORDER BY 1"
        expected = await connection.fetch(routines), await connection.fetch(views)
        name = "bps" if "bps" in older else "revoke_token"
        await connection.execute(f"DROP FUNCTION linkbeat.{name} CASCADE; {older}")
        await connection.execute("UPDATE linkbeat.installation SET fingerprint = 'of another'")

        await schema.migrate(database_url, lambda _: None)

        assert (await connection.fetch(routines), await connection.fetch(views)) == expected


async def test_a_result_that_changes_is_replaced_below_the_views_that_use_it(database_url: str) -> None:
    """The view names the old function until it is replaced itself, so neither can go first."""
    async with connected(database_url) as connection:
        await connection.execute(
            """
            CREATE FUNCTION linkbeat.is_online(received_at timestamptz, interval_seconds float8, more text)
            RETURNS boolean LANGUAGE sql STABLE RETURN true;
            ALTER FUNCTION linkbeat.is_online(timestamptz, float8) RENAME TO was_online;
            CREATE FUNCTION linkbeat.is_online(since timestamptz, seconds float8) RETURNS boolean
            LANGUAGE sql STABLE RETURN linkbeat.was_online(since, seconds);
            UPDATE linkbeat.installation SET fingerprint = 'of another';
            """
        )
        await schema.migrate(database_url, lambda _: None)

        found = await connection.fetch("SELECT proname, proargnames FROM pg_proc WHERE proname ~ 'online'")
        assert [tuple(row) for row in found] == [("is_online", ["received_at", "interval_seconds"])]
        assert await connection.fetch("SELECT status FROM server_overview") == []


async def test_a_view_of_somebody_elses_that_uses_a_stale_routine_stops_the_upgrade_and_is_named(
    database_url: str,
) -> None:
    await run_on(
        database_url,
        """
        CREATE FUNCTION linkbeat.stale() RETURNS integer LANGUAGE sql RETURN 1;
        CREATE VIEW public.somebodys AS SELECT linkbeat.stale();
        UPDATE linkbeat.installation SET fingerprint = 'of another';
        """,
    )

    with pytest.raises(schema.SchemaError, match=r"(?s)stale\(\).*view .*somebodys depends on"):
        await schema.migrate(database_url, lambda _: None)

    await run_on(database_url, "SELECT * FROM somebodys", "DROP VIEW somebodys")
    await schema.migrate(database_url, lambda _: None)


@pytest.mark.parametrize(
    ("family", "name"), [("network_traffic", "slow"), ("server_metrics", "busy"), ("filesystem_metrics", "full")]
)
async def test_a_family_gains_a_column_and_nothing_else_is_rebuilt(
    database_url: str, database: asyncpg.Connection, family: str, name: str
) -> None:
    await write_rows(database, hours_ago(30), hours_ago(2), timedelta(minutes=20))
    await refresh(database, hours_ago(4))
    before = {relation: await contents(database, relation) for relation in RELATIONS}
    kept = await database.fetch("SELECT relation, part, kept, kept::oid::text FROM linkbeat.kept ORDER BY 1, 2")
    await database.execute(
        f"""
        INSERT INTO linkbeat.family_columns (family, name, type, combine, of_row, of_older)
        VALUES ('{family}', '{name}_count', 'bigint', 'sum', '1', '0'),
               ('{family}', '{name}_max', 'integer', 'max', '7', NULL);
        UPDATE linkbeat.installation SET fingerprint = 'of another'
        """
    )

    await schema.migrate(database_url, lambda _: None)

    await released.stop_policies(database_url)
    now = await database.fetch("SELECT relation, part, kept, kept::oid::text FROM linkbeat.kept ORDER BY 1, 2")
    assert [row for row in now if row["part"] == 1] == kept
    for relation, old in before.items():
        new = await contents(database, relation)
        assert len(new) == len(old)
        if relation.startswith(family):
            # Finished buckets hold nothing of it until a refresh comes by, as Community's policies may at any moment.
            added = {(row.pop(f"{name}_count"), row.pop(f"{name}_max")) for row in new}
            assert all((count, highest) == (0, None) or (count > 0 and highest == 7) for count, highest in added)
        assert Counter(map(json.dumps, new)) == Counter(map(json.dumps, old)), relation

    await write_rows(database, hours_ago(2), hours_ago(1), timedelta(minutes=20))
    await refresh(database, hours_ago(0))
    assert await differing_rows(database) == RIGHT
    (newest,) = await database.fetch(
        f"SELECT sum({name}_count) = sum(samples), max({name}_max) FROM {family}_1m WHERE bucket >= $1", hours_ago(2)
    )
    assert tuple(newest) == (True, 7)
