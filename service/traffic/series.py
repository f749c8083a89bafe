"""Series from the database: a row for each, with its buckets in columns.

A row for each bucket would cost several times as much to transfer and decode. The time range is a literal in the
statement, so that one plan, which excludes the chunks outside it, serves every series until the next bucket begins:
planning would take longer than reading.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby, repeat
from operator import itemgetter
from struct import unpack
from typing import Annotated, Any, Literal, TypeVar

import asyncpg
import msgspec
from litestar.params import QueryParameter

from service.database.pool import Database
from service.database.series_links import Linked
from service.traffic.periods import Grid
from service.traffic.rates import rates

_PAIRS = """
WITH bucket AS ({buckets}) SELECT server_id, interface_name, {columns} FROM bucket GROUP BY 1, 2
"""
_IN_PAIRS = """
server_id = ANY ($1) AND interface_name = ANY ($2)
AND (server_id, interface_name) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
# The longest interval between heartbeats, the places of the buckets in the grid, and their values: as PostgreSQL sends
# them, one after the other. Of an array, asyncpg would decode each value on its own, which costs several times as much.
# No value is null, because string_agg would leave it out.
_PACKED = """
    max(interval_ms) AS interval_ms,
    string_agg(int4send(((date_part('epoch', start) - {first}) / {width})::integer), '') AS places,
    string_agg(int8send(rx_bytes), '') AS rx_bytes, string_agg(int8send(tx_bytes), '') AS tx_bytes,
    string_agg(float8send(rx_bps), '') AS rx_bps, string_agg(float8send(tx_bps), '') AS tx_bps
"""
_FORMATS = {"places": (4, "i"), "rx_bytes": (8, "q"), "tx_bytes": (8, "q"), "rx_bps": (8, "d"), "tx_bps": (8, "d")}

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
            buckets=buckets_of(buckets, _IN_PAIRS, "server_id, interface_name", source), columns=packed(buckets)
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


def buckets_of(buckets: Grid, where: str, series: str, rows: str | None = None, *, is_ordered: bool = False) -> str:
    """SQL for the buckets of the response: the aggregate's own, or several of them combined.

    rows        SQL for the rows instead of the aggregate's, of which there may be several for a bucket
    is_ordered  sorted by time; otherwise only those that are combined are, because the aggregate's own nearly are
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
        is_ordered = True
    return (
        f"SELECT {series}, start, rx_bytes, tx_bytes, interval_ms, {rates(f'{buckets.bucket_seconds * 1000}')} "
        f"FROM ({put_together}) AS b{' ORDER BY start' if is_ordered else ''}"
    )


def packed(buckets: Grid) -> str:
    """SQL for the columns of a series, for `unpacked`: the places of its buckets in the grid, and their values."""
    return _PACKED.format(first=f"{buckets.first.timestamp():.0f}", width=buckets.bucket_seconds)


def unpacked(row: asyncpg.Record, *columns: str) -> list[Sequence[Any]]:
    """These columns of a series, a value for each bucket; empty without buckets."""
    found: list[Sequence[Any]] = []
    for name in columns:
        size, letter = _FORMATS[name]
        values: bytes = row[name] or b""
        found.append(unpack(f">{len(values) // size}{letter}", values))
    return found


def points(series: Iterable[Sequence[Sequence[Any]]], buckets: Grid, fill: str, kind: type[P]) -> list[list[P]]:
    """The points of each series. There are thousands of them, so they are created without a line of Python for each.

    series   of each, the places of its buckets in the grid, and the columns of their values
    kind     the type of a point: constructed from its bucket's start, as text, and its values
    """
    made: list[list[P]] = []
    for columns in series:
        (places, *values), ordered = columns, sorted(columns[0])
        if ordered != list(places):  # nothing guarantees the order in which PostgreSQL aggregates
            in_order = itemgetter(*sorted(range(len(places)), key=places.__getitem__))
            values = [in_order(one) for one in values]
        starts = buckets.texts(ordered[-1] + 1 if ordered else 0)  # with those from clocks that are ahead
        found: list[P] = list(map(kind, map(starts.__getitem__, ordered), *values))
        if fill == "null":
            known = dict(zip(ordered, found, strict=True))
            found = [
                known.get(place) or kind(start, *repeat(None, len(values)))
                for place, start in enumerate(starts[: buckets.count])
            ]
        made.append(found)
    return made
