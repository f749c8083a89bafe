"""Bytes to heartbeats and configurations, in one place.

Errors are said field by field, and nothing gets by that would fail in SQL.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import Annotated, Any, TypeVar, get_origin

import msgspec

from service.errors import FieldError, Problem
from service.wire import (
    MAX_COUNTER,
    MAX_NESTING,
    MAX_OS_INFO_BYTES,
    MAX_STACKED_ON,
    Filesystem,
    Heartbeat,
    NetworkInterface,
)

FUTURE_ALLOWED = timedelta(minutes=5)
MAX_BATCH_HEARTBEATS = 1_000
MAX_ERRORS = 100  # listed of one heartbeat: a megabyte of {} holds two million
MAX_PATH = 250  # characters: keys are the client's, and as long as it likes

_Scalar = str | int | float | bool | None
_Value: Any = _Scalar
for _ in range(MAX_NESTING - 1):
    _Value = _Scalar | list[_Value] | dict[str, _Value]
# The type itself bounds the depth, so that no walk in Python has to.
_decode_os_info = msgspec.json.Decoder(dict[str, _Value]).decode
_encode = msgspec.json.Encoder().encode
# Whole escapes before it are skipped: in "\\\\u0000" a backslash is escaped, and no NUL.
_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_REPLACEMENT = "\ufffd"
# Text that describes: a control character in it is replaced, because the measurements matter more. In a name
# (server_id, hostname, server_guid, an interface's) it is refused: with another name it would be another thing.
_DESCRIPTIVE: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Heartbeat: ("status", "boot_id", "agent_version"),
    NetworkInterface: ("kind", "operstate"),
    Filesystem: ("mount_point", "device", "fs_type", "state"),
}
_NAMES = ("hostname", "server_guid")

_decode = msgspec.json.Decoder(Heartbeat).decode
_decode_any = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
# An array as a struct with as many fields as a batch may have records, and one more: an item beyond them is skipped
# where it stands, while a list would hold four million of an array of eight megabytes.
_Records = msgspec.defstruct(
    "_Records", [(f"record_{n}", msgspec.Raw, None) for n in range(MAX_BATCH_HEARTBEATS + 1)], array_like=True
)
_decode_records = msgspec.json.Decoder(_Records).decode
S = TypeVar("S", bound=msgspec.Struct)
_lines = re.compile(rb"\S[^\n]*").finditer


def decode_heartbeat(body: bytes, *, now: datetime, oldest: timedelta) -> Heartbeat:
    """A heartbeat that the database will take.

    Raises Problem: 400 where the body is not JSON, 422 with every field that is not as specified, MAX_ERRORS at most.
    """
    try:
        heartbeat = _decode(body)
    except msgspec.ValidationError as raised:
        raise _not_as_specified(body, raised, Heartbeat) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise _not_json(raised) from None
    os_info = heartbeat.os_info
    if os_info is not None:
        error, known = _os_info(os_info)
        if error is not None:
            raise _invalid(_errors(_builtins(heartbeat), Heartbeat))
        msgspec.structs.force_setattr(heartbeat, "os_info", known)
    if _is_doubtful(heartbeat) and (errors := _errors(_builtins(heartbeat), Heartbeat)):
        raise _invalid(errors)
    # In JSON a control character is escaped, DEL and those past it excepted; most bodies have none of these bytes.
    if b"\\" in body or b"\x7f" in body or b"\xc2" in body:
        _replace_control_characters(heartbeat)
    if heartbeat.timestamp is not None:
        _check_time(heartbeat.timestamp, now, oldest)
    return heartbeat


def decode(body: bytes, expected: type[S]) -> S:
    """The struct that a person or a script sends. Raises Problem as decode_heartbeat does.

    Only for structs that nothing can be wrong with that the types do not say.
    """
    try:
        decoded: S = _decoder(expected).decode(body)
    except msgspec.ValidationError as raised:
        raise _not_as_specified(body, raised, expected) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise _not_json(raised) from None
    return decoded


@cache
def _decoder(expected: type[S]) -> msgspec.json.Decoder[S]:
    return msgspec.json.Decoder(expected)


def split_batch(body: bytes, *, lines: bool) -> list[bytes | msgspec.Raw]:
    """The records of a batch, each still as it came: a JSON array, or one JSON text a line.

    Raises Problem where the body as a whole cannot be read: 400 if it is not JSON, 413 past MAX_BATCH_HEARTBEATS
    records, 422 if it is not an array.
    """
    records: list[bytes | msgspec.Raw]
    if lines:
        records = [found[0] for found in islice(_lines(body), MAX_BATCH_HEARTBEATS + 1)]
    else:
        try:
            array = _decode_records(body)
        except msgspec.ValidationError:
            raise Problem.invalid("", "expected a JSON array of heartbeats") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
            raise _not_json(raised) from None
        records = [record for record in msgspec.structs.astuple(array) if record is not None]
    if len(records) > MAX_BATCH_HEARTBEATS:
        raise Problem("too_large", f"a batch holds at most {MAX_BATCH_HEARTBEATS} heartbeats")
    return records


def _check_time(timestamp: datetime, now: datetime, oldest: timedelta) -> None:
    if timestamp > now + FUTURE_ALLOWED:
        raise Problem.invalid(
            "timestamp", f"lies more than 5 minutes ahead of the service's clock, {_iso(now)}", "clock_future"
        )
    if timestamp < now - oldest:
        raise Problem.invalid(
            "timestamp", f"is more than {oldest.days} days before the service's clock, {_iso(now)}", "too_old"
        )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_doubtful(heartbeat: Heartbeat) -> bool:
    """Whether something may be wrong that the types cannot say; quick, because every heartbeat is asked.

    Counters end at 2**64 - 1, and an interface's name is its own: one of these would fail the whole batch.
    """
    interfaces = heartbeat.network_interfaces
    if interfaces:
        stacked = 0
        for one in interfaces:
            largest = max(
                one.rx_bytes, one.tx_bytes, one.rx_packets, one.tx_packets,
                one.rx_errors or 0, one.tx_errors or 0, one.rx_dropped or 0, one.tx_dropped or 0,
            )  # fmt: skip
            if largest > MAX_COUNTER:
                return True
            if one.stacked_on:
                stacked += len(one.stacked_on)
        if stacked > MAX_STACKED_ON or len({one.name for one in interfaces}) < len(interfaces):
            return True
    for filesystem in heartbeat.filesystems or ():
        if max(filesystem.total_bytes, filesystem.used_bytes, filesystem.available_bytes or 0) > MAX_COUNTER:
            return True
    metrics = heartbeat.metrics
    return metrics is not None and max(metrics.network_rx_bytes or 0, metrics.network_tx_bytes or 0) > MAX_COUNTER


def _os_info(raw: msgspec.Raw) -> tuple[FieldError | None, msgspec.Raw | None]:
    """What is wrong with it; or what is stored of it, in the shortest JSON and without NUL, which jsonb cannot hold.

    Raises Problem (400) where it is not JSON: the decoder of the whole body skips it without looking into its strings.
    """
    text = bytes(raw)
    if text == b"null":
        return None, None
    if len(text) > MAX_OS_INFO_BYTES:
        return FieldError("os_info", f"has more than {MAX_OS_INFO_BYTES} bytes"), None
    try:
        known = _encode(_decode_os_info(text))
    except msgspec.ValidationError as raised:
        reason, _, place = str(raised).partition(" - at `$")
        if not place:
            found = reason.partition(", ")[2].replace("`", "")
            return FieldError("os_info", f"expected object | null, {found}"), None
        if reason.endswith(("got `array`", "got `object`")):
            return FieldError("os_info", f"is nested more than {MAX_NESTING} levels deep"), None
        return _field_error(raised, "os_info"), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise _not_json(raised) from None
    if b"\\u0000" in known:
        known = _ESCAPED_NUL.sub(rb"\1\\ufffd", known)
    return None, msgspec.Raw(known)


def _replace_control_characters(heartbeat: Heartbeat) -> None:
    """Raises Problem (422) for a name that has one; see _DESCRIPTIVE."""
    for name in _NAMES:
        text = getattr(heartbeat, name)
        if text and _CONTROL.search(text):
            raise Problem.invalid(name, "contains a control character")
    for one in (heartbeat, *(heartbeat.network_interfaces or ()), *(heartbeat.filesystems or ())):
        for name in _DESCRIPTIVE[type(one)]:
            text = getattr(one, name)
            if text and _CONTROL.search(text):
                msgspec.structs.force_setattr(one, name, _CONTROL.sub(_REPLACEMENT, text))


def _builtins(heartbeat: Heartbeat) -> Any:
    """The heartbeat as JSON has it, and its os_info as it came."""
    return msgspec.to_builtins(msgspec.structs.replace(heartbeat, os_info=None)) | {"os_info": heartbeat.os_info}


def _not_json(raised: Exception) -> Problem:
    if isinstance(raised, RecursionError):
        return Problem("invalid_json", "the body is nested too deeply")
    if isinstance(raised, UnicodeDecodeError):
        return Problem("invalid_json", "the body is not UTF-8")
    return Problem("invalid_json", str(raised))


def _not_as_specified(body: bytes, first: msgspec.ValidationError, expected: type[msgspec.Struct]) -> Problem:
    """Every field that is wrong, where the decoder stops at the first."""
    try:
        errors = _errors(_loosely(body, expected), expected)
    except msgspec.ValidationError:
        errors = []  # no object, or a number that no type holds: `first` says where
        try:
            _decode_raw(body)  # the decoder stopped at its beginning
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
            return _not_json(raised)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        return _not_json(raised)
    return _invalid(errors or [_field_error(first, "")])


def _loosely(body: bytes, expected: type[msgspec.Struct]) -> Any:
    """The body as JSON has it. Of structs that skip what they do not know, the known fields alone: the others, and
    os_info, may be a megabyte of brackets. Raises what the decoder raises."""
    loose = _loose(expected)
    if loose is None:
        return _decode_any(body)
    found = loose.decode(body)
    return {
        field.encode_name: value
        for field in _fields(expected)
        if (value := getattr(found, field.name)) is not msgspec.UNSET
    }


@cache
def _loose(expected: type[msgspec.Struct]) -> msgspec.json.Decoder[msgspec.Struct] | None:
    if expected.__struct_config__.forbid_unknown_fields:
        return None
    fields: list[tuple[str, Any, Any]] = [
        (field.name, msgspec.Raw if field.type is msgspec.Raw else Any, msgspec.UNSET) for field in _fields(expected)
    ]
    return msgspec.json.Decoder(msgspec.defstruct(f"_Loose{expected.__name__}", fields))


def _invalid(errors: list[FieldError]) -> Problem:
    shown = "; ".join(f"{error.path}: {error.reason}" if error.path else error.reason for error in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    return Problem("invalid", shown + more + (" or more" if len(errors) == MAX_ERRORS else ""), errors)


def _errors(value: Any, expected: type[msgspec.Struct]) -> list[FieldError]:
    return list(islice(_wrong(value, expected, ""), MAX_ERRORS))


def _wrong(value: Any, expected: Any, path: str) -> Iterator[FieldError]:
    """The errors in `value` against a type: structs field by field, lists item by item."""
    arguments: tuple[Any, ...] = getattr(expected, "__args__", ())
    optional = value is not None and len(arguments) == 2 and arguments[1] is type(None)
    inner = arguments[0] if optional else expected
    most = None
    if get_origin(inner) is Annotated and get_origin(inner.__origin__) is list:
        most, inner = inner.__metadata__[0].max_length, inner.__origin__
    if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        for field in _fields(inner):
            below = f"{path}.{field.encode_name}".lstrip(".")
            if field.encode_name in value:
                yield from _wrong(value[field.encode_name], field.type, below)
            elif field.required:
                yield FieldError(below, "is missing")
        if inner.__struct_config__.forbid_unknown_fields:
            known = {field.encode_name for field in _fields(inner)}
            yield from (FieldError(_below(path, name), "is not known") for name in value if name not in known)
    elif isinstance(value, list) and get_origin(inner) is list and _is_struct(inner.__args__[0]):
        yield from _wrong_items(value, inner.__args__[0], path, most)
    elif inner is msgspec.Raw:
        error, _ = _os_info(value) if value is not None else (None, None)
        if error is not None:
            yield error
    else:
        yield from _wrong_leaf(value, expected, path)


def _wrong_items(items: list[Any], expected: type[msgspec.Struct], path: str, most: int | None) -> Iterator[FieldError]:
    if most is not None and len(items) > most:
        yield FieldError(path, f"has {len(items)} items, and at most {most} are taken")
        return  # what is wrong with each is not sought
    for index, item in enumerate(items):
        yield from _wrong(item, expected, f"{path}[{index}]")
    if expected is NetworkInterface:
        yield from _repeated_names(items, path)
        yield from _too_much_stacked(items, path)


def _wrong_leaf(value: Any, expected: Any, path: str) -> Iterator[FieldError]:
    try:
        converted = msgspec.convert(value, expected)
    except msgspec.ValidationError as raised:
        yield _field_error(raised, path)
        return
    if isinstance(converted, int) and converted > MAX_COUNTER:
        yield FieldError(path, f"expected int <= {MAX_COUNTER}")
    elif isinstance(converted, str) and path in _NAMES and _CONTROL.search(converted):
        yield FieldError(path, "contains a control character")


@cache
def _fields(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def _repeated_names(interfaces: list[Any], path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, one in enumerate(interfaces):
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str):
            continue  # said already
        if name in seen:
            yield FieldError(f"{path}[{index}].name", f"{name!r} stands twice")
        seen.add(name)


def _too_much_stacked(interfaces: list[Any], path: str) -> Iterator[FieldError]:
    stacked = [one.get("stacked_on") for one in interfaces if isinstance(one, dict)]
    if sum(len(names) for names in stacked if isinstance(names, list)) > MAX_STACKED_ON:
        yield FieldError(path, f"stacked_on has more than {MAX_STACKED_ON} names in all")


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _below(path: str, step: str) -> str:
    below = path + step[:MAX_PATH].replace("\0", "\\u0000")
    return below if len(below) <= MAX_PATH else below[:MAX_PATH] + "…"


def _field_error(raised: msgspec.ValidationError, path: str) -> FieldError:
    """msgspec's words as ours: "Expected `int`, got `str` - at `$.a`" is a, "expected int, got str"."""
    reason, _, place = str(raised).partition(" - at `$")
    reason = reason.replace("`", "")
    return FieldError(f"{path}{place.rstrip('`')}".lstrip("."), reason[:1].lower() + reason[1:])
