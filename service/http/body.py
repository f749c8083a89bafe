"""Reads the bodies of requests: checks type and encoding, and never reads more bytes than allowed."""

import asyncio
import zlib
from typing import Any

from litestar.types import Receive, Scope

from service.http.budget import Held
from service.http.deadlines import Deadlines
from service.http.errors import Problem

BODY_SECONDS = 8.0
JSON_TYPES = {b"application/json", b""}
INFLATED_AT_ONCE = 256 << 10  # about a millisecond's work, after which other tasks get a turn
# A gzip file may consist of several members. Each member has a fixed cost, and without a limit eight megabytes of empty
# members would be 400,000 of them.
MAX_MEMBERS = 100
# The content coding that the ingest routes accept; each of their responses names it (RFC 9110 section 12.5.3, RFC
# 7694).
ACCEPTED = (b"accept-encoding", b"gzip")

# Closing the connection saves reading the rest of the body.
_CLOSE = {"Connection": "close"}
_GZIP = 16 + zlib.MAX_WBITS
_bodies = Deadlines(BODY_SECONDS)


def content(scope: Scope, allowed: set[bytes]) -> tuple[bytes, bool]:
    """The body's media type, "" if none is named, and whether the body is gzip.

    Raises Problem (415) if the type or the encoding is not supported.
    """
    media_type = encoding = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
        elif name == b"content-encoding":
            encoding += b"," + value
    if media_type not in allowed:
        expected = " or ".join(sorted(one.decode() for one in allowed if one))
        raise Problem("unsupported_media_type", f"expected {expected}, got {media_type.decode('latin-1')}")
    return media_type, bool(encoding) and _is_gzip(encoding)


def _is_gzip(encoding: bytes) -> bool:
    applied = [one for one in map(bytes.strip, encoding.lower().split(b",")) if one not in (b"", b"identity")]
    if applied and applied not in ([b"gzip"], [b"x-gzip"]):
        raise Problem("unsupported_media_type", "Content-Encoding must be gzip or identity")
    return bool(applied)


async def read(scope: Scope, receive: Receive, limit: int, *, is_gzip: bool, held: Held | None = None) -> bytes:
    """The whole body, decompressed; `held` accounts for its memory.

    Raises Problem: 413 above `limit` bytes, compressed or decompressed; 400 if it is not valid gzip; 408 if it does not
    arrive in time; 503 and 429 as `held` does.
    """
    length = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise Problem("bad_request", "Content-Length is not a number", headers=_CLOSE)
            if len(value) > 18 or (length := int(value)) > limit:
                raise _too_large(limit)
    if held is not None:
        held.expect(None if is_gzip else length)
    try:
        with _bodies:
            message: Any = await receive()
            chunk: bytes = message.get("body", b"")
            chunks, size = [chunk], len(chunk)
            while size <= limit:
                if held is not None:
                    held.arrived(len(chunk))
                if not message.get("more_body", False):
                    break
                message = await _next(receive)
                chunk = message.get("body", b"")
                chunks.append(chunk)
                size += len(chunk)
            else:
                raise _too_large(limit)
    except TimeoutError:
        reason = f"the body did not arrive within {BODY_SECONDS:.0f} seconds"
        raise Problem("request_timeout", reason, headers=_CLOSE) from None
    if is_gzip:
        chunks = await _inflated(chunks, limit, held)
    if held is not None:
        held.is_read()
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _inflated(chunks: list[bytes], limit: int, held: Held | None) -> list[bytes]:
    """Decompresses a complete body. An incomplete body holds only its compressed bytes, not a thousand times as
    many."""
    pieces: list[bytes] = []
    size = 0
    member, members = zlib.decompressobj(_GZIP), 1
    chunks.reverse()
    while chunks:
        rest = chunks.pop()
        while rest:
            if member.eof:
                member, members = zlib.decompressobj(_GZIP), members + 1
                if members > MAX_MEMBERS:
                    raise _not_gzip(f"more than {MAX_MEMBERS} members")
            try:
                pieces.append(member.decompress(rest, min(INFLATED_AT_ONCE, limit + 1 - size)))
            except zlib.error as raised:
                raise _not_gzip(str(raised)) from None
            size += len(pieces[-1])
            if size > limit:
                raise _too_large(limit)
            if held is not None:
                held.grow(len(pieces[-1]))
            rest = member.unused_data if member.eof else member.unconsumed_tail
            if size >= INFLATED_AT_ONCE:
                await asyncio.sleep(0)
    if not member.eof:
        raise _not_gzip("it ends early")
    return pieces


async def _next(receive: Receive) -> Any:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Problem("bad_request", "the connection was closed before the end of the body")
    return message


def _not_gzip(reason: str) -> Problem:
    return Problem("invalid_gzip", f"Content-Encoding is gzip, but the body is not: {reason}", headers=_CLOSE)


def _too_large(limit: int) -> Problem:
    return Problem("too_large", f"the body may have at most {limit} bytes", headers=_CLOSE)
