"""The wheel: installed alone beside the locked dependencies, started in a folder that has nothing to do with it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.processes import Run, free_port

REPOSITORY = Path(__file__).parents[2]
SHOWN = re.compile(r"^Linkbeat is running\. .+$", re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a fresh environment, with the locked dependencies and the wheel."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    commands = directory / "venv/bin"
    pip: list[str | Path] = [commands / "python", "-m", "pip", "--disable-pip-version-check"]
    locked: list[str | Path] = ["--require-hashes", "--only-binary", ":all:", "-r", REPOSITORY / "requirements.lock"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", directory, REPOSITORY], check=True)
    (wheel,) = directory.glob("linkbeat-*.whl")
    subprocess.run([*pip, "install", "--quiet", *locked], check=True)
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)
    subprocess.run([*pip, "check"], check=True)
    return commands


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with modules that are called as ours are, and must not be started in their place."""
    folder = tmp_path / "elsewhere"
    for package in ("service", "agent", "migrations", "linkbeat"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise SystemExit('this is somebody else')\n")
    return folder


def said(command: Path, *arguments: str, cwd: Path, status: int = 0, environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [command, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | dict(environ or {}),
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_run_comes_up_and_ends(installed: Path, elsewhere: Path, database_url: str) -> None:
    run = Run(
        elsewhere.parent / "data",
        free_port(),
        command=[str(installed / "linkbeat"), "run"],
        cwd=elsewhere,
        LINKBEAT_DATABASE_URL=database_url,
    )
    try:
        run.wait_for(SHOWN, 60)
    finally:
        run.process.terminate()
        status = run.process.wait(30)

    assert status == 0, run.output
    assert "linkbeat psql" in run.output
    assert "make " not in run.output
    assert "python -m" not in run.output


def test_it_installs_its_own_schema_and_names_its_own_command(
    installed: Path, elsewhere: Path, empty_database_url: str
) -> None:
    environ = {"LINKBEAT_DATABASE_URL": empty_database_url, "LINKBEAT_DATA_DIR": str(elsewhere.parent / "data")}

    refused = said(installed / "linkbeat", "serve", cwd=elsewhere, status=1, environ=environ)
    migrated = said(installed / "linkbeat", "migrate", cwd=elsewhere, environ=environ)
    token = said(installed / "linkbeat", "token", "create", "--kind", "read", cwd=elsewhere, environ=environ)

    assert "has no Linkbeat schema; run: linkbeat migrate" in refused
    assert "Schema: installed" in migrated
    assert "lb_r_" in token


def test_the_agent_looks_after_itself(installed: Path, elsewhere: Path) -> None:
    environ = {"LINKBEAT_CONFIG": "/dev/null", "LINKBEAT_URL": "http://127.0.0.1:1", "LINKBEAT_LOG_LEVEL": "error"}

    findings = json.loads(
        said(installed / "linkbeat", "agent", "doctor", "--json", cwd=elsewhere, status=1, environ=environ)
    )
    printed = json.loads(said(installed / "linkbeat", "agent", "print", cwd=elsewhere, environ=environ))

    assert findings
    assert printed["server_id"]


@pytest.mark.parametrize("command", [("linkbeat",), ("linkbeat", "agent")])
def test_help_names_the_command_that_was_typed(installed: Path, elsewhere: Path, command: tuple[str, ...]) -> None:
    program, *arguments = command

    assert said(installed / program, *arguments, "--help", cwd=elsewhere).startswith(f"usage: {' '.join(command)} ")
    assert said(installed / program, *arguments, "--version", cwd=elsewhere).startswith(f"{' '.join(command)} ")
