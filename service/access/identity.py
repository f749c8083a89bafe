"""Authentication and authorization: whose request it is, and what its token permits.

A route names the permission that it requires, as `@get(…, scope="admin")`: one of SCOPES. A route without a scope
requires `read`, and `admin` if it is not a GET, so that a forgotten scope never opens a route.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from math import ceil
from typing import Any, Literal, get_args

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.types import Scope

from service.access.ended_sessions import EndedSessions
from service.access.proxied import ProxiedUsers
from service.access.sessions import Sessions, check_same_origin
from service.access.tokens import MAX_AGE_SECONDS, Token, Tokens
from service.database.audit import Actor
from service.database.reading import Reading, reading
from service.database.shares import reader
from service.http.body import content
from service.http.errors import Problem
from service.http.limits import ClientAddress, RateLimiter, Recent
from service.http.log_limit import limited
from service.settings import Settings
from service.wire import Heartbeat

# open: no token needed. enrol: an enrolment token.
ScopeName = Literal["open", "read", "ingest", "enrol", "admin"]
SCOPES: frozenset[str] = frozenset(get_args(ScopeName))
MAY: dict[str, frozenset[str]] = {
    "key": frozenset({"read", "ingest", "admin", "enrol"}),
    "admin": frozenset({"read", "ingest", "admin", "enrol"}),
    "server": frozenset({"ingest"}),
    "fleet": frozenset({"ingest"}),
    "read": frozenset({"read"}),
    "enrolment": frozenset({"enrol"}),
}
# Concurrent requests with one token: an agent makes two, a dashboard several for each of its pages. Fleet tokens and
# the fleet key serve many machines and have no such limit.
IN_FLIGHT = {"server": 16, "enrolment": 64, "read": 64, "admin": 64, "link": 64}
# With one read token: each session that is signed out is remembered until it expires, for up to a week.
SIGN_INS_PER_MINUTE = 10
# The permissions of a browser's session. Reporting and enrolling need a token.
_IN_SESSION = frozenset({"read", "admin"})
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_GUID = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,255}")  # as service/access/issue.py
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="linkbeat"'}


class Caller:
    """The authenticated sender of a request.

    name        for the log; no secret
    server_id   the only server that it may report for; None: any
    guid        X-Server-GUID, if the agent sends it; the heartbeat's server_guid must match
    peer        the client's address
    user        signed in by a trusted proxy; "": known by a token or a session
    """

    __slots__ = ("guid", "is_counted", "is_session", "kind", "name", "peer", "server_id", "token_id", "user")

    def __init__(
        self, kind: str, token_id: str, server_id: str | None, guid: str | None, peer: str, user: str = ""
    ) -> None:
        self.kind = kind
        self.token_id = token_id
        self.server_id = server_id
        self.guid = guid
        self.peer = peer
        self.is_counted = False  # among the concurrent requests of its token
        self.is_session = False  # known by a browser's cookie
        self.user = user
        self.name = f"{user} ({kind})" if user else f"token {token_id} ({kind})" if token_id else "the fleet key"

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        kind: Literal["proxy", "session", "token", "key"]
        kind = "proxy" if self.user else "session" if self.is_session else "token" if self.token_id else "key"
        return Actor(kind, self.name, self.token_id, self.peer)

    @property
    def key(self) -> str:
        """Whom limits count: the token or the proxy's user; "" is the fleet key."""
        return f"user {self.user}" if self.user else self.token_id

    @property
    def machine(self) -> tuple[str, str]:
        """The key of the limit on large bodies: the token of a server; for a shared token, the token and the
        address."""
        return self.token_id, "" if self.kind == "server" else self.peer

    def check_report(self, heartbeat: Heartbeat, aliases: Mapping[str, str]) -> None:
        """Raises Problem (403) if the caller may not report this heartbeat. `aliases`: the server of each other id."""
        if self.server_id is not None and heartbeat.server_id != aliases.get(self.server_id, self.server_id):
            self._refuse(heartbeat, f"this token belongs to server {self.server_id!r}")
        if self.guid is not None and heartbeat.server_guid not in (None, self.guid):
            self._refuse(heartbeat, "server_guid does not match X-Server-GUID")

    def _refuse(self, heartbeat: Heartbeat, reason: str) -> None:
        message = "%s from %s may not report %s: %s"
        key = ("may not report", self.token_id, self.peer)
        limited(logging.WARNING, key, message, self.name, self.peer, heartbeat.server_id, reason)
        raise Problem("forbidden", reason)


class Identity:
    """Authenticates requests by `Authorization: Bearer …`; agents in the field also send `X-API-Key`, or
    `X-Agent-Token` with `X-Server-GUID`; a browser that sends none of these is known by the user that a trusted proxy
    names, or by its session cookie.

    The fleet key has every permission. A check takes some microseconds and no query (service/access/tokens.py).
    """

    def __init__(self, key: str, settings: Settings, tokens: Tokens, sessions: Sessions, ended: EndedSessions) -> None:
        self._key = key.encode()
        self._tokens = tokens
        self._sessions = sessions
        self._ended = ended
        self._headers = {
            b"authorization",
            *([b"x-api-key"] if settings.accept_x_api_key else []),
            *([b"x-agent-token"] if settings.accept_x_agent_token else []),
        }
        self._has_replicas = bool(settings.read_database_url)
        self._peers = ClientAddress(settings.trusted_proxies)
        self._proxied = ProxiedUsers(settings, self._peers)
        self._failures = RateLimiter(settings.failed_tokens_per_minute)
        self._servers = RateLimiter(settings.server_requests_per_minute)
        self._readers = RateLimiter(settings.read_requests_per_minute)
        self._limits = {"server": self._servers, "read": self._readers, "admin": self._readers}
        self._sign_ins = RateLimiter(SIGN_INS_PER_MINUTE)
        self._in_flight: dict[tuple[str, str], int] = {}
        self._known_good = Recent()

    async def admit(self, scope: Scope, wanted: str, *, takes_cookies: bool = False) -> Caller:
        """Authenticates a request before its body is read. The caller of this method calls `leave` after the response.

        Raises Problem: 401 without a valid token, 403 without the permission `wanted`, 429 above a limit, 503 if
        tokens cannot be checked because the database is unavailable.
        """
        peer = self._peers.of(scope)
        sent, guid = self._sent(scope)
        if sent:
            caller = await self._caller(sent, guid, peer)
        else:
            caller = await self._in_browser(scope, wanted, peer) if takes_cookies else None
        if caller is None:
            raise Problem("unauthorized", "send a valid token as 'Authorization: Bearer …'", headers=_CHALLENGE)
        limit = self._limits.get(caller.kind)
        if limit is not None and (seconds := limit.take(caller.key)):
            raise _too_many("too many requests with this token", seconds)
        if wanted not in MAY[caller.kind]:
            raise Problem("forbidden", f"this needs a token with the '{wanted}' permission")
        self._enter(caller)
        return caller

    def admit_cached(self, scope: Scope, wanted: str) -> Caller | None:
        """What `admit` returns for a request whose one token was valid from that address before.

        None where `admit` has to decide, because a limit or an old cache is in the way; nothing was counted then.
        """
        sent, _ = self._sent(scope)
        peer = self._peers.of(scope)
        if len(sent) != 1:
            return None
        token, is_agents = sent[0]
        fingerprint = hash((peer, token))
        if is_agents or fingerprint not in self._known_good or not self._tokens.is_newer(MAX_AGE_SECONDS):
            return None
        caller = self._known(token, None, peer)
        if caller is None or wanted not in MAY[caller.kind] or self._has_too_many(caller):
            return None
        limit = self._limits.get(caller.kind)
        if limit is not None and limit.take(caller.key):
            return None
        self._known_good.add(fingerprint)
        self._enter(caller)
        return caller

    def _has_too_many(self, caller: Caller) -> bool:
        """Whether as many requests with this token are in progress as may be."""
        most = IN_FLIGHT.get(caller.kind)
        return most is not None and self._in_flight.get((caller.kind, caller.key), 0) >= most

    def _enter(self, caller: Caller) -> None:
        """Counts the request. Raises Problem (429) if too many requests with this token are in progress."""
        if self._has_too_many(caller):
            raise _too_many(f"{IN_FLIGHT[caller.kind]} requests with this token are already in progress", 1)
        if caller.kind in IN_FLIGHT:
            key = (caller.kind, caller.key)
            self._in_flight[key] = self._in_flight.get(key, 0) + 1
            caller.is_counted = True

    def leave(self, caller: Caller) -> None:
        """Undoes the count of `admit`, after the response has been sent."""
        if caller.is_counted:
            caller.is_counted = False
            key = (caller.kind, caller.key)
            self._in_flight[key] -= 1
            if not self._in_flight[key]:
                del self._in_flight[key]

    async def guard(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """`admit` as Litestar's guard of every route; sets `request.auth` to the caller."""
        reader.set(None)
        reading.set(None)
        wanted = scope_of(handler, connection.scope.get("method", "GET"))  # type: ignore[arg-type]  # of requests
        maker = handler.opt.get("link")
        if maker is not None and "link" in connection.query_params:
            caller = await self._by_link(connection, maker)
        elif wanted != "open":
            caller = await self.admit(connection.scope, wanted, takes_cookies=True)
        else:
            return
        connection.scope["auth"] = caller
        reader.set((caller.kind, caller.key) if caller.kind in IN_FLIGHT else None)
        if self._has_replicas:
            may_lag = not handler.opt.get("is_fresh") and self._may_lag(connection.scope, caller)
            reading.set(Reading(may_lag=may_lag, servers=_named(connection)))

    def _may_lag(self, scope: Any, caller: Caller) -> bool:
        """Whether a replica will do: not for whoever may just have written something, maybe by another process.

        A read token cannot write. Of a browser's session, a cookie says for some seconds that it has. Of an admin token
        and the fleet key nothing tells, and the primary answers them.
        """
        if scope.get("method") not in ("GET", "HEAD"):
            return False
        return caller.kind in ("read", "link") or (caller.is_session and not self._sessions.has_written(scope))

    async def sign_in(self, scope: Scope, token: str, *, is_code: bool) -> Caller:
        """Authenticates a sign-in with this token, or with a code that stands for the fleet key.

        Raises Problem as `admit` does: a wrong token counts toward the limit of its address.
        """
        peer = self._peers.of(scope)
        if is_code:
            return Caller("key", "", None, None, peer)
        caller = await self._caller([(token.strip().encode(), False)], None, peer)
        if caller is None:
            raise Problem("unauthorized", "this token is not valid")
        if "read" not in MAY[caller.kind]:
            raise Problem(
                "forbidden",
                f"signing in needs a token with the 'read' permission, and this token is of kind '{caller.kind}'",
            )
        if caller.kind == "read" and (seconds := self._sign_ins.take(caller.token_id)):
            raise _too_many("too many sign-ins with this token", seconds)
        return caller

    async def _in_browser(self, scope: Scope, wanted: str, peer: str) -> Caller | None:
        """The caller of a request without a token: the user that a trusted proxy names, or the session.

        Raises Problem (403, 415) for a request that may change data and that the dashboard's own pages do not send: a
        browser adds the session, and the proxy its header, to requests of other sites' pages too.
        """
        if (found := self._proxied.of(scope)) is not None:
            user, kind = found
            caller: Caller | None = Caller(kind, "", None, None, peer, user)
        else:
            caller = await self._in_session(scope, peer)
        if caller is None:
            return None
        if scope.get("method") in _UNSAFE:
            check_same_origin(scope)
            # A form on another page cannot send JSON.
            if scope.get("method") != "DELETE":
                content(scope, {b"application/json"})
        if wanted not in _IN_SESSION:
            raise Problem("forbidden", f"a session does not have the '{wanted}' permission: send a token")
        caller.is_session = True
        return caller

    async def _in_session(self, scope: Scope, peer: str) -> Caller | None:
        """The caller that the session cookie stands for, while its token is valid."""
        session = self._sessions.of(scope)
        if session is None:
            return None
        ended = self._ended
        await ended.refresh_if_older(MAX_AGE_SECONDS)
        if session in ended:
            return None
        if not session.token_id:
            caller = Caller("key", "", None, None, peer)
        else:
            found = await self._tokens.of_id(session.token_id)
            if found is None:
                return None
            caller = Caller(found.kind, found.token_id, found.server_id, None, peer)
        return caller

    async def _by_link(
        self,
        connection: ASGIConnection[Any, Any, Any, Any],
        maker: Callable[[ASGIConnection[Any, Any, Any, Any]], Awaitable[str]],
    ) -> Caller:
        """The caller of a request with a signed link. A token in the same request is ignored.

        maker  returns the id of the token that made the link (service/pictures), or raises Problem (403), which
               counts as a wrong token does
        """
        peer = self._peers.of(connection.scope)
        fingerprint = hash((peer, connection.query_params["link"]))
        if (seconds := self._failures.wait_seconds(peer)) and fingerprint not in self._known_good:
            self._warn(peer)
            raise _too_many("too many wrong tokens from this address", seconds)
        try:
            token_id = await maker(connection)
        except Problem as refused:
            if refused.code == "forbidden":
                self._failures.take(peer)
            raise
        self._known_good.add(fingerprint)
        # Counted separately from the token's own requests, so that a popular page does not lock out the token's owner.
        if seconds := self._readers.take(("link", token_id)):
            raise _too_many("too many requests with links of this token", seconds)
        caller = Caller("link", token_id, None, None, peer)
        self._enter(caller)
        return caller

    def _sent(self, scope: Scope) -> tuple[list[tuple[bytes, bool]], str | None]:
        """The tokens that the request carries, each with whether it requires X-Server-GUID; and that GUID."""
        sent: list[tuple[bytes, bool]] = []
        guid: str | None = None
        for name, value in scope["headers"]:
            if name in self._headers:
                token = value
                if name == b"authorization":
                    scheme, _, token = value.partition(b" ")
                    if scheme.lower() != b"bearer":
                        continue
                if token := token.strip():
                    sent.append((token, name == b"x-agent-token"))
            elif name == b"x-server-guid":
                guid = value.decode("latin-1").strip() or None
        return sent[:3], guid

    async def _caller(self, sent: list[tuple[bytes, bool]], guid: str | None, peer: str) -> Caller | None:
        """Raises Problem (429) for an address that failed too often, before anything is hashed.

        Tokens that were valid from that address before are still accepted: a fleet behind one address must not fall
        silent because one of its machines has a wrong token.
        """
        seconds = self._failures.wait_seconds(peer)
        refreshed = False
        while True:
            for place, (token, is_agents) in enumerate(sent):
                fingerprint = hash((peer, token))
                if seconds and fingerprint not in self._known_good:
                    continue
                caller = await self._verified(token, guid, peer, is_agents=is_agents)
                if caller is not None:
                    self._known_good.add(fingerprint)
                    if place and not seconds:
                        # A right one beside them does not make guesses free: what was tried before it was wrong.
                        self._failures.take(peer, float(place))
                    return caller
            if seconds:
                self._warn(peer)
                raise _too_many("too many wrong tokens from this address", seconds)
            if refreshed or not any(Tokens.is_well_formed(token) for token, _ in sent):
                self._failures.take(peer)
                return None
            await self._tokens.refresh_for_missing()
            refreshed = True

    async def _verified(self, token: bytes, guid: str | None, peer: str, *, is_agents: bool) -> Caller | None:
        if is_agents and guid is None:
            return None
        # The fleet key is valid while the database is away, whatever it looks like.
        if Tokens.is_well_formed(token) and not compare_digest(token, self._key):
            await self._tokens.refresh_if_older(MAX_AGE_SECONDS)
        return self._known(token, guid if is_agents else None, peer)

    def _known(self, token: bytes, guid: str | None, peer: str) -> Caller | None:
        """The caller with this token, by the cache; `guid`: of the machine that X-Agent-Token came with."""
        if compare_digest(token, self._key):
            return Caller("key", "", None, guid, peer)
        found = self._tokens.find(token) if Tokens.is_well_formed(token) else None
        if found is None:
            return None
        if guid is not None:
            self._check_guid(self._tokens, found, guid)
        return Caller(found.kind, found.token_id, found.server_id, guid, peer)

    @staticmethod
    def _check_guid(tokens: Tokens, token: Token, guid: str) -> None:
        """A server's token belongs to one machine: the one it was made for, or else the first that sends its GUID."""
        if token.kind != "server":
            return
        if token.server_guid is None:
            if not _GUID.fullmatch(guid):
                raise Problem(
                    "forbidden", "X-Server-GUID contains a control character, or has more than 255 characters"
                )
            tokens.pin(token, guid)
        elif token.server_guid != guid:
            raise Problem("forbidden", "X-Server-GUID does not match the server of this token")

    def _warn(self, peer: str) -> None:
        message = "too many wrong tokens from %s: its requests get 429 for a while"
        limited(logging.WARNING, ("wrong tokens", peer), message, peer or "a local socket")


def _named(connection: ASGIConnection[Any, Any, Any, Any]) -> list[str]:
    """The servers that a request is about."""
    one = connection.path_params.get("server_id")
    query = connection.query_params
    named = [*query.getall("server", []), *(text.partition("/")[0] for text in query.getall("series", []))]
    return named if one is None else [str(one), *named]


def scope_of(handler: BaseRouteHandler, method: str) -> str:
    """The permission that a route requires; by default `read`, or `admin` if it can change data."""
    return str(handler.opt.get("scope") or ("admin" if method in _UNSAFE else "read"))


def scopes(app: Litestar) -> dict[tuple[str, str], str]:
    """The permission that each path and method of Litestar requires. Raises ValueError for an unknown scope."""
    found = {}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", []):
            if isinstance(handler, HTTPRouteHandler):
                for method in handler.http_methods:
                    wanted = scope_of(handler, method)
                    if wanted not in SCOPES:
                        raise ValueError(
                            f"{method} {route.path}: unknown scope {wanted!r}, expected one of {sorted(SCOPES)}"
                        )
                    found[route.path_format or "/", str(method)] = wanted
    return found


def _too_many(reason: str, seconds: float) -> Problem:
    return Problem.retry("too_many_requests", reason, max(1, ceil(seconds)))
