"""Both wheels, built from this checkout without the network, and environments that they are installed in."""

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
REMEDY = "hatchling builds the wheels and is missing; make lint installs it"
TAKEN = "this is somebody else's package"


@dataclass(frozen=True)
class Wheels:
    service: Path
    agent: Path


def can_build() -> bool:
    return find_spec("hatchling") is not None


def build(directory: Path) -> Wheels:
    """linkbeat and linkbeat-agent; hatchling is this environment's."""
    projects = [REPOSITORY, REPOSITORY / "agent"]
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, *projects)
    (service,) = directory.glob("linkbeat-*.whl")
    (agent,) = directory.glob("linkbeat_agent-*.whl")
    return Wheels(service, agent)


def strangers(directory: Path) -> list[Path]:
    """Distributions with the names of Linkbeat's folders, as PyPI has them; each says so when it is imported."""
    wheels = []
    for name in ("service", "sql", "agent", "migrations"):
        wheel = directory / f"{name}-9.9-py3-none-any.whl"
        record = f"{name}-9.9.dist-info"
        with zipfile.ZipFile(wheel, "w") as zipped:
            zipped.writestr(f"{name}/__init__.py", f"raise SystemExit({TAKEN!r})\n")
            zipped.writestr(f"{name}/__main__.py", "")
            zipped.writestr(f"{record}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
            zipped.writestr(f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            lines = [f"{name}/__init__.py,,", f"{name}/__main__.py,,", *(f"{record}/{each},," for each in _RECORDED)]
            zipped.writestr(f"{record}/RECORD", "\n".join(lines) + "\n")
        wheels.append(wheel)
    return wheels


_RECORDED = ("METADATA", "WHEEL", "RECORD")


class Environment:
    """A fresh virtual environment; it sees what is installed here, behind what is installed in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
        (packages,) = directory.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, *what: Path | str) -> None:
        _pip(
            "--python", self.python, "install", "--no-compile", "--no-deps", "--no-index", "--no-build-isolation", *what
        )

    def uninstall(self, name: str) -> None:
        _pip("--python", self.python, "uninstall", "--yes", name)

    def run(
        self, command: str, *arguments: str | Path, cwd: Path, environ: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """A command of the environment, with nothing in its own environment but what is given."""
        return subprocess.run(
            [self.directory / "bin" / command, *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin", "LINKBEAT_CONFIG": "/dev/null"} | (environ or {}),
            timeout=120,
            check=False,
        )


def _pip(*arguments: str | Path) -> None:
    quiet: Iterable[str] = ("--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *quiet, *arguments], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
