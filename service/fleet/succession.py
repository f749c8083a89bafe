"""Servers that replaced other servers: what an administrator says of a replaced machine (docs/names.md)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import asyncpg
import msgspec
from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import FromPath
from msgspec import Meta

from service.access.identity import Caller
from service.cache import Answers
from service.database.audit import by
from service.database.names import check_known, storable, unknown_server
from service.database.pool import Database
from service.database.series_links import SeriesLinks
from service.fleet.linking import FIRST, LAST, utc
from service.http.conditional import seen_version, version_header
from service.http.errors import Problem
from service.http.json_body import body
from service.http.problems import problems

_STORED = """
SELECT k.server_id, p.predecessor_id AS predecessor, p.since, n.server_id AS successor, n.since AS until,
       linkbeat.version_of(CASE WHEN p.server_id IS NOT NULL THEN linkbeat.succession_json(p) END) AS version
FROM servers k
LEFT JOIN linkbeat.successions p USING (server_id)
LEFT JOIN linkbeat.successions n ON n.predecessor_id = k.server_id
WHERE k.server_id = $1
"""
_SUGGESTED = "SELECT predecessor, since, gone_at, evidence FROM linkbeat.predecessor_suggestions($1)"
_SET = "linkbeat.set_predecessor(of_server => $1, new_predecessor => $2, new_since => $3, seen => $4)::text AS known"
_PREVIEW = "linkbeat.preview_predecessor(of_server => $1, new_predecessor => $2, new_since => $3)::text AS known"
_UNKNOWN, _REPLACED, _ORDER = "LB404", "LB409", "LB411"  # sql/function/successions.sql


class NewSuccession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says that a server replaced another one, whose samples before `since` continue as its own."""

    predecessor: Annotated[str, Meta(min_length=1, max_length=255, description="The server that was replaced.")]
    since: Annotated[datetime, Meta(tz=True, description="From when on the samples of the new server count.")]


class Succession(msgspec.Struct, frozen=True):
    """Which server a server replaced, and which one replaced it: its own samples in [since, until) count.

    predecessor, since  null: it replaced none
    successor, until    null: none replaced it
    """

    server_id: str
    predecessor: str | None
    since: datetime | None
    successor: str | None
    until: datetime | None


class SuggestedPredecessor(msgspec.Struct, frozen=True):
    """A server that this one may have replaced. Nothing is set.

    since     when this server appeared; gone_at: when the other one was last heard
    evidence  what both have: server_guid, permanent_address (of hardware)
    """

    predecessor: str
    since: datetime
    gone_at: datetime
    evidence: list[Literal["server_guid", "permanent_address"]]


class Suggestions(msgspec.Struct, frozen=True):
    """Servers that a server may have replaced, the likeliest first; none if it is said which one it replaced."""

    server_id: str
    suggestions: list[SuggestedPredecessor]


class ServerTotal(msgspec.Struct, frozen=True):
    """All retained traffic that is read as a server's, each byte once, and its samples."""

    server_id: str
    rx_bytes: int
    tx_bytes: int
    samples: int


class SuccessionPreview(msgspec.Struct, frozen=True):
    """What a succession would do: the totals of the predecessor and of the server before and after.

    What the sum after it lacks is the traffic of the server before `since`, which does not count.
    """

    before: list[ServerTotal]
    after: list[ServerTotal]


def router(database: Database, writing: Database, answers: Answers, links: SeriesLinks) -> Router:
    """/servers/{server_id}/succession."""

    async def stored(server_id: str) -> Response[Succession]:
        rows = await database.fetch(_STORED, storable(server_id))
        if not rows:
            raise unknown_server(server_id)
        *found, version = rows[0]
        return Response(Succession(*found), headers=version_header(version))

    async def call(request: Request[Any, Caller, Any], server_id: str, function: str, *arguments: Any) -> Any:
        """The value of a function. Raises Problem (404, 409, 412, 422)."""
        known, *others = storable(server_id), *arguments
        try:
            (row,) = await by(writing.fetch, request.auth.actor)(function, known, *others)
        except asyncpg.PostgresError as raised:
            raise _problem(raised, others[0]) from None
        if row["known"] in (None, "false"):
            raise unknown_server(server_id)
        return row["known"]

    async def changed(*server_ids: str) -> None:
        """The next response of this process follows the change."""
        await links.refresh()
        answers.forget(list(server_ids))

    @get(
        "/", summary="Get which server a server replaced, and which one replaced it", responses=problems(401, 404, 503)
    )
    async def get_succession(server_id: FromPath[str]) -> Response[Succession]:
        """Its ETag is the version for If-Match."""
        return await stored(server_id)

    @put(
        "/",
        summary="Say that a server replaced another one",
        responses=problems(400, 401, 404, 408, 409, 412, 413, 415, 422, 503),
    )
    async def put_succession(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> Response[Succession]:
        """Nothing stored changes: reads of the server continue the predecessor's traffic until this is deleted. A
        server without a quota gets its predecessor's. With If-Match, replaces only that version; with
        If-None-Match: *, only if it replaced none."""
        new = await _checked(server_id, request, links.aliases)
        await call(request, server_id, _SET, storable(new.predecessor), new.since, seen_version(request))
        await changed(server_id, new.predecessor)
        return await stored(server_id)

    @post(
        "/preview",
        status_code=200,
        summary="Totals before and after a succession",
        responses=problems(400, 401, 404, 408, 409, 413, 415, 422, 503),
    )
    async def preview_succession(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> SuccessionPreview:
        """Changes nothing. Errors are those of the succession itself."""
        new = await _checked(server_id, request, links.aliases)
        found = await call(request, server_id, _PREVIEW, storable(new.predecessor), new.since)
        return msgspec.json.decode(found, type=SuccessionPreview)

    @get("/suggestions", summary="Servers that a server may have replaced", responses=problems(401, 404, 503))
    async def suggest_predecessors(server_id: FromPath[str]) -> Suggestions:
        """Those that fell silent before it appeared, and share its GUID or hardware."""
        known = storable(server_id)
        await check_known(database, known)
        rows = await database.fetch(_SUGGESTED, known)
        return Suggestions(server_id, [SuggestedPredecessor(*row) for row in rows])

    @delete("/", summary="Say that a server replaced none", responses=problems(401, 404, 412, 422, 503))
    async def delete_succession(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> None:
        """Responses are again as they were before."""
        await call(request, server_id, _SET, None, None, seen_version(request))
        await changed(server_id)

    return Router(
        "/servers/{server_id:str}/succession",
        route_handlers=[get_succession, put_succession, preview_succession, suggest_predecessors, delete_succession],
        tags=["servers"],
    )


async def _checked(server_id: str, request: Request[Any, Caller, Any], aliases: Mapping[str, str]) -> NewSuccession:
    """The body, with the server's own id. Raises Problem (400, 408, 413, 415, 422)."""
    new = await body(request, NewSuccession)
    new = msgspec.structs.replace(new, predecessor=aliases.get(new.predecessor, new.predecessor))
    if new.predecessor == server_id:
        raise Problem.invalid("predecessor", "expected another server than this one")
    if not FIRST <= new.since <= LAST:
        raise Problem.invalid("since", "expected a time between the years 2000 and 2200")
    return new


def _problem(raised: asyncpg.PostgresError, predecessor: str) -> Exception:
    if raised.sqlstate == _UNKNOWN:
        return Problem.invalid("predecessor", f"there is no server {predecessor!r}")
    if raised.sqlstate == _REPLACED:
        return Problem(
            "replaced", f"server {raised.detail!r} has already replaced {predecessor!r}: remove that succession first"
        )
    if raised.sqlstate == _ORDER:
        fits = msgspec.json.decode(raised.detail or "", type=_Fits)
        if fits.after is not None and fits.before is not None and fits.after >= fits.before:
            return Problem.invalid("predecessor", f"this server, or one after it, was replaced by {predecessor!r}")
        bounds = [
            f"{word} {utc(moment)}" for word, moment in (("after", fits.after), ("before", fits.before)) if moment
        ]
        return Problem.invalid("since", f"expected a time {' and '.join(bounds)}, because of other successions")
    return raised


class _Fits(msgspec.Struct, frozen=True):
    """Between which times a succession has to be; None: there is no bound."""

    after: datetime | None
    before: datetime | None
