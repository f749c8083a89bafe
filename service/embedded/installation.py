"""A PostgreSQL with TimescaleDB on disk: the embedded prefix, or one that the host has installed."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from service.embedded.accounts import program_environment
from service.embedded.problems import PrefixError

HOST_MAJORS = (17, 18, 16)
"""PostgreSQL versions that Linkbeat runs on, the preferred first."""


@dataclass(frozen=True)
class Installation:
    """Where the programs are and which versions they have."""

    bin_dir: Path
    postgres_version: str
    timescaledb_version: str

    @property
    def major(self) -> int:
        """PostgreSQL's major version, which a data directory is bound to."""
        return int(self.postgres_version.partition(".")[0])

    def program(self, name: str) -> Path:
        """`postgres`, `initdb`, `psql` …"""
        return self.bin_dir / name

    def check_it_runs(self) -> None:
        """Start each program that is needed once; raises PrefixError with what it said."""
        for name in ("postgres", "initdb", "psql"):
            try:
                done = subprocess.run(
                    [str(self.program(name)), "--version"],
                    env=program_environment(),
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
            except PermissionError as error:
                raise PrefixError(
                    f"{self.program(name)} may not be executed",
                    "The cache lies on a file system mounted noexec: set XDG_CACHE_HOME to another one",
                ) from error
            if done.returncode != 0:
                raise PrefixError(
                    f"{self.program(name)} does not run here: {done.stderr.strip()}",
                    "Start Docker, or set LINKBEAT_DATABASE_URL",
                )


def on_host(major: int | None = None) -> Installation | None:
    """PostgreSQL 16 to 18 with TimescaleDB installed on this machine; of that `major` if named."""
    bin_dirs = [Path(f"/usr/lib/postgresql/{version}/bin") for version in HOST_MAJORS]
    if pg_config := shutil.which("pg_config"):
        bin_dirs.append(Path(_output(pg_config, "--bindir")))
    for bin_dir in bin_dirs:
        found = _inspect(bin_dir)
        if found and found.major in HOST_MAJORS and major in (None, found.major):
            return found
    return None


def _inspect(bin_dir: Path) -> Installation | None:
    """The installation in `bin_dir` if it has a server and TimescaleDB's loader and control file."""
    if not all((bin_dir / name).is_file() for name in ("postgres", "initdb", "psql", "pg_config")):
        return None
    pg_config = str(bin_dir / "pg_config")
    control = Path(_output(pg_config, "--sharedir")) / "extension" / "timescaledb.control"
    if not (Path(_output(pg_config, "--pkglibdir")) / "timescaledb.so").is_file() or not control.is_file():
        return None
    postgres = re.search(r"\d+(\.\d+)*", _output(str(bin_dir / "postgres"), "--version"))
    timescaledb = re.search(r"default_version\s*=\s*'([^']+)'", control.read_text(encoding="utf-8"))
    if postgres is None or timescaledb is None:
        return None
    return Installation(bin_dir, postgres[0], timescaledb[1])


def _output(*arguments: str) -> str:
    """What the program prints; "" if it does not run."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
