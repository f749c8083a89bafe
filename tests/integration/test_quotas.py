"""/api/v1/servers/{server_id}/quota: set, read with its state, removed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.helpers.support import Client, heartbeat, hours_ago

DEFAULTS = {
    "direction": "sum", "billing_day": 1, "time_zone": "UTC", "interface": None, "near_percent": 80.0,
}  # fmt: skip


async def put(service: Client, body: Any, server_id: str = "nas") -> httpx.Response:
    return await service.http.put(f"/api/v1/servers/{server_id}/quota", json=body)


def today() -> int:
    """A billing day whose month began today, whatever today is."""
    return datetime.now(UTC).day


@pytest.fixture
async def used(service: Client) -> Client:
    """eth0 received 3000 and sent 1000 in the last minute, wlan0 received 500."""
    await service.post(heartbeat(at=hours_ago(0) - timedelta(minutes=1), eth0=(0, 0), wlan0=(0, 0)))
    await service.post(heartbeat(at=hours_ago(0), eth0=(3_000, 1_000), wlan0=(500, 0)))
    return service


async def test_what_is_set_is_answered_with_its_state_replaced_and_removed(used: Client) -> None:
    assert (await used.http.get("/api/v1/servers/nas/quota")).status_code == 404

    answer = await put(used, {"bytes": 2**63 - 1})

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {name: body[name] for name in DEFAULTS} == DEFAULTS
    assert (body["bytes"], body["used_bytes"], body["state"]) == (2**63 - 1, 4_500, "ok")
    assert (await put(used, {"bytes": 9_000, "direction": "in"})).json()["used_percent"] == pytest.approx(38.889)
    assert (await used.get("/servers/nas/quota"))["direction"] == "in"
    assert (await used.get("/usage/nas"))["quota"]["bytes"] == 9_000
    assert (await used.get("/usage"))["servers"][0]["quota"]["bytes"] == 9_000
    for _ in range(2):
        assert (await used.http.delete("/api/v1/servers/nas/quota")).status_code == 204
        assert (await used.http.get("/api/v1/servers/nas/quota")).json()["code"] == "not_found"
    assert (await used.get("/usage/nas"))["quota"] is None


@pytest.mark.parametrize(
    ("quota", "used_bytes", "state"),
    [
        ({"bytes": 4_500}, 4_500, "near"),
        ({"bytes": 4_499}, 4_500, "over"),
        ({"bytes": 5_625}, 4_500, "near"),
        ({"bytes": 5_626}, 4_500, "ok"),
        ({"bytes": 9_000, "near_percent": 50}, 4_500, "near"),
        ({"bytes": 9_000, "direction": "in"}, 3_500, "ok"),
        ({"bytes": 1_000, "direction": "out"}, 1_000, "near"),
        ({"bytes": 3_000, "direction": "max"}, 3_500, "over"),
        ({"bytes": 3_000, "direction": "in", "interface": "eth0"}, 3_000, "near"),
        ({"bytes": 1, "interface": "gone0"}, 0, "ok"),
    ],
)
async def test_the_state_is_told_by_what_counts(
    used: Client, quota: dict[str, Any], used_bytes: int, state: str
) -> None:
    answer = (await put(used, quota)).json()

    assert (answer["used_bytes"], answer["state"]) == (used_bytes, state)


async def test_a_quota_goes_with_its_server(used: Client, database: asyncpg.Connection) -> None:
    await put(used, {"bytes": 1})

    await database.execute("DELETE FROM servers")

    assert await database.fetchval("SELECT count(*) FROM quotas") == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "bytes"),
    ({"bytes": 0}, "bytes"),
    ({"bytes": 2**63}, "bytes"),
    ({"bytes": "1"}, "bytes"),
    ({"bytes": 1.5}, "bytes"),
    ({"bytes": 1, "direction": "both"}, "direction"),
    ({"bytes": 1, "billing_day": 32}, "billing_day"),
    ({"bytes": 1, "time_zone": "CET+1"}, "time_zone"),
    ({"bytes": 1, "time_zone": "\0"}, "time_zone"),
    ({"bytes": 1, "near_percent": 0}, "near_percent"),
    ({"bytes": 1, "interface": "a\0b"}, "interface"),
    ({"bytes": 1, "quota": 2}, "quota"),
]


async def test_what_is_not_as_specified_is_named_and_nothing_is_set(used: Client, subtests: pytest.Subtests) -> None:
    for body, field in WRONG:
        with subtests.test(str(body)):
            answer = await put(used, body)

            assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, field)
            assert (await used.http.get("/api/v1/servers/nas/quota")).status_code == 404


async def test_a_server_that_never_was_is_404(service: Client) -> None:
    assert (await put(service, {"bytes": 1}, "nobody")).json()["code"] == "unknown_server"
    assert (await service.http.get("/api/v1/servers/nobody/quota")).json()["code"] == "unknown_server"
    assert (await service.http.delete("/api/v1/servers/nobody/quota")).json()["code"] == "unknown_server"


async def test_not_json_and_too_large_are_told_apart(used: Client) -> None:
    for content, status in ((b"{", 400), (b"[" * 2000, 400), (b"\xff", 400), (b" " * 20_000, 413)):
        answer = await used.http.put(
            "/api/v1/servers/nas/quota", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == status
