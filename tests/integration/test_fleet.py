"""GET /api/v1/fleet: the fleet at a glance, what changes in it, its peaks and its sparklines."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from service.app import create_app
from service.fleet import changes, overview
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, heartbeat, hours_ago, interface


def names(server: dict[str, Any]) -> list[str]:
    return [one["name"] for one in server["interfaces"]]


async def a_while_later(database: asyncpg.Connection, seconds: int = 10) -> None:
    """What was received is no longer of the last moments, in which a batch may be under way."""
    await database.execute("UPDATE servers SET received_at = received_at - $1 * INTERVAL '1 second'", seconds)


async def test_it_has_each_server_with_its_newest_rates(service: Client) -> None:
    start = hours_ago(0)
    await service.post(heartbeat("pi", start, wlan0=(0, 0)))
    await service.post(heartbeat("nas", start, eth0=(0, 0)) | {"primary_interface": "eth0"})
    await service.post(heartbeat("nas", start + timedelta(seconds=8), eth0=(1_000_000, 2_000_000)))

    found = await service.get("/fleet")

    assert [one["id"] for one in found["servers"]] == ["nas", "pi"]
    nas = found["servers"][0]
    assert nas["interfaces"] == [
        {"name": "eth0", "is_up": True, "kind": None, "rx_bps": 1_000_000.0, "tx_bps": 2_000_000.0}
    ]
    assert (nas["status"], nas["interval_seconds"], nas["interface_count"]) == ("online", 30, 1)
    assert nas["received_at"] <= found["at"]
    assert found["servers"][1]["interfaces"][0]["rx_bps"] is None, "of a first sample no rate is known"
    assert (found["next"], found["is_whole"]) == (None, True)


async def test_of_many_interfaces_it_has_the_primary_and_the_busiest_by_name(service: Client) -> None:
    many = [interface(f"if{number}", number * 1000, is_up=number % 2 > 0) for number in range(20)]

    await service.post({"server_id": "nas", "hostname": "nas", "primary_interface": "if3", "network_interfaces": many})
    await service.post({"server_id": "none", "hostname": "none", "network_interfaces": []})
    nas, none = (await service.get("/fleet"))["servers"]

    assert names(nas) == ["if17", "if18", "if19", "if3"]
    assert (nas["interface_count"], nas["interfaces_down"]) == (20, 10)
    assert (none["interfaces"], none["interface_count"], none["interfaces_down"]) == ([], 0, 0)


async def test_pages_follow_each_other_and_an_empty_fleet_is_one(service: Client) -> None:
    assert (await service.get("/fleet"))["servers"] == []
    for name in "abcde":
        await service.post(heartbeat(name, eth0=(1, 1)))

    found, after = [], ""
    while True:
        page = await service.get("/fleet", limit=2, after=after)
        found.append([one["id"] for one in page["servers"]])
        if page["next"] is None:
            break
        after = page["next"]

    assert found == [["a", "b"], ["c", "d"], ["e"]]


async def test_what_changed_is_answered_as_soon_as_it_is_stored(
    statements: list[LoggedQuery], service: Client, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changes.LOOK_SECONDS == 1.0
    monkeypatch.setattr(changes, "WAIT_SECONDS", 120.0)
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await service.post(heartbeat("pi", eth0=(1, 1)))
    await a_while_later(database)
    at = (await service.get("/fleet"))["at"]
    waiting = asyncio.create_task(service.get("/fleet", since=at))
    await asyncio.sleep(0.2)
    assert not waiting.done()

    await service.post(heartbeat("nas", eth0=(5, 5)))
    statements.clear()
    found = await waiting

    # The next one after it was stored; one may have been under way.
    assert len([one for one in statements if one.query == overview.LOOK]) <= 2
    assert [one["id"] for one in found["servers"]] == ["nas"]
    assert found["at"] > at
    after = asyncio.create_task(service.get("/fleet", since=found["at"]))
    await asyncio.sleep(1.5)
    assert not after.done(), "nothing is told twice"
    after.cancel()


async def test_what_one_process_stores_another_tells_from_the_same_cursor(
    service: Client, database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "WAIT_SECONDS", 120.0)  # nobody is told that there is nothing, however long it takes
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        await service.post(heartbeat("nas", eth0=(1, 1)))
        at = (await service.get("/fleet"))["at"]
        for turn, (here, there) in enumerate([(service, other), (other, service), (service, other)]):
            await here.post(heartbeat("nas", eth0=(10 + turn, 10)))
            found = await there.get("/fleet", since=at)

            assert [one["id"] for one in found["servers"]] == ["nas"]
            at = found["at"]


async def test_however_many_look_it_costs_a_statement_a_second_and_nothing_while_nobody_does(
    statements: list[LoggedQuery], service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "WAIT_SECONDS", 2.5)
    await service.post(heartbeat("nas", eth0=(1, 1)))
    at = (await service.get("/fleet"))["at"]
    statements.clear()

    started = time.monotonic()
    await asyncio.gather(*(service.get("/fleet", since=at) for _ in range(50)))
    seconds = time.monotonic() - started
    looks = len([one for one in statements if one.query == overview.LOOK])
    await asyncio.sleep(1.5)

    assert looks <= seconds + 2
    assert 1 <= len([one for one in statements if one.query == overview.LOOK]) <= looks + 1, "one may be under way"


async def test_a_cursor_that_is_too_old_is_told_to_begin_again(service: Client) -> None:
    found = await service.get("/fleet", since=(hours_ago(1)).isoformat())

    assert (found["servers"], found["is_whole"]) == ([], False)


async def test_a_batch_that_was_committed_late_is_not_missed(
    service: Client, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(seconds=2.2) < changes.LATE < changes.REMEMBERED
    monkeypatch.setattr(changes, "LATE", timedelta(seconds=50))  # later than a machine that stands still in between
    monkeypatch.setattr(changes, "WAIT_SECONDS", 120.0)
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await a_while_later(database, 100)
    transaction = database.transaction()
    await transaction.start()
    await database.execute("UPDATE servers SET received_at = clock_timestamp(), hostname = 'late'")
    waiting = asyncio.create_task(service.get("/fleet", since=(await service.get("/fleet"))["at"]))
    await asyncio.sleep(2.2)

    await transaction.commit()

    assert [one["hostname"] for one in (await waiting)["servers"]] == ["late"]


async def test_who_waits_is_answered_when_the_service_ends(service: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither its own end nor a look wakes it.
    monkeypatch.setattr(changes, "WAIT_SECONDS", 120.0)
    monkeypatch.setattr(changes, "LOOK_SECONDS", 120.0)
    at = (await service.get("/fleet"))["at"]
    waiting = asyncio.create_task(service.get("/fleet", since=at))
    await asyncio.sleep(1.3)
    assert not waiting.done()

    service.http._transport.app.end_waits()  # type: ignore[attr-defined]  # as service.server does
    found = await asyncio.wait_for(waiting, 60)

    assert found["servers"] == []


async def test_peaks_and_errors_are_the_periods(service: Client) -> None:
    start = hours_ago(0.5)

    def beat(at: datetime, rx: int, errors: int) -> dict[str, Any]:
        one = interface("eth0", rx, rx // 2, rx_errors=errors, tx_errors=errors, rx_dropped=1, tx_dropped=errors)
        return heartbeat("nas", at) | {"network_interfaces": [one]}

    rx = 0
    for number, moved in enumerate([0, 1_000, 30_000_000, 1_000]):
        rx += moved
        await service.post(beat(start + timedelta(seconds=30 * number), rx, number))
    await service.post(heartbeat("idle", hours_ago(2), eth0=(5, 5)))

    hour, day = [await service.get("/fleet/peaks", period=period) for period in ("1h", "24h")]

    assert hour["peaks"] == [
        {
            "server_id": "nas", "interface": "eth0", "rx_bps_max": 8_000_000.0, "tx_bps_max": 4_000_000.0,
            "errors": 6, "dropped": 3,
        }
    ]  # fmt: skip
    assert [one["server_id"] for one in day["peaks"]] == ["idle", "nas"]


async def test_sparklines_come_in_columns_on_one_grid_with_gaps(service: Client) -> None:
    start = hours_ago(0.5)
    for minutes, rx in ((0, 0), (1, 7_500_000), (5, 7_500_000)):
        await service.post(heartbeat("nas", start + timedelta(minutes=minutes), eth0=(rx, 0), eth1=(1, 1)))

    found = await service.get("/fleet/sparklines", series=["nas/eth0", "nas/none", "nobody/eth0"], period="1h")

    (series,) = found["series"]
    assert (series["server_id"], series["interface"], found["bucket_seconds"]) == ("nas", "eth0", 60)
    place = int((start - datetime.fromisoformat(found["first"])).total_seconds()) // 60
    assert series["rx_bps"][place : place + 6] == [0, 1_000_000, None, None, None, 0]
    assert len(series["rx_bps"]) == len(series["tx_bps"]) == 60
    assert (await service.get("/fleet/sparklines"))["series"] == []
    wide = await service.get("/fleet/sparklines", series=["nas/eth0"], period="7d", bucket="2h")
    assert (wide["bucket_seconds"], len(wide["series"][0]["rx_bps"])) == (7200, 84)


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        ("/fleet", {"since": "yesterday"}, "since"),
        ("/fleet", {"since": "2026-01-01T00:00:00"}, "since"),
        ("/fleet", {"limit": 0}, "limit"),
        ("/fleet/peaks", {"period": "2h"}, "period"),
        ("/fleet/sparklines", {"series": "nas"}, "series"),
        ("/fleet/sparklines", {"series": [f"nas/eth{number}" for number in range(501)]}, "series"),
        ("/fleet/sparklines", {"period": "7d", "bucket": "5m"}, "bucket"),
    ],
)
async def test_what_is_not_as_specified_is_named(service: Client, path: str, query: Any, named: str) -> None:
    answer = await service.http.get(f"/api/v1{path}", params=query)

    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["path"] == named


async def test_a_fleet_of_hundreds_is_small_on_the_wire(service: Client) -> None:
    beats = [
        heartbeat(f"server-{number:03}", eth0=(number, 1), eth1=(1, 1), docker0=(1, 1), wg0=(1, 1))
        for number in range(300)
    ]
    assert (await service.post_batch(beats))["stored"] == 300

    async with service.http.stream("GET", "/api/v1/fleet") as answer:
        size = sum([len(chunk) async for chunk in answer.aiter_raw()])
    again = await service.http.get("/api/v1/fleet", headers={"If-None-Match": answer.headers["etag"]})
    plain = await service.http.get("/api/v1/fleet", headers={"Accept-Encoding": "identity"})

    assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert size < 30_000 < len(plain.content)
    assert plain.headers["etag"] != answer.headers["etag"]
    assert again.status_code in (200, 304)
