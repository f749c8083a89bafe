"""Export: the history as a file of any size, in constant memory.

The database writes the lines, and the service passes them on unchanged. Each page is a separate statement that
continues after the last row of the previous one: no snapshot outlives a page, so that a long export does not delay
vacuum, and a client that reads slowly holds no connection and at most one page.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import asyncpg
import msgspec
from litestar import Router, get
from litestar.params import QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from service.access.identity import Caller
from service.database.names import names_of, storable, unknown_server, wanted_tags
from service.database.pool import Database
from service.database.series_links import Linked, SeriesLinks, series_asked_for
from service.http.conditional import accepts_gzip
from service.http.errors import Problem
from service.http.log_limit import limited
from service.http.parameters import MAX_NAMES, ServerNames, TagFilter
from service.http.problems import problems
from service.traffic.export_formats import Relation, Writer, gzipped, relation_of, writer_of
from service.traffic.ranges import moment, read_utc

EXPORTS_AT_ONCE = 3  # per process, each with at most one connection
PAGE_SECONDS = 60.0
TOKENS_AT_ONCE = 2  # per token: a slow client leaves one to the others
SENT_AT_ONCE = 64 << 10
SEND_SECONDS = 15.0  # a client that reads less than SENT_AT_ONCE in this time, 4 KiB per second, is disconnected
SERVERS_AT_ONCE = 256
RETRY_AFTER_SECONDS = 10

FormatName = Literal["csv", "json", "ndjson", "parquet"]
Bucket = Literal["raw", "1m", "15m", "1h", "1d"]
Moment = Annotated[str | None, moment("End of the half-open range, RFC 3339 with an offset.")]

_KNOWN = "SELECT server_id FROM servers WHERE server_id = ANY ($1::text[])"
_TAGGED = """
SELECT server_id FROM servers
WHERE ($1::text[] IS NULL OR server_id = ANY ($1)) AND linkbeat.is_tagged(server_id, $2::text[]) ORDER BY server_id
"""
# The series of a server with links, of which a part at least is read under that name.
_SERIES = """
SELECT DISTINCT interface_name FROM linked_traffic('1d', $1, '-infinity', 'infinity')
WHERE ($2::text[] IS NULL OR interface_name = ANY ($2)) AND interface_name >= $3 ORDER BY 1
"""
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
SUMS = "Linkbeat-Sums"  # header: JSON of Sum; at most so many of them
SUMS_AT_MOST = 50
_SERVERS = "SELECT server_id FROM servers WHERE server_id >= $1 AND server_id > $2 ORDER BY server_id LIMIT $3"


class Key(NamedTuple):
    """The position of a row, in the order of the file."""

    server_id: str
    interface_name: str
    time: datetime


class Selection(msgspec.Struct, frozen=True):
    """The rows to export, and their relation."""

    relation: Relation
    servers: list[str] | None
    interfaces: list[str] | None
    since: datetime | None
    until: datetime | None
    after: Key | None
    limit: int | None

    def page(
        self, first: str, last: str, after: Key | None, rows: int, linked: str | None = None
    ) -> tuple[str, list[Any]]:
        """SQL and arguments for the next rows of the servers from `first` to `last`.

        linked  an interface of the one server that these are, if the server has links
        """
        if linked is not None:
            return self._page_of_links(first, linked, after, rows)
        time = self.relation.time
        arguments: list[Any] = []

        def argument(value: Any) -> str:
            arguments.append(value)
            return f"${len(arguments)}"

        # In addition to the row comparison, its parts: compressed chunks are only filtered by server and interface.
        first = first if after is None else max(first, after.server_id)
        if first == last:
            conditions = [f"server_id = {argument(first)}"]
            if after is not None and after.server_id == first:
                conditions.append(f"interface_name >= {argument(after.interface_name)}")
        else:
            conditions = [f"server_id >= {argument(first)}", f"server_id <= {argument(last)}"]
        if self.interfaces is not None:
            conditions.append(f"interface_name = ANY ({argument(self.interfaces)}::text[])")
        if self.since is not None:
            conditions.append(f"{time} >= {argument(self.since)}")
        if self.until is not None:
            conditions.append(f"{time} < {argument(self.until)}")
        if after is not None:
            key = ", ".join(argument(part) for part in after)
            conditions.append(f"(server_id, interface_name, {time}) > ({key})")
        return (
            f"SELECT * FROM {self.relation.name} WHERE {' AND '.join(conditions)} "
            f"ORDER BY server_id, interface_name, {time} LIMIT {rows}"
        ), arguments

    def _page_of_links(self, server: str, interface: str, after: Key | None, rows: int) -> tuple[str, list[Any]]:
        """The same for one interface as its links say it is read. The function returns its rows at once: beginning at
        `after`, and with one interface at a time, a page does not read again what the pages before it had."""
        time = self.relation.time
        since = self.since or _EARLIEST
        if after is not None:
            since = max(since, after.time)
        level = self.relation.name.removeprefix("network_traffic_")
        source = (
            "linked_samples($1, $2, $3, $4)"
            if level == self.relation.name
            else f"linked_traffic('{level}', $1, $2, $3, $4)"
        )
        beyond = f"WHERE {time} > $5" if after is not None else ""
        return (
            f"SELECT * FROM {source} {beyond} ORDER BY {time} LIMIT {rows}",
            [server, since, self.until or _LATEST, interface, *([after.time] if after is not None else [])],
        )


class Exports:
    """The running exports of this process."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()  # by token

    @contextmanager
    def one_more(self, token_id: str) -> Iterator[None]:
        """Raises Problem (429) if too many are running. `token_id`: of the caller; "" is the fleet key."""
        if self._under_way.total() >= EXPORTS_AT_ONCE:
            raise Problem.retry(
                "too_many_exports",
                f"{EXPORTS_AT_ONCE} exports are already running in this process",
                RETRY_AFTER_SECONDS,
            )
        if token_id and self._under_way[token_id] >= TOKENS_AT_ONCE:
            raise Problem.retry(
                "too_many_exports", f"{TOKENS_AT_ONCE} exports with this token are already running", RETRY_AFTER_SECONDS
            )
        self._under_way[token_id] += 1
        try:
            yield
        finally:
            self._under_way -= Counter((token_id,))


def router(database: Database, links: SeriesLinks) -> Router:
    """GET /export/traffic."""
    exports = Exports()

    @get(
        "/traffic", summary="Export the history of traffic as a file", responses=problems(401, 404, 422, 429, 501, 503)
    )
    async def traffic(
        format: Annotated[FormatName, QueryParameter(description="File format.")] = "csv",  # noqa: A002 - its name in the URL
        bucket: Annotated[Bucket, QueryParameter(description="The aggregate to export; `raw`: every sample.")] = "15m",
        server: ServerNames = None,
        tag: TagFilter = None,
        interface: Annotated[
            list[str] | None,
            QueryParameter(description=f"Only interfaces with this name; may be repeated up to {MAX_NAMES} times."),
        ] = None,
        since: Moment = None,
        until: Moment = None,
        after: Annotated[
            str | None,
            QueryParameter(
                description="Continues after this row, the last one of another file: `server_id,time,interface_name`.",
                max_length=1000,
            ),
        ] = None,
        limit: Annotated[int | None, QueryParameter(ge=1, le=2**53, description="Maximum number of rows.")] = None,
    ) -> ASGIApp:
        """Rows are ordered by server, interface and time. An incomplete response lacks its last chunk, which every
        client reports as an error; `after` continues it."""
        servers, tags = list(names_of(server)) or None, wanted_tags(tag)
        selection = Selection(
            relation_of(bucket),
            await tagged(servers, tags) if tags else servers,
            list(names_of(interface, "interface")) or None,
            None if since is None else read_utc("since", since),
            None if until is None else read_utc("until", until),
            _read_key(after) if after is not None else None,
            limit,
        )
        writer = await writer_of(format, selection.relation)
        if selection.servers is not None and not tags:
            known = {row["server_id"] for row in await database.fetch(_KNOWN, selection.servers)}
            for one in selection.servers:
                if one not in known:
                    raise unknown_server(one)
        # Of the servers that are asked for and of the others alike: more may have links by the time that they are read.
        linked = await links.of(*(selection.servers or ()))
        if selection.servers is not None and len(selection.servers) == 1 and selection.interfaces is not None:
            names = sorted(
                {await series_asked_for(database, linked, selection.servers[0], name) for name in selection.interfaces}
            )
            selection = msgspec.structs.replace(selection, interfaces=names)
        reading = _Reading(database, selection, writer, linked)
        return _Answer(exports, reading, f"linkbeat-traffic-{bucket}.{format}")

    async def tagged(servers: list[str] | None, tags: list[str]) -> list[str]:
        """The servers with these tags, of those named or of all."""
        return [row["server_id"] for row in await database.fetch(_TAGGED, servers, tags)]

    return Router("/export", route_handlers=[traffic], tags=["export"])


class _Reading:
    """The parts of the file, each read on demand."""

    def __init__(self, database: Database, selection: Selection, writer: Writer, linked: Linked) -> None:
        self.writer = writer
        self.sums = linked.sums()
        self._linked = frozenset(linked.servers)
        self._database = database
        self._selection = selection
        self._rows = 0

    async def parts(self) -> AsyncIterator[bytes | bytearray]:
        """Raises Problem (503) while the database is unavailable."""
        if head := self.writer.head():
            yield head
        async for lines in self._pages():
            yield await self.writer.page(lines)
        if tail := await self.writer.tail():
            yield tail

    async def _pages(self) -> AsyncIterator[bytearray]:
        """The lines, as written by the database."""
        limit = self._selection.limit
        async for first, last, after, interface in self._parts_of_groups():
            position, rows = after, -1
            wanted = 0
            while rows == wanted or rows < 0:
                wanted = self.writer.page_rows if limit is None else min(self.writer.page_rows, limit - self._rows)
                if wanted == 0:
                    return
                statement, arguments = self._selection.page(first, last, position, wanted, interface)
                lines, rows = await self._database.copy(
                    self.writer.select(statement), *arguments, **self.writer.copy_options
                )
                if rows:
                    self._rows += rows
                    yield lines
                    server_id, name, time = self.writer.last_key(lines)
                    position = Key(server_id, name, _moment(time))

    async def _parts_of_groups(self) -> AsyncIterator[tuple[str, str, Key | None, str | None]]:
        """The groups, and of a server with links its interfaces one after the other."""
        async for first, last, after in self._groups():
            if first != last or first not in self._linked:
                yield first, last, after, None
                continue
            least = after.interface_name if after is not None else ""
            found = await self._database.fetch(_SERIES, first, self._selection.interfaces, least)
            for row in found:
                name = row["interface_name"]
                yield first, last, after if after is not None and after.interface_name == name else None, name

    async def _groups(self) -> AsyncIterator[tuple[str, str, Key | None]]:
        """Groups of servers, each read completely before the next, and the row to continue after.

        Servers with few rows share a statement: their number doubles until a statement returns half a page.
        """
        after = self._selection.after
        if self._selection.servers is not None:
            for one in self._selection.servers:
                if after is None or one >= after.server_id:
                    yield one, one, after if after is not None and one == after.server_id else None
            return
        least, before, many = after.server_id if after is not None else "", "", 1
        while found := await self._database.fetch(_SERVERS, least, before, many):
            # A server with links is a group of its own.
            names = [row["server_id"] for row in found]
            if self._linked and len(names) > 1:
                stop = next((place for place, name in enumerate(names) if name in self._linked), len(names))
                names = names[: max(stop, 1)]
            first, before, rows = names[0], names[-1], self._rows
            yield first, before, after
            after = None
            is_little = self._rows - rows < self.writer.page_rows // 2
            many = min(2 * many, SERVERS_AT_ONCE) if is_little else max(1, many // 2)


class _Answer:
    """A separate ASGI application, because only that can detect that the client has disconnected."""

    def __init__(self, exports: Exports, reading: _Reading, name: str) -> None:
        self._exports = exports
        self._reading = reading
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem only before anything has been sent."""
        caller: Caller = scope["auth"]
        with self._exports.one_more(caller.key):
            writing = asyncio.create_task(self._write(scope, send), name="linkbeat export")
            leaving = asyncio.create_task(_hung_up(receive), name="linkbeat export's client")
            try:
                await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if writing.done():
                    writing.result()
            finally:
                for task in (writing, leaving):
                    task.cancel()  # which cancels the running statement
                await asyncio.gather(writing, leaving, return_exceptions=True)

    async def _write(self, scope: Scope, send: Send) -> None:
        is_gzip = not self._reading.writer.is_compressed and accepts_gzip(scope)
        parts = self._reading.parts()
        pieces = gzipped(parts) if is_gzip else parts
        # Read the first rows before sending anything: an error up to here can still become an error response.
        waiting = [piece async for piece in _first(pieces)]
        headers = {
            "content-type": self._reading.writer.media_type,
            "content-disposition": f'attachment; filename="{self._name}"',
            "cache-control": "no-store",
            "vary": "accept-encoding",
            "x-accel-buffering": "no",
        } | ({"content-encoding": "gzip"} if is_gzip else {})
        if self._reading.sums:
            headers[SUMS.lower()] = json.dumps(msgspec.to_builtins(self._reading.sums[:SUMS_AT_MOST]))
        raw: Any = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            for piece in waiting:
                await _send(send, piece)
            waiting.clear()
            async for piece in pieces:
                await _send(send, piece)
        except (Problem, TimeoutError, asyncpg.PostgresError) as raised:
            # If the application returns early, the server closes the connection without the last chunk: no client takes
            # the part for the whole.
            name = type(raised).__name__
            limited(logging.WARNING, ("export", name), "export: aborted: %s: %s", name, raised)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _first(pieces: AsyncIterator[bytes | bytearray]) -> AsyncIterator[bytes | bytearray]:
    """The first two parts: the head needs no query."""
    for _ in range(2):
        if (piece := await anext(pieces, None)) is None:
            return
        yield piece


async def _send(send: Send, data: bytes | bytearray) -> None:
    """Splits the data, so that at most one piece waits for a client besides the buffer of its socket."""
    view = memoryview(data)
    for start in range(0, len(view), SENT_AT_ONCE):
        async with asyncio.timeout(SEND_SECONDS):
            await send(
                {"type": "http.response.body", "body": bytes(view[start : start + SENT_AT_ONCE]), "more_body": True}
            )


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _read_key(after: str) -> Key:
    """Raises Problem (422) if this is not the position of a row."""
    parts = after.split(",", 2)
    try:
        server_id, time, interface = parts
        moment = _moment(time)
    except (ValueError, OverflowError) as raised:
        raise Problem.invalid(
            "after", "expected the server_id,time,interface_name of a row, without quotes"
        ) from raised
    return Key(storable(server_id), storable(interface), moment)


def _moment(time: str) -> datetime:
    """The time of a row in any of the formats: UTC, with or without a zone. Raises ValueError or OverflowError."""
    moment = datetime.fromisoformat(time)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
