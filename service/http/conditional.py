"""Conditional requests and content coding: entity tags, and whether the client accepts gzip."""

import re
from hashlib import blake2b

from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Scope

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
