"""What the analysts' views say of heartbeats that came in; and that they read no more than they are asked for."""

import json
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from tests import fleet
from tests.support import Client, boot_id, heartbeat, hours_ago, interface

MINUTE = timedelta(minutes=1)
HIGHEST = 2**64 - 1


def beat(at: datetime, *interfaces: dict[str, Any], boot: str = "boot-1", **more: Any) -> dict[str, Any]:
    """A heartbeat a minute, of any interfaces."""
    return heartbeat(at=at, boot=boot) | {"network_interfaces": list(interfaces), "interval_seconds": 60} | more


async def rows(database: asyncpg.Connection, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await database.fetch(sql)]


async def test_samples_have_rates_gaps_utilisation_and_whole_counters(
    service: Client, database: asyncpg.Connection
) -> None:
    start = hours_ago(1)
    for minute, rx in ((0, HIGHEST - 7_500_000_000), (1, HIGHEST - 7_492_500_000), (11, HIGHEST)):
        await service.post(beat(start + minute * MINUTE, interface("eth0", rx, speed_mbps=1000, kind="physical")))

    assert await rows(
        database,
        "SELECT rx_bytes, rx_bps, rx_utilisation_percent, delta_kind, elapsed_seconds, gap_seconds, rx_bytes_counter "
        "FROM network_samples ORDER BY time",
    ) == [
        (0, None, None, "first", None, None, HIGHEST - 7_500_000_000),
        (7_500_000, 1e6, 0.1, "normal", 60, None, HIGHEST - 7_492_500_000),
        (7_492_500_000, 99.9e6, 9.99, "gap", 600, 600, HIGHEST),
    ]


async def test_a_rejected_samples_rate_is_not_known(service: Client, database: asyncpg.Connection) -> None:
    start = hours_ago(1)
    for minute, rx in ((0, 0), (1, 10**15)):
        await service.post(beat(start + minute * MINUTE, interface("eth0", rx, speed_mbps=100, kind="physical")))

    assert await rows(database, "SELECT delta_kind, rx_bytes, rx_bytes_counter FROM network_events ORDER BY time") == [
        ("first", 0, 0),
        ("rejected", 0, 10**15),
    ]
    assert await rows(database, "SELECT rx_bps FROM network_samples ORDER BY time") == [(None,), (None,)]


async def test_events_leave_out_what_is_plain(service: Client, database: asyncpg.Connection) -> None:
    start = hours_ago(1)
    for minute, rx, boot in ((0, 100, "a"), (1, 200, "a"), (2, 50, "a"), (3, 10, "b"), (4, 20, "b"), (14, 30, "b")):
        await service.post(beat(start + minute * MINUTE, interface("eth0", rx), boot=boot))

    assert await rows(database, "SELECT time, delta_kind, rx_bytes, gap_seconds FROM network_events ORDER BY time") == [
        (start, "first", 0, None),
        (start + 2 * MINUTE, "reset", 50, None),
        (start + 3 * MINUTE, "reboot", 10, None),
        (start + 14 * MINUTE, "gap", 10, 600),
    ]


async def test_a_reboot_says_from_when_to_when_nothing_was_heard(service: Client, database: asyncpg.Connection) -> None:
    start = hours_ago(2)
    for minute, boot in ((0, "a"), (1, "a"), (2, "a"), (7, "b"), (8, "b"), (20, "c")):
        await service.post(beat(start + minute * MINUTE, interface("eth0", minute), boot=boot))

    assert await rows(
        database,
        "SELECT previous_boot_id, boot_id, down_since, up_since, downtime_seconds, is_overlap FROM server_reboots "
        "ORDER BY up_since",
    ) == [
        ("a", "b", start + 2 * MINUTE, start + 7 * MINUTE, 300, False),
        ("b", "c", start + 8 * MINUTE, start + 20 * MINUTE, 720, False),
    ]


async def test_two_machines_under_one_id_are_no_reboots(service: Client, database: asyncpg.Connection) -> None:
    start = hours_ago(2)
    for minute in range(6):
        boot = boot_id("ab"[minute % 2])
        await service.post(beat(start + minute * MINUTE, interface("eth0", minute), boot=boot))

    assert await rows(database, "SELECT downtime_seconds, is_overlap FROM server_reboots") == [(None, True)]
    assert await rows(database, "SELECT shared_since IS NOT NULL FROM server_overview") == [(True,)]


async def test_ids_that_flicker_while_the_counters_go_on_are_one_machine(
    service: Client, database: asyncpg.Connection
) -> None:
    start = hours_ago(2)
    for minute in range(6):
        await service.post(beat(start + minute * MINUTE, interface("eth0", minute), boot="ab"[minute % 2]))

    assert await rows(database, "SELECT shared_since IS NOT NULL FROM server_overview") == [(False,)]
    assert await rows(database, "SELECT rx_bytes, delta_kind FROM network_samples ORDER BY time") == [
        (0, "first"), *[(1, "normal")] * 5
    ]  # fmt: skip


async def test_an_interface_is_shown_as_it_is_now(service: Client, database: asyncpg.Connection) -> None:
    start = hours_ago(0)
    for minute, rx, names in ((2, 0, ("br0", "eth0", "tun0")), (1, 7_500_000, ("br0", "eth0"))):
        interfaces = [interface(name, rx) for name in names]
        interfaces[0] |= {"stacked_on": ["eth0", "veth1"], "kind": "bridge"}
        interfaces[1] |= {"speed_mbps": 1000, "kind": "physical", "operstate": "up"}
        await service.post(beat(start - minute * MINUTE, *interfaces, primary_interface="eth0"))

    assert await rows(
        database,
        "SELECT interface_name, is_current, rx_bps, kind, stacked_on, is_lowest, is_primary, speed_mbps, operstate, "
        "rx_bytes_counter FROM interface_overview ORDER BY interface_name",
    ) == [
        ("br0", True, 1e6, "bridge", ["eth0", "veth1"], False, False, None, None, 7_500_000),
        ("eth0", True, 1e6, "physical", None, True, True, 1000, "up", 7_500_000),
        ("tun0", False, None, None, None, True, False, None, None, 0),
    ]


async def test_a_server_is_shown_as_the_api_shows_it(service: Client, database: asyncpg.Connection) -> None:
    now = hours_ago(0)
    await service.post(beat(now, interface("eth0", 1), metrics={"cpu_percent": 12.5, "uptime_seconds": 60}))
    await service.post(heartbeat("mute", at=now, eth0=(1, 1)))
    await database.execute("UPDATE servers SET received_at = now() - INTERVAL '91 seconds'")

    listed = {one["id"]: one["status"] for one in (await service.get("/servers"))["servers"]}
    shown = await rows(
        database,
        "SELECT server_id, status, interval_seconds, interfaces, folded_interfaces, filesystems, cpu_percent, "
        "uptime_seconds FROM server_overview ORDER BY server_id",
    )

    assert shown == [("mute", "offline", 30, 1, 0, 0, None, None), ("nas", "online", 60, 1, 0, 0, 12.5, 60)]
    assert listed == {server_id: status for server_id, status, *_ in shown}


# With the key by which each is to be read, where that is given.
QUERIES = [
    ("SELECT rx_bps FROM network_samples WHERE server_id = 'nas' AND interface_name = 'eth0' AND {time}", "nas"),
    ("SELECT * FROM network_samples WHERE server_id = 'nas' AND {time} ORDER BY time", "nas"),
    ("SELECT * FROM network_events WHERE server_id = 'nas' AND {time}", "nas"),
    ("SELECT sum(rx_bytes) FROM network_samples WHERE {time}", None),
    ("SELECT cpu_percent FROM server_samples WHERE server_id = 'nas' AND {time} ORDER BY time", "nas"),
    ("SELECT percent FROM filesystem_samples WHERE server_id = 'nas' AND mount_point = '/' AND {time}", "nas"),
]


async def test_a_view_reads_the_chunk_of_the_range_only_by_its_key(database: asyncpg.Connection) -> None:
    await fleet.store(database)
    await database.execute("SET ROLE analyst; SET enable_seqscan = off")

    for query, key in QUERIES:
        sql = query.format(time="time >= '2026-03-10 06:00Z' AND time < '2026-03-10 18:00Z'")
        plan = json.loads(await database.fetchval(f"EXPLAIN (FORMAT JSON) {sql}"))
        nodes = [node for node in _nodes(plan[0]["Plan"]) if "Relation Name" in node]

        assert len({node["Relation Name"] for node in nodes}) == 1, sql
        if key is not None:
            assert all(node["Index Name"].endswith("_pkey") for node in nodes), sql
            assert all(
                f"server_id = '{key}'" in node["Index Cond"] and "time" in node["Index Cond"] for node in nodes
            ), sql


async def test_an_overview_of_one_server_reads_its_row_by_its_key(database: asyncpg.Connection) -> None:
    await database.execute("SET ROLE analyst; SET enable_seqscan = off")

    for view in ("server_overview", "interface_overview"):
        plan = await database.fetchval(f"EXPLAIN (FORMAT JSON) SELECT * FROM {view} WHERE server_id = 'nas'")
        assert [node["Index Name"] for node in _nodes(json.loads(plan)[0]["Plan"]) if "Index Name" in node] == [
            "servers_pkey"
        ]


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]
