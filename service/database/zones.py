"""Time zones, checked by the database, because the database computes where a day begins."""

from service.database.pool import Database
from service.http.errors import Problem

# Only IANA names: PostgreSQL accepts anything that looks like a POSIX zone, "day1" for example.
_NAMES = "SELECT name FROM pg_timezone_names WHERE name !~ '^(posix|right|localtime|Factory|posixrules)'"


class Zones:
    """The known zones; queried once, because the server reads a file for each."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: frozenset[str] = frozenset()

    async def check(self, name: str) -> None:
        """Raises Problem (422) for an unknown zone."""
        if not self._names:
            self._names = frozenset(row["name"] for row in await self._database.fetch(_NAMES))
        if name not in self._names:
            raise Problem.invalid("time_zone", f"expected an IANA time zone such as Europe/Berlin, got {name!r}")
