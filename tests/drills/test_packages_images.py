"""Both images, built of their Dockerfiles in a Debian of its own (tests/helpers/images.py), and run like containers."""

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from tests.helpers.images import Stage, bootstrap, build, container
from tests.helpers.processes import free_port

REPOSITORY = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((REPOSITORY / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]
HOST = dict(place.split(":")[:2] for place in COMPOSE["agent"]["volumes"] if place.startswith("/"))
SERVER = "host-of-containers"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mount need root; run it as root"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="no debootstrap; apt install debootstrap"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("base")
    bootstrap(directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def images(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stage]]:
    directory = tmp_path_factory.mktemp("images")
    directory.chmod(0o755)
    args = {"PIP_INDEX_URL": os.environ.get("PIP_INDEX_URL", "")}
    yield {
        name: build(REPOSITORY / f"deploy/{name}.Dockerfile", REPOSITORY, base, directory / name, args)
        for name in ("service", "agent")
    }
    shutil.rmtree(directory)


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, str]:
    """Of service and agent, as Docker makes named ones: with the owner that the image gave the place."""
    places = {}
    for name in ("linkbeat", "linkbeat-agent"):
        (tmp_path / name).mkdir(mode=0o700)
        os.chown(tmp_path / name, 10001, 10001)
        places[str(tmp_path / name)] = f"/var/lib/{name}"
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    return places


@pytest.mark.parametrize("name", ["service", "agent"])
def test_nothing_is_left_that_is_not_run(images: dict[str, Stage], name: str) -> None:
    image = images[name]

    found = [
        path
        for path in ("usr/bin/gcc", "usr/bin/pip", "usr/bin/pip3", "root/.cache", "build")
        if (image.root / path).exists()
    ]

    assert found == []
    assert not list((image.root / "var/lib/apt/lists").glob("*"))
    assert not list(image.root.glob("opt/*/lib/python3*/site-packages/pip"))
    print(f"\n{name}: {image.size_bytes / 2**20:,.0f} MiB, the base with it")


@pytest.mark.parametrize("name", ["service", "agent"])
def test_its_user_can_write_nothing_but_its_volume(images: dict[str, Stage], name: str) -> None:
    probe = (
        "import os\n"
        "for top in ('/etc', '/opt', '/usr', '/var', '/tmp', '/home', '/srv'):\n"
        "    for place, _, files in os.walk(top):\n"
        "        for path in (place, *(os.path.join(place, file) for file in files)):\n"
        "            if os.access(path, os.W_OK): print(path)\n"
    )

    with container(images[name], "-c", probe, entrypoint=["python3"]) as probing:
        status, output = probing.finish(60)

    assert (status, output) == (0, "")


def test_the_agent_reports_the_hosts_interfaces_from_a_network_of_its_own(images: dict[str, Stage]) -> None:
    said = {**COMPOSE["agent"]["environment"], "LINKBEAT_SERVER_ID": SERVER, "LINKBEAT_LOG_LEVEL": "error"}

    with container(images["agent"], "print", mounts=HOST, environ=said, own_network=True) as printing:
        status, output = printing.finish(60)

    assert status == 0, output
    reported = json.loads(output)
    assert {each["name"] for each in reported["network_interfaces"]} == {name for _, name in socket.if_nameindex()} - {
        "lo"
    }
    assert reported["hostname"] == Path("/etc/hostname").read_text(encoding="utf-8").strip()
    assert "/" in {each["mount_point"] for each in reported["filesystems"]}


async def test_a_heartbeat_arrives_from_one_to_the_other(
    images: dict[str, Stage], volumes: dict[str, str], empty_database_url: str
) -> None:
    """In the order of compose.yaml, with the commands and the environment that it gives."""
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    settings = {"LINKBEAT_DATABASE_URL": empty_database_url, "LINKBEAT_PORT": port, "LINKBEAT_SERVER_ID": SERVER}
    reporting = COMPOSE["agent"]["environment"] | {
        "LINKBEAT_URL": url,
        "LINKBEAT_SERVER_ID": SERVER,
        "LINKBEAT_START_JITTER_SECONDS": "0",
        "LINKBEAT_INTERVAL_SECONDS": "1",
    }
    service, agent = images["service"], images["agent"]
    of_service, of_agent = ({place: there} for place, there in volumes.items())

    def once(image: Stage, *command: str, entrypoint: list[str] | None = None) -> tuple[int, str]:
        mounts, environ = (volumes, settings) if image is service else (of_agent | HOST, reporting)
        with container(image, *command, entrypoint=entrypoint, mounts=mounts, environ=environ) as running:
            return running.finish(60)

    migrated = await asyncio.to_thread(once, service, *COMPOSE["migrate"]["command"])
    before = await asyncio.to_thread(once, service, entrypoint=service.health)
    with container(service, mounts=of_service, environ=settings) as serving:
        await ready(url)
        health = await asyncio.to_thread(once, service, entrypoint=service.health)
        script = COMPOSE["agent-token"]["command"][0].replace("$$", "$")
        token = await asyncio.to_thread(once, service, script, entrypoint=COMPOSE["agent-token"]["entrypoint"])
        again = await asyncio.to_thread(once, service, script, entrypoint=COMPOSE["agent-token"]["entrypoint"])
        with container(agent, mounts=of_agent | HOST, environ=reporting) as running:
            reported = await heartbeats(empty_database_url, 3)
            agents_health = await asyncio.to_thread(once, agent, entrypoint=agent.health)
            running.signal(signal.SIGTERM)
            agent_ended = await asyncio.to_thread(running.finish, 10)
        serving.signal(signal.SIGTERM)
        service_ended = await asyncio.to_thread(serving.finish, 15)

    done = {"migrate": migrated, "health": health, "token": token, "again": again, "agent's health": agents_health}
    assert {what: words for what, (status, words) in done.items() if status != 0} == {}
    assert before[0] == 1
    assert "create" not in again[1]
    assert set(reported) == interfaces_here()
    assert (agent_ended[0], service_ended[0]) == (0, 0), agent_ended[1] + service_ended[1]
    assert service.stop_signal == agent.stop_signal == "SIGTERM"


def interfaces_here() -> set[str]:
    return {name for _, name in socket.if_nameindex()} - {"lo"}


async def ready(url: str) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient() as http:
        while True:
            try:
                if (await http.get(f"{url}/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def heartbeats(url: str, least: int) -> list[str]:
    """The host's interfaces, once so many heartbeats of it are stored."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(30):
            while await connection.fetchval("SELECT count(*) FROM server_samples") < least:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.2)
        rows = await connection.fetch("SELECT interface_name FROM interface_overview WHERE server_id = $1", SERVER)
        return [row["interface_name"] for row in rows]
    finally:
        await connection.close()
