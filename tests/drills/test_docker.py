"""Real containers: both Dockerfiles by Docker's builder, Compose, and TimescaleDB in Docker for `run` and for tests."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from service.embedded import docker as embedded_docker
from tests.helpers.docker_daemon import Docker, NoDaemon, daemon
from tests.helpers.processes import Run, free_port
from tests.helpers.support import KEY

REPOSITORY = Path(__file__).parents[2]
COMPOSE = REPOSITORY / "deploy/compose.yaml"
IMAGES = {
    name: service["image"].replace("${LINKBEAT_TAG:-", "").removesuffix("}")
    for name, service in yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].items()
    if name in ("service", "agent")
}
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
WAIT_SECONDS = 180.0


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A daemon with Debian's image, and TimescaleDB of Debian's packages under the name that Linkbeat asks for."""
    try:
        with daemon() as docker:
            docker.base(tmp_path_factory.mktemp("base") / "debian")
            place = Path(__file__).parent / "timescaledb"
            docker.build(place / "Dockerfile", place, embedded_docker.IMAGE)
            yield docker
    except NoDaemon as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def images(docker: Docker) -> dict[str, str]:
    """Of service and agent, by the names that compose.yaml has."""
    for name, tag in IMAGES.items():
        docker.build(REPOSITORY / f"deploy/{name}.Dockerfile", REPOSITORY, tag)
    return IMAGES


@pytest.fixture
def database_url(docker: Docker) -> Iterator[str]:
    password = "of-a-drill"
    settings = {"POSTGRES_USER": "linkbeat", "POSTGRES_DB": "linkbeat", "POSTGRES_PASSWORD": password}
    name = started(docker, embedded_docker.IMAGE, "--publish", "127.0.0.1::5432", **settings)
    port = docker("port", name, "5432/tcp").rpartition(":")[2]
    eventually(
        lambda: docker.succeeds("exec", name, "pg_isready", "-h", "127.0.0.1", "-U", "linkbeat", "-d", "linkbeat")
    )
    yield f"postgresql://linkbeat:{password}@127.0.0.1:{port}/linkbeat"
    docker("rm", "--force", "--volumes", name)


def test_both_images_start_and_a_heartbeat_arrives(docker: Docker, images: dict[str, str], database_url: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"LINKBEAT_DATABASE_URL": database_url, "LINKBEAT_API_KEY": KEY, "LINKBEAT_PORT": str(port)}
    reporting = {"LINKBEAT_URL": url, "LINKBEAT_API_KEY": KEY, "LINKBEAT_SERVER_ID": "nas"}
    ours = ("--network", "host", *HARDENED)

    docker("run", "--rm", *ours, *environment(settings), images["service"], "migrate")
    service = started(docker, images["service"], *ours, **settings)
    eventually(lambda: answers(f"{url}/health/ready"))
    agent = started(docker, images["agent"], *ours, **reporting)
    eventually(lambda: "nas" in servers(url, KEY))

    assert servers(url, KEY)["nas"]["status"] == "online"
    eventually(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", service) == "healthy")
    for name in (agent, service):
        docker("stop", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
        docker("rm", "--volumes", name)


def test_compose_serves_the_page_and_its_agent_reports(docker: Docker, images: dict[str, str], tmp_path: Path) -> None:
    command = compose(tmp_path)
    shutil.copy(REPOSITORY / "deploy/new-env", tmp_path)
    subprocess.run([tmp_path / "new-env"], check=True)
    server = re.findall(r"^LINKBEAT_SERVER_ID=(.+)$", (tmp_path / ".env").read_text(encoding="utf-8"), re.MULTILINE)[0]
    url = f"http://127.0.0.1:{(port := free_port())}"

    def composed(*arguments: str) -> str:
        done = subprocess.run(
            [*command, "--project-name", "linkbeat-drill", "--env-file", tmp_path / ".env", *arguments],
            env=os.environ | docker.environ | {"SERVICE_PORT": str(port)}, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    try:
        composed("up", "--detach")
        eventually(lambda: answers(f"{url}/health/ready"))
        page = httpx.get(f"{url}/", follow_redirects=True)
        key = composed("exec", "-T", "service", "cat", "/var/lib/linkbeat/api_key")
        eventually(lambda: server in servers(url, key))
    finally:
        logs = composed("logs")
        composed("down", "--volumes")

    assert page.status_code == 200, logs
    assert page.headers["content-type"].startswith("text/html")
    assert "<title>" in page.text


def test_run_keeps_its_data_in_docker_where_the_data_directory_says_so(docker: Docker, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    container = embedded_docker.container_name(data_dir)
    psql = ("exec", container, "psql", "--username=linkbeat", "--no-align", "--tuples-only", "--command")
    count = (*psql, "SELECT count(*) FROM server_samples")

    def run(why: str, least: int) -> int:
        """Until so many heartbeats are stored; how many are."""
        running = Run(data_dir, free_port(), LINKBEAT_INTERVAL_SECONDS="1", DOCKER_HOST=docker.environ["DOCKER_HOST"])
        try:
            running.wait_for(re.compile(rf"Docker container and volume {container} \({why}\)"), WAIT_SECONDS)
            eventually(lambda: docker.succeeds(*count) and int(docker(*count)) >= least)
            stored = int(docker(*count))
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(120) == 0, running.output
        finally:
            running.process.kill()
            running.process.wait()
        assert running.left_behind() == []
        return stored

    first = run("Docker is running", 1)
    stopped = docker("inspect", "--format", "{{.State.Running}}", container)
    second = run("it has the data", first + 1)

    assert stopped == "false"
    assert second > first


def test_tests_run_on_a_temporary_container(docker: Docker) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}
    # Ryuk, which removes what a test run leaves behind, is an image of its own; this daemon goes as a whole.
    environ = kept | docker.environ | {"TESTCONTAINERS_RYUK_DISABLED": "true"}
    before = docker("ps", "--all", "--quiet")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "tests/integration/test_ready.py"],
        cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Test database: {embedded_docker.IMAGE} in a temporary Docker container" in done.stderr
    assert re.search(r"\b\d+ passed", done.stdout)
    assert docker("ps", "--all", "--quiet") == before


def compose(directory: Path) -> list[str]:
    """Compose and its file, or a skip."""
    ours = ["--project-directory", str(COMPOSE.parent)]
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            continue
        version = done.stdout.strip().removeprefix("v")
        if not version.startswith("1."):
            return [*command, "--file", str(COMPOSE), *ours]
        print(f"Compose {version} knows neither `name` nor a limit of `pids`: both are left out here")
        return [*command, "--file", str(for_version_1(directory)), *ours]
    pytest.skip("no Compose; apt-get install docker-compose")


def for_version_1(directory: Path) -> Path:
    content = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    del content["name"]
    for service in content["services"].values():
        del service["deploy"]["resources"]["limits"]["pids"]
    file = directory / "compose.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def environment(settings: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for name, value in settings.items() for word in ("--env", f"{name}={value}"))


def started(docker: Docker, image: str, *options: str, **settings: str) -> str:
    """The id of a container that runs in the background."""
    return docker("run", "--detach", *options, *environment(settings), image)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def servers(url: str, key: str) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"{url}/api/v1/servers", headers={"Authorization": f"Bearer {key}"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return {server["id"]: server for server in answer.json()["servers"]}


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)
