"""Inputs from the field that were counted wrongly once (tests/cases), replayed in the order in which they arrived."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support import Client, differing_rows

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
    "08-32-bit-wrap-in-a-burst": 20_000 + 2 * 1_500_000_000,
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


async def received(database: asyncpg.Connection) -> int:
    return int(
        await database.fetchval(
            "SELECT sum(rx_bytes_delta) FROM network_interface_metrics WHERE delta_kind <> 'folded'"
        )
    )


def test_every_case_is_replayed() -> None:
    assert sorted(path.stem for path in CASES.glob("*.json")) == sorted(RECEIVED)


@pytest.mark.parametrize("order", [list, reversed], ids=["in order", "reversed"])
@pytest.mark.parametrize("name", RECEIVED)
async def test_what_was_received_is_counted_exactly(
    name: str, order: Callable[[list[Any]], Any], service: Client, database: asyncpg.Connection
) -> None:
    if name == "06-pi-without-clock-chip" and order is reversed:
        pytest.skip("arrival is the evidence in this case: reversed, its boots are those of two machines")

    for beat in order(beats(name)):
        await service.post(beat)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    assert await received(database) == RECEIVED[name]
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
