"""A real cluster through its whole life: made, shared, killed, taken over, stopped."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from service.directories import default_cache_dir
from service.embedded import packages
from service.embedded.accounts import server_account
from service.embedded.cluster import Cluster
from service.embedded.installation import Installation
from service.embedded.places import reachable_directory
from service.embedded.postmaster import find_postmaster, processes_in
from service.embedded.problems import ClusterError, MirrorError, UnsupportedHostError
from tests.helpers.processes import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installation() -> Installation:
    try:
        return packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(str(error))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with reachable_directory() as directory:
        yield directory / "postgres"


@pytest.fixture(scope="module")
def cluster(installation: Installation) -> Iterator[Cluster]:
    """One cluster for the tests that leave it running, whatever they do to its server."""
    with (
        reachable_directory() as directory,
        Cluster(installation, directory / "postgres", print, durable=False) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def stopped(installation: Installation) -> Iterator[Path]:
    """The directory of a cluster that was stopped in order."""
    with reachable_directory() as directory:
        with Cluster(installation, directory / "postgres", print, durable=False):
            pass
        yield directory / "postgres"


def query(cluster: Cluster, sql: str) -> str:
    """The answer of psql, through the arguments that an analyst's session gets."""
    done = subprocess.run(
        [*cluster.psql, "-XAtqc", sql], env=session(cluster), capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


async def fetchval(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def session(cluster: Cluster) -> dict[str, str]:
    """The environment of an analyst's session."""
    return os.environ | cluster.psql_environment


def owner_process(installation: Installation, data_dir: Path) -> "subprocess.Popen[str]":
    """Another process that starts the cluster, says so and waits, in a process group of its own."""
    program = f"""
import signal
from pathlib import Path
from service.embedded.cluster import Cluster
from service.embedded.installation import Installation
signal.signal(signal.SIGINT, signal.default_int_handler)
installation = Installation(Path({str(installation.bin_dir)!r}), {installation.postgres_version!r},
                            {installation.timescaledb_version!r})
try:
    with Cluster(installation, Path({str(data_dir)!r}), lambda line: None, durable=False) as cluster:
        print(cluster.pid, flush=True)
        signal.pause()
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def test_it_is_timescaledb_on_postgresql_in_utf8_and_utc(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.url, timeout=10)
    try:
        await connection.execute("CREATE EXTENSION timescaledb")
        await connection.execute("CREATE TABLE beats (time timestamptz NOT NULL, value bigint)")
        await connection.execute("SELECT create_hypertable('beats', 'time')")
        await connection.execute(
            "INSERT INTO beats SELECT now() - n * interval '1 day', n FROM generate_series(1, 99) n"
        )
        total = await connection.fetchval("SELECT sum(value) FROM beats")
        settings = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in ("server_encoding", "jit", "timescaledb.telemetry_level", "listen_addresses")
        }
        offset = await connection.fetchval("SELECT extract(timezone FROM now())")
    finally:
        await connection.close()

    assert total == 4950
    assert settings == {
        "server_encoding": "UTF8",
        "jit": "off",
        "timescaledb.telemetry_level": "off",
        "listen_addresses": "",
    }
    assert offset == 0


async def test_a_wrong_password_is_refused(cluster: Cluster) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(cluster.url.replace("linkbeat:", "linkbeat:x"), timeout=10)


def test_nobody_else_may_enter_and_root_does_not_run_it(cluster: Cluster) -> None:
    directory = cluster.data_dir.stat()

    assert directory.st_mode & 0o777 == 0o700
    assert (cluster.data_dir / "linkbeat.pgpass").stat().st_mode & 0o777 == 0o600
    assert directory.st_uid != 0
    assert Path(f"/proc/{cluster.pid}").stat().st_uid == directory.st_uid


def test_the_password_does_not_stand_in_psqls_arguments(cluster: Cluster) -> None:
    password = cluster.psql_environment["PGPASSWORD"]

    assert len(password) >= 32
    assert password in cluster.url
    assert not any(password in argument for argument in cluster.psql)


def test_data_and_address_survive_a_restart(cluster: Cluster) -> None:
    query(cluster, "CREATE TABLE before_restart AS SELECT 42 AS answer")
    pid, url = cluster.pid, cluster.url

    cluster.restart()

    assert cluster.pid != pid
    assert cluster.url == url
    assert query(cluster, "SELECT answer FROM before_restart") == "42"


def test_a_killed_server_recovers_what_was_committed(cluster: Cluster) -> None:
    query(cluster, "CREATE TABLE before_kill AS SELECT 42 AS answer")
    pid = cluster.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    cluster.start()

    assert cluster.pid != pid
    assert query(cluster, "SELECT answer FROM before_kill") == "42"


def test_a_query_that_outlives_the_killed_server_does_not_block_the_next_start(cluster: Cluster) -> None:
    # Busy, so that it does not notice the postmaster's end by itself.
    busy = "DO $$ BEGIN PERFORM count(*) FROM generate_series(1, 1e12); END $$"
    with subprocess.Popen([*cluster.psql, "-Xqc", busy], env=session(cluster), stderr=subprocess.DEVNULL) as running:
        try:
            time.sleep(0.5)
            pid = cluster.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

            cluster.start()

            assert query(cluster, "SELECT 1") == "1"
            assert running.wait(10) != 0
        finally:
            running.kill()


def test_lock_files_whose_pid_is_another_programs_do_not_block_the_start(cluster: Cluster) -> None:
    pid_file = cluster.data_dir / "postmaster.pid"
    left = pid_file.read_text(encoding="ascii").replace(str(cluster.pid), "1", 1)
    (socket_lock,) = cluster.data_dir.glob(".s.PGSQL.*.lock")
    cluster.stop()
    pid_file.write_text(left, encoding="ascii")
    socket_lock.write_text(left, encoding="ascii")

    cluster.start()

    assert query(cluster, "SELECT 1") == "1"


async def test_it_listens_on_tcp_where_a_port_is_asked_for(installation: Installation, stopped: Path) -> None:
    port = free_port()
    with Cluster(installation, stopped, print, durable=False, tcp_port=port) as cluster:
        password = cluster.psql_environment["PGPASSWORD"]
        by_tcp = await asyncpg.connect(
            host="127.0.0.1", port=port, user="linkbeat", database="linkbeat", password=password, timeout=10
        )
        found = await by_tcp.fetchval("SELECT 42")
        await by_tcp.close()
        by_socket = query(cluster, "SELECT 42")

    assert (found, by_socket) == (42, "42")


def test_a_port_that_is_in_use_is_named_and_left_to_the_other(installation: Installation, stopped: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        cluster = Cluster(installation, stopped, print, durable=False, tcp_port=port)

        with pytest.raises(ClusterError, match=f"LINKBEAT_DATABASE_PORT: {port} is in use"):
            cluster.start()

    assert not cluster.owned


@pytest.mark.parametrize("name", ["long" * 40, "with space, and \N{LATIN SMALL LETTER U WITH DIAERESIS}"])
def test_a_directory_whose_path_is_no_address_is_reached_by_another(installation: Installation, name: str) -> None:
    with reachable_directory() as directory:
        (directory / name).mkdir()
        (directory / name).chmod(0o755)
        with Cluster(installation, directory / name / "postgres", print, durable=False) as cluster:
            sockets = Path(cluster.psql_environment["PGHOST"])
            by_url = asyncio.run(fetchval(cluster.url, "SELECT 42"))
            by_psql = query(cluster, "SELECT 42")
            found, expected = sockets.stat(), cluster.data_dir.stat()
        sockets.rmdir()  # empty by now

    assert (by_url, by_psql) == (42, "42")
    assert (found.st_uid, found.st_mode & 0o777) == (expected.st_uid, 0o700)
    assert not sockets.is_relative_to(directory)


def test_a_second_start_attaches_and_leaves_the_server_running(installation: Installation, cluster: Cluster) -> None:
    with Cluster(installation, cluster.data_dir, print) as second:
        assert not second.owned
        assert second.url == cluster.url
        assert second.pid == cluster.pid

    assert query(cluster, "SELECT 1") == "1"


def test_two_first_starts_at_once_make_one_cluster(installation: Installation, data_dir: Path) -> None:
    with owner_process(installation, data_dir) as other:
        try:
            with Cluster(installation, data_dir, print, durable=False) as cluster:
                pid = first_line(other)

                assert pid == str(cluster.pid)
        finally:
            other.kill()
            other.wait(10)
    # Whichever of the two was the owner, and however it ended: the next start gets along with what is there.
    with Cluster(installation, data_dir, print, durable=False) as cluster:
        assert cluster.owned


def test_the_server_of_a_killed_owner_ends_in_order(installation: Installation, data_dir: Path) -> None:
    with owner_process(installation, data_dir) as killed:
        assert int(first_line(killed)) > 0
        killed.kill()

    deadline = time.monotonic() + 10
    while find_postmaster(data_dir, server_account(data_dir)) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert processes_in(data_dir, server_account(data_dir)) == []
    assert "received fast shutdown request" in log_of(data_dir)


def test_a_start_right_after_its_owner_was_killed_is_ready(installation: Installation, data_dir: Path) -> None:
    for _ in range(3):
        with owner_process(installation, data_dir) as killed:
            assert int(first_line(killed)) > 0
            killed.kill()
        started = time.monotonic()

        with Cluster(installation, data_dir, print, durable=False) as cluster:
            time.sleep(0.5)  # the guard of the first has had its time
            cluster.start()
            assert query(cluster, "SELECT 1") == "1"
            assert cluster.owned

        assert time.monotonic() < started + 10


def test_a_server_that_was_left_behind_without_its_guard_is_taken_over(
    installation: Installation, data_dir: Path
) -> None:
    with Cluster(installation, data_dir, print, durable=False):
        pass
    account = server_account(data_dir)
    left = subprocess.Popen(
        [str(installation.program("postgres")), "-D", str(data_dir)],
        cwd="/",
        stderr=subprocess.DEVNULL,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    try:
        deadline = time.monotonic() + 10
        while not ((found := find_postmaster(data_dir, account)) and found.ready) and time.monotonic() < deadline:
            time.sleep(0.1)

        with Cluster(installation, data_dir, print, durable=False) as cluster:
            assert (cluster.owned, cluster.pid) == (True, left.pid)
            reaper = threading.Thread(target=left.wait)  # a zombie would count as alive
            reaper.start()
        reaper.join(10)
        assert left.returncode == 0
    finally:
        left.kill()


def log_of(data_dir: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (data_dir / "log").glob("postgresql-*.log"))


def test_ctrl_c_in_the_process_group_does_not_hit_the_server(installation: Installation, data_dir: Path) -> None:
    with owner_process(installation, data_dir) as interrupted:
        pid = int(first_line(interrupted))
        os.killpg(interrupted.pid, signal.SIGINT)

        assert first_line(interrupted) == "stopped"
    logs = log_of(data_dir)
    # Smart is our own stop; Ctrl-C would have been a fast one.
    assert f"[{pid}] @ LOG:  received smart shutdown request" in logs
    assert "received fast shutdown request" not in logs


def test_a_start_that_fails_shows_the_end_of_the_servers_log(installation: Installation, stopped: Path) -> None:
    cluster = Cluster(installation, stopped, print, durable=False)
    (stopped / "local.conf").write_text("shared_buffers = 'plenty'\n", encoding="utf-8")

    with pytest.raises(ClusterError, match='invalid value for parameter "shared_buffers": "plenty"'):
        cluster.start()

    assert not cluster.owned
    assert cluster.pid is None
    (stopped / "local.conf").write_text("", encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "version", "message"),
    [
        ("PG_VERSION", "15", r"belongs to PostgreSQL 15, and this is 17"),
        ("linkbeat.timescaledb", "99.0.0", r"used with TimescaleDB 99\.0\.0, newer than"),
    ],
)
def test_data_of_another_version_is_refused_and_not_touched(
    installation: Installation, stopped: Path, file: str, version: str, message: str
) -> None:
    before = (stopped / file).read_text(encoding="ascii")
    (stopped / file).write_text(version + "\n", encoding="ascii")

    with pytest.raises(ClusterError, match=message):
        Cluster(installation, stopped, print).start()

    assert (stopped / file).read_text(encoding="ascii") == version + "\n"
    (stopped / file).write_text(before, encoding="ascii")


@pytest.mark.parametrize("text", ["", "127.0.0.1:*:*:linkbeat:\n"])
def test_a_password_file_that_lost_its_password_is_an_error_and_not_written_again(
    installation: Installation, stopped: Path, text: str
) -> None:
    before = (stopped / "linkbeat.pgpass").read_text(encoding="ascii")
    (stopped / "linkbeat.pgpass").write_text(text, encoding="ascii")

    with pytest.raises(ClusterError, match=r"linkbeat\.pgpass holds no password"):
        Cluster(installation, stopped, print, durable=False).start()

    assert (stopped / "linkbeat.pgpass").read_text(encoding="ascii") == text
    (stopped / "linkbeat.pgpass").write_text(before, encoding="ascii")


def test_a_directory_with_other_things_is_not_touched(installation: Installation, data_dir: Path) -> None:
    data_dir.mkdir()
    os.chown(data_dir, data_dir.parent.stat().st_uid, -1)
    (data_dir / "photos").write_text("mine", encoding="ascii")

    with pytest.raises(ClusterError, match="not empty"):
        Cluster(installation, data_dir, print).start()

    assert (data_dir / "photos").read_text(encoding="ascii") == "mine"


def test_a_throwaway_cluster_leaves_nothing(installation: Installation) -> None:
    with Cluster.temporary(installation, print) as cluster:
        assert query(cluster, "SELECT 1") == "1"

    assert cluster.pid is None
    assert not cluster.data_dir.parent.exists()


def test_a_throwaway_cluster_ends_with_a_process_that_is_killed(installation: Installation) -> None:
    program = f"""
import signal
from pathlib import Path
from service.embedded import packages
from service.embedded.cluster import Cluster
with Cluster.temporary(packages.find(Path({str(default_cache_dir())!r})), lambda line: None) as cluster:
    print(cluster.data_dir, flush=True)
    signal.pause()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as killed:
        directory = Path(first_line(killed))
        killed.kill()

    deadline = time.monotonic() + 10
    while directory.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.1)

    assert not directory.parent.exists()
    assert find_postmaster(directory, None) is None
