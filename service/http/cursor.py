"""Cursors: the position at which a list continues, as text that clients send back unchanged."""

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from service.http.errors import Problem

T = TypeVar("T")


def write(*values: Any) -> str:
    """Encodes values as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode()


def read(cursor: str, kind: type[T], parameter: str = "after") -> T:
    """The values that `write` was given, as a tuple of type `kind`. Raises Problem (422) for an invalid cursor."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor.encode()), type=kind)
    except (ValueError, OverflowError, binascii.Error, msgspec.MsgspecError, UnicodeError) as raised:
        raise Problem.invalid(parameter, "is not the `next` of a page of this list") from raised
