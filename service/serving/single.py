"""Allows one `run` per data directory. A new one waits for processes that an earlier, killed one left behind."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.embedded.accounts import require_roots_own
from service.embedded.places import make_enterable, open_lock
from service.embedded.problems import EmbeddedError
from service.http.listen import check_free
from service.settings import Settings, SettingsError

OURS, CHILDREN = "run.lock", "run-children.lock"
WAIT_SECONDS = 20.0
"""Guards stop the processes of a killed run within ten seconds (service/embedded/guarded.py)."""


class AlreadyRunning(EmbeddedError):
    """The data directory is used by another run, or by processes that one left behind."""


@contextmanager
def single_run(settings: Settings, say: Callable[[str], None]) -> Iterator[int]:
    """Within the block, no other run uses the data directory, and its port was free at the beginning.

    Yields the descriptor of the lock that the children must inherit: the kernel releases it when the last of them ends,
    however they and this process end.

    Raises SettingsError for a port that another program uses, and AlreadyRunning.
    """
    directory = settings.data_path
    try:
        check_free(settings.host, settings.port)
    except SettingsError:
        if not _is_left_running(directory):
            raise
    require_roots_own(directory)
    try:
        make_enterable(directory)
        ours, children = open_lock(directory / OURS), open_lock(directory / CHILDREN)
    except OSError as raised:
        raise SettingsError(f"LINKBEAT_DATA_DIR: {directory} cannot be used: {raised.strerror}") from raised
    try:
        if not _take(ours):
            raise AlreadyRunning(
                f"Another run uses {directory}", "Stop that one, or set LINKBEAT_DATA_DIR to another directory"
            )
        _await_children(children, directory, say)
        check_free(settings.host, settings.port)
        yield children
    finally:
        os.close(children)
        os.close(ours)


def _await_children(children: int, directory: Path, say: Callable[[str], None]) -> None:
    if _take(children):
        return
    say("An earlier run was killed: waiting for its processes to end")
    deadline = time.monotonic() + WAIT_SECONDS
    while not _take(children):
        if time.monotonic() > deadline:
            raise AlreadyRunning(
                f"Processes of an earlier run still use {directory}",
                f"End them; `fuser {directory / CHILDREN}` names them",
            )
        time.sleep(0.1)


def _is_left_running(directory: Path) -> bool:
    """Whether no run holds the data directory, but children of a killed one still do."""
    try:
        ours, children = (os.open(directory / name, os.O_RDWR | os.O_NOFOLLOW) for name in (OURS, CHILDREN))
    except OSError:
        return False
    try:
        return _take(ours) and not _take(children)
    finally:
        os.close(ours)
        os.close(children)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
