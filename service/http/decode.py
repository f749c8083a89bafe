"""Decodes bodies that a person or a script sends, and reports errors field by field."""

from functools import cache
from typing import TypeVar

import msgspec

from service.http.refusal import not_as_specified, not_json

S = TypeVar("S", bound=msgspec.Struct)


def decode(body: bytes, expected: type[S]) -> S:
    """Decodes `body` into `expected`, a struct whose types express all of its constraints.

    Raises Problem: 400 if the body is not JSON, 422 with every invalid field.
    """
    try:
        decoded: S = _decoder(expected).decode(body)
    except msgspec.ValidationError as raised:
        raise not_as_specified(body, raised, expected) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise not_json(raised) from None
    return decoded


@cache
def _decoder(expected: type[S]) -> msgspec.json.Decoder[S]:
    return msgspec.json.Decoder(expected)
