"""Series from the database: a row for each, with its buckets in arrays.

A row for each bucket would cost several times as much to transfer and decode. The time range is a literal in the
statement, so that one plan, which excludes the chunks outside it, serves every series until the next bucket begins:
planning would take longer than reading.
"""

from collections.abc import Sequence
from itertools import groupby, repeat
from typing import Annotated, Any, Literal, TypeVar

import asyncpg
import msgspec
from litestar.params import QueryParameter

from service.database.pool import Database
from service.database.series_links import Linked
from service.traffic.periods import Grid
from service.traffic.rates import rates

_PAIRS = """
WITH bucket AS ({buckets})
SELECT server_id, interface_name, {arrays} FROM bucket GROUP BY 1, 2 ORDER BY 1, 2
"""
_IN_PAIRS = """
server_id = ANY ($1) AND interface_name = ANY ($2)
AND (server_id, interface_name) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
# The longest interval between heartbeats, the places of the buckets in the grid, and their values.
_ARRAYS = """
    max(interval_ms) AS interval_ms, array_agg(((date_part('epoch', start) - {first}) / {width})::integer) AS places,
    array_agg(rx_bytes) AS rx_bytes, array_agg(tx_bytes) AS tx_bytes, array_agg(rx_bps) AS rx_bps,
    array_agg(tx_bps) AS tx_bps
"""

# Not an optional Literal["null"]: the framework would parse "null" as None.
Fill = Annotated[
    Literal["none", "null"],
    QueryParameter(description="`null`: the whole grid, with nulls where there are no samples. A gap is never 0."),
]

# The columns of a bucket's traffic and rates, and how several buckets are combined.
_MADE_OF = {
    "rx_bytes": "sum(rx_bytes)::bigint",
    "tx_bytes": "sum(tx_bytes)::bigint",
    "rx_bps_max": "max(rx_bps_max)",
    "tx_bps_max": "max(tx_bps_max)",
    "up_ms": "sum(up_ms)::bigint",
    "interval_ms": "min(interval_ms)",
}

COLUMNS = tuple(_MADE_OF)

P = TypeVar("P", bound=msgspec.Struct)


async def of_pairs(
    database: Database, buckets: Grid, pairs: Sequence[tuple[str, str]], linked: Linked
) -> Sequence[asyncpg.Record]:
    """The existing series of these servers and interfaces, sorted. Raises Problem (503)."""
    found: list[asyncpg.Record] = []
    with_links = frozenset(linked.servers)
    for is_linked in (False, True):
        some = [pair for pair in pairs if (pair[0] in with_links) is is_linked]
        if not some and (is_linked or pairs):
            continue
        source = linked.rows(buckets.period.relation, servers="$1", first=first_of(buckets)) if is_linked else None
        statement = _PAIRS.format(
            buckets=buckets_of(buckets, _IN_PAIRS, "server_id, interface_name", source), arrays=arrays_of(buckets)
        )
        found += await database.fetch(statement, [server_id for server_id, _ in some], [name for _, name in some])
    found.sort(key=lambda row: (row["server_id"], row["interface_name"]))
    return found


async def filled(
    database: Database, asked: Grid, rows: Sequence[asyncpg.Record], linked: Linked
) -> dict[Grid, Sequence[asyncpg.Record]]:
    """The series by their buckets: the requested ones, or wider ones that their server fills.

    rows    the series in the requested buckets, sorted by server

    Raises Problem (503).
    """
    series: dict[Grid, list[asyncpg.Record]] = {asked: []}
    for _, group in groupby(rows, key=lambda row: row["server_id"]):
        of_server = list(group)
        series.setdefault(asked.filled_by(interval_seconds(of_server)), []).extend(of_server)
    found: dict[Grid, Sequence[asyncpg.Record]] = {asked: series.pop(asked)}
    for wide, of_wide in series.items():
        pairs = [(row["server_id"], row["interface_name"]) for row in of_wide]
        found[wide] = await of_pairs(database, wide, pairs, linked)
    return found


def interval_seconds(rows: Sequence[asyncpg.Record]) -> float:
    """The longest interval between heartbeats in these series; 0.0 if they are empty."""
    return max((row["interval_ms"] or 0 for row in rows), default=0) / 1000


def first_of(buckets: Grid) -> str:
    """SQL for the start of the first bucket."""
    return f"TIMESTAMPTZ '{buckets.first.isoformat()}'"


def buckets_of(buckets: Grid, where: str, series: str, rows: str | None = None) -> str:
    """SQL for the buckets of the response in order of time: the aggregate's own, or several of them combined.

    rows  SQL for the rows instead of the aggregate's, of which there may be several for a bucket
    """
    source = f"FROM {rows or buckets.period.relation} WHERE {where} AND bucket >= {first_of(buckets)}"
    if buckets.bucket_seconds == buckets.period.base_seconds and rows is None:
        put_together = f"SELECT {series}, bucket AS start, {', '.join(_MADE_OF)} {source}"
    else:
        start = (
            f"time_bucket(INTERVAL '{buckets.bucket_seconds} seconds', bucket, "
            f"TIMESTAMPTZ '{buckets.first.isoformat()}')"
        )
        columns = ", ".join(f"{how} AS {name}" for name, how in _MADE_OF.items())
        put_together = f"SELECT {series}, {start} AS start, {columns} {source} GROUP BY {series}, start"
    return (
        f"SELECT {series}, start, rx_bytes, tx_bytes, interval_ms, {rates(f'{buckets.bucket_seconds * 1000}')} "
        f"FROM ({put_together}) AS b ORDER BY start"
    )


def arrays_of(buckets: Grid) -> str:
    """SQL for the columns of a series: the places of its buckets in the grid, and an array for each value."""
    return _ARRAYS.format(first=f"{buckets.first.timestamp():.0f}", width=buckets.bucket_seconds)


def points(
    series: Sequence[asyncpg.Record], buckets: Grid, fill: str, kind: type[P], columns: Sequence[str]
) -> list[list[P]]:
    """The points of each series. There are thousands of them, so they are created without a line of Python for each.

    series   rows with `places`, the places of the buckets in the grid, and an array for each of `columns`
    kind     the type of a point: constructed from its bucket's start and the columns
    """
    # The starts of all buckets, including those from clocks that are ahead.
    starts = buckets.starts(max((max(row["places"]) for row in series if row["places"]), default=0) + 1)
    made: list[list[P]] = []
    for row in series:
        places = row["places"] or []
        # array_agg does not guarantee the order of a subquery.
        order = None if places == sorted(places) else sorted(range(len(places)), key=places.__getitem__)
        values: list[Sequence[Any]] = [row[column] or () for column in columns]
        if order is not None:
            values = [[one[index] for index in order] for one in values]
            places = sorted(places)
        found: list[P] = list(map(kind, map(starts.__getitem__, places), *values))
        if fill == "null":
            known = dict(zip(places, found, strict=True))
            found = [
                known.get(place) or kind(start, *repeat(None, len(columns)))
                for place, start in enumerate(starts[: buckets.count])
            ]
        made.append(found)
    return made
