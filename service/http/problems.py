"""The errors that routes document, each with an example."""

import json
from typing import Self

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from service.http.errors import MEDIA_TYPE, Problem, ProblemBody

# Of each status: its description, and an example.
_DOCUMENTS: dict[int, tuple[str, Problem]] = {
    400: (
        "The body cannot be read: it is not JSON, or not gzip as its Content-Encoding says.",
        Problem("invalid_json", "at byte 17: unexpected end of data"),
    ),
    401: ("No valid token.", Problem("unauthorized", "send a valid token as 'Authorization: Bearer …'")),
    403: ("The token does not allow this.", Problem("forbidden", "this needs a token with the 'read' permission")),
    404: (
        "There is no such server or token.",
        Problem("unknown_server", "no server 'mediaserver' ever sent a heartbeat"),
    ),
    408: ("The body did not arrive in time.", Problem("request_timeout", "the body did not arrive in time")),
    409: (
        "The server already exists.",
        Problem(
            "server_exists", "server 'mediaserver' already exists; POST /api/v1/tokens creates another token for it"
        ),
    ),
    412: (
        "Someone else has changed it since the version in If-Match: get the current version.",
        Problem("changed", "it has changed since you read it: get the current version and repeat your change"),
    ),
    413: ("The body is too large.", Problem("too_large", "the body may have at most 1048576 bytes")),
    415: ("The type of the body is not supported.", Problem("unsupported_media_type", "send application/json")),
    422: (
        "The request is invalid: `errors` names every invalid field.",
        Problem.invalid("network_interfaces[0].rx_bytes", "expected int, got str"),
    ),
    429: (
        "Too many requests, wrong tokens or concurrent exports; retry after `Retry-After` seconds.",
        Problem("too_many_requests", "too many requests with this token"),
    ),
    501: (
        "An optional package is not installed: `detail` names the command that installs it.",
        Problem("parquet_missing", "Parquet needs pyarrow: pip install 'linkbeat[parquet]'"),
    ),
    503: (
        "The database is unavailable; retry after `Retry-After` seconds.",
        Problem("database_unavailable", "the database did not answer in time"),
    ),
}


class Documented(ResponseSpec):
    """A response that many routes share. It is not copied, because Litestar copies each router many times."""

    def __deepcopy__(self, _: object) -> Self:
        return self


_DOCUMENTED = {
    status: Documented(
        ProblemBody,
        generate_examples=False,
        description=description,
        media_type=MEDIA_TYPE,
        examples=[Example(value=json.loads(problem.body()))],
    )
    for status, (description, problem) in _DOCUMENTS.items()
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors that a route documents."""
    return {status: _DOCUMENTED[status] for status in statuses}
