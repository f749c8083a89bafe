"""High availability: alerts that fire, end and are being told while the primary dies."""

import asyncio
import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx

from tests.helpers.ha.cluster import HaCluster, Node
from tests.helpers.ha.drill import connected, emptied
from tests.helpers.processes import KillableService, killable_service
from tests.helpers.receivers import HttpReceiver, http_receiver
from tests.helpers.support import KEY, heartbeat

SERVERS = 12
RULE = {"kind": "filesystem", "above_percent": 90, "keep_seconds": 0, "channels": ["ops"]}
FIRING, RESOLVED = "firing", "resolved"


async def test_d18_alerts_fire_and_end_once_and_are_told_through_failovers(ha: HaCluster, tmp_path: Path) -> None:
    """The primary dies twice: while the receiver holds back its answer to what fires, and again to what ends."""
    async with emptied(ha) as first, http_receiver() as receiver:
        await without_alerts(first)
        async with killable_service(
            ha.url, tmp_path, LINKBEAT_ALERT_PRIVATE_ADDRESSES="true", LINKBEAT_ALERT_SECONDS="5"
        ) as service:
            await put(service, "alert-channels/ops", {"kind": "webhook", "url": receiver.url})
            await put(service, "alert-rules/full", RULE)
            for state, percent in ((FIRING, 99.0), (RESOLVED, 10.0)):
                receiver.hold.clear()
                told = len(receiver.received)
                async with reporting(service, percent):
                    await receiver.until(told + 1, seconds=300)
                    primary = await ha.healthy()
                    await asyncio.to_thread(primary.kill)
                    after = await ha.primary(other_than=primary)
                    receiver.hold.set()
                    await until_all(after, state)
                primary.start()
                await ha.healthy()
            events = await events_of(after)
            assert service.is_running
            assert "Traceback" not in service.log
    assert Counter(state for _, state in events) == {FIRING: SERVERS, RESOLVED: SERVERS}
    bodies = told_bodies(receiver)
    assert all(len(same) == 1 for same in bodies.values()), "a message that is sent again is the same, byte for byte"
    assert told_alerts(receiver) == {
        (f"full-{number:02}", state) for number in range(SERVERS) for state in (FIRING, RESOLVED)
    }
    print(
        f"D18: {SERVERS} alerts fired and ended once each through 2 failovers; {len(bodies)} messages in "
        f"{len(receiver.received)} requests, none lost, none with two bodies"
    )


async def without_alerts(node: Node) -> None:
    """What the other drills left, and the rules of the installation."""
    async with connected(node) as database:
        await database.execute(
            "DELETE FROM linkbeat.alerts; DELETE FROM linkbeat.alert_events; DELETE FROM linkbeat.outbox; "
            "DELETE FROM linkbeat.alert_channels; DELETE FROM linkbeat.alert_rules"
        )


async def put(service: KillableService, path: str, body: object) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False) as http:
        answer = await http.put(f"{service.url}/api/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def reporting(service: KillableService, percent: float) -> AsyncIterator[None]:
    """Every two seconds, each server reports a filesystem that is full to `percent`; what is not stored is left out."""

    async def report() -> None:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=10, trust_env=False) as http:
            while True:
                for number in range(SERVERS):
                    filesystem = {
                        "mount_point": "/data", "total_bytes": 10**12, "used_bytes": round(10**10 * percent),
                        "percent": percent, "available_bytes": round(10**12 - 10**10 * percent),
                    }  # fmt: skip
                    body = heartbeat(f"full-{number:02}") | {"filesystems": [filesystem], "interval_seconds": 2}
                    with contextlib.suppress(httpx.TimeoutException):
                        await http.post(f"{service.url}/api/v1/agents/heartbeat", json=body)
                await asyncio.sleep(2)

    task = asyncio.create_task(report())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def events_of(node: Node) -> list[tuple[str, str]]:
    async with connected(node) as database:
        rows = await database.fetch("SELECT server_id, to_state FROM linkbeat.alert_events")
        return [tuple(row) for row in rows]


async def until_all(node: Node, state: str) -> None:
    """Returns once every server has that event, and no message waits."""
    async with asyncio.timeout(300), connected(node) as database:
        while not await is_told(database, state):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.5)


async def is_told(database: asyncpg.Connection, state: str) -> bool:
    found = await database.fetchval(
        "SELECT count(DISTINCT server_id) FROM linkbeat.alert_events WHERE to_state = $1", state
    )
    waiting = await database.fetchval("SELECT count(*) FROM linkbeat.outbox WHERE delivered_at IS NULL")
    return bool(found == SERVERS and waiting == 0)


def told_bodies(receiver: HttpReceiver) -> dict[str, set[bytes]]:
    """The bodies of each message, by its id."""
    bodies = defaultdict(set)
    for request in receiver.received:
        bodies[request.headers["idempotency-key"]].add(request.body)
    return bodies


def told_alerts(receiver: HttpReceiver) -> set[tuple[str, str]]:
    """Which servers the receiver was told of, with the states."""
    told = set()
    for request in receiver.received:
        body = json.loads(request.body)
        told |= {(one["server_id"], one["state"]) for one in body.get("alerts", [body])}
    return told
