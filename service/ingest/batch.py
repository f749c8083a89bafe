"""A batch of heartbeats as the parallel arrays of linkbeat.ingest_heartbeats (sql/function/ingest_heartbeats.sql).

Arrays travel as text: asyncpg's encoder asks of each element whether it is an array itself, which took longer than
everything here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import msgspec

from service.wire import Delivery, Filesystem, Heartbeat, HostMetrics, NetworkInterface

_encode = msgspec.json.Encoder().encode
_row = msgspec.structs.astuple

_NULL = "NULL"
_NO_METRICS = _row(HostMetrics())
_BEATS = {
    "servers": "text", "times": "timestamptz", "boots": "bigint", "intervals": "float8", "hostnames": "text",
    "guids": "text", "boot_ids": "text", "agent_versions": "text", "statuses": "text", "primaries": "text",
    "os_infos": "jsonb", "filesystems": "jsonb",
}  # fmt: skip
_METRICS = {field: "bigint" if field.startswith("network_") else "float8" for field in HostMetrics.__struct_fields__}
_SAMPLES = {
    "beats": "int", "names": "text", "rx_bytes": "bigint", "tx_bytes": "bigint", "rx_packets": "bigint",
    "tx_packets": "bigint", "is_up": "bool", "rx_errors": "bigint", "tx_errors": "bigint", "rx_dropped": "bigint",
    "tx_dropped": "bigint", "kinds": "text", "stacked_on": "text", "speeds": "int", "operstates": "text",
    "ifindexes": "int", "is_lowest": "bool", "carrier_changes": "bigint", "os_names": "text",
}  # fmt: skip
_MOUNTS = {
    "beats": "int", "points": "text", "devices": "text", "types": "text", "total_bytes": "bigint",
    "used_bytes": "bigint", "available_bytes": "bigint", "percents": "float8", "states": "text",
}  # fmt: skip
# Names and types, in the order of the values in arguments(): a field added only here fails, and parameters of the
# function may be reordered.
ARGUMENTS = {
    **{f"beat_{name}": f"text::{kind}[]" for name, kind in _BEATS.items()},
    "may_register": "bool",
    "has_metrics": "bool",
    **{f"metric_{name}": f"text::{kind}[]" for name, kind in _METRICS.items()},
    **{f"sample_{name}": f"text::{kind}[]" for name, kind in _SAMPLES.items()},
    **{f"mount_{name}": f"text::{kind}[]" for name, kind in _MOUNTS.items()},
    "beat_skews_ms": "text::bigint[]",
    "beat_reports": "text::jsonb[]",
    "beat_identities": "text::bigint[]",
    "series_budget": "int",
    "fold_seconds": "int",
}
# `lsn`: how far the server's log goes then, which a flush must reach.
CALL = "SELECT registered, duplicate, conflict, pg_current_wal_insert_lsn() AS lsn FROM {}({})".format(
    "linkbeat.ingest_heartbeats",
    ", ".join(f"{name} => ${n}::{kind}" for n, (name, kind) in enumerate(ARGUMENTS.items(), start=1)),
)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")
_NO_UUID = 0x4C4C4C  # as in linkbeat.is_uuid_boot

# An index row has at most 2,704 bytes: a filesystem with a longer mount point has only its newest state, without
# history.
_MAX_MOUNT_POINT = 600

IN_NAME = (
    "\x1f"  # stands for the '/' in the name of a series, where names are joined by '/'; linkbeat.names_below reads it
)
NO_SERIES: Mapping[str, str] = MappingProxyType({})

Column = Sequence[Any] | None


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of a heartbeat that is on the database's disk.

    epoch       of the database that flushed it (ServerIdentity.epoch)
    registered  it made the server known
    duplicate   all of it was there before
    conflict    part of it was there before with other values; the first ones stay
    """

    epoch: str
    registered: bool = False
    duplicate: bool = False
    conflict: bool = False


class Resolved(NamedTuple):
    """Which series the interfaces of a heartbeat belong to.

    version  servers.identity_version for which that holds; None: names are series
    series   by name, of interfaces whose series has another name
    """

    version: int | None = None
    series: Mapping[str, str] = NO_SERIES


class Answer(Protocol):
    """Whoever waits for a heartbeat's result: a future, or what sends the response (service/ingest/direct.py)."""

    def done(self) -> bool: ...
    def set_result(self, result: Stored, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Pending:
    """A heartbeat that waits for its commit, until `deadline` of the event loop's clock at the latest.

    skew_ms   the service's clock at its arrival minus its timestamp; None for a replay
    resolved  the series of its interfaces; None until they are looked up (service/ingest/identities.py)
    """

    __slots__ = ("answer", "deadline", "heartbeat", "resolved", "skew_ms", "time")

    def __init__(
        self,
        heartbeat: Heartbeat,
        time: datetime,
        deadline: float,
        answer: Answer,
        skew_ms: int | None = None,
    ) -> None:
        self.heartbeat = heartbeat
        self.time = time
        self.deadline = deadline
        self.answer = answer
        self.skew_ms = skew_ms
        self.resolved: Resolved | None = None


def arguments(batch: Sequence[Pending], *, may_register: bool, series_budget: int, fold_seconds: int) -> list[Any]:
    """The arguments of CALL for a batch in key order with each server once.

    may_register  whether the database may not know one of the servers yet
    """
    beats = [pending.heartbeat for pending in batch]
    renamed = [pending.resolved.series if pending.resolved else NO_SERIES for pending in batch]
    metrics = zip(*[_NO_METRICS if beat.metrics is None else _row(beat.metrics) for beat in beats], strict=True)
    columns: list[Column | bool | int] = [
        [beat.server_id for beat in beats],
        [pending.time for pending in batch],
        _column([boot_fingerprint(beat.boot_id) if beat.boot_id else None for beat in beats]),
        _column([beat.interval_seconds for beat in beats]),
        [beat.hostname for beat in beats],
        _column([beat.server_guid for beat in beats]),
        _column([beat.boot_id for beat in beats]),
        _column([beat.agent_version for beat in beats]),
        _column([beat.status for beat in beats]),
        _column(
            [
                beat.primary_interface and series.get(beat.primary_interface, beat.primary_interface)
                for beat, series in zip(beats, renamed, strict=True)
            ]
        ),
        _column([None if beat.os_info is None else _encode(beat.os_info).decode() for beat in beats]),
        [_encode(beat.filesystems).decode() if beat.filesystems else "[]" for beat in beats],
        may_register,
        any(beat.metrics for beat in beats),
        *(
            _signed(column) if kind == "bigint" else _column(column)
            for column, kind in zip(metrics, _METRICS.values(), strict=True)
        ),
        *_sample_columns(beats, renamed),
        *_mount_columns(beats),
        _column([pending.skew_ms for pending in batch]),
        _column([_report(beat) if beat.delivery or beat.truncated or beat.tags else None for beat in beats]),
        _column([pending.resolved and pending.resolved.version for pending in batch]),
        series_budget,
        fold_seconds,
    ]
    return [column if column is None or isinstance(column, int) else _array(column) for column in columns]


def _array(values: Sequence[Any]) -> str:
    """PostgreSQL's text form of an array. It is JSON's in braces, except of texts with escapes."""
    encoded = _encode(values)
    if b"\\" not in encoded:
        return f"{{{encoded[1:-1].decode()}}}"
    return f"{{{','.join([_NULL if value is None else _quoted(value) for value in values])}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def _report(beat: Heartbeat) -> str:
    """The value of servers.agent_report for a heartbeat with a report."""
    if not beat.truncated and not beat.tags:
        return _encode(beat.delivery).decode()
    more: dict[str, object] = {"truncated": True} if beat.truncated else {}
    if beat.tags:
        more["tags"] = list({tag.partition("=")[0]: tag for tag in beat.tags}.values())  # one for each key
    return _encode(msgspec.to_builtins(beat.delivery or Delivery()) | more).decode()


def _sample_columns(beats: Sequence[Heartbeat], renamed: Sequence[Mapping[str, str]]) -> list[Column]:
    """Columns of the samples, in the order of NetworkInterface's fields."""
    samples: list[NetworkInterface] = []
    places: list[int] = []
    for place, beat in enumerate(beats, start=1):
        if beat.network_interfaces:
            samples += beat.network_interfaces
            places += [place] * len(beat.network_interfaces)
    if not samples:
        return [None] * len(_SAMPLES)
    name, rx_bytes, tx_bytes, rx_packets, tx_packets, is_up, *others = zip(*map(_row, samples), strict=True)
    rx_errors, tx_errors, rx_dropped, tx_dropped, kind, stacked_on, speed, operstate, ifindex, *devices = others
    is_stacked = _column(stacked_on) is not None
    os_names = None
    if any(renamed):
        os_names = [one if one in renamed[place - 1] else None for one, place in zip(name, places, strict=True)]
        name = tuple(renamed[place - 1].get(one, one) for one, place in zip(name, places, strict=True))
        stacked_on = tuple(
            below and [renamed[place - 1].get(one, one).replace("/", IN_NAME) for one in below]
            for below, place in zip(stacked_on, places, strict=True)
        )
    return [
        places, name, _signed(rx_bytes), _signed(tx_bytes), _signed(rx_packets), _signed(tx_packets), is_up,
        _signed(rx_errors), _signed(tx_errors), _signed(rx_dropped), _signed(tx_dropped),
        _column(kind),
        ["/".join(below) if below else None for below in stacked_on] if is_stacked else None,
        _column([_bound(one) for one in samples]) if _column(speed) else None,
        _column(operstate),
        _column(ifindex),
        _is_lowest(beats) if is_stacked else None,
        _column(devices[-1]),
        os_names,
    ]  # fmt: skip


def _bound(one: NetworkInterface) -> int | None:
    """The line rate, if it bounds the traffic: drivers of virtual links report any value, and tunnels 10 Mbit/s."""
    return one.speed_mbps if one.speed_mbps and one.speed_mbps > 0 and one.kind == "physical" else None


def _is_lowest(beats: Sequence[Heartbeat]) -> list[bool]:
    """For each sample, whether no interface of its heartbeat is below it."""
    lowest: list[bool] = []
    for beat in beats:
        if beat.network_interfaces:
            names = {one.name for one in beat.network_interfaces}
            lowest += [names.isdisjoint(one.stacked_on or ()) for one in beat.network_interfaces]
    return lowest


def _mount_columns(beats: Sequence[Heartbeat]) -> list[Column]:
    mounts: list[tuple[int, Filesystem]] = [
        (place, one)
        for place, beat in enumerate(beats, start=1)
        for one in beat.filesystems or ()
        if len(one.mount_point) <= _MAX_MOUNT_POINT
    ]
    if not mounts:
        return [None] * len(_MOUNTS)
    places, filesystems = zip(*mounts, strict=True)
    point, device, kind, total, used, available, percent, state = zip(*map(_row, filesystems), strict=True)
    return [
        places, point, device, kind, _signed(total), _signed(used), _signed(available), _column(percent), _column(state)
    ]  # fmt: skip


def _column(values: Sequence[Any]) -> Column:
    """None if all are None: an array of nulls costs as much as one of values."""
    return None if values.count(None) == len(values) else values


def _signed(counters: Sequence[int | None]) -> Column:
    """64 bits in a bigint, as two's complement; linkbeat.unsigned() converts them back."""
    absent = counters.count(None)
    if absent == len(counters):
        return None
    if not absent and max(counters) < 2**63:  # type: ignore[type-var,operator]  # none is None
        return counters
    return [counter if counter is None or counter < 2**63 else counter - 2**64 for counter in counters]


@lru_cache(maxsize=65_536)
def boot_fingerprint(boot_id: str) -> int:
    """A hash of a boot id in 64 bits: it distinguishes boots, and is small in every row.

    The upper 24 bits mark an id that is not a UUID (linkbeat.is_uuid_boot): it may change without a boot.
    """
    if _UUID.fullmatch(boot_id):
        return int.from_bytes(blake2b(boot_id.encode(), digest_size=8).digest(), signed=True)
    return _NO_UUID << 40 | int.from_bytes(blake2b(boot_id.encode(), digest_size=5).digest())
