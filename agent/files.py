"""Opens the spool's files: only regular files of bounded size, never through a symbolic link."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_FILE_BYTES = 8 << 20  # larger than any segment; bounds the memory used for a file that the agent did not write

# No symbolic link is followed, and no child process inherits the file. Windows needs O_BINARY and lacks the others.
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
    """The contents of a regular file of at most MAX_FILE_BYTES. Raises OSError; never blocks on a pipe or a device."""
    with opened(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)) as file:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, "larger than any file of the spool", str(path))
        with os.fdopen(os.dup(file), "rb") as reader:
            return reader.read(MAX_FILE_BYTES)


def sync_directory(path: Path) -> None:
    """Flushes a directory: until then a crash may lose the names of new files. Raises OSError."""
    if os.name == "posix":  # Windows cannot open a directory and does not need this
        with opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
            os.fsync(directory)
