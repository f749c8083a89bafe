"""Completes the OpenAPI document with the parts that Litestar cannot generate: bodies that it does not decode, and
errors."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    Example,
    OpenAPI,
    OpenAPIFormat,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)
from litestar.params import FromPath, JSONBody

from service.access.issue import Enrolling, NewEnrolment, NewServer, NewToken
from service.alerts import rules
from service.alerts.channels import kinds
from service.alerts.mutes import Mute
from service.command import PREFIX
from service.fleet.interface_labels import NewInterfaceLabels
from service.fleet.labels import NewLabels
from service.fleet.linking import NewLink
from service.fleet.succession import NewSuccession
from service.http.errors import MEDIA_TYPE
from service.http.problems import problems
from service.ingest.answers import HeartbeatAnswer
from service.ingest.routes import BatchAnswer
from service.pictures.links import NewPicture
from service.traffic.export_formats import described as export_types
from service.wire import MAX_NESTING, MAX_OS_INFO_BYTES, AgentConfig, Heartbeat, Quota

AS_OF = "Linkbeat-As-Of"
EXAMPLES = Path(__file__).with_name("examples.json")

# Objects that are replaced as a whole and have a version.
VERSIONED = (
    *(
        f"/api/v1/servers/{{server_id}}/{name}"
        for name in ("config", "interfaces/{name}/labels", "labels", "quota", "succession")
    ),
    "/api/v1/alert-rules/{rule_id}",
)
_IN_PATH = {
    "server_id": "The id of the server.",
    "link_id": "The id of the link.",
    "alias": "The other id.",
    "name": "The name of the interface, percent-encoded.",
}


def complete(document: OpenAPI, scopes: Mapping[tuple[str, str], str]) -> None:
    """Adds the ingest routes, the bodies that handlers read themselves, and for every route the permission that its
    token needs (`scopes`, by path and method) with its errors."""
    _describe_bodies(document)
    _describe_access(document, scopes)
    _describe_files(document)
    _describe_age(document)
    _describe_versions(document)
    for item in (document.paths or {}).values():
        for operation in (item.get, item.post, item.put, item.delete):
            # Litestar's response for an invalid parameter, which is a 422 here (service.http.errors.on_validation).
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
                member.pattern = member.pattern.replace(r"\Z", "$")  # \Z is Python syntax; in ECMA-262 it is a letter


def _describe_files(document: OpenAPI) -> None:
    file = OpenAPIMediaType(Schema(type=OpenAPIType.STRING))
    for path, item in (document.paths or {}).items():
        is_picture = path.endswith(".svg")
        if is_picture or path == "/api/v1/export/traffic":
            assert item.get is not None
            assert item.get.responses is not None
            types = ["image/svg+xml"] if is_picture else export_types()
            words = "The picture." if is_picture else "The file."
            item.get.responses["200"] = OpenAPIResponse(words, content=dict.fromkeys(types, file))


def _describe_age(document: OpenAPI) -> None:
    header = OpenAPIHeader(
        schema=Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
        description="Where replicas are read (LINKBEAT_READ_DATABASE_URL): all that was acknowledged by then is in it.",
    )
    for item in (document.paths or {}).values():
        found = item.get and item.get.security and (item.get.responses or {}).get("200")
        if isinstance(found, OpenAPIResponse):
            found.headers = {**(found.headers or {}), AS_OF: header}


def _describe_versions(document: OpenAPI) -> None:
    """The conditional headers that service.http.conditional.seen_version reads."""
    words = {
        "If-Match": "ETag of the version that is to be replaced: 412 if it is another one.",
        "If-None-Match": "`*`: 412 if there is one already.",
    }
    for path in VERSIONED:
        item = (document.paths or {})[path]
        for operation in (item.put, item.delete):
            if operation is not None:
                operation.parameters = [
                    *(operation.parameters or []),
                    *(
                        Parameter(
                            name=name, param_in="header", description=text, schema=Schema(type=OpenAPIType.STRING)
                        )
                        for name, text in words.items()
                    ),
                ]


def _describe_access(document: OpenAPI, scopes: Mapping[tuple[str, str], str]) -> None:
    """In OpenAPI 3.1, the security requirement of a bearer scheme lists the required roles."""
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
            if path.endswith(".svg"):
                operation.security.append({"link": []})
            if wanted != "open":
                operation.responses |= refusals
            empty = operation.responses.get("204")
            if isinstance(empty, OpenAPIResponse):
                empty.content = None  # for a Response[None], Litestar documents a JSON null


def _exemplify(document: OpenAPI) -> None:
    """Adds examples of requests and responses (examples.json: a test compares them with the schemas)."""
    assert document.paths is not None
    for route, examples in json.loads(EXAMPLES.read_text(encoding="utf-8")).items():
        method, path = route.split()
        operation: Operation = getattr(document.paths[path], method.lower())
        for place, value in examples.items():
            of = operation.request_body if place == "request" else (operation.responses or {})[place]
            assert isinstance(of, RequestBody | OpenAPIResponse)
            # Raw: from a dict, Litestar omits nulls.
            example = Example(value=msgspec.Raw(msgspec.json.encode(value)))
            (of.content or {})["application/json"].examples = {"example": example}


def _docstrings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The docstrings of the structs, which document units of fields."""
    found: dict[str, str] = {}
    for one in kind.__subclasses__():
        if one.__doc__ and one.__module__.startswith(f"{PREFIX}service."):
            found[one.__name__] = inspect.cleandoc(one.__doc__)
        found |= _docstrings(one)
    return found


def _bodies_of_alerts() -> list[HTTPRouteHandler]:
    @put("/api/v1/alert-rules/{rule_id:str}", sync_to_thread=False)
    def alert_rule(rule_id: FromPath[str], data: JSONBody[rules.AnyRule]) -> None:
        raise NotImplementedError(rule_id, data)

    @post("/api/v1/alert-rules/test", sync_to_thread=False)
    def alert_rule_test(data: JSONBody[rules.AnyRule]) -> None:
        raise NotImplementedError(data)

    @put("/api/v1/alert-channels/{channel_id:str}", sync_to_thread=False)
    def alert_channel(channel_id: FromPath[str], data: JSONBody[kinds.Channel]) -> None:
        raise NotImplementedError(channel_id, data)

    @put("/api/v1/alert-mutes/{mute_id:str}", sync_to_thread=False)
    def alert_mute(mute_id: FromPath[str], data: JSONBody[Mute]) -> None:
        raise NotImplementedError(mute_id, data)

    return [alert_rule, alert_rule_test, alert_channel, alert_mute]


def _describe_bodies(document: OpenAPI) -> None:
    """Lets Litestar describe handlers with the same signatures."""
    errors = problems(400, 401, 403, 408, 413, 415, 422, 429, 503)
    common: dict[str, Any] = {
        "status_code": 200, "responses": errors, "tags": ["agents"], "sync_to_thread": False,
    }  # fmt: skip

    @post("/api/v1/agents/heartbeat", summary="Report a heartbeat", operation_id="PostHeartbeat", **common)
    def heartbeat(data: JSONBody[Heartbeat]) -> HeartbeatAnswer:
        """200 means that the heartbeat is committed and flushed to the database's disk. Sending it again changes
        nothing."""
        raise NotImplementedError(data)

    @post("/api/v1/agents/heartbeats", summary="Report a batch", operation_id="PostHeartbeats", **common)
    def heartbeats(data: JSONBody[list[Heartbeat]]) -> BatchAnswer:
        """For replays and relays: a JSON array or NDJSON. An invalid record does not affect the others."""
        raise NotImplementedError(data)

    @put("/api/v1/servers/{server_id:str}/config", sync_to_thread=False)
    def config(server_id: FromPath[str], data: JSONBody[AgentConfig]) -> None:
        raise NotImplementedError(server_id, data)

    @put("/api/v1/servers/{server_id:str}/quota", sync_to_thread=False)
    def quota(server_id: FromPath[str], data: JSONBody[Quota]) -> None:
        raise NotImplementedError(server_id, data)

    @put("/api/v1/servers/{server_id:str}/labels", sync_to_thread=False)
    def labels(server_id: FromPath[str], data: JSONBody[NewLabels]) -> None:
        raise NotImplementedError(server_id, data)

    @put("/api/v1/servers/{server_id:str}/interfaces/{name:str}/labels", sync_to_thread=False)
    def interface_labels(server_id: FromPath[str], name: FromPath[str], data: JSONBody[NewInterfaceLabels]) -> None:
        raise NotImplementedError(server_id, name, data)

    @post([f"/api/v1/servers/{{server_id:str}}/links{one}" for one in ("", "/preview")], sync_to_thread=False)
    def link(server_id: FromPath[str], data: JSONBody[NewLink]) -> None:
        raise NotImplementedError(server_id, data)

    @put("/api/v1/servers/{server_id:str}/succession", sync_to_thread=False)
    def succession(server_id: FromPath[str], data: JSONBody[NewSuccession]) -> None:
        raise NotImplementedError(server_id, data)

    @post("/api/v1/servers/{server_id:str}/succession/preview", sync_to_thread=False)
    def succession_preview(server_id: FromPath[str], data: JSONBody[NewSuccession]) -> None:
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

    @post("/api/v1/pictures", sync_to_thread=False)
    def picture(data: JSONBody[NewPicture]) -> None:
        raise NotImplementedError(data)

    described = Litestar(
        [
            heartbeat, heartbeats, config, quota, labels, link, interface_labels, succession, succession_preview, token,
            enrolment, server, enroll, picture, *_bodies_of_alerts(),
        ],
        openapi_config=OpenAPIConfig(title="", version=""),
        logging_config=None,
    ).openapi_schema  # fmt: skip
    assert document.paths is not None
    assert described.paths is not None
    for path, item in described.paths.items():
        known = document.paths.setdefault(path, item)
        for method in ("post", "put"):
            if body := getattr(item, method):
                getattr(known, method).request_body = body.request_body
    document.components.schemas = {**(described.components.schemas or {}), **(document.components.schemas or {})}
    # Raw for the decoder (service/wire.py), so Litestar would document any type.
    properties = document.components.schemas["Heartbeat"].properties
    assert properties is not None
    properties["os_info"] = Schema(
        one_of=[
            Schema(type=OpenAPIType.OBJECT, additional_properties=True),
            Schema(type=OpenAPIType.NULL),
        ],
        description=f"At most {MAX_OS_INFO_BYTES} bytes and {MAX_NESTING} levels.",
    )
