"""Writes JSON numbers without exponents: an octet count of 1.792E+7 is valid JSON, but many parsers read a float.

Three writers use exponents for some numbers: msgspec for floats from 1e16 on and below 1e-5, msgspec for decimals
without trailing zeros, and PostgreSQL in its JSON functions. So they are rewritten in the text of the response, in the
only place that every response passes.
"""

import re
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response

# What may be an exponent. Most responses have nothing like it, and this search takes half the time of the next one.
_MAYBE = re.compile(rb"e[-+0-9]")
# The end of a number with an exponent in JSON. The search takes a millisecond per megabyte if there is none.
_ENDS = (re.compile(rb"e(?<=[0-9]e)[-+]?[0-9]+(?=[,\]}\s]|\Z)"), re.compile(rb"E(?<=[0-9]E)[-+]?[0-9]+(?=[,\]}\s]|\Z)"))
# A string, which is left alone, or a number with an exponent.
_STRING_OR_NUMBER = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|(-?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+)', re.DOTALL)
# A numeric of the database is written as a number.
_encode = msgspec.json.Encoder(decimal_format="number").encode


def plain_json(value: Any) -> bytes:
    """`value` as JSON without exponents, including the parts that are msgspec.Raw."""
    return plain(_encode(value))


def plain(json: bytes) -> bytes:
    """The same JSON with all digits of its numbers and without exponents."""
    if not (b"E" in json or _MAYBE.search(json)) or not any(end.search(json) for end in _ENDS):
        return json
    return _STRING_OR_NUMBER.sub(lambda found: _plain_number(found[1]) if found[1] else found[0], json)


async def with_plain_numbers(response: Response[Any]) -> Response[Any]:
    """Litestar's after_request: encodes the content that a handler returned as JSON.

    It awaits nothing, but Litestar would call a plain function in a thread, for every response.
    """
    if isinstance(response, Response) and isinstance(response.content, msgspec.Struct | list | dict):
        response.content = plain_json(response.content)
    return response


def _plain_number(number: bytes) -> bytes:
    return format(Decimal(number.decode()), "f").encode()
