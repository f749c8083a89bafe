"""Decodes bodies that a person or a script sends, and reports errors field by field."""

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import msgspec

from service.http.errors import Problem
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


class _Kind(msgspec.Struct):
    """Of a body, what says which type the rest has."""

    kind: str


def decode_by_kind(body: bytes, kinds: Mapping[str, type[S]]) -> S:
    """A struct of one of several types, which the body's `kind` names. Raises Problem as `decode` does."""
    kind = decode(body, _Kind).kind
    if kind not in kinds:
        raise Problem.invalid("kind", f"expected one of {', '.join(kinds)}, got {kind[:100]!r}")
    return decode(body, kinds[kind])


@cache
def _decoder(expected: type[S]) -> msgspec.json.Decoder[S]:
    return msgspec.json.Decoder(expected)
