"""A database that was chosen: how to reach it, watch over it, and let go of it."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from service.directories import default_cache_dir
from service.embedded import packages
from service.embedded.cluster import Cluster
from service.embedded.progress import Say
from service.embedded.watch import watched

Origin = Literal["LINKBEAT_DATABASE_URL", "TEST_DATABASE_URL", "docker", "host", "embedded"]

_SECRET_PARAMETERS = ("password", "sslpassword")


class DatabaseHandle:
    """A database that accepts connections; close() or the end of a `with` releases what was started for it.

    url               for asyncpg and psql; may hold a password, so not for logs or arguments.
    psql              the command that opens an interactive session on it; None if there is no psql.
    psql_environment  that the command needs besides: the password is in it, which `ps` shows to nobody.
    """

    def __init__(
        self,
        url: str,
        origin: Origin,
        psql: list[str] | None,
        release: Callable[[], None],
        *,
        psql_environment: dict[str, str] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.url = url
        self.origin: Origin = origin
        self.psql = psql
        self.psql_environment = psql_environment or {}
        self._release = release
        self._cluster = cluster

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def watched(self, say: Say, give_up: Callable[[str], None]) -> Iterator[None]:
        """Within the block, a server of ours that dies is started again (watch.py); others' is theirs to watch."""
        with watched(self._cluster, say, give_up) if self._cluster else contextlib.nullcontext():
            yield

    def close(self) -> None:
        """Stop the server if it was started for us. A second call does nothing."""
        release, self._release = self._release, _nothing
        release()


def of_cluster(cluster: Cluster, origin: Origin, release: Callable[[], None]) -> DatabaseHandle:
    """A cluster of ours that has been started."""
    return DatabaseHandle(
        cluster.url, origin, cluster.psql, release, psql_environment=cluster.psql_environment, cluster=cluster
    )


def named(url: str, origin: Origin, release: Callable[[], None] | None = None) -> DatabaseHandle:
    """A database that is known by its URL, with the host's psql, else the one of a prefix that is there already."""
    program = shutil.which("psql")
    if program is None and (prefix := packages.find(default_cache_dir())):
        program = str(prefix.program("psql"))
    shown, password = without_password(url)
    environment = {"PGPASSWORD": password} if password else {}
    if "," in shown:
        # Of several hosts, the one that the service writes to; libpq gives each its own time, and by itself no end.
        environment |= {"PGTARGETSESSIONATTRS": "primary", "PGCONNECT_TIMEOUT": "3"}
    psql = [program, shown] if program else None
    return DatabaseHandle(url, origin, psql, release or _nothing, psql_environment=environment)


def without_password(url: str) -> tuple[str, str]:
    """The URL that may stand in a list of processes, and the password that stood in it ("" for none)."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    query = [one.partition("=") for one in parts.query.split("&") if one]
    kept = "&".join("".join(one) for one in query if one[0] not in _SECRET_PARAMETERS)
    given = [value for name, _, value in query if name == "password"]  # libpq: the last one counts
    shown = urlunsplit(parts._replace(netloc=f"{user}{at}{host}", query=kept))
    return shown, unquote([password, *given][-1])


def _nothing() -> None:
    """Release of a database that was there before us."""
