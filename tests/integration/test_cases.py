"""Inputs from the field that were counted wrongly once (tests/cases), replayed in the order in which they arrived."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.helpers.support import Client, differing_rows

CASES = Path(__file__).resolve().parent.parent / "cases"
EQUAL = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}

# Offsets of most count from half an hour ago; of these, from so many minutes ago.
STARTS_MINUTES_AGO = {"06-pi-without-clock-chip": 6 * 60, "10-lxc-eth0": 76, "14-interval-above-the-bucket": 62}

RECEIVED = {
    "01a-small-step-back-virtio": 3_000_000,
    "02-rate-that-does-not-bound": 3_375_000_000,
    "03-source-refreshed-every-second-poll": 24_000_000_000,
    "04a-one-reading-of-zeros": 40_000_000,
    "06-pi-without-clock-chip": 685_000_000,
    "08-32-bit-wrap-in-a-burst": 2 * 10_000 + 1_499_980_000 + 1_500_000_000,
    "10-lxc-eth0": 750_000_000,
    "14-interval-above-the-bucket": 12 * 3_600_000_000,
}


def beats(name: str) -> list[dict[str, Any]]:
    start = datetime.now(UTC) - timedelta(minutes=STARTS_MINUTES_AGO.get(name, 30))
    case = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return [
        {**beat["body"], "timestamp": (start + timedelta(seconds=beat["offset_seconds"])).isoformat()}
        for beat in case["beats"]
    ]


async def received(database: asyncpg.Connection, server_id: str) -> int:
    return int(
        await database.fetchval(
            "SELECT sum(rx_bytes_delta) FROM network_interface_metrics WHERE server_id = $1 AND delta_kind <> 'folded'",
            server_id,
        )
    )


def test_every_case_is_replayed() -> None:
    assert sorted(path.stem for path in CASES.glob("*.json")) == sorted(RECEIVED)


@pytest.mark.parametrize("is_reversed", [False, True], ids=["in order", "reversed"])
async def test_what_was_received_is_counted_exactly(
    is_reversed: bool, service: Client, database: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    """Reversed, the board without a clock chip is two machines as well: its boots' heartbeats do not come by turns."""
    for name, rx_bytes in RECEIVED.items():
        with subtests.test(name):
            sent = beats(name)
            for beat in reversed(sent) if is_reversed else sent:
                await service.post(beat)
            await database.execute("CALL linkbeat.refresh_aggregates(now())")

            assert await received(database, sent[0]["server_id"]) == rx_bytes
            assert await differing_rows(database) == EQUAL


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("01a-small-step-back-virtio", ["first", "normal", "dip", "normal"]),
        ("04a-one-reading-of-zeros", ["first", "normal", "glitch", "normal", "normal"]),
        ("08-32-bit-wrap-in-a-burst", ["first", "normal", "normal", "wrap", "normal"]),
    ],
)
async def test_how_it_came_about_stands_in_the_rows(
    name: str, kinds: list[str], service: Client, database: asyncpg.Connection
) -> None:
    for beat in beats(name):
        await service.post(beat)

    rows = await database.fetch("SELECT delta_kind FROM network_interface_metrics ORDER BY time")
    assert [row["delta_kind"] for row in rows] == kinds


async def test_a_board_without_a_clock_chip_was_rebooted_and_is_one_machine(
    service: Client, database: asyncpg.Connection
) -> None:
    for beat in beats("06-pi-without-clock-chip"):
        await service.post(beat)

    assert (await service.get("/servers/f06"))["shared_since"] is None
    reboots = await database.fetch("SELECT previous_boot_id, boot_id FROM server_reboots")
    assert [tuple(row) for row in reboots] == [("A", "B")]
    kinds = await database.fetch("SELECT delta_kind FROM network_interface_metrics WHERE delta_kind = 'reboot'")
    assert len(kinds) == 1


class TestTheOnlyInterfaceOfAContainer:
    """Its kind is veth, and no other interface is below it (tests/cases/10-lxc-eth0.json)."""

    async def test_it_is_shown_from_its_first_heartbeat(self, service: Client, database: asyncpg.Connection) -> None:
        await service.post(beats("10-lxc-eth0")[0])

        line = await service.get("/metrics/sparkline/f10/network", period="24h", interface="eth0")
        assert [(point["rx_bytes"], point["tx_bytes"]) for point in line["data"]] == [(0, 0)]
        whole = await service.get("/metrics/sparkline/network", period="24h")
        assert [(one["server_id"], one["interface"], len(one["data"])) for one in whole["series"]] == [
            ("f10", "eth0", 1)
        ]
        (shown,) = (await service.get("/fleet"))["servers"]
        assert [(one["name"], one["kind"]) for one in shown["interfaces"]] == [("eth0", "veth")]
        listed = (await service.get("/servers/f10/interfaces"))["interfaces"]
        assert [(one["name"], one["is_folded"], one["is_lowest"]) for one in listed] == [("eth0", False, True)]
        rows = await database.fetch("SELECT interface_name, is_folded, delta_kind FROM network_interface_metrics")
        assert [tuple(row) for row in rows] == [("eth0", False, "first")]

    @pytest.mark.parametrize("is_reversed", [False, True], ids=["in order", "reversed"])
    async def test_every_answer_counts_all_of_it(
        self, service: Client, database: asyncpg.Connection, is_reversed: bool
    ) -> None:
        sent = beats("10-lxc-eth0")
        for beat in reversed(sent) if is_reversed else sent:
            await service.post(beat)
        await database.execute("CALL linkbeat.refresh_aggregates(now())")

        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        today = [datetime.fromisoformat(beat["timestamp"]) >= midnight for beat in sent[1:]]
        stats = await service.get("/servers/f10/interfaces/eth0/stats")
        assert stats["today"]["rx_bytes"] == 10_000_000 * sum(today)
        usage = await service.get("/usage/f10", interface="eth0", since=str((midnight - timedelta(days=1)).date()))
        assert sum(day["rx_bytes"] for day in usage["days"]) == RECEIVED["10-lxc-eth0"]
        for path, query in (("f10/network", {"interface": "eth0"}), ("f10/network", {}), ("network", {})):
            answer = await service.get(f"/metrics/sparkline/{path}", period="24h", **query)
            data = answer["data"] if "data" in answer else answer["series"][0]["data"]
            assert sum(point["rx_bytes"] for point in data) == RECEIVED["10-lxc-eth0"], (path, query)
        folded = await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE is_folded")
        assert folded == 0
        assert await differing_rows(database) == EQUAL
