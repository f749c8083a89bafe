"""A batch of heartbeats as the parallel arrays of linkbeat.ingest_heartbeats (sql/function/ingest_heartbeats.sql)."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Generic, TypeVar

import msgspec

from service.wire import Heartbeat

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
_by_series = itemgetter(1, 2, 3)

_SERVER_TYPES = [
    "text",
    "timestamptz",
    "text",
    "text",
    "text",
    "text",
    "text",
    "float8",
    "text",
    "jsonb",
    "jsonb",
    "jsonb",
]
_SAMPLE_TYPES = ["int", "text", "text", "timestamptz", "bigint"] + ["bigint"] * 8 + ["bool"]
CALL = "SELECT registered, repeated, duplicate, conflict FROM linkbeat.ingest_heartbeats({})".format(
    ", ".join(f"${n}::{name}[]" for n, name in enumerate(_SERVER_TYPES + _SAMPLE_TYPES, start=1))
)


class Pending(Generic[T]):
    """A heartbeat that waits for its commit; what can be prepared before its turn is."""

    __slots__ = ("answer", "heartbeat", "key", "server_row")

    def __init__(self, heartbeat: Heartbeat, time: datetime, answer: "asyncio.Future[T]") -> None:
        self.heartbeat = heartbeat
        self.key = (heartbeat.server_id, time)
        self.server_row = _server_row(heartbeat, time)
        self.answer = answer

    def in_key_order(self) -> tuple[str, datetime]:
        """The order in which rows are locked: two batches in one order cannot wait for each other."""
        return self.key


def arguments(batch: Sequence[Pending[Any]]) -> list[Sequence[Any]]:
    """The arrays of CALL for a batch in key order; samples carry their heartbeat's number in it."""
    newest = {pending.key[0]: pending.server_row for pending in batch}
    samples = [row for number, pending in enumerate(batch) for row in _sample_rows(number, pending)]
    samples.sort(key=_by_series)
    columns: list[Sequence[Any]] = [*zip(*newest.values(), strict=True)]
    columns += zip(*samples, strict=True) if samples else [()] * len(_SAMPLE_TYPES)
    return columns


def _server_row(heartbeat: Heartbeat, time: datetime) -> tuple[Any, ...]:
    return (
        heartbeat.server_id,
        time,
        heartbeat.hostname,
        heartbeat.server_guid,
        heartbeat.boot_id,
        heartbeat.agent_version,
        heartbeat.status,
        heartbeat.interval_seconds,
        heartbeat.primary_interface,
        _json(heartbeat.os_info) if heartbeat.os_info is not None else None,
        _json(heartbeat.metrics) if heartbeat.metrics is not None else None,
        _json(heartbeat.filesystems) if heartbeat.filesystems else "[]",
    )


def _sample_rows(number: int, pending: Pending[Any]) -> list[tuple[Any, ...]]:
    server_id, time = pending.key
    boot_id = pending.heartbeat.boot_id
    boot = boot_fingerprint(boot_id) if boot_id else None
    return [
        (
            number,
            server_id,
            one.name,
            time,
            boot,
            _signed(one.rx_bytes),
            _signed(one.tx_bytes),
            _signed(one.rx_packets),
            _signed(one.tx_packets),
            _signed(one.rx_errors),
            _signed(one.tx_errors),
            _signed(one.rx_dropped),
            _signed(one.tx_dropped),
            one.is_up,
        )
        for one in pending.heartbeat.network_interfaces or ()
    ]


def _signed(counter: int | None) -> int | None:
    """64 bits in a bigint, as two's complement; linkbeat.unsigned() is the way back."""
    return counter if counter is None or counter < 2**63 else counter - 2**64


@lru_cache(maxsize=65_536)
def boot_fingerprint(boot_id: str) -> int:
    """A boot id in 64 bits: enough to tell one boot from the next, and small in every row."""
    return int.from_bytes(blake2b(boot_id.encode(), digest_size=8).digest(), signed=True)


def _json(value: object) -> str:
    return _encode(value).decode()
