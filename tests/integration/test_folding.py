"""Interfaces that come and go by the hundred: exact in the history, one series of each kind in the aggregates."""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.ingest.identities import FOLDED
from service.settings import Settings
from tests.helpers.processes import ROOT
from tests.helpers.support import KEY, Client, differing_rows, heartbeat, hours_ago, interface

T0 = hours_ago(25)
BUDGET = 8


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(api_key=KEY, data_dir=str(tmp_path), max_series=BUDGET, fold_minutes=10)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def beat(minutes: float, interfaces: dict[str, int], **more: str) -> dict[str, Any]:
    """A heartbeat of interfaces with their rx_bytes."""
    body = heartbeat(at=at(minutes), boot="a")
    body["network_interfaces"] = [{**interface(name, rx, rx // 2), **more} for name, rx in interfaces.items()]
    return body


async def own_series(database: asyncpg.Connection) -> dict[datetime, int]:
    """By heartbeat, how many interfaces have a series of their own."""
    rows = await database.fetch(
        "SELECT time, count(*) FROM network_interface_metrics WHERE NOT is_folded AND delta_kind <> 'folded' "
        "GROUP BY 1 ORDER BY 1"
    )
    return {row[0]: row[1] for row in rows}


async def folded(database: asyncpg.Connection) -> list[tuple[str, int, int]]:
    """The kinds' sums by time: series, received, sent."""
    rows = await database.fetch(
        "SELECT interface_name, rx_bytes_delta, tx_bytes_delta FROM network_interface_metrics "
        "WHERE delta_kind = 'folded' ORDER BY time, interface_name"
    )
    return [tuple(row) for row in rows]


async def total(database: asyncpg.Connection) -> int:
    """Received by all that enters the aggregates."""
    return int(await database.fetchval("SELECT sum(rx_bytes_delta) FROM network_interface_metrics WHERE NOT is_folded"))


async def is_folded(database: asyncpg.Connection, name: str) -> list[bool]:
    rows = await database.fetch(
        "SELECT is_folded FROM network_interface_metrics WHERE interface_name = $1 ORDER BY time", name
    )
    return [row[0] for row in rows]


async def test_young_interfaces_of_a_kind_are_one_series(service: Client, database: asyncpg.Connection) -> None:
    await service.post(beat(0, {"eth0": 0, "veth1": 100, "veth2": 200, "tap1": 10}))
    await service.post(beat(1, {"eth0": 7, "veth1": 110, "veth3": 50, "tap1": 12}))
    await service.post(beat(2, {"eth0": 9, "veth1": 120, "veth3": 80}))

    assert await folded(database) == [
        ("tap/*", 0, 0), ("veth/*", 0, 0), ("tap/*", 2, 1), ("veth/*", 10, 5), ("veth/*", 40, 20)
    ]  # fmt: skip
    assert await total(database) == 9 + 20 + 30 + 2
    assert (await service.get("/servers/nas"))["network_interfaces"][1]["name"] == "veth1"  # live values as of any


async def test_the_kind_tells_that_one_on_top_of_another_comes_and_goes(
    service: Client, database: asyncpg.Connection
) -> None:
    for n in range(3):
        body = beat(n, {"eth0": n, "pod": n * 10}, kind="veth")
        body["network_interfaces"][0]["kind"] = "physical"
        body["network_interfaces"][1]["stacked_on"] = ["eth0"]
        await service.post(body)

    assert await folded(database) == [("other/*", 0, 0), ("other/*", 10, 5), ("other/*", 10, 5)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("eth0", "veth"), ("veth0", "physical"), ("tap0", "tunnel"), ("cali7", "other"), ("pod", "veth")],
)
async def test_one_that_no_other_is_below_never_folds_where_kinds_are_reported(
    service: Client, database: asyncpg.Connection, name: str, kind: str
) -> None:
    """A container's only interface is a veth; a name alone is no kind."""
    for n in range(3):
        await service.post(beat(n, {name: n * 10}, kind=kind))

    assert await is_folded(database, name) == [False] * 3
    assert await folded(database) == []
    assert [one["is_folded"] for one in (await service.get("/servers/nas"))["network_interfaces"]] == [False]


async def test_the_primary_interface_never_folds(service: Client, database: asyncpg.Connection) -> None:
    """Even of an agent that reports no kinds; its neighbours of the same name do."""
    for n in range(3):
        await service.post({**beat(n, {"veth0": n * 10, "veth1": n}), "primary_interface": "veth0"})

    assert await is_folded(database, "veth0") == [False] * 3
    assert await is_folded(database, "veth1") == [True] * 3
    assert await folded(database) == [("veth/*", 0, 0), ("veth/*", 1, 0), ("veth/*", 1, 1)]


async def test_one_that_lives_on_comes_to_a_series_of_its_own(service: Client, database: asyncpg.Connection) -> None:
    for n in range(12):
        await service.post(beat(n, {"eth0": n, "veth1": 100 * n, "veth2": 3 * n} if n != 4 else {"veth1": 100 * n}))

    assert await is_folded(database, "veth1") == [True] * 10 + [False] * 2
    assert [sum_[1] for sum_ in await folded(database)] == [0] + [103] * 3 + [100, 106] + [103] * 4
    assert await total(database) == 11 * (1 + 100 + 3)


async def test_one_that_comes_to_its_own_in_the_first_heartbeat_after_a_reboot_is_in_no_sum(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(beat(0, {"veth1": 500}))

    await service.post({**beat(11, {"veth1": 70}), "boot_id": "b"})

    assert await is_folded(database, "veth1") == [True, False]
    assert await folded(database) == [("veth/*", 0, 0)]
    assert await total(database) == 70


async def test_late_and_repaired_samples_keep_the_sums(service: Client, database: asyncpg.Connection) -> None:
    beats = [beat(n, {"eth0": n, "veth1": rx, "veth2": 5 * n}) for n, rx in enumerate([100, 200, 40, 60, 90, 3, 4])]
    expected = [0, 105, 45, 25, 35, 8, 6]  # with a reset at the third and the sixth

    for n in (0, 3, 1, 6, 5, 2, 4, 4):
        await service.post(beats[n])

    assert [sum_[1] for sum_ in await folded(database)] == expected
    assert await total(database) == sum(expected) + 6
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}


async def test_beyond_the_budget_the_youngest_are_folded(service: Client, database: asyncpg.Connection) -> None:
    for n in range(4):
        await service.post(beat(n, {f"ppp{i:02}": n * (i + 1) for i in range(BUDGET - 2 + 2 * n)}))

    assert list((await own_series(database)).values()) == [BUDGET - 2, BUDGET, BUDGET, BUDGET]
    assert await is_folded(database, "ppp07") == [False] * 3
    assert await is_folded(database, "ppp08") == [True] * 2
    assert await folded(database) == [("other/*", 0, 0), ("other/*", 9 + 10, 13 + 15 - 9 - 10)]


async def test_a_backlog_newest_first_keeps_to_the_budget(service: Client, database: asyncpg.Connection) -> None:
    beats = [beat(n, {f"ppp{i:02}": n * (i + 1) for i in range(20)}) for n in range(6)]

    for one in reversed(beats):
        await service.post(one)

    assert set((await own_series(database)).values()) == {BUDGET}
    assert await total(database) == 5 * sum(range(1, 21))


async def test_a_budget_that_was_lowered_holds_from_the_next_heartbeat_on(
    service: Client, database: asyncpg.Connection
) -> None:
    """As with 20 series from before."""
    await service.post(beat(0, {f"ppp{i:02}": 0 for i in range(20)}))
    await database.execute("UPDATE network_interface_metrics SET is_folded = false WHERE delta_kind <> 'folded'")
    states = await database.fetchval("SELECT interfaces FROM servers")
    unfolded = [tuple(False if key == "is_folded" else value for key, value in state.items()) for state in states]
    await database.execute("UPDATE servers SET interfaces = $1", unfolded)

    await service.post(beat(1, {f"ppp{i:02}": 5 for i in range(20)}))

    assert (await own_series(database))[at(1)] == BUDGET


async def test_a_thousand_short_lived_interfaces_in_a_day_are_within_the_budget_and_fast(
    service: Client, database: asyncpg.Connection
) -> None:
    """A heartbeat every 2 minutes for a day; each interface lives for 8 minutes."""
    received = 0

    async def post(server_id: str, minutes: int, n: int) -> float:
        nonlocal received
        live = {f"veth{number:04}": 1_000 * (n - number * 720 // 1000) for number in alive(n)}
        received += sum(1_000 for rx in live.values() if rx)
        body = beat(minutes, {"eth0": 10 * n, **live}) | {"server_id": server_id}
        started = time.perf_counter()
        await service.post(body)
        return time.perf_counter() - started

    seconds, of_another = [], []
    for n in range(720):
        seconds.append(await post("nas", 2 * n, n))
        if n >= 620:  # by turns with a server that begins: a machine that becomes busy meanwhile is busy for both
            of_another.append(await post("new", 2 * n + 1, n - 620))
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    assert await database.fetchval("SELECT count(DISTINCT interface_name) FROM network_interface_metrics") == 1_002
    assert max((await own_series(database)).values()) == 1
    assert await total(database) == received + 10 * 719 + 10 * 99
    assert await database.fetchval("SELECT max(cardinality(interfaces)) FROM servers") < 30
    assert len((await service.get("/servers/nas"))["network_interfaces"]) <= 7
    median = sorted(seconds)[len(seconds) // 2]
    assert median < 0.1
    assert sorted(seconds[-100:])[50] < 3 * sorted(of_another)[50]  # no slower for what there was


def alive(n: int) -> Iterable[int]:
    """Of a thousand interfaces, which began within the last four heartbeats of 720."""
    return (number for number in range(1000) if 0 <= n - number * 720 // 1000 < 4)


@pytest.mark.parametrize(
    ("name", "kind", "series"),
    [
        ("veth12ab", "veth", "veth/*"), ("cali9f", None, "cali/*"), ("lxc7", "veth", "lxc/*"),
        ("ve-web", "veth", "ve-/*"),
        # lxcbr0 is a bridge and no guest's; it is folded as a veth only where its agent says that it is one.
        ("lxcbr0", "veth", "other/*"), ("port3", "veth", "other/*"), ("lxcbr0", "bridge", None),
        ("eth0", "physical", None),
    ],
)  # fmt: skip
async def test_an_interface_names_the_series_that_it_is_folded_into(
    service: Client, database: asyncpg.Connection, name: str, kind: str | None, series: str | None
) -> None:
    for minutes, rx in ((0, 1_000), (1, 3_000)):
        body = heartbeat(at=at(minutes), boot="a") | {"primary_interface": "up0"}
        one = interface(name, rx, rx, kind=kind, stacked_on=["up0"])
        body["network_interfaces"] = [interface("up0", rx, rx, kind="physical"), one]
        await service.post(body)

    (of_server,) = [one for one in (await service.get("/servers/nas"))["network_interfaces"] if one["name"] == name]
    of_interface = await service.get(f"/servers/nas/interfaces/{name}")
    assert (of_server["is_folded"], of_server["folded_into"]) == (series is not None, series)
    assert (of_interface["is_folded"], of_interface["folded_into"]) == (series is not None, series)
    assert {row[0] for row in await folded(database)} == ({series} if series else set())


def test_ingest_and_the_database_fold_the_same_names() -> None:
    sql = (ROOT / "sql/function/fold_interfaces.sql").read_text(encoding="utf-8")

    assert f"substring(interface_name FROM '^({FOLDED.pattern})')" in sql


async def test_those_past_a_servers_budget_name_their_series_too(service: Client) -> None:
    many = {f"eth{number}": 1_000 for number in range(BUDGET + 3)}
    await service.post(beat(0, many))

    found = (await service.get("/servers/nas"))["network_interfaces"]

    assert {one["folded_into"] for one in found if one["is_folded"]} == {"other/*"}
    assert sum(one["is_folded"] for one in found) == 3
