"""pgBackRest, which the drills of backup and restore run."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.directories import default_cache_dir
from service.embedded import debian, elf, packages
from service.embedded.accounts import program_environment
from service.embedded.apt import PrivateApt
from service.embedded.places import make_enterable, open_lock
from service.embedded.problems import EmbeddedError
from service.embedded.sources import host_mirrors

# The first that knows PostgreSQL 17. Debian 13 has 2.55; Debian 12 has 2.45.
AT_LEAST = (2, 54)


@functools.cache
def pgbackrest() -> Path:
    """The program: this machine's, if it knows PostgreSQL 17, else Debian 13's in a directory of its own."""
    installed = shutil.which("pgbackrest")
    if installed and _version(Path(installed)) >= AT_LEAST:
        return Path(installed)
    try:
        return _unpacked()
    except EmbeddedError as error:
        pytest.skip(
            f"no pgBackRest {'.'.join(map(str, AT_LEAST))} or newer: {error}; apt install pgbackrest on Debian 13"
        )


def _unpacked() -> Path:
    """Debian 13's, tied to libraries of its own as the embedded PostgreSQL is (service/embedded/elf.py)."""
    cache = default_cache_dir().resolve()
    prefix, building = cache / "drill-pgbackrest", cache / "drill-pgbackrest.new"
    program = prefix / "usr/bin/pgbackrest"
    if program.exists():
        return program
    make_enterable(cache)
    with os.fdopen(open_lock(cache / "drill-pgbackrest.lock"), "w") as lock:
        apt = PrivateApt(cache / "drill-pgbackrest.apt", debian.architecture(), lock_fd=lock.fileno())
        (mirror, *_) = host_mirrors(Path("/etc/apt"), packages.SUITE)
        apt.prepare(mirror, packages.SUITE, installed=packages.LEFT_OUT)
        apt.update()
        planned = apt.plan(["pgbackrest"])
        apt.download(["pgbackrest"], planned, print)
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        for package in planned:
            subprocess.run(["dpkg-deb", "--extract", apt.archives / package.file, building], check=True)
        building.chmod(0o755)
        programs = building / "usr/bin"
        for other in list(programs.iterdir()):
            if other.name != "pgbackrest":
                other.unlink()
        elf.relocate(building, prefix, programs=programs)
        building.rename(prefix)
        shutil.rmtree(cache / "drill-pgbackrest.apt")
    return program


def _version(program: Path) -> tuple[int, ...]:
    said = subprocess.run([program, "version"], env=program_environment(), capture_output=True, text=True, check=False)
    return tuple(int(number) for number in re.findall(r"\d+", said.stdout))
