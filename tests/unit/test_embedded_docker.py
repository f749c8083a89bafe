"""The container's life, against a stand-in for the docker command that keeps one container's state."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.embedded import docker
from tests.helpers.docker_stand_in import StandIn, docker_stand_in


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with docker_stand_in(tmp_path, monkeypatch) as stand_in:
        yield stand_in


def ignore(_: str) -> None:
    """Nobody listens."""


def test_a_daemon_that_answers_is_present(stand_in: StandIn) -> None:
    assert docker.docker_absence() is None

    stand_in.set(version="")

    assert docker.docker_absence() == "Docker is not running"


def test_without_the_command_docker_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert docker.docker_absence() == "Docker is not installed"


def test_the_first_start_makes_a_container_with_a_volume_and_a_hidden_password(
    stand_in: StandIn, tmp_path: Path
) -> None:
    container = docker.Container(tmp_path / "data", ignore)

    url = container.start()

    (run,) = [call for call in stand_in.calls if call[0] == "run"]
    assert url == f"postgresql://linkbeat:{stand_in['password']}@127.0.0.1:{stand_in['port']}/linkbeat"
    assert f"{container.name}:/var/lib/postgresql/data" in run
    assert "127.0.0.1::5432" in run
    assert not any(str(stand_in["password"]) in argument for argument in run)
    assert (tmp_path / "data" / "docker-password").stat().st_mode & 0o777 == 0o600


def test_a_container_that_we_started_is_stopped_and_started_again(stand_in: StandIn, tmp_path: Path) -> None:
    first = docker.Container(tmp_path / "data", ignore)
    url = first.start()
    first.stop()
    assert stand_in["running"] == "false"

    again = docker.Container(tmp_path / "data", ignore)

    assert again.start() == url
    assert [call[0] for call in stand_in.calls].count("run") == 1


def test_a_container_that_runs_already_is_used_and_left_running(stand_in: StandIn, tmp_path: Path) -> None:
    docker.Container(tmp_path / "data", ignore).start()
    second = docker.Container(tmp_path / "data", ignore)

    second.start()
    second.stop()

    assert stand_in["running"] == "true"


def test_a_container_of_an_older_image_is_replaced_and_its_extension_updated(stand_in: StandIn, tmp_path: Path) -> None:
    docker.Container(tmp_path / "data", ignore).start()
    stand_in.set(image="timescale/timescaledb:2.20.0-pg17")
    said: list[str] = []

    docker.Container(tmp_path / "data", said.append).start()

    assert stand_in["image"] == docker.IMAGE
    assert any("2.20.0" in line for line in said)
    assert any("ALTER EXTENSION timescaledb UPDATE" in call for call in stand_in.calls)


def test_two_data_directories_never_share_a_container(tmp_path: Path) -> None:
    names = {docker.Container(tmp_path / name, ignore).name for name in ("a", "b")}

    assert len(names) == 2
