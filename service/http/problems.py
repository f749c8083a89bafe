"""The errors that routes document, each with an example."""

import json
from typing import Self

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from service.http.errors import MEDIA_TYPE, Problem, ProblemBody

_WORDS = {
    400: "The body cannot be read: it is not JSON, or not the gzip that it says.",
    401: "No valid token.",
    403: "The token does not allow this.",
    404: "There is no such server, or token.",
    409: "The server is already known.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body's type is not understood.",
    422: "Not as specified: `errors` names every field.",
    429: "Too many requests with this token, wrong ones from this address, or exports; `Retry-After` says when.",
    501: "What it needs is not installed: `detail` says how to.",
    503: "The database is away; come again after `Retry-After` seconds.",
}

_PROBLEMS = {
    400: Problem("invalid_json", "at byte 17: unexpected end of data"),
    403: Problem("forbidden", "it takes a token that may read"),
    409: Problem(
        "server_exists", "'mediaserver' is already known; create another token for it with POST /api/v1/tokens"
    ),
    429: Problem("too_many_requests", "this token's requests are too many"),
    401: Problem("unauthorized", "send a valid token as 'Authorization: Bearer …'"),
    404: Problem("unknown_server", "no server 'mediaserver' ever sent a heartbeat"),
    408: Problem("request_timeout", "the body did not arrive in time"),
    413: Problem("too_large", "at most 1048576 bytes are taken"),
    415: Problem("unsupported_media_type", "send application/json"),
    422: Problem.invalid("network_interfaces[0].rx_bytes", "expected int, got str"),
    501: Problem("parquet_missing", "pip install 'linkbeat[parquet]'"),
    503: Problem("database_unavailable", "the database did not answer in time"),
}


class Documented(ResponseSpec):
    """An answer that many routes have. Litestar copies routers with all that their handlers hold, again and again."""

    def __deepcopy__(self, _: object) -> Self:
        return self


_DOCUMENTED = {
    status: Documented(
        ProblemBody,
        generate_examples=False,
        description=_WORDS[status],
        media_type=MEDIA_TYPE,
        examples=[Example(value=json.loads(problem.body()))],
    )
    for status, problem in _PROBLEMS.items()
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors that a route documents."""
    return {status: _DOCUMENTED[status] for status in statuses}
