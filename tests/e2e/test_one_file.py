"""The one-file agent, built from the msgspec that is installed here, under a Python with nothing installed."""

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.build_agent import build

BARE = [str(Path(sys.executable).resolve()), "-I", "-S"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("one-file")
    wheel = directory / "msgspec.whl"
    with zipfile.ZipFile(wheel, "w") as zipped:
        for file in importlib.metadata.files("msgspec") or ():
            zipped.write(str(file.locate()), str(file))
    build(directory / "linkbeat-agent.pyz", [wheel])
    return directory / "linkbeat-agent.pyz"


def started(*command: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Without a home, without anything in the environment; silent of mounts that happen to be dead."""
    env = {"LINKBEAT_CONFIG": "/dev/null", "LINKBEAT_LOG_LEVEL": "error"} | environ
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=120, check=False)


def test_it_runs_without_anything_installed_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    done = started(*BARE, str(archive), "print", HOME=str(tmp_path), TMPDIR=str(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["network_interfaces"] is not None
    assert list(tmp_path.iterdir()) == []


def test_where_memory_may_not_be_executed_a_directory_stands_in_and_goes(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        main = zipped.read("__main__.py").decode()
        entries = {name: zipped.read(name) for name in zipped.namelist()}
    # As with the kernel's vm.memfd_noexec=2, whose answer is EACCES.
    refused = "os.memfd_create = lambda *_: (_ for _ in ()).throw(PermissionError(13, 'Permission denied'))\n"
    entries["__main__.py"] = main.replace("\n_load_core(", f"\n{refused}\n_load_core(").encode()
    changed = tmp_path / "changed.pyz"
    with zipfile.ZipFile(changed, "w") as zipped:
        for name, content in entries.items():
            zipped.writestr(name, content)
    left = tmp_path / "tmp"
    left.mkdir()

    done = started(*BARE, str(changed), "print", TMPDIR=str(left))

    assert (done.returncode, done.stderr) == (0, "")
    assert list(left.iterdir()) == []


def test_it_installs_itself_and_what_it_installed_runs(archive: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"

    done = started(*BARE, str(archive), "install", "--root", str(root), "--python", BARE[0])
    installed = started(*BARE, str(root / "usr/local/lib/linkbeat-agent"), "print")

    assert (done.returncode, done.stderr) == (0, "")
    assert (installed.returncode, installed.stderr) == (0, "")


def test_for_another_python_it_says_what_to_do(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(archive) as zipped, zipfile.ZipFile(other, "w") as without:
        for name in zipped.namelist():
            if not name.endswith(".so"):
                without.writestr(name, zipped.read(name))

    done = started(*BARE, str(other), "print")

    assert done.returncode == 1
    assert done.stderr.startswith("linkbeat-agent: this file does not support cpython-")
    assert len(done.stderr.splitlines()) == 1


def test_it_starts_by_its_own_name(archive: Path) -> None:
    done = started(str(archive), "--version", PATH=os.environ["PATH"])

    assert done.returncode == 0
    assert done.stdout.startswith("linkbeat agent ")


def test_the_same_files_make_the_same_archive(archive: Path, tmp_path: Path) -> None:
    build(tmp_path / "again.pyz", [archive.with_name("msgspec.whl")])

    assert (tmp_path / "again.pyz").read_bytes() == archive.read_bytes()
