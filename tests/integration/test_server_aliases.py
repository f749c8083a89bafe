"""Other ids of servers: heartbeats and requests under them are those of the server."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, deltas, heartbeat, hours_ago

T0 = hours_ago(3)


async def rename(service: Client, server: str = "nas", alias: str = "storage") -> httpx.Response:
    return await service.http.put(f"/api/v1/servers/{server}/aliases/{alias}")


async def servers(database: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await database.fetch("SELECT server_id FROM servers ORDER BY 1")]


async def test_heartbeats_under_another_id_continue_the_server(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat("nas", at=T0, eth0=(1_000, 0)))
    assert (await rename(service)).json() == {"server_id": "nas", "aliases": ["storage"]}

    later = [heartbeat("storage", at=hours_ago(3 - hour), eth0=(1_000 + 70 * hour, 0)) for hour in (1, 2)]
    await service.post(later[0])
    assert (await service.post_batch([later[1], later[0]]))["duplicate"] == 1

    assert await deltas(database) == [(0, "first"), (70, "gap"), (70, "gap")]
    assert await servers(database) == ["nas"]


async def test_both_ids_answer_and_the_answer_has_the_servers_own(service: Client) -> None:
    for hour in (3, 2, 1):
        await service.post(heartbeat("nas", at=hours_ago(hour), eth0=(10**6 * (9 - hour), 0)))
    await service.http.put("/api/v1/servers/nas/quota", json={"bytes": 10**12})
    await rename(service)
    since, until = hours_ago(4).isoformat(), hours_ago(0).isoformat()

    requests: dict[str, dict[str, Any]] = {
        "/servers/{}": {}, "/servers/{}/interfaces": {}, "/servers/{}/interfaces/eth0/stats": {},
        "/servers/{}/quota": {}, "/servers/{}/aliases": {}, "/usage/{}": {}, "/metrics/sparkline/{}/network": {},
        "/metrics/sparkline/{}/network.svg": {}, "/traffic/history": {"server": "{}", "since": since, "until": until},
        "/traffic/events": {"server": "{}", "since": since, "until": until},
        "/fleet/sparklines": {"series": ["{}/eth0"]}, "/export/traffic": {"server": ["{}"]},
        "/traffic/summary": {"server": "{}"}, "/audit": {"server": "{}"},
    }  # fmt: skip

    for path, query in requests.items():
        said = []
        for name in ("nas", "storage"):
            asked: Any = {
                key: [one.format(name) for one in value] if isinstance(value, list) else value.format(name)
                for key, value in query.items()
            }
            answer = await service.http.get(f"/api/v1{path.format(name)}", params=asked)
            assert answer.status_code == 200, (path, answer.text)
            said.append(answer.text)
        assert said[0] == said[1], path
        assert "storage" not in said[1] or path in ("/servers/{}/aliases", "/audit"), path
    changed = await service.http.put("/api/v1/servers/storage/labels", json={"display_name": "Attic"})
    assert changed.status_code == 200
    assert (await service.get("/servers/nas"))["display_name"] == "Attic"


async def test_tokens_of_either_id_report_under_either(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat("nas", at=hours_ago(5), eth0=(1, 0)))
    tokens = []
    for server in ("nas", "storage", "other"):
        made = await service.http.post("/api/v1/tokens", json={"kind": "server", "server_id": server})
        tokens.append(made.json()["token"])
    await rename(service)

    statuses = {}
    for number, token in enumerate(tokens):
        for place, server in enumerate(("nas", "storage")):
            beat = heartbeat(server, at=hours_ago(4 - number - place / 2), eth0=(2 + number * 2 + place, 0))
            answer = await service.http.post(
                "/api/v1/agents/heartbeat", json=beat, headers={"Authorization": f"Bearer {token}"}
            )
            statuses[number, server] = answer.status_code

    assert list(statuses.values()) == [200, 200, 200, 200, 403, 403]
    assert await servers(database) == ["nas"]
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE server_id = 'nas'") == 5


async def test_an_id_that_is_taken_is_refused(service: Client, database: asyncpg.Connection) -> None:
    for server in ("nas", "pi"):
        await service.post(heartbeat(server, eth0=(1, 1)))
    assert (await rename(service)).status_code == 200
    assert (await rename(service)).status_code == 200  # again

    for server, alias, status, told in (
        ("nas", "pi", 409, "server 'pi' has the id 'pi'"), ("pi", "storage", 409, "server 'nas' has the id 'storage'"),
        ("nas", "nas", 409, "server 'nas' has the id 'nas'"), ("nobody", "x", 404, "nobody"),
        ("nas", "a b", 422, "alias"),
    ):  # fmt: skip
        refused = await rename(service, server, alias)
        assert refused.status_code == status, refused.text
        assert told in refused.text
    assert (await service.http.delete("/api/v1/servers/pi/aliases/storage")).status_code == 404
    assert [tuple(row) for row in await database.fetch("SELECT alias, server_id FROM server_aliases")] == [
        ("storage", "nas")
    ]


async def test_a_removal_names_the_server_itself_and_ends_its_other_ids(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await rename(service)

    assert (await service.http.delete("/api/v1/servers/storage")).status_code == 404
    assert await database.fetchval("SELECT count(*) FROM linkbeat.removals") == 0
    assert (await service.http.delete("/api/v1/servers/nas/aliases/storage")).status_code == 204

    await service.post(heartbeat("storage", eth0=(1, 1)))
    assert await servers(database) == ["nas", "storage"]
    await service.http.put("/api/v1/servers/nas/aliases/attic")
    await database.execute("DELETE FROM servers WHERE server_id = 'nas'")
    assert await database.fetchval("SELECT count(*) FROM linkbeat.server_aliases") == 0


async def test_another_process_registers_no_server_under_a_new_alias(
    service: Client, settings: Settings, database_url: str, database: asyncpg.Connection, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It has not heard of the alias: the database refuses the row, and the heartbeat, sent again, is the server's."""
    await service.post(heartbeat("nas", at=T0, eth0=(1, 1)))
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        await other.post(heartbeat("pi", eth0=(1, 1)))  # its cache is there
        await rename(service)
        beat = heartbeat("storage", at=hours_ago(1), eth0=(5, 5))

        for _ in range(100):
            answer = await other.http.post("/api/v1/agents/heartbeat", json=beat)
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.2)

    assert answer.status_code == 200
    assert await servers(database) == ["nas", "pi"]
    assert await deltas(database) == [(0, "first"), (4, "gap")]


async def test_the_database_registers_no_server_under_an_alias(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await rename(service)

    with pytest.raises(asyncpg.SerializationError, match="has another id now"):
        await database.execute(
            "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) "
            "VALUES ('storage', '', $1, $1, $1)",
            T0,
        )
