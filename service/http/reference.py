"""/schema: the OpenAPI document as a page to read. It has no script and loads nothing: its style stands in it."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

import msgspec
from litestar import MediaType, Request, Router
from litestar.datastructures import ResponseHeader
from litestar.openapi.plugins import OpenAPIRenderPlugin

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: var(--soft); overflow-x: auto; padding: .6rem; white-space: pre-wrap; }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; }
details { border: 1px solid var(--line); border-radius: .3rem; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary b { display: inline-block; min-width: 4.6rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem .25rem 0; text-align: left; vertical-align: top; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_METHODS = ("get", "post", "put", "patch", "delete")


class ReferencePlugin(OpenAPIRenderPlugin):
    """The page, made once; and headers that keep all of /schema from loading anything."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)
        self._page: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._page is None:
            self._page = page(openapi_schema).encode()
        return self._page

    def receive_router(self, router: Router) -> None:
        router.response_headers = [
            ResponseHeader(name="Content-Security-Policy", value=_POLICY),
            ResponseHeader(name="X-Content-Type-Options", value="nosniff"),
        ]


def page(document: dict[str, Any]) -> str:
    """The document as HTML: every route by its tag, with its parameters, bodies and answers; then every schema."""
    return "".join(_page(document))


def _page(document: dict[str, Any]) -> Iterator[str]:
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: API</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main>'
    yield f"<h1>{title}</h1><p>{escape(document['info'].get('description', ''))}</p>"
    yield '<p>Machines read <a href="/schema/openapi.json">/schema/openapi.json</a> (OpenAPI).</p>'
    operations: list[tuple[str, str, str, dict[str, Any]]] = [
        (tag, path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
        for tag in operation.get("tags", ["other"])
    ]
    for tag in sorted({tag for tag, *_ in operations}):
        yield f"<h2>{escape(tag.capitalize())}</h2>"
        for of, path, method, operation in sorted(operations, key=lambda one: one[:3]):
            if of == tag:
                yield from _operation(path, method, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<details id="{escape(name)}"><summary>{escape(name)}</summary>{_prose(schema)}'
        required = set(schema.get("required", ()))
        yield from _table(
            (
                member_name,
                _type(member) + ("" if member_name in required else ", optional"),
                member.get("description", ""),
            )
            for member_name, member in schema.get("properties", {}).items()
        )
        if "properties" not in schema:
            yield f"<p>{_type(schema)}</p>"
        yield "</details>"
    yield "</main></body></html>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    words = escape(operation["summary"])
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> {words}</summary>"
    yield _prose(operation)
    yield f"<p>{'Needs a key.' if any(operation.get('security') or ()) else 'Needs no key.'}</p>"
    yield from _table(
        (
            one["name"],
            f"{one['in']}, {_type(one['schema'])}" + ("" if one.get("required") else ", optional"),
            one.get("description", ""),
        )
        for one in operation.get("parameters", ())
    )
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body: {escape(media_type)}, {_type(body.get('schema', {}))}</p>{_examples(body)}"
    for status, response in sorted(operation["responses"].items()):
        yield f"<div><b>{escape(status)}</b> {escape(response['description'])}"
        for media_type, body in response.get("content", {}).items():
            yield f" {escape(media_type)}: {_type(body.get('schema', {}))}{_examples(body)}"
        yield "</div>"
    yield "</details>"


def _table(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    made = [f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(words)}" for name, kind, words in rows]
    if made:
        yield f"<table><tr><th>name<th>type<th>meaning{''.join(made)}</table>"


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return " or ".join(_type(one) for one in schema[word])
    kind = schema.get("type", "anything")
    words = " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)
    if "items" in schema:
        words = f"list of {_type(schema['items'])}"
    limits = [
        f"{said} {escape(str(schema[name]))}"
        for name, said in (
            ("minimum", "from"), ("maximum", "to"), ("minLength", "at least"), ("maxLength", "at most"),
            ("pattern", "as"), ("format", "as"), ("default", "default"),
        )
        if schema.get(name) is not None
    ]  # fmt: skip
    if schema.get("enum"):
        limits.append("one of " + ", ".join(escape(str(one)) for one in schema["enum"]))
    return ", ".join([words, *limits])


def _prose(described: dict[str, Any]) -> str:
    return f"<pre>{escape(described['description'])}</pre>" if described.get("description") else ""


def _examples(body: dict[str, Any]) -> str:
    return "".join(
        f"<pre>{escape(msgspec.json.format(msgspec.json.encode(one['value']), indent=1).decode())}</pre>"
        for one in body.get("examples", {}).values()
        if one.get("value")
    )
