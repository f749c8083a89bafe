"""Errors as clients see them: problem details (RFC 9457) with a stable code."""

import logging
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from service.http.log_limit import limited

MEDIA_TYPE = "application/problem+json"
# Headers of every response that sets no others, errors among them: no cache keeps it, and no browser guesses its type.
PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

# code: status and title. The codes are a contract; the wording of a title is not.
CODES: dict[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is not JSON"),
    "invalid_gzip": (400, "The body is not gzip"),
    "bad_request": (400, "The request is malformed"),
    "unauthorized": (401, "A valid token is required"),
    "forbidden": (403, "The token does not allow this"),
    "not_found": (404, "The resource does not exist"),
    "unknown_server": (404, "The server is unknown"),
    "method_not_allowed": (405, "The resource does not support this method"),
    "server_exists": (409, "The server already exists"),
    "linked": (409, "A link applies to the interface already"),
    "replaced": (409, "The server was replaced by another one already"),
    "overlap": (409, "Both interfaces have samples at the same time"),
    "managed_by_file": (409, "A file manages the resource"),
    "changed": (412, "The resource was changed by somebody else"),
    "request_timeout": (408, "The body did not arrive in time"),
    "too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The type of the body is not supported"),
    "invalid": (422, "The request is invalid"),
    "clock_future": (422, "The timestamp is in the future"),
    "too_old": (422, "The timestamp is too old"),
    "too_many_requests": (429, "Too many requests"),
    "too_many_exports": (429, "Too many exports are running"),
    "internal": (500, "Internal error"),
    "parquet_missing": (501, "Parquet is not installed"),
    "overloaded": (503, "Too many heartbeats are waiting"),
    "database_unavailable": (503, "The database is unavailable"),
}


class FieldError(msgspec.Struct, frozen=True):
    """An invalid field: `network_interfaces[0].rx_bytes`, `expected int, got str`."""

    path: str
    reason: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Problem details, RFC 9457; `code` names the kind of error and never changes."""

    code: str
    status: int
    title: str
    type: str = "about:blank"
    detail: str = ""
    errors: list[FieldError] = []


@dataclass
class Problem(Exception):
    """An error response. `code` is one of CODES."""

    code: str
    detail: str = ""
    errors: list[FieldError] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def invalid(cls, path: str, reason: str, code: str = "invalid") -> "Problem":
        """One field is invalid."""
        return cls(code, f"{path}: {reason}" if path else reason, [FieldError(path, reason)])

    @classmethod
    def retry(cls, code: str, detail: str, after_seconds: int) -> "Problem":
        """The same request may succeed later."""
        return cls(code, detail, headers={"Retry-After": str(after_seconds)})

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    def body(self) -> bytes:
        status, title = CODES[self.code]
        return msgspec.json.encode(
            ProblemBody(code=self.code, status=status, title=title, detail=self.detail, errors=self.errors)
        )


def field_error(raised: msgspec.ValidationError, path: str) -> FieldError:
    """Converts a message of msgspec: "Expected `int`, got `str` - at `$.a`" becomes a, "expected int, got str"."""
    reason, _, place = str(raised).partition(" - at `$")
    reason = reason.replace("`", "")
    return FieldError(f"{path}{place.rstrip('`')}".lstrip("."), reason[:1].lower() + reason[1:])


_BY_STATUS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}


# Litestar reports a missing parameter in the text of the exception only.
_MISSING = re.compile(r"^Missing required \w+ parameter '([^']+)'")


def _response(problem: Problem) -> Response[bytes]:
    return Response(problem.body(), status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def on_problem(_: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    """A problem that a handler raised."""
    return _response(problem)


def on_validation(_: Request[Any, Any, Any], raised: ValidationException) -> Response[bytes]:
    """A parameter that Litestar could not parse: 422 with its name instead of Litestar's own 400."""
    if missing := _MISSING.search(raised.detail):
        return _response(Problem.invalid(missing[1], "is required"))
    errors = [
        FieldError(str(entry.get("key", "")), _reason(str(entry.get("message", ""))))
        for entry in raised.extra or []
        if isinstance(entry, dict)
    ]
    return _response(Problem("invalid", "; ".join(f"{e.path}: {e.reason}" for e in errors), errors))


def on_http_exception(_: Request[Any, Any, Any], raised: HTTPException) -> Response[bytes]:
    """An exception of the framework: no such route, no such method."""
    code = _BY_STATUS.get(raised.status_code, "internal" if raised.status_code >= 500 else "bad_request")
    return _response(Problem(code, raised.detail, headers=dict(raised.headers or {})))


def on_bug(request: Request[Any, Any, Any], raised: Exception) -> Response[bytes]:
    """Any other exception. The response reveals nothing of it; the log has the traceback."""
    key = ("bug", type(raised).__name__, request.method)
    limited(logging.ERROR, key, "%s %s failed", request.method, request.url.path, exc_info=raised)
    return _response(Problem("internal", "the error is in the log"))


def _reason(message: str) -> str:
    """Converts a message of msgspec: "Expected `int`, got `str`" becomes "expected int, got str"."""
    plain = message.split(" - at `", maxsplit=1)[0].replace("`", "")
    return plain[:1].lower() + plain[1:]


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    Problem: on_problem,
    ValidationException: on_validation,
    HTTPException: on_http_exception,
    Exception: on_bug,
}
