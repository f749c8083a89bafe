"""As whom PostgreSQL runs, and how root works for it without trusting its files.

PostgreSQL refuses root, so root runs it as an account of its own. That account owns the cluster's directory and may
plant links and swap files there at any moment: whatever root opened, followed or chowned by name in it could be made to
be any file of the machine. So everything in there is done by programs that run as that account.
"""

import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.embedded.problems import UnreachableDirectoryError, UnsupportedHostError

NAME = "linkbeat-db"
"""Not `linkbeat`, which systemd's unit of the service takes for its own user."""

SHARED = ("postgres", "nobody")
"""Accounts that earlier versions ran the database as; programs that are none of ours run as them, too."""

_ADD_ATTEMPTS = 20


@dataclass(frozen=True)
class Account:
    """The unprivileged account that PostgreSQL's programs drop to when we are root."""

    name: str
    uid: int
    gid: int


def server_account(data_dir: Path) -> Account | None:
    """Whom to drop to before running PostgreSQL, which refuses root; None when we are not root.

    The owner of an existing cluster, whoever that is: a server must own its data. Else `linkbeat-db`.
    """
    return (owner_of(data_dir) or own_account()) if os.geteuid() == 0 else None


def owner_of(data_dir: Path) -> Account | None:
    """As whom to read what is in a directory that is there: its owner, or None where that is us."""
    try:
        uid = data_dir.stat().st_uid
    except OSError:
        return None
    return account_of(uid) if os.geteuid() == 0 and uid != 0 else None


def account_of(uid: int) -> Account:
    """The account with that number; its group is its own where it has no entry."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, uid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def own_account() -> Account:
    """The account `linkbeat-db`, added to the machine if it is missing. Only for root.

    Raises UnsupportedHostError where it cannot be added.
    """
    said = "no program to add it with"
    for _ in range(_ADD_ATTEMPTS):
        try:
            entry = pwd.getpwnam(NAME)
        except KeyError:
            pass
        else:
            if entry.pw_uid == 0:
                raise UnsupportedHostError(f"The account {NAME} is root itself", "Give it another user id")
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
        command = _adding()
        if command is None:
            break
        done = subprocess.run(command, env=program_environment(), capture_output=True, text=True, check=False)
        said = done.stderr.strip() or f"{command[0]} ended with status {done.returncode}"
        if done.returncode != 0:
            time.sleep(0.1)  # another process may be adding it: /etc/passwd is locked, or it is there now
    raise UnsupportedHostError(
        f"PostgreSQL does not run as root, and the account {NAME} cannot be created: {said}",
        f"Add a system account {NAME}, start Linkbeat as an ordinary user, or set LINKBEAT_DATABASE_URL",
    )


def _adding() -> list[str] | None:
    sbin = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    home, shell = "/nonexistent", "/usr/sbin/nologin"
    if program := shutil.which("useradd", path=sbin):
        return [program, "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", shell, NAME]
    if program := shutil.which("adduser", path=sbin):
        return [program, "--system", "--group", "--no-create-home", "--home", home, "--shell", shell, NAME]
    return None


def account_name(uid: int) -> str:
    """The name for a message; the number if there is none."""
    return account_of(uid).name


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

    From `/`, because the caller's directory may be closed to the account. What it makes is closed to others.
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
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no result within {timeout:.0f} s")


def read_as(account: Account | None, path: Path, *, limit_bytes: int = 1 << 20) -> str:
    """The beginning of a file, read as `account`; "" if there is none, or none that it may read."""
    return run_as(account, ["head", "-c", str(limit_bytes), "--", path], timeout=10).stdout


def signal_as(account: Account | None, number: int, pids: Sequence[int]) -> None:
    """Send a signal with the account's rights: a number out of its files can then only hit its own processes."""
    if pids:
        run_as(account, ["sh", "-c", 'kill -"$0" "$@"', str(int(number)), *map(str, pids)], timeout=10)


def require_access(account: Account | None, path: Path, remedy: str) -> None:
    """Raise UnreachableDirectoryError, naming the closed directory, unless `account` can reach `path`."""
    if account is None:
        return
    places = [place for place in (*reversed(path.parents), path) if place.exists()]
    first_closed = 'for place; do [ -x "$place" ] || { printf %s "$place"; exit; }; done'
    if place := run_as(account, ["sh", "-c", first_closed, "sh", *places], timeout=10).stdout:
        raise UnreachableDirectoryError(
            f"PostgreSQL does not run as root, and the account {account.name} cannot enter {place}", remedy
        )


def require_roots_own(directory: Path) -> None:
    """For root: raise UnreachableDirectoryError if another account could put something else into `directory`'s place.

    Each directory on the way belongs to root and is writable for root alone; one like /tmp, where everybody may write
    and nobody may rename what is another's (sticky), will do above it.
    """
    if os.geteuid() != 0:
        return
    ends = (directory.absolute(), directory.resolve())
    for place in dict.fromkeys(place for end in ends for place in (*end.parents, end)):
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        is_open = found.st_mode & 0o022 and not (found.st_mode & stat.S_ISVTX and place not in ends)
        if found.st_uid != 0:
            raise UnreachableDirectoryError(
                f"{place} belongs to {account_name(found.st_uid)}, who could replace the files that root keeps there",
                f"Start Linkbeat as {account_name(found.st_uid)}, or set LINKBEAT_DATA_DIR to a directory that "
                "belongs to root",
            )
        if is_open and not stat.S_ISLNK(found.st_mode):
            raise UnreachableDirectoryError(
                f"Others than root may write into {place}, where root keeps its files",
                f"Run `chmod go-w {place}`, or set LINKBEAT_DATA_DIR to another directory",
            )


def give_to(account: Account | None, directory: Path) -> None:
    """Make `account` the owner of a directory that we made in a directory that is ours alone; closed to others."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o700)
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)
