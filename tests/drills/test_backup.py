"""Backups that are restored: pgBackRest to a moment in the past on an empty host, and a logical dump of thinned chunks.

`make drill-backup`. docs/backup.md has the commands; they are run here. LINKBEAT_DRILL_POSTGRES_BIN names another
PostgreSQL's programs than the embedded one's; TEST_DATABASE_URL a server with TimescaleDB's Community edition, for the
dump. LINKBEAT_DRILL_LOST_SECONDS is how long agents report between the moment that is restored and the restore (120).
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import httpx
import pytest

from service.database import schema
from service.embedded.accounts import give_to, own_account, program_environment, run_as
from service.embedded.cluster import Cluster
from service.embedded.installation import Installation
from service.embedded.places import reachable_directory
from tests.conftest import NO_BACKGROUND, run_on, with_database
from tests.helpers.agents import AgentProcess
from tests.helpers.ha.backup import pgbackrest
from tests.helpers.ha.programs import installation
from tests.helpers.history import write_rows
from tests.helpers.processes import KillableService, free_port, killable_service, linkbeat
from tests.helpers.support import KEY, boot_id, connected, heartbeat, hours_ago

TABLES = ("network_interface_metrics", "server_metrics", "filesystem_metrics", "servers")
OLDEST = hours_ago(20 * 24)  # retention drops rows after 14 days
LOST_SECONDS = int(os.environ.get("LINKBEAT_DRILL_LOST_SECONDS", "120"))
AGENTS = 3
_HEARTBEATS = "SELECT server_id, time FROM network_interface_metrics GROUP BY 1, 2"


class Host:
    """A machine with a PostgreSQL cluster, and pgBackRest with a repository that outlives it.

    configuration  of pgBackRest, as docs/backup.md has it
    """

    def __init__(self, directory: Path, repository: Path, name: str) -> None:
        self.account = own_account() if os.geteuid() == 0 else None
        self.installation: Installation = installation()
        self.data_dir = directory / name / "postgres"
        self.data_dir.parent.mkdir()  # ours, as Linkbeat demands it of the place of a cluster
        self._files = self.data_dir.with_name("pgbackrest")
        self._files.mkdir()
        give_to(self.account, self._files)
        self.configuration = self._files / "pgbackrest.conf"
        self._repository = repository

    def configure(self, url: str | None) -> None:
        """Writes pgbackrest.conf; `url` is that of the server that is to be backed up."""
        reached = ""
        if url is not None:
            parts = dict(pair.split("=") for pair in urlsplit(url).query.split("&"))
            reached = f"pg1-socket-path={unquote(parts['host'])}\npg1-port={parts['port']}\npg1-user=linkbeat\n"
        self.configuration.write_text(
            f"[global]\nrepo1-path={self._repository}\nrepo1-retention-full=2\nlog-path={self._files}\n"
            f"lock-path={self._files}\nspool-path={self._files}\nstart-fast=y\ncompress-type=lz4\n"
            f"log-level-console=info\n[linkbeat]\npg1-path={self.data_dir}\npg1-database=linkbeat\n{reached}",
            encoding="utf-8",
        )
        if self.account is not None:
            os.chown(self.configuration, self.account.uid, self.account.gid)

    def pgbackrest(self, *arguments: str) -> str:
        """Runs `pgbackrest --stanza=linkbeat …` as the server's account."""
        command: list[str | Path] = [pgbackrest(), f"--config={self.configuration}", "--stanza=linkbeat", *arguments]
        password = {"PGPASSFILE": str(self.data_dir / "linkbeat.pgpass")}
        done = run_as(self.account, command, timeout=600, environment=program_environment() | password)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr}"
        return done.stdout

    def archive(self, cluster: Cluster) -> None:
        """Archives the log of this cluster from now on."""
        self.configure(cluster.url)
        archive = f"{pgbackrest()} --config={self.configuration} --stanza=linkbeat archive-push %p"
        self.append(
            f"archive_mode = on\narchive_command = '{archive}'\narchive_timeout = 60\n"
            # On Community: nothing old is dropped before the backup.
            "timescaledb.max_background_workers = 0\n"
        )
        cluster.restart()
        self.pgbackrest("stanza-create")
        self.pgbackrest("check")

    def restore(self, moment: datetime) -> None:
        """Restores the latest backup and the log up to this moment, on this empty host."""
        self.configure(None)
        self.data_dir.mkdir()
        give_to(self.account, self.data_dir)
        target = ("--type=time", f"--target={moment:%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote")
        self.pgbackrest("restore", *target, "--archive-mode=off")
        self.append("timescaledb.max_background_workers = 0\n")

    def append(self, settings: str) -> None:
        """Adds to local.conf, as its account."""
        done = run_as(
            self.account, ["sh", "-c", 'cat >>"$0"', self.data_dir / "local.conf"], timeout=30, typed=settings
        )
        assert done.returncode == 0, done.stderr

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        with Cluster(self.installation, self.data_dir, print, durable=True) as cluster:
            yield cluster


async def contents(database: asyncpg.Connection) -> dict[str, str]:
    """Of each table the number of its rows and a checksum over all of them."""
    return {
        table: str(
            await database.fetchval(f"SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) FROM {table} t")
        )
        for table in TABLES
    }


async def wait_for_ready(service: KillableService) -> str:
    """What /health/ready says of the work in the background."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return str((await http.get(f"{service.url}/health/ready")).json()["jobs"])


async def fill(url: str, directory: Path) -> None:
    """Rows of twenty days, and servers that report by the service itself, which does no maintenance meanwhile."""
    async with connected(url, timezone="UTC") as database:
        await write_rows(database, OLDEST, hours_ago(1), timedelta(hours=1))
        await database.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '1 hour')")
    await report(url, directory, "before", 10)


async def report(url: str, directory: Path, server: str, heartbeats: int) -> None:
    """Posts heartbeats of the last minutes."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30 * heartbeats)
    async with (
        killable_service(url, directory, LINKBEAT_MAINTENANCE="off") as service,
        httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}, timeout=30) as http,
    ):
        for number in range(heartbeats):
            body = heartbeat(
                server, at=start + timedelta(seconds=30 * number), boot=boot_id(server), eth0=(10**9 * number, number)
            )
            answer = await http.post(f"{service.url}/api/v1/agents/heartbeat", json=body)
            assert answer.status_code == 200, answer.text


def test_d20_a_moment_before_the_disaster_is_restored_on_an_empty_host(tmp_path: Path) -> None:
    with reachable_directory() as directory:
        repository = directory / "repository"
        repository.mkdir()
        give_to(own_account() if os.geteuid() == 0 else None, repository)
        first = Host(directory, repository, "first")
        with first.running() as cluster:
            asyncio.run(schema.migrate(cluster.url, print))
            first.archive(cluster)
            asyncio.run(fill(cluster.url, tmp_path))
            first.pgbackrest("backup", "--type=full")
            asyncio.run(report(cluster.url, tmp_path, "after-the-backup", 10))

            async def disaster() -> tuple[dict[str, str], datetime]:
                async with connected(cluster.url, timezone="UTC") as database:
                    found = await contents(database)
                    moment = await database.fetchval("SELECT clock_timestamp()")
                    await asyncio.sleep(1)
                    await database.execute("TRUNCATE network_interface_metrics, server_metrics; DELETE FROM servers")
                    await database.execute("SELECT pg_switch_wal()")
                    return found, moment

            before, moment = asyncio.run(disaster())
            first.pgbackrest("check")  # which waits until the log is archived

        second = Host(directory, repository, "second")
        second.restore(moment)
        with second.running() as cluster:
            asyncio.run(check_restored(cluster.url, before, tmp_path))


async def check_restored(url: str, before: dict[str, str], directory: Path) -> None:
    async with connected(url, timezone="UTC") as database:
        while await database.fetchval("SELECT pg_is_in_recovery()"):  # noqa: ASYNC110 (the database has no event for it)
            await asyncio.sleep(0.1)
        async with killable_service(url, directory, LINKBEAT_MAINTENANCE="off") as service:
            jobs = await wait_for_ready(service)
            assert jobs.startswith("off (LINKBEAT_MAINTENANCE)")
            assert "but" not in jobs
            await asyncio.sleep(5)  # with maintenance on, retention comes at once: see below
            assert await contents(database) == before
            verified = linkbeat(url, directory, "verify")
            assert (verified.returncode, verified.stdout) == (0, "0 rows differ\n"), verified
        assert await database.fetchval("SELECT min(time) FROM network_interface_metrics") == OLDEST
        print(f"D20: restored to a moment of after the full backup; {before}; {verified.stderr.strip()}")
        if await database.fetchval("SELECT edition = 'apache' FROM linkbeat.installation"):
            # That it can be seen: this is what maintenance would have done.
            async with killable_service(url, directory):
                rows = "SELECT min(time) FROM network_interface_metrics"
                while await database.fetchval(rows) < hours_ago(16 * 24):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


def test_d13_agents_fill_again_what_was_acknowledged_after_the_moment_that_is_restored(tmp_path: Path) -> None:
    with reachable_directory() as directory, contextlib.ExitStack() as agents:
        repository = directory / "repository"
        repository.mkdir()
        give_to(own_account() if os.geteuid() == 0 else None, repository)
        port = str(free_port())
        first = Host(directory, repository, "first")
        with first.running() as cluster:
            asyncio.run(schema.migrate(cluster.url, print))
            first.archive(cluster)
            first.pgbackrest("backup", "--type=full")

            async def until_the_disaster() -> tuple[datetime, set[tuple[str, datetime]]]:
                async with (
                    connected(cluster.url, timezone="UTC") as database,
                    killable_service(cluster.url, tmp_path, LINKBEAT_PORT=port) as service,
                ):
                    for number in range(AGENTS):
                        agents.enter_context(
                            AgentProcess(
                                service.url,
                                tmp_path / f"spool-{number}",
                                f"agent-{number}",
                                API_KEY=KEY,
                                SPOOL_KEEP_SECONDS="86400",
                            )
                        )
                    await asyncio.sleep(20)
                    moment = await database.fetchval("SELECT clock_timestamp()")
                    await asyncio.sleep(LOST_SECONDS)
                    assert await service.terminate(30) == 0
                    acknowledged = {tuple(row) for row in await database.fetch(_HEARTBEATS)}
                    await database.execute("SELECT pg_switch_wal()")
                    return moment, acknowledged

            moment, acknowledged = asyncio.run(until_the_disaster())
            first.pgbackrest("check")

        second = Host(directory, repository, "second")
        second.restore(moment)
        with second.running() as cluster:
            asyncio.run(check_filled_again(cluster.url, acknowledged, moment, port, tmp_path))


async def check_filled_again(
    url: str, acknowledged: set[tuple[str, datetime]], moment: datetime, port: str, directory: Path
) -> None:
    async with connected(url, timezone="UTC") as database:
        while await database.fetchval("SELECT pg_is_in_recovery()"):  # noqa: ASYNC110 (the database has no event for it)
            await asyncio.sleep(0.1)
        restored = {tuple(row) for row in await database.fetch(_HEARTBEATS)}
        lost = acknowledged - restored
        assert restored <= acknowledged
        assert len(lost) > AGENTS * LOST_SECONDS / 2
        assert min(at for _, at in lost) >= moment - timedelta(seconds=5)
        started = time.monotonic()
        async with killable_service(url, directory, LINKBEAT_PORT=port):
            while missing := acknowledged - {tuple(row) for row in await database.fetch(_HEARTBEATS)}:
                assert time.monotonic() < started + 300 + LOST_SECONDS, f"{len(missing)} of {len(lost)} are not back"
                await asyncio.sleep(0.5)
        seconds = time.monotonic() - started
        uneven = await database.fetch(
            "SELECT server_id, interface_name FROM network_interface_metrics WHERE NOT is_folded "
            "GROUP BY 1, 2 HAVING sum(rx_bytes_delta) <> max(rx_bytes) - min(rx_bytes)"
        )
        assert uneven == []
        await database.execute("CALL linkbeat.refresh_aggregates(now())")
    verified = linkbeat(url, directory, "verify")
    assert (verified.returncode, verified.stdout) == (0, "0 rows differ\n"), verified
    print(
        f"D13: restored to {LOST_SECONDS} s before the disaster; {len(lost)} acknowledged heartbeats were missing, and "
        f"all were back {seconds:.1f} s after the service started; {verified.stderr.strip()}"
    )


# Plain rows: each counts on from the one before, so that linkbeat.thin takes their counters away.
_PLAIN_ROWS = """
INSERT INTO network_interface_metrics (
    time, server_id, interface_name, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta,
    rx_packets_delta, tx_packets_delta, elapsed_ms, interval_ms, is_up, is_lowest, is_folded, counts_64bit, delta_kind)
SELECT $1::timestamptz + n * INTERVAL '30 seconds', server_id, name, n * 1000003, n * 1009, n * 997, n * 11,
       1000003, 1009, 997, 11, 30000, 30000, true, true, false, true, 'normal'
FROM generate_series(0::bigint, 2 * 2880 - 1) AS n, unnest('{nas,pi}'::text[]) AS server_id,
     unnest('{eth0,wlan0}'::text[]) AS name
"""
_COUNTERS = """
SELECT count(*) || ' ' || sum(hashtextextended(c::text, 0))
FROM network_interface_metrics m, LATERAL linkbeat.with_counters(m) AS c
"""


def test_d20_a_logical_dump_of_thinned_compressed_chunks_is_restored(tmp_path: Path) -> None:
    server = os.environ.get("TEST_DATABASE_URL")
    if not server:
        pytest.skip("the Apache edition compresses and thins nothing: set TEST_DATABASE_URL to a Community server")
    names = [f"linkbeat_drill_{os.getpid()}_{what}" for what in ("dumped", "restored")]
    dumped, restored = (with_database(server, name) for name in names)
    try:
        for name in names:
            asyncio.run(run_on(server, f"CREATE DATABASE {name} TEMPLATE template0"))
        before, thinned = asyncio.run(fill_and_thin(dumped))
        dump = tmp_path / "linkbeat.dump"
        tool(installation().program("pg_dump"), "-Fc", "-f", dump, dumped)
        asyncio.run(run_on(restored, "CREATE EXTENSION timescaledb", "SELECT timescaledb_pre_restore()"))
        # Not -j: TimescaleDB's catalogs are restored in the order of the dump.
        tool(installation().program("pg_restore"), "-d", restored, dump)
        asyncio.run(run_on(restored, "SELECT timescaledb_post_restore()"))

        asyncio.run(compare(restored, before, thinned))
        migrated = linkbeat(restored, tmp_path, "migrate")
        assert (migrated.returncode, "up to date" in migrated.stderr) == (0, True), migrated
        verified = linkbeat(restored, tmp_path, "verify")
        assert (verified.returncode, verified.stdout) == (0, "0 rows differ\n"), verified
        print(f"D20: a dump of {dump.stat().st_size:,} bytes with {thinned} thinned rows restored; {verified.stderr}")
    finally:
        for name in names:
            asyncio.run(run_on(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def tool(*command: str | Path) -> None:
    done = subprocess.run(
        list(map(str, command)), env=program_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)


async def fill_and_thin(url: str) -> tuple[dict[str, str], int]:
    """What is in the tables, each row with its counters, and how many rows are thinned."""
    await run_on(url, *NO_BACKGROUND)
    await schema.migrate(url, print)
    async with connected(url, timezone="UTC") as database:
        await database.execute(
            "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs "
            "WHERE hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat'"
        )
        await database.execute(_PLAIN_ROWS, hours_ago(13 * 24))
        await database.execute("CALL linkbeat.refresh_aggregates(now())")
        counters = await database.fetchval(_COUNTERS)
        await database.execute("CALL linkbeat.compress_samples(now() - INTERVAL '9 days')")
        assert await database.fetchval(_COUNTERS) == counters
        found = await contents(database)
        compressed = await database.fetchval("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed")
        assert compressed >= 2
        thinned = await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE rx_bytes IS NULL")
        assert thinned > 10_000
        return found | {"counters": counters}, thinned


async def compare(url: str, before: dict[str, str], thinned: int) -> None:
    async with connected(url, timezone="UTC") as database:
        assert await contents(database) | {"counters": await database.fetchval(_COUNTERS)} == before
        assert (
            await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE rx_bytes IS NULL") == thinned
        )
        assert await database.fetchval("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed") >= 2
