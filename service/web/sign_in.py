"""Signing in and out, only for the dashboard's own pages."""

import logging
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from msgspec import Meta

from service.access.ended_sessions import EndedSessions
from service.access.identity import Identity
from service.access.sessions import Sessions, check_same_origin
from service.http.body import content, read
from service.http.decode import decode
from service.http.log_limit import limited

MAX_BODY_BYTES = 4 << 10


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token, or a code that stands for the fleet key."""

    token: Annotated[str, Meta(max_length=1024)] = ""
    code: Annotated[str, Meta(max_length=256)] = ""

    def __repr__(self) -> str:
        """Omits the secret, because the text may be logged."""
        return "<sign-in>"


def handlers(sessions: Sessions, ended: EndedSessions, identity: Identity) -> list[Any]:
    """POST /sign-in and /sign-out."""

    @post("/sign-in", scope="open", include_in_schema=False)
    async def sign_in(request: Request[Any, Any, Any]) -> Response[None]:
        """204 and the cookie. A page of another origin cannot sign a browser in, not even with its own token."""
        check_same_origin(request.scope)
        content(request.scope, {b"application/json"})
        sent = decode(await read(request.scope, request.receive, MAX_BODY_BYTES, is_gzip=False), SignIn)
        code = sessions.of_code(sent.code)
        is_first_use = code is not None and await ended.end(code)
        caller = await identity.sign_in(request.scope, sent.token, is_code=is_first_use)
        limited(logging.INFO, ("sign-in", caller.name, caller.peer), "%s signed in from %s", caller.name, caller.peer)
        return _answer(sessions.set_cookie(request.scope, caller.token_id))

    @post("/sign-out", scope="open", include_in_schema=False)
    async def sign_out(request: Request[Any, Any, Any]) -> Response[None]:
        """Deletes the cookie; every process refuses the session within two seconds. 503: the session may still be
        valid."""
        check_same_origin(request.scope)
        if session := sessions.of(request.scope):
            await ended.end(session)
        return _answer(sessions.clear_cookie(request.scope))

    return [sign_in, sign_out]


def _answer(cookie: str) -> Response[None]:
    return Response(None, status_code=204, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"})
