"""Writes types/api.d.ts from the OpenAPI document: `make docs`. tsc checks the dashboard's requests and answers by it.

A test holds the committed file to the document.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import Settings

DECLARATIONS = Path(__file__).parents[1] / "types" / "api.d.ts"
_METHODS = ("get", "post", "put", "delete")
_TYPES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_HEAD = """\
// Generated from the OpenAPI document by `make docs`; a test compares the two.
//
// The schemas; and of each route, by method, what a request gives (`asked`) and what it is answered (`answer`).
declare namespace Api {
"""


def document() -> dict[str, Any]:
    """The OpenAPI document of a service without a database."""
    with tempfile.TemporaryDirectory() as directory:
        app = create_app(Settings(api_key="key-of-no-service", data_dir=directory), database_url="", key="")
        return app.openapi_schema.to_schema()


def declarations(described: Mapping[str, Any]) -> str:
    """TypeScript declarations of every schema and of every route that answers JSON or nothing."""
    return "\n".join([_HEAD.rstrip(), *_schemas(described), *_routes(described), "}", ""])


def _schemas(described: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in sorted(described["components"]["schemas"].items()):
        if "properties" in schema:
            yield f"  interface {name} {{"
            yield from (f"    {member}" for member in _members(schema))
            yield "  }"
        else:
            yield f"  type {name} = {_type(schema)};"


def _routes(described: Mapping[str, Any]) -> Iterator[str]:
    for method in _METHODS:
        yield f"  interface {method.capitalize()} {{"
        for path, item in sorted(described["paths"].items()):
            answer = _answer(item.get(method, {}))
            if answer is not None:
                yield f"    {json.dumps(path)}: {{ asked: {_asked(item[method])}; answer: {answer} }};"
        yield "  }"


def _answer(operation: Mapping[str, Any]) -> str | None:
    """The type of the answer; None for a file, and for no such operation."""
    for status in ("200", "201", "204"):
        response = operation.get("responses", {}).get(status)
        if response is not None:
            if not response.get("content"):
                return "null"
            body = response["content"].get("application/json")
            return None if body is None else _type(body["schema"])
    return None


def _asked(operation: Mapping[str, Any]) -> str:
    parts = []
    for place in ("path", "query"):
        given = [one for one in operation.get("parameters", ()) if one["in"] == place]
        members = [
            f"{json.dumps(one['name'])}{'' if one.get('required') else '?'}: {_given(one)}"
            for one in sorted(given, key=lambda one: str(one["name"]))
        ]
        if members:
            is_optional = not any(one.get("required") for one in given)
            parts.append(f"{place}{'?' if is_optional else ''}: {{ {'; '.join(members)} }}")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        parts.append(f"body: {_type(body['schema'])}")
    return f"{{ {'; '.join(parts)} }}" if parts else "{}"


def _given(parameter: Mapping[str, Any]) -> str:
    """A parameter's type; one that may be left out may be null, and is left out then."""
    kind = _type(parameter["schema"])
    return kind if parameter.get("required") or "null" in kind.split(" | ") else f"{kind} | null"


def _members(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    for name, member in schema["properties"].items():
        yield f"{json.dumps(name)}{'' if name in required else '?'}: {_type(member)};"


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if alternatives := schema.get("oneOf") or schema.get("anyOf"):
        return _union(_type(one) for one in alternatives)
    if literals := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return _union(json.dumps(one) for one in literals)
    kind = schema.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        return _union(_type({**schema, "type": one}) for one in kind)
    if kind == "array":
        return f"Array<{_type(schema.get('items', {}))}>"
    return _object(schema) if kind == "object" else _TYPES.get(str(kind), "unknown")


def _object(schema: Mapping[str, Any]) -> str:
    if "properties" in schema:
        return f"{{ {' '.join(_members(schema))} }}"
    values = schema.get("additionalProperties")
    return f"Record<string, {_type(values) if isinstance(values, Mapping) else 'unknown'}>"


def _union(kinds: Iterator[str]) -> str:
    return " | ".join(dict.fromkeys(kinds))


def main() -> int:
    """Writes the file."""
    DECLARATIONS.write_text(declarations(document()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
