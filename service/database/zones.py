"""Time zones, as the database knows them: it is the database that says where a day begins."""

from service.database.pool import Database
from service.http.errors import Problem

# The names of IANA alone: PostgreSQL takes anything for a zone that looks like one of POSIX, "day1" among them.
_NAMES = "SELECT name FROM pg_timezone_names WHERE name !~ '^(posix|right|localtime|Factory|posixrules)'"


class Zones:
    """The zones that there are; asked for once, because the server reads a file for each."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: frozenset[str] = frozenset()

    async def check(self, name: str) -> None:
        """Raises Problem (422) where there is no such zone."""
        if not self._names:
            self._names = frozenset(row["name"] for row in await self._database.fetch(_NAMES))
        if name not in self._names:
            raise Problem.invalid("time_zone", f"expected an IANA time zone such as Europe/Berlin, got {name!r}")
