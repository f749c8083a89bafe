"""Where the embedded database keeps its things."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.directories import default_cache_dir
from service.embedded.accounts import Account, own_account, require_access
from service.embedded.problems import UnreachableDirectoryError

MEMORY = "/dev/shm"  # noqa: S108  a file system in memory, wherever Linux has one; ours there is closed


@contextlib.contextmanager
def reachable_directory(memory_bytes: int = 0) -> Iterator[Path]:
    """A temporary directory of ours that the server's account can enter.

    memory_bytes  that may be taken: the directory is in memory where that leaves room for a gigabyte and to spare. A
                  database is five hundred files, which a disk's file system takes a fifth of a second to make.
    """
    account = own_account() if os.geteuid() == 0 else None
    with contextlib.suppress(OSError):
        make_enterable(default_cache_dir())
    places = [os.environ.get("TMPDIR"), "/tmp", "/var/tmp", default_cache_dir()]  # noqa: S108  ours is closed
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
            Path(name).chmod(0o711 if account else 0o700)  # nobody else's files are in it, but those of the account
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


def write_private(account: Account | None, path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by `account` alone: passwords are in it.

    Only into a directory that is ours alone: what another account owns, it may swap between two steps.
    """
    fresh = path.with_name(path.name + ".tmp")
    fresh.unlink(missing_ok=True)
    # Closed from its first moment on: chmod after writing would leave a gap.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        if account is not None:
            os.fchown(file.fileno(), account.uid, account.gid)
    fresh.replace(path)


def open_lock(path: Path) -> int:
    """A descriptor of a file to be locked. Closed to others: whoever may open it can hold the lock, and us up."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, 0o600)  # an earlier version's was open
    return descriptor


def make_enterable(directory: Path) -> None:
    """Make `directory` and its missing parents so that every account may pass, whatever the umask."""
    for missing in [place for place in (*reversed(directory.parents), directory) if not place.exists()]:
        missing.mkdir(exist_ok=True)
        missing.chmod(0o755)
