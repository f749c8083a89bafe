"""GET /api/v1/servers and /servers/{server_id}: what is known of each machine."""

import base64
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import asyncpg
import pytest

from service.fleet import listing
from tests.helpers.support import Client, boot_id, heartbeat, hours_ago, interface

T0 = hours_ago(1)


async def ids(service: Client, **query: Any) -> list[str]:
    return [server["id"] for server in (await service.get("/servers", **query))["servers"]]


async def pages(service: Client, between: Callable[[int], Any] | None = None, **query: Any) -> list[str]:
    """The ids of all pages, in order; `between` is awaited with each page's number."""
    found: list[str] = []
    after: str | None = None
    for number in range(1, 1_000):
        page = await service.get("/servers", **query, **({"after": after} if after else {}))
        found += [server["id"] for server in page["servers"]]
        if (after := page["next"]) is None:
            return found
        if between is not None:
            await between(number)
    raise AssertionError("the pages do not end")


async def not_heard_for(database: asyncpg.Connection, server_id: str, seconds: float) -> None:
    """Shifts the last heartbeat's arrival into the past, by the service's clock."""
    await database.execute(
        "UPDATE servers SET received_at = now() - $2::interval WHERE server_id = $1",
        server_id,
        timedelta(seconds=seconds),
    )


async def test_case_08_a_server_with_interfaces_shows_them_as_sent(service: Client) -> None:
    sent = [
        {
            "name": "eth0", "rx_bytes": 1073741824, "tx_bytes": 2**64 - 1, "rx_packets": 1000000, "tx_packets": 2**63,
            "is_up": True, "rx_errors": 1, "tx_errors": 2, "rx_dropped": 3, "tx_dropped": 4,
        },
        interface("wlan0", 5, 6),
    ]  # fmt: skip
    await service.post(heartbeat(at=T0) | {"network_interfaces": sent})

    server = await service.get("/servers/nas")

    no_word = dict.fromkeys(("kind", "stacked_on", "speed_mbps", "operstate", "rx_bps", "tx_bps", "elapsed_seconds"))
    no_word |= {
        "delta_kind": "first",
        "is_lowest": True,
        "is_folded": False,
        "folded_into": None,
        "carrier_changes": None,
        "display_name": None,
    }
    not_sent = dict.fromkeys(("rx_errors", "tx_errors", "rx_dropped", "tx_dropped"))
    called = [{"os_name": one["name"]} for one in sent]
    assert server["network_interfaces"] == [sent[0] | no_word | called[0], sent[1] | not_sent | no_word | called[1]]


async def test_an_interface_says_its_rate_and_how_its_delta_came_about(service: Client) -> None:
    bond = interface("bond0", 0) | {"kind": "bond", "stacked_on": ["eth0"], "operstate": "up"}
    young = interface("veth1", 0)
    eth0 = {"name": "eth0", "kind": "physical", "speed_mbps": 1000, "is_up": True, "rx_packets": 0, "tx_packets": 0}
    for seconds, rx in ((0, 1_000), (30, 31_000), (330, 32_000)):
        interfaces = [eth0 | {"rx_bytes": rx, "tx_bytes": 0}, bond, young]
        await service.post(heartbeat(at=T0 + timedelta(seconds=seconds)) | {"network_interfaces": interfaces})
        if seconds == 30:
            then = await service.get("/servers/nas")
    now = await service.get("/servers/nas")

    names = ("name", "rx_bps", "delta_kind", "elapsed_seconds", "is_lowest", "is_folded")
    assert [[one[name] for name in names] for one in then["network_interfaces"]] == [
        ["bond0", 0, "normal", 30, False, False],
        ["eth0", 8_000, "normal", 30, True, False],
        ["veth1", 0, "normal", 30, True, True],
    ]
    assert [[one[name] for name in names[1:4]] for one in now["network_interfaces"]][1] == [8_000 / 300, "gap", 300]
    assert now["network_interfaces"][0]["stacked_on"] == ["eth0"]


async def test_two_machines_under_one_id_and_conflicting_duplicates_are_said(service: Client) -> None:
    for seconds, boot, rx in ((0, "a", 100), (30, "b", 900), (60, "a", 150), (60, "a", 160)):
        await service.post(heartbeat(at=T0 + timedelta(seconds=seconds), boot=boot_id(boot), eth0=(rx, 0)))

    server = await service.get("/servers/nas")

    assert server["shared_since"] is not None
    assert server["shared_at"] >= server["shared_since"]
    assert (server["duplicates"], server["conflicts"]) == (1, 1)
    assert server["network_interfaces"][0]["delta_kind"] == "normal"


async def test_case_09_a_server_without_interfaces_shows_an_empty_array(service: Client) -> None:
    await service.post({"server_id": "nas", "hostname": "nas.local"})

    assert (await service.get("/servers/nas"))["network_interfaces"] == []


async def test_case_10_three_interfaces_have_unique_names_and_the_stored_values(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(heartbeat(at=T0, eth0=(1, 2), eth1=(3, 4), wlan0=(5, 6)))

    shown = (await service.get("/servers/nas"))["network_interfaces"]

    rows = await database.fetch("SELECT interface_name, rx_bytes, tx_bytes FROM network_interface_metrics ORDER BY 1")
    assert [(one["name"], one["rx_bytes"], one["tx_bytes"]) for one in shown] == [tuple(row) for row in rows]
    assert [one["name"] for one in shown] == ["eth0", "eth1", "wlan0"]


async def test_case_23_an_interface_that_is_down_says_so(service: Client) -> None:
    await service.post(
        heartbeat(at=T0)
        | {"network_interfaces": [interface("eth0", 1, is_up=False), interface("wlan0", 1, is_up=True)]}
    )

    shown = (await service.get("/servers/nas"))["network_interfaces"]

    assert {one["name"]: one["is_up"] for one in shown} == {"eth0": False, "wlan0": True}


async def test_case_23_only_virtual_interfaces_are_shown(service: Client) -> None:
    await service.post(heartbeat(at=T0, docker0=(1, 1), tailscale0=(2, 2), veth1234abc=(3, 3)))

    shown = (await service.get("/servers/nas"))["network_interfaces"]

    assert [one["name"] for one in shown] == ["docker0", "tailscale0", "veth1234abc"]


async def test_case_23_no_interfaces_is_an_empty_array(service: Client) -> None:
    await service.post(heartbeat(at=T0))

    assert (await service.get("/servers/nas"))["network_interfaces"] == []


async def test_an_unknown_server_is_404(service: Client) -> None:
    await service.post(heartbeat())

    for server_id in ("nobody", "na", "NAS", "nas%00", "%F0%9F%90%99", "a" * 300, "%ff"):
        answer = await service.http.get(f"/api/v1/servers/{server_id}")

        assert answer.status_code == 404, server_id
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unknown_server"
        assert answer.json()["status"] == 404


async def test_a_server_shows_its_newest_heartbeat(service: Client) -> None:
    said = {
        "server_guid": "550e8400-e29b-41d4-a716-446655440001",
        "agent_version": "1.2.3",
        "primary_interface": "eth0",
        "os_info": {"system": "Linux", "nested": {"kernel": [6, 1]}},
    }
    await service.post(heartbeat(at=T0))
    await service.post(heartbeat(at=T0 + timedelta(seconds=30)) | said)

    server = await service.get("/servers/nas")

    assert {name: server[name] for name in said} == said
    assert (server["id"], server["hostname"], server["status"]) == ("nas", "nas.local", "online")
    assert datetime.fromisoformat(server["first_seen"]) == T0
    assert datetime.fromisoformat(server["last_seen"]) == T0 + timedelta(seconds=30)
    assert server["first_seen"].endswith("Z")
    assert server["last_seen"].endswith("Z")


TMP = "/tmp"  # noqa: S108 - where AppImages mount themselves; nothing is written there


async def test_an_image_that_is_always_full_is_read_only(service: Client) -> None:
    sent = [
        {"mount_point": "/", "fs_type": "ext4", "percent": 99.0},
        {"mount_point": "/opt/img", "fs_type": "fuse.squashfuse", "percent": 100.0},
        {"mount_point": "/media/ana/FILM", "fs_type": "udf", "percent": 100.0},
        {"mount_point": f"{TMP}/.mount_ObsidiAbc123", "fs_type": "fuse.Obsidian-1.5.AppImage", "percent": 100.0},
        {"mount_point": "/media/cd", "fs_type": "iso9660", "percent": 100.0, "state": "unreachable"},
    ]

    await service.post(heartbeat(at=T0) | {"filesystems": sent})

    for answer in (await service.get("/servers/nas"), (await service.get("/servers"))["servers"][0]):
        states = [one["state"] for one in answer["filesystems"]]
        assert states == [None, "read-only", "read-only", "read-only", "unreachable"]


async def test_filesystems_and_metrics_are_returned_as_sent(service: Client) -> None:
    filesystems = [
        {
            "mount_point": f"/mnt/My Disk {n}", "device": "/dev/sdä", "fs_type": "ext4", "total_bytes": 2**64 - 1,
            "used_bytes": 64424509440, "available_bytes": 42949672960, "percent": 60.1, "state": None,
        }
        for n in range(25)
    ]  # fmt: skip
    filesystems.append(filesystems[0] | {"mount_point": "/net", "state": "unreachable", "available_bytes": 0})
    metrics = {"cpu_percent": 25.5, "load_1m": 0.1, "network_rx_bytes": 2**64 - 1, "uptime_seconds": 1e6}
    await service.post(heartbeat(at=T0) | {"filesystems": filesystems, "metrics": metrics})

    server = await service.get("/servers/nas")

    assert server["filesystems"] == filesystems
    assert server["latest_metrics"] == metrics


async def test_a_server_without_metrics_has_none(service: Client) -> None:
    await service.post(heartbeat(at=T0) | {"metrics": {"cpu_percent": 1.0}})
    await service.post(heartbeat(at=T0 + timedelta(seconds=30)))

    assert (await service.get("/servers/nas"))["latest_metrics"] is None


async def test_an_empty_list_clears_what_is_current_and_history_stays(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(
        heartbeat(at=T0, eth0=(1, 1), wlan0=(2, 2)) | {"filesystems": [{"mount_point": "/", "total_bytes": 1}]}
    )

    await service.post(heartbeat(at=T0 + timedelta(seconds=30)) | {"network_interfaces": [], "filesystems": []})

    server = await service.get("/servers/nas")
    assert (server["network_interfaces"], server["filesystems"]) == ([], [])
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == 2


async def test_an_interface_that_vanished_is_not_listed_and_one_that_returns_is(service: Client) -> None:
    await service.post(heartbeat(at=T0, eth0=(1, 1), usb0=(2, 2)))

    await service.post(heartbeat(at=T0 + timedelta(seconds=30), eth0=(3, 3)))
    without = (await service.get("/servers/nas"))["network_interfaces"]
    await service.post(heartbeat(at=T0 + timedelta(seconds=60), eth0=(4, 4), usb0=(5, 5)))
    returned = (await service.get("/servers/nas"))["network_interfaces"]

    assert [one["name"] for one in without] == ["eth0"]
    assert [(one["name"], one["rx_bytes"]) for one in returned] == [("eth0", 4), ("usb0", 5)]


async def test_a_late_heartbeat_brings_no_vanished_interface_back(service: Client) -> None:
    await service.post(heartbeat(at=T0, eth0=(1, 1)))

    await service.post(heartbeat(at=T0 - timedelta(minutes=5), eth0=(0, 0), usb0=(2, 2)))

    assert [one["name"] for one in (await service.get("/servers/nas"))["network_interfaces"]] == ["eth0"]


async def test_a_server_is_offline_after_three_of_its_intervals(service: Client, database: asyncpg.Connection) -> None:
    cases = [
        ("unsaid-80", None, "online"), ("unsaid-100", None, "offline"), ("short-10", 5, "online"),
        ("short-16", 5, "offline"), ("long-10000", 3600, "online"), ("long-11000", 3600, "offline"),
        ("half-2", 0.5, "offline"),
    ]  # fmt: skip
    for server_id, interval, _ in cases:
        await service.post(heartbeat(server_id, at=T0) | ({"interval_seconds": interval} if interval else {}))

    for server_id, _, _ in cases:
        await not_heard_for(database, server_id, float(server_id.partition("-")[2]))

    for server_id, _, status in cases:
        assert (await service.get(f"/servers/{server_id}"))["status"] == status, server_id
    for status in ("online", "offline"):
        assert await ids(service, status=status) == sorted(one for one, _, found in cases if found == status)


async def test_a_heartbeat_brings_a_server_back_online_even_a_late_one(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(heartbeat(at=T0))
    await not_heard_for(database, "nas", 1_000)

    await service.post(heartbeat(at=T0 - timedelta(minutes=5)))

    assert (await service.get("/servers/nas"))["status"] == "online"


async def test_the_list_filters_by_status_and_text(service: Client, database: asyncpg.Connection) -> None:
    named = {"web-1": "alpha.example.net", "web-2": "Beta.example.net", "db_1": "gamma.WEB.net"}
    for server_id, hostname in named.items():
        await service.post({"server_id": server_id, "hostname": hostname})
    await not_heard_for(database, "web-2", 1_000)

    assert await ids(service) == ["db_1", "web-1", "web-2"]
    assert await ids(service, status="online") == ["db_1", "web-1"]
    assert await ids(service, status="offline") == ["web-2"]
    assert await ids(service, search="web") == ["db_1", "web-1", "web-2"]
    assert await ids(service, search="BETA") == ["web-2"]
    assert await ids(service, search="web", status="online") == ["db_1", "web-1"]
    # Not a pattern: these characters stand for themselves.
    assert await ids(service, search="_") == ["db_1"]
    assert await ids(service, search="%") == []
    assert await ids(service, search="\0web-1") == ["web-1"]


async def test_the_list_sorts_by_each_key_both_ways(service: Client) -> None:
    for server_id, hostname, minutes in (("a", "z", 3), ("b", "y", 1), ("c", "y", 2), ("d", "x", 2)):
        await service.post(
            {"server_id": server_id, "hostname": hostname, "timestamp": (T0 + timedelta(minutes=minutes)).isoformat()}
        )
    expected = {"id": "abcd", "hostname": "dbca", "last_seen": "bcda"}

    for sort, order in expected.items():
        assert "".join(await ids(service, sort=sort)) == order
        assert "".join(await ids(service, sort=sort, order="asc")) == order
        assert "".join(await ids(service, sort=sort, order="desc")) == order[::-1]
        assert "".join(await pages(service, sort=sort, limit=1)) == order
        assert "".join(await pages(service, sort=sort, order="desc", limit=3)) == order[::-1]


class TestPages:
    """Paging by `after` while the fleet reports."""

    async def fleet(self, service: Client, count: int = 250) -> list[str]:
        server_ids = [f"s{n * 7919 % count:04}" for n in range(count)]
        await service.post_batch(
            [
                heartbeat(server_id, at=T0 + timedelta(seconds=n // 3)) | {"hostname": f"h{n % 11}"}
                for n, server_id in enumerate(server_ids)
            ]
        )
        return server_ids

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_every_server_is_there_once_while_all_of_them_report(self, service: Client, order: str) -> None:
        server_ids = await self.fleet(service)

        async def all_report(page: int) -> None:
            at = T0 + timedelta(minutes=page)
            await service.post_batch(
                [heartbeat(one, at=at) | {"hostname": f"h{n % 11}"} for n, one in enumerate(server_ids)]
            )

        by_id = await pages(service, all_report, sort="id", order=order, limit=60)
        by_hostname = await pages(service, all_report, sort="hostname", order=order, limit=60)

        assert by_id == sorted(server_ids, reverse=order == "desc")
        assert sorted(by_hostname) == sorted(server_ids)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_by_last_seen_those_that_do_not_report_meanwhile_are_there_once(
        self, service: Client, order: str
    ) -> None:
        server_ids = await self.fleet(service)
        moving = set(server_ids[::5])

        async def some_report(page: int) -> None:
            await service.post_batch([heartbeat(one, at=T0 + timedelta(minutes=10 + page)) for one in sorted(moving)])

        found = await pages(service, some_report, sort="last_seen", order=order, limit=30)

        still = [one for one in found if one not in moving]
        assert sorted(still) == sorted(set(server_ids) - moving)
        if order == "asc":  # where they move to the end: none is lost
            assert set(found) == set(server_ids)

    async def test_the_last_full_page_is_followed_by_nothing(self, service: Client) -> None:
        await self.fleet(service, 10)

        page = await service.get("/servers", limit=10)

        assert len(page["servers"]) == 10
        assert page["next"] is None


def cursor(*value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


async def test_a_query_that_is_not_as_specified_is_422_naming_it(service: Client) -> None:
    cases: list[dict[str, Any]] = [
        {"after": "nonsense"},
        {"after": cursor("hostname", "a", "a")},  # of another order
        {"sort": "last_seen", "after": cursor("last_seen", "2026-01-01T00:00:00", "a")},
        {"sort": "last_seen", "after": cursor("last_seen", "yesterday", "a")},
        {"after": cursor("id", 1, "a")},
        {"after": base64.urlsafe_b64encode(b"\xff\xfe").decode()},
        {"limit": 0},
        {"limit": 1001},
        {"limit": "many"},
        {"sort": "color"},
        {"order": "up"},
        {"status": "asleep"},
        {"search": "a" * 256},
    ]

    for query in cases:
        answer = await service.http.get("/api/v1/servers", params=query)

        assert answer.status_code == 422, (query, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "invalid"
        assert answer.json()["errors"][0]["path"] == list(query)[-1]


async def test_a_cursor_of_no_server_continues_where_it_would_stand(service: Client) -> None:
    await service.post({"server_id": "b", "hostname": "h"})

    assert await ids(service, after=cursor("id", "a\0", "a\0")) == ["b"]
    assert await ids(service, after=cursor("id", "\U0001f419", "a")) == []


async def test_a_page_ends_early_where_servers_say_much(
    service: Client, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """A thousand servers of two thousand interfaces would be a gigabyte."""
    await service.post_batch([heartbeat(f"s{n}", at=hours_ago(1 + n), eth0=(n, n)) for n in range(7)])
    bounds = ((1, 0), (2, 0), (2, 3_000), (3, 1 << 20))

    for sort, order, (rows, characters) in product(("id", "hostname", "last_seen"), ("asc", "desc"), bounds):
        with subtests.test(f"{sort} {order} {rows} {characters}"):
            monkeypatch.setattr(listing, "ROWS_AT_ONCE", rows)
            monkeypatch.setattr(listing, "PAGE_CHARACTERS", characters)
            found: list[str] = []
            query: dict[str, Any] = {"sort": sort, "order": order, "limit": 5}

            for pages in range(1, 10):  # noqa: B007 - asserted below
                answer = await service.get("/servers", **query)
                found += [one["id"] for one in answer["servers"]]
                if answer["next"] is None:
                    break
                query["after"] = answer["next"]

            forwards = [f"s{n}" for n in range(7)]
            assert found == (forwards if (order == "asc") is (sort != "last_seen") else forwards[::-1])
            assert pages == {(1, 0): 8, (2, 0): 4}.get((rows, characters), pages)
            if characters == 1 << 20:
                assert pages == 2
