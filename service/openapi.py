"""The OpenAPI document, as far as Litestar cannot write it: bodies that it does not decode, and the errors."""

from typing import Any

from litestar import Litestar, post, put
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPI, OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Schema
from litestar.params import FromPath, JSONBody

from service.errors import MEDIA_TYPE, ProblemBody
from service.export_formats import described as export_types
from service.heartbeats import BatchAnswer, HeartbeatAnswer
from service.wire import AgentConfig, Heartbeat, Quota

_PUT = ("/api/v1/servers/{server_id}/config", "/api/v1/servers/{server_id}/quota")
_WORDS = {
    400: "The body cannot be read: it is not JSON, or not the gzip that it says.",
    401: "No valid key.",
    404: "There is no such server.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body's type is not understood.",
    422: "Not as specified: `errors` names every field.",
    429: "Too many at once; come again after `Retry-After` seconds.",
    501: "What it needs is not installed: `detail` says how to.",
    503: "The database is away; come again after `Retry-After` seconds.",
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors that a route documents."""
    return {
        status: ResponseSpec(ProblemBody, generate_examples=False, description=_WORDS[status], media_type=MEDIA_TYPE)
        for status in statuses
    }


def complete(document: OpenAPI) -> None:
    """Adds the ingest routes and the bodies of what is set, and corrects what Litestar writes about every route."""
    _describe_bodies(document)
    _describe_files(document)
    for item in (document.paths or {}).values():
        for operation in (item.get, item.post, item.put, item.delete):
            # Litestar's own words for a bad parameter, which here is a 422 (service.errors.on_validation).
            bad_request = operation and operation.responses and operation.responses.get("400")
            if isinstance(bad_request, OpenAPIResponse) and MEDIA_TYPE not in (bad_request.content or {}):
                assert operation is not None
                assert operation.responses is not None
                del operation.responses["400"]
    for schema in (document.components.schemas or {}).values():
        for member in (schema.properties or {}).values():
            if isinstance(member, Schema) and member.pattern:
                member.pattern = member.pattern.replace(r"\Z", "$")  # \Z is Python's; in ECMA-262 it is a letter


def _describe_files(document: OpenAPI) -> None:
    assert document.paths is not None
    operation = document.paths["/api/v1/export/traffic"].get
    assert operation is not None
    assert operation.responses is not None
    file = OpenAPIMediaType(Schema(type=OpenAPIType.STRING))
    operation.responses["200"] = OpenAPIResponse("The file.", content=dict.fromkeys(export_types(), file))


def _describe_bodies(document: OpenAPI) -> None:
    """As Litestar itself describes handlers of the same signature."""
    errors = problems(400, 401, 408, 413, 415, 422, 503)
    common: dict[str, Any] = {
        "status_code": 200, "responses": errors, "tags": ["agents"], "security": [{"key": []}], "sync_to_thread": False,
    }  # fmt: skip

    @post("/api/v1/agents/heartbeat", summary="Report a heartbeat", operation_id="PostHeartbeat", **common)
    def heartbeat(data: JSONBody[Heartbeat]) -> HeartbeatAnswer:
        """200 means: committed and flushed to the database's disk. Sent again, it changes nothing."""
        raise NotImplementedError(data)

    @post("/api/v1/agents/heartbeats", summary="Report a batch", operation_id="PostHeartbeats", **common)
    def heartbeats(data: JSONBody[list[Heartbeat]]) -> BatchAnswer:
        """For replays and relays: a JSON array, or NDJSON. One bad record never rejects its neighbours."""
        raise NotImplementedError(data)

    @put("/api/v1/servers/{server_id:str}/config", sync_to_thread=False)
    def config(server_id: FromPath[str], data: JSONBody[AgentConfig]) -> None:
        raise NotImplementedError(server_id, data)

    @put("/api/v1/servers/{server_id:str}/quota", sync_to_thread=False)
    def quota(server_id: FromPath[str], data: JSONBody[Quota]) -> None:
        raise NotImplementedError(server_id, data)

    described = Litestar(
        [heartbeat, heartbeats, config, quota], openapi_config=OpenAPIConfig(title="", version=""), logging_config=None
    ).openapi_schema
    assert document.paths is not None
    assert described.paths is not None
    for path in _PUT:
        ours, with_body = document.paths[path].put, described.paths.pop(path).put
        assert ours is not None
        assert with_body is not None
        ours.request_body = with_body.request_body
    document.paths.update(described.paths)
    document.components.schemas = {**(described.components.schemas or {}), **(document.components.schemas or {})}
