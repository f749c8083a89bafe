"""Programs under test: started until they answer, stopped, and what they cost in processor time and memory."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from tests.helpers.processes import stop

START_SECONDS = 30.0
STOP_SECONDS = 60.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProgramFailed(Exception):
    """A program did not start; the message ends with what it last wrote."""


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], *, answers_at: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """The process id of a program, once it answers a GET of `answers_at`; terminated at the end.

    Raises ProgramFailed where it ends before, or does not answer within START_SECONDS.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(argument) for argument in command],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_for(process, answers_at, log)
        yield process.pid
    finally:
        stop(process, STOP_SECONDS)


def _wait_for(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).is_success:
                return
        time.sleep(0.05)
    reason = "does not answer" if process.returncode is None else f"ended with code {process.returncode}"
    raise ProgramFailed(f"{process.args!r} {reason}:\n{log.read_text(errors='replace')[-2000:]}")


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time, user and system, of these processes and all below them, those that have ended included.

    Formula: utime + stime + cutime + cstime of each (proc_pid_stat(5), fields 14 to 17); what a process has waited
    for is in the latter two, and in no living process's first two.
    """
    tree = _tree(pids)
    return sum(sum(map(int, fields[11:15])) for fields in tree) / _TICKS_PER_SECOND


def exact_cpu_seconds(pid: int) -> float:
    """Processor time of one process and its threads, exact: what is shorter than a tick is often in none.

    By its clock id as the kernel forms it (clock_getcpuclockid(3)): ~pid << 3, and 2 for the scheduler's account.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all below it; pages that they share count for each."""
    return sum(int(fields[21]) for fields in _tree([pid])) * _PAGE_BYTES


def parent(pid: int) -> int:
    """The process that started `pid`. Raises FileNotFoundError where there is no such process here."""
    return int(_fields(Path(f"/proc/{pid}"))[1])


def name(pid: int) -> str:
    """Its program's name. Raises FileNotFoundError where there is no such process here."""
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()


def _tree(roots: Sequence[int]) -> list[list[str]]:
    """proc_pid_stat(5) of the roots and all below them, from field 3 (state) on."""
    found: dict[int, list[str]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            found[int(place.name)] = _fields(place)
    tree = set(roots) & found.keys()
    while below := {pid for pid, fields in found.items() if int(fields[1]) in tree} - tree:
        tree |= below
    return [found[pid] for pid in tree]


def _fields(place: Path) -> list[str]:
    # A program's name, field 2, may hold spaces and parentheses.
    return (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
