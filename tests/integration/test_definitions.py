"""GET /api/v1/system/definitions: the numbers that the service and its dashboard go by are the ones that it serves."""

from datetime import datetime, timedelta

import asyncpg
import pytest

from tests.helpers.support import Client, heartbeat


@pytest.mark.parametrize("interval_seconds", [None, 10, 3600])
async def test_a_server_is_offline_after_as_many_intervals_as_are_served(
    service: Client, database: asyncpg.Connection, interval_seconds: int | None
) -> None:
    definitions = await service.get("/system/definitions")
    interval = interval_seconds or definitions["default_interval_seconds"]
    limit = definitions["offline_after_intervals"] * interval
    for name in ("within", "beyond"):
        await service.post(heartbeat(name, eth0=(1, 1)) | {"interval_seconds": interval_seconds})
    # A tenth of the limit on either side: a machine that is slow to answer changes nothing.
    for name, share in (("within", 0.5), ("beyond", 1.1)):
        await database.execute(
            "UPDATE servers SET received_at = now() - $1 * INTERVAL '1 second' WHERE server_id = $2",
            share * limit,
            name,
        )

    expected = {"within": "online", "beyond": "offline"}
    servers = (await service.get("/servers"))["servers"]
    assert {one["id"]: one["status"] for one in servers} == expected
    assert {one["server_id"]: one["status"] for one in (await service.get("/agents"))["agents"]} == expected
    assert {one["id"]: one["status"] for one in (await service.get("/fleet"))["servers"]} == expected
    for view in ("agent_overview", "server_overview"):
        rows = await database.fetch(f"SELECT server_id, status FROM {view}")
        assert {row["server_id"]: row["status"] for row in rows} == expected, view


async def test_late_lies_between_one_interval_and_offline(service: Client) -> None:
    definitions = await service.get("/system/definitions")

    assert 1 < definitions["late_after_intervals"] < definitions["offline_after_intervals"]


async def test_a_sparkline_of_each_period_has_the_length_and_the_buckets_that_are_served(service: Client) -> None:
    await service.post(heartbeat(eth0=(1, 1)))
    periods = (await service.get("/system/definitions"))["periods"]
    assert [one["name"] for one in periods] == ["1h", "24h", "7d", "30d", "1y"]

    for period in periods:
        query = {"period": period["name"], "fill": "null", "interface": "eth0"}
        found = await service.get("/metrics/sparkline/nas/network", **query)
        assert found["bucket_seconds"] == period["bucket_seconds"]
        first, last = (datetime.fromisoformat(found["data"][place]["timestamp"]) for place in (0, -1))
        width = timedelta(seconds=period["bucket_seconds"])
        # The first whole bucket of the period, and the one under way.
        assert -width < last + width - first - timedelta(seconds=period["seconds"]) <= width
        finest = await service.get("/metrics/sparkline/nas/network", **query, bucket=f"{period['base_seconds']}s")
        assert finest["bucket_seconds"] == period["base_seconds"]


async def test_every_width_that_is_served_is_one_that_the_history_takes(service: Client) -> None:
    await service.post(heartbeat(eth0=(1, 1)))
    widths = (await service.get("/system/definitions"))["bucket_widths_seconds"]
    assert widths == sorted(set(widths))

    for width in widths:
        found = await service.get("/traffic/history", server="nas", interface="eth0", bucket=f"{width}s")
        assert found["bucket_seconds"] == width


async def test_who_has_them_already_is_sent_none_again_and_they_need_a_token(service: Client) -> None:
    path = "/api/v1/system/definitions"
    first = await service.http.get(path)

    again = await service.http.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert (await service.http.get(path, headers={"Authorization": ""})).status_code == 401
