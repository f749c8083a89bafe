"""Limits as clients meet them: guesses from an address, floods of a token; and that nobody else is affected."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from litestar import Litestar

from service.access import identity, tokens
from service.app import create_app
from service.database.pool import Database
from service.fleet import changes
from service.http import limits
from service.settings import Settings
from tests.conftest import running
from tests.helpers.support import KEY, Client
from tests.integration.test_tokens import bearer, create, report

pytestmark = pytest.mark.background

GUESSES = 10_000
FAILURES = 50


@pytest.fixture
async def app(database_url: str, settings: Settings) -> AsyncIterator[Litestar]:
    limited = msgspec.structs.replace(
        settings, failed_tokens_per_minute=FAILURES, server_requests_per_minute=60, read_requests_per_minute=100,
        trusted_proxies=("10.0.0.0/8",),
    )  # fmt: skip
    app = create_app(limited, database_url=database_url, key=KEY)
    async with running(app):
        yield app


def from_address(app: Litestar, address: str) -> Client:
    transport = httpx.ASGITransport(app, client=(address, 1))  # type: ignore[arg-type]  # Litestar's are narrower
    return Client(httpx.AsyncClient(transport=transport, base_url="http://linkbeat", headers=bearer(KEY)))


async def test_ten_thousand_guesses_cost_the_database_nothing_and_the_others_nothing(
    app: Litestar, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(limits, "monotonic", lambda: now)  # nothing is filled again meanwhile, however long that is
    good, behind, bad = (from_address(app, one) for one in ("192.0.2.1", "192.0.2.66", "192.0.2.66"))
    token = (await create(good, kind="server", server_id="nas"))["token"]
    shared = (await create(good, kind="fleet"))["token"]
    assert (await report(behind, shared)).status_code == 200
    # Of the task that asks, and of all that it starts: what polls by itself, however often meanwhile, began without it.
    is_guess = ContextVar("is_guess", default=False)
    statements: list[str] = []
    fetch = Database.fetch

    async def counted(database: Database, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        if is_guess.get():
            statements.append(sql)
        return await fetch(database, sql, *arguments)

    monkeypatch.setattr(Database, "fetch", counted)
    statuses: list[int] = []

    for n in range(GUESSES):
        guess = f"lb_f_{'0' * 12}_{n:043}"
        guessing = is_guess.set(True)
        answer = await bad.http.get("/api/v1/servers", headers=bearer(guess))
        is_guess.reset(guessing)
        statuses.append(answer.status_code)
        if n == FAILURES - 1:
            looked = len(statements)
        if n % 1000 == 500:
            assert (await report(good, token)).status_code == 200
            assert (await report(behind, shared)).status_code == 200, "from the same address, and right before"

    assert statuses == [401] * FAILURES + [429] * (GUESSES - FAILURES)
    assert 0 < looked <= FAILURES, "each may be one that another process just made; a poll may tell in its place"
    assert set(statements) == {tokens.CHANGED}
    assert len(statements) == looked, "past the limit, none"
    assert answer.headers["retry-after"].isdigit()
    assert answer.json()["code"] == "too_many_requests"
    assert (await bad.http.get("/api/v1/servers")).status_code == 429, "the right key, that was never right from there"


async def test_a_right_token_beside_them_does_not_make_guesses_free(app: Litestar) -> None:
    """Or whoever has any token could try the fleet key as often as the network allows."""
    client = from_address(app, "192.0.2.66")
    own = (await create(client, kind="fleet"))["token"]
    statuses = []

    for n in range(2 * FAILURES):
        headers = {"Authorization": f"Bearer guess-{n:016}", "X-API-Key": own}
        statuses.append((await client.http.get("/api/v1/servers", headers=headers)).status_code)
    right = {"Authorization": f"Bearer {KEY}x", "X-API-Key": own}
    found = await client.http.get("/api/v1/servers", headers={"Authorization": f"Bearer {KEY}", "X-API-Key": own})

    assert set(statuses) == {403}, "the token beside it is right, and may not read"
    assert (await client.http.get("/api/v1/servers", headers=bearer("guess"))).status_code == 429
    assert (await client.http.get("/api/v1/servers", headers=right)).status_code == 403
    # It was right from there before the guesses; from elsewhere it is not even looked at.
    assert found.status_code == 200
    elsewhere = from_address(app, "192.0.2.67")
    for n in range(FAILURES + 1):
        headers = {"Authorization": f"Bearer guess-{n:016}", "X-API-Key": own}
        await elsewhere.http.get("/api/v1/servers", headers=headers)
    unseen = await elsewhere.http.get("/api/v1/servers", headers={"Authorization": f"Bearer {KEY}", "X-API-Key": own})
    assert unseen.status_code == 403, "past the limit a guess tells nothing, though it is right"
    assert (await report(elsewhere, own)).status_code == 200, "and the token beside it is taken as before"


async def test_other_addresses_are_not_affected_whatever_the_headers_say(app: Litestar) -> None:
    direct, proxied = from_address(app, "192.0.2.66"), from_address(app, "10.0.0.1")

    async def guesses(client: Client, forwarded: str, times: int = FAILURES + 1) -> int:
        for n in range(times):
            headers = bearer(f"wrong-{n}") | {"X-Forwarded-For": forwarded.format(n), "X-Forwarded-Host": f"h{n}"}
            answer = await client.http.get("/api/v1/servers", headers=headers)
        return answer.status_code

    assert await guesses(direct, "203.0.113.{}") == 429, "it is no trusted proxy: what it says of itself counts nothing"
    assert await guesses(proxied, "198.51.100.{}, 203.0.113.5") == 429, "only what the proxy itself wrote counts"
    assert await guesses(proxied, "203.0.113.6", 1) == 401
    assert (await proxied.http.get("/api/v1/servers", headers={"X-Forwarded-For": "203.0.113.7"})).status_code == 200


async def test_without_a_token_it_is_401_however_often(app: Litestar) -> None:
    client = from_address(app, "192.0.2.66")

    statuses = {
        (await client.http.get("/api/v1/servers", headers={"Authorization": ""})).status_code
        for _ in range(FAILURES * 2)
    }

    assert statuses == {401}
    assert (await client.http.get("/api/v1/servers")).status_code == 200


async def test_a_flood_with_one_token_is_limited_and_the_others_report_on(
    app: Litestar, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(limits, "monotonic", lambda: now)  # nothing is filled again meanwhile, however long that is
    client = from_address(app, "192.0.2.1")
    flooding, other = [(await create(client, kind="server", server_id=name))["token"] for name in ("flood", "other")]
    reader = (await create(client, kind="read"))["token"]

    async def seconds_of_another() -> float:
        started = time.perf_counter()
        assert (await report(client, other, "other")).status_code == 200
        return time.perf_counter() - started

    quiet, busy, statuses = [], [], []
    for n in range(300):
        answer = await report(client, flooding, "flood")
        statuses.append(answer.status_code)
        if n % 15 == 0:  # by turns: a machine that becomes busy in between is busy for both
            busy.append(await seconds_of_another())
            quiet.append(await seconds_of_another())
    reads = [(await client.http.get("/api/v1/agents", headers=bearer(reader))).status_code for _ in range(103)]

    assert statuses[:60] == [200] * 60
    assert statuses[60:] == [429] * 240
    assert int(answer.headers["retry-after"]) >= 1
    assert statistics.median(busy) < 3 * statistics.median(quiet) + 0.01
    assert reads == [200] * 100 + [429] * 3
    assert (await report(client, KEY, "flood")).status_code == 200, "the fleet key stands for many machines"


@pytest.mark.parametrize("kind", ["read", "admin"])
async def test_so_many_requests_of_a_token_may_be_under_way(
    app: Litestar, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(identity.IN_FLIGHT, kind, 2)
    monkeypatch.setattr(changes, "WAIT_SECONDS", 120.0)  # both wait until there is a change, however long that takes
    client = from_address(app, "192.0.2.1")
    token, other = [(await create(client, kind=kind))["token"] for _ in range(2)]
    at = (await client.get("/fleet"))["at"]
    waiting = [
        asyncio.create_task(client.http.get("/api/v1/fleet", params={"since": at}, headers=bearer(token)))
        for _ in range(2)
    ]
    in_flight: dict[Any, int] = app._leave.__self__._in_flight  # type: ignore[attr-defined]  # to see both wait
    while 2 not in in_flight.values():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)

    refused = await client.http.get("/api/v1/servers", headers=bearer(token))
    beside = await client.http.get("/api/v1/servers", headers=bearer(other))
    await report(client, KEY, "changed")
    answers = [await one for one in waiting]
    afterwards = await client.http.get("/api/v1/servers", headers=bearer(token))

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert refused.headers["retry-after"] == "1"
    assert beside.status_code == 200
    assert [answer.status_code for answer in answers] == [200, 200]
    assert afterwards.status_code == 200
