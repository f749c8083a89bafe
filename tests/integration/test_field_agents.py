"""Agents in the field, which are not ours: their headers, and the fields that they send beyond spec section 2.1."""

import asyncio
import time
from typing import Any

import httpx
import msgspec
import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client
from tests.integration.test_tokens import create

GUID = "550e8400-e29b-41d4-a716-446655440001"
BEAT: dict[str, Any] = {
    "server_id": "mediaserver",
    "server_guid": GUID,
    "hostname": "mediaserver.local",
    "status": "online",
    "agent_version": "1.0.0",
    "agent_mode": "readonly",
    "os_info": {"distro": "Debian GNU/Linux 12", "kernel": "6.1.0"},
    "cpu_info": {"model": "N100", "cores": 4},
    "metrics": {"cpu_percent": 25.5, "memory_percent": 45.2, "disk_percent": 60.0, "uptime_seconds": 86_400},
    "network_interfaces": [
        {"name": "eth0", "rx_bytes": 1073741824, "tx_bytes": 536870912, "rx_packets": 1000000, "tx_packets": 500000,
         "is_up": True}
    ],
    "filesystems": [],
    "services": [{"name": "plex", "status": "running", "pid": 123}],
    "packages": [{"name": "openssl", "version": "3.0.11", "is_security": True}],
    "updates_available": 12,
    "security_updates": 3,
}  # fmt: skip


async def send(service: Client, headers: dict[str, str], **changed: Any) -> httpx.Response:
    return await service.http.post(
        "/api/v1/agents/heartbeat", json=BEAT | changed, headers={"Authorization": "", **headers}
    )


def agent(token: str, guid: str = GUID) -> dict[str, str]:
    return {"X-Agent-Token": token, "X-Server-GUID": guid}


async def test_by_the_shared_key_they_get_the_answer_of_the_specification(service: Client) -> None:
    fleet = (await create(service, kind="fleet"))["token"]

    for key in (KEY, fleet):
        answer = await send(service, {"X-API-Key": key})

        assert answer.status_code == 200, answer.text
        assert {name: answer.json()[name] for name in ("status", "pending_commands", "results_acknowledged")} == {
            "status": "ok", "pending_commands": [], "results_acknowledged": [],
        }  # fmt: skip
        assert answer.json()["server_registered"] is (key == KEY)
        assert {"duplicate", "server_time", "config"} < set(answer.json())
    server = await service.get("/servers/mediaserver")
    assert server["network_interfaces"][0]["rx_bytes"] == 1073741824


async def test_by_their_own_token_and_guid_too(service: Client) -> None:
    token = (await create(service, kind="server", server_id="mediaserver", server_guid=GUID))["token"]

    answer = await send(service, agent(token))

    assert answer.status_code == 200, answer.text
    assert answer.json()["server_registered"] is True
    assert (await send(service, agent(token), server_guid=None)).status_code == 200


@pytest.mark.parametrize(
    ("guid", "changed", "status"),
    [
        ("another", {}, 403),
        ("another", {"server_guid": "another"}, 403),
        (GUID, {"server_guid": "another"}, 403),
        (GUID, {"server_id": "other"}, 403),
        ("", {}, 401),
    ],
)
async def test_token_guid_and_body_must_agree(service: Client, guid: str, changed: dict[str, str], status: int) -> None:
    token = (await create(service, kind="server", server_id="mediaserver", server_guid=GUID))["token"]

    answer = await send(service, agent(token, guid), **changed)

    assert answer.status_code == status
    assert (await service.get("/servers"))["servers"] == []


async def test_a_token_made_without_a_guid_takes_the_first_that_comes_for_all_processes(
    service: Client, database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.access.tokens.NOTE_SECONDS", 0.0)
    made = await create(service, "/servers", server_id="mediaserver")

    first = await send(service, agent(made["token"]))
    here = await send(service, agent(made["token"], "another"), server_guid="another")
    deadline = time.monotonic() + 60
    while not (await service.get("/tokens"))["tokens"][0]["last_used_at"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        there = await send(other, agent(made["token"], "another"), server_guid="another")
        right = await send(other, agent(made["token"]))

    assert [answer.status_code for answer in (first, here, there, right)] == [200, 403, 403, 200]


async def test_a_fleet_token_reports_any_server_whose_guid_agrees(service: Client) -> None:
    token = (await create(service, kind="fleet"))["token"]

    assert (await send(service, agent(token))).status_code == 200
    assert (await send(service, agent(token, "another"))).status_code == 403


async def test_each_header_has_a_switch(service: Client, database_url: str, settings: Settings) -> None:
    token = (await create(service, kind="server", server_id="mediaserver"))["token"]
    for off, expected in (("accept_x_api_key", [401, 200]), ("accept_x_agent_token", [200, 401])):
        changed = msgspec.structs.replace(settings, **{off: False})
        async with in_process(create_app(changed, database_url=database_url, key=KEY)) as other:
            answers = [await send(other, {"X-API-Key": KEY}), await send(other, agent(token))]
            both = await send(other, {"X-API-Key": KEY, "X-Agent-Token": token, "X-Server-GUID": GUID})

        assert [answer.status_code for answer in answers] == expected
        assert both.status_code == 200
