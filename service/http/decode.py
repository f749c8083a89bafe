"""Bytes to what a person or a script sends; errors are said field by field."""

from functools import cache
from typing import TypeVar

import msgspec

from service.http.refusal import not_as_specified, not_json

S = TypeVar("S", bound=msgspec.Struct)


def decode(body: bytes, expected: type[S]) -> S:
    """The struct that a person or a script sends.

    Only for structs that nothing can be wrong with that the types do not say.

    Raises Problem: 400 where the body is not JSON, 422 with every field that is not as specified.
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
