"""GET /api/v1/traffic/history, /events, /summary and /latest."""

from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.plans import old_chunks_read
from tests.helpers.support import Client, heartbeat, hours_ago, interface

MINUTE = timedelta(minutes=1)
START = hours_ago(4).replace(minute=0)


async def post_two_servers(service: Client) -> None:
    """Three hours, a heartbeat a minute: on nas, eth0 carries wg0; on pi, eth0 begins again after an hour."""
    beats = []
    for n in range(180):
        at = START + n * MINUTE
        stacked = [interface("eth0", n * 1_000, n), interface("wg0", n * 10, n, stacked_on=["eth0"])]
        beats.append(heartbeat("nas", at=at) | {"network_interfaces": stacked, "interval_seconds": 60})
        beats.append(heartbeat("pi", at=at, eth0=((n % 60) * 100, 0)) | {"interval_seconds": 60})
    await service.post_batch(beats)


async def walk(service: Client, limit: int, **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        page = await service.get("/traffic/history", limit=limit, **query, **more)
        assert len(page["data"]) <= limit
        rows += page["data"]
        if page["next"] is None:
            return rows
        more = {"after": page["next"]}


async def test_history_is_every_bucket_of_the_range_once_whatever_the_page(service: Client) -> None:
    await post_two_servers(service)
    span = {"since": START.isoformat(), "until": (START + 180 * MINUTE).isoformat()}

    for bucket, minutes in (("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60)):
        rows = await walk(service, 7 if minutes > 1 else 100, bucket=bucket, **span)

        keys = [(row["timestamp"], row["server_id"], row["interface"]) for row in rows]
        assert keys == sorted(set(keys)), bucket
        assert len(rows) == 3 * 180 // minutes, bucket
        sums = {
            name: sum(row["rx_bytes"] for row in rows if (row["server_id"], row["interface"]) == name)
            for name in (("nas", "eth0"), ("nas", "wg0"), ("pi", "eth0"))
        }
        assert sums == {("nas", "eth0"): 179_000, ("nas", "wg0"): 1_790, ("pi", "eth0"): 3 * 5_900}, bucket
        assert sum(row["resets"] for row in rows) == 2
        assert {row["coverage"] for row in rows} == {1.0}


async def test_by_server_each_octet_counts_once_whatever_the_page(service: Client) -> None:
    await post_two_servers(service)
    names: list[tuple[str, int, list[str]]] = [("eth0", 500_000, []), ("eth1", 500, []), ("wg0", 500_500, ["eth0"])]
    both = [interface(name, rx, 200, stacked_on=below) for name, rx, below in names]
    for n, more in ((180, 0), (181, 1_000)):
        grown = [one | {"rx_bytes": one["rx_bytes"] + more} for one in both]
        await service.post(heartbeat("nas", at=START + n * MINUTE) | {"network_interfaces": grown})
    span = {"since": START.isoformat(), "until": (START + 182 * MINUTE).isoformat()}

    for bucket in ("1m", "15m", "1h"):
        for limit in (3, 1_000) if bucket != "1m" else (50,):
            rows = await walk(service, limit, bucket=bucket, group_by="server", **span)

            assert {row["interface"] for row in rows} == {None}
            keys = [(row["timestamp"], row["server_id"]) for row in rows]
            assert keys == sorted(set(keys)), bucket
            assert sum(row["rx_bytes"] for row in rows if row["server_id"] == "nas") == 500_000 + 2 * 1_000, bucket
            assert sum(row["resets"] for row in rows) == 2
    assert rows == [
        *sorted(
            await walk(service, 50, bucket="1h", group_by="server", server="nas", **span)
            + await walk(service, 50, bucket="1h", group_by="server", server="pi", **span),
            key=lambda row: (row["timestamp"], row["server_id"]),
        )
    ]
    refused = await service.http.get("/api/v1/traffic/history?group_by=server&interface=eth0")
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "group_by")


async def post_events(service: Client) -> None:
    """Both interfaces are rebooted at 10 minutes, eth1 is reset at 20, and eth0 counts what no line can at 30."""
    counters = {0: (100, 100), 10: (5, 5), 20: (50, 1), 30: (2**62, 2), 40: (2**62 + 1, 3)}
    for minute, (eth0, eth1) in counters.items():
        boot = "boot-1" if minute < 10 else "boot-2"
        await service.post(heartbeat(at=START + minute * MINUTE, boot=boot, eth0=(eth0, 0), eth1=(eth1, 0)))


async def test_events_are_resets_reboots_and_what_was_rejected(service: Client, database: asyncpg.Connection) -> None:
    await post_events(service)
    span = {"since": START.isoformat(), "until": (START + 41 * MINUTE).isoformat()}

    found = await service.get("/traffic/events", server="nas", **span)

    assert [(one["timestamp"], one["kind"], one["interfaces"], one["elapsed_seconds"]) for one in found["data"]] == [
        (f"{START + minute * MINUTE:%Y-%m-%dT%H:%M:%SZ}", kind, names, 600)
        for minute, kind, names in (
            (10, "reboot", ["eth0", "eth1"]),
            (20, "reset", ["eth1"]),
            (30, "rejected", ["eth0"]),
        )
    ]
    of_eth0 = await service.get("/traffic/events", server="nas", interface="eth0", **span)
    assert [(one["kind"], one["interfaces"]) for one in of_eth0["data"]] == [
        ("reboot", ["eth0"]),
        ("rejected", ["eth0"]),
    ]
    stored = await database.fetchval(
        "SELECT count(*) FROM network_events WHERE delta_kind IN ('reboot', 'reset', 'rejected')"
    )
    assert stored == sum(len(one["interfaces"]) for one in found["data"])


async def test_a_wrong_reading_of_one_interface_is_told_and_a_dip_is_not(
    service: Client, database: asyncpg.Connection
) -> None:
    await post_events(service)
    for minute, kind in ((20, "glitch"), (40, "dip")):
        await database.execute(
            "UPDATE network_interface_metrics SET delta_kind = $1 WHERE interface_name = 'eth0' AND time = $2",
            kind, START + minute * MINUTE,
        )  # fmt: skip

    async def kinds(hours: float, **query: Any) -> list[str]:
        until = START + 41 * MINUTE
        found = await service.get(
            "/traffic/events", server="nas", until=until.isoformat(),
            since=(until - timedelta(hours=hours)).isoformat(), **query,
        )  # fmt: skip
        return [one["kind"] for one in found["data"]]

    assert await kinds(25, interface="eth0") == ["reboot", "glitch", "rejected"]
    # Only an aggregate could tell them of longer ranges, and of all interfaces.
    assert "dip" not in await kinds(26, interface="eth0")
    assert await kinds(1, interface="eth1") == ["reboot", "reset"]


async def test_events_come_in_pages_of_a_half_open_range(service: Client) -> None:
    await post_events(service)

    walked: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        page = await service.get(
            "/traffic/events", server="nas", limit=1, since=(START + 10 * MINUTE).isoformat(),
            until=(START + 30 * MINUTE).isoformat(), **more,
        )  # fmt: skip
        walked += page["data"]
        if page["next"] is None:
            break
        more = {"after": page["next"]}

    assert [one["kind"] for one in walked] == ["reboot", "reset"]


async def test_an_unknown_servers_events_are_not_found(service: Client) -> None:
    await service.post(heartbeat(at=START, eth0=(1, 1)))

    assert (await service.http.get("/api/v1/traffic/events?server=nobody")).status_code == 404
    assert (await service.get("/traffic/events", server="nas"))["data"] == []
    assert (await service.http.get("/api/v1/traffic/events")).status_code == 422
    for after in ("x", "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwicmVzZXQiXQ=="):  # the year 1, east of UTC
        assert (await service.http.get(f"/api/v1/traffic/events?server=nas&after={after}")).status_code == 422


async def test_a_range_is_half_open_and_its_buckets_whole(service: Client) -> None:
    await post_two_servers(service)

    rows = await walk(
        service, 100, server="nas", interface="eth0", bucket="2h",
        since=(START - timedelta(hours=2)).isoformat(), until=(START + 61 * MINUTE).isoformat(),
    )  # fmt: skip

    begins = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    assert all(begin >= START - timedelta(hours=2) for begin in begins)
    everything = await walk(
        service, 100, server="nas", interface="eth0", bucket="2h", since=START.date().isoformat() + "T00:00:00Z"
    )
    assert [row for row in everything if row in rows] == rows


async def test_a_bucket_says_its_rates_peak_and_coverage(service: Client) -> None:
    for second, rx in ((0, 0), (30, 3_000), (60, 3_600), (180, 3_600)):
        await service.post(heartbeat(at=START + timedelta(seconds=second), eth0=(rx, 0)))

    rows = await walk(service, 10, server="nas", bucket="1m", since=START.isoformat())

    assert [(row["rx_bytes"], row["rx_bps"], row["rx_bps_max"], row["samples"], row["coverage"]) for row in rows] == [
        (3_000, 400.0, 800.0, 2, 1.0),
        (600, 80.0, 160.0, 1, 0.5),
        (0, 0.0, 0.0, 1, 0.5),
    ]
    assert {row["expected_samples"] for row in rows} == {2}


async def test_what_there_is_not_is_named(service: Client) -> None:
    await service.post(heartbeat(at=START, eth0=(1, 1)))

    for query, status, named in (
        ("history?server=nobody", 404, None),
        ("summary?server=nobody", 404, None),
        ("latest?server=nobody", 404, None),
        ("history?since=yesterday", 422, "since"),
        ("history?since=2026-01-01T00:00:00", 422, "since"),
        ("history?since=0", 422, "since"),
        ("history?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", 422, "since"),
        ("history?until=9999-12-31T23:59:59-12:00", 422, "until"),
        ("history?bucket=90s", 422, "bucket"),
        ("history?bucket=999999d", 422, "bucket"),
        ("history?after=bm8", 422, "after"),
        ("history?limit=0", 422, "limit"),
        ("latest?after=WzFd", 422, "after"),
        ("summary?period=2h", 422, "period"),
        ("summary?top=0", 422, "top"),
    ):
        answer = await service.http.get(f"/api/v1/traffic/{query}")
        assert answer.status_code == status, (query, answer.text)
        if named:
            assert answer.json()["errors"][0]["path"] == named, query
    for query in ("server=nas&interface=eth9", "since=0002-01-01T00:00:00Z", "until=9990-01-01T00:00:00Z&bucket=1m"):
        assert (await service.http.get(f"/api/v1/traffic/history?{query}")).status_code == 200, query
    assert await walk(service, 10, server="nas", interface="eth9") == []


async def test_a_summary_counts_traffic_once_and_names_who_moved_most(service: Client) -> None:
    await post_two_servers(service)

    summary = await service.get("/traffic/summary", period="24h", top=1)

    nas, pi = (179_000, 179), (3 * 5_900, 0)
    assert (summary["rx_bytes"], summary["tx_bytes"]) == (nas[0] + pi[0], nas[1] + pi[1])
    assert (summary["servers"], summary["interfaces"], summary["total_bytes"]) == (2, 2, sum(nas) + sum(pi))
    assert summary["top_servers"] == [
        {"server_id": "nas", "interface": None, "rx_bytes": 179_000, "tx_bytes": 179, "total_bytes": 179_179}
    ]
    assert [(one["server_id"], one["interface"]) for one in summary["top_interfaces"]] == [("nas", "eth0")]
    of_one = await service.get("/traffic/summary", server="pi")
    assert (of_one["rx_bytes"], of_one["servers"]) == (pi[0], 1)


async def test_a_fleet_without_heartbeats_has_a_summary_of_nothing(service: Client) -> None:
    summary = await service.get("/traffic/summary")

    assert (summary["total_bytes"], summary["servers"], summary["top_servers"]) == (0, 0, [])
    assert await service.get("/traffic/latest") == {"data": [], "next": None}


async def test_latest_has_the_rates_of_every_current_interface(service: Client, database: asyncpg.Connection) -> None:
    for n in range(2):
        for server_id in ("nas", "pi"):
            await service.post(heartbeat(server_id, at=START + n * MINUTE, eth0=(n * 7_500, 0), wlan0=(0, n * 75)))

    rows: list[dict[str, Any]] = []
    after: dict[str, Any] = {}
    while True:
        page = await service.get("/traffic/latest", limit=3, **after)
        rows += page["data"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}

    assert [(row["server_id"], row["interface"], row["rx_bps"], row["tx_bps"]) for row in rows] == [
        ("nas", "eth0", 1000, 0), ("nas", "wlan0", 0, 10), ("pi", "eth0", 1000, 0), ("pi", "wlan0", 0, 10),
    ]  # fmt: skip
    assert (await service.get("/traffic/latest", server="pi"))["data"] == rows[2:]
    plan = "\n".join(
        row[0]
        for row in await database.fetch(
            "EXPLAIN SELECT * FROM interface_overview WHERE is_current ORDER BY server_id, interface_name LIMIT 3"
        )
    )
    assert "_hyper_" not in plan
    assert "network_interface_metrics" not in plan


@pytest.mark.parametrize(
    ("since_minutes", "bucket", "relation"), [(60, "1m", "network_traffic_1m"), (180, "1h", "network_traffic_1h")]
)
async def test_history_reads_the_coarsest_aggregate_and_the_chunks_of_its_range(
    statements: list[Any], service: Client, database: asyncpg.Connection, since_minutes: int, bucket: str, relation: str
) -> None:
    await service.post(heartbeat(at=hours_ago(6 * 24), eth0=(0, 0)))
    await service.post(heartbeat(at=START, eth0=(1, 1)))
    statements.clear()

    since = START - since_minutes * MINUTE
    await walk(service, 10, bucket=bucket, since=since.isoformat(), until=START.isoformat())

    assert all(f"FROM {relation} " in one.query for one in statements)
    for one in statements:
        assert await old_chunks_read(database, one, before=since - timedelta(days=2)) == []


async def test_the_longest_names_fit_into_a_cursor(service: Client) -> None:
    names = [f"{'🛰' * 14}{n}" for n in range(3)]
    await service.post(heartbeat("s" * 100, at=START) | {"network_interfaces": [interface(name, 1) for name in names]})

    rows = await walk(service, 1, since=START.isoformat(), until=(START + MINUTE).isoformat())

    assert [row["interface"] for row in rows] == names
