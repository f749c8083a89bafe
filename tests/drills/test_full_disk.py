"""A full disk under `run`, and room on it again: nothing but 503 meanwhile, ready again afterwards, nothing lost."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.embedded.accounts import server_account
from service.embedded.places import reachable_directory
from service.embedded.postmaster import find_postmaster
from tests.drills.test_kill import REPORTING, START_SECONDS, THIS_MACHINE, check_data, run_with, stop
from tests.helpers.faults import Load
from tests.helpers.processes import free_port
from tests.helpers.rooted import require_root

DISK_MEGABYTES = 260
ROUNDS = 3
FULL_SECONDS = 15.0


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    directory.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m,mode=0755", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounting.returncode != 0:
        pytest.skip(f"no small disk can be mounted ({mounting.stderr.strip()}); give the container CAP_SYS_ADMIN")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(path: Path) -> None:
    """With what is left, or was freed since, to the last block."""
    for block in (1 << 20, 1 << 12):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                while True:
                    os.write(descriptor, bytes(block))
            finally:
                os.close(descriptor)


async def test_a_disk_that_was_full_leads_to_ready_again() -> None:
    require_root("a small disk to fill")
    port = free_port()
    waits, statuses = [], []
    deaths = 0
    with reachable_directory() as directory, small_disk(directory / "data"):
        data_dir, ballast = directory / "data", directory / "data" / "ballast"
        run = run_with(data_dir, port)
        try:
            await asyncio.to_thread(run.wait_for, REPORTING, START_SECONDS)
            async with Load([f"http://127.0.0.1:{port}"], agents=4, others=[THIS_MACHINE]) as load:
                for _ in range(ROUNDS):
                    await load.until_acknowledged(20, within_seconds=60)
                    await asyncio.to_thread(fill, ballast)
                    deadline = time.monotonic() + 60
                    while not load.statuses(time.monotonic() - 2)[503] and time.monotonic() < deadline:
                        await asyncio.to_thread(fill, ballast)  # what was freed meanwhile
                        await asyncio.sleep(0.5)
                    full_since = time.monotonic()
                    while time.monotonic() < full_since + FULL_SECONDS:
                        await asyncio.to_thread(fill, ballast)
                        await asyncio.sleep(0.5)
                    deaths += not is_up(data_dir)
                    statuses.append(dict(load.statuses(full_since + 2)))
                    ballast.unlink(missing_ok=True)
                    waits.append(await load.until_acknowledged(1, within_seconds=60))
                load.check_answers(allowed=(200, 503))
                await load.stop()
                assert run.process.poll() is None, run.output
                await check_data(load, data_dir)
        finally:
            stop(run)
        assert "Traceback" not in run.output
    print(
        f"{ROUNDS} times full, PostgreSQL down in {deaths} of them; answers meanwhile {statuses}; "
        f"first 200 after there was room: {', '.join(f'{seconds:.1f}' for seconds in waits)} s"
    )


def is_up(data_dir: Path) -> bool:
    return find_postmaster(data_dir / "postgres", server_account(data_dir / "postgres")) is not None
