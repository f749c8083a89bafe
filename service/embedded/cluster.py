"""A private PostgreSQL cluster with TimescaleDB: made, started, shared, stopped, recovered.

One process owns the server and stops it: the one that holds <data_dir>.lock. The kernel frees
that lock however its holder ends, so ownership never has to be cleaned up after a crash.
"""

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from service.embedded import server_config
from service.embedded.accounts import program_environment, signal_as
from service.embedded.data_directory import DATABASE, ROLE, DataDirectory
from service.embedded.guarded import Guarded
from service.embedded.installation import Installation
from service.embedded.postmaster import Postmaster, clear_remains, command_of, find_postmaster
from service.embedded.problems import ClusterError
from service.embedded.progress import Say
from service.embedded.sockets import PORT, answers, socket_directory
from service.embedded.throwaway import throwaway_directory

# Recovery after a crash replays up to max_wal_size; on an SD card that takes minutes.
START_DEADLINE_SECONDS = 300.0
STOP_STAGES = ((signal.SIGTERM, 2.0), (signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
"""Smart (clients may finish), fast (clients are ended), immediate (recovery at the next start)."""


class Cluster:
    """One data directory and its server.

    start() makes the cluster if it is missing, attaches to a server that runs already, and else
    starts it. Whoever holds the owner's lock stops the server in stop(); one who merely attached
    leaves it running. A server whose owner was killed is shut down (guarded.py), or taken over by
    the next start.

    tcp_port    of 127.0.0.1, on which it listens besides its Unix socket; None: not at all.

    Raises EmbeddedError's kinds, each with a remedy.
    """

    def __init__(
        self,
        installation: Installation,
        data_dir: Path,
        say: Say,
        *,
        durable: bool = True,
        tcp_port: int | None = None,
    ) -> None:
        self.installation = installation
        self.data_dir = data_dir.absolute()
        self._files = DataDirectory(installation, self.data_dir, say)
        self._say = say
        self._durable = durable
        self._tcp_port = tcp_port
        self._interrupted = threading.Event()
        self._lock: int | None = None
        self._server: Guarded | None = None  # if we launched it
        self._address: tuple[Path, int] = (self.data_dir, PORT)
        self._pid_and_program: tuple[int, str] = (0, "")
        self._password = ""

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, installation: Installation, say: Say, *, durable: bool = False) -> Iterator[Self]:
        """A started cluster in a temporary directory, gone at the end, even if we are killed."""
        with throwaway_directory(0 if durable else server_config.machine_memory_bytes()) as directory:
            cluster = cls(installation, directory / "postgres", say, durable=durable)
            with cluster:
                yield cluster

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """For clients on this machine, by the socket. Holds the password: not for logs."""
        sockets, port = self._address
        return f"postgresql://{ROLE}:{self._password}@/{DATABASE}?host={quote(str(sockets))}&port={port}"

    @property
    def psql(self) -> list[str]:
        """The command that opens a session, with `psql_environment`; psql is of the same version as the server."""
        return [str(self.installation.program("psql"))]

    @property
    def psql_environment(self) -> dict[str, str]:
        """Where psql connects to, and the password: every user can read a command, and nobody else its environment."""
        sockets, port = self._address
        return {
            "PGHOST": str(sockets),
            "PGPORT": str(port),
            "PGUSER": ROLE,
            "PGDATABASE": DATABASE,
            "PGPASSWORD": self._password,
        }

    @property
    def pid(self) -> int | None:
        """The server's process id; None while none runs."""
        running = self.status()
        return running.pid if running else None

    @property
    def owned(self) -> bool:
        """Whether our stop() will stop the server."""
        return self._lock is not None

    @property
    def is_alive(self) -> bool:
        """Whether the server process that start() came to still runs. Costs next to nothing."""
        if self._server is not None:
            return not self._server.has_ended
        pid, program = self._pid_and_program
        return program != "" and command_of(pid) == program

    def status(self) -> Postmaster | None:
        """The server that runs on this data directory, whoever started it."""
        if self._server is not None and self._server.has_ended:  # reaped by asking
            self._server = None
        return find_postmaster(self.data_dir, self._files.account)

    def start(self) -> None:
        """Bring the server to where it accepts connections, at most START_DEADLINE_SECONDS from now."""
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        self._files.check_access()
        while not self._take_ownership():
            running = self.status()
            if running and self._is_ready(running):
                self._use(running)
                self._say(f"Using the running database server (pid {running.pid})")
                return
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Another process holds {self._files.lock_path} and has no server running",
                    "Stop the other Linkbeat process and start again",
                )
            self._pause(0.1)
        try:
            self._start_as_owner(deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server if we own it: clients may finish, then are ended, then the server is killed."""
        if self._lock is None:
            return
        try:
            self._shut_down()
        finally:
            os.close(self._lock)
            self._lock = None

    def restart(self) -> None:
        """Stop and start the server, staying its owner."""
        if not self.owned:
            raise ClusterError("The server belongs to another process", "Restart that process instead")
        self._shut_down()
        self._start_as_owner(time.monotonic() + START_DEADLINE_SECONDS)

    def interrupt(self) -> None:
        """End a start() that another thread is in: it raises ClusterError."""
        self._interrupted.set()

    # Ownership

    def _take_ownership(self) -> bool:
        """Whether we are the owner now; the kernel takes the lock from an owner that dies."""
        if self._lock is None:
            lock = self._files.open_lock()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
        return True

    # Start

    def _start_as_owner(self, deadline: float) -> None:
        if not self._files.exists:
            if self._password:
                # A new one would be taken for the old one, whose data is gone.
                raise ClusterError(f"The cluster in {self.data_dir} is gone", "Bring it back and start again")
            self._files.initialise(durable=self._durable)
        self._files.check_versions()
        running = self.status()
        if running and command_of(running.pid) != str(self.installation.program("postgres")):
            self._say("The running database server has another version: restarting it")
            self._shut_down()
            running = None
        elif running and running.ready and running.socket_directory is None:
            self._say("The running database server has no socket: restarting it")
            self._shut_down()
            running = None
        if running and self._server is None:
            self._say(f"Taking over the database server that an earlier run left behind (pid {running.pid})")
        self._use(self._await_ready(deadline))
        self._files.update_extension(*self._address)

    def _use(self, running: Postmaster) -> None:
        assert running.socket_directory is not None
        self._address = (running.socket_directory, running.port)
        self._pid_and_program = (running.pid, command_of(running.pid))
        self._password = self._files.password

    def _launch(self) -> None:
        """Start the server process; returns before it accepts connections."""
        self._files.leave_shared_account()
        account = self._files.account
        clear_remains(self.data_dir, account)
        port = self._tcp_port or PORT
        if self._tcp_port is not None and not _is_free(self._tcp_port):
            raise ClusterError(
                f"LINKBEAT_DATABASE_PORT: {self._tcp_port} is in use on 127.0.0.1",
                "Stop the program that uses it, or set another port",
            )
        sockets = socket_directory(self.data_dir, account, port)
        self._files.write(
            "linkbeat.conf",
            server_config.settings_text(
                socket_directory=sockets,
                port=port,
                tcp=self._tcp_port is not None,
                memory_bytes=server_config.machine_memory_bytes(),
                durable=self._durable,
            ),
        )
        self._files.write_password_file(sockets)
        self._address = (sockets, port)
        self._server = Guarded(
            [self.installation.program("postgres"), "-D", self.data_dir],
            program_environment(),
            # Fast, and where that takes too long, immediate.
            first=signal.SIGINT,
            last=signal.SIGQUIT,
            log=self.data_dir / "log" / "startup.log",
            account=account,
            cwd=Path("/"),
        )

    def _await_ready(self, deadline: float) -> Postmaster:
        """Wait for the server that runs; launch one if none does, or if the one that seemed to run was dying."""
        launched = False
        next_word = time.monotonic() + 10
        while True:
            if launched:
                self._await_answer(1.0)
            running = self.status()
            if running and self._is_ready(running):
                return running
            if running and running.ready and running.socket_directory is None:
                raise ClusterError(
                    "The database listens on no Unix socket", f"Fix {self.data_dir / 'local.conf'} and start again"
                )
            if running is None and self._server is None:
                if launched:
                    raise self._files.failure("PostgreSQL exited during its start")
                self._launch()
                launched = True
            if time.monotonic() > deadline:
                raise self._files.failure(f"PostgreSQL accepts no connections after {START_DEADLINE_SECONDS:.0f} s")
            if time.monotonic() > next_word:
                self._say(f"Waiting for PostgreSQL: {self._files.log_tail().rpartition(chr(10))[2]}")
                next_word += 10
            self._pause(0.05)

    def _await_answer(self, seconds: float) -> None:
        """Spare the programs that read the pid file while our server cannot be ready; its owner may move its socket."""
        deadline = time.monotonic() + seconds
        while self._server and not self._server.has_ended and not answers(*self._address):
            if time.monotonic() > deadline:
                return
            self._pause(0.05)

    def _is_ready(self, running: Postmaster) -> bool:
        return (
            running.ready and running.socket_directory is not None and answers(running.socket_directory, running.port)
        )

    def _pause(self, seconds: float) -> None:
        if self._interrupted.wait(seconds):
            raise ClusterError("The start of the database was interrupted", "Start again")

    # Stop

    def _shut_down(self) -> None:
        running = self.status()
        if running is not None:
            pid = running.pid
        elif self._server is not None:
            # Interrupted between its launch and its pid file.
            pid = self._server.pid
        else:
            return
        for sent, patience_seconds in STOP_STAGES:
            signal_as(self._files.account, sent, [pid])
            if self._has_ended(pid, patience_seconds):
                return
        raise self._files.failure(f"PostgreSQL (pid {pid}) does not stop")

    def _has_ended(self, pid: int, patience_seconds: float) -> bool:
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            if self._server is not None and self._server.pid == pid:
                gone = self._server.has_ended
            else:
                gone = (running := self.status()) is None or running.pid != pid
            if gone:
                self._server = None
                return True
            time.sleep(0.02)
        return False


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As PostgreSQL does: connections of a server that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
