"""Readings of one interface, and what is to be concluded from them in whatever order they arrive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from tests.helpers.support import Client, boot_id, deltas, differing_rows, heartbeat, hours_ago, interface

T0 = hours_ago(20)
EQUAL = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
INTERVAL = 30
STEP = 30_000_000  # octets of an interval at 8 Mbit/s
PACKET = 1_000  # octets
COUNTERS = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")

Expected = Sequence[tuple[int, str]]
Cases = Mapping[str, tuple[Sequence["Reading"], Expected]]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


async def report(service: Client, *readings: tuple[float, str, int], server_id: str = "nas", **more: Any) -> None:
    """Posts heartbeats of eth0: seconds from T0, a label of the boot, rx_bytes; `more` fields of the interface."""
    for seconds, boot, rx in readings:
        body = heartbeat(server_id, at=at(seconds), boot=boot_id(boot))
        body["network_interfaces"] = [interface("eth0", rx, **more)]
        await service.post(body)


@dataclass(frozen=True)
class Reading:
    """A heartbeat of eth0, `seconds` after T0; `more` are other fields of the interface."""

    seconds: float
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    boot: str | None = boot_id("a")
    uptime_seconds: float | None = None
    more: tuple[tuple[str, Any], ...] = ()

    def body(self, server_id: str) -> dict[str, Any]:
        interface = {
            "name": "eth0",
            "is_up": True,
            **{name: getattr(self, name) for name in COUNTERS},
            **dict(self.more),
        }
        return {
            "server_id": server_id,
            "hostname": server_id,
            "timestamp": at(self.seconds).isoformat(),
            "boot_id": self.boot,
            "metrics": {} if self.uptime_seconds is None else {"uptime_seconds": self.uptime_seconds},
            "network_interfaces": [interface],
        }


def steady(
    count: int, start: int = 10**12, step: int = STEP, packet: int | None = PACKET, **more: Any
) -> list[Reading]:
    """Readings every 30 s of steady traffic, a fifth of which is sent. `packet` None: packets are not counted."""
    readings = []
    for n in range(count):
        octets = (start + n * step, (start + n * step) // 5)
        packets = (0, 0) if packet is None else (octets[0] // packet, octets[1] // packet)
        readings.append(Reading(n * INTERVAL, *octets, *packets, more=tuple(more.items())))
    return readings


def changed(readings: Sequence[Reading], *places: int, **fields: Any) -> list[Reading]:
    """The same with other values in some of them; those that are not of a heartbeat are the interface's."""
    result = list(readings)
    for n in places:
        known = {name: value for name, value in fields.items() if hasattr(result[n], name)}
        more = {**dict(result[n].more), **{name: value for name, value in fields.items() if name not in known}}
        result[n] = replace(result[n], **known, more=tuple(more.items()))
    return result


def lowered(readings: Sequence[Reading], *places: int, share: float, only: Sequence[str] = COUNTERS) -> list[Reading]:
    """The same with some or all counters at a share of what they are."""
    result = list(readings)
    for n in places:
        shares: dict[str, Any] = {name: int(getattr(result[n], name) * share) for name in only}
        result[n] = replace(result[n], **shares)
    return result


def restarted(readings: Sequence[Reading], first: int, only: Sequence[str] = COUNTERS, at: int = 0) -> list[Reading]:
    """The same, but from one on the counters count from `at` on what the row before showed."""
    result = list(readings)
    for n in range(first, len(readings)):
        since: dict[str, Any] = {
            name: getattr(readings[n], name) - getattr(readings[first - 1], name) + at for name in only
        }
        result[n] = replace(result[n], **since)
    return result


async def check(service: Client, database: asyncpg.Connection, cases: Cases) -> None:
    """Sends each case in order and newest first; holds the stored rows, the newest state and a sparkline against it."""
    for name, (readings, _) in cases.items():
        answer = await service.post_batch([reading.body(f"{name}-in-order") for reading in readings])
        assert (answer["stored"], answer["rejected"]) == (len(readings), [])
        for reading in reversed(readings):
            assert not (await service.post(reading.body(f"{name}-reversed")))["duplicate"]
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    for name, (readings, expected) in cases.items():
        for server_id in (f"{name}-in-order", f"{name}-reversed"):
            assert await deltas(database, server_id) == list(expected), server_id
            newest = (await service.get(f"/servers/{server_id}"))["network_interfaces"][0]
            assert (newest["rx_bytes"], newest["delta_kind"]) == (readings[-1].rx_bytes, expected[-1][1]), server_id
            line = await service.get(f"/metrics/sparkline/{server_id}/network", period="24h", interface="eth0")
            assert sum(point["rx_bytes"] for point in line["data"]) == sum(delta for delta, _ in expected), server_id
    assert await differing_rows(database) == EQUAL
