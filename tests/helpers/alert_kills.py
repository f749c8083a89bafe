"""A service that is killed around its deliveries, again and again."""

import asyncio
from collections import defaultdict
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx

from tests.helpers.alert_messages import ALL_DELIVERED, until, write
from tests.helpers.processes import KillableService, killable_service
from tests.helpers.receivers import Received, http_receiver
from tests.helpers.support import KEY

MESSAGES = 10


async def killed_while_it_delivers(
    database_url: str, database: asyncpg.Connection, directory: Path, kills: int
) -> tuple[int, int]:
    """Kills the service so often while a receiver has its message, and it could not write that down. Asserts that every
    message is delivered, and that what is sent again is the same. Returns how many messages and requests there were."""
    async with (
        http_receiver() as receiver,
        killable_service(
            database_url, directory, LINKBEAT_ALERT_PRIVATE_ADDRESSES="true", LINKBEAT_ALERT_SECONDS="300"
        ) as service,
    ):
        await add_channel(service, receiver.url)
        written, killed_at = [], []
        is_ready = asyncio.Event()
        is_ready.set()

        def kill(request: Received) -> None:
            # While it starts it may deliver already, and is left alone: start() waits for it to be ready.
            if len(receiver.received) % 3 == 0 and is_ready.is_set():
                is_ready.clear()
                killed_at.append(request.headers["idempotency-key"])
                service.kill()

        receiver.on_request = kill
        while len(killed_at) < kills:
            for place in range(MESSAGES):
                episode = uuid4()
                written.append(f"{episode}.1")
                await write(database, "ops", episode, seconds_ago=1_000 - 20 * place)
            await until(
                database,
                "NOT EXISTS (SELECT FROM linkbeat.outbox WHERE attempts = 0)",
                during=lambda: restart(service, database, is_ready),
            )
        receiver.on_request = lambda _: None
        if not service.is_running:
            await service.start()
        await database.execute("UPDATE linkbeat.outbox SET lease_until = clock_timestamp()")
        await until(database, ALL_DELIVERED)

    bodies = defaultdict(set)
    for request in receiver.received:
        bodies[request.headers["idempotency-key"]].add((request.body, tuple(request.headers.items())))
    assert bodies.keys() == set(written)
    assert {key: len(found) for key, found in bodies.items() if len(found) > 1} == {}
    sent = [request.headers["idempotency-key"] for request in receiver.received]
    assert all(sent.count(key) > 1 for key in killed_at)
    assert "Traceback" not in service.log
    return len(written), len(sent)


async def restart(service: KillableService, database: asyncpg.Connection, is_ready: asyncio.Event) -> None:
    """Where it was killed; and the lease of what it was sending runs out."""
    if not service.is_running:
        await database.execute("UPDATE linkbeat.outbox SET lease_until = clock_timestamp()")
        await service.start()
        is_ready.set()


async def add_channel(service: KillableService, url: str) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=30) as http:
        answer = await http.put(
            f"{service.url}/api/v1/alert-channels/ops", json={"kind": "webhook", "url": url, "secret": "k"}
        )
        assert answer.status_code == 200, answer.text
