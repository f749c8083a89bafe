"""For tests of what another account could do to root: they need root, and are skipped elsewhere with the reason."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.embedded.accounts import Account


def require_root(purpose: str) -> None:
    """Skips the test where there is nothing to gain."""
    if os.geteuid() != 0:
        pytest.skip(f"{purpose} needs root; run this test as root, in a container for instance")


@contextmanager
def acting_as(account: Account, script: str, *arguments: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A shell script that runs as that account within the block."""
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *map(str, arguments)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def act_as(account: Account, script: str, *arguments: str | Path) -> int:
    """The same, to its end; its status."""
    with acting_as(account, script, *arguments) as process:
        return process.wait(30)
