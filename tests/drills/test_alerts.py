"""Alerts where it takes minutes: fifty kills, a thousand turns of four processes, a database that is away."""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from service.database import schema
from service.embedded.cluster import Cluster
from service.embedded.places import reachable_directory
from tests.helpers.alert_kills import killed_while_it_delivers
from tests.helpers.alert_messages import ALL_DELIVERED, until
from tests.helpers.alerts import MEGABIT, TURN, begin, recorded, samples, set_rule, store
from tests.helpers.faults import kill_server
from tests.helpers.ha.programs import installation
from tests.helpers.processes import KillableService, killable_service
from tests.helpers.receivers import http_receiver
from tests.helpers.support import KEY, connected, heartbeat, hours_ago

# The expected times are those of an idle machine; on a busy one, a multiple of them is allowed.
SLACK = float(os.environ.get("LINKBEAT_DRILL_SLACK", "1"))
KILLS = 50
TURNS = 1_000
PROCESSES = 4
SERVERS = 20
AWAY_SECONDS = 200  # longer than a server may be silent, and than its grace


async def test_a1_a2_killed_fifty_times_it_loses_no_message_and_sends_the_same_again(
    database_url: str, database: asyncpg.Connection, tmp_path: Path
) -> None:
    messages, requests = await killed_while_it_delivers(database_url, database, tmp_path, KILLS)

    print(f"A1, A2: {messages} messages in {requests} requests through {KILLS} kills, none lost, none with two bodies")


async def test_a3_four_processes_take_each_of_a_thousand_turns_once(
    database: asyncpg.Connection, database_url: str
) -> None:
    start = hours_ago(6)
    await begin(database, start)
    await set_rule(database, "busy", "rate", above_bps=100 * MEGABIT, window_seconds=30, keep_seconds=30)
    await store(database, samples(start, ([300.0 * MEGABIT] * 10 + [0.0] * 10) * (TURNS // 40)))
    taken: Counter[int] = Counter()

    async def process(number: int) -> None:
        async with connected(database_url) as connection:
            for turn in range(1, TURNS + 1):
                at = start + turn * TURN
                done = await connection.fetchval("SELECT is_evaluated FROM linkbeat.evaluate_alerts($1)", at)
                taken[turn] += done
                # Another process is at it: the next turn comes when this one is over.
                while not done and await connection.fetchval(  # noqa: ASYNC110 - nobody tells
                    "SELECT evaluated_at < $1 FROM linkbeat.alert_clock", at
                ):
                    await asyncio.sleep(0.002)

    await asyncio.gather(*(process(number) for number in range(PROCESSES)))

    assert set(taken.values()) == {1}
    episodes = await recorded(database)
    assert len(episodes) == TURNS // 40
    assert len({episode.active_at for episode in episodes}) == len(episodes)
    events = await database.fetchval("SELECT count(*) FROM linkbeat.alert_events")
    assert events == sum(1 + (episode.resolved_at is not None) for episode in episodes)
    print(f"A3: {TURNS} turns, each by one of {PROCESSES} processes; {events} transitions, each recorded once")


async def test_a10_a_restart_of_all_processes_tells_nobody_anything_and_delays_nothing(
    database_url: str, database: asyncpg.Connection, tmp_path: Path
) -> None:
    """Ten alerts fire and ten pend when every process is killed; for a third of what these wait, none is there."""
    waits = 60
    await database.execute("DELETE FROM linkbeat.alert_rules")
    async with (
        http_receiver() as told,
        killable_service(
            database_url, tmp_path, LINKBEAT_ALERT_PRIVATE_ADDRESSES="true", LINKBEAT_ALERT_SECONDS="5"
        ) as service,
    ):
        await put(service, "alert-channels/ops", {"kind": "webhook", "url": told.url})
        await put(service, "alert-rules/now", {"kind": "agent", "scope": {"servers": ["s0*"]}})
        await put(service, "alert-rules/slow", {"kind": "agent", "scope": {"servers": ["s1*"]}, "for_seconds": waits})
        agents = asyncio.create_task(report(service, delivery={"spool": "memory"}))
        try:
            await until_states(database, firing=10, pending=10)
            await told.until(1, seconds=60 * SLACK)
            await until(database, ALL_DELIVERED)  # or its lease would run out, and it would be sent again (A2)
            before = len(told.received)
            service.kill()
            await asyncio.sleep(waits / 3)
            await service.start()
            await until_states(database, firing=20, pending=0)
            await told.until(before + 1, seconds=60 * SLACK)
            await asyncio.sleep(30)
        finally:
            agents.cancel()
            await asyncio.gather(agents, return_exceptions=True)
        assert "Traceback" not in service.log
    bodies = [json.loads(request.body) for request in told.received]
    alerts = [one for body in bodies for one in body.get("alerts", [body])]
    assert Counter((one["rule"], one["state"]) for one in alerts) == {("now", "firing"): 10, ("slow", "firing"): 10}
    assert len({one["server_id"] for one in alerts}) == SERVERS
    waited = await database.fetch("SELECT fired_at - active_at AS waited FROM linkbeat.alerts WHERE rule_id = 'slow'")
    longest = max(row["waited"].total_seconds() for row in waited)
    assert all(row["waited"].total_seconds() >= waits for row in waited)
    assert longest <= waits + 2 * 5 * SLACK
    print(
        f"A10: {SERVERS} alerts through a restart, each told once; those that wait {waits} s fire after {longest:.0f} s"
    )


async def until_states(database: asyncpg.Connection, **counts: int) -> None:
    async with asyncio.timeout(120 * SLACK):
        while await states(database) != {state: count for state, count in counts.items() if count}:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.2)


async def states(database: asyncpg.Connection) -> dict[str, int]:
    rows = await database.fetch("SELECT state, count(*) FROM public.alerts GROUP BY 1")
    return {row[0]: row[1] for row in rows}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server to kill, never one that others use; LINKBEAT_DRILL_POSTGRES_BIN names another than the embedded one."""
    with (
        reachable_directory() as directory,
        Cluster(installation(), directory / "postgres", print, durable=True) as cluster,
    ):
        asyncio.run(schema.migrate(cluster.url, print))
        yield cluster


async def test_a7_while_the_database_is_away_pings_stop_and_nobody_becomes_silent(
    cluster: Cluster, tmp_path: Path
) -> None:
    """For as long as a server may be silent, and its grace; of an hour, integration/test_alerts_silent.py is told."""
    async with (
        http_receiver() as pinged,
        http_receiver() as told,
        killable_service(
            cluster.url, tmp_path, LINKBEAT_ALERT_PRIVATE_ADDRESSES="true", LINKBEAT_ALERT_SECONDS="5"
        ) as service,
    ):
        await put(service, "alert-channels/alive", {"kind": "ping", "url": pinged.url})
        await put(service, "alert-channels/ops", {"kind": "webhook", "url": told.url})
        await put(service, "alert-rules/silent", {"kind": "silent", "after_seconds": 30})
        agents = asyncio.create_task(report(service))
        try:
            await pinged.until(3, seconds=60 * SLACK)
            await evaluation_age(service)
            kill_server(cluster)
            down = time.monotonic()
            await asyncio.sleep(10)
            pings = len(pinged.received)
            age = await evaluation_age(service)
            await asyncio.sleep(AWAY_SECONDS - (time.monotonic() - down))

            assert len(pinged.received) == pings, "a ping follows a turn, and there is none"
            later = await evaluation_age(service)
            assert later > age
            assert later > AWAY_SECONDS - 30 * SLACK
            await asyncio.to_thread(cluster.restart)
            await pinged.until(pings + 3, seconds=120 * SLACK)
            # The grace after the return, and two turns.
            await asyncio.sleep(150 + 10)
        finally:
            agents.cancel()
            await asyncio.gather(agents, return_exceptions=True)
        assert service.is_running
        assert "Traceback" not in service.log
    assert told.received == []
    print(f"A7: the database away for {AWAY_SECONDS} s: no ping, no message about {SERVERS} servers")


async def put(service: KillableService, path: str, body: object) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False) as http:
        answer = await http.put(f"{service.url}/api/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text


async def report(service: KillableService, **more: object) -> None:
    """Each server every five seconds; what is not stored is left out, as a full spool would. `more`: of heartbeats."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=5, trust_env=False) as http:
        while True:
            for number in range(SERVERS):
                body = heartbeat(f"s{number:02}", eth0=(1, 1)) | {"interval_seconds": 5} | more
                try:
                    await http.post(f"{service.url}/api/v1/agents/heartbeat", json=body)
                except httpx.HTTPError:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(5)


async def evaluation_age(service: KillableService) -> float:
    """Seconds since the last evaluation, as /metrics says, also while the database is away."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False) as http:
        answer = await http.get(f"{service.url}/metrics")
    found = re.search(r"^linkbeat_alert_evaluated_timestamp_seconds (\S+)$", answer.text, re.MULTILINE)
    assert found, answer.text
    return time.time() - float(found[1])
