"""Other ids of servers: heartbeats and requests under an alias are those of the server (docs/names.md)."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import asyncpg
import msgspec
from litestar import Request, Router, delete, get, put
from litestar.params import FromPath
from litestar.types import HTTPScope

from service.access.identity import Caller
from service.database.audit import by
from service.database.names import check_known, storable, unknown_server
from service.database.pool import Database
from service.database.series_links import SeriesLinks
from service.http.errors import Problem
from service.http.problems import problems
from service.wire import ServerId

_ALIASES = "SELECT alias FROM linkbeat.server_aliases WHERE server_id = $1 ORDER BY alias"
_ADD = "linkbeat.add_alias(of_server => $1, new_alias => $2) AS is_known"
_DELETE = "linkbeat.delete_alias(of_server => $1, of_alias => $2) AS is_known"
_TAKEN = "LB409"  # sql/function/server_aliases.sql
_BEFORE_IDS = frozenset({"servers", "usage", "sparkline"})  # in paths


class ServerAliases(msgspec.Struct, frozen=True):
    """The other ids of a server."""

    server_id: str
    aliases: list[str]


class _Checked(msgspec.Struct, frozen=True):
    alias: ServerId


def by_own_id(scope: HTTPScope, aliases: Mapping[str, str]) -> None:
    """Puts the server's id in the place of an alias, in the path and the query of a request for the API.

    Whoever removes a server has to name the server itself.
    """
    path = scope["path"]
    if not path.startswith("/api/v1/"):
        return
    parts = path.split("/")
    for place in range(3, len(parts)):
        if parts[place] in aliases and parts[place - 1] in _BEFORE_IDS:
            if scope["method"] == "DELETE" and place == len(parts) - 1:
                return
            parts[place] = aliases[parts[place]]
            scope["path"] = "/".join(parts)
            break
    query = scope["query_string"]
    if b"server=" not in query and b"series=" not in query:
        return
    pairs = []
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        server, slash, rest = value.partition("/") if name == "series" else (value, "", "")
        pairs.append((name, aliases.get(server, server) + slash + rest if name in ("server", "series") else value))
    scope["query_string"] = urlencode(pairs).encode()


def router(database: Database, writing: Database, links: SeriesLinks) -> Router:
    """GET /servers/{server_id}/aliases; PUT and DELETE /servers/{server_id}/aliases/{alias}."""

    async def stored(server_id: str) -> ServerAliases:
        rows = await database.fetch(_ALIASES, storable(server_id))
        if not rows:
            await check_known(database, server_id)
        return ServerAliases(server_id, [row["alias"] for row in rows])

    @get("/", summary="List the other ids of a server", responses=problems(401, 404, 503))
    async def list_aliases(server_id: FromPath[str]) -> ServerAliases:
        return await stored(server_id)

    @put("/{alias:str}", summary="Give a server another id", responses=problems(401, 404, 409, 422, 503))
    async def put_alias(
        server_id: FromPath[str], alias: FromPath[str], request: Request[Any, Caller, Any]
    ) -> ServerAliases:
        """Heartbeats and requests under it are the server's from now on, with tokens of either id."""
        try:
            msgspec.convert({"alias": alias}, _Checked)
        except msgspec.ValidationError:
            raise Problem.invalid("alias", "expected an id as servers have it") from None
        try:
            (row,) = await by(writing.fetch, request.auth.actor)(_ADD, storable(server_id), alias)
        except asyncpg.PostgresError as raised:
            if raised.sqlstate != _TAKEN:
                raise
            raise Problem("server_exists", f"server {raised.detail!r} has the id {alias!r}") from None
        if not row["is_known"]:
            raise unknown_server(server_id)
        await links.refresh()
        return await stored(server_id)

    @delete("/{alias:str}", summary="Remove another id of a server", responses=problems(401, 404, 503))
    async def delete_alias(server_id: FromPath[str], alias: FromPath[str], request: Request[Any, Caller, Any]) -> None:
        """Heartbeats under it register a server of that id."""
        await check_known(database, server_id)
        (row,) = await by(writing.fetch, request.auth.actor)(_DELETE, storable(server_id), storable(alias))
        if not row["is_known"]:
            raise Problem("not_found", f"{alias!r} is no other id of server {server_id!r}")
        await links.refresh()

    return Router(
        "/servers/{server_id:str}/aliases", route_handlers=[list_aliases, put_alias, delete_alias], tags=["servers"]
    )
