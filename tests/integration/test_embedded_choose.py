"""The order of choice, with the real databases that this machine can carry."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.directories import default_cache_dir
from service.embedded import choose, docker, packages
from service.embedded.choose import choose_database, choose_test_database
from service.embedded.installation import Installation
from service.embedded.places import reachable_directory
from service.embedded.problems import MirrorError, NoDatabase, UnsupportedHostError
from service.embedded.remembered import NOTE, Kind
from service.settings import Settings
from tests.helpers.docker_stand_in import docker_stand_in


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

    with choose_database(Settings(database_url=url, data_dir=str(tmp_path)), said.append) as database:
        assert (database.url, database.origin) == (url, "LINKBEAT_DATABASE_URL")

    assert said == ["Database: the one that LINKBEAT_DATABASE_URL names"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("bare_host")
def test_the_embedded_one_is_chosen_last_and_says_why(installation: Installation, data_dir: Path) -> None:
    said: list[str] = []

    with choose_database(Settings(data_dir=str(data_dir)), said.append) as database:
        assert database.psql is not None
        environment = os.environ | database.psql_environment
        answer = subprocess.run(
            [*database.psql, "-XAtc", "SELECT 1"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

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

    with choose_database(Settings(data_dir=str(data_dir)), print) as database:
        assert database.origin == "host"
        assert (data_dir / "postgres" / "postmaster.pid").exists()

    assert not (data_dir / "postgres" / "postmaster.pid").exists()


@pytest.mark.usefixtures("bare_host")
def test_where_nothing_works_every_attempt_is_told_with_its_remedy(installation: Installation, data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "photos").touch()

    with pytest.raises(NoDatabase) as caught:
        choose_database(Settings(data_dir=str(data_dir)), print)

    told = str(caught.value)
    assert "Docker is not running. Start Docker" in told
    assert "apt install postgresql-17-timescaledb" in told
    assert "set LINKBEAT_DATA_DIR to another directory" in told
    assert "set LINKBEAT_DATABASE_URL=postgresql://" in told


def open_and_close(data_dir: Path, wanted: Kind | None = None) -> tuple[str, str]:
    """The kind that is chosen, and what is said meanwhile."""
    said: list[str] = []
    with choose_database(Settings(data_dir=str(data_dir), database=wanted or ""), said.append) as database:
        return database.origin, "\n".join(said)


@pytest.mark.usefixtures("installation", "bare_host")
def test_what_has_the_data_goes_before_a_docker_and_a_host_installation_that_came_since(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installation: Installation
) -> None:
    first = open_and_close(data_dir)[0]
    monkeypatch.undo()
    monkeypatch.setattr(choose, "on_host", lambda major=None: installation)
    with docker_stand_in(tmp_path, monkeypatch, search=os.environ["PATH"]) as stand_in:
        noted, said = open_and_close(data_dir)
        (data_dir / NOTE).unlink()  # as an earlier version left it
        found_by_its_cluster = open_and_close(data_dir)[0]
        calls = stand_in.calls

    assert (first, noted, found_by_its_cluster) == ("embedded", "embedded", "embedded")
    assert "(it has the data)" in said
    assert calls == []


@pytest.mark.usefixtures("installation", "bare_host")
def test_a_cluster_that_runs_goes_first_of_all(data_dir: Path) -> None:
    with choose_database(Settings(data_dir=str(data_dir)), print) as running:
        (data_dir / NOTE).write_text("docker\n", encoding="ascii")

        with choose_database(Settings(data_dir=str(data_dir)), print) as second:
            assert second.url == running.url


@pytest.mark.usefixtures("bare_host")
def test_without_the_docker_that_has_the_data_nothing_empty_takes_its_place(data_dir: Path) -> None:
    (data_dir / NOTE).write_text("docker\n", encoding="ascii")

    with pytest.raises(NoDatabase) as caught:
        open_and_close(data_dir)

    told = str(caught.value)
    assert f"The data of {data_dir} is in Docker volume {docker.container_name(data_dir)}" in told
    assert "Docker is not running. Start Docker" in told
    assert "set LINKBEAT_DATABASE=embedded to change over to an empty database" in told
    assert not (data_dir / "postgres").exists()
    assert (data_dir / NOTE).read_text(encoding="ascii") == "docker\n"


def test_a_docker_without_the_volume_is_not_given_a_new_one(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir / NOTE).write_text("docker\n", encoding="ascii")
    with docker_stand_in(tmp_path, monkeypatch, search=os.environ["PATH"]) as stand_in:
        with pytest.raises(NoDatabase, match=f"Docker has no such volume.*or remove {data_dir / NOTE}"):
            open_and_close(data_dir)

        assert "run" not in [call[0] for call in stand_in.calls]


@pytest.mark.parametrize("wanted", [None, "embedded"])
@pytest.mark.usefixtures("bare_host")
def test_a_cluster_that_is_gone_is_not_made_again(data_dir: Path, wanted: Kind | None) -> None:
    (data_dir / NOTE).write_text("embedded\n", encoding="ascii")

    with pytest.raises(NoDatabase, match=f"holds no cluster.*or remove {data_dir / NOTE} to start with an empty"):
        open_and_close(data_dir, wanted)

    assert not (data_dir / "postgres").exists()


@pytest.mark.usefixtures("installation", "bare_host")
def test_the_setting_changes_over_and_the_change_is_remembered(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with docker_stand_in(tmp_path, monkeypatch, search=os.environ["PATH"]):
        in_docker = open_and_close(data_dir, "docker")[0]
        remembered = open_and_close(data_dir)[0]
        changed, said = open_and_close(data_dir, "embedded")
        again = open_and_close(data_dir)[0]

    assert (in_docker, remembered, changed, again) == ("docker", "docker", "embedded", "embedded")
    assert f"what is in Docker volume {docker.container_name(data_dir)} is kept, and not read" in said
    assert (data_dir / NOTE).read_text(encoding="ascii") == "embedded\n"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("docker", "LINKBEAT_DATABASE=docker: Docker is not running. Start Docker"),
        ("host", "LINKBEAT_DATABASE=host: no TimescaleDB on this host. On Debian 13: apt install"),
    ],
)
@pytest.mark.usefixtures("bare_host")
def test_a_kind_that_is_asked_for_and_not_there_is_an_error(data_dir: Path, wanted: Kind, told: str) -> None:
    with pytest.raises(NoDatabase) as caught:
        open_and_close(data_dir, wanted)

    assert str(caught.value).startswith(told)
    assert list(data_dir.iterdir()) == []


@pytest.mark.usefixtures("bare_host")
def test_the_named_url_goes_before_the_setting_and_the_note(data_dir: Path) -> None:
    (data_dir / NOTE).write_text("docker\n", encoding="ascii")
    settings = Settings(
        data_dir=str(data_dir), database="host", database_url="postgresql://someone@db.example/linkbeat"
    )

    with choose_database(settings, print) as database:
        assert database.origin == "LINKBEAT_DATABASE_URL"

    assert (data_dir / NOTE).read_text(encoding="ascii") == "docker\n"


@pytest.mark.usefixtures("installation", "bare_host")
def test_the_test_database_is_empty_and_gone_afterwards() -> None:
    with choose_test_database(None, print) as database:
        assert database.psql is not None
        environment = os.environ | database.psql_environment
        tables = subprocess.run(
            [*database.psql, "-XAtc", "\\dt"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    assert database.origin == "embedded"
    assert "Did not find any" in tables.stdout + tables.stderr
    assert (
        subprocess.run(
            [*database.psql, "-c", "SELECT 1"],
            env=environment,
            capture_output=True,
            check=False,
        ).returncode
        != 0
    )
