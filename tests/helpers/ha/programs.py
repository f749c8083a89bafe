"""What high availability is made of: Patroni in an environment of its own, etcd and HAProxy from Debian, PostgreSQL."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.directories import default_cache_dir
from service.embedded import packages
from service.embedded.accounts import Account, own_account, program_environment, run_as
from service.embedded.installation import Installation
from service.embedded.places import make_enterable
from service.embedded.problems import MirrorError, UnsupportedHostError

PATRONI = "patroni[etcd3]==4.1.5"
DRIVER = "psycopg[binary]==3.3.9"
# /usr/sbin is not in an ordinary user's PATH.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Programs:
    """Where each program is.

    account  as whom they run; None: as ourselves. PostgreSQL refuses root.
    """

    postgres_bin: Path
    patroni: Path
    patronictl: Path
    etcd: Path
    haproxy: Path
    account: Account | None
    versions: str


@functools.cache
def programs() -> Programs:
    """All of them; where one is missing, the test is skipped with the reason and its remedy.

    LINKBEAT_DRILL_POSTGRES_BIN names another PostgreSQL's programs than the embedded one's, such as one with
    TimescaleDB's Community edition.
    """
    found = {name: shutil.which(name, path=_PATH) for name in ("etcd", "haproxy")}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"{' and '.join(missing)} not installed: apt install etcd-server haproxy")
    account = own_account() if os.geteuid() == 0 else None
    environment = _patroni(account)
    postgres = installation()
    bin_dir = postgres.bin_dir
    versions = ", ".join(
        [
            f"PostgreSQL {postgres.postgres_version}, TimescaleDB {postgres.timescaledb_version}",
            _version(account, environment / "patroni"),
            _version(account, Path(str(found["etcd"]))),
            _version(account, Path(str(found["haproxy"])), "-v"),
        ]
    )
    return Programs(
        bin_dir,
        environment / "patroni",
        environment / "patronictl",
        Path(str(found["etcd"])),
        Path(str(found["haproxy"])),
        account,
        versions,
    )


def installation() -> Installation:
    """The PostgreSQL of the nodes: the one that LINKBEAT_DRILL_POSTGRES_BIN names, or the embedded one."""
    if named := os.environ.get("LINKBEAT_DRILL_POSTGRES_BIN"):
        bin_dir = Path(named)
        (control,) = bin_dir.parents[2].glob("**/extension/timescaledb.control")
        version = re.search(r"default_version = '([^']+)'", control.read_text(encoding="utf-8"))
        assert version is not None, control
        return Installation(bin_dir, _version(None, bin_dir / "postgres").split()[1], version[1])
    try:
        return packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(f"no PostgreSQL for the nodes: {error}")


def _patroni(account: Account | None) -> Path:
    """The programs of a virtual environment with Patroni, made at the first run in the cache directory."""
    place = default_cache_dir() / f"drill-patroni-{PATRONI.rpartition('=')[2]}"
    complete = place / "complete"
    if not complete.exists():
        make_enterable(place.parent)
        shutil.rmtree(place, ignore_errors=True)
        # As pip: a test's own environment may have no other way to the package index.
        _run([_interpreter(account), "-m", "venv", place], "apt install python3-venv")
        pip: list[str | Path] = [
            place / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        _run([*pip, PATRONI, DRIVER], "the Python package index must be reachable")
        complete.touch()
    return place / "bin"


def _interpreter(account: Account | None) -> Path:
    """A Python that the account may execute: root's own may lie in a directory that is closed to others."""
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        with contextlib.suppress(OSError):
            if run_as(account, [candidate, "-c", ""], timeout=60).returncode == 0:
                return candidate
    pytest.skip(f"no Python that {account.name if account else 'this user'} may execute: apt install python3-venv")


def _run(command: list[str | Path], remedy: str) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{' '.join(map(str, command))} failed: {done.stderr.strip()[-500:]}; {remedy}")


def _version(account: Account | None, program: Path, flag: str = "--version") -> str:
    """Its name and version: `patroni 4.1.5`."""
    said = run_as(account, [program, flag], timeout=60, environment=program_environment()).stdout
    number = re.search(r"\d+(\.\d+)+", said)
    return f"{program.name} {number[0] if number else '?'}"
