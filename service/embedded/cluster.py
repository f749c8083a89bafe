"""A private PostgreSQL cluster with TimescaleDB: made, started, shared, stopped, recovered.

One process owns the server and stops it: the one that holds <data_dir>.lock. The kernel frees
that lock however its holder ends, so ownership never has to be cleaned up after a crash.
"""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from service.embedded import server_config
from service.embedded.data_directory import DATABASE, ROLE, DataDirectory
from service.embedded.installation import Installation
from service.embedded.places import program_environment, reachable_directory
from service.embedded.postmaster import Postmaster, clear_remains, command_of, find_postmaster
from service.embedded.problems import ClusterError
from service.embedded.progress import Say

# Recovery after a crash replays up to max_wal_size; on an SD card that takes minutes.
START_DEADLINE_SECONDS = 300.0
STOP_STAGES = ((signal.SIGTERM, 2.0), (signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
"""Smart (clients may finish), fast (clients are ended), immediate (recovery at the next start)."""

_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


class Cluster:
    """One data directory and its server.

    start() makes the cluster if it is missing, attaches to a server that runs already, and else
    starts it. Whoever holds the owner's lock stops the server in stop(); one who merely attached
    leaves it running. A server left behind by an owner that was killed gets a new owner.

    Raises EmbeddedError's kinds, each with a remedy.
    """

    def __init__(self, installation: Installation, data_dir: Path, say: Say, *, durable: bool = True) -> None:
        self.installation = installation
        self.data_dir = data_dir.absolute()
        self._files = DataDirectory(installation, self.data_dir, say)
        self._say = say
        self._durable = durable
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, installation: Installation, say: Say, *, durable: bool = False) -> Iterator[Self]:
        """A started cluster in a temporary directory, gone at the end, even if we are killed."""
        memory_bytes = 0 if durable else server_config.machine_memory_bytes()
        with reachable_directory(memory_bytes) as directory, _reaped(directory):
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
        """For clients on this machine. Holds the password: not for logs."""
        return f"postgresql://{ROLE}:{self._files.password}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def psql_path(self) -> Path:
        """psql of the same version as the server."""
        return self.installation.program("psql")

    @property
    def psql(self) -> list[str]:
        """Arguments that open a session; the password stays in a file, out of `ps`."""
        return [str(self.psql_path), self._files.conninfo(self._port, DATABASE)]

    @property
    def pid(self) -> int | None:
        """The server's process id; None while none runs."""
        running = self.status()
        return running.pid if running else None

    @property
    def owned(self) -> bool:
        """Whether our stop() will stop the server."""
        return self._lock is not None

    def status(self) -> Postmaster | None:
        """The server that runs on this data directory, whoever started it."""
        if self._process is not None:
            # Reap a killed child: a zombie counts as alive for PostgreSQL's own check at the next start.
            self._process.poll()
        return find_postmaster(self.data_dir, self._files.account)

    def start(self) -> None:
        """Bring the server to where it accepts connections, at most START_DEADLINE_SECONDS from now."""
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        self._files.check_access()
        while not self._take_ownership():
            running = self.status()
            if running and running.ready and _accepts_connections(running.port):
                self._port = running.port
                self._say(f"Using the database server that runs already (pid {running.pid}, port {running.port})")
                return
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Another process holds {self._files.lock_path} and has no server running",
                    "End the other Linkbeat process and start again",
                )
            time.sleep(0.1)
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
            self._lock.close()
            self._lock = None

    def restart(self) -> None:
        """Stop and start the server, staying its owner."""
        if not self.owned:
            raise ClusterError("The server belongs to another process", "Restart that process instead")
        self._shut_down()
        self._start_as_owner(time.monotonic() + START_DEADLINE_SECONDS)

    # Ownership

    def _take_ownership(self) -> bool:
        """Whether we are the owner now; the kernel takes the lock from an owner that dies."""
        if self._lock is None:
            lock = self._files.lock_path.open("a", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    # Start

    def _start_as_owner(self, deadline: float) -> None:
        if not self._files.exists:
            self._files.initialise(durable=self._durable)
        self._files.check_versions()
        running = self.status()
        if running and command_of(running.pid) != str(self.installation.program("postgres")):
            self._say("The database server that was left running is of another version: restarting it")
            self._shut_down()
            running = None
        if running and self._process is None:
            self._say(f"Taking over the database server that an earlier run left behind (pid {running.pid})")
        self._await_ready(deadline)
        self._files.update_extension(self._port)

    def _launch(self) -> None:
        """Start the server process; returns before it accepts connections."""
        account = self._files.account
        clear_remains(self.data_dir, account)
        self._files.write(
            "linkbeat.conf",
            server_config.settings_text(
                port=self._free_port(),
                data_dir=self.data_dir,
                memory_bytes=server_config.machine_memory_bytes(),
                durable=self._durable,
            ),
        )
        with (self.data_dir / "log" / "startup.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(self.installation.program("postgres")), "-D", str(self.data_dir)],
                cwd="/",
                env=program_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches the whole process group: the server must outlive the service's drain.
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )

    def _free_port(self) -> int:
        """The port of the last start, so that an analyst's bookmark holds; another if it is taken."""
        kept = server_config.configured_port(self._files.read("linkbeat.conf"))
        port = server_config.choose_port(kept)
        if port == 0:
            raise ClusterError(
                f"No port from {server_config.LOWEST_PORT} on is free on 127.0.0.1",
                "End the programs that listen there",
            )
        if kept not in (None, port):
            self._say(f"Port {kept} is taken by another program: the database moves to port {port}")
        return port

    def _await_ready(self, deadline: float) -> None:
        """Wait for the server that runs; launch one if none does, or if the one that seemed to run was dying."""
        launched = False
        next_word = time.monotonic() + 10
        while True:
            running = self.status()
            if running and running.ready and _accepts_connections(running.port):
                self._port = running.port
                return
            if running is None and (self._process is None or self._process.poll() is not None):
                # A port conflict: another program took the port after our probe.
                if launched and not re.search(r"could not bind|Address already in use", self._files.log_tail()):
                    raise self._files.failure("PostgreSQL ended while it was starting")
                self._launch()
                launched = True
            if time.monotonic() > deadline:
                raise self._files.failure(f"PostgreSQL accepts no connections after {START_DEADLINE_SECONDS:.0f} s")
            if time.monotonic() > next_word:
                self._say(f"Waiting for PostgreSQL: {self._files.log_tail().rpartition(chr(10))[2]}")
                next_word += 10
            time.sleep(0.05)

    # Stop

    def _shut_down(self) -> None:
        running = self.status()
        if running is not None:
            pid = running.pid
        elif self._process is not None and self._process.poll() is None:
            # Interrupted between its launch and its pid file.
            pid = self._process.pid
        else:
            self._process = None
            return
        for sent, patience_seconds in STOP_STAGES:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
            if self._has_ended(pid, patience_seconds):
                self._process = None
                return
        raise self._files.failure(f"PostgreSQL (pid {pid}) does not end")

    def _has_ended(self, pid: int, patience_seconds: float) -> bool:
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            if self._process is not None and self._process.pid == pid:
                gone = self._process.poll() is not None
            else:
                gone = (running := self.status()) is None or running.pid != pid
            if gone:
                return True
            time.sleep(0.02)
        return False


def _accepts_connections(port: int) -> bool:
    """Whether a server process answers an SSLRequest (PostgreSQL's documentation, "Message Formats").

    Asked beside the pid file, which says "ready" some moments longer than a killed server lives,
    as does the kernel, which accepts connections in its stead.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) in (b"S", b"N")
    except OSError:
        return False


@contextlib.contextmanager
def _reaped(directory: Path) -> Iterator[None]:
    """Watch over a throwaway cluster: however we end, the kernel closes the pipe and the watcher clears up."""
    script = 'read -r _; [ -f "$1" ] && kill -QUIT "$(head -n 1 "$1")" && sleep 1; rm -rf "$2"'
    with subprocess.Popen(
        ["sh", "-c", script, "sh", str(directory / "postgres" / "postmaster.pid"), str(directory)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ):
        yield
