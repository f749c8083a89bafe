"""A running agent whose clock is a year ahead and is put right, against the real service and its database."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import ServiceProcess
from tests.e2e.test_agent_process import REPOSITORY, environment
from tests.helpers.support import KEY

YEAR_SECONDS = 365 * 86_400.0
# The agent as it is, but the wall clock is ahead by what a file says.
AHEAD = """
import sys, time
from pathlib import Path
offset, right = Path(sys.argv.pop(1)), time.time_ns
time.time_ns = lambda: right() + int(float(offset.read_text()) * 1e9)
time.time = lambda: time.time_ns() / 1e9
from agent.__main__ import main
sys.exit(main())
"""


class Machine:
    """An agent that reports every second, on a machine whose clock `set_clock` sets."""

    def __init__(self, url: str, directory: Path) -> None:
        self._directory, self._offset = directory, directory / "offset"
        self._settings = environment(
            url, API_KEY=KEY, SERVER_ID="pi", INTERVAL_SECONDS="1", START_JITTER_SECONDS="0",
            SPOOL_DIR=str(directory / "spool"),
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def set_clock(self, ahead_seconds: float) -> None:
        new = self._offset.with_suffix(".new")
        new.write_text(str(ahead_seconds))
        new.replace(self._offset)

    def start(self) -> None:
        with (self._directory / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", AHEAD, str(self._offset), "run"],
                cwd=REPOSITORY, env=self._settings, stderr=log, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        return (self._directory / "agent.log").read_text()

    def doctor(self) -> dict[str, Any]:
        """The findings that are not ok, by name."""
        done = subprocess.run(
            [sys.executable, "-c", AHEAD, str(self._offset), "doctor", "--json"],
            cwd=REPOSITORY, env=self._settings, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        return {each["name"]: each for each in json.loads(done.stdout)["findings"] if each["state"] != "ok"}


@pytest.fixture
def machine(service_process: ServiceProcess, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(service_process.url, tmp_path)
    yield made
    made.kill()


def rows(database_url: str) -> list[float]:
    """When each heartbeat that is stored was collected, by its own timestamp, in seconds since 1970."""

    async def fetched() -> list[float]:
        connection = await asyncpg.connect(database_url)
        try:
            found = await connection.fetch("SELECT DISTINCT time FROM network_interface_metrics ORDER BY time")
        finally:
            await connection.close()
        return [row["time"].timestamp() for row in found]

    return asyncio.run(fetched())


def eventually(done: Callable[[], bool], machine: Machine, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, machine.log
        time.sleep(0.1)


@pytest.mark.parametrize("has_restarted", [False, True])
def test_a_year_ahead_and_put_right_is_heard_at_the_next_heartbeat_and_loses_nothing(
    service_process: ServiceProcess, machine: Machine, has_restarted: bool
) -> None:
    began = time.time()
    machine.set_clock(YEAR_SECONDS)
    machine.start()
    eventually(lambda: "refuses the time of this machine's clock" in machine.log, machine)
    refused = time.time()
    time.sleep(2.5)  # some more are kept
    assert rows(service_process.database_url) == []
    if has_restarted:
        machine.kill()
    machine.set_clock(0)
    if has_restarted:
        machine.start()

    # A batch of the backlog follows after up to nine intervals.
    eventually(lambda: len(rows(service_process.database_url)) >= 5, machine)
    eventually(lambda: rows(service_process.database_url)[0] < refused + 1, machine)  # the first of all

    stored = rows(service_process.database_url)
    assert all(began - 1 < moment < time.time() + 1 for moment in stored)
    assert machine.log.count("ahead and has been corrected") == 1
    assert "will not take" not in machine.log


def test_doctor_says_that_the_clock_is_ahead_and_that_what_waits_is(machine: Machine) -> None:
    machine.set_clock(YEAR_SECONDS)
    machine.start()
    eventually(lambda: "refuses the time of this machine's clock" in machine.log, machine)

    ahead = machine.doctor()
    machine.kill()
    machine.set_clock(0)
    put_right = machine.doctor()

    assert ahead["clock"]["state"] == "problem"
    assert "ahead of the service's: it rejects heartbeats" in ahead["clock"]["text"]
    assert "clock" not in put_right
    assert put_right["timestamps"]["state"] == "problem"
    assert "ahead of this machine's clock" in put_right["timestamps"]["text"]
    assert "at its next heartbeat" in put_right["timestamps"]["remedy"]
