"""What the analysts' views say of heartbeats that came in; and that they read no more than they are asked for."""

import json
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers import fleet
from tests.helpers.support import Client, boot_id, heartbeat, hours_ago, interface

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


START = hours_ago(2)  # of all calls of reboots(), however long the first one took


async def reboots(service: Client, database: asyncpg.Connection, *beats: tuple[int, str, int]) -> list[tuple[Any, ...]]:
    """Posts heartbeats of eth0 in order: minutes, boot id, rx_bytes. Returns the boots that server_reboots shows."""
    for minute, boot, rx in beats:
        await service.post(beat(START + minute * MINUTE, interface("eth0", rx), boot=boot))
    shown = "SELECT previous_boot_id, boot_id, downtime_seconds, is_overlap FROM server_reboots ORDER BY up_since"
    return await rows(database, shown)


A, B, C = boot_id("a"), boot_id("b"), boot_id("c")


async def test_a_reboot_says_from_when_to_when_nothing_was_heard(service: Client, database: asyncpg.Connection) -> None:
    start = hours_ago(2)
    for minute, boot in ((0, A), (1, A), (2, A), (7, B), (8, B), (20, C)):
        await service.post(beat(start + minute * MINUTE, interface("eth0", minute), boot=boot))

    assert await rows(
        database,
        "SELECT previous_boot_id, boot_id, down_since, up_since, downtime_seconds, is_overlap FROM server_reboots "
        "ORDER BY up_since",
    ) == [
        (A, B, start + 2 * MINUTE, start + 7 * MINUTE, 300, False),
        (B, C, start + 8 * MINUTE, start + 20 * MINUTE, 720, False),
    ]


async def test_two_machines_under_one_id_are_no_reboots(service: Client, database: asyncpg.Connection) -> None:
    assert await reboots(service, database, *((n, (A, B)[n % 2], n) for n in range(6))) == [(A, B, None, True)]
    assert await rows(database, "SELECT shared_since IS NOT NULL FROM server_overview") == [(True,)]


async def test_a_clock_that_was_set_back_after_a_power_cut_is_a_reboot(
    service: Client, database: asyncpg.Connection
) -> None:
    beats = [(0, A, 100), (10, A, 200), (20, A, 300), (5, B, 10), (6, B, 20), (30, B, 90)]

    assert await reboots(service, database, *beats) == [(A, B, None, False)]
    assert await rows(database, "SELECT shared_since FROM server_overview") == [(None,)]


async def test_a_boot_id_that_slides_is_no_reboot_until_the_counters_fall(
    service: Client, database: asyncpg.Connection
) -> None:
    sliding = [(n, f"at-{n // 2}", 1_000 + n) for n in range(10)]

    assert await reboots(service, database, *sliding) == []
    assert await reboots(service, database, (12, "at-12", 5)) == [("at-4", "at-12", 180, False)]


async def test_a_boot_id_that_flickers_is_no_reboot(service: Client, database: asyncpg.Connection) -> None:
    beats = [(n, "ab"[n % 2], 1_000 + n) for n in range(10)]

    assert await reboots(service, database, *beats) == []


@pytest.mark.parametrize("late", [1, 2, 3])
async def test_a_late_heartbeat_shows_which_boot_it_was_that_rebooted(
    late: int, service: Client, database: asyncpg.Connection
) -> None:
    """The counters fall from one id to the next; a heartbeat between the two may say that they fell before."""
    beats = [(0, "one", 1_000), (10, "two", 100), (20, "three", 200), (30, "three", 250)]
    last = beats.pop(late)

    assert await reboots(service, database, *beats, last) == [("one", "two", 600, False)]
    kinds = "SELECT delta_kind FROM network_samples ORDER BY time"
    assert [kind for (kind,) in await rows(database, kinds)] == ["first", "reboot", "gap", "gap"]


async def test_a_dip_and_a_glitch_are_events_and_the_rate_of_a_glitch_is_not_known(
    service: Client, database: asyncpg.Connection
) -> None:
    start = hours_ago(1)
    for minute, rx in enumerate((10**9, 10**9 + 6_000, 10**9 + 5_000, 10**9 + 12_000, 0, 10**9 + 24_000)):
        counted = interface("eth0", rx, rx, rx_packets=rx // 100, tx_packets=rx // 100)
        await service.post(beat(start + minute * MINUTE, counted))

    assert await rows(database, "SELECT delta_kind, rx_bytes FROM network_events ORDER BY time") == [
        ("first", 0), ("dip", 0), ("glitch", 0)
    ]  # fmt: skip
    assert await rows(database, "SELECT delta_kind, rx_bps FROM network_samples ORDER BY time") == [
        ("first", None), ("normal", 800.0), ("dip", 0.0), ("normal", 800.0), ("glitch", None), ("normal", 1600.0)
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

    keys = {
        "server_overview": {"servers_pkey", "server_labels_pkey"},
        "interface_overview": {"servers_pkey", "interface_labels_pkey"},
    }
    for view, expected in keys.items():
        plan = await database.fetchval(f"EXPLAIN (FORMAT JSON) SELECT * FROM {view} WHERE server_id = 'nas'")
        nodes = _nodes(json.loads(plan)[0]["Plan"])
        assert {node["Index Name"] for node in nodes if "Index Name" in node} == expected
        assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]
