"""One token's slow reads leave connections to the others."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from litestar.testing import RequestFactory

from service.app import create_app
from service.cache import Answers
from service.database.pool import READERS
from service.database.shares import Shares, reader
from service.http.errors import Problem
from service.settings import Settings
from service.traffic.sparkline import Series
from tests.conftest import running
from tests.helpers.support import KEY, connected, heartbeat
from tests.integration.test_limits import from_address
from tests.integration.test_tokens import bearer, create

pytestmark = pytest.mark.background

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND application_name = 'linkbeat read'"
)


@pytest.mark.parametrize("kind", ["read", "admin"])
async def test_slow_usage_of_one_token_makes_no_other_reader_wait(
    database_url: str,
    settings: Settings,
    database: asyncpg.Connection,
    kind: str,
) -> None:
    app = create_app(settings, database_url=database_url, key=KEY)
    async with running(app), AsyncExitStack() as ending:
        client = from_address(app, "192.0.2.1")
        await client.post(heartbeat(eth0=(1_000, 500)))
        slow, other = [(await create(client, kind=kind))["token"] for _ in range(2)]
        # What /usage reads and /servers does not: the usage of a large fleet takes as long.
        locker = await ending.enter_async_context(connected(database_url))
        await locker.execute("BEGIN; LOCK TABLE linkbeat.quotas IN ACCESS EXCLUSIVE MODE")
        flood = [asyncio.create_task(client.http.get("/api/v1/usage", headers=bearer(slow))) for _ in range(60)]
        while await database.fetchval(WAITING) < READERS // 2:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)

        reads = [(await client.http.get("/api/v1/servers", headers=bearer(other))).status_code for _ in range(20)]
        waiting = await database.fetchval(WAITING)
        while sum(one.done() for one in flood) < len(flood) - READERS // 2:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        await locker.execute("ROLLBACK")
        statuses = [answer.status_code for answer in await asyncio.gather(*flood)]
        refused = [one.result() for one in flood if one.result().status_code == 429]

        assert reads == [200] * 20
        assert waiting == READERS // 2
        assert sorted(statuses) == [200] * (READERS // 2) + [429] * (len(flood) - READERS // 2)
        assert {(answer.json()["code"], answer.headers["retry-after"]) for answer in refused} == {
            ("too_many_requests", "2")
        }
        await ending.aclose()
        assert (await client.http.get("/api/v1/usage", headers=bearer(slow))).status_code == 200


async def test_a_reader_has_its_share_and_gives_it_back() -> None:
    shares = Shares(2)
    most: Counter[str] = Counter()
    holding: Counter[str] = Counter()

    async def read(name: str) -> None:
        reader.set(name)
        async with shares.taken():
            holding[name] += 1
            most[name] = max(most[name], holding[name])
            await asyncio.sleep(0)
            holding[name] -= 1

    await asyncio.gather(*(read(name) for name in ("a", "b") for _ in range(10)))

    assert most == {"a": 2, "b": 2}
    assert shares._held == {}


async def test_who_waits_too_long_or_goes_away_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.database.shares.WAIT_SECONDS", 0.05)
    shares = Shares(1)
    ending = asyncio.Event()

    async def hold() -> None:
        reader.set("a")
        async with shares.taken():
            await ending.wait()

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    leaving = asyncio.create_task(hold())
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(Problem, match="share of the database"):
        await hold()
    ending.set()
    await holder
    await hold()

    assert shares._held == {}


@pytest.mark.parametrize("name", [None, "key"])
async def test_without_a_bound_or_a_reader_nothing_waits(name: str | None) -> None:
    shares = Shares(None if name else 1)
    reader.set(name)
    async with shares.taken(), shares.taken():
        assert shares._held == {}


async def test_an_answer_that_another_tokens_share_refused_is_made_again_for_whoever_waits_for_it() -> None:
    kept = Answers()
    request: Any = RequestFactory().get()
    waits = asyncio.Event()

    async def refused() -> Any:
        await waits.wait()
        raise Problem("too_many_requests", "its share is used up")

    async def made() -> Any:
        return Series("eth0", [])

    first = asyncio.create_task(kept.get(request, "key", refused, keep_seconds=60))
    await asyncio.sleep(0)
    second = asyncio.create_task(kept.get(request, "key", made, keep_seconds=60))
    await asyncio.sleep(0)
    waits.set()

    with pytest.raises(Problem, match="its share"):
        await first
    assert (await second).content == b'{"interface":"eth0","data":[]}'
