"""Lists of servers: filtered, sorted and paged."""

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from litestar.params import QueryParameter

from service.database.names import storable
from service.database.pool import Database
from service.http import cursor
from service.http.errors import Problem
from service.traffic.ranges import Moment

DEFAULT_INTERVAL_SECONDS = 30

Status = Literal["online", "offline"]
Sort = Literal["id", "hostname", "last_seen"]
Order = Literal["asc", "desc"]

StatusFilter = Annotated[Status | None, QueryParameter(description="Only servers in this state.")]
Search = Annotated[
    str | None,
    QueryParameter(description="Only servers whose id, hostname or display name contains this text.", max_length=255),
]
SortKey = Annotated[
    Sort,
    QueryParameter(
        description="Sort key. `last_seen` changes while servers report: sort by `id` to list each server exactly once."
    ),
]
Direction = Annotated[Order, QueryParameter(description="Sort direction.")]

# A page of small servers is one statement. A page of servers with 2,000 interfaces, a megabyte each, ends early.
ROWS_AT_ONCE = 101
PAGE_CHARACTERS = 4 << 20

# Published to clients; sql/function/online.sql has the rule, and a test compares the two numbers.
OFFLINE_AFTER_INTERVALS = 3
# For a row `s` with received_at and interval_seconds.
ONLINE = "linkbeat.is_online(s.received_at, s.interval_seconds)"
# Of the same row.
DISPLAY_NAME = "(SELECT l.display_name FROM linkbeat.server_labels l WHERE l.server_id = s.server_id)"
_SORTS: dict[Sort, str] = {"id": "s.server_id", "hostname": "s.hostname", "last_seen": "s.last_seen"}


async def page(
    database: Database,
    select: str,
    *,
    status: Status | None,
    search: str | None,
    tags: Sequence[str],
    sort: Sort,
    order: Order,
    limit: int,
    after: str | None,
) -> tuple[Sequence[asyncpg.Record], str | None]:
    """At most `limit` rows of `select`, and the cursor that continues after the last one, None at the end.

    Fewer if they are large: beyond its first ROWS_AT_ONCE, a page has little more than PAGE_CHARACTERS of text.

    tags    only servers that have all of these, or tags with these keys
    select  SQL up to its WHERE, from a relation `s` with server_id, hostname, last_seen and the columns of ONLINE

    Raises Problem (422) if `after` is not a cursor of this list.
    """
    conditions = ["true"]
    arguments: list[Any] = []
    if status is not None:
        conditions.append(ONLINE if status == "online" else f"NOT ({ONLINE})")
    if search:
        arguments.append(search.replace("\0", ""))
        conditions.append(
            "(strpos(lower(s.server_id), lower($1)) > 0 OR strpos(lower(s.hostname), lower($1)) > 0 "
            f"OR strpos(lower({DISPLAY_NAME}), lower($1)) > 0)"
        )
    if tags:
        arguments.append(tags)
        conditions.append(f"linkbeat.is_tagged(s.server_id, ${len(arguments)}::text[])")
    column = _SORTS[sort]
    sign = ">" if order == "asc" else "<"
    place: list[str] = []

    def go_on(value: Any, server_id: str) -> None:
        if not place:
            arguments.extend((value, server_id))
            place.append(f"({column}, s.server_id) {sign} (${len(arguments) - 1}, ${len(arguments)})")
        else:
            arguments[-2:] = value, server_id

    if after is not None:
        go_on(*_read_cursor(after, sort))
    rows: list[asyncpg.Record] = []
    wanted, size = min(limit + 1, ROWS_AT_ONCE), 0
    while True:
        found = await database.fetch(
            f"{select} WHERE {' AND '.join([*conditions, *place])} ORDER BY {column} {order}, s.server_id {order} "
            f"LIMIT ${len(arguments) + 1}",
            *arguments, wanted,
        )  # fmt: skip
        rows += found
        if len(found) < wanted or len(rows) > limit:
            return rows[:limit], _cursor(rows[limit - 1], sort) if len(rows) > limit else None
        size += sum(len(value) for row in found for value in row.values() if isinstance(value, str))
        if size > PAGE_CHARACTERS:
            return rows, _cursor(rows[-1], sort)
        go_on(_value(rows[-1], sort), rows[-1]["server_id"])
        # Twice as many as will probably fit: most servers are small.
        wanted = min(limit + 1 - len(rows), max(2 * (PAGE_CHARACTERS - size) * len(rows) // max(size, 1), 1))


def _cursor(row: asyncpg.Record, sort: Sort) -> str:
    return cursor.write(sort, _value(row, sort), row["server_id"])


def _value(row: asyncpg.Record, sort: Sort) -> Any:
    return row["server_id" if sort == "id" else sort]


def _read_cursor(after: str, sort: Sort) -> tuple[Any, str]:
    of, value, server_id = cursor.read(after, tuple[Sort, str, str])
    if of != sort:
        raise Problem.invalid("after", f"continues a list sorted by {of}, not {sort}")
    if sort != "last_seen":
        return storable(value), storable(server_id)
    try:
        return msgspec.convert(value, Moment).astimezone(UTC), storable(server_id)
    except (msgspec.MsgspecError, OverflowError) as raised:  # times in the years 1 and 9999 may not exist in UTC
        raise Problem.invalid("after", "is not the `next` of a page of this list") from raised
