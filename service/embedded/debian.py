"""What Debian says about this machine and its packages."""

import shutil
import subprocess
from pathlib import Path

from service.embedded.problems import UnsupportedHostError

ARCHITECTURES = frozenset({"amd64", "arm64"})

OTHERWISE = "Start Docker, or set LINKBEAT_DATABASE_URL to a TimescaleDB that you run"


def require_debian() -> dict[str, str]:
    """The machine's os-release; raises UnsupportedHostError elsewhere than on Debian and its kin."""
    release = os_release(Path("/etc/os-release"))
    kin = {release.get("ID"), *release.get("ID_LIKE", "").split()}
    if "debian" not in kin or not shutil.which("apt-get"):
        system = release.get("PRETTY_NAME", "another system")
        raise UnsupportedHostError(
            f"The embedded database is made of Debian's packages, and this is {system}", OTHERWISE
        )
    return release


def os_release(path: Path) -> dict[str, str]:
    """The fields of an os-release(5) file; {} where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def architecture() -> str:
    """amd64 or arm64; raises UnsupportedHostError for what Linkbeat was not tried on."""
    try:
        done = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnsupportedHostError("This system has no dpkg: the embedded database needs Debian", OTHERWISE) from error
    if (name := done.stdout.strip()) not in ARCHITECTURES:
        raise UnsupportedHostError(
            f"The embedded database exists for {' and '.join(sorted(ARCHITECTURES))}, this is {name}", OTHERWISE
        )
    return name


def upstream(debian_version: str) -> str:
    """The upstream part of a Debian version: 2.19.3 of 2.19.3+dfsg-1+deb13u1."""
    return debian_version.rpartition("-")[0].partition("+")[0]


def numbers(version: str) -> tuple[int, ...]:
    """A dotted version for comparison: 2.9 comes before 2.19."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
