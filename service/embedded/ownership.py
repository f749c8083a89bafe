"""Gives a cluster that an earlier version ran as a shared account to the account of Linkbeat's own."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.embedded.accounts import Account
from service.embedded.problems import UnreachableDirectoryError

_KINDS = {stat.S_IFDIR, stat.S_IFREG, stat.S_IFSOCK}


def change_owner(directory: Path, old: Account, new: Account) -> None:
    """Give every file in `directory`, and last the directory itself, from `old` to `new`. Only for root.

    Each is held by a descriptor, seen to be the old account's, and given away by that descriptor: whatever that account
    puts in a file's place meanwhile, it can give away only what was its own. An interrupted change is continued by the
    next start, because the directory still belongs to the old account.

    Raises UnreachableDirectoryError, before anything is changed, if there is a link or a file of somebody else in it.
    """
    for is_change in (False, True):
        with _held(str(directory)) as descriptor:
            _walk(descriptor, directory, old, new, is_change=is_change)


def _walk(descriptor: int, path: Path, old: Account, new: Account, *, is_change: bool) -> None:
    found = os.fstat(descriptor)
    if stat.S_IFMT(found.st_mode) not in _KINDS or found.st_uid not in (old.uid, new.uid):
        raise UnreachableDirectoryError(
            f"{path} is a link, or does not belong to {old.name}: the cluster cannot be transferred to {new.name}",
            f"Move its target into the cluster, or transfer everything to {new.name} with chown yourself",
        )
    # By /proc, because a descriptor that is good for a link as well (O_PATH) cannot be read or changed itself.
    itself = f"/proc/self/fd/{descriptor}"
    if stat.S_ISDIR(found.st_mode):
        directory = os.open(itself, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # PG_VERSION last: by it the next start, as the old account, sees what an interrupted change has left.
            names = sorted(os.listdir(directory), key="PG_VERSION".__eq__)  # noqa: PTH208  pathlib knows no descriptors
            for name in names:
                with _held(name, directory) as entry:
                    _walk(entry, path / name, old, new, is_change=is_change)
        finally:
            os.close(directory)
    if is_change and found.st_uid == old.uid:
        os.chown(itself, new.uid, new.gid)


@contextmanager
def _held(name: str, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
