"""The running server of a data directory, found without asking it: postmaster.pid and /proc."""

import signal
import time
from dataclasses import dataclass
from pathlib import Path

from service.embedded.accounts import Account, read_as, run_as, signal_as
from service.embedded.problems import ClusterError


@dataclass(frozen=True)
class Postmaster:
    """A server that lives, as its postmaster.pid describes it.

    port               0 while the server has not come as far as writing it.
    socket_directory   None while it has not come as far, or listens on no Unix socket.
    ready              accepts connections.
    """

    pid: int
    port: int
    socket_directory: Path | None
    ready: bool


def find_postmaster(data_dir: Path, account: Account | None) -> Postmaster | None:
    """The server that runs on `data_dir`, or None: a crash leaves its pid file behind.

    The file's lines: pid, data directory, start time, port, socket directory, address,
    shared memory key, status (postgres/src/include/utils/pidfile.h).
    """
    lines = read_as(account, data_dir / "postmaster.pid").splitlines()
    try:
        pid = int(lines[0])
        port = int(lines[3]) if len(lines) > 3 else 0
    except (ValueError, IndexError):
        return None
    # The number may belong to another program by now; ours has the data directory for its own.
    if pid <= 0 or _works_in(pid, account) != str(data_dir.resolve()):
        return None
    return Postmaster(
        pid,
        port=port,
        socket_directory=Path(lines[4].strip()) if len(lines) > 4 and lines[4].strip() else None,
        ready=len(lines) > 7 and lines[7].strip() == "ready",
    )


def processes_in(data_dir: Path, account: Account | None) -> list[int]:
    """Every process that works in `data_dir`: a killed postmaster's children may outlive it.

    Asked as the server's account: root in a container may not look into another's processes.
    """
    listing = run_as(account, ["find", "/proc", "-maxdepth", "2", "-name", "cwd", "-printf", "%h %l\n"], timeout=30)
    workplace = str(data_dir.resolve())
    pairs = (line.partition(" ") for line in listing.stdout.splitlines())
    return [
        int(process.removeprefix("/proc/"))
        for process, _, directory in pairs
        if directory == workplace and process.removeprefix("/proc/").isdigit()
    ]


def command_of(pid: int) -> str:
    """The program that process `pid` was started as; "" if it is gone or a zombie. Readable for everyone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def _works_in(pid: int, account: Account | None) -> str:
    """The current directory of process `pid`; "" if it is gone, a zombie, or not the account's.

    Asked as the account: the number stands in a file of its, which may name a process of root's.
    """
    return run_as(account, ["readlink", f"/proc/{pid}/cwd"], timeout=10).stdout.strip()


def clear_remains(data_dir: Path, account: Account | None) -> None:
    """Make way for a new server after one was killed. Call it as the owner, with no postmaster running.

    The killed one's children end by themselves within moments, unless a query keeps one busy;
    until the last is gone, PostgreSQL refuses to start ("pre-existing shared memory block").
    """
    for sent in (None, signal.SIGQUIT, signal.SIGKILL):
        for _ in range(20):
            remains = processes_in(data_dir, account)
            if not remains:
                # PostgreSQL refuses to start while the pid in its lock files exists: as another
                # program by now, or as a zombie where no init reaps (containers).
                stale = 'cd "$0" && rm -f postmaster.pid .s.PGSQL.*'
                run_as(account, ["sh", "-c", stale, data_dir], timeout=10)
                return
            if sent is not None:
                signal_as(account, sent, remains)
            time.sleep(0.1)
    raise ClusterError(f"Processes {remains} are still running in {data_dir}", "Stop them and start again")
