"""Names and tags of servers: the display name that people see, and tags to filter, group and alert by."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, put
from litestar.params import FromPath
from msgspec import Meta

from service.access.identity import Caller
from service.cache import Answers
from service.database.audit import by
from service.database.names import storable, unknown_server
from service.database.pool import Database
from service.http.conditional import seen_version, version_header
from service.http.errors import Problem
from service.http.json_body import body
from service.http.problems import problems
from service.wire import MAX_TAGS, Tag, tag_problem

_LABELS = """
SELECT l.display_name, coalesce(l.tags, '{}') AS tags,
       ARRAY(SELECT jsonb_array_elements_text(s.agent_report -> 'tags') ORDER BY 1) AS agent_tags,
       linkbeat.tags_of(l.tags, s.agent_report) AS all_tags, linkbeat.version_of(linkbeat.labels_json(l)) AS version
FROM servers s LEFT JOIN linkbeat.server_labels l USING (server_id) WHERE s.server_id = $1
"""
_SET = "linkbeat.set_labels(of_server => $1, new_display_name => $2, new_tags => $3::text[], seen => $4) AS is_known"


DisplayName = Annotated[
    str, Meta(pattern=r"^(?! )[^\x00-\x1f\x7f-\x9f]{1,100}(?<! )\Z", description="1 to 100 characters.")
]


class NewLabels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an administrator sets for a server.

    display_name  the name that people see; null: the server's id
    tags          words and key=value pairs, one for each key; they take precedence over the agent's own
    """

    display_name: DisplayName | None = None
    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] = []


class Labels(msgspec.Struct, frozen=True):
    """Name and tags of a server.

    display_name  null: none is set
    tags          those set by an administrator
    agent_tags    those that the agent reports (LINKBEAT_TAGS)
    all_tags      both, in effect: of two with the same key, the administrator's
    """

    display_name: str | None
    tags: list[str]
    agent_tags: list[str]
    all_tags: list[str]


def router(database: Database, writing: Database, answers: Answers) -> Router:
    """GET and PUT /servers/{server_id}/labels."""

    async def labels(server_id: str) -> Response[Labels]:
        rows = await database.fetch(_LABELS, storable(server_id))
        if not rows:
            raise unknown_server(server_id)
        values = dict(rows[0])
        return Response(headers=version_header(values.pop("version")), content=Labels(**values))

    @get("/", summary="Get the name and the tags of a server", responses=problems(401, 404, 503))
    async def get_labels(server_id: FromPath[str]) -> Response[Labels]:
        """Its ETag is the version for If-Match."""
        return await labels(server_id)

    @put(
        "/",
        summary="Set the name and the tags of a server",
        responses=problems(400, 401, 404, 408, 412, 413, 415, 422, 503),
    )
    async def put_labels(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> Response[Labels]:
        """Replaces both. With If-Match, only if nobody has changed them since that version."""
        new = await body(request, NewLabels)
        if (problem := tag_problem(new.tags)) is not None:
            raise Problem.invalid(*problem)
        known = storable(server_id)
        (row,) = await by(writing.fetch, request.auth.actor)(
            _SET, known, new.display_name, sorted(new.tags), seen_version(request)
        )
        if not row["is_known"]:
            raise unknown_server(server_id)
        answers.forget([known])
        return await labels(server_id)

    return Router("/servers/{server_id:str}/labels", route_handlers=[get_labels, put_labels], tags=["servers"])
