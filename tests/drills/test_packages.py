"""The agent as people get it: `make agent` and pipx. Takes what it needs from the machine's package mirrors."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from deploy.build_agent import PLATFORMS, PYTHONS, build, download

REPOSITORY = Path(__file__).parents[2]
ALONE = {"LINKBEAT_CONFIG": "/dev/null"}


def test_one_file_for_every_python_and_machine(tmp_path: Path) -> None:
    wheels = download(tmp_path)
    archive = tmp_path / "linkbeat-agent.pyz"
    build(archive, wheels)

    printed = subprocess.run(
        [Path(sys.executable).resolve(), "-I", "-S", archive, "print"],
        capture_output=True, text=True, env=ALONE, cwd="/", check=True,
    )  # fmt: skip

    assert json.loads(printed.stdout)["server_id"]
    with zipfile.ZipFile(archive) as zipped:
        compiled = [name for name in zipped.namelist() if name.endswith(".so")]
    assert len(compiled) == len(PYTHONS) * len(PLATFORMS)
    assert archive.stat().st_size < 5_000_000


def test_the_distribution_of_the_agent_alone(tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip: list[str | Path] = [environment / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", tmp_path, REPOSITORY / "agent"], check=True)
    (wheel,) = tmp_path.glob("linkbeat_agent-*.whl")
    subprocess.run([*pip, "install", "--quiet", wheel], check=True)

    printed = subprocess.run(
        [environment / "bin/linkbeat-agent", "print"], capture_output=True, text=True, env=ALONE, cwd="/", check=True
    )
    listed = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True, check=True)

    assert json.loads(printed.stdout)["server_id"]
    names = {each["name"] for each in json.loads(listed.stdout)} - {"pip", "setuptools"}
    assert names == {"linkbeat-agent", "msgspec"}, "it brings nothing that only the service needs"
