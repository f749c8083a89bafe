"""Display names of interfaces, which `interface=` takes too."""

from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response, Router, get, put
from litestar.params import FromPath

from service.access.identity import Caller
from service.cache import Answers
from service.database.audit import by
from service.database.names import storable, unknown_server
from service.database.pool import Database
from service.fleet.labels import DisplayName
from service.http.conditional import seen_version, version_header
from service.http.errors import Problem
from service.http.json_body import body
from service.http.problems import problems

_LABELS = """
SELECT s.server_id, n.series, l.display_name, linkbeat.version_of(linkbeat.interface_label_json(l)) AS version
FROM servers s
CROSS JOIN LATERAL (
    SELECT coalesce(linkbeat.series_called(of_server => s.server_id, name => $2), $2) AS series
) n
LEFT JOIN linkbeat.interface_labels l ON l.server_id = s.server_id AND l.series = n.series
WHERE s.server_id = $1
"""
_SET = "linkbeat.set_interface_label(of_server => $1, of_series => $2, new_display_name => $3, seen => $4) AS is_known"
_NO_SERIES, _TAKEN = "LB404", "LB409"  # sql/function/labels.sql


class NewInterfaceLabels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name that people see; null: none."""

    display_name: DisplayName | None = None


class InterfaceLabels(msgspec.Struct, frozen=True):
    """The display name of an interface; null: none. `interface`: its series."""

    server_id: str
    interface: str
    display_name: str | None


def router(database: Database, writing: Database, answers: Answers) -> Router:
    """GET and PUT /servers/{server_id}/interfaces/{name}/labels."""

    async def stored(server_id: str, name: str) -> Response[InterfaceLabels]:
        rows = await database.fetch(_LABELS, storable(server_id), storable(name))
        if not rows:
            raise unknown_server(server_id)
        *found, version = rows[0]
        return Response(InterfaceLabels(*found), headers=version_header(version))

    async def write(request: Request[Any, Caller, Any], server_id: str, name: str) -> Response[InterfaceLabels]:
        new = await body(request, NewInterfaceLabels)
        known, series = storable(server_id), storable(name)
        try:
            (row,) = await by(writing.fetch, request.auth.actor)(
                _SET, known, series, new.display_name, seen_version(request)
            )
        except asyncpg.PostgresError as raised:
            if raised.sqlstate == _NO_SERIES:
                raise Problem("not_found", f"server {server_id!r} has no interface {name!r}") from None
            if raised.sqlstate == _TAKEN:
                raise Problem.invalid("display_name", f"the interface {raised.detail!r} has that name") from None
            raise
        if not row["is_known"]:
            raise unknown_server(server_id)
        answers.forget([known])
        return await stored(server_id, name)

    @get("/{name:str}/labels", summary="Get the display name of an interface", responses=problems(401, 404, 503))
    async def get_interface_labels(server_id: FromPath[str], name: FromPath[str]) -> Response[InterfaceLabels]:
        """Its ETag is the version for If-Match."""
        return await stored(server_id, name)

    @put(
        "/{name:str}/labels",
        summary="Set the display name of an interface",
        responses=problems(400, 401, 404, 408, 412, 413, 415, 422, 503),
    )
    async def put_interface_labels(
        server_id: FromPath[str], name: FromPath[str], request: Request[Any, Caller, Any]
    ) -> Response[InterfaceLabels]:
        """`name` is the series. With If-Match, only if nobody has changed it since that version."""
        return await write(request, server_id, name)

    # The slash of a series such as eth0/2, percent-encoded by the client, arrives decoded.
    @get("/{name:str}/{number:int}/labels", include_in_schema=False)
    async def get_numbered(
        server_id: FromPath[str], name: FromPath[str], number: FromPath[int]
    ) -> Response[InterfaceLabels]:
        return await stored(server_id, f"{name}/{number}")

    @put("/{name:str}/{number:int}/labels", include_in_schema=False)
    async def put_numbered(
        server_id: FromPath[str], name: FromPath[str], number: FromPath[int], request: Request[Any, Caller, Any]
    ) -> Response[InterfaceLabels]:
        return await write(request, server_id, f"{name}/{number}")

    return Router(
        "/servers/{server_id:str}/interfaces",
        route_handlers=[get_interface_labels, put_interface_labels, get_numbered, put_numbered],
        tags=["servers"],
    )
