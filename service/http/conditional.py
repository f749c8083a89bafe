"""Conditional requests and content coding: entity tags, and whether the client accepts gzip."""

import re
from hashlib import blake2b
from typing import Any

from litestar import Request
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Scope

from service.http.errors import Problem

NOT_MODIFIED = {304: ResponseSpec(None, generate_examples=False, description="The client's copy is still current.")}


def tag_of(body: bytes) -> str:
    """The strong tag of these bytes (RFC 9110, 8.8.3)."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def has_tag(if_none_match: str, etag: str) -> bool:
    """RFC 9110, 13.1.2: a list of tags, compared weakly, or any."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]


def accepts_gzip(scope: Scope) -> bool:
    """Whether the client accepts gzip (RFC 9110, 12.5.3); `q=0` rejects it."""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            for one in value.lower().split(b","):
                coding, _, weight = one.partition(b";")
                if coding.strip() == b"gzip" and not re.fullmatch(rb"\s*q=0(\.0*)?\s*", weight):
                    return True
    return False


# linkbeat.version_of of nothing: what If-None-Match: * asks for.
NOTHING = "37a6259cc0c1dae2"
_VERSION = re.compile(r'\s*(?:W/)?"([0-9a-f]{16})"\s*')


def version_header(version: str) -> dict[str, str]:
    """The ETag of an object that is changed as a whole."""
    return {"ETag": f'"{version}"'}


def seen_version(request: Request[Any, Any, Any]) -> str | None:
    """The version that the client has seen, for linkbeat.check_version: of If-Match, or of If-None-Match: *, which says
    that there was none. None: neither, or If-Match: *. Raises Problem (422) for anything else."""
    if (match := request.headers.get("if-match")) is not None and match.strip() != "*":
        found = _VERSION.fullmatch(match)
        if found is None:
            raise Problem.invalid("If-Match", 'expected one ETag of this resource, such as "0123456789abcdef", or *')
        return found[1]
    return NOTHING if request.headers.get("if-none-match", "").strip() == "*" else None
