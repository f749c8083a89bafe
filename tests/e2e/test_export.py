"""Exports over a real connection: cut off, hung up on, and read slowly."""

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from tests.e2e.conftest import ServiceProcess
from tests.history import write_rows
from tests.support import KEY, hours_ago

PATH = "/api/v1/export/traffic?format=ndjson&bucket=raw"
T0 = hours_ago(1)
ROWS = 2 * 3 * 7_200
UNDER_WAY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle' AND query LIKE 'COPY%'
"""


@pytest.fixture
async def history(database: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """More than sockets hold: several pages, 20 MB."""
    await database.execute(
        "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) "
        "SELECT s, s, now(), now(), now() FROM unnest('{nas,pi}'::text[]) s"
    )
    await write_rows(database, T0 - timedelta(hours=2), T0, timedelta(seconds=1))
    yield database


def ask(service: ServiceProcess, path: str = PATH) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
    return connection


async def becomes(database: asyncpg.Connection, statements: int, seconds: float = 5.0) -> float:
    started = time.monotonic()
    while await database.fetchval(UNDER_WAY) != statements:
        assert time.monotonic() < started + seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def test_all_of_it_comes_and_ends_as_a_whole(
    history: asyncpg.Connection, service_process: ServiceProcess
) -> None:
    body = await asyncio.to_thread(lambda: ask(service_process).getresponse().read())

    assert body.count(b"\n") == ROWS


async def test_a_client_that_hangs_up_ends_its_statement(
    history: asyncpg.Connection, service_process: ServiceProcess
) -> None:
    async with history.transaction():
        await history.execute("LOCK TABLE network_interface_metrics IN ACCESS EXCLUSIVE MODE")
        connection = ask(service_process)
        await becomes(history, 1)

        connection.close()

        assert await becomes(history, 0) < 1.0


async def test_what_fails_in_the_middle_is_cut_off_and_can_be_continued(
    history: asyncpg.Connection, service_process: ServiceProcess
) -> None:
    answer = await asyncio.to_thread(ask(service_process).getresponse)
    start = answer.read(1000)
    # On both editions alike; what a server that goes away does, too.
    await history.execute("ALTER VIEW network_samples RENAME TO elsewhere")

    with pytest.raises(http.client.IncompleteRead) as raised:
        await asyncio.to_thread(answer.read)

    await history.execute("ALTER VIEW elsewhere RENAME TO network_samples")
    lines = (start + raised.value.partial).splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    last = json.loads(whole[-1])
    assert 0 < len(whole) < ROWS
    assert "export: cut off" in service_process.log
    path = f"{PATH}&after={last['server_id']},{last['time']},{last['interface_name']}"
    rest = await asyncio.to_thread(lambda: ask(service_process, path).getresponse().read())
    assert len(whole) + rest.count(b"\n") == ROWS


async def test_a_client_that_reads_slowly_holds_no_statement_and_little_memory(
    history: asyncpg.Connection, service_process: ServiceProcess
) -> None:
    await asyncio.to_thread(lambda: ask(service_process, f"{PATH}&limit=1").getresponse().read())
    before = service_process.resident_bytes

    waiting = [ask(service_process) for _ in range(3)]
    answers = [await asyncio.to_thread(one.getresponse) for one in waiting]
    await asyncio.sleep(2)

    assert await history.fetchval(UNDER_WAY) == 0
    assert service_process.resident_bytes < before + (60 << 20)
    refused = await asyncio.to_thread(ask(service_process).getresponse)
    assert (refused.status, refused.getheader("Retry-After")) == (429, "10")
    for answer in answers:
        assert (await asyncio.to_thread(answer.read)).count(b"\n") == ROWS
