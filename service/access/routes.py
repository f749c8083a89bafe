"""The REST routes for tokens: create, list and revoke them, register servers, enrol agents."""

import logging
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.params import PathParameter, QueryParameter

from service.access.identity import MAY, Caller
from service.access.issue import (
    Created,
    Enrolling,
    NewEnrolment,
    NewServer,
    NewToken,
    create,
    create_enrolment,
    enrol,
    register,
)
from service.access.tokens import Hasher, Kind, Tokens
from service.database.audit import by
from service.database.names import storable
from service.database.pool import Database
from service.http.errors import Problem
from service.http.json_body import body
from service.http.parameters import Limit
from service.http.problems import problems

log = logging.getLogger("linkbeat")

REVOKE = "linkbeat.revoke_token($1) AS is_known"
LIST = """
SELECT token_id AS id, kind, server_id, name,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired'
            WHEN uses_left = 0 THEN 'spent' ELSE 'active' END AS state,
       created_at, expires_at, last_used_at, revoked_at, uses_left
FROM linkbeat.tokens
WHERE ($1::text IS NULL OR server_id = $1) AND ($2::text IS NULL OR kind = $2) AND token_id > $3
ORDER BY token_id LIMIT $4
"""


class SessionInfo(msgspec.Struct, frozen=True):
    """Who sends this request, and what they may do.

    via          token; session: a browser's cookie; proxy: a user that a proxy has signed in
    kind         of the token; key: the fleet key
    permissions  read, and admin: to change things
    """

    name: str
    via: Literal["token", "session", "proxy"]
    kind: Literal["key", "admin", "read"]
    permissions: list[Literal["read", "admin"]]


class TokenInfo(msgspec.Struct, frozen=True):
    """A token without its secret.

    server_id     for kind server: the server that it reports for
    state         spent: an enrolment token that has no uses left
    last_used_at  accurate to a few minutes; null: never used
    uses_left     for an enrolment token
    """

    id: str
    kind: Kind
    server_id: str | None
    name: str
    state: Literal["active", "expired", "revoked", "spent"]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    uses_left: int | None


class TokenPage(msgspec.Struct, frozen=True):
    """Tokens in order of their id; `next` continues after the last one, null at the end."""

    tokens: list[TokenInfo]
    next: str | None


def router(database: Database, writing: Database, tokens: Tokens, hasher: Hasher) -> Router:
    """/session, /tokens, /enrolments, POST /servers and /agents/enroll."""
    made = problems(400, 408, 413, 415, 422, 503)

    @get("/session", summary="Who you are, and what you may do", responses=problems(401, 503))
    async def session(request: Request[Any, Caller, Any]) -> SessionInfo:
        """For pages, which disable the controls that the user has no permission for."""
        caller = request.auth
        return SessionInfo(
            caller.name,
            "proxy" if caller.user else "session" if caller.is_session else "token",
            caller.kind,  # type: ignore[arg-type]  # the others may not read
            ["read", "admin"] if "admin" in MAY[caller.kind] else ["read"],
        )

    @post("/tokens", scope="admin", summary="Create a token", responses=made)
    async def create_token(request: Request[Any, Caller, Any]) -> Response[Created]:
        """The token is in this response and nowhere else. A third token for one server revokes the oldest."""
        new = await body(request, NewToken)
        return await issued(request, create(by(writing.fetch, request.auth.actor), hasher, new))

    @get("/tokens", scope="admin", summary="List tokens", responses=problems(422, 503))
    async def list_tokens(
        server_id: Annotated[str | None, QueryParameter(description="Only tokens of this server.")] = None,
        kind: Annotated[Kind | None, QueryParameter(description="Only tokens of this kind.")] = None,
        limit: Limit = 100,
        after: Annotated[str, QueryParameter(description="`next` of the previous page.", max_length=100)] = "",
    ) -> TokenPage:
        of_server = None if server_id is None else storable(server_id)
        rows = await database.fetch(LIST, of_server, kind, storable(after), limit + 1)
        found = [TokenInfo(**dict(row)) for row in rows[:limit]]
        return TokenPage(found, found[-1].id if len(rows) > limit else None)

    @delete("/tokens/{token_id:str}", scope="admin", summary="Revoke a token", responses=problems(404, 503))
    async def revoke_token(
        token_id: Annotated[str, PathParameter(description="The id, as in the list of tokens.")],
        request: Request[Any, Caller, Any],
    ) -> None:
        """Every process refuses the token within seconds."""
        (row,) = await by(writing.fetch, request.auth.actor)(REVOKE, storable(token_id))
        if not row["is_known"]:
            raise Problem("not_found", f"no token {token_id!r} exists")
        log.info("token %s revoked by %s from %s", storable(token_id)[:20], request.auth.name, request.auth.peer)
        await refresh()

    @post("/enrolments", scope="admin", summary="Create an enrolment token", responses=made)
    async def create_enrolment_token(request: Request[Any, Caller, Any]) -> Response[Created]:
        """Each of `uses` agents exchanges it for a token of its own at its first contact."""
        new = await body(request, NewEnrolment)
        return await issued(request, create_enrolment(by(writing.fetch, request.auth.actor), hasher, new))

    @post("/servers", scope="admin", summary="Register a server", responses=made | problems(409))
    async def register_server(request: Request[Any, Caller, Any]) -> Response[Created]:
        """Returns the server's token, once. Lists show the server from its first heartbeat on."""
        new = await body(request, NewServer)
        return await issued(request, register(by(writing.fetch, request.auth.actor), hasher, new))

    @post("/agents/enroll", scope="enrol", summary="Exchange an enrolment token", responses=made | problems(409))
    async def enroll(request: Request[Any, Caller, Any]) -> Response[Created]:
        """Takes an enrolment token as the bearer. 409: the server has a token, or may belong to another machine."""
        agent = await body(request, Enrolling)
        caller = request.auth
        enrolment = caller.token_id if caller.kind == "enrolment" else None
        return await issued(request, enrol(by(writing.fetch, caller.actor), hasher, agent, enrolment))

    async def issued(request: Request[Any, Caller, Any], making: Awaitable[Created]) -> Response[Created]:
        new = await making
        words = f"{new.kind} {new.server_id}" if new.server_id else new.kind
        log.info("token %s (%s) created by %s from %s", new.id, words, request.auth.name, request.auth.peer)
        await refresh()
        return Response(new, status_code=201, headers={"Cache-Control": "no-store"})

    async def refresh() -> None:
        with suppress(Problem):  # the change is committed: if this fails, this process sees it with its next poll
            await tokens.refresh()

    handlers = [session, create_token, list_tokens, revoke_token, create_enrolment_token, register_server, enroll]
    return Router("/", route_handlers=handlers, tags=["access"])
