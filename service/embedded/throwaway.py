"""The directory of a cluster that nobody needs afterwards: gone at the end, also where we were killed."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.embedded.accounts import Account, program_environment, server_account
from service.embedded.places import reachable_directory

# Both wait for the end of a pipe that only we hold. The server itself is ended by its own guard.
_EMPTY = """
read -r _
tenths=100
while [ -f "$0/postgres/postmaster.pid" ] && [ $tenths -gt 0 ]; do
    sleep 0.1
    tenths=$((tenths - 1))
done
for name in postgres postgres.new; do
    [ -d "$0/$name" ] && find "$0/$name" -mindepth 1 -delete
done
"""
# What root removes lies in its own directory, where nobody else can have put a link.
_REMOVE = """
read -r _
tenths=150
while [ $tenths -gt 0 ]; do
    rmdir "$0/postgres" "$0/postgres.new"
    [ -d "$0/postgres" ] || [ -d "$0/postgres.new" ] || break
    sleep 0.1
    tenths=$((tenths - 1))
done
rm -f "$0"/*
rmdir "$0"
"""


@contextmanager
def throwaway_directory(memory_bytes: int) -> Iterator[Path]:
    """A directory for `postgres`, a cluster; in memory where there is plenty (places.reachable_directory)."""
    with reachable_directory(memory_bytes) as directory, ExitStack() as stack:
        stack.enter_context(_at_our_end(_REMOVE, directory, None))
        stack.enter_context(_at_our_end(_EMPTY, directory, server_account(directory / "postgres")))
        yield directory


@contextmanager
def _at_our_end(script: str, directory: Path, account: Account | None) -> Iterator[None]:
    with subprocess.Popen(
        ["sh", "-c", script, str(directory)],
        cwd="/",
        env=program_environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    ):
        yield
