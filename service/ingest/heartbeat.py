"""Decodes heartbeats.

Errors are reported field by field, and everything that would fail in SQL is rejected here.
"""

import re
from datetime import UTC, datetime, timedelta
from itertools import islice

import msgspec

from service.http.errors import FieldError, Problem
from service.http.os_info import checked
from service.http.refusal import CONTROL, NAMES, not_as_specified, not_json
from service.ingest.hints import consistent, decode_sensible
from service.wire import HINTS, MAX_COUNTER, MAX_STACKED_ON, Filesystem, Heartbeat, NetworkInterface

FUTURE_ALLOWED = timedelta(minutes=5)
MAX_BATCH_HEARTBEATS = 1_000

_REPLACEMENT = "\ufffd"
_NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f/]")  # as InterfaceName
_TOO_GREAT = FieldError("", f"expected int <= {MAX_COUNTER}")
# Descriptive texts: a control character in them is replaced, because the measurements matter more; a hint with one is
# ignored. In a name (server_id, hostname, server_guid, of an interface) it is rejected, because replacing it would name
# something else.
_DESCRIPTIVE: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Heartbeat: ("status", "boot_id", "agent_version"),
    NetworkInterface: ("kind", "operstate", "permanent_address", "bus_path", "alias"),
    Filesystem: ("mount_point", "device", "fs_type", "state"),
}
_decode = msgspec.json.Decoder(Heartbeat).decode
# An array decoded as a struct with one field more than a batch may have records: further items are skipped, while a
# list of an array of eight megabytes could hold four million.
_Records = msgspec.defstruct(
    "_Records", [(f"record_{n}", msgspec.Raw, None) for n in range(MAX_BATCH_HEARTBEATS + 1)], array_like=True
)
_decode_records = msgspec.json.Decoder(_Records).decode
_lines = re.compile(rb"\S[^\n]*").finditer


def decode_heartbeat(body: bytes, *, now: datetime, oldest: timedelta) -> Heartbeat:
    """A heartbeat that the database accepts, without invalid hints (service/ingest/hints.py).

    Raises Problem: 400 if the body is not JSON, 422 with up to MAX_ERRORS invalid fields.
    """
    try:
        try:
            heartbeat = _decode(body)
        except msgspec.ValidationError:
            heartbeat = decode_sensible(body)
        if heartbeat.os_info is not None:
            error, known = checked(heartbeat.os_info)
            if error is not None:
                raise not_as_specified(body, error, Heartbeat)
            msgspec.structs.force_setattr(heartbeat, "os_info", known)
    except msgspec.ValidationError as raised:
        raise not_as_specified(body, raised, Heartbeat) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as raised:
        raise not_json(raised) from None
    if (doubt := _doubt(heartbeat)) is not None:
        raise not_as_specified(body, doubt, Heartbeat)
    # In JSON control characters are escaped, except DEL and those above it; most bodies have none of these bytes.
    if b"\\" in body or b"\x7f" in body or b"\xc2" in body:
        _replace_control_characters(heartbeat)
    if heartbeat.timestamp is not None:
        _check_time(heartbeat.timestamp, now, oldest)
    return consistent(heartbeat)


def split_batch(body: bytes, *, lines: bool) -> list[bytes | msgspec.Raw]:
    """The records of a batch as raw JSON: of a JSON array, or one per line.

    Raises Problem if the body as a whole is invalid: 400 if it is not JSON, 413 above MAX_BATCH_HEARTBEATS records, 422
    if it is not an array.
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
            raise not_json(raised) from None
        records = [record for record in msgspec.structs.astuple(array) if record is not None]
    if len(records) > MAX_BATCH_HEARTBEATS:
        raise Problem("too_large", f"a batch may have at most {MAX_BATCH_HEARTBEATS} heartbeats")
    return records


def _check_time(timestamp: datetime, now: datetime, oldest: timedelta) -> None:
    if timestamp > now + FUTURE_ALLOWED:
        raise Problem.invalid(
            "timestamp", f"is more than 5 minutes ahead of the service's clock, {_iso(now)}", "clock_future"
        )
    if timestamp < now - oldest:
        raise Problem.invalid(
            "timestamp", f"is more than {oldest.days} days before the service's clock, {_iso(now)}", "too_old"
        )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _doubt(heartbeat: Heartbeat) -> FieldError | None:
    """An error that the types cannot express; fast, because it checks every heartbeat.

    Counters above 2**64 - 1 and duplicate names of interfaces would fail the whole batch.
    """
    if heartbeat.network_interfaces and (doubt := _doubt_in(heartbeat.network_interfaces)):
        return doubt
    for filesystem in heartbeat.filesystems or ():
        if max(filesystem.total_bytes, filesystem.used_bytes, filesystem.available_bytes or 0) > MAX_COUNTER:
            return _TOO_GREAT
    metrics = heartbeat.metrics
    if metrics is not None and max(metrics.network_rx_bytes or 0, metrics.network_tx_bytes or 0) > MAX_COUNTER:
        return _TOO_GREAT
    return None


def _doubt_in(interfaces: list[NetworkInterface]) -> FieldError | None:
    stacked = bits = 0
    for one in interfaces:
        # None is negative, so that this is above 64 bits where one of them is.
        bits |= one.rx_bytes | one.tx_bytes | one.rx_packets | one.tx_packets
        bits |= (one.rx_errors or 0) | (one.tx_errors or 0) | (one.rx_dropped or 0) | (one.tx_dropped or 0)
        if one.stacked_on:
            stacked += len(one.stacked_on)
            if _NOT_IN_NAMES.search("".join(one.stacked_on)):
                msgspec.structs.force_setattr(one, "stacked_on", None)  # an invalid hint
    if bits > MAX_COUNTER:
        return _TOO_GREAT
    if stacked > MAX_STACKED_ON:
        return FieldError("network_interfaces", f"stacked_on has more than {MAX_STACKED_ON} names in total")
    if len({one.name for one in interfaces}) < len(interfaces):
        return FieldError("network_interfaces", "a name appears twice")
    return None


def _replace_control_characters(heartbeat: Heartbeat) -> None:
    """Raises Problem (422) for a name with a control character; see _DESCRIPTIVE."""
    for name in NAMES:
        text = getattr(heartbeat, name)
        if text and CONTROL.search(text):
            raise Problem.invalid(name, "contains a control character")
    for one in (heartbeat, *(heartbeat.network_interfaces or ()), *(heartbeat.filesystems or ())):
        for name in _DESCRIPTIVE[type(one)]:
            text = getattr(one, name)
            if text and CONTROL.search(text):
                is_hint = name in HINTS.get(type(one), ())
                msgspec.structs.force_setattr(one, name, None if is_hint else CONTROL.sub(_REPLACEMENT, text))
