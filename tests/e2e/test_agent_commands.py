"""Arguments of the agent's commands: the file of settings, and the older name of `once`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import free_port

REPOSITORY = Path(__file__).parents[2]


def agent(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(f'server_id = "from-the-file"\nurl = "http://127.0.0.1:{free_port()}"\n')
    return path


def test_the_file_is_named_before_or_after_the_command(config: Path) -> None:
    before = agent("--config", str(config), "print")
    after = agent("print", "--config", str(config))

    assert json.loads(before.stdout)["server_id"] == json.loads(after.stdout)["server_id"] == "from-the-file"


def test_once_is_a_command_and_an_option(config: Path) -> None:
    command = agent("once", "--config", str(config))
    option = agent("--once", "--config", str(config))

    assert "connection refused" in command.stderr
    assert (command.returncode, command.stderr) == (option.returncode, option.stderr) == (1, option.stderr)


@pytest.mark.parametrize("command", ["run", "once", "print"])
def test_a_wrong_file_stops_the_start_in_one_line(config: Path, command: str) -> None:
    config.write_text("interval_seconds = 0\n")

    done = agent(command, "--config", str(config))

    said = f"{config}: interval_seconds: 0 is not a number of seconds from 1 to 3600\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_an_open_file_with_a_token_is_warned_of(config: Path) -> None:
    config.write_text('api_key = "the-token"\n')
    config.chmod(0o644)

    done = agent("print", "--config", str(config))

    assert done.returncode == 0
    assert (
        f"WARNING {config} contains the token and is readable by every user; run: chmod 600 {config}\n" in done.stderr
    )
    assert "the-token" not in done.stderr
