"""Tokens: what each may report, how they come, are used, expire and are revoked, on every process."""

import asyncio
import re
import statistics
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from service.access.issue import Created
from service.access.keys import secret_key
from service.access.tokens import MAX_AGE_SECONDS, Hasher, Made, Tokens
from service.app import create_app
from service.database import follow
from service.database.follow import POLL_SECONDS
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.durations import fastest_of
from tests.helpers.faults import HangingPath
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

FORMAT = re.compile(r"lb_[sfrae]_[0-9a-z]{12}_[0-9A-Za-z]{43}")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def create(service: Client, path: str = "/tokens", **body: Any) -> dict[str, Any]:
    answer = await service.http.post(f"/api/v1{path}", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


async def report(service: Client, token: str, server_id: str = "nas", **more: Any) -> httpx.Response:
    return await service.http.post(
        "/api/v1/agents/heartbeat", json=heartbeat(server_id, eth0=(1, 1)) | more, headers=bearer(token)
    )


async def servers(service: Client) -> list[str]:
    return [server["id"] for server in (await service.get("/servers"))["servers"]]


async def listed(service: Client, **query: str) -> dict[str, dict[str, Any]]:
    return {token["id"]: token for token in (await service.get("/tokens", **query))["tokens"]}


async def test_a_servers_token_reports_that_server_and_nothing_else(service: Client) -> None:
    token = (await create(service, kind="server", server_id="nas"))["token"]

    mine, others = await report(service, token), await report(service, token, "other")
    read = await service.http.get("/api/v1/servers/nas", headers=bearer(token))

    assert FORMAT.fullmatch(token)
    assert (mine.status_code, others.status_code, read.status_code) == (200, 403, 403)
    assert others.headers["content-type"] == "application/problem+json"
    assert others.json()["code"] == "forbidden"
    assert await servers(service) == ["nas"]


@pytest.mark.parametrize("as_lines", [False, True])
async def test_in_a_batch_what_is_anothers_is_rejected_and_its_neighbours_pass(service: Client, as_lines: bool) -> None:
    token = (await create(service, kind="server", server_id="nas"))["token"]
    records = [heartbeat(name, at=hours_ago(n), eth0=(n, n)) for n, name in enumerate(["nas", "other", "nas", "NAS"])]
    body = [msgspec.json.encode(record) for record in records]
    content, kind = (b"\n".join(body), "x-ndjson") if as_lines else (b"[" + b",".join(body) + b"]", "json")

    answer = await service.http.post(
        "/api/v1/agents/heartbeats", content=content,
        headers=bearer(token) | {"Content-Type": f"application/{kind}"},
    )  # fmt: skip

    assert answer.status_code == 200
    assert answer.json()["stored"] == 2
    assert [(one["index"], one["code"]) for one in answer.json()["rejected"]] == [(1, "forbidden"), (3, "forbidden")]
    assert await servers(service) == ["nas"]


async def test_a_fleet_token_reports_any_server_and_reads_none(service: Client) -> None:
    token = (await create(service, kind="fleet"))["token"]

    statuses = [(await report(service, token, name)).status_code for name in ("a", "b")]

    assert statuses == [200, 200]
    assert (await service.http.get("/api/v1/servers", headers=bearer(token))).status_code == 403


async def test_the_token_is_shown_once_and_not_stored(service: Client, database: asyncpg.Connection) -> None:
    made = await create(service, kind="read", name="dashboard", expires_days=1)
    secret = made["token"].rpartition("_")[2]

    stored = await database.fetchval("SELECT t::text || encode(hash, 'escape') FROM linkbeat.tokens t")
    shown = (await service.http.get("/api/v1/tokens")).text

    assert secret not in stored
    assert secret not in shown
    assert secret.encode().hex() not in stored
    token = (await listed(service))[made["id"]]
    assert (token["kind"], token["name"], token["state"], token["server_id"]) == ("read", "dashboard", "active", None)
    assert token["expires_at"] == made["expires_at"]
    assert secret not in repr(Created("id", "read", made["token"], None, None))


async def test_a_token_of_another_secret_key_is_refused(service: Client, database_url: str, settings: Settings) -> None:
    token = (await create(service, kind="fleet"))["token"]
    other = msgspec.structs.replace(settings, secret_key="another-key-of-thirty-two-characters")

    async with in_process(create_app(other, database_url=database_url, key=KEY)) as stranger:
        assert (await report(stranger, token)).status_code == 401
    assert (await report(service, token)).status_code == 200


async def test_a_third_token_of_a_server_revokes_the_oldest(service: Client) -> None:
    tokens = [(await create(service, kind="server", server_id="nas"))["token"] for _ in range(2)]
    both = [(await report(service, token)).status_code for token in tokens]
    tokens.append((await create(service, kind="server", server_id="nas"))["token"])

    assert both == [200, 200]
    assert [(await report(service, token)).status_code for token in tokens] == [401, 200, 200]
    states = [token["state"] for token in (await listed(service, server_id="nas")).values()]
    assert sorted(states) == ["active", "active", "revoked"]


async def test_many_made_at_once_leave_two(service: Client) -> None:
    made = await asyncio.gather(*(create(service, kind="server", server_id="nas") for _ in range(12)))

    statuses = [(await report(service, token["token"])).status_code for token in made]

    assert sorted(statuses) == [200] * 2 + [401] * 10


async def is_refused(service: Client, token: str, *, polls: float) -> None:
    """Within the time of so many polls, counted in turns of this loop, in which the process under test polls too."""
    for _ in range(round(polls * POLL_SECONDS / 0.05)):
        if (await report(service, token)).status_code == 401:
            return
        await asyncio.sleep(0.05)
    assert (await report(service, token)).status_code == 401


async def test_a_revoked_token_is_refused_by_every_process_within_seconds(
    service: Client, database_url: str, settings: Settings
) -> None:
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        made = await create(service, kind="fleet")
        # At once, though the other one has not polled since.
        assert (await report(other, made["token"])).status_code == 200

        answer = await service.http.delete(f"/api/v1/tokens/{made['id']}")
        here = (await report(service, made["token"])).status_code
        await is_refused(other, made["token"], polls=5)

    assert (answer.status_code, here) == (204, 401)
    assert (await service.http.delete(f"/api/v1/tokens/{made['id']}")).status_code == 204, "again is no error"
    assert (await service.http.delete("/api/v1/tokens/nobodys")).status_code == 404


async def test_what_is_set_in_the_table_by_hand_is_seen_too(service: Client, database: asyncpg.Connection) -> None:
    made = await create(service, kind="fleet")

    await database.execute("UPDATE linkbeat.tokens SET expires_at = now()")

    await is_refused(service, made["token"], polls=2)
    await database.execute("UPDATE linkbeat.tokens SET expires_at = NULL")
    with pytest.raises(asyncpg.RaiseError, match="set revoked_at"):
        await database.execute("DELETE FROM linkbeat.tokens")


async def test_a_token_ends_when_it_expires(service: Client) -> None:
    for seconds in (1.2, 30.0, 300.0):
        made = await create(service, kind="read", expires_days=seconds / 86_400)
        first = await service.http.get("/api/v1/servers", headers=bearer(made["token"]))
        ends_in = (datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)).total_seconds()
        if first.status_code == 200:
            break
        assert ends_in <= 0, "it was refused before its end, and not because this machine was late"
    await asyncio.sleep(max(0.0, ends_in) + 0.1)
    then = await service.http.get("/api/v1/servers", headers=bearer(made["token"]))

    assert (first.status_code, then.status_code) == (200, 401)
    assert (await listed(service))[made["id"]]["state"] == "expired"


async def test_while_the_database_is_away_tokens_are_known_for_a_while_and_then_it_is_503(
    database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_AGE_SECONDS <= 60
    seconds = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: seconds)  # time passes for the caches alone, and none by itself
    monkeypatch.setattr(follow, "time", clock)
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(HangingPath(database_url))
        service = await stack.enter_async_context(in_process(create_app(settings, database_url=path.url, key=KEY)))
        token = (await create(service, kind="read"))["token"]
        forbidden = await service.http.post("/api/v1/tokens", headers=bearer(token))

        await path.__aexit__()  # whoever connects from here on is refused
        seconds += MAX_AGE_SECONDS
        soon = await service.http.post("/api/v1/tokens", headers=bearer(token))
        seconds += 0.1
        late: list[httpx.Response] = []

        async def ask() -> None:
            nonlocal late
            wrong = token[:-3] + "xxx"
            late = [await service.http.post("/api/v1/tokens", headers=bearer(one)) for one in (token, wrong)]

        took = await fastest_of(ask, within=2)
        key = await service.http.post("/api/v1/tokens", json={})

    assert (forbidden.status_code, soon.status_code) == (403, 403)
    assert [answer.json()["code"] for answer in late] == ["database_unavailable"] * 2
    assert late[0].headers["retry-after"]
    assert took < 2
    assert key.status_code == 422, "the fleet key is known all the same"


async def test_last_use_is_written_once_in_a_while(
    service: Client, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.access.tokens.NOTE_SECONDS", 0.0)
    made = await create(service, kind="fleet")
    await database.execute(
        "CREATE TABLE public.writes AS SELECT now() AS at LIMIT 0; "
        "CREATE FUNCTION public.count_write() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO public.writes VALUES (now()); RETURN NEW; END'; "
        "CREATE TRIGGER counted AFTER UPDATE ON linkbeat.tokens FOR EACH ROW EXECUTE FUNCTION public.count_write()"
    )

    for _ in range(30):
        assert (await report(service, made["token"])).status_code == 200
        await asyncio.sleep(0.1)

    assert (await listed(service))[made["id"]]["last_used_at"] is not None
    assert await database.fetchval("SELECT count(*) FROM public.writes") == 1


WRONG: list[tuple[Any, str]] = [
    ({"kind": "server"}, "server_id"),
    ({"kind": "read", "server_id": "nas"}, "server_id"),
    ({"kind": "fleet", "server_guid": "g"}, "server_guid"),
    ({"kind": "server", "server_id": "a b"}, "server_id"),
    ({"kind": "enrolment"}, "kind"),
    ({"kind": "read", "name": "a\nb"}, "name"),
    ({"kind": "read", "name": "x" * 256}, "name"),
    ({"kind": "read", "expires_days": 0}, "expires_days"),
    ({"kind": "read", "expires_days": 1e9}, "expires_days"),
    ({"kind": "read", "admin": True}, "admin"),
    ({}, "kind"),
    ([], ""),
]


async def test_a_wrong_token_is_refused_naming_the_field(service: Client, subtests: pytest.Subtests) -> None:
    for body, path in WRONG:
        with subtests.test(str(body)):
            answer = await service.http.post("/api/v1/tokens", json=body)

            assert answer.status_code == 422
            assert [error["path"] for error in answer.json()["errors"]] == [path]
            assert await listed(service) == {}


async def test_the_list_has_pages_and_filters(service: Client) -> None:
    made = [await create(service, kind="server", server_id=name) for name in ("a", "b", "c")]
    made.append(await create(service, kind="read"))

    seen: list[str] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        page = await service.get("/tokens", limit=1, after=page["next"])
        seen += [token["id"] for token in page["tokens"]]

    assert seen == sorted(token["id"] for token in made)
    assert list(await listed(service, server_id="b")) == [made[1]["id"]]
    assert list(await listed(service, kind="read")) == [made[3]["id"]]
    assert await listed(service, server_id="b\0") == {}


async def test_registering_a_server_gives_its_token_and_once(service: Client) -> None:
    made = await create(service, "/servers", server_id="nas", name="the one in the cellar")

    again = await service.http.post("/api/v1/servers", json={"server_id": "nas"})
    reported = await report(service, made["token"])

    assert (made["kind"], made["server_id"]) == ("server", "nas")
    assert (again.status_code, again.json()["code"]) == (409, "server_exists")
    assert reported.json()["server_registered"] is True
    await service.post(heartbeat("known"))
    assert (await service.http.post("/api/v1/servers", json={"server_id": "known"})).status_code == 409


async def test_a_wrong_secret_and_an_unknown_id_take_the_same_time(service: Client, settings: Settings) -> None:
    hasher = Hasher(secret_key(settings))
    made = Made("fleet", hasher)
    tokens = Tokens(None, None, lambda: True, hasher)  # type: ignore[arg-type]  # no statement is made
    row = {
        "token_id": made.token_id, "kind": "fleet", "server_id": None, "server_guid": None, "hash": made.hash,
        "key_id": made.key_id, "is_valid": True, "expires_at": float("inf"), "last_used_at": 0.0, "revision": 1,
    }  # fmt: skip
    tokens._take(row)  # type: ignore[arg-type]
    right = made.text.encode()
    wrong, unknown = right[:-1] + b"!", right[:5] + b"!" * 12 + right[17:]
    assert tokens.find(right) is not None
    seconds: dict[bytes, list[float]] = {wrong: [], unknown: []}

    for n in range(4_000):
        for token in (wrong, unknown) if n % 2 else (unknown, wrong):
            started = time.perf_counter()
            found = tokens.find(token)
            seconds[token].append(time.perf_counter() - started)
            assert found is None

    medians = [statistics.median(times) for times in seconds.values()]
    assert max(medians) < 50e-6
    assert max(medians) < 1.25 * min(medians)
