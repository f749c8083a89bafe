"""Every route of the OpenAPI document by every kind of token: who gets in, and that nobody else does or learns a thing.

New routes are picked up from the document: `security` names what each asks for.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from service.access.identity import MAY
from service.settings import Settings
from tests.helpers.support import KEY, Client, heartbeat

pytestmark = pytest.mark.background

# Who may do what, said once more and independently of service/access/identity.py.
ALLOWED = {
    "read": {"key", "admin", "read"},
    "ingest": {"key", "admin", "server", "fleet"},
    "enrol": {"key", "admin", "enrolment"},
    "admin": {"key", "admin"},
}
# What a route that changes something may ask for instead of an administrator.
CHANGING = {
    ("post", "/api/v1/agents/heartbeat"): "ingest",
    ("post", "/api/v1/agents/heartbeats"): "ingest",
    ("post", "/api/v1/agents/enroll"): "enrol",
    # It signs, and stores nothing.
    ("post", "/api/v1/pictures"): "read",
}
OPEN = {"/health", "/health/ready"}
SECRET = "a-hostname-that-only-readers-learn"


async def make(service: Client, path: str = "/tokens", **body: Any) -> str:
    """A new token's text."""
    answer = await service.http.post(f"/api/v1{path}", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def every_token(service: Client, database: asyncpg.Connection) -> dict[str, str]:
    """A token of each kind, and of each kind of wrong one."""
    tokens = {
        "key": KEY,
        "admin": await make(service, kind="admin"),
        "read": await make(service, kind="read"),
        "fleet": await make(service, kind="fleet"),
        "server": await make(service, kind="server", server_id="nas"),
        "other server": await make(service, kind="server", server_id="other"),
        "enrolment": await make(service, "/enrolments", uses=1000),
        "revoked": await make(service, kind="admin"),
        "expired": await make(service, kind="admin", expires_days=1),
    }
    tokens["unknown"] = tokens["admin"][:5] + "0" * 12 + tokens["admin"][17:]
    tokens["wrong"] = tokens["admin"][:-1] + ("a" if tokens["admin"][-1] != "a" else "b")
    await database.execute(
        "UPDATE linkbeat.tokens SET expires_at = now() - INTERVAL '1 second' WHERE token_id = $1",
        tokens["expired"].split("_")[2],
    )
    # After which this process has seen all changes.
    await service.http.delete(f"/api/v1/tokens/{tokens['revoked'].split('_')[2]}")
    return tokens


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


async def send(service: Client, method: str, path: str, token: str | None, body: bytes | None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}" if token else "", "Content-Type": "application/json"}
    return await service.http.request(method, path, headers=headers, content=body)


async def counts(database: asyncpg.Connection) -> dict[str, Any]:
    """What every table of ours holds, as far as a request could change it: rows, and a fingerprint of each."""
    tables = await database.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class c WHERE relkind = 'r' AND relnamespace IN "
        "('public'::regnamespace, 'linkbeat'::regnamespace) ORDER BY 1"
    )
    return {
        row["name"]: tuple(
            await database.fetchrow(f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {row['name']} t") or ()
        )
        for row in tables
        # The background writes down how it goes.
        if row["name"].rpartition(".")[2] not in ("maintenance", "watermarks", "alert_clock", "listening", "leases")
    }


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings(
        **{n: getattr(settings, n) for n in settings.__struct_fields__} | {"read_requests_per_minute": 10**6}
    )


async def test_every_route_lets_in_whom_it_should_and_nobody_else(
    service: Client, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.access.tokens.MISSED_SECONDS", 0.01)
    # On a busy machine this takes longer than a minute, after which the use of tokens is written down.
    monkeypatch.setattr("service.access.tokens.NOTE_SECONDS", 86_400.0)
    await service.post(heartbeat("nas", eth0=(1, 1)) | {"hostname": SECRET})
    tokens: dict[str, str | None] = {"none": None, **await every_token(service, database)}
    document = (await service.http.get("/schema/openapi.json")).json()
    refusals: dict[str, set[str]] = {"401": set(), "403": set()}
    checked = 0

    for method, path, operation in operations(document):
        if not operation["security"]:
            continue
        (wanted,) = operation["security"][0]["key"]
        target = re.sub(r"{[^}]*}", "nas", path)
        # As a body something that is refused with 422 or 400 only after the token was looked at.
        body = b"{}" if "requestBody" in operation else None
        before = await counts(database)
        for name, token in tokens.items():
            where = f"{method} {path} with {name}"
            kind = name.removeprefix("other ")
            is_valid = kind in ALLOWED["read"] | ALLOWED["ingest"] | {"enrolment"}
            if is_valid and kind in ALLOWED[wanted]:
                continue
            answer = await send(service, method.upper(), target, token, body)

            assert answer.status_code == (403 if is_valid else 401), where
            assert answer.headers["content-type"] == "application/problem+json", where
            problem = answer.json()
            assert set(problem) == {"code", "status", "title", "detail"}, where
            assert problem["code"] == ("forbidden" if is_valid else "unauthorized"), where
            assert SECRET not in answer.text, where
            assert str(answer.status_code) in operation["responses"], where
            assert (answer.headers.get("www-authenticate") is None) == is_valid, where
            if token:
                assert token not in answer.text
            refusals[str(answer.status_code)].add(json.dumps(problem) if not is_valid else problem["title"])
            checked += 1
        assert await counts(database) == before, f"{method} {path} changed something"
        for name in ALLOWED[wanted]:
            answer = await send(service, method.upper(), re.sub(r"{[^}]*}", "nobodys", path), tokens[name], body)

            assert answer.status_code not in (401, 403), f"{method} {path} with {name}: {answer.text}"
            assert answer.status_code < 500, f"{method} {path} with {name}: {answer.text}"

    assert checked > 100
    assert len(refusals["401"]) == 1, "an unknown, a revoked, an expired and no token are told the same"


async def test_what_changes_something_asks_for_an_administrator_unless_it_is_listed_here(service: Client) -> None:
    document = (await service.http.get("/schema/openapi.json")).json()

    for method, path, operation in operations(document):
        if path in OPEN:
            assert operation["security"] == []
            continue
        (wanted,) = operation["security"][0]["key"]
        if method != "get":
            assert wanted == CHANGING.get((method, path), "admin"), f"{method} {path}"
        else:
            assert wanted in ("read", "admin"), f"{method} {path}"
        is_private = "/tokens" in path or path == "/api/v1/audit"
        assert (wanted == "admin") == ((method != "get" and (method, path) not in CHANGING) or is_private)
        assert {kind for kind, scopes in MAY.items() if wanted in scopes} == ALLOWED[wanted]


async def test_outside_the_document_nothing_is_open(service: Client) -> None:
    for path in ("/api/v1/nothing", "/api/v1/servers/nas/nothing"):
        assert (await send(service, "GET", path, None, None)).status_code == 404
    for method in ("OPTIONS", "PATCH", "PUT"):
        assert (await send(service, method, "/api/v1/servers", None, None)).status_code in (401, 405)
