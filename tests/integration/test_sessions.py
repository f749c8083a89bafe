"""Sessions of browsers: what a cookie allows, whom it comes from, and when it ends."""

import asyncio
import time
from base64 import urlsafe_b64decode
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import httpx
import pytest

from service.access import sessions
from service.access.identity import SIGN_INS_PER_MINUTE
from service.access.keys import secret_key
from service.access.sessions import Sessions
from service.app import create_app
from service.database.follow import POLL_SECONDS
from service.pictures.links import Links, Picture
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, heartbeat

JSON = {"Content-Type": "application/json"}
OURS = {"Sec-Fetch-Site": "same-origin"}
ON_A_BUSY_MACHINE_SECONDS = 10


@pytest.fixture
def browser(service: Client) -> httpx.AsyncClient:
    """The same service, for somebody who carries no token."""
    service.http.headers.pop("Authorization")
    return service.http


@pytest.fixture
def admin(service: Client) -> dict[str, str]:
    """For what a test asks as an administrator."""
    return {"Authorization": f"Bearer {KEY}"}


async def make(http: httpx.AsyncClient, admin: dict[str, str], **body: Any) -> dict[str, Any]:
    answer = await http.post("/api/v1/tokens", json=body, headers=admin)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def sign_in(http: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    return await http.post("/sign-in", json={"token": token}, headers=headers)


async def cookie_of(http: httpx.AsyncClient) -> dict[str, str]:
    """The cookie of a new session of the fleet key; the client itself does not keep it."""
    await sign_in(http, KEY)
    cookies = dict(http.cookies)
    http.cookies.clear()
    return cookies


def spellings(text: str) -> list[str]:
    """Other texts that base64 decodes to the same signature."""
    *_, signature = text.split(".")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = signature[:-1] + letters[letters.index(signature[-1]) ^ 1]
    changed = [twin, f"{signature}=", f"!{signature}", f"{signature[:20]}${signature[20:]}", f"{signature}~"]
    assert all(urlsafe_b64decode(f"{one}==") == urlsafe_b64decode(f"{signature}==") for one in changed)
    return [text.removesuffix(signature) + one for one in changed]


async def test_signing_in_sets_a_cookie_that_scripts_and_other_sites_have_no_use_of(
    browser: httpx.AsyncClient,
) -> None:
    answer = await sign_in(browser, KEY)

    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    cookie = answer.headers["set-cookie"]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert KEY not in cookie
    assert (await browser.get("/api/v1/servers")).status_code == 200
    assert (
        (await sign_in(browser, KEY, Origin="https://linkbeat", Host="linkbeat"))
        .headers["set-cookie"]
        .endswith("; Secure")
    )


async def test_signing_out_takes_it_away(browser: httpx.AsyncClient) -> None:
    await sign_in(browser, KEY)

    answer = await browser.post("/sign-out", json={}, headers=OURS)

    assert answer.status_code == 204
    assert (await browser.get("/api/v1/servers")).status_code == 401


async def test_a_copy_of_a_session_ends_with_it(browser: httpx.AsyncClient) -> None:
    await sign_in(browser, KEY)
    copy = dict(browser.cookies)
    (name,) = copy

    await browser.post("/sign-out", json={}, headers=OURS)
    answer = await browser.get("/api/v1/servers", headers={"Cookie": f"{name}={copy[name]}"})

    assert answer.status_code == 401


async def test_a_session_that_was_signed_out_is_refused_in_every_spelling_of_its_signature(
    browser: httpx.AsyncClient,
) -> None:
    ((name, value),) = (await cookie_of(browser)).items()
    spelled = [f"{name}={one}" for one in (value, *spellings(value))]

    answer = await browser.post("/sign-out", json={}, headers={**OURS, "Cookie": spelled[0]})

    assert answer.status_code == 204
    for cookie in spelled:
        assert (await browser.get("/api/v1/servers", headers={"Cookie": cookie})).status_code == 401, cookie


async def test_a_code_that_was_used_is_refused_in_every_spelling_of_its_signature(
    browser: httpx.AsyncClient, settings: Settings
) -> None:
    code = Sessions(secret_key(settings), KEY).code()

    statuses = [(await browser.post("/sign-in", json={"code": one})).status_code for one in (code, *spellings(code))]

    assert statuses == [204] + [401] * (len(statuses) - 1)


async def test_a_session_that_was_signed_out_is_refused_by_every_process_and_after_a_restart(
    database_url: str, settings: Settings, database: asyncpg.Connection
) -> None:
    def process() -> AbstractAsyncContextManager[Client]:
        return in_process(create_app(settings, database_url=database_url, key=KEY))

    async def status(client: Client, cookie: str) -> int:
        return (await client.http.get("/api/v1/servers", headers={"Cookie": cookie})).status_code

    async with process() as one, process() as other:
        del one.http.headers["Authorization"], other.http.headers["Authorization"]
        left, right = [f"{name}={value}" for _ in range(2) for name, value in (await cookie_of(one.http)).items()]
        assert left != right  # a second browser's session is another one, even in the same second
        assert [await status(client, cookie) for client in (one, other) for cookie in (left, right)] == [200] * 4

        answer = await one.http.post("/sign-out", json={}, headers={**OURS, "Cookie": left})

        assert (answer.status_code, await status(one, left)) == (204, 401)
        deadline = time.monotonic() + 2 * POLL_SECONDS + ON_A_BUSY_MACHINE_SECONDS
        while await status(other, left) != 401:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert [await status(client, right) for client in (one, other)] == [200, 200]

    async with process() as restarted:
        del restarted.http.headers["Authorization"]
        assert [await status(restarted, cookie) for cookie in (left, right)] == [401, 200]
    row = await database.fetchrow("SELECT session, ends_at > now() + INTERVAL '6 days' FROM linkbeat.ended_sessions")
    assert row is not None
    assert row[1]
    assert left.partition("=")[2].encode() not in row[0]


async def test_signing_out_twice_is_one_row_which_goes_when_its_session_would_have(
    browser: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    for _ in range(2):
        cookie = "; ".join(f"{name}={value}" for name, value in (await cookie_of(browser)).items())
        for _ in range(2):
            answer = await browser.post("/sign-out", json={}, headers={**OURS, "Cookie": cookie})
            assert answer.status_code == 204
    assert await database.fetchval("SELECT count(*) FROM linkbeat.ended_sessions") == 2

    await database.execute("UPDATE linkbeat.ended_sessions SET ends_at = now() - INTERVAL '2 hours'")
    cookie = "; ".join(f"{name}={value}" for name, value in (await cookie_of(browser)).items())
    await browser.post("/sign-out", json={}, headers={**OURS, "Cookie": cookie})

    assert await database.fetchval("SELECT count(*) FROM linkbeat.ended_sessions") == 1


async def test_a_sign_out_that_the_database_cannot_keep_is_said_and_can_be_tried_again(
    browser: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in (await cookie_of(browser)).items())
    await database.execute(
        "CREATE FUNCTION linkbeat.fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE disk_full; END$$; "
        "CREATE TRIGGER fail BEFORE INSERT ON linkbeat.ended_sessions FOR EACH ROW EXECUTE FUNCTION linkbeat.fail()"
    )

    failed = await browser.post("/sign-out", json={}, headers={**OURS, "Cookie": cookie})
    await database.execute("DROP TRIGGER fail ON linkbeat.ended_sessions")
    answer = await browser.post("/sign-out", json={}, headers={**OURS, "Cookie": cookie})

    assert (failed.status_code, failed.json()["code"]) == (503, "database_unavailable")
    assert "set-cookie" not in failed.headers
    assert answer.status_code == 204
    assert (await browser.get("/api/v1/servers", headers={"Cookie": cookie})).status_code == 401


async def test_a_read_token_signs_in_a_few_times_a_minute(browser: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """What is signed out is remembered for a week: of whoever holds a read token, that has a bound."""
    reader = await make(browser, admin, kind="read")

    found = [(await sign_in(browser, reader["token"])).status_code for _ in range(SIGN_INS_PER_MINUTE + 2)]

    assert found == [204] * SIGN_INS_PER_MINUTE + [429] * 2
    assert (await sign_in(browser, KEY)).status_code == 204


async def test_a_session_may_what_its_token_may_and_no_more(browser: httpx.AsyncClient, admin: dict[str, str]) -> None:
    reader = await make(browser, admin, kind="read")
    await sign_in(browser, reader["token"])

    assert (await browser.get("/api/v1/servers")).status_code == 200
    assert (await browser.get("/api/v1/tokens")).status_code == 403
    assert (await browser.post("/api/v1/enrolments", json={}, headers=OURS)).status_code == 403


@pytest.mark.parametrize("kind", ["fleet", "server"])
async def test_a_token_that_only_reports_signs_nobody_in(
    browser: httpx.AsyncClient, admin: dict[str, str], kind: str
) -> None:
    token = await make(browser, admin, kind=kind, **({"server_id": "nas"} if kind == "server" else {}))

    answer = await sign_in(browser, token["token"])

    assert answer.status_code == 403
    assert f"of kind '{kind}'" in answer.json()["detail"]
    assert "set-cookie" not in answer.headers


async def test_a_revoked_tokens_sessions_end_with_it(browser: httpx.AsyncClient, admin: dict[str, str]) -> None:
    reader, other = await make(browser, admin, kind="read"), await make(browser, admin, kind="read")
    await sign_in(browser, reader["token"])
    assert (await browser.get("/api/v1/servers")).status_code == 200

    await browser.delete(f"/api/v1/tokens/{reader['id']}", headers=admin)

    assert (await browser.get("/api/v1/servers")).status_code == 401
    await sign_in(browser, other["token"])
    assert (await browser.get("/api/v1/servers")).status_code == 200


async def test_an_expired_tokens_sessions_end_with_it(
    browser: httpx.AsyncClient, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await make(browser, admin, kind="read", expires_days=1)
    await sign_in(browser, reader["token"])
    now = time.time()

    monkeypatch.setattr("service.access.tokens.time.time", lambda: now + 86_401)

    assert (await browser.get("/api/v1/servers")).status_code == 401


async def test_a_session_ends_by_itself(browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await sign_in(browser, KEY)
    now = time.time()

    monkeypatch.setattr("service.access.sessions.time.time", lambda: now + sessions.SESSION_SECONDS + 1)

    assert (await browser.get("/api/v1/servers")).status_code == 401


async def test_a_cookie_that_was_changed_is_nobodys(
    browser: httpx.AsyncClient, settings: Settings, admin: dict[str, str]
) -> None:
    reader = await make(browser, admin, kind="read")
    made = Sessions(secret_key(settings), KEY)
    value = made.start(reader["id"])
    token_id, ends, signature = value.split(".")
    changed = [
        f".{ends}.{signature}",
        f"{token_id}.{int(ends) + 1}.{signature}",
        f"{token_id}.{ends}.{signature[:-1]}{'0' if signature[-1] != '0' else '1'}",
        f"{token_id}.{ends}.",
        f"{token_id}.{ends}",
        f"{token_id}.-1.{signature}",
        f"{token_id}.{'9' * 5000}.{signature}",
        f"{token_id}.²³.{signature}",
        f"{token_id}.{ends}.{'é' * 64}",
        "",
        ".",
        "..",
        "\udcff",
        f"{token_id}.{ends}.{signature}=",
        f"{token_id}.{ends}.{signature[:9]}!{signature[9:]}",
        f"{value}{'A' * 5000}",
        made.code(),
        Links(secret_key(settings), KEY).sign(Picture("nas", "cpu", None), reader["id"], int(time.time()) + 900),
        Sessions(secret_key(settings), "another fleet key").start(""),
        Sessions(b"x" * 64, KEY).start(""),
    ]

    for one in changed:
        header = f"{made.cookie}={one}".encode("utf-8", "surrogateescape")
        answer = await browser.get("/api/v1/servers", headers=[(b"cookie", header)])
        assert answer.status_code == 401, one
    assert (await browser.get("/api/v1/servers", headers={"Cookie": f"a=b; {made.cookie}={value}"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://linkbeat.evil.example"},
        {"Origin": "http://linkbeat:81"},
        {"Origin": "null"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing_and_signs_nobody_in(
    browser: httpx.AsyncClient, database: asyncpg.Connection, headers: dict[str, str]
) -> None:
    assert (await sign_in(browser, KEY, **headers)).status_code == 403
    await sign_in(browser, KEY)

    made = await browser.post("/api/v1/enrolments", json={}, headers=headers)
    removed = await browser.delete("/api/v1/servers/nas", headers=headers)
    out = await browser.post("/sign-out", json={}, headers=headers)

    assert [one.status_code for one in (made, removed, out)] == [403, 403, 403]
    assert await database.fetchval("SELECT count(*) FROM linkbeat.tokens") == 0
    # What a token in a header allows, no page of another origin can send: it is asked nothing of the kind.
    answer = await browser.post("/api/v1/enrolments", json={}, headers={"Authorization": f"Bearer {KEY}", **headers})
    assert answer.status_code == 201


async def test_our_own_pages_change_what_the_token_may(browser: httpx.AsyncClient) -> None:
    await sign_in(browser, KEY)

    for headers in (OURS, {"Origin": "http://linkbeat"}):
        assert (await browser.post("/api/v1/enrolments", json={}, headers=headers)).status_code == 201
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = await browser.post("/api/v1/enrolments", content=b"{}", headers={**OURS, "Content-Type": media_type})
        assert answer.status_code == 415, media_type


async def test_a_cookie_reports_and_enrols_nothing(browser: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    await sign_in(browser, KEY)

    one = await browser.post("/api/v1/agents/heartbeat", json=heartbeat(eth0=(1, 1)), headers=OURS)
    many = await browser.post("/api/v1/agents/heartbeats", json=[heartbeat(eth0=(1, 1))], headers=OURS)
    enrolled = await browser.post("/api/v1/agents/enroll", json={"server_id": "a", "hostname": "a"}, headers=OURS)

    assert [one.status_code, many.status_code, enrolled.status_code] == [401, 401, 403]
    assert await database.fetchval("SELECT count(*) FROM servers") == 0


async def test_a_token_in_the_header_goes_before_the_cookie(browser: httpx.AsyncClient) -> None:
    await sign_in(browser, KEY)

    answer = await browser.get("/api/v1/servers", headers={"Authorization": "Bearer wrong-wrong-wrong-wrong"})

    assert answer.status_code == 401


async def test_a_code_signs_in_once_within_a_quarter_of_an_hour(
    browser: httpx.AsyncClient, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, late = (Sessions(secret_key(settings), KEY).code() for _ in range(2))
    cookie = Sessions(secret_key(settings), KEY).start("")

    assert (await browser.post("/sign-in", json={"code": code})).status_code == 204
    assert (await browser.get("/api/v1/tokens")).status_code == 200
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        assert (await other.http.post("/sign-in", json={"code": code})).status_code == 401  # once in all processes
    for wrong in (code, cookie, late[:-1], f"{late}0", ""):
        assert (await browser.post("/sign-in", json={"code": wrong})).status_code == 401
    now = time.time()
    monkeypatch.setattr("service.access.sessions.time.time", lambda: now + sessions.CODE_SECONDS + 1)
    assert (await browser.post("/sign-in", json={"code": late})).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 422),
        (b'{"token": 1}', 422),
        (b'{"token": "x", "more": 1}', 422),
        (b"x" * 5_000, 413),
        (rb'{"token": "\ud800"}', 400),
        (b'{"token": "\xff"}', 400),
        ('{"token": "\u00e9\u20ac"}'.encode(), 401),
    ],
)
async def test_what_is_no_sign_in_is_refused(browser: httpx.AsyncClient, body: bytes, status: int) -> None:
    answer = await browser.post("/sign-in", content=body, headers=JSON)

    assert answer.status_code == status
    assert (await browser.post("/sign-in", data={"token": KEY})).status_code == 415


class TestLimits:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings(api_key=KEY, data_dir=settings.data_dir, failed_tokens_per_minute=3)

    async def test_wrong_tokens_are_counted_and_old_cookies_are_not(
        self, browser: httpx.AsyncClient, settings: Settings
    ) -> None:
        cookie = {"Cookie": f"{Sessions(secret_key(settings), KEY).cookie}=.1.{'0' * 64}"}
        for _ in range(10):
            assert (await browser.get("/api/v1/servers", headers=cookie)).status_code == 401

        found = [(await sign_in(browser, f"wrong-wrong-wrong-{number}")).status_code for number in range(5)]

        assert found == [401, 401, 401, 429, 429]
        answer = await sign_in(browser, KEY)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
