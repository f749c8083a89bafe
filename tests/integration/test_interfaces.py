"""GET /api/v1/servers/{id}/interfaces, /interfaces/{name} and /interfaces/{name}/stats."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from service.clock import Clock
from service.fleet import interfaces
from service.fleet.calendar import Range, day_and_month
from tests.helpers.plans import old_chunks_read
from tests.helpers.support import Client, heartbeat, hours_ago, interface

MINUTE = timedelta(minutes=1)


async def test_a_servers_interfaces_come_by_name_a_page_at_a_time(service: Client) -> None:
    names = ["eth0", "Eth1", "br-ünï 0+&", "wlan0", "zz"]
    await service.post(heartbeat() | {"network_interfaces": [interface(name, 5) for name in names]})

    found, after = [], None
    while True:
        page = await service.get("/servers/nas/interfaces", limit=2, **({"after": after} if after else {}))
        found += [one["name"] for one in page["interfaces"]]
        after = page["next"]
        if after is None:
            break

    assert found == sorted(names)


async def test_interfaces_are_filtered_by_state_kind_and_name(service: Client) -> None:
    await service.post(
        heartbeat(at=hours_ago(0) - MINUTE) | {"network_interfaces": [interface("old", 1), interface("eth0", 1)]}
    )
    await service.post(
        heartbeat(at=hours_ago(0))
        | {
            "network_interfaces": [
                interface("eth0", 2, kind="physical"),
                interface("eth1", 2, is_up=False, kind="physical"),
                interface("wg0", 2, kind="tunnel"),
            ]
        }
    )

    async def names(**query: object) -> list[str]:
        return [one["name"] for one in (await service.get("/servers/nas/interfaces", **query))["interfaces"]]

    assert await names() == ["eth0", "eth1", "wg0"]
    assert await names(gone="true") == ["eth0", "eth1", "old", "wg0"]
    assert await names(is_up="false") == ["eth1"]
    assert await names(kind="tunnel") == ["wg0"]
    assert await names(search="ETH") == ["eth0", "eth1"]
    assert await names(search="%") == []


@pytest.mark.parametrize("name", ["eth0", "br-ünï", "a b+c&d=e?f#g%20", "*", "eth0:1", "..."])
async def test_an_interface_is_found_by_whatever_the_kernel_calls_it(service: Client, name: str) -> None:
    highest = 2**64 - 1
    await service.post(heartbeat() | {"network_interfaces": [interface(name, highest, 3)]})

    one = await service.get(f"/servers/nas/interfaces/{quote(name, safe='')}")

    assert (one["name"], one["rx_bytes"], one["tx_bytes"], one["is_current"]) == (name, highest, 3, True)
    assert (await service.get(f"/servers/nas/interfaces/{quote(name, safe='')}/stats"))["interface"] == one


async def test_what_there_is_not_is_404(service: Client) -> None:
    await service.post(heartbeat(eth0=(1, 1)))

    for path, code in (
        ("nobody/interfaces", "unknown_server"),
        ("nobody/interfaces/eth0", "unknown_server"),
        ("nobody/interfaces/eth0/stats", "unknown_server"),
        ("nas/interfaces/eth9", "not_found"),
        ("nas/interfaces/eth9/stats", "not_found"),
        ("nas/interfaces/a%2Fb", "not_found"),
        ("nas/interfaces/eth0%00", "not_found"),
    ):
        answer = await service.http.get(f"/api/v1/servers/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, code), path


@pytest.mark.parametrize("tz", ["Mars/Base", "", "../etc/passwd", "Europe", "Europe/Berlin\0", "x" * 65])
async def test_a_time_zone_that_there_is_not_is_422(service: Client, tz: str) -> None:
    await service.post(heartbeat(eth0=(1, 1)))

    answer = await service.http.get("/api/v1/servers/nas/interfaces/eth0/stats", params={"time_zone": tz})

    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "time_zone")


async def test_totals_are_those_of_the_zones_day_and_month(service: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # A day that the service still takes, at noon; in Kathmandu (+05:45) its day began at 18:15 the day before.
    noon = (datetime.now(UTC) - timedelta(days=2)).replace(hour=12, minute=0, second=0, microsecond=0)
    monkeypatch.setattr(Clock, "now", lambda _: noon)
    begins = noon.replace(hour=18, minute=15) - timedelta(days=1)
    for at, rx in ((begins - 2 * MINUTE, 1_000), (begins - MINUTE, 1_010), (begins + MINUTE, 1_110), (noon, 2_110)):
        await service.post(heartbeat(at=at, eth0=(rx, rx)))

    stats = await service.get("/servers/nas/interfaces/eth0/stats", time_zone="Asia/Kathmandu")

    assert (stats["today"]["rx_bytes"], stats["today"]["samples"]) == (1_100, 2)
    assert datetime.fromisoformat(stats["today"]["since"]) == begins
    assert stats["month"]["rx_bytes"] in (1_100, 1_110)  # the month may begin with this very day
    assert (stats["time_zone"], stats["interface"]["rx_bytes"]) == ("Asia/Kathmandu", 2_110)
    assert (await service.get("/servers/nas/interfaces/eth0/stats"))["today"]["rx_bytes"] == 1_000


async def test_the_last_change_of_state_is_the_first_sample_of_it(
    service: Client, database: asyncpg.Connection
) -> None:
    start = hours_ago(30)
    for minute, is_up in ((0, True), (1, False), (2, False), (3, True), (600, True), (1500, True)):
        sample = interface("eth0", minute, is_up=is_up)
        await service.post(heartbeat(at=start + minute * MINUTE) | {"network_interfaces": [sample]})

    async def changed_at() -> datetime | None:
        found = (await service.get("/servers/nas/interfaces/eth0/stats"))["changed_at"]
        return None if found is None else datetime.fromisoformat(found)

    assert await changed_at() == start + 3 * MINUTE
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    assert await changed_at() == start + 3 * MINUTE
    await service.post(
        heartbeat(at=start + 1501 * MINUTE) | {"network_interfaces": [interface("eth0", 1501, is_up=False)]}
    )
    assert await changed_at() == start + 1501 * MINUTE


async def test_an_interface_that_was_never_in_another_state_has_no_change(service: Client) -> None:
    await service.post(heartbeat(at=hours_ago(1), eth0=(1, 1)))

    assert (await service.get("/servers/nas/interfaces/eth0/stats"))["changed_at"] is None


async def test_stats_read_the_chunks_of_the_month_and_of_the_hour_of_the_change(
    statements: list[LoggedQuery], service: Client, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever the day of the month: it is a day of its own.
    moment = datetime.now(UTC)

    async def day_and_day(*of: Any) -> tuple[Range, Range]:
        day, _ = await day_and_month(*of)
        return day, day

    monkeypatch.setattr(interfaces, "day_and_month", day_and_day)
    for hours, is_up in ((6 * 24, False), (2, True), (1, True)):
        sample = interface("eth0", 1, is_up=is_up)
        await service.post(heartbeat(at=hours_ago(hours)) | {"network_interfaces": [sample]})
    statements.clear()

    await service.get("/servers/nas/interfaces/eth0/stats")

    (totals,) = [one for one in statements if "network_traffic_15m" in one.query]
    assert await old_chunks_read(database, totals, before=moment - timedelta(days=3)) == []
