"""A primary and a synchronous streaming standby, to be killed, promoted, frozen and made again.

Both are of the embedded prefix, so of the Apache edition, whatever TEST_DATABASE_URL names: a standby needs programs
and files of its own. Nothing is flushed to a disk (fsync off); replication is as in production.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from service.database import schema
from service.directories import default_cache_dir
from service.embedded import packages, server_config
from service.embedded.accounts import give_to, program_environment, run_as
from service.embedded.data_directory import DATABASE, ROLE, DataDirectory
from service.embedded.guarded import Guarded
from service.embedded.installation import Installation
from service.embedded.postmaster import clear_remains, processes_in
from service.embedded.problems import MirrorError, UnsupportedHostError
from service.embedded.throwaway import throwaway_directory
from tests.helpers.faults import passed_on
from tests.helpers.processes import free_port

DEADLINE_SECONDS = 60.0  # of each wait here, for a busy machine
MEMORY_BYTES = 256 << 20
_LOCAL = """\
# A killed server's place is taken within a moment.
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
timescaledb.max_background_workers = 2
max_worker_processes = 8
log_min_messages = warning
"""


def until(holds: Callable[[], object], what: str) -> None:
    """Waits until it holds; a server tells nobody what has become of it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:.0f} s: {what}"
        time.sleep(0.02)


class Server:
    """One of the two: its name is its application_name as a standby, `a` or `b`."""

    def __init__(self, installation: Installation, directory: Path, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.data_dir = directory / name
        self._installation = installation
        self._password = ""
        self._running: Guarded | None = None

    @property
    def _files(self) -> DataDirectory:
        """Made for each use: whose the directory is, is known once it is there."""
        return DataDirectory(self._installation, self.data_dir, print)

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}:{self._password}@{self.address}/{DATABASE}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._running is not None and not self._running.has_ended

    def initialise(self) -> None:
        """A new, empty cluster, which is not started."""
        self._files.initialise(durable=False)
        self._configure("")

    def follow(self, primary: "Server") -> None:
        """Becomes a standby of `primary`, with a copy of its data; returns when it streams."""
        self._password = primary._password
        self._empty()
        login = {"PGPASSWORD": self._password}
        source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", ROLE)
        copied = run_as(
            self._files.account,
            [
                *(self._installation.program("pg_basebackup"), *source, "-D", self.data_dir),
                *("--checkpoint=fast", "--wal-method=stream", "--no-sync"),
            ],
            timeout=DEADLINE_SECONDS,
            environment=login,
        )
        assert copied.returncode == 0, copied.stderr
        self._files.write("postgresql.auto.conf", "")
        self._files.write("standby.signal", "\n")
        self._configure(
            f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user={ROLE} password={self._password} "
            f"application_name={self.name}'\n"
        )
        self.start()
        streams = (
            f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{self.name}' AND state = 'streaming'"
        )
        until(lambda: primary.query(streams) == ["1"], f"{self.name} streams from {primary.name}")

    def start(self) -> None:
        """Returns when it accepts connections."""
        clear_remains(self.data_dir, self._files.account)
        self._password = self._files.password
        self._running = Guarded(
            [self._installation.program("postgres"), "-D", self.data_dir],
            program_environment(),
            first=signal.SIGQUIT,
            log=self.data_dir / "log" / "startup.log",
            account=self._files.account,
            cwd=Path("/"),
        )
        until(self._answers, f"{self.name} accepts connections\n{self._files.log_tail()}")

    def kill(self) -> None:
        """As a power failure: every process of it ends at once, and connections are reset."""
        assert self._running is not None
        os.kill(self._running.pid, signal.SIGKILL)
        for pid in processes_in(self.data_dir, self._files.account):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._running.wait()
        self._running = None

    def stop(self) -> None:
        """Fast: clients are ended. Nothing where it does not run."""
        if self._running is not None:
            os.kill(self._running.pid, signal.SIGINT)
            self._running.wait(DEADLINE_SECONDS)
            self._running = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of it stands still: connections stay open, and nobody answers."""
        stopped: list[int] = []
        try:
            for _ in range(2):  # again, for what the first ones started while they still could
                for pid in processes_in(self.data_dir, self._files.account):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                        stopped.append(pid)
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def promote(self) -> None:
        """Returns when it takes writes, on a new timeline."""
        assert self.query("SELECT pg_promote()") == ["t"]

    def set_system(self, name: str, value: str) -> None:
        """ALTER SYSTEM and a reload; returns when new sessions have it."""
        self.query(f"ALTER SYSTEM SET {name} = '{value}'")
        self.query("SELECT pg_reload_conf()")
        until(lambda: self.query(f"SHOW {name}") == [value], f"{name} = {value!r} on {self.name}")

    def query(self, sql: str) -> list[str]:
        """The rows of psql, columns separated by |."""
        done = self._psql(sql)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def _answers(self) -> bool:
        assert self._running is not None
        assert not self._running.has_ended, self._files.log_tail()
        return self._psql("SELECT").returncode == 0

    def _psql(self, sql: str) -> subprocess.CompletedProcess[str]:
        return run_as(
            self._files.account,
            [self._installation.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql],
            timeout=DEADLINE_SECONDS,
            environment={
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": ROLE,
                "PGDATABASE": DATABASE,
                "PGPASSWORD": self._password,
            },
        )

    def _empty(self) -> None:
        """An empty directory of the server's account, whatever was there."""
        if self.data_dir.exists():
            emptied = run_as(
                self._files.account, ["find", self.data_dir, "-mindepth", "1", "-delete"], timeout=DEADLINE_SECONDS
            )
            assert emptied.returncode == 0, emptied.stderr
        else:
            account = self._files.account
            self.data_dir.mkdir(mode=0o700)
            give_to(account, self.data_dir)

    def _configure(self, more: str) -> None:
        text = server_config.settings_text(
            socket_directory=self.data_dir, port=self.port, tcp=True, memory_bytes=MEMORY_BYTES, durable=False
        )
        self._files.write("linkbeat.conf", text)
        self._files.write("local.conf", _LOCAL + more)


class Pair:
    """The two servers; `standby` is `primary`'s synchronous standby until a test changes that.

    members  a and b, in the order of `url`, whichever is the primary
    """

    def __init__(self, installation: Installation, directory: Path) -> None:
        self.members = (Server(installation, directory, "a"), Server(installation, directory, "b"))
        self.primary, self.standby = self.members

    @property
    def url(self) -> str:
        """Both hosts, a first."""
        login, _, _ = self.primary.url.rpartition("@")
        return f"{login}@{','.join(one.address for one in self.members)}/{DATABASE}"

    def fail_over(self) -> None:
        """The standby becomes the primary, whatever the old one does; it has no standby of its own then."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def restore(self) -> None:
        """Whatever a test did: both run, `standby` is a copy of `primary`, and a commit waits for it."""
        if self._is_whole():
            return
        self.standby.stop()
        if self.primary.is_running and self.primary.query("SELECT pg_is_in_recovery()") == ["t"]:
            self.primary.promote()
        elif not self.primary.is_running:
            self.primary.start()
        self.primary.set_system("synchronous_standby_names", "")
        self.standby.follow(self.primary)
        self.primary.set_system("synchronous_standby_names", self.standby.name)
        until(self._is_whole, "the standby is synchronous")

    def stop(self) -> None:
        for one in self.members:
            one.stop()

    def _is_whole(self) -> bool:
        if not (self.primary.is_running and self.standby.is_running):
            return False
        synchronous = "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'"
        names = self.primary.query("SHOW synchronous_standby_names")
        return names == [self.standby.name] == self.primary.query(synchronous)


@contextlib.contextmanager
def two_servers() -> Iterator[Pair]:
    """A migrated pair; where none can be had, the test is skipped with the reason and its remedy."""
    try:
        installation = packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(f"no servers of its own to kill: {error}")
    with throwaway_directory(server_config.machine_memory_bytes()) as directory:
        pair = Pair(installation, directory)
        try:
            pair.primary.initialise()
            pair.primary.start()
            asyncio.run(schema.migrate(pair.primary.url, print))
            pair.restore()
            yield pair
        finally:
            pair.stop()


class Switch:
    """An address for both servers, as a proxy or a floating name gives: what connects is passed on to `target`.

    Connections that are there stay where they are.
    """

    def __init__(self, pair: Pair) -> None:
        self.target = pair.primary
        self._passing: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._passing, return_exceptions=True)

    @property
    def url(self) -> str:
        login, _, _ = self.target.url.rpartition("@")
        return f"{login}@127.0.0.1:{self._server.sockets[0].getsockname()[1]}/{DATABASE}"

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        except OSError:
            writer.transport.abort()
            return
        self._ends += [writer, server_writer]
        self._passing |= {
            asyncio.create_task(passed_on(reader, server_writer)),
            asyncio.create_task(passed_on(server_reader, writer)),
        }


@contextlib.contextmanager
def silent_host() -> Iterator[str]:
    """host:port of a host that accepts connections, by its kernel alone, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
