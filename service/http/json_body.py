"""Reads and decodes JSON that a person or a script sends."""

from typing import Any

from litestar import Request

from service.http.body import JSON_TYPES, content, read
from service.http.decode import S, decode

MAX_BODY_BYTES = 16 << 10


async def body(request: Request[Any, Any, Any], expected: type[S], limit_bytes: int = MAX_BODY_BYTES) -> S:
    """The decoded body. Raises Problem as service.http.body.read and service.http.decode.decode do."""
    # Not by Litestar, which accepts "30" for 30 and answers 500 to deep nesting or invalid UTF-8.
    _, is_gzip = content(request.scope, JSON_TYPES)
    return decode(await read(request.scope, request.receive, limit_bytes, is_gzip=is_gzip), expected)
