"""A program and the shell that ends it when we are gone."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.embedded import guarded
from service.embedded.guarded import Guarded
from tests.helpers.durations import fastest

SECONDS = 60.0
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

# Starts a guarded program, tells its number, and waits to be killed.
OWNER = """
import os, signal, sys
from service.embedded.guarded import Guarded
program = Guarded(["sh", "-c", sys.argv[1]], os.environ, first=signal.SIGTERM)
sys.stdout.write(f"{program.pid}\\n")  # in one piece, also where output is not buffered
sys.stdout.flush()
signal.pause()
"""


def owner_of(trap: str) -> "tuple[subprocess.Popen[str], int]":
    """The owner and the number of a shell that runs on, once that has set its trap for SIGTERM."""
    script = f"trap '{trap}' TERM; echo ready; while :; do sleep 0.05; done"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    told = {owner.stdout.readline().strip(), owner.stdout.readline().strip()}
    owner.stdout.close()
    (pid,) = told - {"ready"}
    return owner, int(pid)


def await_end_of(pid: int) -> None:
    """Until it is gone, or a zombie that nobody reaps."""
    started = time.monotonic()
    while _state(pid) not in ("", "Z"):
        assert time.monotonic() < started + SECONDS, f"{pid} still runs"
        time.sleep(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def shells_of(session: int) -> list[int]:
    """Processes that still run in the program's session."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(place.name))
    return found


def await_end_of_shells(session: int) -> None:
    """Until nothing runs in the program's session any more."""
    started = time.monotonic()
    while remaining := shells_of(session):
        assert time.monotonic() < started + SECONDS, f"{remaining} still run"
        time.sleep(0.02)


def assert_soon(attempt: Callable[[], object]) -> None:
    """It does not wait for the end of the shell's patience, which would delay every attempt."""
    soon = guarded.PATIENCE_SECONDS / 2
    assert fastest(attempt, within=soon) < soon


@contextlib.contextmanager
def subreaping() -> Iterator[None]:
    """Within the block, orphans become children of this process, which reaps none of them."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_program_ends_when_its_owner_is_killed(sent: signal.Signals, tmp_path: Path) -> None:
    told = tmp_path / "told"
    owner, pid = owner_of(f"echo ended in order >{told}; exit")

    owner.send_signal(sent)
    owner.wait()
    await_end_of(pid)

    await_end_of_shells(pid)
    assert told.read_text() == "ended in order\n"


def test_one_that_does_not_obey_gets_the_last_signal() -> None:
    owner, pid = owner_of("")

    began = time.monotonic()
    owner.kill()
    owner.wait()
    await_end_of(pid)

    assert time.monotonic() - began >= guarded.PATIENCE_SECONDS - 1


def test_the_waiting_shell_does_not_wait_for_a_program_that_nobody_reaps() -> None:
    """As in a container whose first process reaps nothing: the shell would hold the locks that it inherited."""
    zombies = []

    def leave_alone() -> None:
        owner, pid = owner_of("exit")
        owner.kill()
        owner.wait()
        await_end_of(pid)
        assert _state(pid) == "Z"
        zombies.append(pid)
        await_end_of_shells(pid)

    with subreaping():
        assert_soon(leave_alone)
        for pid in zombies:
            os.waitpid(pid, 0)


def test_one_that_ends_by_itself_leaves_no_shell_and_has_its_status(tmp_path: Path) -> None:
    program = Guarded(["sh", "-c", "echo out; echo err >&2; exit 7"], os.environ, first=signal.SIGTERM,
                      log=tmp_path / "log")  # fmt: skip

    status = program.wait(SECONDS)

    assert status == 7
    assert program.has_ended
    # The kernel closes the pipes of an ending process some time before it calls it ended.
    await_end_of_shells(program.pid)
    assert (tmp_path / "log").read_text() == "out\nerr\n"

    def run() -> None:
        again = Guarded(["sh", "-c", "exit 7"], os.environ, first=signal.SIGTERM)
        again.wait(SECONDS)
        await_end_of_shells(again.pid)

    assert_soon(run)


def test_the_program_has_nothing_to_read_and_no_pipe_of_ours() -> None:
    program = Guarded(
        [
            "sh",
            "-c",
            "read -r line && exit 1; for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && exit $n; done; exit 0",
        ],
        os.environ,
        first=signal.SIGTERM,
    )

    assert program.wait(SECONDS) == 0


def test_a_program_that_is_not_there_has_the_shells_status() -> None:
    def run() -> None:
        program = Guarded(["/nonexistent/program"], os.environ, first=signal.SIGTERM)

        assert program.wait(SECONDS) == 127
        await_end_of_shells(program.pid)

    assert_soon(run)
