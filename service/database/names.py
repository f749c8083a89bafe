"""Names of servers and interfaces: prepares them for statements, and checks that servers exist."""

from service.database.pool import Database
from service.http.errors import Problem
from service.http.parameters import MAX_NAMES, MAX_TAGS_WANTED

_KNOWN = "SELECT 1 FROM servers WHERE server_id = $1"
_CALLED = "SELECT linkbeat.series_called(of_server => $1, name => $2)"


def storable(name: str) -> str:
    """A name that PostgreSQL accepts as a parameter: a NUL, which no stored name contains, is replaced."""
    return name.replace("\0", "\ufffd")


def names_of(names: list[str] | None, parameter: str = "server") -> tuple[str, ...]:
    """The distinct names of a parameter, sorted. Raises Problem (422) for more than MAX_NAMES."""
    if names is not None and len(names) > MAX_NAMES:
        raise Problem.invalid(parameter, f"at most {MAX_NAMES} names are allowed, got {len(names)}")
    return tuple(sorted({storable(one) for one in names or ()}))


def wanted_tags(tags: list[str] | None) -> list[str]:
    """The distinct tags of a filter, sorted. Raises Problem (422) for more than MAX_TAGS_WANTED."""
    if tags and len(tags) > MAX_TAGS_WANTED:
        raise Problem.invalid("tag", f"at most {MAX_TAGS_WANTED} tags are allowed, got {len(tags)}")
    return sorted({storable(tag) for tag in tags or ()})


def unknown_server(server_id: str) -> Problem:
    """404 for a server that never sent a heartbeat."""
    return Problem("unknown_server", f"no server {server_id!r} ever sent a heartbeat")


async def series_called(database: Database, server_id: str, name: str) -> str | None:
    """The series of the interface with that display name, or that the system calls so now; None if a series itself has
    that name, or none."""
    ((found,),) = await database.fetch(_CALLED, storable(server_id), storable(name))
    return None if found is None else str(found)


async def check_known(database: Database, server_id: str) -> None:
    """Raises Problem (404) for a server that never sent a heartbeat."""
    if not await database.fetch(_KNOWN, storable(server_id)):
        raise unknown_server(server_id)
