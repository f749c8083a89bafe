"""Lists of servers: filtered, in order, a page at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from litestar.params import QueryParameter
from msgspec import Meta

from service import cursor
from service.database import Database
from service.errors import Problem

DEFAULT_INTERVAL_SECONDS = 30

Status = Literal["online", "offline"]
Sort = Literal["id", "hostname", "last_seen"]
Order = Literal["asc", "desc"]

StatusFilter = Annotated[Status | None, QueryParameter(description="Only servers in this state.")]
Search = Annotated[
    str | None, QueryParameter(description="Only servers whose id or hostname contains this text.", max_length=255)
]
SortKey = Annotated[
    Sort,
    QueryParameter(
        description="Order of the answer. `last_seen` moves while servers report: page by `id` to see all once."
    ),
]
Direction = Annotated[Order, QueryParameter(description="Direction of the order.")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="Entries a page.")]
ServerFilter = Annotated[str | None, QueryParameter(description="Only this server.", max_length=255)]
Rows = Annotated[int, QueryParameter(ge=1, le=10_000, description="Rows a page.")]
# A name of 255 letters takes up to 1,360 characters of it.
After = Annotated[
    str | None,
    QueryParameter(description="`next` of the page before; all other parameters as they were.", max_length=4_000),
]

# Of a row `s` that has received_at and interval_seconds: online until three intervals pass without a heartbeat.
ONLINE = f"s.received_at > now() - 3 * coalesce(s.interval_seconds, {DEFAULT_INTERVAL_SECONDS}) * INTERVAL '1 second'"
_KNOWN = "SELECT 1 FROM servers WHERE server_id = $1"
_SORTS: dict[Sort, str] = {"id": "s.server_id", "hostname": "s.hostname", "last_seen": "s.last_seen"}


async def page(
    database: Database,
    select: str,
    *,
    status: Status | None,
    search: str | None,
    sort: Sort,
    order: Order,
    limit: int,
    after: str | None,
) -> tuple[Sequence[asyncpg.Record], str | None]:
    """At most `limit` rows of `select`, and the cursor that continues after the last of them, None at the end.

    select  SQL up to its WHERE, from a relation `s` that has server_id, hostname, last_seen and what ONLINE asks for

    Raises Problem (422) where `after` is not a cursor of this list.
    """
    conditions = ["true"]
    arguments: list[Any] = []
    if status is not None:
        conditions.append(ONLINE if status == "online" else f"NOT ({ONLINE})")
    if search:
        arguments.append(search.replace("\0", ""))
        conditions.append("(strpos(lower(s.server_id), lower($1)) > 0 OR strpos(lower(s.hostname), lower($1)) > 0)")
    column = _SORTS[sort]
    if after is not None:
        value, server_id = _read_cursor(after, sort)
        arguments += [value, server_id]
        sign = ">" if order == "asc" else "<"
        conditions.append(f"({column}, s.server_id) {sign} (${len(arguments) - 1}, ${len(arguments)})")
    arguments.append(limit + 1)
    rows = await database.fetch(
        f"{select} WHERE {' AND '.join(conditions)} ORDER BY {column} {order}, s.server_id {order} "
        f"LIMIT ${len(arguments)}",
        *arguments,
    )
    return rows[:limit], _cursor(rows[limit - 1], sort) if len(rows) > limit else None


def unknown_server(server_id: str) -> Problem:
    """404 for a server that never sent a heartbeat."""
    return Problem("unknown_server", f"no server {server_id!r} ever sent a heartbeat")


async def check_known(database: Database, server_id: str) -> None:
    """Raises Problem (404) for a server that never sent a heartbeat."""
    if not await database.fetch(_KNOWN, storable(server_id)):
        raise unknown_server(server_id)


def storable(name: str) -> str:
    """A name that PostgreSQL takes for a parameter: one with a NUL is nobody's."""
    return name.replace("\0", "\ufffd")


def _cursor(row: asyncpg.Record, sort: Sort) -> str:
    value = {"id": row["server_id"], "hostname": row["hostname"], "last_seen": row["last_seen"]}[sort]
    return cursor.write(sort, value, row["server_id"])


def _read_cursor(after: str, sort: Sort) -> tuple[Any, str]:
    of, value, server_id = cursor.read(after, tuple[Sort, str, str])
    if of != sort:
        raise Problem.invalid("after", f"continues a list sorted by {of}, not {sort}")
    if sort != "last_seen":
        return storable(value), storable(server_id)
    try:
        return msgspec.convert(value, Annotated[datetime, Meta(tz=True)]).astimezone(UTC), storable(server_id)
    except (msgspec.MsgspecError, OverflowError) as raised:  # years 1 and 9999 have moments that UTC has not
        raise Problem.invalid("after", "is not a `next` of this list") from raised
