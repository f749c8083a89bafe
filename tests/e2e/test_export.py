"""Exports over a real connection: cut off, hung up on, and read slowly."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import ServiceProcess
from tests.helpers.history import write_rows
from tests.helpers.support import KEY, hours_ago

PATH = "/api/v1/export/traffic?format=ndjson&bucket=raw"
T0 = hours_ago(1)
ROWS = 2 * 3 * 7_200
UNDER_WAY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle' AND query LIKE 'COPY%'
"""

# Maintenance may wait for the table too.
WAITING = """
SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND datname = current_database() AND application_name = 'linkbeat read'
"""


@pytest.fixture
async def history(database: asyncpg.Connection) -> asyncpg.Connection:
    """More than sockets hold: several pages, 20 MB."""
    await database.execute(
        "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) "
        "SELECT s, s, now(), now(), now() FROM unnest('{nas,pi}'::text[]) s"
    )
    await write_rows(database, T0 - timedelta(hours=2), T0, timedelta(seconds=1))
    return database


@pytest.fixture
async def http(service_process: ServiceProcess) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {KEY}", "Accept-Encoding": "identity"}
    async with httpx.AsyncClient(base_url=service_process.url, headers=headers, timeout=60) as client:
        yield client


async def becomes(database: asyncpg.Connection, number: int, counted: str = UNDER_WAY) -> None:
    """Until so many pages are being read, or what else is counted."""
    started = time.monotonic()
    while await database.fetchval(counted) != number:
        assert time.monotonic() < started + 20
        await asyncio.sleep(0.02)


async def test_all_of_it_comes_and_ends_as_a_whole(history: asyncpg.Connection, http: httpx.AsyncClient) -> None:
    assert (await http.get(PATH)).content.count(b"\n") == ROWS


async def test_a_client_that_hangs_up_ends_its_statement(
    history: asyncpg.Connection, http: httpx.AsyncClient, service_process: ServiceProcess
) -> None:
    # Statements wait at a table that another connection locks: in a transaction, pg_stat_activity stands still.
    locking = await asyncpg.connect(service_process.database_url)
    try:
        async with locking.transaction():
            await locking.execute("LOCK TABLE network_interface_metrics IN ACCESS EXCLUSIVE MODE")
            request = asyncio.create_task(http.get(PATH))
            await becomes(history, 1, WAITING)

            request.cancel()

            await becomes(history, 0, WAITING)  # long before the statement's own limit
    finally:
        await locking.close()


async def test_what_fails_in_the_middle_is_cut_off_and_can_be_continued(
    history: asyncpg.Connection, http: httpx.AsyncClient, service_process: ServiceProcess
) -> None:
    found = bytearray()

    async def read() -> None:
        async with http.stream("GET", PATH) as answer:
            async for part in answer.aiter_raw():
                if not found:
                    await history.execute("ALTER VIEW network_samples RENAME TO elsewhere")
                found.extend(part)

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        await read()

    await history.execute("ALTER VIEW elsewhere RENAME TO network_samples")
    assert "export: aborted" in service_process.log
    whole = found[: found.rindex(b"\n")].split(b"\n")
    last = json.loads(whole[-1])
    assert 0 < len(whole) < ROWS
    rest = await http.get(f"{PATH}&after={last['server_id']},{last['time']},{last['interface_name']}")
    assert len(whole) + rest.content.count(b"\n") == ROWS


async def test_a_client_that_reads_slowly_holds_no_statement_and_little_memory(
    history: asyncpg.Connection, http: httpx.AsyncClient, service_process: ServiceProcess
) -> None:
    await http.get(f"{PATH}&limit=1")
    before = service_process.resident_bytes

    async with AsyncExitStack() as stack:
        answers = [await stack.enter_async_context(http.stream("GET", PATH)) for _ in range(3)]
        await asyncio.sleep(1)
        # A statement that waited for the client would end at its limit only, and cut off what is read below.
        await becomes(history, 0)
        assert service_process.resident_bytes < before + (60 << 20)
        refused = await http.get(PATH)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        for answer in answers:
            assert (await answer.aread()).count(b"\n") == ROWS
    assert (await http.get(f"{PATH}&limit=1")).status_code == 200
