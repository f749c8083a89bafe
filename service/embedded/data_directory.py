"""A cluster's files: made at first, checked at every start, updated with TimescaleDB.

<data_dir>              the cluster (0700, owned by the account that runs the server)
<data_dir>/linkbeat.*   conf: our settings; pgpass: the generated password; timescaledb: its version
<data_dir>/local.conf   settings of the machine's owner, if there are any
"""

import os
import secrets
import shutil
from pathlib import Path

from service.embedded.debian import numbers
from service.embedded.installation import Installation
from service.embedded.places import (
    account_name,
    give_to,
    make_enterable,
    require_access,
    run_as,
    server_account,
    write_private,
)
from service.embedded.problems import ClusterError, NoSpaceError, UnreachableDirectoryError
from service.embedded.progress import Say

ROLE = DATABASE = "linkbeat"


class DataDirectory:
    """The directory of one cluster and what of it can be done without being its server's owner."""

    def __init__(self, installation: Installation, path: Path, say: Say) -> None:
        self.path = path.absolute()
        self.account = server_account(self.path)
        self._installation = installation
        self._say = say

    @property
    def exists(self) -> bool:
        """Whether there is a cluster; it is moved here only when it is whole."""
        return (self.path / "PG_VERSION").exists()

    @property
    def lock_path(self) -> Path:
        """Beside the cluster, because initdb wants an empty directory."""
        return self.path.with_name(self.path.name + ".lock")

    @property
    def password(self) -> str:
        """The generated password of the role linkbeat."""
        return (self.path / "linkbeat.pgpass").read_text(encoding="ascii").strip().rpartition(":")[2]

    def conninfo(self, port: int, database: str) -> str:
        """For psql; the password stays in its file, out of `ps`."""
        passfile = str(self.path / "linkbeat.pgpass").replace("\\", "\\\\").replace("'", "\\'")
        return f"host=127.0.0.1 port={port} user={ROLE} dbname={database} passfile='{passfile}'"

    def write(self, name: str, text: str) -> None:
        """Write a file of ours into the cluster."""
        write_private(self.account, self.path / name, text)

    def read(self, name: str) -> str:
        """A file of ours; "" if it is not there yet."""
        path = self.path / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def check_access(self) -> None:
        """Make the parent directory and the lock; raises UnreachableDirectoryError if that is in vain."""
        parent = self.path.parent
        try:
            make_enterable(parent)
            self.lock_path.touch()
        except OSError as error:
            raise UnreachableDirectoryError(
                f"{parent} cannot be written: {error.strerror}", "Set LINKBEAT_DATA_DIR to a directory of your own"
            ) from error
        require_access(self.account, parent, "Set LINKBEAT_DATA_DIR to a directory that every user may enter")
        require_access(self.account, self._installation.program("postgres"), "Make it readable for every user")
        expected = self.account.uid if self.account else os.geteuid()
        if self.path.exists() and (owner := self.path.stat().st_uid) != expected:
            raise UnreachableDirectoryError(
                f"{self.path} belongs to {account_name(owner)}",
                "Start Linkbeat as that user, or set LINKBEAT_DATA_DIR to another directory",
            )

    def check_versions(self) -> None:
        """Raise ClusterError if the data is another major version's, or was used by a newer TimescaleDB."""
        major = self.read("PG_VERSION").strip()
        if major != str(self._installation.major):
            raise ClusterError(
                f"{self.path} belongs to PostgreSQL {major}, and this is {self._installation.postgres_version}",
                "Dump it with the old version and load it into the new, or set LINKBEAT_DATA_DIR to another directory",
            )
        installed = self._installation.timescaledb_version
        last_used = self.read("linkbeat.timescaledb").strip()
        if numbers(last_used) > numbers(installed):
            raise ClusterError(
                f"{self.path} was used with TimescaleDB {last_used}, newer than {installed}",
                "Use that version again, or set LINKBEAT_DATA_DIR to another directory",
            )

    def initialise(self, *, durable: bool) -> None:
        """Make the cluster beside its place and move it there: an interrupted initdb leaves no half cluster."""
        if self.path.exists() and any(self.path.iterdir()):
            raise ClusterError(
                f"{self.path} is not empty and not a PostgreSQL cluster",
                "Move it away, or set LINKBEAT_DATA_DIR to another directory",
            )
        self._say(f"Making a database cluster in {self.path}")
        fresh = self.path.with_name(self.path.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        give_to(self.account, fresh)
        password = secrets.token_hex(24)
        password_file = fresh.with_name(fresh.name + ".password")
        try:
            write_private(self.account, password_file, password + "\n")
            # The builtin provider gives C.UTF-8 on every host; before 17 plain C is what all have.
            builtin = ("--locale-provider=builtin", "--locale=C.UTF-8")
            locale = builtin if self._installation.major >= 17 else ("--locale=C",)
            self._run_program(
                "initdb",
                *("--pgdata", fresh, "--username", ROLE, "--pwfile", password_file, "--auth=scram-sha-256"),
                *("--encoding=UTF8", *locale, "--data-checksums" if durable else "--no-sync"),
            )
        finally:
            password_file.unlink(missing_ok=True)
        self._run_program("postgres", "--single", "-D", fresh, "postgres", typed=f"CREATE DATABASE {DATABASE};\n")
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\ninclude 'linkbeat.conf'\ninclude_if_exists 'local.conf'\n")
        write_private(self.account, fresh / "local.conf", "# Settings here come after Linkbeat's own and win.\n")
        write_private(self.account, fresh / "linkbeat.pgpass", f"127.0.0.1:*:*:{ROLE}:{password}\n")
        (fresh / "log").mkdir(mode=0o700)
        give_to(self.account, fresh / "log")
        if self.path.exists():
            self.path.rmdir()
        fresh.rename(self.path)

    def update_extension(self, port: int) -> None:
        """Bring every database that has an older TimescaleDB to the installed one; the server listens on `port`."""
        installed = self._installation.timescaledb_version
        if self.read("linkbeat.timescaledb").strip() == installed:
            return
        # The data's older library is not in this prefix: without disable_load the question itself fails.
        silent = {"PGOPTIONS": "-c timescaledb.disable_load=on"}
        for database in self._query(port, "SELECT datname FROM pg_database WHERE datallowconn", "postgres", silent):
            asked = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
            version = "".join(self._query(port, asked, database, silent))
            if version not in ("", installed):
                self._say(f"Updating TimescaleDB in database {database} from {version} to {installed}")
                self._query(port, "ALTER EXTENSION timescaledb UPDATE", database, {})
        self.write("linkbeat.timescaledb", installed + "\n")

    def log_tail(self) -> str:
        """The last lines of the server's newest log, after those from before the log existed."""
        logs = sorted((self.path / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        lines: list[str] = []
        for log in logs[-2:]:
            lines += log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join(lines)

    def failure(self, what: str) -> ClusterError:
        """The error to raise for `what`, with the end of the server's log."""
        return ClusterError(
            f"{what}\nThe end of the log in {self.path / 'log'}:\n{self.log_tail()}\n",
            "If the log does not tell you what to do, set LINKBEAT_DATABASE_URL or start Docker",
        )

    def _run_program(self, name: str, *arguments: str | Path, typed: str = "") -> str:
        done = run_as(self.account, [self._installation.program(name), *arguments], timeout=300, typed=typed)
        if done.returncode == 0:
            return done.stdout
        words = " / ".join(done.stderr.strip().splitlines()[-3:])
        if "No space left" in done.stderr:
            raise NoSpaceError(f"{name}: {words}", f"Free space where {self.path} is, or set LINKBEAT_DATA_DIR")
        raise ClusterError(f"{name} failed: {words}", "Set LINKBEAT_DATA_DIR to another directory, or start Docker")

    def _query(self, port: int, sql: str, database: str, environment: dict[str, str]) -> list[str]:
        done = run_as(
            self.account,
            [
                self._installation.program("psql"),
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                sql,
                self.conninfo(port, database),
            ],
            timeout=300,
            environment=environment,
        )
        if done.returncode != 0:
            raise self.failure(f"{sql!r} failed in database {database}: {done.stderr.strip()}")
        return done.stdout.splitlines()
