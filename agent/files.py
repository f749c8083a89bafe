"""The spool's files: regular ones of a size that we write ourselves, which no link leads to."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_FILE_BYTES = 8 << 20  # more than any segment: a stranger's file must not be read into memory

# No link is followed out of the directory, and no child inherits the file. Windows has other flags, and text files.
SAFE_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | SAFE_FLAGS, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def read_regular(path: Path) -> bytes:
    """A regular file of a size that we write ourselves; nothing that blocks or never ends. Raises OSError."""
    with opened(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)) as file:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, "larger than any file of the spool", str(path))
        with os.fdopen(os.dup(file), "rb") as reader:
            return reader.read(MAX_FILE_BYTES)


def sync_directory(path: Path) -> None:
    """A new name is on the disk only when its directory is. Raises OSError."""
    if os.name == "posix":  # Windows cannot open one, and needs not
        with opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
            os.fsync(directory)
