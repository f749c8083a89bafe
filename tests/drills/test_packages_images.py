"""Both images, built of their Dockerfiles in a Debian of its own, and run as a container is: see tests/images.py."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.images import Stage, build, container
from tests.processes import free_port
from tests.support import KEY

REPOSITORY = Path(__file__).parents[2]
RELEASE = "trixie"  # of the Dockerfiles' BASE

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mount need root; run it as root"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="no debootstrap; apt install debootstrap"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What debian:trixie-slim is made of, less what only saves space."""
    directory = tmp_path_factory.mktemp("base")
    subprocess.run(["debootstrap", "--variant=minbase", RELEASE, directory], check=True, stdout=subprocess.DEVNULL)
    # The authorities that this machine trusts beyond Debian's: its mirrors may have certificates of theirs.
    local = Path("/usr/local/share/ca-certificates")
    if local.is_dir():
        shutil.copytree(local, directory / local.relative_to("/"), dirs_exist_ok=True)
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


async def test_a_heartbeat_arrives_from_one_to_the_other(
    images: dict[str, Stage], volumes: dict[str, str], empty_database_url: str
) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    settings = {"LINKBEAT_DATABASE_URL": empty_database_url, "LINKBEAT_API_KEY": KEY, "LINKBEAT_PORT": port}
    (data, at_data), (spool, at_spool) = volumes.items()
    service, agent = images["service"], images["agent"]

    def once(*command: str, entrypoint: list[str] | None = None) -> tuple[int, str]:
        with container(service, *command, entrypoint=entrypoint, mounts={data: at_data}, environ=settings) as running:
            return running.finish(60)

    migrated, words = await asyncio.to_thread(once, "migrate")
    assert migrated == 0, words
    assert (await asyncio.to_thread(once, entrypoint=service.health))[0] == 1
    with container(service, mounts={data: at_data}, environ=settings) as serving:
        await ready(url)
        assert (await asyncio.to_thread(once, entrypoint=service.health))[0] == 0
        made = ["token", "create", "--kind", "server", "--server", "host-of-containers"]
        made_status, made_words = await asyncio.to_thread(once, *made)
        assert made_status == 0, made_words
        reporting = {
            "LINKBEAT_URL": url,
            "LINKBEAT_API_KEY": next(word for word in made_words.split() if word.startswith("lb_s_")),
            "LINKBEAT_SERVER_ID": "host-of-containers",
            "LINKBEAT_START_JITTER_SECONDS": "0",
            "LINKBEAT_INTERVAL_SECONDS": "1",
            "LINKBEAT_PROC": "/host/proc",
            "LINKBEAT_SYS": "/host/sys",
            "LINKBEAT_ROOT": "/host/root",
        }
        host = {spool: at_spool, "/proc": "/host/proc", "/sys": "/host/sys", "/": "/host/root"}
        with container(agent, mounts=host, environ=reporting) as running:
            reported = await heartbeats(empty_database_url, 3)
            running.signal(signal.SIGTERM)
            agent_ended = await asyncio.to_thread(running.finish, 10)
        with container(agent, entrypoint=agent.health, mounts=host, environ=reporting) as examining:
            health, findings = await asyncio.to_thread(examining.finish, 60)
        serving.signal(signal.SIGTERM)
        service_ended = await asyncio.to_thread(serving.finish, 15)

    assert service.stop_signal == agent.stop_signal == "SIGTERM"
    assert {name for _, name in socket.if_nameindex()} - {"lo"} == set(reported)
    assert agent_ended[0] == 0, agent_ended[1]
    assert health == 0, findings
    assert service_ended[0] == 0, service_ended[1]


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
        rows = await connection.fetch(
            "SELECT interface_name FROM interface_overview WHERE server_id = 'host-of-containers'"
        )
        return [row["interface_name"] for row in rows]
    finally:
        await connection.close()
