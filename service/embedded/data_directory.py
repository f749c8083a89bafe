"""A cluster's files: made at first, checked at every start, updated with TimescaleDB.

<data_dir>              the cluster (0700, owned by the account that runs the server)
<data_dir>/linkbeat.*   conf: our settings; pgpass: the generated password; timescaledb: its version
<data_dir>/local.conf   settings of the machine's owner, if there are any
"""

import os
import secrets
import shutil
import stat
from pathlib import Path

from service.embedded.accounts import (
    SHARED,
    account_name,
    give_to,
    own_account,
    read_as,
    require_access,
    require_roots_own,
    run_as,
    server_account,
)
from service.embedded.debian import numbers
from service.embedded.installation import Installation
from service.embedded.ownership import change_owner
from service.embedded.places import make_enterable, open_lock, write_private
from service.embedded.problems import ClusterError, NoSpaceError, UnreachableDirectoryError
from service.embedded.progress import Say

ROLE = DATABASE = "linkbeat"

# A reader never sees half a file; a full disk, or a power failure, leaves the old one as it is.
_WRITE = 'cat >"$0.tmp" && sync "$0.tmp" && mv -f "$0.tmp" "$0"'
# Of the last start: what stands before "starting PostgreSQL" an earlier one said.
_STARTING = "starting PostgreSQL"
_LOG_LINES = 20


class DataDirectory:
    """The directory of one cluster and what of it can be done without being its server's owner.

    Programs that run as `account` read and write everything within it (accounts.py says why). This process makes files
    only next to it, in a directory that no other account can write.
    """

    def __init__(self, installation: Installation, path: Path, say: Say) -> None:
        self.path = path.absolute()
        self.account = server_account(self.path)
        self._installation = installation
        self._say = say

    @property
    def exists(self) -> bool:
        """Whether there is a cluster; it is moved here only when it is whole."""
        return self.read("PG_VERSION") != ""

    @property
    def lock_path(self) -> Path:
        """Beside the cluster, because initdb wants an empty directory."""
        return self.path.with_name(self.path.name + ".lock")

    @property
    def password(self) -> str:
        """The generated password of the role linkbeat. Raises ClusterError if it is not to be read."""
        password = self.read("linkbeat.pgpass").partition("\n")[0].rpartition(":")[2]
        if not password:
            raise ClusterError(
                f"{self.path / 'linkbeat.pgpass'} holds no password, or cannot be read", "Restore it from a backup"
            )
        return password

    def write(self, name: str, text: str) -> None:
        """Write a file of ours into the cluster, whole or not at all. Raises NoSpaceError, ClusterError."""
        if self.read(name) == text:
            return
        done = run_as(self.account, ["sh", "-c", _WRITE, self.path / name], timeout=30, typed=text)
        if "No space left" in done.stderr or "quota exceeded" in done.stderr:
            raise NoSpaceError(f"{self.path / name} cannot be written: {done.stderr.strip()}", self._space_remedy)
        if done.returncode != 0:
            raise ClusterError(f"{self.path / name} cannot be written: {done.stderr.strip()}", "Make it writable")

    def read(self, name: str) -> str:
        """A file of ours; "" if it is not there yet."""
        return read_as(self.account, self.path / name)

    def write_password_file(self, sockets: Path) -> None:
        """For tools that read a password file: the password by the socket and, where it listens there, by TCP."""
        password = self.password
        escaped = str(sockets).replace("\\", "\\\\").replace(":", "\\:")
        self.write("linkbeat.pgpass", "".join(f"{host}:*:*:{ROLE}:{password}\n" for host in ("127.0.0.1", escaped)))

    def open_lock(self) -> int:
        """A descriptor of the file that the server's owner locks."""
        return open_lock(self.lock_path)

    def check_access(self) -> None:
        """Make the parent directory and the lock; raises UnreachableDirectoryError if that is in vain."""
        parent = self.path.parent
        try:
            require_roots_own(parent)
            make_enterable(parent)
            os.close(self.open_lock())
        except OSError as error:
            raise UnreachableDirectoryError(
                f"{parent} cannot be written: {error.strerror}", "Set LINKBEAT_DATA_DIR to a directory of your own"
            ) from error
        require_access(self.account, parent, "Set LINKBEAT_DATA_DIR to a directory that every user may enter")
        require_access(self.account, self._installation.program("postgres"), "Make it readable for every user")
        owner = self._owner
        if owner is not None and owner not in self._expected_owners():
            raise UnreachableDirectoryError(
                f"{self.path} belongs to {account_name(owner)}",
                "Start Linkbeat as that user, or set LINKBEAT_DATA_DIR to another directory",
            )

    def leave_shared_account(self) -> None:
        """Make the cluster that an earlier version ran as `postgres` or `nobody` one of Linkbeat's own account.

        With no server running. Other programs run as those accounts, and whoever breaks into one has the database.
        """
        if self.account is None or self.account.name not in SHARED or self._owner != self.account.uid:
            return
        own = own_account()
        self._say(f"The cluster in {self.path} belongs to the account {self.account.name}: giving it to {own.name}")
        change_owner(self.path, self.account, own)
        self.account = own

    @property
    def _owner(self) -> int | None:
        """Who owns the directory; None if there is none. Raises UnreachableDirectoryError for something else."""
        try:
            found = self.path.stat()  # a link is its owner's business: it lies in a directory that is ours alone
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            raise UnreachableDirectoryError(f"{self.path} is not a directory", "Move it away")
        return found.st_uid

    def _expected_owners(self) -> set[int]:
        if self.account is None:
            return {os.geteuid()}
        return {0, own_account().uid} | ({self.account.uid} if self.account.name in SHARED else set())

    @property
    def _space_remedy(self) -> str:
        return f"Free space where {self.path} is, or set LINKBEAT_DATA_DIR"

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
        if not self._is_empty():
            raise ClusterError(
                f"{self.path} is not empty and not a PostgreSQL cluster",
                "Move it away, or set LINKBEAT_DATA_DIR to another directory",
            )
        self._say(f"Creating a database cluster in {self.path}")
        fresh = self.path.with_name(self.path.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)  # by descriptors: it follows no link
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
        files = DataDirectory(self._installation, fresh, self._say)
        included = "\ninclude 'linkbeat.conf'\ninclude_if_exists 'local.conf'\n"
        files.write("postgresql.conf", files.read("postgresql.conf") + included)
        files.write("local.conf", "# Settings in this file override Linkbeat's own.\n")
        files.write("linkbeat.pgpass", f"127.0.0.1:*:*:{ROLE}:{password}\n")
        run_as(self.account, ["mkdir", fresh / "log"], timeout=10)
        if self.path.exists():
            self.path.rmdir()
        fresh.rename(self.path)

    def _is_empty(self) -> bool:
        if not self.path.exists():
            return True
        account = None if self._owner == 0 else self.account
        listing = run_as(account, ["ls", "-A", self.path], timeout=10)
        return listing.returncode == 0 and not listing.stdout

    def update_extension(self, sockets: Path, port: int) -> None:
        """Bring every database that has an older TimescaleDB to the installed one; the server is ready."""
        installed = self._installation.timescaledb_version
        if self.read("linkbeat.timescaledb").strip() == installed:
            return
        # The data's older library is not in this prefix: without disable_load the question itself fails.
        silent = {"PGOPTIONS": "-c timescaledb.disable_load=on"}
        session = (sockets, port)
        for database in self._query(session, "SELECT datname FROM pg_database WHERE datallowconn", "postgres", silent):
            asked = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
            version = "".join(self._query(session, asked, database, silent))
            if version not in ("", installed):
                self._say(f"Updating TimescaleDB in database {database} from {version} to {installed}")
                self._query(session, "ALTER EXTENSION timescaledb UPDATE", database, {})
        self.write("linkbeat.timescaledb", installed + "\n")

    def log_tail(self) -> str:
        """The last lines that the server wrote since its last start, those from before its log existed first."""
        newest = (
            'cd "$0" && ls -tr *.log | tail -n 2 | while read -r log; do echo "==> $log"; tail -n "$1" "$log"; done'
        )
        done = run_as(self.account, ["sh", "-c", newest, self.path / "log", str(_LOG_LINES)], timeout=10)
        _, *logs = f"\n{done.stdout}".split("\n==> ")
        texts = {name: text for name, _, text in (log.partition("\n") for log in logs)}
        first = texts.pop("startup.log", "").strip()
        if "FATAL" in first:
            return first
        rest = "".join(texts.values())
        return "\n".join(filter(None, [first, rest[max(rest.rfind(_STARTING), 0) :].strip()]))

    def failure(self, what: str) -> ClusterError:
        """The error to raise for `what`, with the end of the server's log."""
        return ClusterError(
            f"{what}\nThe end of the log in {self.path / 'log'}:\n{self.log_tail()}\n",
            "If the log does not help, set LINKBEAT_DATABASE_URL or start Docker",
        )

    def _run_program(self, name: str, *arguments: str | Path, typed: str = "") -> str:
        done = run_as(self.account, [self._installation.program(name), *arguments], timeout=300, typed=typed)
        if done.returncode == 0:
            return done.stdout
        words = " / ".join(done.stderr.strip().splitlines()[-3:])
        if "No space left" in done.stderr:
            raise NoSpaceError(f"{name}: {words}", self._space_remedy)
        raise ClusterError(f"{name} failed: {words}", "Set LINKBEAT_DATA_DIR to another directory, or start Docker")

    def _query(self, session: tuple[Path, int], sql: str, database: str, environment: dict[str, str]) -> list[str]:
        """Rows of psql, which runs as the server's account; the password is in its environment, out of `ps`."""
        sockets, port = session
        done = run_as(
            self.account,
            [self._installation.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql],
            timeout=300,
            environment={
                "PGHOST": str(sockets),
                "PGPORT": str(port),
                "PGUSER": ROLE,
                "PGDATABASE": database,
                "PGPASSWORD": self.password,
                **environment,
            },
        )
        if done.returncode != 0:
            raise self.failure(f"{sql!r} failed in database {database}: {done.stderr.strip()}")
        return done.stdout.splitlines()
