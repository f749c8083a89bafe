"""`python -m service recount`: what was stored by the rules of an earlier version is counted by today's."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from service import recount
from service.recount import Recounted
from tests.support import Client, boot_id, connected, deltas, differing_rows, heartbeat, hours_ago, interface

EQUAL = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
T0 = hours_ago(20)
STEP = timedelta(seconds=30)
PACKET = 1_000

# Received octets, and the deltas and kinds that the rules before these gave them.
STEPS_BACK = [
    (10_000_000_000, 0, "first"),
    (10_001_000_000, 1_000_000, "normal"),
    (10_000_990_000, 10_000_990_000, "reset"),
    (10_003_000_000, 2_010_000, "normal"),
]
ZEROS = [
    (5_000_000_000_000, 0, "first"),
    (5_000_010_000_000, 10_000_000, "normal"),
    (0, 0, "reset"),
    (5_000_030_000_000, 5_000_030_000_000, "normal"),
    (5_000_040_000_000, 10_000_000, "normal"),
]


async def store(
    service: Client, database: asyncpg.Connection, history: list[tuple[int, int, str]], *, start: datetime = T0,
    server_id: str = "nas", name: str = "eth0",
) -> None:  # fmt: skip
    """Stores a history as an earlier version did."""
    for n, (rx, _, _) in enumerate(history):
        body = heartbeat(server_id, at=start + n * STEP, boot=boot_id("a"))
        body["network_interfaces"] = [interface(name, rx, rx_packets=rx // PACKET, tx_packets=rx // PACKET)]
        await service.post(body)
    await database.executemany(
        "UPDATE network_interface_metrics SET rx_bytes_delta = $4, rx_packets_delta = $5, delta_kind = $6, levels = NULL, "
        "old_levels = NULL, doubted_since = NULL WHERE server_id = $1 AND interface_name = $2 AND time = $3",
        [
            (server_id, name, start + n * STEP, delta, delta // PACKET, kind)
            for n, (_, delta, kind) in enumerate(history)
        ],
    )


async def counted(url: str, server_id: str = "nas", since: datetime | None = None, **more: Any) -> list[Recounted]:
    return await recount.recount(url, server_id, since, is_dry=more.get("is_dry", False))


async def everything(database: asyncpg.Connection, server_id: str) -> list[list[tuple[Any, ...]]]:
    relations = ("network_interface_metrics", *(f"network_traffic_{level}" for level in EQUAL))
    return [
        sorted(
            map(tuple, await database.fetch(f"SELECT r::text FROM {relation} r WHERE server_id = $1", server_id))
        )
        for relation in relations
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("history", "before", "after", "kinds"),
    [
        (STEPS_BACK, 10_004_000_000, 3_000_000, ["first", "normal", "dip", "normal"]),
        (ZEROS, 5_000_050_000_000, 40_000_000, ["first", "normal", "glitch", "normal", "normal"]),
    ],
    ids=["a small step back", "one reading of zeros"],
)
async def test_what_the_old_rules_invented_is_gone_from_all_levels(
    history: list[tuple[int, int, str]], before: int, after: int, kinds: list[str], service: Client,
    database: asyncpg.Connection, database_url: str,
) -> None:  # fmt: skip
    await store(service, database, history)
    await store(service, database, history, server_id="other")
    await database.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '1 hour')")
    other = await everything(database, "other")
    state = await database.fetchval("SELECT s::text FROM servers s WHERE server_id = 'other'")

    [one] = await counted(database_url)

    assert (one.interface_name, one.samples) == ("eth0", len(history))
    assert (one.rx_bytes_before, one.rx_bytes_after) == (before, after)
    stored = await deltas(database)
    assert sum(delta for delta, _ in stored) == after
    assert [kind for _, kind in stored] == kinds
    assert await differing_rows(database) == EQUAL
    for level in EQUAL:
        sums = f"SELECT sum(rx_bytes) FROM network_traffic_{level} WHERE server_id = 'nas'"
        assert await database.fetchval(sums) == after
    assert await everything(database, "other") == other
    assert await database.fetchval("SELECT s::text FROM servers s WHERE server_id = 'other'") == state


async def test_a_second_run_changes_nothing(service: Client, database: asyncpg.Connection, database_url: str) -> None:
    await store(service, database, ZEROS)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    await counted(database_url)
    first = await everything(database, "nas")

    [one] = await counted(database_url)

    assert (one.changed, one.rx_bytes_before, one.rx_bytes_after) == (0, 40_000_000, 40_000_000)
    assert await everything(database, "nas") == first


async def test_a_dry_run_says_the_same_and_writes_nothing(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    await store(service, database, ZEROS)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    before = await everything(database, "nas")

    would = await counted(database_url, is_dry=True)

    assert await everything(database, "nas") == before
    assert would == await counted(database_url)
    assert would[0].changed > 0
