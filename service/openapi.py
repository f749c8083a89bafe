"""The OpenAPI document, as far as Litestar cannot write it: bodies that it does not decode, and the errors."""

from collections.abc import Mapping
from typing import Any

from litestar import Litestar, post, put
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPI, OpenAPIResponse, Schema
from litestar.params import FromPath, JSONBody

from service.errors import MEDIA_TYPE, ProblemBody
from service.heartbeats import BatchAnswer, HeartbeatAnswer
from service.issue import Enrolling, NewEnrolment, NewServer, NewToken
from service.wire import AgentConfig, Heartbeat

_WORDS = {
    400: "The body cannot be read: it is not JSON, or not the gzip that it says.",
    401: "No valid token.",
    403: "The token does not allow this.",
    404: "There is no such server, or token.",
    409: "The server is known already.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body's type is not understood.",
    422: "Not as specified: `errors` names every field.",
    429: "Too many requests with this token, or wrong ones from this address; come again after `Retry-After` seconds.",
    503: "The database is away; come again after `Retry-After` seconds.",
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors that a route documents."""
    return {
        status: ResponseSpec(ProblemBody, generate_examples=False, description=_WORDS[status], media_type=MEDIA_TYPE)
        for status in statuses
    }


def complete(document: OpenAPI, scopes: Mapping[tuple[str, str], str]) -> None:
    """Adds what Litestar cannot know: the ingest routes, bodies that the handlers read themselves, and of every route
    what its token must be allowed (`scopes`, by path and method) and the errors of that."""
    _describe_bodies(document)
    _describe_access(document, scopes)
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


def _describe_access(document: OpenAPI, scopes: Mapping[tuple[str, str], str]) -> None:
    """OpenAPI 3.1 has a security requirement of a bearer name the roles that are asked for."""
    assert document.paths is not None
    ingest = document.paths["/api/v1/agents/heartbeat"].post
    assert ingest is not None
    assert ingest.responses is not None
    refusals = {status: ingest.responses[status] for status in ("401", "403", "429")}
    for path, item in document.paths.items():
        for method in ("get", "post", "put", "delete", "patch"):
            operation = getattr(item, method)
            if operation is None:
                continue
            wanted = scopes.get((path, method.upper()), "ingest")
            operation.security = [] if wanted == "open" else [{"key": [wanted]}]
            if wanted != "open":
                operation.responses |= refusals
            empty = operation.responses.get("204")
            if isinstance(empty, OpenAPIResponse):
                empty.content = None  # of a Response[None], Litestar says that it is null in JSON


def _describe_bodies(document: OpenAPI) -> None:
    """As Litestar itself describes handlers of the same signature."""
    errors = problems(400, 401, 403, 408, 413, 415, 422, 429, 503)
    common: dict[str, Any] = {
        "status_code": 200, "responses": errors, "tags": ["agents"], "sync_to_thread": False,
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

    @post("/api/v1/tokens", sync_to_thread=False)
    def token(data: JSONBody[NewToken]) -> None:
        raise NotImplementedError(data)

    @post("/api/v1/enrolments", sync_to_thread=False)
    def enrolment(data: JSONBody[NewEnrolment]) -> None:
        raise NotImplementedError(data)

    @post("/api/v1/servers", sync_to_thread=False)
    def server(data: JSONBody[NewServer]) -> None:
        raise NotImplementedError(data)

    @post("/api/v1/agents/enroll", sync_to_thread=False)
    def enroll(data: JSONBody[Enrolling]) -> None:
        raise NotImplementedError(data)

    described = Litestar(
        [heartbeat, heartbeats, config, token, enrolment, server, enroll],
        openapi_config=OpenAPIConfig(title="", version=""),
        logging_config=None,
    ).openapi_schema
    assert document.paths is not None
    assert described.paths is not None
    for path, item in described.paths.items():
        known = document.paths.setdefault(path, item)
        for method in ("post", "put"):
            if body := getattr(item, method):
                getattr(known, method).request_body = body.request_body
    document.components.schemas = {**(described.components.schemas or {}), **(document.components.schemas or {})}
