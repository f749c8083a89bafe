"""Which database Linkbeat uses: the one it is told, else the one that has the data, else the first that works."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.directories import default_cache_dir
from service.embedded import docker, packages
from service.embedded.accounts import owner_of, require_roots_own
from service.embedded.cluster import Cluster
from service.embedded.handle import DatabaseHandle, Origin, named, of_cluster
from service.embedded.installation import Installation, on_host
from service.embedded.postmaster import command_of, find_postmaster
from service.embedded.problems import EmbeddedError, NoDatabase, PrefixError, UnreachableDirectoryError
from service.embedded.progress import Say
from service.embedded.remembered import NOTE, Kind, cluster_major, remember, remembered
from service.settings import Settings

_DOCKER_REMEDY = "Start Docker (or install it) and allow this user to use it"
_NOT_INSTALLED = "no TimescaleDB on this host"
_INSTALL_REMEDY = (
    "On Debian 13: apt install postgresql-17-timescaledb. "
    "Elsewhere: the TimescaleDB project's packages for PostgreSQL 17"
)


def choose_database(settings: Settings, say: Say) -> DatabaseHandle:
    """The database for the service: the one that has its data, and for a new data directory the first that works.

    In this order: LINKBEAT_DATABASE_URL; LINKBEAT_DATABASE; a cluster of the data directory that runs; the database
    that the data directory used last; and where there is none, Docker, the host's TimescaleDB, the embedded one.

    Raises NoDatabase: for a new data directory with every attempt and its remedy, for one with data saying where the
    data is. No empty database is ever put in the place of one that has data.
    """
    if settings.database_url:
        say("Database: the one that LINKBEAT_DATABASE_URL names")
        return named(settings.database_url, "LINKBEAT_DATABASE_URL")
    require_roots_own(settings.data_path)
    place = _Place(settings.data_path, settings.database_port or None, say)
    if settings.database:
        return _open_wanted(settings.database, place)
    last = _running_kind(place.data_dir) or remembered(place.data_dir)
    return _open_remembered(last, place) if last else _open_first(place)


@dataclass(frozen=True)
class _Place:
    """Where the data is, and how a cluster there is to be started."""

    data_dir: Path
    tcp_port: int | None
    say: Say


def _open_wanted(kind: Kind, place: _Place) -> DatabaseHandle:
    """The kind that LINKBEAT_DATABASE asks for, whichever was used before."""
    data_dir = place.data_dir
    try:
        before = remembered(data_dir)
    except UnreachableDirectoryError:  # the setting says what the note cannot
        before = None
    if before == kind:
        return _open_remembered(kind, place)
    why = f"LINKBEAT_DATABASE={kind}"
    try:
        handle = _open(kind, place, why)
    except EmbeddedError as error:
        raise NoDatabase(f"{why}: {error.what}", error.remedy) from error
    if before and "docker" in (before, kind):  # embedded and host share a cluster
        left = _whereabouts(before, data_dir)
        place.say(f"NOTE: changed from {before} to {kind}: what is in {left} is kept, and not read")
    return handle


def _open_remembered(kind: Kind, place: _Place) -> DatabaseHandle:
    """The database that has the data; where it is not to be had, the error says how to get at it."""
    data_dir = place.data_dir
    where = _whereabouts(kind, data_dir)
    if kind == "host":
        over = "or set LINKBEAT_DATABASE=embedded, which reads the same cluster where its versions are no older"
    else:
        other = "embedded" if kind == "docker" else "docker"
        over = f"or set LINKBEAT_DATABASE={other} to change over to an empty database; the data stays where it is"
    try:
        if kind != "docker" and cluster_major(data_dir) is None:
            raise NoDatabase("That directory holds no cluster", "Bring it back (a disk that is not mounted?)")
        runs = kind == "docker" and docker.docker_absence() is None
        if runs and not docker.Container(data_dir, place.say).has_volume:
            raise NoDatabase("Docker has no such volume", "Bring it back (another Docker host or context?)")
    except NoDatabase as error:
        note = data_dir / NOTE
        remedy = f"{error.remedy}, or remove {note} to start with an empty database"
        raise NoDatabase(f"The data of {data_dir} was kept in {where}. {error.what}", remedy) from error
    try:
        return _open(kind, place, "it has the data")
    except EmbeddedError as error:
        raise NoDatabase(
            f"The data of {data_dir} is in {where}, which cannot be opened: {error.what}",
            f"{error.remedy.removesuffix('.')}; {over}",
        ) from error


def _open_first(place: _Place) -> DatabaseHandle:
    """For a new data directory: what this machine has, else what Linkbeat brings along."""
    attempts = _Attempts(place.say)
    if absence := docker.docker_absence():
        attempts.pass_over("Docker", absence, _DOCKER_REMEDY)
    else:
        with attempts.tried("Docker"):
            return _open("docker", place, "Docker is running")
    if on_host() is None:
        attempts.pass_over("TimescaleDB on this host", _NOT_INSTALLED, _INSTALL_REMEDY)
    else:
        with attempts.tried("TimescaleDB on this host"):
            return _open("host", place, attempts.why)
    with attempts.tried("Embedded TimescaleDB"):
        return _open("embedded", place, attempts.why)
    raise attempts.exhausted("LINKBEAT_DATABASE_URL")


def _open(kind: Kind, place: _Place, why: str) -> DatabaseHandle:
    """Start a database of that kind, or use the one that runs, and note that it has the data from here on."""
    handle = _open_container(place, why) if kind == "docker" else _open_cluster(kind, place, why)
    try:
        remember(place.data_dir, kind)
    except BaseException:
        handle.close()
        raise
    return handle


def _open_container(place: _Place, why: str) -> DatabaseHandle:
    if absence := docker.docker_absence():
        raise docker.DockerError(absence, _DOCKER_REMEDY)
    container = docker.Container(place.data_dir, place.say)
    handle = DatabaseHandle(container.start(), "docker", container.psql, container.stop)
    place.say(f"Database: {docker.IMAGE} in Docker container and volume {container.name} ({why})")
    return handle


def _open_cluster(kind: Literal["embedded", "host"], place: _Place, why: str) -> DatabaseHandle:
    if kind == "host":
        major = cluster_major(place.data_dir)
        installation = on_host(major)
        if installation is None:
            reason = _NOT_INSTALLED if on_host() is None else f"the host's TimescaleDB is not for PostgreSQL {major}"
            raise PrefixError(reason, _INSTALL_REMEDY)
    else:
        installation = packages.prepare(default_cache_dir(), place.say)
    cluster = Cluster(installation, place.data_dir / "postgres", place.say, tcp_port=place.tcp_port)
    cluster.start()
    place.say(f"Database: {_versions(kind, installation)} in {cluster.data_dir} ({why})")
    return of_cluster(cluster, kind, cluster.stop)


def _running_kind(data_dir: Path) -> Kind | None:
    """Of the cluster that runs in the data directory; None if none does. Its clients must not be split up."""
    cluster_dir = data_dir / "postgres"
    running = find_postmaster(cluster_dir, owner_of(cluster_dir))
    if running is None:
        return None
    installed = on_host(cluster_major(data_dir))
    is_hosts = installed is not None and command_of(running.pid) == str(installed.program("postgres"))
    return "host" if is_hosts else "embedded"


def _whereabouts(kind: Kind, data_dir: Path) -> str:
    """Where a database of that kind has the data."""
    if kind == "docker":
        return f"Docker volume {docker.container_name(data_dir)}"
    whose = "the embedded" if kind == "embedded" else "the host's"
    return f"cluster {data_dir / 'postgres'} of {whose} TimescaleDB"


def choose_test_database(url: str | None, say: Say, *, durable: bool = False) -> DatabaseHandle:
    """The same order for tests; whatever is started is empty and thrown away afterwards.

    url       TEST_DATABASE_URL if it is set: a database on which the tests may do anything.
    durable   a commit is on the disk; slower, and figures of it mean something.
    """
    if url:
        say("Test database: the one that TEST_DATABASE_URL names")
        return named(url, "TEST_DATABASE_URL")
    attempts = _Attempts(say)
    if absence := docker.docker_absence():
        attempts.pass_over("Docker", absence, _DOCKER_REMEDY)
    else:
        with attempts.tried("Docker"):
            return _test_container(say)
    installed = on_host()
    if installed is None:
        attempts.pass_over("TimescaleDB on this host", _NOT_INSTALLED, _INSTALL_REMEDY)
    else:
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
        self._say(f"Database: skipped {step}: {reason.partition(chr(10))[0]}")
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
            f"Fix one of these problems, or set {variable}=postgresql://user:password@host/database",
        )


def _temporary_cluster(
    origin: Origin, installation: Installation, attempts: _Attempts, say: Say, durable: bool
) -> DatabaseHandle:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster.temporary(installation, say, durable=durable))
        say(f"Test database: {_versions(origin, installation)}, temporary ({attempts.why})")
        return of_cluster(cluster, origin, stack.pop_all().close)


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
    return named(f"postgresql://{role}:{role}@{address}/{role}", "docker", container.stop)


def _versions(origin: Origin, installation: Installation) -> str:
    """As in: embedded TimescaleDB 2.19.3 on PostgreSQL 17.11."""
    prefix = "embedded" if origin == "embedded" else "the host's"
    return f"{prefix} TimescaleDB {installation.timescaledb_version} on PostgreSQL {installation.postgres_version}"
