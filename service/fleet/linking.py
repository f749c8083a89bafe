"""Links of interfaces: what an administrator says of the past of a server (docs/names.md)."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath
from msgspec import Meta

from service.access.identity import Caller
from service.cache import Answers
from service.database.audit import Fetch, by
from service.database.names import check_known, storable, unknown_server
from service.database.pool import Database
from service.database.series_links import SeriesLinks
from service.http.errors import Problem
from service.http.json_body import body
from service.http.problems import problems

_LINKS = """
SELECT link_id AS id, interface_name AS interface, into_interface_name AS into, since, until, is_sum AS sum, created_at
FROM interface_links WHERE server_id = $1 AND ($2::bigint IS NULL OR link_id = $2) ORDER BY link_id
"""
_ARGUMENTS = "of_server => $1, of_series => $2, new_into => $3, from_time => $4, to_time => $5, as_sum => $6"
_ADD = f"linkbeat.add_link({_ARGUMENTS}) AS id"
_PREVIEW = f"linkbeat.preview_link({_ARGUMENTS})::text AS preview"
_DELETE = "linkbeat.delete_link(of_server => $1, number => $2) AS is_known"
_NO_SERIES, _LINKED, _OVERLAP = "LB404", "LB409", "LB410"  # sql/function/series_links.sql
_NUMBER = re.compile(r"[0-9]{1,18}")
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

Moment = Annotated[datetime, Meta(tz=True)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]


class NewLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says that samples of one interface, in [since, until), are samples of another one of the same server.

    interface     the series that disappeared; `into`: the one that continues it
    since, until  null: from the first sample; all later samples too
    sum           both may have samples at the same time, whose traffic is added; every response says so in `sums`
    """

    interface: Name
    into: Name
    since: Moment | None = None
    until: Moment | None = None
    sum: bool = False


class InterfaceLink(msgspec.Struct, frozen=True):
    """A link; the fields are those of NewLink."""

    id: int
    interface: str
    into: str
    since: datetime | None
    until: datetime | None
    sum: bool
    created_at: datetime


class InterfaceLinks(msgspec.Struct, frozen=True):
    """The links of a server, oldest first."""

    server_id: str
    links: list[InterfaceLink]


class LinkTotal(msgspec.Struct, frozen=True):
    """All retained traffic that is read as an interface's, and its samples."""

    interface: str
    rx_bytes: int
    tx_bytes: int
    samples: int


class Overlap(msgspec.Struct, frozen=True):
    """When both interfaces have samples at the same time: from the first to the last of these."""

    since: datetime
    until: datetime
    samples: int


class LinkPreview(msgspec.Struct, frozen=True):
    """What a link would do: the totals of both interfaces before and after. `overlap` null: none."""

    before: list[LinkTotal]
    after: list[LinkTotal]
    overlap: Overlap | None


def router(database: Database, writing: Database, answers: Answers, links: SeriesLinks) -> Router:
    """/servers/{server_id}/links."""

    async def stored(server_id: str, number: int | None = None) -> list[InterfaceLink]:
        return [InterfaceLink(**row) for row in await database.fetch(_LINKS, server_id, number)]

    async def call(request: Request[Any, Caller, Any], server_id: str, function: str) -> Any:
        """The value of a function with _ARGUMENTS. Raises Problem (404, 409, 422)."""
        new = await body(request, NewLink)
        _check(new)
        (row,) = await _refusals(
            by(writing.fetch, request.auth.actor), function, server_id, new.interface, new.into, new.since, new.until,
            new.sum,
        )  # fmt: skip
        if row[0] is None:
            raise unknown_server(server_id)
        return row[0]

    async def changed(server_id: str) -> None:
        """The next response of this process follows the change."""
        await links.refresh()
        answers.forget([server_id])

    @get("/", summary="Links of the interfaces of a server", responses=problems(401, 404, 503))
    async def list_links(server_id: FromPath[str]) -> InterfaceLinks:
        known = storable(server_id)
        await check_known(database, known)
        return InterfaceLinks(server_id, await stored(known))

    @post(
        "/",
        summary="Link an interface's past to another one",
        responses=problems(400, 401, 404, 408, 409, 413, 415, 422, 503),
    )
    async def add_link(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> Response[InterfaceLink]:
        """Nothing stored changes: every read follows the link, until it is deleted. 409 with the code `overlap` if both
        have samples at the same time, unless `sum` is true."""
        known = storable(server_id)
        number = await call(request, known, _ADD)
        await changed(known)
        (made,) = await stored(known, number)
        return Response(made, status_code=201)

    @post(
        "/preview",
        status_code=200,
        summary="Totals before and after a link",
        responses=problems(400, 401, 404, 408, 409, 413, 415, 422, 503),
    )
    async def preview_link(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> LinkPreview:
        """Changes nothing. Errors are those of the link itself."""
        return msgspec.json.decode(await call(request, storable(server_id), _PREVIEW), type=LinkPreview)

    @delete("/{link_id:str}", summary="Remove a link", responses=problems(401, 404, 503))
    async def delete_link(server_id: FromPath[str], link_id: FromPath[str], request: Request[Any, Caller, Any]) -> None:
        """Responses are again as they were before it."""
        known = storable(server_id)
        await check_known(database, known)
        number = int(link_id) if _NUMBER.fullmatch(link_id) else 0
        (row,) = await by(writing.fetch, request.auth.actor)(_DELETE, known, number)
        if not row["is_known"]:
            raise Problem("not_found", f"server {server_id!r} has no link {link_id!r}")
        await changed(known)

    return Router(
        "/servers/{server_id:str}/links",
        route_handlers=[list_links, add_link, preview_link, delete_link],
        tags=["servers"],
    )


def _check(new: NewLink) -> None:
    """Checks that the types do not cover. Raises Problem (422)."""
    if new.interface == new.into:
        raise Problem.invalid("into", "expected another interface than `interface`")
    for field in ("interface", "into"):
        if getattr(new, field).endswith("/*"):
            raise Problem.invalid(field, "expected an interface, not the sum over short-lived ones")
    for field in ("since", "until"):
        moment = getattr(new, field)
        if moment is not None and not FIRST <= moment <= LAST:
            raise Problem.invalid(field, "expected a time between the years 2000 and 2200")
    if new.since is not None and new.until is not None and new.since >= new.until:
        raise Problem.invalid("until", "expected a time after `since`")


async def _refusals(change: Fetch, function: str, server_id: str, *arguments: Any) -> list[asyncpg.Record]:
    """Calls a function, and turns its errors into problems. Raises Problem (404, 409)."""
    interface, into = (storable(name) for name in arguments[:2])
    try:
        return await change(function, server_id, interface, into, *arguments[2:])
    except asyncpg.PostgresError as raised:
        if raised.sqlstate == _NO_SERIES:
            field = "interface" if raised.detail == interface else "into"
            raise Problem.invalid(
                field, f"server {server_id!r} has no samples of an interface {raised.detail!r}"
            ) from None
        if raised.sqlstate == _LINKED:
            other = msgspec.json.decode(raised.detail or "")
            raise Problem(
                "linked",
                f"link {other['id']} reads {other['series']!r} as {other['into']!r} at that time: remove it first",
            ) from None
        if raised.sqlstate == _OVERLAP:
            overlap = msgspec.json.decode(raised.detail or "", type=Overlap)
            raise Problem(
                "overlap",
                f"{interface!r} and {into!r} both have samples from {utc(overlap.since)} to {utc(overlap.until)} "
                f"({overlap.samples} of each): limit the link to a time without them, or set `sum` to add them",
            ) from None
        raise


def utc(moment: datetime) -> str:
    """For people: in UTC, with a Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
