"""/schema: the OpenAPI document, which clients are generated from."""

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.http.errors import MEDIA_TYPE
from tests.helpers.support import Client

TYPES = {"array", "boolean", "integer", "null", "number", "object", "string"}


@pytest.fixture
async def document(service: Client) -> dict[str, Any]:
    answer = await service.http.get("/schema/openapi.json", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    return dict(answer.json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every name and value in the document, however deep."""
    if isinstance(value, dict):
        yield from value.items()
        for member in value.values():
            yield from members(member)
    elif isinstance(value, list):
        for member in value:
            yield from members(member)


async def test_it_is_a_valid_openapi_3_1_document(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"]
    assert document["info"]["version"]
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert method in ("get", "post", "put", "delete", "patch"), where
        assert operation["responses"], where
        assert all(re.fullmatch("[1-5][0-9][0-9]", status) for status in operation["responses"]), where
        assert all(response["description"] for response in operation["responses"].values()), where
        assert not operation["responses"].get("204", {}).get("content"), where
        parameters = operation.get("parameters", [])
        assert len({(one["name"], one["in"]) for one in parameters}) == len(parameters), where
        assert all("schema" in one and one["in"] in ("query", "path", "header") for one in parameters), where
        in_path = {one["name"] for one in parameters if one["in"] == "path" and one["required"]}
        assert in_path == set(re.findall(r"{(\w+)}", path)), where
        for requirement in operation.get("security", []):
            assert set(requirement) <= set(document["components"]["securitySchemes"]), where


async def test_every_schema_says_types_that_there_are_and_patterns_that_others_read(document: dict[str, Any]) -> None:
    for name, value in members([document["components"], document["paths"]]):
        if name == "type" and not isinstance(value, dict) and value not in ("http", "apiKey"):
            assert set([value] if isinstance(value, str) else value) <= TYPES
        if name == "pattern" and isinstance(value, str):
            # ECMA-262 has no \A and \Z.
            assert not re.search(r"\\[AZz]", value), value
            assert re.compile(value)


async def test_every_component_that_is_referred_to_exists(document: dict[str, Any]) -> None:
    referred = {value for name, value in members(document) if name == "$ref"}

    assert referred
    for reference in referred:
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


async def test_nothing_is_loaded_from_elsewhere(service: Client, document: dict[str, Any]) -> None:
    assert [value for _, value in members(document) if isinstance(value, str) and "://" in value] == []
    page = await service.http.get("/schema")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    style = re.search("<style>(.*?)</style>", page.text, re.DOTALL)
    assert style
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in policy
    assert not re.search(r"<(script|link|img|iframe|object)|\b(src|style|on\w+)=|url\(|https?:", page.text)
    for other in ("swagger", "redoc", "elements", "rapidoc"):
        assert (await service.http.get(f"/schema/{other}")).status_code == 404


async def test_the_page_has_every_route_and_schema_and_its_links_lead_somewhere(
    service: Client, document: dict[str, Any]
) -> None:
    page = await service.http.get("/schema", headers={"Authorization": ""})

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for path, method, operation in operations(document):
        assert f"<b>{method.upper()}</b> <code>{path}</code> {html.escape(operation['summary'])}" in page.text
    ids = re.findall(r'id="([^"]+)"', page.text)
    assert sorted(ids) == sorted(document["components"]["schemas"])
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= set(ids)


async def test_the_ingest_routes_are_described(document: dict[str, Any]) -> None:
    one = document["paths"]["/api/v1/agents/heartbeat"]["post"]
    many = document["paths"]["/api/v1/agents/heartbeats"]["post"]

    assert one["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Heartbeat"}
    items = many["requestBody"]["content"]["application/json"]["schema"]["items"]
    assert items == {"$ref": "#/components/schemas/Heartbeat"}
    assert set(document["components"]["schemas"]["Heartbeat"]["required"]) == {"server_id", "hostname"}
    assert set(document["components"]["schemas"]["NetworkInterface"]["required"]) == {
        "name", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "is_up",
    }  # fmt: skip
    for route in (one, many):
        assert set(route["responses"]) == {"200", "400", "401", "403", "408", "413", "415", "422", "429", "503"}
    heartbeat = document["components"]["schemas"]["Heartbeat"]["properties"]
    assert [one["type"] for one in heartbeat["os_info"]["oneOf"]] == ["object", "null"]
    assert heartbeat["network_interfaces"]["maxItems"] == 2_000


async def test_errors_are_documented_as_they_come(document: dict[str, Any]) -> None:
    expected = {
        "/api/v1/servers": {"200", "401", "422", "503"},
        "/api/v1/servers/{server_id}": {"200", "401", "404", "503"},
        "/api/v1/servers/{server_id}/config": {"200", "401", "404", "503"},
        "/api/v1/servers/{server_id}/quota": {"200", "401", "404", "503"},
        "/api/v1/usage": {"200", "401", "422", "503"},
        "/api/v1/usage/{server_id}": {"200", "401", "404", "422", "503"},
        "/api/v1/export/traffic": {"200", "401", "404", "422", "429", "501", "503"},
        "/api/v1/servers/{server_id}/interfaces": {"200", "401", "404", "422", "503"},
        "/api/v1/servers/{server_id}/interfaces/{name}": {"200", "401", "404", "503"},
        "/api/v1/servers/{server_id}/interfaces/{name}/stats": {"200", "401", "404", "422", "503"},
        "/api/v1/agents": {"200", "401", "422", "503"},
        "/api/v1/metrics/sparkline/network": {"200", "304", "401", "422", "503"},
        "/api/v1/metrics/sparkline/{server_id}/network": {"200", "304", "401", "404", "422", "503"},
        "/api/v1/metrics/sparkline/{server_id}/filesystem": {"200", "304", "401", "404", "422", "503"},
        "/api/v1/metrics/sparkline/{server_id}/network.svg": {"200", "304", "401", "404", "422", "503"},
        "/api/v1/metrics/sparkline/{server_id}/filesystem.svg": {"200", "304", "401", "404", "422", "503"},
        "/api/v1/traffic/history": {"200", "401", "404", "422", "503"},
        "/api/v1/traffic/summary": {"200", "304", "401", "404", "422", "503"},
        "/api/v1/traffic/latest": {"200", "401", "404", "422", "503"},
        "/api/v1/system/info": {"200", "304", "401", "503"},
        "/api/v1/system/definitions": {"200", "304", "401"},
    }

    for path, statuses in expected.items():
        assert set(document["paths"][path]["get"]["responses"]) == statuses | {"403", "429"}
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if status >= "400" and path.startswith("/api/") and path != "/api/v1/system/health":
                assert response["content"][MEDIA_TYPE]["schema"] == {"$ref": "#/components/schemas/ProblemBody"}


async def test_every_parameter_and_answer_is_described(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (where, parameter["name"])
    undescribed = [name for name, one in document["components"]["schemas"].items() if not one.get("description")]
    assert [name for name in undescribed if "properties" in document["components"]["schemas"][name]] == []


async def test_every_answer_has_an_example_of_just_its_fields(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for media_type, body in [pair for one in bodies for pair in one.get("content", {}).items()]:
            where = f"{method} {path}"
            if media_type == "text/plain" or body["schema"] == {"type": "string"}:
                continue  # a file
            if not body.get("examples") and "503" in operation["responses"] and "health" in path:
                continue  # what a failing service says has the fields of what a working one says
            (example,) = body["examples"].values()
            is_request = body is operation.get("requestBody", {}).get("content", {}).get(media_type)
            assert unlike(document, body["schema"], example["value"], is_whole=not is_request) == [], where


def unlike(document: dict[str, Any], schema: dict[str, Any], value: Any, *, is_whole: bool) -> list[str]:
    """Fields of a value that its schema lacks; and, of what is whole, those that it demands and the value lacks."""
    for one in schema.get("oneOf", ()):
        if not (found := unlike(document, one, value, is_whole=is_whole)):
            return found
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    if isinstance(value, list) and "items" in schema:
        return [line for one in value for line in unlike(document, schema["items"], one, is_whole=is_whole)]
    if isinstance(value, dict) and "properties" in schema:
        required = set(schema.get("required", ())) if is_whole else set()
        wrong = [*(value.keys() - schema["properties"].keys()), *(required - value.keys())]
        for name in value.keys() & schema["properties"].keys():
            wrong += unlike(document, schema["properties"][name], value[name], is_whole=is_whole)
        return wrong
    return ["no such value"] if isinstance(value, dict) and schema.get("type") not in (None, "object") else []
