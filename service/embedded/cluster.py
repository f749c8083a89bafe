"""A private PostgreSQL cluster with TimescaleDB: made, started, shared, stopped, recovered.

<data_dir>              the cluster (0700, owned by the account that runs the server)
<data_dir>/linkbeat.*   conf: our settings; pgpass: the generated password; timescaledb: its version
<data_dir>.lock         held by the owner: the process that stops the server when it ends
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from service.embedded import server_config
from service.embedded.installation import Installation
from service.embedded.places import (
    account_name,
    give_to,
    program_environment,
    reachable_directory,
    require_access,
    run_as,
    server_account,
)
from service.embedded.postmaster import Postmaster, command_of, find_postmaster, processes_in
from service.embedded.problems import ClusterFailed, EmbeddedError, NoSpace, UnreachableDirectory
from service.embedded.progress import Say

ROLE = DATABASE = "linkbeat"

# Recovery after a crash replays up to max_wal_size; on an SD card that takes minutes.
START_DEADLINE_SECONDS = 300.0
STOP_STAGES = ((signal.SIGTERM, 2.0), (signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
"""Smart (clients may finish), fast (clients are ended), immediate (recovery at the next start)."""


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
        self.account = server_account(self.data_dir)
        self._say = say
        self._durable = durable
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, installation: Installation, say: Say) -> Iterator[Self]:
        """A started cluster in a temporary directory, gone at the end, even if we are killed."""
        with reachable_directory() as directory, _reaped(directory):
            cluster = cls(installation, directory / "postgres", say, durable=False)
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
        return f"postgresql://{ROLE}:{self._password()}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def psql_path(self) -> Path:
        """psql of the same version as the server."""
        return self.installation.program("psql")

    @property
    def psql(self) -> list[str]:
        """Arguments that open a session; the password stays in a file, out of `ps`."""
        return [str(self.psql_path), self._conninfo(DATABASE)]

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
        return find_postmaster(self.data_dir, self.account)

    def start(self) -> None:
        """Bring the server to where it accepts connections, at most START_DEADLINE_SECONDS from now."""
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        self._make_parent()
        while not self._take_ownership():
            running = self.status()
            if running and running.ready:
                self._port = running.port
                self._say(f"Using the database server that runs already (pid {running.pid}, port {running.port})")
                return
            if time.monotonic() > deadline:
                raise ClusterFailed(
                    f"Another process holds {self._lock_path} and has no server running",
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
            raise ClusterFailed("The server belongs to another process", "Restart that process instead")
        self._shut_down()
        self._start_as_owner(time.monotonic() + START_DEADLINE_SECONDS)

    # Ownership

    @property
    def _lock_path(self) -> Path:
        return self.data_dir.with_name(self.data_dir.name + ".lock")

    def _take_ownership(self) -> bool:
        """Whether we are the owner now; the kernel takes the lock from an owner that dies."""
        if self._lock is None:
            lock = self._lock_path.open("a", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    def _make_parent(self) -> None:
        parent = self.data_dir.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            if self.account is not None and parent.stat().st_uid == 0 and parent.stat().st_mode & 0o777 == 0o700:
                parent.chmod(0o711)
            self._lock_path.touch()
        except OSError as error:
            raise UnreachableDirectory(
                f"{parent} cannot be written: {error.strerror}", "Set LINKBEAT_DATA_DIR to a directory of your own"
            ) from error
        require_access(self.account, parent, "Set LINKBEAT_DATA_DIR to a directory that every user may enter")
        require_access(self.account, self.installation.program("postgres"), "Make it readable for every user")
        if self.data_dir.exists() and (owner := self.data_dir.stat().st_uid) != (
            self.account.uid if self.account else os.geteuid()
        ):
            raise UnreachableDirectory(
                f"{self.data_dir} belongs to {account_name(owner)}",
                "Start Linkbeat as that user, or set LINKBEAT_DATA_DIR to another directory",
            )

    # Start

    def _start_as_owner(self, deadline: float) -> None:
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        self._check_versions()
        running = self.status()
        if running and command_of(running.pid) != str(self.installation.program("postgres")):
            self._say("The server that was left running is of another version: restarting it")
            self._shut_down()
            running = None
        if running:
            self._say(f"Taking over the database server that an earlier run left behind (pid {running.pid})")
        else:
            self._launch()
        self._await_ready(deadline)
        self._update_extension()

    def _check_versions(self) -> None:
        major = (self.data_dir / "PG_VERSION").read_text(encoding="ascii").strip()
        if major != str(self.installation.major):
            raise ClusterFailed(
                f"{self.data_dir} belongs to PostgreSQL {major}, and this is {self.installation.postgres_version}",
                "Dump it with the old version and load it into a new one, or set LINKBEAT_DATA_DIR to another directory",
            )
        last_used = self._last_timescaledb()
        if last_used and _numbers(last_used) > _numbers(self.installation.timescaledb_version):
            raise ClusterFailed(
                f"{self.data_dir} was used with TimescaleDB {last_used}, newer than {self.installation.timescaledb_version}",
                "Use that version again, or set LINKBEAT_DATA_DIR to another directory",
            )

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there: an interrupted initdb leaves no half cluster."""
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise ClusterFailed(
                f"{self.data_dir} is not empty and not a PostgreSQL cluster",
                "Move it away, or set LINKBEAT_DATA_DIR to another directory",
            )
        self._say(f"Making a database cluster in {self.data_dir}")
        fresh = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        give_to(self.account, fresh)
        password = secrets.token_hex(24)
        password_file = fresh.with_name(fresh.name + ".password")
        try:
            self._write(password_file, password + "\n")
            # The builtin provider gives C.UTF-8 on every host; before 17 plain C is what all have.
            locale = (
                ("--locale-provider=builtin", "--locale=C.UTF-8") if self.installation.major >= 17 else ("--locale=C",)
            )
            self._run_program(
                "initdb",
                *("--pgdata", fresh, "--username", ROLE, "--pwfile", password_file, "--auth=scram-sha-256"),
                *("--encoding=UTF8", *locale, "--no-sync" if not self._durable else "--data-checksums"),
            )
        finally:
            password_file.unlink(missing_ok=True)
        self._run_program("postgres", "--single", "-D", fresh, "postgres", typed=f"CREATE DATABASE {DATABASE};\n")
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\ninclude 'linkbeat.conf'\ninclude_if_exists 'local.conf'\n")
        self._write(fresh / "linkbeat.pgpass", f"127.0.0.1:*:*:{ROLE}:{password}\n")
        (fresh / "log").mkdir(mode=0o700)
        give_to(self.account, fresh / "log")
        if self.data_dir.exists():
            self.data_dir.rmdir()
        fresh.rename(self.data_dir)

    def _launch(self) -> None:
        """Start the server process; returns before it accepts connections."""
        self._clear_remains()
        conf = self.data_dir / "linkbeat.conf"
        kept = server_config.configured_port(conf.read_text(encoding="utf-8")) if conf.exists() else None
        port = server_config.choose_port(kept)
        if port == 0:
            raise ClusterFailed(
                f"No port from {server_config.LOWEST_PORT} on is free on 127.0.0.1",
                "End the programs that listen there",
            )
        if kept not in (None, port):
            self._say(f"Port {kept} is taken by another program: the database moves to port {port}")
        self._write(
            conf,
            server_config.settings_text(
                port=port,
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
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
            )

    def _await_ready(self, deadline: float) -> None:
        next_word = time.monotonic() + 10
        while not ((running := self.status()) and running.ready):
            if self._process is not None and self._process.poll() is not None:
                if not re.search(r"could not bind|Address already in use", self._log_tail()):
                    raise self._failed(f"PostgreSQL ended at its start with code {self._process.returncode}")
                # Another program took the port after our probe.
                self._launch()
            if self._process is None and running is None:
                # We waited for a server that we took over, and it ended.
                self._launch()
            if time.monotonic() > deadline:
                raise self._failed(f"PostgreSQL accepts no connections after {START_DEADLINE_SECONDS:.0f} s")
            if time.monotonic() > next_word:
                self._say(f"Waiting for PostgreSQL: {self._log_tail().splitlines()[-1:] or ['no word from it yet']}")
                next_word += 10
            time.sleep(0.05)
        self._port = running.port

    def _clear_remains(self) -> None:
        """Clear what a killed server left: its children end by themselves, unless a query keeps one busy."""
        for sent in (None, signal.SIGQUIT, signal.SIGKILL):
            for _ in range(30):
                remains = processes_in(self.data_dir, self.account)
                if not remains:
                    # PostgreSQL too would refuse to start, if the pid belongs to another program by now.
                    (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
                    return
                if sent is not None:
                    for pid in remains:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, sent)
                time.sleep(0.1)
        raise ClusterFailed(f"Processes {remains} still work in {self.data_dir}", "End them and start again")

    def _update_extension(self) -> None:
        """Bring every database that has an older TimescaleDB to the installed one."""
        installed = self.installation.timescaledb_version
        if self._last_timescaledb() == installed:
            return
        # The data's older library is not in this prefix: without disable_load the question itself fails.
        silent = {"PGOPTIONS": "-c timescaledb.disable_load=on"}
        for database in self._query("SELECT datname FROM pg_database WHERE datallowconn", "postgres", silent):
            version = self._query("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'", database, silent)
            if version and version[0] != installed:
                self._say(f"Updating TimescaleDB in database {database} from {version[0]} to {installed}")
                self._query("ALTER EXTENSION timescaledb UPDATE", database, {})
        self._write(self.data_dir / "linkbeat.timescaledb", installed + "\n")

    def _last_timescaledb(self) -> str:
        try:
            return (self.data_dir / "linkbeat.timescaledb").read_text(encoding="ascii").strip()
        except OSError:
            return ""

    # Stop

    def _shut_down(self) -> None:
        running = self.status()
        if running is None:
            return
        for sent, patience_seconds in STOP_STAGES:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, sent)
            deadline = time.monotonic() + patience_seconds
            while time.monotonic() < deadline:
                now = self.status()
                if now is None or now.pid != running.pid:
                    self._process = None
                    return
                time.sleep(0.05)
        raise self._failed(f"PostgreSQL (pid {running.pid}) does not end")

    # Helpers

    def _run_program(self, name: str, *arguments: str | Path, typed: str = "") -> str:
        done = run_as(self.account, [self.installation.program(name), *arguments], timeout=300, typed=typed)
        if done.returncode == 0:
            return done.stdout
        words = " / ".join(done.stderr.strip().splitlines()[-3:])
        if "No space left" in done.stderr:
            raise NoSpace(f"{name}: {words}", f"Free space where {self.data_dir} is, or set LINKBEAT_DATA_DIR")
        raise ClusterFailed(f"{name} failed: {words}", "Set LINKBEAT_DATA_DIR to another directory, or start Docker")

    def _query(self, sql: str, database: str, environment: dict[str, str]) -> list[str]:
        done = run_as(
            self.account,
            [self.psql_path, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, self._conninfo(database)],
            timeout=300,
            environment=environment,
        )
        if done.returncode != 0:
            raise self._failed(f"{sql!r} failed in database {database}: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def _conninfo(self, database: str) -> str:
        passfile = str(self.data_dir / "linkbeat.pgpass").replace("\\", "\\\\").replace("'", "\\'")
        return f"host=127.0.0.1 port={self._port} user={ROLE} dbname={database} passfile='{passfile}'"

    def _password(self) -> str:
        return (self.data_dir / "linkbeat.pgpass").read_text(encoding="ascii").strip().rpartition(":")[2]

    def _write(self, path: Path, text: str) -> None:
        """Write whole or not at all, for the server's account alone."""
        fresh = path.with_name(path.name + ".tmp")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        give_to(self.account, fresh)
        fresh.replace(path)

    def _log_tail(self) -> str:
        """The last lines of the server's newest log, after those from before the log existed."""
        logs = sorted((self.data_dir / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        lines: list[str] = []
        for log in logs[-2:]:
            lines += log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join(lines)

    def _failed(self, what: str) -> EmbeddedError:
        return ClusterFailed(
            f"{what}. The end of the log in {self.data_dir / 'log'}:\n{self._log_tail()}\n",
            "If the log does not tell you what to do, set LINKBEAT_DATABASE_URL or start Docker",
        )


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


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
