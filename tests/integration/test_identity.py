"""Who may speak to the service, and where the fleet key comes from."""

import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.access.keys import KEY_FILE, fleet_key
from service.settings import Settings, SettingsError
from tests.helpers.support import KEY, Client, heartbeat

OPEN = {"/health", "/health/ready"}


async def refused(service: Client, headers: dict[str, str], method: str, path: str) -> httpx.Response:
    """The answer to a request with these headers instead of the key."""
    return await service.http.request(method, path, headers={"Authorization": "", **headers})


async def test_every_route_but_health_and_schema_asks_for_a_key(service: Client) -> None:
    paths = (await service.http.get("/schema/openapi.json")).json()["paths"]
    routes = [(method.upper(), path.replace("{server_id}", "nas")) for path in paths for method in paths[path]]
    wrong: list[dict[str, str]] = [
        {}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"}, {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": f"Basic {KEY}"}, {"Authorization": KEY}, {"X-API-Key": "x"}, {"X-API-Key": ""},
        {"X-API-Key": f"Bearer {KEY}"},
    ]  # fmt: skip

    assert {path for _, path in routes} > OPEN
    for method, path in routes:
        for headers in wrong if path not in OPEN else ():
            answer = await refused(service, headers, method, path)

            assert answer.status_code == 401, (method, path, headers)
            assert answer.headers["www-authenticate"] == 'Bearer realm="linkbeat"'
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "unauthorized"
            assert KEY not in answer.text
    for path in (*OPEN, "/schema"):
        assert (await refused(service, {}, "GET", path)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY},
     {"Authorization": "Bearer wrong", "X-API-Key": KEY}],
)  # fmt: skip
async def test_the_key_reports_and_reads_by_either_header(service: Client, headers: dict[str, str]) -> None:
    sent = {"Authorization": "", **headers}

    posted = await service.http.post("/api/v1/agents/heartbeat", json=heartbeat(), headers=sent)
    read = await service.http.get("/api/v1/servers/nas", headers=sent)

    assert (posted.status_code, read.status_code) == (200, 200)


async def test_without_a_key_nothing_is_written(service: Client) -> None:
    await service.http.post("/api/v1/agents/heartbeat", json=heartbeat(), headers={"Authorization": "Bearer wrong"})

    assert (await service.get("/servers"))["servers"] == []


def test_the_first_start_makes_a_key_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path / "deep" / "data"))
    before = os.umask(0)
    try:
        key = fleet_key(settings)
    finally:
        os.umask(before)

    path = tmp_path / "deep" / "data" / KEY_FILE
    assert len(key) >= 32
    assert path.read_text() == f"{key}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path], "nothing else is left behind"


def test_the_key_is_kept(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))

    assert fleet_key(settings) == fleet_key(settings)


def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    keys = {fleet_key(Settings(data_dir=str(tmp_path / name))) for name in ("a", "b")}

    assert len(keys) == 2


# Each process waits at the barrier of its standard input, then makes the keys of all rounds.
_START = """
import sys
from service.access.keys import fleet_key
from service.settings import Settings
print("ready", flush=True)
for directory in sys.stdin.readline().split("\t"):
    print(fleet_key(Settings(data_dir=directory.strip())))
"""


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    directories = [tmp_path / str(round_) for round_ in range(20)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\t".join(map(str, directories)) + "\n")
            process.stdin.flush()

        found = [process.communicate()[0].split() for process in processes]
    assert [len(set(keys)) for keys in zip(*found, strict=True)] == [1] * 20
    assert all([path.name for path in directory.iterdir()] == [KEY_FILE] for directory in directories)


def test_what_a_killed_start_left_behind_does_not_stop_the_next(tmp_path: Path) -> None:
    # In a container every start has the same process id.
    (tmp_path / f"{KEY_FILE}.{os.getpid()}").write_text("half a k")

    assert len(fleet_key(Settings(data_dir=str(tmp_path)))) >= 32


def test_a_key_that_was_chosen_goes_before_the_file(tmp_path: Path) -> None:
    fleet_key(Settings(data_dir=str(tmp_path)))

    assert fleet_key(Settings(api_key=KEY, data_dir=str(tmp_path))) == KEY


@pytest.mark.parametrize("content", [b"", b"\n", b"too-short-a-key", b"two words that are long enough", b"\xff" * 20])
def test_a_file_without_a_usable_key_is_refused_naming_the_variable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    (tmp_path / KEY_FILE).chmod(0o600)

    with pytest.raises(SettingsError, match="LINKBEAT_API_KEY") as raised:
        fleet_key(Settings(data_dir=str(tmp_path)))

    assert "20 visible ASCII characters" in str(raised.value)
    assert not content.strip() or content.decode("latin-1").strip() not in str(raised.value)


@pytest.mark.parametrize("key", ["short", "x" * 15, "with a space in it", "ключ" * 5])
def test_a_chosen_key_that_is_too_short_is_refused_naming_the_variable(key: str) -> None:
    with pytest.raises(SettingsError, match=r"LINKBEAT_API_KEY.*at least 20 visible ASCII characters") as raised:
        Settings.from_environment({"LINKBEAT_API_KEY": key})

    assert key not in str(raised.value)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match="LINKBEAT_DATA_DIR") as raised:
        fleet_key(Settings(data_dir=str(tmp_path / "file")))

    assert str(tmp_path / "file") in str(raised.value)
