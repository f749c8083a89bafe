"""/api/v1/servers/{server_id}/config: what an agent is asked to do, and the heartbeats' answers that tell it."""

import asyncio
import json
from typing import Any

import asyncpg
import httpx
import pytest

from service.app import create_app
from service.ingest.agent_config import POLL_SECONDS
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

TURN_SECONDS = 0.05
WHOLE: dict[str, Any] = {
    "interval_seconds": 2.5, "include_interfaces": ["eth*", "veth[0-9]"], "exclude_interfaces": [], "paused": True,
}  # fmt: skip


async def put(service: Client, body: Any, server_id: str = "nas") -> httpx.Response:
    return await service.http.put(f"/api/v1/servers/{server_id}/config", json=body)


async def told(service: Client, server_id: str = "nas") -> dict[str, Any]:
    """What the next heartbeat's answer asks for."""
    return dict((await service.post(heartbeat(server_id)))["config"])


async def becomes(service: Client, expected: dict[str, Any], server_id: str = "nas", *, polls: float = 5) -> None:
    """Heartbeats are answered with this configuration within the time of so many polls.

    Counted in turns of this loop, in which the process under test polls too: while all of it stands still, there are
    neither.
    """
    for _ in range(round(polls * POLL_SECONDS / TURN_SECONDS)):
        if await told(service, server_id) == expected:
            return
        await asyncio.sleep(TURN_SECONDS)
    assert await told(service, server_id) == expected


async def test_what_is_set_is_answered_read_listed_and_replaced_as_a_whole(service: Client) -> None:
    assert await told(service) == {}

    configs: list[dict[str, Any]] = [
        WHOLE, {"interval_seconds": 3600}, {"include_interfaces": []}, {"paused": False}, {},
    ]  # fmt: skip
    for config in configs:
        answer = await put(service, config)

        assert (answer.status_code, answer.json()) == (200, config)
        assert await told(service) == config
        assert await service.get("/servers/nas/config") == config
        assert (await service.get("/agents"))["agents"][0]["config"] == config
    assert await told(service, "another") == {}


async def test_null_is_the_same_as_nothing(service: Client) -> None:
    await told(service)

    answer = await put(service, dict.fromkeys(WHOLE) | {"paused": True})

    assert answer.json() == {"paused": True}
    assert await told(service) == {"paused": True}


async def test_what_is_deleted_is_no_longer_asked_for(service: Client) -> None:
    await told(service)
    await put(service, WHOLE)

    for _ in range(2):
        answer = await service.http.delete("/api/v1/servers/nas/config")

        assert (answer.status_code, answer.content) == (204, b"")
        assert await told(service) == {}
        assert await service.get("/servers/nas/config") == {}
        assert (await service.get("/agents"))["agents"][0]["config"] is None


async def test_batches_are_not_told(service: Client) -> None:
    await told(service)
    await put(service, WHOLE)

    assert "config" not in await service.post_batch([heartbeat(at=hours_ago(1))])


@pytest.mark.parametrize("server_id", ["nobody", "NAS", "nas%00", "%ff", "a" * 300])
async def test_a_server_that_never_reported_is_404(service: Client, server_id: str) -> None:
    await told(service)

    for answer in (
        await put(service, WHOLE, server_id),
        await service.http.get(f"/api/v1/servers/{server_id}/config"),
        await service.http.delete(f"/api/v1/servers/{server_id}/config"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_server")


BAD: list[tuple[Any, int, str | None]] = [
    ({"interval": 30}, 422, "interval"),
    ({"paused": True, "Paused": True}, 422, "Paused"),
    ({"interval_seconds": 0.999}, 422, "interval_seconds"),
    ({"interval_seconds": 3601}, 422, "interval_seconds"),
    ({"interval_seconds": "30"}, 422, "interval_seconds"),
    ({"paused": 1}, 422, "paused"),
    ({"include_interfaces": "eth*"}, 422, "include_interfaces"),
    ({"include_interfaces": ["eth0"] * 101}, 422, "include_interfaces"),
    ({"exclude_interfaces": ["eth0", ""]}, 422, "exclude_interfaces[1]"),
    ({"exclude_interfaces": ["e" * 65]}, 422, "exclude_interfaces[0]"),
    *(
        ({"include_interfaces": [pattern]}, 422, "include_interfaces[0]")
        for pattern in ("veth*,br-*", " eth0", "eth0 ", "a/b", "eth0\n", "\0", 5)
    ),
    ([], 422, ""),
    (None, 422, ""),
    (b"", 400, None),
    (b"{", 400, None),
    (b'{"paused": "\xff"}', 400, None),
    (b'{"interval_seconds": NaN}', 400, None),
    (b'{"interval_seconds": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None),
    (b"[" * 100_000, 400, None),
    (b'{"interval_seconds": 1e400}', 422, "interval_seconds"),
    (b" " * (300 << 10), 413, None),
]


async def test_what_is_not_as_specified_is_refused_and_changes_nothing(
    service: Client, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    await told(service)
    await put(service, WHOLE)

    for body, status, field in BAD:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        with subtests.test(repr(raw[:60])):
            answer = await service.http.put(
                "/api/v1/servers/nas/config", content=raw, headers={"Content-Type": "application/json"}
            )

            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            if field is not None:
                assert [error["path"] for error in answer.json()["errors"]] == [field]
            assert await service.get("/servers/nas/config") == WHOLE
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_every_bad_field_is_named(service: Client) -> None:
    await told(service)

    answer = await put(service, {"interval_seconds": 0, "include_interfaces": ["eth0", "/"], "pause": True})

    paths = [error["path"] for error in answer.json()["errors"]]
    assert paths == ["interval_seconds", "include_interfaces[1]", "pause"]


async def test_another_type_than_json_is_refused_and_a_key_is_needed(service: Client) -> None:
    await told(service)
    path = "/api/v1/servers/nas/config"

    typed = await service.http.put(path, content=b"{}", headers={"Content-Type": "text/plain"})
    keyless = [
        await service.http.request(method, path, headers={"Authorization": ""}) for method in ("GET", "PUT", "DELETE")
    ]

    assert typed.status_code == 415
    assert [answer.status_code for answer in keyless] == [401, 401, 401]


async def test_another_process_tells_it_within_seconds_and_after_its_connections_were_lost(
    service: Client, database: asyncpg.Connection, database_url: str, settings: Settings
) -> None:
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        await told(service)
        await put(service, {"paused": True})
        await becomes(other, {"paused": True}, polls=3)
        await put(other, {"paused": False})
        await becomes(service, {"paused": False}, polls=3)

        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'linkbeat%' AND pid <> pg_backend_pid()"
        )
        for client, method, path in (
            (service, "DELETE", "/api/v1/servers/nas/config"),
            (other, "POST", "/api/v1/agents/heartbeat"),
        ):
            for _ in range(100):
                if (await client.http.request(method, path, json=heartbeat())).status_code != 503:
                    break
                await asyncio.sleep(0.05)
        await becomes(other, {}, polls=3)


async def test_a_process_that_has_just_started_tells_it_from_its_first_answer_on(
    service: Client, database: asyncpg.Connection, database_url: str, settings: Settings
) -> None:
    """`{}` would let a paused agent go on."""
    await told(service)
    await put(service, WHOLE)
    unreadable = database.transaction()
    await unreadable.start()
    await database.execute("LOCK TABLE linkbeat.server_config")

    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        answer = asyncio.create_task(told(other))
        await asyncio.sleep(0.5)
        assert not answer.done()
        await unreadable.rollback()
        assert await answer == WHOLE


async def test_what_many_set_at_once_is_what_one_of_them_set_for_everyone(
    service: Client, database_url: str, settings: Settings
) -> None:
    await asyncio.gather(*(told(service, f"s{n}") for n in range(5)))
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        for _ in range(5):
            await asyncio.gather(
                *(put((service, other)[n % 2], {"interval_seconds": n + 1}, f"s{n % 5}") for n in range(20))
            )
            for server_id in (f"s{n}" for n in range(5)):
                stored = await service.get(f"/servers/{server_id}/config")
                await becomes(service, stored, server_id)
                await becomes(other, stored, server_id)


async def test_it_goes_with_its_server(service: Client, database: asyncpg.Connection) -> None:
    await told(service)
    await told(service, "other")
    await put(service, WHOLE)
    await put(service, {"paused": False}, "other")

    await database.execute("DELETE FROM servers WHERE server_id = 'nas'")

    assert [row[0] for row in await database.fetch("SELECT server_id FROM linkbeat.server_config")] == ["other"]
    assert (await service.http.get("/api/v1/servers/nas/config")).status_code == 404
    await becomes(service, {})
    assert await told(service, "other") == {"paused": False}


async def test_analysts_see_it(service: Client, database: asyncpg.Connection) -> None:
    await told(service)
    await put(service, WHOLE)
    await database.execute("SET ROLE analyst")

    row = await database.fetchrow(
        "SELECT config ->> 'paused' AS paused, config_changed_at > now() - INTERVAL '1 minute' AS is_recent "
        "FROM agent_overview"
    )

    assert row is not None
    assert tuple(row) == ("true", True)
