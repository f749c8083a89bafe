"""Links of series and other ids of servers: which servers have any, and the SQL that follows links
(sql/view/linked_traffic.sql)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from service.database.follow import PolledCache
from service.database.names import series_called, storable
from service.database.pool import Database

STALE_SECONDS = 5.0  # a read waits for a poll that has been due for so long

# All links and aliases in one statement if any has changed, otherwise one empty row.
CHANGED = """
SELECT i.links_revision AS revision, m.server_id, m.series, m.into_server_id, m.into_series,
       m.since = '-infinity' AND m.until = 'infinity' AS is_whole,
       EXISTS (SELECT FROM linkbeat.series_links l
               WHERE l.server_id = m.server_id AND l.series = m.series AND l.into_series = m.into_series
                 AND l.is_sum) AS is_sum,
       CASE WHEN i.links_revision <> $1 THEN (
           SELECT jsonb_object_agg(a.alias, a.server_id)::text FROM linkbeat.server_aliases a) END AS aliases
FROM linkbeat.installation i LEFT JOIN linkbeat.series_map m ON i.links_revision <> $1
"""
_LINKED = "SELECT linkbeat.linked_servers()"


class Sum(msgspec.Struct, frozen=True):
    """An interface whose traffic is the sum over `of`, also of samples of the same time: a link says `sum`."""

    server_id: str
    interface: str
    of: list[str]


Sums = list[Sum] | msgspec.UnsetType


class SeriesLinks(PolledCache):
    """A cache of which servers have links, at most STALE_SECONDS old.

    aliases  the server of each alias

    Whoever reads a server without links sends the statement that there would be if there were no links at all.
    """

    def __init__(self, database: Database, is_reachable: Callable[[], bool]) -> None:
        super().__init__(database, is_reachable, "links")
        self._revision = -1
        self._linked: frozenset[str] = frozenset()
        self._whole: dict[str, dict[str, str]] = {}
        self._sums: dict[str, list[Sum]] = {}
        self.aliases: Mapping[str, str] = {}

    @property
    def are_known(self) -> bool:
        """Waits for the first poll: before it, an alias would be a server of its own."""
        return self._revision >= 0

    async def take(self) -> None:
        rows = await self._database.fetch(CHANGED, self._revision)
        if not rows or rows[0]["revision"] == self._revision:
            return
        found = [row for row in rows if row["server_id"] is not None]
        self._linked = frozenset(row[name] for row in found for name in ("server_id", "into_server_id") if row[name])
        self._whole = {}
        for row in found:
            if row["is_whole"] and row["series"] and row["into_server_id"] == row["server_id"]:
                self._whole.setdefault(row["server_id"], {})[row["series"]] = row["into_series"]
        summed: dict[tuple[str, str], set[str]] = {}
        for row in found:
            if row["is_sum"]:
                summed.setdefault((row["into_server_id"], row["into_series"]), {row["into_series"]}).add(row["series"])
        self._sums = {}
        for (server_id, name), names in sorted(summed.items()):
            self._sums.setdefault(server_id, []).append(Sum(server_id, name, sorted(names)))
        self.aliases = msgspec.json.decode(rows[0]["aliases"] or "{}", type=dict[str, str])
        self._revision = rows[0]["revision"]

    async def of(self, *server_ids: str) -> "Linked":
        """The links that reads of these servers follow; without any name, of all. Raises Problem (503)."""
        await self.refresh_if_older(STALE_SECONDS)
        if not self._linked:
            return _NONE
        linked = [one for one in map(storable, server_ids) if one in self._linked] if server_ids else list(self._linked)
        if not linked:
            return _NONE
        sums = [found for one in sorted(linked) for found in self._sums.get(one, ())]
        whole = self._whole.get(linked[0], {}) if len(server_ids) == 1 else {}
        return Linked(self._revision, linked, sums, whole)


class Linked:
    """The links that one read follows; false: none.

    mark     for the key of a cached response: what it depends on beside the data
    servers  those with links, of the servers that are read
    """

    def __init__(self, revision: int, servers: Sequence[str], sums: Sequence[Sum], whole: Mapping[str, str]) -> None:
        self.servers = servers
        self.mark: tuple[Any, ...] = (("links", revision),) if servers else ()
        self._sums = sums
        self._whole = whole

    def __bool__(self) -> bool:
        return bool(self.servers)

    def series(self, name: str) -> str:
        """The series that a name asks for: the other one, if all samples of that name are linked into it."""
        return self._whole.get(name, name)

    def sums(self, interface: str | None = None) -> Sums:
        """For the response: those of one interface, or all; UNSET if there are none."""
        return [one for one in self._sums if interface in (None, one.interface)] or msgspec.UNSET

    def rows(
        self, relation: str, *, servers: str, first: str, last: str = "'infinity'", interface: str = "NULL"
    ) -> str:
        """SQL that stands in the place of an aggregate's name: its rows of the servers in the array `servers`, as their
        links say. There may be several for one bucket of a series. All arguments are SQL."""
        return f"linkbeat.linked_rows('{relation}', {servers}, {interface}, {first}, {last})"

    def rows_of_all(
        self, relation: str, columns: str, *, first: str, last: str = "'infinity'", servers: str | None = None
    ) -> str:
        """The same for servers with links and without. `servers`: a query for them; None: all."""
        among = f"r.server_id = ANY (ARRAY({servers})) AND " if servers else ""
        wanted = (
            f"SELECT l.server_id FROM ({servers}) AS l(server_id) WHERE l.server_id IN ({_LINKED})"
            if servers
            else _LINKED
        )
        with_links = self.rows(relation, servers=f"ARRAY({wanted})", first=first, last=last)
        return (
            f"(SELECT {columns} FROM {relation} r WHERE {among}r.bucket >= {first} AND r.bucket < {last} "
            f"AND r.server_id NOT IN ({_LINKED}) UNION ALL SELECT {columns} FROM {with_links}) AS {relation}"
        )


_NONE = Linked(-1, (), (), {})


async def series_asked_for(database: Database, linked: Linked, server_id: str, name: str) -> str:
    """The series that `interface=` names: a series, the display name of an interface, or its name in the system. If all
    samples of that series are linked into another one, it is that one."""
    known = storable(name)
    return linked.series(await series_called(database, server_id, known) or known)
