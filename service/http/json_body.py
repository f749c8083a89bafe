"""Reads and decodes JSON that a person or a script sends."""

from collections.abc import Mapping
from typing import Any

from litestar import Request

from service.http.body import JSON_TYPES, content, read
from service.http.decode import S, decode, decode_by_kind

MAX_BODY_BYTES = 16 << 10


async def body(request: Request[Any, Any, Any], expected: type[S], limit_bytes: int = MAX_BODY_BYTES) -> S:
    """The decoded body. Raises Problem as service.http.body.read and service.http.decode.decode do."""
    return decode(await _bytes(request, limit_bytes), expected)


async def body_by_kind(
    request: Request[Any, Any, Any], kinds: Mapping[str, type[S]], limit_bytes: int = MAX_BODY_BYTES
) -> S:
    """The decoded body, of the type that its `kind` names. Raises Problem as `body` does."""
    return decode_by_kind(await _bytes(request, limit_bytes), kinds)


async def _bytes(request: Request[Any, Any, Any], limit_bytes: int) -> bytes:
    # Not by Litestar, which accepts "30" for 30 and answers 500 to deep nesting or invalid UTF-8.
    _, is_gzip = content(request.scope, JSON_TYPES)
    return await read(request.scope, request.receive, limit_bytes, is_gzip=is_gzip)
