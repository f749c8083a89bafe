"""Which database Linkbeat uses: the one it is told, else Docker's, else the host's, else its own."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from service.embedded import docker, packages
from service.embedded.cluster import Cluster
from service.embedded.installation import Installation, on_host
from service.embedded.places import default_cache_dir
from service.embedded.problems import EmbeddedError, NoDatabase
from service.embedded.progress import Say

Origin = Literal["LINKBEAT_DATABASE_URL", "TEST_DATABASE_URL", "docker", "host", "embedded"]

_INSTALL_REMEDY = (
    "On Debian 13: apt install postgresql-17-timescaledb. "
    "Elsewhere: the TimescaleDB project's packages for PostgreSQL 17"
)


class DatabaseHandle:
    """A database that accepts connections; close() or the end of a `with` releases what was started for it.

    url     for asyncpg and psql; may hold a password, so not for logs.
    psql    arguments that open an interactive session on it; None if there is no psql.
    """

    def __init__(self, url: str, origin: Origin, psql: list[str] | None, release: Callable[[], None]) -> None:
        self.url = url
        self.origin: Origin = origin
        self.psql = psql
        self._release = release

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server if it was started for us. A second call does nothing."""
        release, self._release = self._release, _nothing
        release()


def choose_database(url: str | None, data_dir: Path, say: Say) -> DatabaseHandle:
    """The database for the service, which keeps its data in `data_dir` unless it is elsewhere already.

    url     LINKBEAT_DATABASE_URL if it is set.

    Raises NoDatabase, whose message lists every attempt with its remedy.
    """
    if url:
        say("Database: the one that LINKBEAT_DATABASE_URL names")
        return DatabaseHandle(url, "LINKBEAT_DATABASE_URL", _psql_for(url), _nothing)
    attempts = _Attempts(say)
    if absence := docker.docker_absence():
        attempts.pass_over("Docker", absence, "Start Docker (or install it) and allow this user to use it")
    else:
        with attempts.tried("Docker"):
            container = docker.Container(data_dir, say)
            handle = DatabaseHandle(container.start(), "docker", container.psql, container.stop)
            say(f"Database: {docker.IMAGE} in Docker container and volume {container.name} (Docker is running)")
            _note_move(data_dir, "docker", say)
            return handle
    cluster_dir = data_dir / "postgres"
    if installed := _host_installation(cluster_dir, attempts):
        with attempts.tried("TimescaleDB on this host"):
            return _private_cluster("host", installed, data_dir, attempts, say)
    with attempts.tried("Embedded TimescaleDB"):
        return _private_cluster("embedded", packages.prepare(default_cache_dir(), say), data_dir, attempts, say)
    raise attempts.exhausted("LINKBEAT_DATABASE_URL")


def choose_test_database(url: str | None, say: Say, *, durable: bool = False) -> DatabaseHandle:
    """The same order for tests; whatever is started is empty and thrown away afterwards.

    url       TEST_DATABASE_URL if it is set: a database on which the tests may do anything.
    durable   a commit is on the disk; slower, and figures of it mean something.
    """
    if url:
        say("Test database: the one that TEST_DATABASE_URL names")
        return DatabaseHandle(url, "TEST_DATABASE_URL", _psql_for(url), _nothing)
    attempts = _Attempts(say)
    if absence := docker.docker_absence():
        attempts.pass_over("Docker", absence, "Start Docker (or install it) and allow this user to use it")
    else:
        with attempts.tried("Docker"):
            return _test_container(say)
    if installed := _host_installation(None, attempts):
        with attempts.tried("TimescaleDB on this host"):
            return _temporary_cluster("host", installed, attempts, say, durable)
    with attempts.tried("Embedded TimescaleDB"):
        return _temporary_cluster("embedded", packages.prepare(default_cache_dir(), say), attempts, say, durable)
    raise attempts.exhausted("TEST_DATABASE_URL")


class _Attempts:
    """What was tried before the choice, for its reason and for NoDatabase."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._reasons: list[str] = []
        self._remedies: list[str] = []

    def pass_over(self, step: str, reason: str, remedy: str) -> None:
        self._say(f"Database: {step} passed over: {reason.partition(chr(10))[0]}")
        self._reasons.append(reason)
        self._remedies.append(f"{step}: {reason}. {remedy}")

    @contextlib.contextmanager
    def tried(self, step: str) -> Iterator[None]:
        """Run one step; what makes it impossible is noted, and the next step's turn comes."""
        try:
            yield
        except EmbeddedError as error:
            self.pass_over(step, error.what, error.remedy)
        except OSError as error:
            # A full disk or a missing capability, met where no better words were at hand.
            self.pass_over(step, str(error), "Make that possible for this user")

    @property
    def why(self) -> str:
        """The reasons against the steps before, for one pair of parentheses."""
        return "; ".join(reason.partition("\n")[0] for reason in self._reasons) or "the first choice"

    def exhausted(self, variable: str) -> NoDatabase:
        steps = "".join(f"\n  - {line}" for line in self._remedies)
        return NoDatabase(
            f"No database could be found or started:{steps}\n  - {variable} is not set",
            f"Remove one of these obstacles, or set {variable}=postgresql://user:password@host/database",
        )


def _private_cluster(
    origin: Origin, installation: Installation, data_dir: Path, attempts: _Attempts, say: Say
) -> DatabaseHandle:
    cluster = Cluster(installation, data_dir / "postgres", say)
    cluster.start()
    say(f"Database: {_named(origin, installation)} in {cluster.data_dir} ({attempts.why})")
    _note_move(data_dir, "cluster", say)
    return DatabaseHandle(cluster.url, origin, cluster.psql, cluster.stop)


def _temporary_cluster(
    origin: Origin, installation: Installation, attempts: _Attempts, say: Say, durable: bool
) -> DatabaseHandle:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster.temporary(installation, say, durable=durable))
        say(f"Test database: {_named(origin, installation)}, temporary ({attempts.why})")
        return DatabaseHandle(cluster.url, origin, cluster.psql, stack.pop_all().close)


def _test_container(say: Say) -> DatabaseHandle:
    # A development dependency: the service itself must start without it.
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415
    from testcontainers.core.wait_strategies import ExecWaitStrategy  # noqa: PLC0415

    role = docker.ROLE
    container = DockerContainer(docker.IMAGE)
    container.with_env("POSTGRES_USER", role).with_env("POSTGRES_PASSWORD", role).with_env("POSTGRES_DB", role)
    container.with_exposed_ports(5432).with_command(["postgres", *docker.SERVER_OPTIONS])
    container.waiting_for(ExecWaitStrategy(["pg_isready", "-h", "127.0.0.1", "-U", role, "-d", role]))
    try:
        container.start()
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(5432)}"
    except Exception as error:  # testcontainers lets through what requests, docker and itself raise
        container.stop()
        raise docker.DockerError(f"testcontainers failed: {error}", f"Make `docker run {docker.IMAGE}` work") from error
    say(f"Test database: {docker.IMAGE} in a temporary Docker container (Docker is running)")
    url = f"postgresql://{role}:{role}@{address}/{role}"
    return DatabaseHandle(url, "docker", _psql_for(url), container.stop)


def _host_installation(cluster_dir: Path | None, attempts: _Attempts) -> Installation | None:
    """The host's TimescaleDB, of the version that an existing cluster belongs to."""
    major = None
    if cluster_dir is not None and (cluster_dir / "PG_VERSION").exists():
        major = int((cluster_dir / "PG_VERSION").read_text(encoding="ascii"))
    if found := on_host(major):
        return found
    reason = (
        "no TimescaleDB on this host" if on_host() is None else f"the host's TimescaleDB is not for PostgreSQL {major}"
    )
    attempts.pass_over("TimescaleDB on this host", reason, _INSTALL_REMEDY)
    return None


def _named(origin: Origin, installation: Installation) -> str:
    """As in: embedded TimescaleDB 2.19.3 on PostgreSQL 17.11."""
    prefix = "embedded" if origin == "embedded" else "the host's"
    return f"{prefix} TimescaleDB {installation.timescaledb_version} on PostgreSQL {installation.postgres_version}"


def _note_move(data_dir: Path, kind: str, say: Say) -> None:
    """Tell when the data of earlier runs lies elsewhere: a Docker that is off today looks like lost data."""
    note = data_dir / "database-kind"
    before = note.read_text(encoding="ascii").strip() if note.exists() else kind
    if before != kind:
        place = "Docker volume" if before == "docker" else f"cluster {data_dir / 'postgres'}"
        say(f"NOTE: the last run kept its data in its {place}, which this run does not read")
    note.write_text(kind + "\n", encoding="ascii")


def _psql_for(url: str) -> list[str] | None:
    """The host's psql, else the one of a prefix that is there already."""
    if on_path := shutil.which("psql"):
        return [on_path, url]
    prefix = packages.find(default_cache_dir())
    return [str(prefix.program("psql")), url] if prefix else None


def _nothing() -> None:
    """Release of a database that was there before us."""
