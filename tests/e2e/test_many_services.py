"""Four services on one database: what each keeps for itself, and how soon it follows the others.

The bounds are those of docs/many-services.md; a busy machine gets PATIENCE times as long.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from service.access.keys import secret_key
from service.access.sessions import Sessions
from service.settings import Settings
from tests.conftest import Clones, with_database
from tests.e2e.conftest import ServiceProcess, serving
from tests.helpers.balancer import Balancer
from tests.helpers.faults import Load
from tests.helpers.processes import KillableService
from tests.helpers.support import KEY, heartbeat

PATIENCE = 10
ADMIN = {"Authorization": f"Bearer {KEY}"}
# A service that stood still takes a connection for idle, although it has been asked meanwhile: each is of its own.
SINGLE = {"Connection": "close"}


@dataclass
class Services:
    """The services, all with the data directory `directory`, on the database at `database_url`."""

    processes: list[ServiceProcess]
    database_url: str
    directory: Path


@pytest.fixture(scope="module")
def services(database_server: str, clones: Clones, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    name = asyncio.run(clones.take())
    url, directory = with_database(database_server, name), tmp_path_factory.mktemp("services")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(serving(url, directory)) for _ in range(4)]
        yield Services(processes, url, directory)
    clones.give_back(name)


@pytest.fixture
async def http(services: Services) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of each service, with the fleet key."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=one.url, headers=ADMIN | SINGLE, timeout=60, trust_env=False)
            )
            for one in services.processes
        ]


async def within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while not await holds():
        assert time.monotonic() < deadline, f"not within {seconds} s, times {PATIENCE}"
        await asyncio.sleep(0.05)


async def post(client: httpx.AsyncClient, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    return await client.post("/api/v1/agents/heartbeat", json=body, headers=headers or ADMIN)


async def make(client: httpx.AsyncClient, **body: Any) -> tuple[str, dict[str, str]]:
    """A new token's id, and the header that carries it."""
    answer = await client.post("/api/v1/tokens", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], {"Authorization": f"Bearer {answer.json()['token']}"}


async def test_a_token_is_taken_by_every_process_at_once_and_refused_after_two_seconds(
    http: list[httpx.AsyncClient],
) -> None:
    token_id, header = await make(http[0], kind="read")

    async def statuses() -> list[int]:
        return [(await one.get("/api/v1/servers", headers=header)).status_code for one in http]

    assert await statuses() == [200] * 4

    await http[1].delete(f"/api/v1/tokens/{token_id}")

    assert (await http[1].get("/api/v1/servers", headers=header)).status_code == 401, (
        "who revoked it refuses it at once"
    )
    await within(2, lambda: _is(statuses(), [401] * 4))


async def test_a_session_that_was_signed_out_is_refused_by_every_process(http: list[httpx.AsyncClient]) -> None:
    _, header = await make(http[0], kind="read")
    token = header["Authorization"].removeprefix("Bearer ")
    signed_in = await http[0].post("/sign-in", json={"token": token})
    assert signed_in.status_code == 204, signed_in.text
    http[0].cookies.clear()
    cookie = {"Cookie": signed_in.headers["set-cookie"].partition(";")[0], "Authorization": ""}

    async def statuses() -> list[int]:
        return [(await one.get("/api/v1/servers", headers=cookie)).status_code for one in http]

    assert await statuses() == [200] * 4

    signed_out = await http[2].post("/sign-out", json={}, headers=cookie)

    assert signed_out.status_code == 204, signed_out.text

    await within(2, lambda: _is(statuses(), [401] * 4))


async def test_a_code_signs_in_once_whichever_processes_it_is_sent_to(
    http: list[httpx.AsyncClient], services: Services
) -> None:
    code = Sessions(secret_key(Settings(data_dir=str(services.directory))), KEY).code()

    answers = await asyncio.gather(*(one.post("/sign-in", json={"code": code}) for one in http * 2))

    assert sorted(answer.status_code for answer in answers) == [204, *[401] * 7]


async def test_a_configuration_goes_out_with_every_processs_answers(http: list[httpx.AsyncClient]) -> None:
    for one in http:
        await post(one, heartbeat("configured", eth0=(1, 1)))
    await http[3].put("/api/v1/servers/configured/config", json={"interval_seconds": 17})

    async def configs() -> list[Any]:
        answers = [await post(one, heartbeat("configured", eth0=(1, 1))) for one in http]
        return [answer.json()["config"].get("interval_seconds") for answer in answers]

    await within(2, lambda: _is(configs(), [17] * 4))


async def test_what_another_process_stored_shows_once_the_response_is_no_longer_cached(
    http: list[httpx.AsyncClient],
) -> None:
    path = "/api/v1/metrics/sparkline/cached/network?period=1h"
    now = datetime.now(UTC).replace(microsecond=0)
    await post(http[0], heartbeat("cached", at=now, eth0=(1, 1)))

    async def latest() -> list[int]:
        found = [(await one.get(path)).json()["data"] for one in http]
        return [sum(point["rx_bytes"] for point in points) for points in found]

    assert await latest() == [0] * 4  # from here on it is cached by each

    later = now.timestamp() + 1
    await post(http[1], heartbeat("cached", at=datetime.fromtimestamp(later, UTC), eth0=(500_001, 1)))

    assert (await latest())[1] == 500_000, "who stored it shows it at once"
    await within(1, lambda: _is(latest(), [500_000] * 4))


async def test_who_follows_the_fleet_at_one_process_sees_what_another_one_stores(http: list[httpx.AsyncClient]) -> None:
    cursor = (await http[0].get("/api/v1/fleet")).json()["at"]

    async def followed(client: httpx.AsyncClient, since: str) -> bool:
        for _ in range(PATIENCE):
            found = (await client.get("/api/v1/fleet", params={"since": since})).json()
            if "followed" in [server["id"] for server in found["servers"]]:
                return True
            since = found["at"]
        return False

    following = asyncio.gather(*(followed(one, cursor) for one in http))
    await post(http[3], heartbeat("followed", eth0=(1, 1)))

    assert await following == [True] * 4, "a cursor of one process holds at the others"


async def test_a_server_that_another_process_removed_is_registered_again(http: list[httpx.AsyncClient]) -> None:
    for one in http:
        await post(one, heartbeat("removed", eth0=(1, 1)))

    for remover, reporter in ((0, 1), (2, 3), (1, 0)):
        answer = await http[remover].delete("/api/v1/servers/removed")
        assert answer.status_code in (202, 204)
        await within(3, lambda n=remover: _is_gone(http[n]))  # type: ignore[misc]  # bound at once
        answer = await post(http[reporter], heartbeat("removed", eth0=(7, 7)))
        assert (answer.status_code, answer.json()["server_registered"]) == (200, True)


async def test_a_guid_that_one_process_saw_first_binds_the_token_everywhere(http: list[httpx.AsyncClient]) -> None:
    _, header = await make(http[0], kind="server", server_id="bound")
    token = header["Authorization"].removeprefix("Bearer ")

    async def statuses(guid: str) -> list[int]:
        agent = {"X-Agent-Token": token, "X-Server-GUID": guid, "Authorization": ""}
        return [(await post(one, heartbeat("bound", eth0=(1, 1)), agent)).status_code for one in http]

    assert await statuses("the first") == [200] * 4

    await within(3, lambda: _is(statuses("another"), [403] * 4))

    assert await statuses("the first") == [200] * 4


async def test_each_process_counts_for_itself(http: list[httpx.AsyncClient]) -> None:
    """Sign-ins, as an example that is soon used up: ten a minute with one token."""
    _, header = await make(http[0], kind="read")
    body = {"token": header["Authorization"].removeprefix("Bearer ")}

    first = [(await http[0].post("/sign-in", json=body)).status_code for _ in range(11)]
    second = (await http[1].post("/sign-in", json=body)).status_code

    assert first == [*[204] * 10, 429]
    assert second == 204


async def test_a_removal_goes_on_when_the_process_that_erases_is_killed(
    http: list[httpx.AsyncClient], services: Services, tmp_path: Path
) -> None:
    """A fifth process takes the work over once the lease of the killed one has expired."""
    database = await asyncpg.connect(services.database_url)
    killed = KillableService(services.database_url, tmp_path)
    await killed.start()
    await post(http[0], heartbeat("erased", eth0=(1, 1)))
    locker = await asyncpg.connect(services.database_url)
    transaction = locker.transaction()
    await transaction.start()
    await locker.execute("SELECT FROM servers WHERE server_id = 'erased' FOR UPDATE")
    holder = "SELECT holder FROM linkbeat.leases WHERE name = 'removal'"
    async with httpx.AsyncClient(base_url=killed.url, headers=ADMIN | SINGLE, timeout=60, trust_env=False) as client:
        assert (await client.delete("/api/v1/servers/erased")).status_code == 202
    assert killed.process is not None
    assert (await database.fetchval(holder)).split()[1] == str(killed.process.pid)
    killed.kill()
    # Another process is asked, and waits for its turn.
    assert (await http[0].delete("/api/v1/servers/erased")).status_code == 202
    await transaction.rollback()
    await locker.close()
    assert (await database.fetchval(holder)).split()[1] == str(killed.process.pid), (
        "the lease is still the killed one's"
    )

    await database.execute("UPDATE linkbeat.leases SET until = clock_timestamp() WHERE name = 'removal'")

    async def is_erased() -> bool:
        return not await database.fetchval(
            "SELECT EXISTS (SELECT FROM linkbeat.removals) OR "
            "EXISTS (SELECT FROM network_interface_metrics WHERE server_id = 'erased')"
        )

    await within(3, is_erased)
    await database.close()


async def test_services_that_are_restarted_in_turn_lose_and_repeat_nothing(database_url: str, tmp_path: Path) -> None:
    """As a rolling update does it: out of the balancer, SIGTERM, started again, ready, back in."""
    services = [KillableService(database_url, tmp_path / str(n)) for n in range(2)]
    for n, one in enumerate(services):
        (tmp_path / str(n)).mkdir()
        await one.start()
    try:
        async with Balancer([one.url for one in services]) as balancer, Load([balancer.url], agents=8) as load:
            await load.until_acknowledged(100)
            for one in services:
                balancer.out.add(one.url)
                assert await one.terminate(within_seconds=30) == 0
                await one.start()
                balancer.out.discard(one.url)
                await load.until_acknowledged(50)
            await load.stop()
            load.check_answers(allowed=(200, 503))  # no request is without an answer
            database = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
            await load.check(database)
            await database.close()
    finally:
        for one in services:
            if one.is_running:
                one.kill()


async def _is(found: Awaitable[Any], expected: Any) -> bool:
    return bool(await found == expected)


async def _is_gone(client: httpx.AsyncClient) -> bool:
    return (await client.get("/api/v1/servers/removed", headers={"Cache-Control": "no-cache"})).status_code == 404
