"""Bytes to heartbeats and configurations, in one place.

Errors are said field by field, and nothing gets by that would fail in SQL.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain, islice
from typing import Any, TypeVar

import msgspec

from service.errors import FieldError, Problem
from service.hints import consistent, decode_loosely, sensible
from service.wire import HINTS, MAX_COUNTER, Heartbeat, NetworkInterface

FUTURE_ALLOWED = timedelta(minutes=5)
MAX_NESTING = 100  # levels of os_info: what was decoded here must be encoded again below a deeper stack
MAX_BATCH_HEARTBEATS = 1_000
MAX_ERRORS = 100  # listed of one heartbeat: a megabyte of {} holds two million
MAX_PATH = 250  # characters: keys are the client's, and as long as it likes

_decode = msgspec.json.Decoder(Heartbeat).decode
_decode_any = msgspec.json.Decoder().decode
# An array as a struct with as many fields as a batch may have records, and one more: an item beyond them is skipped
# where it stands, while a list would hold four million of an array of eight megabytes.
_Records = msgspec.defstruct(
    "_Records", [(f"record_{n}", msgspec.Raw, None) for n in range(MAX_BATCH_HEARTBEATS + 1)], array_like=True
)
_decode_records = msgspec.json.Decoder(_Records).decode
_NESTED = {dict, list}
S = TypeVar("S", bound=msgspec.Struct)
_lines = re.compile(rb"\S[^\n]*").finditer


def decode_heartbeat(body: bytes, *, now: datetime, oldest: timedelta) -> Heartbeat:
    """A heartbeat that the database will take. Hints that make no sense are left out (service/hints.py).

    Raises Problem: 400 where the body is not JSON, 422 with every field that is not as specified, MAX_ERRORS at most.
    """
    try:
        heartbeat = _decode(body)
    except msgspec.ValidationError as raised:
        heartbeat = _without_bad_hints(body, raised)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise _not_json(raised) from None
    if _is_doubtful(heartbeat, body):
        if errors := _errors(_builtins(heartbeat), Heartbeat):
            raise _invalid(errors)
        heartbeat = sensible(heartbeat, _is_wrong)
    if heartbeat.timestamp is not None:
        _check_time(heartbeat.timestamp, now, oldest)
    return consistent(heartbeat)


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


def _is_doubtful(heartbeat: Heartbeat, body: bytes) -> bool:
    """Whether something may be wrong that the types cannot say; quick, because every heartbeat is asked.

    Counters end at 2**64 - 1, an interface's name is its own, os_info's nesting ends, and PostgreSQL's text and jsonb
    hold no NUL: one of these would fail the whole batch.
    """
    interfaces = heartbeat.network_interfaces
    if interfaces:
        for one in interfaces:
            largest = max(
                one.rx_bytes, one.tx_bytes, one.rx_packets, one.tx_packets,
                one.rx_errors or 0, one.tx_errors or 0, one.rx_dropped or 0, one.tx_dropped or 0,
            )  # fmt: skip
            if largest > MAX_COUNTER:
                return True
        if len({one.name for one in interfaces}) < len(interfaces):
            return True
    for filesystem in heartbeat.filesystems or ():
        if max(filesystem.total_bytes, filesystem.used_bytes, filesystem.available_bytes or 0) > MAX_COUNTER:
            return True
    metrics = heartbeat.metrics
    if metrics is not None and max(metrics.network_rx_bytes or 0, metrics.network_tx_bytes or 0) > MAX_COUNTER:
        return True
    return b"\\u0000" in body or (heartbeat.os_info is not None and _is_too_deep(heartbeat.os_info))


def _is_too_deep(os_info: dict[str, Any]) -> bool:
    level = [member for member in os_info.values() if type(member) in _NESTED]
    for _ in range(MAX_NESTING):
        if not level:
            return False
        members = chain.from_iterable(one.values() if type(one) is dict else one for one in level)
        level = [member for member in members if type(member) in _NESTED]
    return True


def _builtins(heartbeat: Heartbeat) -> Any:
    """The heartbeat as JSON has it; os_info, which may be too deep to be converted, is so already."""
    shallow = msgspec.structs.replace(heartbeat, os_info=None)
    return msgspec.to_builtins(shallow) | {"os_info": heartbeat.os_info}


def _not_json(raised: Exception) -> Problem:
    if isinstance(raised, RecursionError):
        return Problem("invalid_json", "the body is nested too deeply")
    if isinstance(raised, UnicodeDecodeError):
        return Problem("invalid_json", "the body is not UTF-8")
    return Problem("invalid_json", str(raised))


def _without_bad_hints(body: bytes, first: msgspec.ValidationError) -> Heartbeat:
    """The heartbeat, if nothing but hints is wrong with it. Raises Problem (400, 422)."""
    try:
        return sensible(decode_loosely(body), _is_wrong)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _not_as_specified(body, first, Heartbeat) from None


def _is_wrong(value: Any, expected: Any) -> bool:
    return next(_wrong(value, expected, ""), None) is not None


def _not_as_specified(body: bytes, first: msgspec.ValidationError, expected: type[msgspec.Struct]) -> Problem:
    """Every field that is wrong, where the decoder stops at the first."""
    try:
        errors = _errors(_decode_any(body), expected)
    except msgspec.ValidationError:
        errors = []  # JSON with a number that no type holds: `first` says where
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        return _not_json(raised)
    return _invalid(errors or [_field_error(first, "")])


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
    if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        hints = HINTS.get(inner, ())
        for field in _fields(inner):
            if field.name in hints:
                continue  # it costs itself alone
            below = f"{path}.{field.encode_name}".lstrip(".")
            if field.encode_name in value:
                yield from _wrong(value[field.encode_name], field.type, below)
            elif field.required:
                yield FieldError(below, "is missing")
        if inner.__struct_config__.forbid_unknown_fields:
            known = {field.encode_name for field in _fields(inner)}
            yield from (FieldError(_below(path, name), "is not known") for name in value if name not in known)
    elif isinstance(value, list) and getattr(inner, "__origin__", None) is list:
        for index, item in enumerate(value):
            yield from _wrong(item, inner.__args__[0], f"{path}[{index}]")
        if inner.__args__[0] is NetworkInterface:
            yield from _repeated_names(value, path)
    elif isinstance(value, dict) and getattr(inner, "__origin__", None) is dict:
        if _is_too_deep(value):
            yield FieldError(path, f"is nested more than {MAX_NESTING} levels deep")
        yield from _nul_characters(value, path)
    else:
        yield from _wrong_leaf(value, expected, path)


def _wrong_leaf(value: Any, expected: Any, path: str) -> Iterator[FieldError]:
    try:
        converted = msgspec.convert(value, expected)
    except msgspec.ValidationError as raised:
        yield _field_error(raised, path)
        return
    if isinstance(converted, int) and converted > MAX_COUNTER:
        yield FieldError(path, f"expected int <= {MAX_COUNTER}")
    elif isinstance(converted, str) and "\0" in converted:
        yield FieldError(path, "contains a NUL character")


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


def _nul_characters(value: Any, path: str) -> Iterator[FieldError]:
    """Without recursion, so that depth is no matter."""
    waiting = [(path, value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                yield FieldError(path, "contains a NUL character")
        elif isinstance(value, dict):
            below = [(_below(path, f".{key}"), key, member) for key, member in value.items()]
            yield from (FieldError(place, "name contains a NUL character") for place, key, _ in below if "\0" in key)
            waiting += [(place, member) for place, _, member in reversed(below)]
        elif isinstance(value, list):
            waiting += reversed([(_below(path, f"[{index}]"), member) for index, member in enumerate(value)])


def _below(path: str, step: str) -> str:
    below = path + step[:MAX_PATH].replace("\0", "\\u0000")
    return below if len(below) <= MAX_PATH else below[:MAX_PATH] + "…"


def _field_error(raised: msgspec.ValidationError, path: str) -> FieldError:
    """msgspec's words as ours: "Expected `int`, got `str` - at `$.a`" is a, "expected int, got str"."""
    reason, _, place = str(raised).partition(" - at `$")
    reason = reason.replace("`", "")
    return FieldError(f"{path}{place.rstrip('`')}".lstrip("."), reason[:1].lower() + reason[1:])
