"""What every answer says of itself: it is for who asked, and what its type says."""

from typing import Any

import pytest

from tests.helpers.support import Client, heartbeat
from tests.integration.test_tokens import bearer, create

READS = [
    "/api/v1/servers", "/api/v1/servers/nas", "/api/v1/servers/nas/interfaces", "/api/v1/servers/nas/interfaces/eth0",
    "/api/v1/servers/nas/agent", "/api/v1/servers/nas/config", "/api/v1/agents", "/api/v1/tokens", "/api/v1/fleet",
    "/api/v1/fleet/peaks", "/api/v1/metrics/sparkline/nas/network", "/api/v1/metrics/sparkline/network",
    "/api/v1/metrics/sparkline/nas/cpu", "/api/v1/metrics/sparkline/nas/network.svg", "/api/v1/traffic/summary",
    "/api/v1/traffic/latest", "/api/v1/usage", "/api/v1/usage/nas", "/api/v1/export/traffic", "/api/v1/system/health",
    "/api/v1/system/info", "/api/v1/system/definitions", "/metrics", "/health", "/health/ready",
    "/schema/openapi.json", "/", "/sign-in",
]  # fmt: skip
KEPT_NOWHERE = ("no-store", "private, no-cache")


def says(headers: Any) -> tuple[bool, str]:
    assert len(headers.get_list("cache-control")) == len(headers.get_list("x-content-type-options")) == 1
    return headers["x-content-type-options"] == "nosniff", headers["cache-control"]


async def test_no_answer_is_kept_for_others_or_taken_for_another_type(
    service: Client, subtests: pytest.Subtests
) -> None:
    await service.post(heartbeat(eth0=(1, 2)))

    for path in READS:
        with subtests.test(path):
            answer = await service.http.get(path)

            assert answer.status_code == 200, answer.text
            is_sniffed_never, cache = says(answer.headers)
            assert is_sniffed_never
            if path.endswith(".svg"):
                assert cache.startswith("private, max-age=")
            else:
                assert cache in (("no-cache",) if path in ("/", "/sign-in") else KEPT_NOWHERE)


ERRORS = [
    ("GET", "/api/v1/servers/nobody", 404), ("GET", "/nowhere", 404), ("PUT", "/api/v1/servers", 405),
    ("GET", "/api/v1/servers?limit=x", 422), ("POST", "/api/v1/agents/heartbeat", 400),
    ("GET", "/api/v1/agents/heartbeat", 405), ("POST", "/api/v1/tokens", 400),
]  # fmt: skip


async def test_no_error_is_either(service: Client, subtests: pytest.Subtests) -> None:
    for method, path, status in ERRORS:
        with subtests.test(f"{method} {path}"):
            answer = await service.http.request(method, path)

            assert answer.status_code == status
            assert says(answer.headers) == (True, "no-store")


async def test_no_refusal_is_either(service: Client) -> None:
    enrolment = (await create(service, "/enrolments"))["token"]

    for headers in ({"Authorization": ""}, bearer("wrong"), bearer(enrolment)):
        for method, path in (("GET", "/api/v1/servers"), ("POST", "/api/v1/agents/heartbeat")):
            answer = await service.http.request(method, path, headers=headers)
            assert answer.status_code in (401, 403)
            assert says(answer.headers) == (True, "no-store")


async def test_what_is_reported_and_changed_is_answered_so_too(service: Client) -> None:
    for method, path, body in (
        ("POST", "/api/v1/agents/heartbeat", heartbeat(eth0=(1, 2))),
        ("POST", "/api/v1/agents/heartbeats", [heartbeat(eth0=(1, 2))]),
        ("PUT", "/api/v1/servers/nas/config", {"paused": True}),
        ("POST", "/api/v1/tokens", {"kind": "read"}),
        ("DELETE", "/api/v1/servers/nas/config", None),
    ):
        answer = await service.http.request(method, path, json=body)
        assert answer.is_success, answer.text
        assert says(answer.headers) == (True, "no-store")
