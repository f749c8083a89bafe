"""Enrolment: a short-lived, counted token that turns into a server's own at the agent's first contact."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest

from tests.helpers.support import Client, heartbeat
from tests.integration.test_tokens import bearer, create, report

WAITING_FOR_TURN = """
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ~ 'enrol_server')
"""


async def enroll(service: Client, token: str, server_id: str = "nas", guid: str | None = "guid-1") -> httpx.Response:
    body = {"server_id": server_id, "hostname": f"{server_id}.local", "server_guid": guid, "agent_version": "9"}
    return await service.http.post("/api/v1/agents/enroll", json=body, headers=bearer(token))


async def enrolment(service: Client, **body: Any) -> str:
    return str((await create(service, "/enrolments", **body))["token"])


async def test_an_agent_gets_a_token_of_its_own_and_reports_with_it(service: Client) -> None:
    answer = await enroll(service, await enrolment(service))

    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    own = answer.json()
    assert (own["kind"], own["server_id"], own["expires_at"]) == ("server", "nas", None)
    assert (await report(service, own["token"])).status_code == 200
    assert (await report(service, own["token"], "other")).status_code == 403


async def test_an_enrolment_token_does_nothing_else(service: Client) -> None:
    token = await enrolment(service)

    assert (await report(service, token)).status_code == 403
    assert (await service.http.get("/api/v1/servers", headers=bearer(token))).status_code == 403


async def test_many_agents_at_once_get_no_more_than_were_allowed(service: Client, database: asyncpg.Connection) -> None:
    token = await enrolment(service, uses=5)

    answers = await asyncio.gather(*(enroll(service, token, f"s{n}") for n in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [403] * 15
    assert len({answer.json()["token"] for answer in answers if answer.status_code == 201}) == 5
    assert await database.fetchval("SELECT count(*) FROM linkbeat.tokens WHERE kind = 'server'") == 5
    states = (await service.get("/tokens", kind="enrolment"))["tokens"]
    assert [(one["state"], one["uses_left"]) for one in states] == [("spent", 0)]


async def test_of_many_that_say_they_are_one_server_one_is_enrolled_and_one_use_counted(
    service: Client, database: asyncpg.Connection
) -> None:
    token = await enrolment(service, uses=10)

    answers = await asyncio.gather(*(enroll(service, token) for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert await database.fetchval("SELECT uses_left FROM linkbeat.tokens WHERE kind = 'enrolment'") == 9


async def test_processes_that_enrol_at_once_take_turns(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    """One process has one connection for this: the race is between many."""
    enrolment_id = (await enrolment(service, uses=4)).split("_")[2]
    processes = [await asyncpg.connect(database_url) for _ in range(8)]

    async def enrol(number: int, connection: asyncpg.Connection, server_id: str) -> str:
        return str(
            await connection.fetchval(
                "SELECT linkbeat.enrol_server($1, $2, NULL, $3, '', '', '')", enrolment_id, server_id, f"id-{number}"
            )
        )

    for attempt in range(5):  # each fails as if it were alone, unless they take turns
        numbered = enumerate(processes, start=attempt * len(processes))
        same = await asyncio.gather(*(enrol(n, one, f"same-{attempt}") for n, one in numbered))
        # Those after the one that has the last use are not told that the server exists.
        others = "exists" if attempt < 3 else "spent"
        assert sorted(same) == sorted(["enrolled"] * (attempt < 4) + [others] * (7 if attempt < 4 else 8))
    await database.execute("UPDATE linkbeat.tokens SET uses_left = 3 WHERE kind = 'enrolment'")
    different = await asyncio.gather(*(enrol(100 + n, one, f"other-{n}") for n, one in enumerate(processes)))
    for one in processes:
        await one.close()

    assert sorted(different) == ["enrolled"] * 3 + ["spent"] * 5
    assert await database.fetchval("SELECT uses_left FROM linkbeat.tokens WHERE kind = 'enrolment'") == 0


async def test_it_ends_with_its_time(service: Client) -> None:
    for seconds in (1.0, 30.0, 300.0):
        made = await create(service, "/enrolments", uses=10, expires_minutes=seconds / 60)
        first = await enroll(service, made["token"], f"within-{seconds:.0f}")
        ends_in = (datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)).total_seconds()
        if first.status_code == 201:
            break
        assert ends_in <= 0, "it was refused before its end, and not because this machine was late"
    await asyncio.sleep(max(0.0, ends_in) + 0.1)

    assert first.status_code == 201
    assert (await enroll(service, made["token"], "b")).status_code == 401


@pytest.mark.parametrize(("guid", "status"), [("guid-1", 201), ("guid-2", 409), (None, 409)])
async def test_a_server_whose_token_was_revoked_is_enrolled_by_its_guid_alone(
    service: Client, guid: str | None, status: int
) -> None:
    token = await enrolment(service, uses=10)
    own = (await enroll(service, token)).json()
    body = heartbeat() | {"server_guid": "guid-1"}
    reported = await service.http.post("/api/v1/agents/heartbeat", json=body, headers=bearer(own["token"]))
    assert reported.status_code == 200
    await service.http.delete(f"/api/v1/tokens/{own['id']}")

    answer = await enroll(service, token, guid=guid)

    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("guid", ["guid-1", None])
async def test_a_server_that_reports_by_a_shared_token_is_not_taken_over(
    service: Client, database: asyncpg.Connection, guid: str | None
) -> None:
    """Its GUID is in its own heartbeats, and whoever enrols could have read it."""
    await service.post(heartbeat() | {"server_guid": "guid-1"})
    token = await enrolment(service, uses=10)

    answer = await enroll(service, token, guid=guid)

    assert (answer.status_code, answer.json()["code"]) == (409, "server_exists")
    assert await database.fetchval("SELECT uses_left FROM linkbeat.tokens WHERE kind = 'enrolment'") == 10


async def test_a_server_whose_first_heartbeat_comes_while_it_is_enrolled_is_not_taken_over(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    """Its row is committed while the enrolment waits for its turn: nothing that was read before then holds."""
    token = await enrolment(service, uses=10)
    changing = await asyncpg.connect(database_url)

    async with changing.transaction():
        await changing.execute("SELECT linkbeat.take_token_turn()")
        enrolling = asyncio.create_task(enroll(service, token))
        while not await database.fetchval(WAITING_FOR_TURN):  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)
        await service.post(heartbeat() | {"server_guid": "guid-1"})
    answer = await enrolling
    await changing.close()

    assert (answer.status_code, answer.json()["code"]) == (409, "server_exists")
    assert await database.fetchval("SELECT count(*) FROM linkbeat.tokens WHERE server_id = 'nas'") == 0


async def test_a_spent_token_does_not_tell_which_servers_there_are(service: Client) -> None:
    await service.post(heartbeat())
    token = await enrolment(service, uses=1)
    assert (await enroll(service, token, "first")).status_code == 201

    answers = [await enroll(service, token, name) for name in ("nas", "first", "nobody")]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "forbidden")] * 3


async def test_a_read_token_sees_no_guid(service: Client) -> None:
    await service.post(heartbeat() | {"server_guid": "guid-1"})
    for kind, seen in (("read", None), ("admin", "guid-1")):
        headers = bearer((await create(service, kind=kind))["token"])
        one = (await service.http.get("/api/v1/servers/nas", headers=headers)).json()
        every = (await service.http.get("/api/v1/servers", headers=headers)).json()["servers"]
        assert (one["server_guid"], [server["server_guid"] for server in every]) == (seen, [seen])


async def test_a_server_that_has_a_token_is_not_enrolled_again_but_by_an_administrator(service: Client) -> None:
    token = await enrolment(service, uses=10)
    admin = (await create(service, kind="admin"))["token"]
    own = (await enroll(service, token)).json()

    again = await enroll(service, token)
    by_admin = await enroll(service, admin)
    await service.http.delete(f"/api/v1/tokens/{own['id']}")
    await service.http.delete(f"/api/v1/tokens/{by_admin.json()['id']}")
    revoked = await enroll(service, token)

    assert (again.status_code, again.json()["code"]) == (409, "server_exists")
    assert by_admin.status_code == 201
    assert (await report(service, own["token"])).status_code == 401
    assert revoked.status_code == 201, "it is not known by another GUID, and has no token any more"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"hostname": "h"}, "server_id"),
    ({"server_id": "../etc", "hostname": "h"}, "server_id"),
    ({"server_id": "nas"}, "hostname"),
    *(({"server_id": "nas", "hostname": f"h{one}"}, "hostname") for one in ("\0", "\n", "\x1b[31m", "\x7f", "\x9b31m")),
    ({"server_id": "nas", "hostname": "h", "server_guid": "g\x9b"}, "server_guid"),
    ({"server_id": ".", "hostname": "h"}, "server_id"),
    ({"server_id": "..", "hostname": "h"}, "server_id"),
    ({"server_id": "nas", "hostname": "h", "server_guid": ""}, "server_guid"),
]


async def test_a_wrong_request_is_refused_naming_the_field_and_not_counted(
    service: Client, database: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    token = await enrolment(service)

    for body, path in WRONG:
        with subtests.test(str(body)):
            answer = await service.http.post("/api/v1/agents/enroll", json=body, headers=bearer(token))

            assert answer.status_code == 422
            assert [error["path"] for error in answer.json()["errors"]] == [path]
            assert await database.fetchval("SELECT uses_left FROM linkbeat.tokens") == 1
    for wrong, named in (({"uses": 0}, "uses"), ({"expires_minutes": 1441}, "expires_minutes"), ({"use": 1}, "use")):
        refused = await service.http.post("/api/v1/enrolments", json=wrong)
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, named)
