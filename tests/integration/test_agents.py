"""GET /api/v1/agents: whether each agent's heartbeats come, and what it says of their delivery."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.support import Client, heartbeat, hours_ago

T0 = hours_ago(1)
SAID: dict[str, Any] = {
    "queued": 3, "oldest_seconds": 90.5, "spool": "disk", "spool_bytes": 4096, "dropped": 2, "rejected": 1,
}  # fmt: skip
UNSAID = dict.fromkeys(SAID)


async def agent(service: Client, server_id: str = "nas") -> dict[str, Any]:
    """The one agent of this id."""
    (found,) = (await service.get("/agents", search=server_id))["agents"]
    return dict(found)


async def reported(service: Client) -> dict[str, Any]:
    """What the agent says of itself."""
    return {name: value for name, value in (await agent(service)).items() if name in (*SAID, "truncated")}


async def test_an_agent_that_says_nothing_of_itself_has_nulls(service: Client) -> None:
    await service.post({"server_id": "nas", "hostname": "nas.local"})

    found = await agent(service)

    assert found.pop("received_at") > found.pop("last_seen") > T0.isoformat()
    assert found == UNSAID | {
        "server_id": "nas", "hostname": "nas.local", "status": "online", "paused": False, "agent_version": None,
        "interval_seconds": None, "lateness_seconds": 0, "clock_skew_seconds": None, "duplicates": 0, "conflicts": 0,
        "truncated": None, "config": None, "display_name": None, "tags": [],
    }  # fmt: skip


async def test_what_the_newest_heartbeat_says_is_shown(service: Client) -> None:
    await service.post(
        heartbeat(at=T0) | {"delivery": SAID, "truncated": True, "agent_version": "1.2", "interval_seconds": 15}
    )

    found = await agent(service)

    assert {name: found[name] for name in SAID} == SAID
    assert (found["truncated"], found["agent_version"], found["interval_seconds"]) == (True, "1.2", 15)
    assert datetime.fromisoformat(found["last_seen"]) == T0


async def test_one_agent_is_as_in_the_list(service: Client) -> None:
    await service.post_batch([heartbeat(name, at=T0) for name in ("a-nas", "nas", "nas-2")])

    assert (await service.get("/servers/nas/agent"))["server_id"] == "nas"
    assert await service.get("/servers/a-nas/agent") | {"lateness_seconds": 0} == await agent(service, "a-nas") | {
        "lateness_seconds": 0
    }
    assert (await service.http.get("/api/v1/servers/nobody/agent")).json()["code"] == "unknown_server"


async def test_a_late_heartbeats_word_is_not_the_newest(service: Client) -> None:
    await service.post(heartbeat(at=T0) | {"delivery": SAID})

    await service.post_batch([heartbeat(at=T0 - timedelta(minutes=n)) | {"delivery": {"queued": n}} for n in (1, 2)])

    assert await reported(service) == SAID | {"truncated": False}


async def test_what_is_no_longer_said_is_no_longer_shown(service: Client) -> None:
    largest = {"queued": 2**63 - 1, "spool_bytes": 2**63 - 1, "oldest_seconds": 1e10, "unknown_to_this_service": [1]}
    for seconds, said in (
        (0, {"delivery": SAID, "truncated": True}),
        (30, {"truncated": True}),
        (60, {"delivery": largest, "truncated": False}),
        (90, {"delivery": {}}),
        (120, {"delivery": None}),
    ):
        await service.post(heartbeat(at=T0 + timedelta(seconds=seconds)) | said)
        match seconds:
            case 30:
                assert await reported(service) == UNSAID | {"truncated": True}
            case 60:
                known = {name: largest[name] for name in ("queued", "spool_bytes", "oldest_seconds")}
                assert await reported(service) == UNSAID | known | {"truncated": False}
            case 90:
                assert await reported(service) == UNSAID | {"truncated": False}

    assert await reported(service) == UNSAID | {"truncated": None}


async def test_agents_that_say_something_and_agents_that_do_not_share_a_batch(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post_batch(
        [heartbeat(f"s{n:03}", at=T0) | ({"delivery": {"queued": n}} if n % 3 else {}) for n in range(200)]
    )

    found = (await service.get("/agents", limit=1000))["agents"]

    assert [one["queued"] for one in found] == [n if n % 3 else None for n in range(200)]
    view = await database.fetch("SELECT queued FROM agent_overview ORDER BY server_id")
    assert [row["queued"] for row in view] == [one["queued"] for one in found]


async def test_the_clocks_are_compared_when_a_heartbeat_comes_live(service: Client) -> None:
    await service.post_batch([heartbeat(at=hours_ago(2))])
    assert (await agent(service))["clock_skew_seconds"] is None

    for behind in (timedelta(minutes=3), timedelta(minutes=-4)):
        collected = datetime.now(UTC)
        await service.post(heartbeat(at=collected - behind))
        on_its_way = (datetime.now(UTC) - collected).total_seconds()
        skew = (await agent(service))["clock_skew_seconds"]
        assert -0.001 <= skew - behind.total_seconds() <= on_its_way + 0.001

    # What is replayed tells nothing, nor does what the service's own clock stands in for.
    await service.post_batch([heartbeat(at=datetime.now(UTC) + timedelta(minutes=4, seconds=30))])
    await service.post(heartbeat(at=hours_ago(1)))
    assert (await agent(service))["clock_skew_seconds"] == skew


async def test_lateness_is_counted_from_arrival_to_arrival_and_up_to_now(
    service: Client, database: asyncpg.Connection
) -> None:
    async def wait(seconds: float) -> None:
        """As if so much time had passed since the last heartbeat."""
        await database.execute("UPDATE servers SET received_at = now() - make_interval(secs => $1)", seconds)

    async def lateness() -> float:
        return float((await agent(service))["lateness_seconds"])

    beat = {"interval_seconds": 2_000}
    await service.post(heartbeat(at=T0) | beat)
    assert await lateness() == 0
    await wait(1_900)
    assert await lateness() == 0
    await wait(5_000)
    assert 3_000 <= await lateness() < 3_500
    await service.post(heartbeat(at=T0 + timedelta(minutes=1)) | beat)
    assert 3_000 <= await lateness() < 3_500, "the newest came late"
    await service.post(heartbeat(at=T0 - timedelta(minutes=1)) | beat)
    assert await lateness() == 0, "and then one came in time"


async def test_duplicates_and_conflicts_are_counted(service: Client) -> None:
    for rx in (1, 1, 2):
        await service.post(heartbeat(at=T0, eth0=(rx, 0)))

    found = await agent(service)

    assert (found["duplicates"], found["conflicts"]) == (2, 1)


async def test_an_agent_that_says_it_is_paused_is_shown_so_everywhere(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(heartbeat(at=T0, eth0=(1_000, 0)))
    paused = {"server_id": "nas", "hostname": "nas.local", "boot_id": "boot-1", "status": "paused"}
    await service.post(paused | {"timestamp": (T0 + timedelta(seconds=30)).isoformat()})

    assert (await agent(service))["paused"] is True
    assert (await agent(service))["status"] == "online"
    assert (await service.get("/servers/nas"))["paused"] is True
    assert await database.fetchval("SELECT is_paused FROM server_overview") is True

    await service.post(heartbeat(at=T0 + timedelta(minutes=5), eth0=(5_000, 0)))
    assert (await agent(service))["paused"] is False
    rows = await database.fetch("SELECT rx_bytes_delta, delta_kind FROM network_interface_metrics ORDER BY time")
    assert [tuple(row) for row in rows] == [(0, "first"), (4_000, "gap")]


@pytest.mark.parametrize("sort", ["id", "hostname", "last_seen"])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_the_list_filters_sorts_and_pages_as_the_servers_do(
    service: Client, database: asyncpg.Connection, sort: str, order: str
) -> None:
    await service.post_batch(
        [heartbeat(f"s{n}", at=T0 + timedelta(seconds=n * 7 % 10)) | {"hostname": f"h{n * 3 % 5}"} for n in range(10)]
    )
    await database.execute("UPDATE servers SET received_at = now() - INTERVAL '1 hour' WHERE server_id IN ('s1', 's2')")

    for query in ({}, {"status": "online"}, {"status": "offline"}, {"search": "H1"}):
        expected = [one["id"] for one in (await service.get("/servers", sort=sort, order=order, **query))["servers"]]
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = await service.get("/agents", sort=sort, order=order, limit=3, **query, **after)
            found += [one["server_id"] for one in page["agents"]]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert found == expected
        assert found


async def test_a_bad_query_is_refused(service: Client) -> None:
    for query in ({"status": "late"}, {"sort": "queued"}, {"limit": 0}, {"after": "x"}):
        assert (await service.http.get("/api/v1/agents", params=query)).status_code == 422
