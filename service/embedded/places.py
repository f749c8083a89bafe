"""Where the embedded database keeps its things, and as whom it runs."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.embedded.problems import UnreachableDirectoryError, UnsupportedHostError

MEMORY = "/dev/shm"  # noqa: S108  a file system in memory, wherever Linux has one; ours there is 0700


def default_cache_dir() -> Path:
    """What can be fetched again: packages and the prefixes unpacked from them.

    For root not root's own cache: PostgreSQL runs as another account, and /root is closed to it.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/linkbeat")
    return _xdg("XDG_CACHE_HOME", ".cache") / "linkbeat"


def default_data_dir() -> Path:
    """What must survive: the cluster's data. The default of LINKBEAT_DATA_DIR."""
    if os.geteuid() == 0:
        return Path("/var/lib/linkbeat")
    return _xdg("XDG_DATA_HOME", ".local/share") / "linkbeat"


def _xdg(variable: str, below_home: str) -> Path:
    """The XDG base directory; a relative value is ignored, as the specification demands."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / below_home


@dataclass(frozen=True)
class Account:
    """The unprivileged account that PostgreSQL's programs drop to when we are root."""

    name: str
    uid: int
    gid: int


def server_account(data_dir: Path) -> Account | None:
    """Whom to drop to before running PostgreSQL, which refuses root; None when we are not root.

    The owner of an existing data directory comes first: `postgres` may have been added to the
    machine after the cluster was made as `nobody`, and a server must own its data.
    """
    if os.geteuid() != 0:
        return None
    candidates: list[str | int] = ["postgres", "nobody"]
    if data_dir.exists() and data_dir.stat().st_uid != 0:
        candidates.insert(0, data_dir.stat().st_uid)
    for candidate in candidates:
        try:
            entry = pwd.getpwuid(candidate) if isinstance(candidate, int) else pwd.getpwnam(candidate)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise UnsupportedHostError(
        "PostgreSQL does not run as root, and this machine has neither an account postgres nor nobody",
        "Start Linkbeat as an ordinary user, or set LINKBEAT_DATABASE_URL",
    )


def program_environment() -> dict[str, str]:
    """A plain environment for PostgreSQL's programs.

    LD_LIBRARY_PATH and PG* of the caller are left out: one would mix the host's libraries with
    the prefix's, the other would redirect psql. OPENSSL_CONF: the host's openssl.cnf may load
    provider modules that only fit the host's libcrypto. LC_ALL: messages are searched for words.
    """
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LC_ALL": "C",
        "OPENSSL_CONF": "/dev/null",
    }


def run_as(
    account: Account | None,
    arguments: Sequence[str | Path],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    typed: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run one program to its end as `account` (as ourselves if None); `timeout` in seconds, `typed` its input.

    A program that takes longer is killed and counts as failed, with code 124.

    From `/`, because the caller's directory may be closed to the account.
    """
    command = [str(argument) for argument in arguments]
    try:
        return subprocess.run(
            command,
            cwd="/",
            env={**program_environment(), **(environment or {})},
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end after {timeout:.0f} s")


def require_access(account: Account | None, path: Path, remedy: str) -> None:
    """Raise UnreachableDirectoryError, naming the closed directory, unless `account` can reach `path`."""
    if account is None:
        return
    for place in [*reversed(path.parents), path]:
        if place.exists() and run_as(account, ["test", "-x", place], timeout=10).returncode != 0:
            raise UnreachableDirectoryError(
                f"PostgreSQL does not run as root, and the account {account.name} cannot enter {place}", remedy
            )


@contextlib.contextmanager
def reachable_directory(memory_bytes: int = 0) -> Iterator[Path]:
    """A temporary directory that the server's account owns, below one that it can enter.

    memory_bytes  that may be taken: the directory is in memory where that leaves room for a gigabyte and to spare. A
                  database is five hundred files, which a disk's file system takes a fifth of a second to make.
    """
    account = server_account(Path("/nonexistent"))
    with contextlib.suppress(OSError):
        make_enterable(default_cache_dir())
    places = [os.environ.get("TMPDIR"), "/tmp", "/var/tmp", default_cache_dir()]  # noqa: S108  ours is 0700
    if memory_bytes >= 4 << 30 and _free_bytes(MEMORY) >= 2 << 30:
        places.insert(0, MEMORY)
    for place in places:
        if not place or not os.access(place, os.W_OK | os.X_OK):
            continue
        try:
            require_access(account, Path(place), "")
        except UnreachableDirectoryError:
            continue
        with tempfile.TemporaryDirectory(prefix="linkbeat-", dir=place, ignore_cleanup_errors=True) as name:
            give_to(account, Path(name))
            yield Path(name)
        return
    raise UnreachableDirectoryError(
        "No temporary directory can be written", "Set TMPDIR to one that every user may enter"
    )


def _free_bytes(place: str) -> int:
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 0


def give_to(account: Account | None, path: Path) -> None:
    """Make `account` the owner of a file or directory that we created as root."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def account_name(uid: int) -> str:
    """The name for a message; the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def write_private(account: Account | None, path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by the server's account alone: passwords are in it."""
    fresh = path.with_name(path.name + ".tmp")
    fresh.unlink(missing_ok=True)
    # Closed from its first moment on: chmod after writing would leave a gap.
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    give_to(account, fresh)
    fresh.replace(path)


def make_enterable(directory: Path) -> None:
    """Make `directory` and its missing parents so that every account may pass, whatever the umask."""
    for missing in [place for place in (*reversed(directory.parents), directory) if not place.exists()]:
        missing.mkdir(exist_ok=True)
        missing.chmod(0o755)
