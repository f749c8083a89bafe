"""Finds every error in a body, field by field; a decoder stops at the first.

The search works on the bytes: a body of a megabyte of brackets is never decoded into objects.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, get_origin

import msgspec

from service.http.errors import FieldError, Problem, field_error
from service.http.os_info import checked
from service.wire import HINTS, MAX_COUNTER, MAX_STACKED_ON, NetworkInterface

MAX_ERRORS = 100  # listed for one body: a megabyte of {} could hold two million
LISTED_BYTES = 256 << 10  # for a larger body only the first error is reported: finding the others takes as long again
MAX_PATH = 250  # characters: the client chooses the keys and their length

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
NAMES = ("hostname", "server_guid")  # texts without a pattern in which control characters are not allowed

_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Below(msgspec.Struct, frozen=True):
    """The fields of an interface that are compared with those of the other interfaces of its heartbeat."""

    name: str | None = None
    stacked_on: msgspec.Raw = msgspec.Raw(b"null")


_decode_below = msgspec.json.Decoder(_Below).decode
_decode_names = msgspec.json.Decoder(list[str] | None).decode


def not_json(raised: Exception) -> Problem:
    """400, for an exception of a decoder that is not a ValidationError."""
    if isinstance(raised, RecursionError):
        return Problem("invalid_json", "the body is nested too deeply")
    if isinstance(raised, UnicodeDecodeError):
        return Problem("invalid_json", "the body is not UTF-8")
    return Problem("invalid_json", str(raised))


def not_as_specified(
    body: bytes, first: msgspec.ValidationError | FieldError, expected: type[msgspec.Struct]
) -> Problem:
    """422 with up to MAX_ERRORS invalid fields, or `first` if none is found; 400 if the body is not JSON.

    For a body above LISTED_BYTES, `first` only.
    """
    only = [first if isinstance(first, FieldError) else field_error(first, "")]
    if len(body) > LISTED_BYTES:
        return _invalid(only)
    try:
        _decode_raw(body)
        body.decode()  # the decoder of Raw does not check strings
        errors = list(islice(_wrong(body.lstrip(), expected, ""), MAX_ERRORS))
    except _NOT_JSON as raised:
        return not_json(raised)
    return _invalid(errors or only)


def _invalid(errors: list[FieldError]) -> Problem:
    shown = "; ".join(f"{error.path}: {error.reason}" if error.path else error.reason for error in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    return Problem("invalid", shown + more + (" or more" if len(errors) == MAX_ERRORS else ""), errors)


class _Field(NamedTuple):
    """A field of a struct: `decode` decodes its value; `items` is the type of its items if it is a list of structs."""

    name: str
    is_required: bool
    decode: Any
    struct: type[msgspec.Struct] | None
    items: type[msgspec.Struct] | None
    most: int
    is_raw: bool


@cache
def _fields(struct: type[msgspec.Struct]) -> tuple[_Field, ...]:
    """All fields except hints: an invalid hint is ignored."""
    hints = HINTS.get(struct, ())
    return tuple(_field(one) for one in msgspec.structs.fields(struct) if one.name not in hints)


def _field(one: msgspec.structs.FieldInfo) -> _Field:
    inner, most = one.type, 0
    if type(None) in (arguments := getattr(inner, "__args__", ())):
        (inner,) = (argument for argument in arguments if argument is not type(None))
    for meta in getattr(inner, "__metadata__", ()):
        most = meta.max_length or 0
    items = None
    plain = getattr(inner, "__origin__", inner) if most else inner
    if get_origin(plain) is list and _is_struct(plain.__args__[0]):
        items = plain.__args__[0]
    struct = inner if _is_struct(inner) else None
    decode = msgspec.json.Decoder(one.type).decode
    return _Field(one.encode_name, one.required, decode, struct, items, most, inner is msgspec.Raw)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


@cache
def _loose(struct: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    """Decodes the fields of a struct as raw JSON and skips unknown ones."""
    fields = [(one.name, msgspec.Raw, None) for one in _fields(struct)]
    return msgspec.json.Decoder(msgspec.defstruct(f"_Loose{struct.__name__}", fields))


@cache
def _items(most: int) -> msgspec.json.Decoder[Any]:
    """Decodes up to `most` + 1 items of an array as raw JSON and skips the others."""
    fields = [(f"item_{n}", msgspec.Raw, None) for n in range(most + 1)]
    return msgspec.json.Decoder(msgspec.defstruct("_Items", fields, array_like=True))


def _wrong(raw: bytes, struct: type[msgspec.Struct], path: str) -> Iterator[FieldError]:
    """The errors in `raw`, which should be a `struct`."""
    if raw[:1] != b"{":
        return  # the caller reports the wrong type
    is_strict = struct.__struct_config__.forbid_unknown_fields
    members = _decode_members(raw) if is_strict else msgspec.structs.asdict(_loose(struct).decode(raw))
    for field in _fields(struct):
        below = f"{path}.{field.name}".lstrip(".")
        if (value := members.get(field.name)) is not None:
            yield from _wrong_value(bytes(value), field, below)
        elif field.is_required:
            yield FieldError(below, "is missing")
    if is_strict:
        known = {field.name for field in _fields(struct)}
        yield from (
            FieldError(_below(path, f".{name}" if path else name), "is not known")
            for name in members
            if name not in known
        )


def _wrong_value(raw: bytes, field: _Field, path: str) -> Iterator[FieldError]:
    if field.struct is not None and raw[:1] == b"{":
        yield from _wrong(raw, field.struct, path)
    elif field.items is not None and raw[:1] == b"[":
        yield from _wrong_items(raw, field.items, field.most, path)
    elif field.is_raw:
        error, _ = checked(msgspec.Raw(raw))
        if error is not None:
            yield error
    else:
        try:
            value = field.decode(raw)
        except msgspec.ValidationError as raised:
            yield field_error(raised, path)
            return
        if isinstance(value, int) and value > MAX_COUNTER:
            yield FieldError(path, f"expected int <= {MAX_COUNTER}")
        elif isinstance(value, str) and path in NAMES and CONTROL.search(value):
            yield FieldError(path, "contains a control character")


def _wrong_items(raw: bytes, struct: type[msgspec.Struct], most: int, path: str) -> Iterator[FieldError]:
    found = msgspec.structs.astuple(_items(most).decode(raw))
    items = [bytes(item) for item in found if item is not None]
    if len(items) > most:
        yield FieldError(path, f"has more than {most} items")
        return  # the items are not checked
    decode = _decoder(struct)
    for index, item in enumerate(items):
        if item[:1] == b"{":
            yield from _wrong(item, struct, f"{path}[{index}]")
            continue
        try:
            decode(item)
        except msgspec.ValidationError as raised:
            yield field_error(raised, f"{path}[{index}]")
    if struct is NetworkInterface:
        yield from _compared(items, path)


@cache
def _decoder(struct: type[msgspec.Struct]) -> Any:
    return msgspec.json.Decoder(struct).decode


def _compared(interfaces: list[bytes], path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    stacked = 0
    for index, raw in enumerate(interfaces):
        try:
            one = _decode_below(raw)
        except msgspec.ValidationError:
            continue  # already reported
        with suppress(msgspec.ValidationError):  # an invalid hint
            stacked += len(_decode_names(one.stacked_on) or ())
        if one.name is None:
            continue
        if one.name in seen:
            yield FieldError(f"{path}[{index}].name", f"{one.name!r} appears twice")
        seen.add(one.name)
    if stacked > MAX_STACKED_ON:
        yield FieldError(path, f"stacked_on has more than {MAX_STACKED_ON} names in total")


def _below(path: str, step: str) -> str:
    below = path + step[:MAX_PATH].replace("\0", "\\u0000")
    return below if len(below) <= MAX_PATH else below[:MAX_PATH] + "…"
