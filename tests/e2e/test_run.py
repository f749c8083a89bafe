"""`python -m service run`, as `make run` calls it: what a newcomer sees, and what is left when they stop it."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.embedded.places import reachable_directory
from service.keys import fleet_key, secret_key
from service.sessions import Sessions
from service.settings import Settings
from tests.processes import Run, free_port

STOP_SECONDS = 30.0
# The first start of all on a machine fetches 40 MB of packages before the 60 seconds begin.
START_SECONDS = 240.0
CURL_LINE = re.compile(r"^\s+Its sparkline:\s+(curl .+)$", re.MULTILINE)
LINK = re.compile(r"^\s+Look at it:\s+(http://\S+)/$", re.MULTILINE)


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
    link = first.wait_for(LINK, 5)
    # Its output is no terminal, and so has no code in it; made here as it would be shown there.
    settings = Settings(data_dir=str(data_dir))
    shown = Sessions(secret_key(settings), fleet_key(settings)).code()
    with httpx.Client(base_url=link[1], trust_env=False) as browser:  # what the sign-in page does with the link
        signed_in = browser.post("/sign-in", json={"code": shown}).status_code
        looks = [browser.get(path).status_code for path in ("/", "/api/v1/fleet", "/api/v1/tokens")]
    first.process.send_signal(signal.SIGINT)
    status = first.process.wait(STOP_SECONDS)

    assert (status, first.left_behind()) == (0, [])
    assert (signed_in, looks) == (204, [200, 200, 200])
    assert "code=" not in first.output
    if server["network_interfaces"]:
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


def test_a_port_in_use_is_one_line_and_nothing_is_started(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        run = Run(data_dir, port)
        status = run.process.wait(STOP_SECONDS)

    assert (status, run.left_behind()) == (1, [])
    assert re.fullmatch(rf"linkbeat: LINKBEAT_PORT: {port} is in use[^\n]*\n", run.output)
    assert not data_dir.exists()
