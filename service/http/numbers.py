"""JSON whose numbers are plain: an octet count of 1.792E+7 is valid JSON, and no integer to many who read it.

Numbers come from three writers, and each has an exponent for some: msgspec for floats from 1e16 and below 1e-5 and for
decimals without their last zeros, PostgreSQL for what its own JSON functions write. So they are put right in the text
that goes out, in the one place that every answer passes.
"""

import re
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response

# The end of such a number as it stands in JSON. A millisecond for a megabyte, as long as there is none.
_ENDS = (re.compile(rb"e(?<=[0-9]e)[-+]?[0-9]+(?=[,\]}\s]|\Z)"), re.compile(rb"E(?<=[0-9]E)[-+]?[0-9]+(?=[,\]}\s]|\Z)"))
# A string, which stays as it is, or such a number.
_STRING_OR_NUMBER = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|(-?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+)', re.DOTALL)
# What the database has as numeric is a number.
_encode = msgspec.json.Encoder(decimal_format="number").encode


def plain_json(value: Any) -> bytes:
    """`value` as JSON without exponents; what is in it as msgspec.Raw included."""
    return plain(_encode(value))


def plain(json: bytes) -> bytes:
    """The same JSON, its numbers without exponents and with all their digits."""
    if not any(end.search(json) for end in _ENDS):
        return json
    return _STRING_OR_NUMBER.sub(lambda found: _plain_number(found[1]) if found[1] else found[0], json)


def with_plain_numbers(response: Response[Any]) -> Response[Any]:
    """Litestar's after_request: what a handler answers with, as JSON."""
    if isinstance(response, Response) and isinstance(response.content, msgspec.Struct | list | dict):
        response.content = plain_json(response.content)
    return response


def _plain_number(number: bytes) -> bytes:
    return format(Decimal(number.decode()), "f").encode()
