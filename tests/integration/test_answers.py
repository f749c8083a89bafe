"""What many ask for at once costs one query; and nobody sees less than they have sent."""

import asyncio
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx
import pytest
from asyncpg.connection import LoggedQuery
from litestar.testing import RequestFactory

from service import cache
from service.app import create_app
from service.clock import Clock
from service.database.pool import Database
from service.settings import Settings
from service.traffic import sparkline
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

PATH = "/api/v1/metrics/sparkline/nas/network"
CLIENTS = 100
pytestmark = pytest.mark.usefixtures("statements")  # before `service`, whose statements they are


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one bucket, whatever the second in which a test runs."""
    now = hours_ago(0) + timedelta(seconds=30)
    monkeypatch.setattr(Clock, "now", lambda _: now)


class HeldTime:
    """The clock of the response cache: it goes on where the test says so, however long everything takes."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def time(self) -> float:
        return self.seconds


class _Loop:
    """A running loop to the response cache, but for its clock."""

    def __init__(self, held: HeldTime) -> None:
        self.time = held.time

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldTime:
    held = HeldTime()
    monkeypatch.setattr(cache, "asyncio", SimpleNamespace(**{**vars(asyncio), "get_running_loop": lambda: _Loop(held)}))
    return held


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[cache.Watch]:
    """The looks for new heartbeats that have ended, by who looked."""
    ended: list[cache.Watch] = []
    look = cache.Watch.look

    async def counted(watch: cache.Watch) -> None:
        await look(watch)
        ended.append(watch)

    monkeypatch.setattr(cache.Watch, "look", counted)
    return ended


async def one_more_of_each(looks: list[cache.Watch], processes: int) -> None:
    """Until each of so many processes has looked once more from beginning to end, as it does before 0.6 s have passed:
    the first look that ends may have begun before."""
    seen = len(looks)
    async with asyncio.timeout(60):
        while len({one for one, count in Counter(map(id, looks[seen:])).items() if count >= 2}) < processes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def poll(service: Client, clients: int = CLIENTS, path: str = PATH) -> list[httpx.Response]:
    return await asyncio.gather(*(service.http.get(path) for _ in range(clients)))


async def test_a_hundred_clients_that_poll_one_sparkline_cost_one_query(
    service: Client, statements: list[LoggedQuery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparkline, "keep_seconds", lambda _: 60.0)  # however long a busy machine takes for them
    await service.post(heartbeat(at=hours_ago(0), eth0=(1, 1)))
    statements.clear()

    rounds = [await poll(service) for _ in range(3)]

    assert len([one for one in statements if "network_traffic_1m" in one.query]) == 1
    assert {(one.status_code, one.content) for round_ in rounds for one in round_} == {(200, rounds[0][0].content)}


async def test_who_wants_no_kept_answer_gets_a_new_one(service: Client, statements: list[LoggedQuery]) -> None:
    await service.post(heartbeat(at=hours_ago(0), eth0=(1, 1)))
    await poll(service, 1)
    statements.clear()

    for _ in range(3):
        answer = await service.http.get(PATH, headers={"Cache-Control": "no-cache"})
        assert answer.status_code == 200

    assert len([one for one in statements if "network_traffic_1m" in one.query]) == 3


async def test_while_nothing_comes_a_bucket_costs_two_queries_at_most_however_long_they_poll(
    service: Client, statements: list[LoggedQuery], held: HeldTime, looks: list[cache.Watch]
) -> None:
    assert cache.POLL_SECONDS <= 0.6
    await service.post(heartbeat(at=hours_ago(0), eth0=(1, 1)))
    statements.clear()

    for turn in range(40):
        await poll(service, 10)
        held.seconds += 0.1
        if turn % 6 == 5:
            await one_more_of_each(looks, 1)

    # The second one, because nobody had looked at that server before the first.
    assert len([one for one in statements if "network_traffic_1m" in one.query]) <= 2


async def test_what_another_process_stored_shows_within_two_seconds(
    service: Client, settings: Settings, database_url: str, held: HeldTime, looks: list[cache.Watch]
) -> None:
    await service.post(heartbeat(at=hours_ago(0), eth0=(0, 0)))
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        for total in (10, 20):
            for turn in range(15):  # until the answer's time has been lengthened
                await poll(service, 2)
                held.seconds += 0.1
                if turn % 6 == 5:
                    await one_more_of_each(looks, 2)

            await other.post(heartbeat(at=hours_ago(0) + timedelta(milliseconds=total), eth0=(total, 0)))
            until = held.seconds + 2
            while (
                sum(point["rx_bytes"] for point in (await service.get("/metrics/sparkline/nas/network"))["data"])
                != total
            ):
                assert held.seconds < until
                held.seconds += 0.6
                await one_more_of_each(looks, 2)


async def test_a_look_confirms_what_was_read_since_the_one_before_and_nothing_else(
    database_url: str, database: asyncpg.Connection, service: Client, held: HeldTime
) -> None:
    await service.post(heartbeat(at=hours_ago(0), eth0=(0, 0)))
    kept = cache.Answers()
    request: Any = RequestFactory().get()
    made = 0

    async def make() -> Any:
        nonlocal made
        made += 1
        return sparkline.Series("eth0", [])

    async def ask() -> None:
        await kept.get(request, "key", make, keep_seconds=0.3, servers=["nas"])

    async with Database(database_url) as reading:
        watch = cache.Watch(kept, reading)
        await ask()
        await watch.look()  # the first look knows of no other
        held.seconds += 0.35
        await ask()
        assert made == 2
        for _ in range(4):
            await watch.look()
            held.seconds += 0.2
            await ask()
        assert made == 2
        await database.execute("UPDATE servers SET received_at = clock_timestamp()")
        await watch.look()
        held.seconds += 0.2
        await watch.look()  # it was not right at the look before
        held.seconds += 0.15
        await ask()
        assert made == 3


@pytest.mark.parametrize("path", [PATH, "/api/v1/metrics/sparkline/network?server=nas", f"{PATH}?period=1y"])
async def test_who_sent_a_heartbeat_sees_it_at_once(service: Client, path: str) -> None:
    for total in range(0, 50, 10):
        await service.post(heartbeat(at=hours_ago(0) + timedelta(milliseconds=total), eth0=(total, 0)))

        for answer in await poll(service, 5, path):
            body = answer.json()
            data = body["series"][0]["data"] if "series" in body else body["data"]
            assert sum(point["rx_bytes"] for point in data) == total


async def test_an_answer_that_a_heartbeat_overtook_is_not_kept(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat(at=hours_ago(0), eth0=(0, 0)))
    made = asyncio.Event()
    kept = cache.Answers()
    request: Any = RequestFactory().get()

    async def slowly() -> Any:
        await made.wait()
        return sparkline.Series("eth0", [])

    first = asyncio.create_task(kept.get(request, "key", slowly, keep_seconds=60, servers=["nas"]))
    await asyncio.sleep(0)
    kept.forget(["nas"])
    second = asyncio.create_task(kept.get(request, "key", slowly, keep_seconds=60, servers=["nas"]))
    await asyncio.sleep(0)
    made.set()

    await asyncio.gather(first, second)
    assert kept.counts["misses"] == 2
    await kept.get(request, "key", slowly, keep_seconds=60, servers=["nas"])
    assert kept.counts["hits"] == 1


async def test_who_has_the_answer_gets_304_until_it_changes(service: Client) -> None:
    await service.post(heartbeat(at=hours_ago(0), eth0=(0, 0)))
    first = await service.http.get(PATH)
    etag = first.headers["etag"]

    for condition in (etag, f'"other", W/{etag}', "*"):
        answer = await service.http.get(PATH, headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert answer.headers["cache-control"] == first.headers["cache-control"] == "private, no-cache"
    await service.post(heartbeat(at=hours_ago(0) + timedelta(seconds=1), eth0=(5, 0)))
    changed = await service.http.get(PATH, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["data"][-1]["rx_bytes"]) == (200, 5)


async def test_what_is_kept_is_for_those_who_may_read_it(service: Client) -> None:
    await service.post(heartbeat(at=hours_ago(0), eth0=(0, 0)))
    etag = (await service.http.get(PATH)).headers["etag"]

    for headers in ({"Authorization": ""}, {"Authorization": "Bearer no", "If-None-Match": etag}):
        assert (await service.http.get(PATH, headers=headers)).status_code == 401


async def test_a_failure_is_told_to_all_who_wait_and_not_kept(service: Client) -> None:
    unknown = await poll(service, 10)
    await service.post(heartbeat(at=hours_ago(0), eth0=(0, 0)))

    assert {(one.status_code, one.json()["code"]) for one in unknown} == {(404, "unknown_server")}
    assert {one.status_code for one in await poll(service, 10)} == {200}


async def test_who_goes_away_does_not_take_the_answer_from_others() -> None:
    kept = cache.Answers()
    request: Any = RequestFactory().get()
    made = asyncio.Event()

    async def slowly() -> Any:
        await made.wait()
        return sparkline.Series("eth0", [])

    gone, stays = (asyncio.create_task(kept.get(request, "key", slowly, keep_seconds=60)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    made.set()

    assert (await stays).content == b'{"interface":"eth0","data":[]}'


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT_BYTES", 50_000)
    kept = cache.Answers()
    request: Any = RequestFactory().get()

    async def large() -> Any:
        return sparkline.Series("x" * 9_000, [])

    for key in range(100):
        await kept.get(request, key, large, keep_seconds=60, servers=[f"server-{key}"])

    assert kept._bytes <= 50_000
    assert len(kept._kept) == len(kept._of_server) <= 5


async def test_what_nobody_asks_for_any_more_goes_when_its_time_is_over(held: HeldTime) -> None:
    kept = cache.Answers()
    request: Any = RequestFactory().get()

    async def small() -> Any:
        return sparkline.Series("eth0", [])

    for key in range(10):
        await kept.get(request, key, small, keep_seconds=0.05)
    held.seconds += 0.1
    await kept.get(request, "new", small, keep_seconds=60)

    assert list(kept._kept) == ["new"]
