"""docs/counters.md: every example on the page is posted, and counted as the page says."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.helpers.support import Client, boot_id, deltas, heartbeat, hours_ago, interface

PAGE = Path(__file__).resolve().parents[2] / "docs" / "counters.md"
START = hours_ago(3)
Example = list[dict[str, str]]


def examples() -> Iterator[tuple[str, Example]]:
    """Each table of heartbeats on the page, by its heading and place."""
    heading, place = "", 0
    for block in PAGE.read_text(encoding="utf-8").split("\n\n"):
        if block.startswith("#"):
            heading, place = block.strip("# \n"), 0
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        if lines[0][0] == "seconds":
            place += 1
            # The last column is the row's kind; "kind of interface" is another one.
            yield f"{heading} {place}", [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]


EXAMPLES = dict(examples())
REVERSIBLE = {
    name: rows
    for name, rows in EXAMPLES.items()
    if [int(r["seconds"]) for r in rows] == sorted(int(r["seconds"]) for r in rows)
}


def beat(row: dict[str, str], server_id: str) -> dict[str, Any]:
    boot = row["boot"]
    named = boot[1:-1] if boot.startswith("`") else boot_id(boot)
    body = heartbeat(server_id, at=START + timedelta(seconds=int(row["seconds"])), boot=named)
    hints: dict[str, Any] = {name: int(row[name]) for name in ("ifindex", "speed_mbps") if name in row}
    if "kind of interface" in row:
        hints["kind"] = row["kind of interface"]
    if "uptime" in row:
        body["metrics"] = {"uptime_seconds": int(row["uptime"])}
    packets = int(row["rx_packets"])
    return body | {"network_interfaces": [interface("eth0", int(row["rx_bytes"]), rx_packets=packets, **hints)]}


async def check(database: asyncpg.Connection, server_id: str, rows: Example) -> None:
    by_time = sorted(rows, key=lambda row: int(row["seconds"]))
    assert await deltas(database, server_id) == [(int(row["counted"]), row["kind"]) for row in by_time]


async def test_every_example_is_counted_as_the_page_says(
    service: Client, database: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    for number, (name, rows) in enumerate(EXAMPLES.items()):
        with subtests.test(name):
            for row in rows:
                await service.post(beat(row, f"server-{number}"))

            await check(database, f"server-{number}", rows)


async def test_an_example_that_arrives_backwards_is_counted_the_same(
    service: Client, database: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    for number, (name, rows) in enumerate(REVERSIBLE.items()):
        with subtests.test(name):
            for row in reversed(rows):
                await service.post(beat(row, f"server-{number}"))

            await check(database, f"server-{number}", rows)


async def test_the_table_of_kinds_names_those_that_can_be_stored(database: asyncpg.Connection) -> None:
    kinds = set(re.findall(r"^\|.*\| `(\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) - {"delta_kind"}
    comment = await database.fetchval(
        "SELECT col_description(attrelid, attnum) FROM pg_attribute "
        "WHERE attrelid = 'network_interface_metrics'::regclass AND attname = 'delta_kind'"
    )

    assert kinds | {"folded"} == set(re.findall(r"(\w+) \(", comment)) | {"reboot"}
    assert kinds == {kind for rows in EXAMPLES.values() for kind in (row["kind"] for row in rows)}
