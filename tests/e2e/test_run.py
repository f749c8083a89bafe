"""`python -m service run`, as `make run` calls it: what a newcomer sees, and what is left when they stop it."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.keys import fleet_key, secret_key
from service.access.sessions import Sessions
from service.embedded.accounts import server_account
from service.embedded.places import reachable_directory
from service.embedded.postmaster import find_postmaster
from service.settings import Settings
from tests.helpers.processes import Run, free_port

STOP_SECONDS = 30.0
# The first start of all on a machine fetches 40 MB of packages before the 60 seconds begin.
START_SECONDS = 240.0
CURL_LINE = re.compile(r"^\s+Sparkline:\s+(curl .+)$", re.MULTILINE)
REPORTING = re.compile("first heartbeat delivered")  # database, service and agent run by then
LINK = re.compile(r"^\s+Dashboard:\s+(http://\S+)/$", re.MULTILINE)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Where the account that the database runs as can reach it."""
    with reachable_directory() as directory:
        yield directory / "data"


@pytest.fixture
def runs(data_dir: Path) -> Iterator[list[Run]]:
    """The runs of a test; what still runs at its end gets the same signal as in life."""
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGTERM)
            run.process.wait(STOP_SECONDS)


def execute(curl: str) -> Any:
    """The answer to the printed command, run by a shell as it stands."""
    if shutil.which("curl"):
        done = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, timeout=20, check=True)
        return json.loads(done.stdout)
    print("curl is not installed: its URL and header are asked for from here")
    *_, header, url = shlex.split(curl)
    key_file = re.search(r"\$\(cat (\S+)\)", header)
    assert key_file, curl
    key = Path(key_file[1].strip("'")).read_text().strip()
    return httpx.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=20, trust_env=False).json()


def server_of(curl: str) -> str:
    """The same command for the server instead of its sparkline."""
    return re.sub(r"/api/v1/metrics/sparkline/([^/]+)/network[^']*", r"/api/v1/servers/\1", curl)


def test_one_command_shows_points_stops_whole_and_keeps_the_history(data_dir: Path, runs: list[Run]) -> None:
    port = free_port()

    first = Run(data_dir, port)
    runs.append(first)
    first.wait_for(re.compile("Database: "), START_SECONDS)
    first.wait_for(re.compile("Schema: installed"), START_SECONDS)
    curl = first.wait_for(CURL_LINE, 60)[1]
    sparkline = execute(curl)
    server = execute(server_of(curl))
    link = first.wait_for(LINK, 60)
    # Its output is no terminal, and so has no code in it; made here as it would be shown there.
    settings = Settings(data_dir=str(data_dir))
    shown = Sessions(secret_key(settings), fleet_key(settings)).code()
    with httpx.Client(
        base_url=link[1], trust_env=False, timeout=60
    ) as browser:  # what the sign-in page does with the link
        signed_in = browser.post("/sign-in", json={"code": shown}).status_code
        looks = [browser.get(path).status_code for path in ("/", "/api/v1/fleet", "/api/v1/tokens")]
    first.process.send_signal(signal.SIGINT)
    status = first.process.wait(STOP_SECONDS)

    assert (status, first.left_behind()) == (0, [])
    assert (signed_in, looks) == (204, [200, 200, 200])
    assert "code=" not in first.output
    if server["network_interfaces"]:
        name = server["primary_interface"] or sparkline["interface"]  # without a default route it may name none
        assert f"Linkbeat is running. {server['id']} {name}: " in first.output
        assert sparkline["interface"] == name
        assert sparkline["data"]
        assert {"timestamp", "rx_bytes", "tx_bytes"} <= sparkline["data"][-1].keys()
    assert first.output.rstrip().endswith("Stopped.")
    assert "Traceback" not in first.output
    assert "uvicorn" not in first.output

    second = Run(data_dir, port)
    runs.append(second)
    second.wait_for(re.compile("first heartbeat delivered"), 60)
    again = execute(server_of(curl))  # with the same key
    os.killpg(second.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    status = second.process.wait(STOP_SECONDS)

    assert (status, second.left_behind()) == (0, [])
    assert again["first_seen"] == server["first_seen"]
    assert "Schema: up to date" in second.output
    assert "Traceback" not in second.output


def ready(port: int) -> int:
    """The status of /health/ready; 0 if nothing answers."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def await_status(port: int, expected: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (status := ready(port)) != expected:
        assert time.monotonic() < deadline, f"{status} after {seconds} s"
        time.sleep(0.05)


def postmaster_of(data_dir: Path) -> int:
    found = find_postmaster(data_dir / "postgres", server_account(data_dir / "postgres"))
    assert found is not None
    return found.pid


def test_a_killed_database_is_back_without_a_restart_of_the_service(data_dir: Path, runs: list[Run]) -> None:
    port = free_port()
    run = Run(data_dir, port)
    runs.append(run)
    run.wait_for(REPORTING, START_SECONDS)
    first = postmaster_of(data_dir)

    os.kill(first, signal.SIGKILL)
    run.wait_for(re.compile("The database runs again"), 60)
    await_status(port, 200, 60)

    assert postmaster_of(data_dir) != first
    assert run.output.count("Listening on") == 1


def test_a_database_that_cannot_start_again_ends_the_run_with_the_reason(data_dir: Path, runs: list[Run]) -> None:
    port = free_port()
    run = Run(data_dir, port)
    runs.append(run)
    run.wait_for(REPORTING, START_SECONDS)

    control = data_dir / "postgres" / "global" / "pg_control"
    control.rename(control.with_suffix(".away"))
    os.kill(postmaster_of(data_dir), signal.SIGKILL)
    await_status(port, 503, 60)  # it goes on answering meanwhile
    status = run.process.wait(120)

    assert (status, run.left_behind()) == (1, [])
    assert "The database cannot be started, 5 attempts failed" in run.output
    assert "pg_control" in run.output
    assert "Traceback" not in run.output


def test_what_a_killed_run_leaves_ends_within_ten_seconds(data_dir: Path, runs: list[Run]) -> None:
    run = Run(data_dir, free_port())
    runs.append(run)
    run.wait_for(REPORTING, START_SECONDS)
    assert len(run.left_behind()) >= 3

    run.process.kill()
    run.process.wait()

    deadline = time.monotonic() + 10
    while run.left_behind() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.left_behind() == []


def test_a_run_right_after_a_killed_one_waits_for_the_rest_and_is_ready(data_dir: Path, runs: list[Run]) -> None:
    port = free_port()
    first = Run(data_dir, port)
    runs.append(first)
    first.wait_for(REPORTING, START_SECONDS)
    first.process.kill()
    first.process.wait()

    second = Run(data_dir, port)
    runs.append(second)
    second.wait_for(re.compile("Listening on"), 60)
    second.wait_for(REPORTING, 60)

    assert "is in use" not in second.output
    assert ready(port) == 200
    assert "Schema: up to date" in second.output


def test_a_second_run_on_the_same_data_is_refused(data_dir: Path, runs: list[Run]) -> None:
    first = Run(data_dir, free_port())
    runs.append(first)
    first.wait_for(REPORTING, START_SECONDS)

    second = Run(data_dir, free_port())
    status = second.process.wait(STOP_SECONDS)

    assert status == 1
    assert f"Another run uses {data_dir}" in second.output
    assert first.process.poll() is None


def test_the_database_listens_on_no_port_and_no_password_is_in_a_list_of_processes(
    data_dir: Path, runs: list[Run]
) -> None:
    run = Run(data_dir, free_port())
    runs.append(run)
    run.wait_for(REPORTING, START_SECONDS)
    password = (data_dir / "postgres" / "linkbeat.pgpass").read_text().split()[0].rpartition(":")[2]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    with subprocess.Popen(
        [sys.executable, "-m", "service", "psql"],
        env=environ | {"LINKBEAT_DATA_DIR": str(data_dir)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        psql.stdin.write("SHOW listen_addresses;\n\\! sleep 0\n\\echo ready\n")
        psql.stdin.flush()
        told = list(iter(lambda: psql.stdout.readline().strip(), "ready"))  # type: ignore[union-attr]  # seen above
        commands = list(commands_of_everybody())
        psql.stdin.close()

    assert told[:3] == ["listen_addresses", "------------------", ""]
    assert len(password) == 48
    assert not any(password.encode() in command for command in commands)


def commands_of_everybody() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            yield path.read_bytes()


def test_a_port_in_use_is_one_line_and_nothing_is_started(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        run = Run(data_dir, port)
        status = run.process.wait(STOP_SECONDS)

    assert (status, run.left_behind()) == (1, [])
    assert re.fullmatch(rf"linkbeat: LINKBEAT_PORT: {port} is already in use[^\n]*\n", run.output)
    assert not data_dir.exists()
