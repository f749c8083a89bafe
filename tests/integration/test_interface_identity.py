"""An interface keeps its series through renames, swaps and replacements: I1 to I10 of docs/names.md."""

import itertools
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from tests.helpers.evidence import at
from tests.helpers.support import Client, boot_id, differing_rows, interface

MACS = {n: f"52:54:00:00:00:0{n}" for n in range(1, 9)}
EQUAL = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
STEP = 1_000_000


def card(name: str, rx: int, mac: int | None = None, *, ifindex: int | None = None, **more: Any) -> dict[str, Any]:
    """A physical interface, as an agent that reads evidence reports it."""
    described: dict[str, Any] = {"kind": "physical", "rx_packets": rx // 1000, "carrier_changes": 2, **more}
    if mac is not None:
        described["permanent_address"] = MACS[mac]
    if ifindex is not None:
        described["ifindex"] = ifindex
    return interface(name, rx, **described)


def virtual(name: str, rx: int, ifindex: int, kind: str = "tunnel", **more: Any) -> dict[str, Any]:
    return interface(name, rx, kind=kind, ifindex=ifindex, rx_packets=rx // 1000, carrier_changes=1, **more)


def beat(n: int, *interfaces: dict[str, Any], boot: str = "a", server_id: str = "nas") -> dict[str, Any]:
    """The heartbeat at n intervals."""
    return {
        "server_id": server_id,
        "hostname": "nas",
        "timestamp": at(30 * n).isoformat(),
        "boot_id": boot_id(boot),
        "network_interfaces": list(interfaces),
    }


async def rows(database: asyncpg.Connection, server_id: str = "nas") -> list[tuple[str, int, int, str]]:
    """Series, interval, received octets and kind of each stored row."""
    stored = await database.fetch(
        "SELECT interface_name, time, rx_bytes_delta, delta_kind FROM network_interface_metrics WHERE server_id = $1 "
        "ORDER BY interface_name, time",
        server_id,
    )
    return [(row["interface_name"], round((row["time"] - at(0)).total_seconds() / 30), *row[2:]) for row in stored]


async def names(database: asyncpg.Connection, server_id: str = "nas") -> list[tuple[str, str, int, int | None]]:
    def interval(moment: datetime | None) -> int | None:
        return None if moment is None else round((moment - at(0)).total_seconds() / 30)

    found = await database.fetch(
        "SELECT series, os_name, since, until FROM linkbeat.interface_names WHERE server_id = $1 "
        'ORDER BY series COLLATE "C", since',
        server_id,
    )
    return [(row[0], row[1], interval(row[2]) or 0, interval(row[3])) for row in found]


async def events(database: asyncpg.Connection, server_id: str = "nas") -> list[tuple[str, str]]:
    found = await database.fetch(
        "SELECT series, event FROM linkbeat.interface_events WHERE server_id = $1 ORDER BY time, series, event",
        server_id,
    )
    return [tuple(row) for row in found]


async def check(database: asyncpg.Connection) -> None:
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    assert await differing_rows(database) == EQUAL


RENAMED = [
    *(beat(n, card("ens3", 10**9 + n * STEP, 1, ifindex=2)) for n in range(3)),
    *(beat(n, card("lan0", 10**9 + n * STEP, 1, ifindex=2)) for n in range(3, 6)),
]
REBOOTED = [
    *(beat(n, card("ens3", 10**9 + n * STEP, 1, ifindex=2)) for n in range(3)),
    *(beat(n, card("eth0", (n - 2) * STEP, 1, ifindex=3), boot="b") for n in range(3, 6)),
]
SWAPPED = [
    *(
        beat(n, card("eth0", 10**9 + n * STEP, 1, ifindex=2), card("eth1", 10**12 + n * 5 * STEP, 2, ifindex=3))
        for n in range(3)
    ),
    *(
        beat(
            n, card("eth0", (n - 2) * 5 * STEP, 2, ifindex=2), card("eth1", (n - 2) * STEP, 1, ifindex=3), boot="b"
        )
        for n in range(3, 6)
    ),
]  # fmt: skip
FIRST = [(0, 0, "first"), (1, STEP, "normal"), (2, STEP, "normal")]
STORIES = {
    "renamed": (RENAMED, {"ens3": [*FIRST, *((n, STEP, "normal") for n in (3, 4, 5))]}),
    "rebooted": (REBOOTED, {"ens3": [*FIRST, (3, STEP, "reboot"), (4, STEP, "normal"), (5, STEP, "normal")]}),
    "swapped": (
        SWAPPED,
        {
            "eth0": [*FIRST, (3, STEP, "reboot"), (4, STEP, "normal"), (5, STEP, "normal")],
            "eth1": [
                (0, 0, "first"), (1, 5 * STEP, "normal"), (2, 5 * STEP, "normal"), (3, 5 * STEP, "reboot"),
                (4, 5 * STEP, "normal"), (5, 5 * STEP, "normal"),
            ],
        },
    ),
}  # fmt: skip
NAMES = {
    "renamed": [("ens3", "ens3", 0, 3), ("ens3", "lan0", 3, None)],
    "rebooted": [("ens3", "ens3", 0, 3), ("ens3", "eth0", 3, None)],
    "swapped": [
        ("eth0", "eth0", 0, 3), ("eth0", "eth1", 3, None), ("eth1", "eth1", 0, 3), ("eth1", "eth0", 3, None),
    ],
}  # fmt: skip


def expected(story: str) -> list[tuple[str, int, int, str]]:
    return [(series, *row) for series, found in STORIES[story][1].items() for row in found]


@pytest.mark.parametrize("story", STORIES)
async def test_i1_i2_i3_a_card_keeps_its_series(service: Client, database: asyncpg.Connection, story: str) -> None:
    for body in STORIES[story][0]:
        assert not (await service.post(body))["duplicate"]

    assert await rows(database) == expected(story)
    assert sorted(await names(database)) == sorted(NAMES[story])
    assert {event for _, event in await events(database)} == {"renamed"}
    newest = (await service.get("/servers/nas"))["network_interfaces"]
    called = {series: name for series, name, _, until in NAMES[story] if until is None}
    assert {one["name"]: one["os_name"] for one in newest} == called
    assert {one["carrier_changes"] for one in newest} == {2}
    line = await service.get("/metrics/sparkline/nas/network", period="24h", interface=next(iter(called)))
    assert sum(point["rx_bytes"] for point in line["data"]) == 5 * STEP
    await check(database)


@pytest.mark.parametrize("story", STORIES)
async def test_i4_the_order_of_arrival_does_not_matter(
    service: Client, database: asyncpg.Connection, story: str
) -> None:
    bodies = STORIES[story][0]
    orders = [tuple(reversed(range(6))), *itertools.islice(itertools.permutations(range(6)), 100, 720, 37)]
    for n, order in enumerate(orders):
        for place in order:
            await service.post({**bodies[place], "server_id": f"s{n}"})
            again = await service.post({**bodies[place], "server_id": f"s{n}"})
            assert again["duplicate"]

    for n, order in enumerate(orders):
        assert await rows(database, f"s{n}") == expected(story), order
        assert sorted(await names(database, f"s{n}")) == sorted(NAMES[story]), order
    await check(database)


async def test_i4_batches_are_resolved_like_single_heartbeats(service: Client, database: asyncpg.Connection) -> None:
    for story in STORIES:
        bodies = [{**body, "server_id": story} for body in STORIES[story][0]]
        answer = await service.post_batch([*bodies[3:], *bodies[:3], *bodies])
        assert (answer["stored"], answer["duplicate"], answer["rejected"]) == (6, 6, [])

    for story in STORIES:
        assert await rows(database, story) == expected(story)
        assert sorted(await names(database, story)) == sorted(NAMES[story])


async def test_i5_a_card_that_is_replaced_under_its_name_goes_on_and_is_told(
    service: Client, database: asyncpg.Connection
) -> None:
    for n in range(3):
        await service.post(beat(n, card("eth0", 10**9 + n * STEP, 1, ifindex=2)))
    for n in range(3, 5):
        await service.post(beat(n, card("eth0", (n - 2) * 500_000, 2, ifindex=7)))

    assert await rows(database) == [
        *(("eth0", *row) for row in FIRST), ("eth0", 3, 500_000, "reset"), ("eth0", 4, 500_000, "normal")
    ]  # fmt: skip
    assert await events(database) == [("eth0", "hardware_changed")]
    detail = await database.fetchval("SELECT detail::text FROM linkbeat.interface_events")
    assert MACS[1] in detail
    assert MACS[2] in detail


async def test_a_new_card_under_a_name_whose_card_has_another_is_a_series_of_its_own(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(beat(0, card("eth0", 10**9, 1, ifindex=2)))
    await service.post(beat(1, card("eth1", 10**6, 1, ifindex=3), card("eth0", 5 * 10**6, 2, ifindex=2), boot="b"))

    assert await rows(database) == [
        ("eth0", 0, 0, "first"), ("eth0", 1, 10**6, "reboot"), ("eth0/2", 1, 0, "first"),
    ]  # fmt: skip
    newest = (await service.get("/servers/nas"))["network_interfaces"]
    assert [(one["name"], one["os_name"]) for one in newest] == [("eth0", "eth1"), ("eth0/2", "eth0")]
    for path in ("eth0%2F2", "eth0/2"):
        assert (await service.get(f"/servers/nas/interfaces/{path}"))["os_name"] == "eth0"
        assert (await service.get(f"/servers/nas/interfaces/{path}/stats"))["interface"]["name"] == "eth0/2"
    unknown = await service.http.get("/api/v1/servers/nas/interfaces/eth0/3")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "server 'nas' has no interface 'eth0/3'")


async def test_i6_a_modem_in_another_port_is_the_same_modem(service: Client, database: asyncpg.Connection) -> None:
    await service.post(beat(0, card("ups17", 10**9, 1, ifindex=17, bus_path="usb1/1-1:1.0")))
    await service.post(beat(1))
    await service.post(beat(2, card("ups18", STEP, 1, ifindex=18, bus_path="usb1/1-2:1.0")))

    assert await rows(database) == [("ups17", 0, 0, "first"), ("ups17", 2, STEP, "reset")]


async def test_a_card_without_an_address_is_known_by_its_slot_or_its_alias(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(beat(0, card("em0", 10**9, bus_path="pci/3"), card("ppp0", 10**9, alias="DSL", kind="tunnel")))
    await service.post(
        beat(1, card("igc0", STEP, bus_path="pci/3"), card("dsl", STEP, alias="DSL", kind="tunnel"), boot="b")
    )

    assert [row[:2] for row in await rows(database)] == [("em0", 0), ("em0", 1), ("ppp0", 0), ("ppp0", 1)]


@pytest.mark.parametrize("name", ["wg0", "ppp0", "docker0"])
async def test_i7_a_virtual_interface_that_is_made_again_is_its_name(
    service: Client, database: asyncpg.Connection, name: str
) -> None:
    octets = 0
    await service.post(beat(0, virtual(name, 10**7, 3)))
    for n in range(1, 51):
        await service.post(beat(2 * n, virtual(name, 10_000 + n, 3 + n)))
        await service.post(beat(2 * n + 1, virtual(name, 10**7, 3 + n)))
        octets += 10**7

    stored = await rows(database)
    assert {row[0] for row in stored} == {name}
    assert sum(row[3] == "reset" for row in stored) == 50
    assert sum(row[2] for row in stored) == octets


async def test_i8_copied_addresses_match_nothing(service: Client, database: asyncpg.Connection) -> None:
    copied = {"permanent_address": MACS[1]}

    def interfaces(n: int, boot: int) -> list[dict[str, Any]]:
        return [
            card("eth0", 10**6 * n + 1, 1, ifindex=2 + boot),
            card("eth1", 10**6 * n + 2, 2, ifindex=3 + boot),
            virtual("bond0", 10**6 * n + 3, 4 + boot, "bond", stacked_on=["eth0", "eth1"], **copied),
            virtual("bond0.7", 10**6 * n + 4, 5 + boot, "vlan", stacked_on=["bond0"], **copied),
            virtual("br0", 10**6 * n + 5, 6 + boot, "bridge", stacked_on=["bond0"], **copied),
        ]

    for n in range(1, 4):
        await service.post(beat(n, *interfaces(n, 0)))
    for n in range(4, 7):
        await service.post(beat(n, *reversed(interfaces(n - 3, 10)), boot="b"))

    stored = await rows(database)
    assert {row[0] for row in stored} == {"eth0", "eth1", "bond0", "bond0.7", "br0"}
    assert {row[3] for row in stored if row[1] == 4} == {"reboot"}
    assert await events(database) == []


async def test_i9_a_repeated_permanent_address_is_no_evidence_and_is_told_once(
    service: Client, database: asyncpg.Connection
) -> None:
    for n in range(3):
        first, second = (card(f"usb{i}", 10**9 - i + n, 1, ifindex=2 + i + 2 * n) for i in range(2))
        await service.post(beat(n, first, second, boot=f"{n}"))

    assert {(row[0], row[1]) for row in await rows(database)} == {(f"usb{i}", n) for i in range(2) for n in range(3)}
    assert await events(database) == [("usb0", "duplicate_address")]


async def test_i10_an_agent_without_evidence_is_served_as_ever(service: Client, database: asyncpg.Connection) -> None:
    for n, name in enumerate(["ens3", "ens3", "eth0"]):
        body = beat(n, interface(name, 10**9 + n))
        await service.post(body)

    assert {row[0] for row in await rows(database)} == {"ens3", "eth0"}
    assert await database.fetchval("SELECT identity_version FROM servers") is None
    assert await database.fetchval("SELECT count(*) FROM linkbeat.interface_epochs") == 0
    assert await names(database) == []


async def test_an_agent_that_no_longer_sends_evidence_goes_on_under_its_series(
    service: Client, database: asyncpg.Connection
) -> None:
    for body in RENAMED:
        await service.post(body)
    for n in range(6, 8):
        await service.post(beat(n, interface("lan0", 10**9 + n * STEP)))

    assert {row[0] for row in await rows(database)} == {"ens3"}
    assert (await rows(database))[-1] == ("ens3", 7, STEP, "normal")


async def test_changes_of_the_link_move_with_the_rows_of_a_rename_that_is_shown_late(
    service: Client, database: asyncpg.Connection
) -> None:
    for n, changes in ((2, 2), (3, 6)):
        await service.post(beat(n, card("lan0", n * STEP, 1, ifindex=2, carrier_changes=changes)))
    changed = "SELECT interface_name, time, changes FROM linkbeat.carrier_changes"
    assert [tuple(row) for row in await database.fetch(changed)] == [("lan0", at(90), 4)]

    await service.post(beat(0, card("eth0", 0, 1, ifindex=2)))

    assert [tuple(row) for row in await database.fetch(changed)] == [("eth0", at(90), 4)]
    assert {row[0] for row in await rows(database)} == {"eth0"}


async def test_the_primary_interface_and_what_is_stacked_follow_the_series(
    service: Client, database: asyncpg.Connection
) -> None:
    def story(n: int, name: str) -> dict[str, Any]:
        below = virtual(f"{name}.7", 10 + n, 9, "vlan", stacked_on=[name])
        return beat(n, card(name, 10**9 + n, 1, ifindex=2), below) | {"primary_interface": name}

    await service.post(story(0, "ens3"))
    await service.post(story(1, "lan0"))

    server = await service.get("/servers/nas")
    assert server["primary_interface"] == "ens3"
    assert [(one["name"], one["os_name"], one["stacked_on"]) for one in server["network_interfaces"]] == [
        ("ens3", "lan0", None), ("ens3.7", "lan0.7", ["ens3"])
    ]  # fmt: skip
    overview = await database.fetch("SELECT interface_name, os_name, is_primary, is_lowest FROM interface_overview")
    assert {tuple(row) for row in overview} == {("ens3", "lan0", True, True), ("ens3.7", "lan0.7", False, False)}


async def test_clones_with_their_own_cards_are_told_apart_by_their_boots(
    service: Client, database: asyncpg.Connection
) -> None:
    for n in range(0, 8, 2):
        await service.post(beat(n, card("eth0", 10**9 + n * STEP, 1, ifindex=2)))
        await service.post(beat(n + 1, card("eth0", 10**6 + n * STEP, 2, ifindex=2), boot="clone"))

    stored = await rows(database)
    assert {row[0] for row in stored} == {"eth0"}
    assert sum(row[2] for row in stored) == 2 * 3 * 2 * STEP
    assert await database.fetchval("SELECT count(*) FROM linkbeat.interface_epochs") == 2


async def test_names_and_events_of_a_server_are_listed(service: Client) -> None:
    for body in RENAMED:
        await service.post(body)

    found = await service.get("/servers/nas/names")

    assert [(one["interface"], one["os_name"], one["until"] is None) for one in found["names"]] == [
        ("ens3", "ens3", False), ("ens3", "lan0", True)
    ]  # fmt: skip
    assert [(one["interface"], one["event"], one["detail"]) for one in found["events"]] == [
        ("ens3", "renamed", {"from": "ens3", "to": "lan0", "evidence": "ifindex"})
    ]  # fmt: skip
    assert found["suggestions"] == []
    assert (await service.get("/servers/nas/interfaces/lan0"))["name"] == "ens3"
    assert (await service.http.get("/api/v1/servers/nobody/names")).status_code == 404


async def test_an_interface_that_may_be_another_one_is_suggested(service: Client) -> None:
    for n, name in enumerate(["old", "old", "eth0", "eth0"]):
        await service.post(beat(n, interface(name, 10**9 + n), interface("wlan0", n)))

    found = await service.get("/servers/nas/names")

    assert [(one["interface"], one["into"]) for one in found["suggestions"]] == [("old", "eth0")]
    assert found["names"] == []


async def test_what_is_remembered_of_a_server_is_bounded(service: Client, database: asyncpg.Connection) -> None:
    for n in range(1, 104):
        await service.post(beat(n, card("eth0", 10**6 + n, 1, ifindex=1 + n), boot=f"{n}"))
    kept = await database.fetchval("SELECT count(*) FROM linkbeat.interface_epochs")
    await service.post(beat(0, card("old0", 10**6, 1, ifindex=1), boot="0"))

    assert 50 <= kept <= 100
    assert await database.fetchval("SELECT count(*) FROM linkbeat.interface_epochs") == kept
    assert {row[0] for row in await rows(database)} == {"eth0"}
    assert (await rows(database))[0] == ("eth0", 0, 0, "first")


async def test_a_removed_server_keeps_no_names(service: Client, database: asyncpg.Connection) -> None:
    for body in RENAMED:
        await service.post(body)

    assert (await service.http.delete("/api/v1/servers/nas")).status_code == 204
    await database.execute("CALL linkbeat.erase_removed()")
    await service.post(RENAMED[-1])

    assert await rows(database) == [("lan0", 5, 0, "first")]
    assert await names(database) == [("lan0", "lan0", 5, None)]


async def test_a_usual_heartbeat_asks_nothing(service: Client, database: asyncpg.Connection) -> None:
    for body in RENAMED[:2]:
        await service.post(body)
    version = await database.fetchval("SELECT identity_version FROM servers")
    await database.execute("ALTER FUNCTION linkbeat.resolve_interfaces RENAME TO gone")

    await service.post(RENAMED[2])

    assert await database.fetchval("SELECT identity_version FROM servers") == version
