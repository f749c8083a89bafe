"""The order of choice, with the real databases that this machine can carry."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.embedded import choose, docker, packages
from service.embedded.choose import choose_database, choose_test_database
from service.embedded.installation import Installation
from service.embedded.places import default_cache_dir, reachable_directory
from service.embedded.problems import MirrorError, NoDatabase, UnsupportedHostError


@pytest.fixture(scope="module")
def installation() -> Installation:
    try:
        return packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(str(error))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with reachable_directory() as directory:
        yield directory


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Docker nor an installed TimescaleDB, whatever this machine has."""

    def absent() -> str:
        return "Docker is not running"

    def none_installed(major: int | None = None) -> None:
        return None

    monkeypatch.setattr(docker, "docker_absence", absent)
    monkeypatch.setattr(choose, "on_host", none_installed)


def test_the_named_database_comes_first_and_is_left_alone(tmp_path: Path) -> None:
    said: list[str] = []
    url = "postgresql://someone@db.example/linkbeat"

    with choose_database(url, tmp_path, said.append) as database:
        assert (database.url, database.origin) == (url, "LINKBEAT_DATABASE_URL")

    assert said == ["Database: the one that LINKBEAT_DATABASE_URL names"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("bare_host")
def test_the_embedded_one_is_chosen_last_and_says_why(installation: Installation, data_dir: Path) -> None:
    said: list[str] = []

    with choose_database(None, data_dir, said.append) as database:
        assert database.psql is not None
        answer = subprocess.run([*database.psql, "-XAtc", "SELECT 1"], capture_output=True, text=True, check=True)

    assert database.origin == "embedded"
    assert answer.stdout == "1\n"
    assert said[-1] == (
        f"Database: embedded TimescaleDB {installation.timescaledb_version} on PostgreSQL "
        f"{installation.postgres_version} in {data_dir / 'postgres'} "
        "(Docker is not running; no TimescaleDB on this host)"
    )


def test_the_hosts_installation_runs_a_private_cluster(
    installation: Installation, data_dir: Path, monkeypatch: pytest.MonkeyPatch, bare_host: None
) -> None:
    # The prefix stands in for /usr: what counts is that its programs run our own cluster.
    def installed(major: int | None = None) -> Installation:
        return installation

    monkeypatch.setattr(choose, "on_host", installed)

    with choose_database(None, data_dir, print) as database:
        assert database.origin == "host"
        assert (data_dir / "postgres" / "postmaster.pid").exists()

    assert not (data_dir / "postgres" / "postmaster.pid").exists()


@pytest.mark.usefixtures("bare_host")
def test_where_nothing_works_every_attempt_is_told_with_its_remedy(installation: Installation, data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "photos").touch()

    with pytest.raises(NoDatabase) as caught:
        choose_database(None, data_dir, print)

    told = str(caught.value)
    assert "Docker is not running. Start Docker" in told
    assert "apt install postgresql-17-timescaledb" in told
    assert "set LINKBEAT_DATA_DIR to another directory" in told
    assert "set LINKBEAT_DATABASE_URL=postgresql://" in told


@pytest.mark.usefixtures("installation", "bare_host")
def test_data_that_lies_in_docker_from_an_earlier_run_is_mentioned(data_dir: Path) -> None:
    (data_dir / "database-kind").write_text("docker\n", encoding="ascii")
    said: list[str] = []

    choose_database(None, data_dir, said.append).close()

    assert any("the last run kept its data in its Docker volume" in line for line in said)


@pytest.mark.usefixtures("installation", "bare_host")
def test_the_test_database_is_empty_and_gone_afterwards() -> None:
    with choose_test_database(None, print) as database:
        assert database.psql is not None
        tables = subprocess.run([*database.psql, "-XAtc", "\\dt"], capture_output=True, text=True, check=True)

    assert database.origin == "embedded"
    assert "Did not find any" in tables.stdout + tables.stderr
    assert subprocess.run([*database.psql, "-c", "SELECT 1"], capture_output=True, check=False).returncode != 0
