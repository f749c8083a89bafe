"""The OpenAPI document, as far as Litestar cannot write it: bodies that it does not decode, and the errors."""

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, post, put
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, OpenAPI, OpenAPIResponse, Operation, Parameter, RequestBody, Schema
from litestar.params import FromPath, JSONBody

from service.errors import MEDIA_TYPE, Problem, ProblemBody
from service.heartbeats import BatchAnswer, HeartbeatAnswer
from service.wire import AgentConfig, Heartbeat

EXAMPLES = Path(__file__).with_name("examples.json")

_CONFIG = "/api/v1/servers/{server_id}/config"
_IN_PATH = {
    "server_id": "The name under which the machine reports.",
    "name": "As the system names it, percent-encoded.",
}
_WORDS = {
    400: "The body cannot be read: it is not JSON, or not the gzip that it says.",
    401: "No valid key.",
    404: "There is no such server.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body's type is not understood.",
    422: "Not as specified: `errors` names every field.",
    503: "The database is away; come again after `Retry-After` seconds.",
}


_PROBLEMS = {
    400: Problem("invalid_json", "at byte 17: unexpected end of data"),
    401: Problem("unauthorized", "send the fleet key as 'Authorization: Bearer <key>'"),
    404: Problem("unknown_server", "no server 'mediaserver' ever sent a heartbeat"),
    408: Problem("request_timeout", "the body did not arrive in time"),
    413: Problem("too_large", "at most 1048576 bytes are taken"),
    415: Problem("unsupported_media_type", "send application/json"),
    422: Problem.invalid("network_interfaces[0].rx_bytes", "expected int, got str"),
    503: Problem("database_unavailable", "the database did not answer in time"),
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors that a route documents."""
    return {
        status: ResponseSpec(
            ProblemBody,
            generate_examples=False,
            description=_WORDS[status],
            media_type=MEDIA_TYPE,
            examples=[Example(value=json.loads(_PROBLEMS[status].body()))],
        )
        for status in statuses
    }


def complete(document: OpenAPI) -> None:
    """Adds the ingest routes and the body of a configuration, and corrects what Litestar writes about every route."""
    _describe_bodies(document)
    for item in (document.paths or {}).values():
        for operation in (item.get, item.post, item.put, item.delete):
            # Litestar's own words for a bad parameter, which here is a 422 (service.errors.on_validation).
            bad_request = operation and operation.responses and operation.responses.get("400")
            if isinstance(bad_request, OpenAPIResponse) and MEDIA_TYPE not in (bad_request.content or {}):
                assert operation is not None
                assert operation.responses is not None
                del operation.responses["400"]
            for parameter in (operation and operation.parameters) or ():
                if isinstance(parameter, Parameter) and parameter.param_in == "path":
                    parameter.description = parameter.description or _IN_PATH.get(parameter.name)
    _exemplify(document)
    words = _docstrings(msgspec.Struct)
    for name, schema in (document.components.schemas or {}).items():
        schema.description = schema.description or words.get(name)
        for member in (schema.properties or {}).values():
            if isinstance(member, Schema) and member.pattern:
                member.pattern = member.pattern.replace(r"\Z", "$")  # \Z is Python's; in ECMA-262 it is a letter


def _exemplify(document: OpenAPI) -> None:
    """Puts what is asked and answered, by example, beside each schema (examples.json: a test holds it to them)."""
    assert document.paths is not None
    for route, examples in json.loads(EXAMPLES.read_text(encoding="utf-8")).items():
        method, path = route.split()
        operation: Operation = getattr(document.paths[path], method.lower())
        for place, value in examples.items():
            of = operation.request_body if place == "request" else (operation.responses or {})[place]
            assert isinstance(of, RequestBody | OpenAPIResponse)
            # As it is: of a dict, Litestar leaves out what is null.
            example = Example(value=msgspec.Raw(msgspec.json.encode(value)))
            (of.content or {})["application/json"].examples = {"example": example}


def _docstrings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What each struct of the wire says of itself, with the units of its fields."""
    found: dict[str, str] = {}
    for one in kind.__subclasses__():
        if one.__doc__ and one.__module__.startswith("service."):
            found[one.__name__] = inspect.cleandoc(one.__doc__)
        found |= _docstrings(one)
    return found


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

    described = Litestar(
        [heartbeat, heartbeats, config], openapi_config=OpenAPIConfig(title="", version=""), logging_config=None
    ).openapi_schema
    assert document.paths is not None
    assert described.paths is not None
    put_config, put_body = document.paths[_CONFIG].put, described.paths.pop(_CONFIG).put
    assert put_config is not None
    assert put_body is not None
    put_config.request_body = put_body.request_body
    document.paths.update(described.paths)
    document.components.schemas = {**(described.components.schemas or {}), **(document.components.schemas or {})}
