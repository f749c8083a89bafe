"""What travels: heartbeats as agents send them, and the one place where bytes become a heartbeat.

Fields that are not known are skipped, so that a newer agent can talk to an older service, and so can others in the
field that send more; a field added later has a default.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from service.errors import FieldError, Problem

MAX_COUNTER = 2**64 - 1
FUTURE_ALLOWED = timedelta(minutes=5)

# \Z and not $: msgspec searches, and $ lets a trailing newline through.
ServerId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._-]{1,100}\Z",
        description="1 to 100 letters, digits, '.', '_' and '-'.",
        examples=["mediaserver"],
    ),
]
InterfaceName = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x1f\x7f/]{1,64}\Z", description="As the system names it; no '/' and no control characters."
    ),
]
# At most 2**64 - 1, which a Meta cannot say: msgspec's bounds end at 2**63 - 1. See _out_of_range.
Counter = Annotated[int, Meta(ge=0, description="0 to 2**64 - 1.")]
Text = Annotated[str, Meta(max_length=255)]
Percent = Annotated[float, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]


class NetworkInterface(msgspec.Struct, frozen=True):
    """One interface's counters since boot, as the kernel reports them.

    rx_bytes, tx_bytes      octets; wrap at 2**32 on some 32-bit drivers
    rx_packets, tx_packets  frames
    is_up                   operationally up (RFC 2863)
    """

    name: InterfaceName
    rx_bytes: Counter
    tx_bytes: Counter
    rx_packets: Counter
    tx_packets: Counter
    is_up: bool
    rx_errors: Counter | None = None
    tx_errors: Counter | None = None
    rx_dropped: Counter | None = None
    tx_dropped: Counter | None = None


class Filesystem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mounted filesystem; `percent` as df counts it: used / (used + available)."""

    mount_point: Annotated[str, Meta(min_length=1, max_length=4096)]
    device: Annotated[str, Meta(max_length=4096)] = ""
    fs_type: Text = ""
    total_bytes: Counter = 0
    used_bytes: Counter = 0
    available_bytes: Counter | None = 0
    percent: Percent | None = None
    state: Text | None = None


class HostMetrics(msgspec.Struct, frozen=True, omit_defaults=True):
    """The machine as a whole; network_rx_bytes and network_tx_bytes sum the reported interfaces."""

    cpu_percent: Percent | None = None
    memory_percent: Percent | None = None
    memory_total_mb: Amount | None = None
    memory_used_mb: Amount | None = None
    disk_percent: Percent | None = None
    disk_total_gb: Amount | None = None
    disk_used_gb: Amount | None = None
    network_rx_bytes: Counter | None = None
    network_tx_bytes: Counter | None = None
    load_1m: Amount | None = None
    load_5m: Amount | None = None
    load_15m: Amount | None = None
    uptime_seconds: Amount | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """What an agent reports at one moment.

    timestamp         when the counters were read; without it the service's clock stands in
    boot_id           differs after every boot: a counter that starts anew is then no surprise
    interval_seconds  from one heartbeat to the next, as the agent is set
    """

    server_id: ServerId
    hostname: Annotated[str, Meta(min_length=1, max_length=255)]
    server_guid: Text | None = None
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    status: Text | None = None
    boot_id: Text | None = None
    agent_version: Text | None = None
    interval_seconds: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    primary_interface: InterfaceName | None = None
    os_info: dict[str, Any] | None = None
    metrics: HostMetrics | None = None
    network_interfaces: list[NetworkInterface] | None = None
    filesystems: list[Filesystem] | None = None


_decode = msgspec.json.Decoder(Heartbeat).decode
_decode_any = msgspec.json.Decoder().decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def decode_heartbeat(body: bytes, *, now: datetime, oldest: timedelta) -> Heartbeat:
    """A heartbeat that the database will take.

    Raises Problem: 400 where the body is not JSON, 422 with every field that is not as specified.
    """
    try:
        heartbeat = _decode(body)
    except msgspec.ValidationError as raised:
        raise _not_as_specified(body, raised) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise _not_json(raised) from None
    errors = list(_out_of_range(heartbeat))
    if b"\\u0000" in body:  # PostgreSQL's text and jsonb hold no NUL: one would fail the whole batch
        errors += _nul_characters(msgspec.to_builtins(heartbeat), "")
    if errors:
        raise Problem("invalid", _summary(errors), errors)
    if heartbeat.timestamp is not None:
        _check_time(heartbeat.timestamp, now, oldest)
    return heartbeat


def split_batch(body: bytes, *, lines: bool) -> list[bytes | msgspec.Raw]:
    """The records of a batch, each still as it came: a JSON array, or one JSON text a line.

    Raises Problem (400) where the body as a whole cannot be read.
    """
    if lines:
        return [line for line in body.split(b"\n") if line.strip()]
    try:
        return list(_decode_array(body))
    except msgspec.ValidationError:
        raise Problem.invalid("", "expected a JSON array of heartbeats") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise _not_json(raised) from None


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


def _out_of_range(heartbeat: Heartbeat) -> Iterator[FieldError]:
    """What types cannot say: counters end at 2**64 - 1, and an interface's name is its own."""
    interfaces = heartbeat.network_interfaces
    if interfaces:
        for index, one in enumerate(interfaces):
            largest = max(
                one.rx_bytes, one.tx_bytes, one.rx_packets, one.tx_packets,
                one.rx_errors or 0, one.tx_errors or 0, one.rx_dropped or 0, one.tx_dropped or 0,
            )  # fmt: skip
            if largest > MAX_COUNTER:
                yield from _too_large(one, f"network_interfaces[{index}]")
        names = {one.name for one in interfaces}
        if len(names) < len(interfaces):
            for index, one in enumerate(interfaces):
                if one.name in names:
                    names.remove(one.name)
                else:
                    yield FieldError(f"network_interfaces[{index}].name", f"{one.name!r} stands twice")
    if heartbeat.os_info is not None:
        try:
            msgspec.json.encode(heartbeat.os_info)
        except (OverflowError, RecursionError):  # what can be read can be too large or too deep to be written
            yield FieldError("os_info", "holds a number beyond 64 bits or is nested too deeply")
    for index, filesystem in enumerate(heartbeat.filesystems or ()):
        yield from _too_large(filesystem, f"filesystems[{index}]")
    if heartbeat.metrics is not None:
        yield from _too_large(heartbeat.metrics, "metrics")


def _too_large(struct: msgspec.Struct, path: str) -> Iterator[FieldError]:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, int) and value > MAX_COUNTER:
            yield FieldError(f"{path}.{name}", "expected int <= 18446744073709551615")


def _nul_characters(value: Any, path: str) -> Iterator[FieldError]:
    if isinstance(value, str):
        if "\0" in value:
            yield FieldError(path, "contains a NUL character")
    elif isinstance(value, dict):
        for key, member in value.items():
            below = f"{path}.{key}".lstrip(".").replace("\0", "\\u0000")
            if "\0" in key:
                yield FieldError(below, "name contains a NUL character")
            yield from _nul_characters(member, below)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _nul_characters(member, f"{path}[{index}]")


def _not_json(raised: Exception) -> Problem:
    if isinstance(raised, RecursionError):
        return Problem("invalid_json", "the body is nested too deeply")
    if isinstance(raised, UnicodeDecodeError):
        return Problem("invalid_json", "the body is not UTF-8")
    return Problem("invalid_json", str(raised))


def _not_as_specified(body: bytes, first: msgspec.ValidationError) -> Problem:
    """Every field that is wrong, where the decoder stops at the first."""
    try:
        errors = list(_wrong(_decode_any(body), Heartbeat, ""))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        return _not_json(raised)
    errors = errors or [_field_error(first, "")]
    return Problem("invalid", _summary(errors), errors)


def _wrong(value: Any, expected: Any, path: str) -> Iterator[FieldError]:
    """The errors in `value` against a type: structs field by field, lists item by item."""
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as raised:
        below = list(_wrong_below(value, expected, path))
        yield from below or [_field_error(raised, path)]


def _wrong_below(value: Any, expected: Any, path: str) -> Iterator[FieldError]:
    arguments: tuple[Any, ...] = getattr(expected, "__args__", ())
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        if isinstance(value, dict):
            for field in msgspec.structs.fields(expected):
                below = f"{path}.{field.encode_name}".lstrip(".")
                if field.encode_name in value:
                    yield from _wrong(value[field.encode_name], field.type, below)
                elif field.required:
                    yield FieldError(below, "is missing")
    elif getattr(expected, "__origin__", None) is list:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _wrong(item, arguments[0], f"{path}[{index}]")
    elif value is not None and len(arguments) == 2 and arguments[1] is type(None):
        yield from _wrong_below(value, arguments[0], path)


def _field_error(raised: msgspec.ValidationError, path: str) -> FieldError:
    """msgspec's words as ours: "Expected `int`, got `str` - at `$.a`" is a, "expected int, got str"."""
    reason, _, place = str(raised).partition(" - at `$")
    reason = reason.replace("`", "")
    return FieldError(f"{path}{place.rstrip('`')}".lstrip("."), reason[:1].lower() + reason[1:])


def _summary(errors: list[FieldError]) -> str:
    shown = "; ".join(f"{error.path}: {error.reason}" if error.path else error.reason for error in errors[:5])
    return shown + (f"; and {len(errors) - 5} more" if len(errors) > 5 else "")
