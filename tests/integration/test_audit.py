"""The audit log: every change by API, command and file has an entry, and nothing else has."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from service.access import command
from service.access.identity import scopes
from service.access.tokens import Hasher
from service.alerts import file
from service.app import create_app
from service.database import maintenance
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, heartbeat

pytestmark = pytest.mark.background

# Routes that change nothing that is stored, or are measurements and not management.
NOT_MANAGEMENT = {
    ("POST", "/sign-in"): "a browser's session; signing in is logged",
    ("POST", "/sign-out"): "a browser's session",
    ("POST", "/api/v1/pictures"): "signs a link and stores nothing",
    ("POST", "/api/v1/alert-rules/test"): "reads history and stores nothing",
    ("POST", "/api/v1/servers/{server_id}/links/preview"): "takes the link back that it makes",
    ("POST", "/api/v1/servers/{server_id}/succession/preview"): "takes the succession back that it makes",
}
CHANNEL = {"kind": "webhook", "url": "https://hooks.example.net/a-path-that-is-secret", "secret": "s3cr3t-of-the-hook"}
UNREACHABLE = CHANNEL | {"url": "http://127.0.0.1:9/x"}  # refused at once
# For each route that changes something: the requests that make it, and the action that it must write.
Requests = list[tuple[str, str, Any]]
CHANGES: dict[tuple[str, str], tuple[Requests, str, str]] = {
    ("POST", "/api/v1/tokens"): ([("POST", "/tokens", {"kind": "read", "name": "tv"})], "token.create", ""),
    ("DELETE", "/api/v1/tokens/{token_id}"): ([("DELETE", "/tokens/{token}", None)], "token.revoke", ""),
    ("POST", "/api/v1/enrolments"): ([("POST", "/enrolments", {"uses": 3})], "token.create", ""),
    ("POST", "/api/v1/servers"): ([("POST", "/servers", {"server_id": "new"})], "token.create", "new"),
    ("POST", "/api/v1/agents/enroll"): (
        [("POST", "/agents/enroll", {"server_id": "third", "hostname": "third"})], "token.create", "third",
    ),
    ("DELETE", "/api/v1/servers/{server_id}"): ([("DELETE", "/servers/nas", None)], "server.remove", "nas"),
    ("PUT", "/api/v1/servers/{server_id}/config"): (
        [("PUT", "/servers/nas/config", {"interval_seconds": 10})], "config.set", "nas",
    ),
    ("DELETE", "/api/v1/servers/{server_id}/config"): (
        [("PUT", "/servers/nas/config", {"paused": True}), ("DELETE", "/servers/nas/config", None)],
        "config.delete", "nas",
    ),
    ("PUT", "/api/v1/servers/{server_id}/quota"): ([("PUT", "/servers/nas/quota", {"bytes": 10})], "quota.set", "nas"),
    ("DELETE", "/api/v1/servers/{server_id}/quota"): (
        [("PUT", "/servers/nas/quota", {"bytes": 10}), ("DELETE", "/servers/nas/quota", None)], "quota.delete", "nas",
    ),
    ("PUT", "/api/v1/alert-rules/{rule_id}"): ([("PUT", "/alert-rules/r", {"kind": "silent"})], "alert-rule.set", ""),
    ("DELETE", "/api/v1/alert-rules/{rule_id}"): ([("DELETE", "/alert-rules/silent", None)], "alert-rule.delete", ""),
    ("PUT", "/api/v1/alert-channels/{channel_id}"): (
        [("PUT", "/alert-channels/ops", CHANNEL)], "alert-channel.set", "",
    ),
    ("DELETE", "/api/v1/alert-channels/{channel_id}"): (
        [("PUT", "/alert-channels/ops", CHANNEL), ("DELETE", "/alert-channels/ops", None)], "alert-channel.delete", "",
    ),
    ("POST", "/api/v1/alert-channels/{channel_id}/test"): (
        [("PUT", "/alert-channels/ops", UNREACHABLE), ("POST", "/alert-channels/ops/test", None)],
        "alert-channel.test", "",
    ),
    ("PUT", "/api/v1/alert-mutes/{mute_id}"): (
        [("PUT", "/alert-mutes/m", {"ends_at": "2199-01-01T00:00:00Z"})], "alert-mute.set", "",
    ),
    ("DELETE", "/api/v1/alert-mutes/{mute_id}"): (
        [("PUT", "/alert-mutes/m", {"ends_at": "2199-01-01T00:00:00Z"}), ("DELETE", "/alert-mutes/m", None)],
        "alert-mute.delete", "",
    ),
    ("PUT", "/api/v1/servers/{server_id}/labels"): (
        [("PUT", "/servers/nas/labels", {"display_name": "Attic", "tags": ["site=home"]})], "labels.set", "nas",
    ),
    ("PUT", "/api/v1/servers/{server_id}/interfaces/{name}/labels"): (
        [("PUT", "/servers/nas/interfaces/eth0/labels", {"display_name": "WAN"})], "interface-labels.set", "nas",
    ),
    ("PUT", "/api/v1/servers/{server_id}/interfaces/{name}/{number}/labels"): (
        [("PUT", "/servers/nas/interfaces/eth0/2/labels", {"display_name": "LAN"})], "interface-labels.set", "nas",
    ),
    ("PUT", "/api/v1/servers/{server_id}/aliases/{alias}"): (
        [("PUT", "/servers/nas/aliases/storage", None)], "alias.set", "nas",
    ),
    ("DELETE", "/api/v1/servers/{server_id}/aliases/{alias}"): (
        [("PUT", "/servers/nas/aliases/storage", None), ("DELETE", "/servers/nas/aliases/storage", None)],
        "alias.delete", "nas",
    ),
    ("POST", "/api/v1/servers/{server_id}/links"): (
        [("POST", "/servers/nas/links", {"interface": "lan", "into": "eth0", "sum": True})], "link.set", "nas",
    ),
    ("DELETE", "/api/v1/servers/{server_id}/links/{link_id}"): (
        [("DELETE", "/servers/nas/links/{link}", None)], "link.delete", "nas",
    ),
    ("PUT", "/api/v1/servers/{server_id}/succession"): (
        [("PUT", "/servers/nas/succession", {"predecessor": "pi", "since": "2025-01-01T00:00:00Z"})],
        "succession.set", "nas",
    ),
    ("DELETE", "/api/v1/servers/{server_id}/succession"): (
        [("PUT", "/servers/nas/succession", {"predecessor": "pi", "since": "2025-01-01T00:00:00Z"}),
         ("DELETE", "/servers/nas/succession", None)],
        "succession.delete", "nas",
    ),
    ("POST", "/api/v1/servers/{server_id}/report"): ([("POST", "/servers/nas/report", None)], "report.request", "nas"),
    ("POST", "/api/v1/alerts/{episode}/acknowledge"): (
        [("POST", "/alerts/{episode}/acknowledge", None)], "alert.acknowledge", "nas",
    ),
}  # fmt: skip


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, alert_private_addresses=True)


async def entries(service: Client, **query: Any) -> list[dict[str, Any]]:
    return list((await service.get("/audit", **query))["entries"])


def test_every_route_that_changes_something_is_tried_here(settings: Settings, database_server: str) -> None:
    routes = {one for one in scopes(create_app(settings, database_url=database_server, key=KEY)) if one[1] != "GET"}
    changing = {
        (method, path) for path, method in routes if method in ("POST", "PUT", "PATCH", "DELETE")
    } - NOT_MANAGEMENT.keys()

    assert changing == CHANGES.keys(), "a new route that changes something belongs into CHANGES"


async def _prepared(service: Client, database: asyncpg.Connection) -> Callable[[str], str]:
    """Fills in the paths of CHANGES."""
    await service.post(heartbeat("nas", eth0=(1, 1), lan=(1, 1), old=(1, 1)))
    await database.execute(
        "UPDATE servers SET interface_names = array_append(interface_names, 'eth0/2'), "
        'interfaces = interfaces || jsonb_populate_record(interfaces[1], \'{"interface_name": "eth0/2"}\') '
        "WHERE server_id = 'nas'"
    )
    await service.post(heartbeat("pi", eth0=(1, 1)))
    await database.execute(
        "DELETE FROM linkbeat.server_config; DELETE FROM linkbeat.quotas; DELETE FROM linkbeat.series_links; "
        "DELETE FROM linkbeat.successions; DELETE FROM linkbeat.interface_labels; "
        "DELETE FROM linkbeat.server_aliases"
    )
    link = await database.fetchval(
        "INSERT INTO linkbeat.series_links (server_id, series, into_series, is_sum) "
        "VALUES ('nas', 'old', 'eth0', true) RETURNING link_id::text"
    )
    token = (await service.http.post("/api/v1/tokens", json={"kind": "read"})).json()["id"]
    episode = await database.fetchval(
        "INSERT INTO linkbeat.alerts (rule_id, server_id, state, seen_at, active_at, fired_at, episode) "
        "VALUES ('account', 'nas', 'firing', now(), now(), now(), gen_random_uuid()) "
        "ON CONFLICT (rule_id, server_id, subject) DO UPDATE SET seen_at = now() RETURNING episode::text"
    )
    return lambda path: path.replace("{token}", token).replace("{episode}", episode).replace("{link}", link)


async def test_every_change_over_the_api_has_one_entry_with_its_maker_and_a_refused_one_has_none(
    service: Client, database: asyncpg.Connection
) -> None:
    reader = (await service.http.post("/api/v1/tokens", json={"kind": "read"})).json()["token"]
    for route, (requests, action, server_id) in CHANGES.items():
        target = await _prepared(service, database)
        for method, path, body in requests[:-1]:
            answer = await service.http.request(method, f"/api/v1{target(path)}", json=body)
            assert answer.status_code < 300, f"{route}: {answer.text}"
        method, path, body = requests[-1]
        path = f"/api/v1{target(path)}"
        before = await count(database)

        refused = await service.http.request(method, path, json=body, headers={"Authorization": f"Bearer {reader}"})
        assert refused.status_code == 403, route
        if body is not None:
            wrong = body | {"kind": 7, "bytes": -1, "server_id": "/", "uses": 0, "interval_seconds": 0, "ends_at": 0,
                            "tags": 0}  # fmt: skip
            assert (await service.http.request(method, path, json=wrong)).status_code == 422, route
        assert await count(database) == before, f"{route}: a refused change is in the log"

        # An entry that cannot be written undoes the change.
        await database.execute(UNWRITABLE)
        fingerprint = await state(database)
        failed = await service.http.request(method, path, json=body)
        assert failed.status_code >= 500, f"{route}: {failed.status_code} {failed.text}"
        assert await state(database) == fingerprint, f"{route}: changed something without an entry"
        await database.execute("ALTER TABLE linkbeat.audit_log DROP CONSTRAINT unwritable")

        answer = await service.http.request(method, path, json=body)
        assert answer.status_code < 300, f"{route}: {answer.text}"
        found = await entries(service)
        assert await count(database) == before + 1, f"{route}: {found[:3]}"
        assert (found[0]["action"], found[0]["server_id"]) == (action, server_id or None), route
        assert (found[0]["actor_kind"], found[0]["actor"], found[0]["token_id"]) == ("key", "the fleet key", None)
        assert found[0]["address"] == "127.0.0.1"
        assert abs(datetime.fromisoformat(found[0]["at"]) - datetime.now(UTC)) < timedelta(minutes=1)

    told = str(await entries(service, limit=1000))
    assert "s3cr3t" not in told
    assert "a-path-that-is-secret" not in told


UNWRITABLE = "ALTER TABLE linkbeat.audit_log ADD CONSTRAINT unwritable CHECK (entry < 0) NOT VALID"


async def count(database: asyncpg.Connection) -> int:
    return int(await database.fetchval("SELECT count(*) FROM linkbeat.audit_log"))


async def state(database: asyncpg.Connection) -> list[Any]:
    rows = "SELECT coalesce(sum(hashtextextended(to_jsonb(t)::text, 0)), 0) FROM linkbeat.{} t"
    return [
        await database.fetchval(rows.format(name))
        for name in ("tokens", "server_config", "quotas", "alert_rules", "alert_channels", "alert_mutes", "removals",
                     "alerts", "server_labels", "series_links", "successions",
                     "interface_labels", "server_aliases")
    ]  # fmt: skip


async def test_an_entry_has_what_changed_and_from_what_to_what(service: Client) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await service.http.put("/api/v1/servers/nas/config", json={"interval_seconds": 30, "paused": True})
    await service.http.put("/api/v1/servers/nas/config", json={"interval_seconds": 10, "paused": True})
    await service.http.put("/api/v1/servers/nas/config", json={"interval_seconds": 10, "paused": True})
    await service.http.delete("/api/v1/servers/nas/config")

    shown = [(one["action"], one["before"], one["after"]) for one in await entries(service, server="nas")]

    assert shown == [
        ("config.delete", {"interval_seconds": 10, "paused": True}, None),
        ("config.set", {"interval_seconds": 30}, {"interval_seconds": 10}),
        ("config.set", None, {"interval_seconds": 30, "paused": True}),
    ]


async def test_a_changed_secret_is_said_to_be_changed_and_never_shown(service: Client) -> None:
    for secret in ("s3cr3t-1-of-a-hook", "s3cr3t-2-of-a-hook"):
        answer = await service.http.put("/api/v1/alert-channels/ops", json=CHANNEL | {"secret": secret})
        assert answer.status_code == 200

    last, first = await entries(service, action="alert-channel")

    assert (last["before"], last["after"]) == ({}, {"secret": "set"})
    assert first["after"]["secret"] == "set"
    assert first["after"]["url"] == "https://hooks.example.net/…"


async def test_a_token_is_named_by_its_description_and_found_by_its_id(service: Client) -> None:
    made = (await service.http.post("/api/v1/tokens", json={"kind": "admin", "name": "laptop of Ada"})).json()
    await service.http.post(
        "/api/v1/tokens", json={"kind": "read"}, headers={"Authorization": f"Bearer {made['token']}"}
    )

    (found,) = await entries(service, actor=made["id"])

    assert (found["actor_kind"], found["token_id"]) == ("token", made["id"])
    assert found["actor"] == f"token {made['id']} (admin): laptop of Ada"
    assert await entries(service, actor="LAPTOP of") == [found]
    assert await entries(service, actor="nobody") == []


async def test_entries_are_filtered_by_kind_server_and_time_and_paged(service: Client) -> None:
    for n in range(5):
        await service.http.post("/api/v1/tokens", json={"kind": "server", "server_id": f"s{n}"})
    await service.http.delete("/api/v1/alert-rules/silent")

    assert len(await entries(service, action="token")) == 5
    assert len(await entries(service, action="token.create")) == 5
    assert await entries(service, action="tok") == []
    assert [one["server_id"] for one in await entries(service, server="s3")] == ["s3"]
    assert await entries(service, until="2020-01-01T00:00:00Z") == []
    pages, after = [], None
    while True:
        page = await service.get("/audit", limit=2, **({"after": after} if after else {}))
        pages.append([one["entry"] for one in page["entries"]])
        after = page["next"]
        if after is None:
            break
    assert [len(page) for page in pages] == [2, 2, 2]
    assert (numbers := [entry for page in pages for entry in page]) == sorted(numbers, reverse=True)
    assert (await service.http.get("/api/v1/audit", params={"after": "x"})).status_code == 422
    assert (await service.http.get("/api/v1/audit", params={"since": "yesterday"})).status_code == 422


async def test_a_command_a_file_and_a_login_have_entries(
    database: asyncpg.Connection, database_url: str, settings: Settings, tmp_path: Path, service: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LOGNAME", "ada")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    await command._run(database_url, Hasher(b"k" * 64), parser.parse_args(["create", "--kind", "read"]), lambda _: None)
    path = tmp_path / "alerts.toml"
    path.write_text('[rules.web]\nkind = "silent"\n')
    await file.apply(database, file.read(path, allows_private=False))
    await database.execute("DELETE FROM linkbeat.alert_rules WHERE rule_id = 'quota'")

    found = [(one["actor_kind"], one["actor"], one["action"], one["address"]) for one in await entries(service)]

    login = await database.fetchval("SELECT session_user")
    assert found == [
        ("database", login, "alert-rule.delete", None),
        ("file", str(path), "alert-rule.set", None),
        ("command", "ada", "token.create", None),
    ]


async def test_a_pooled_connection_does_not_carry_the_actor_to_the_next_change(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.http.post("/api/v1/tokens", json={"kind": "read"})
    await database.execute('SELECT linkbeat.act_as(\'{"kind": "command", "name": "somebody"}\')')
    await database.execute("DELETE FROM linkbeat.alert_rules WHERE rule_id = 'quota'")

    assert (await entries(service))[0]["actor_kind"] == "database"


async def test_removing_a_server_has_one_entry_and_its_erasure_none(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    for path, body in (("config", {"paused": True}), ("quota", {"bytes": 5})):
        await service.http.put(f"/api/v1/servers/nas/{path}", json=body)
    before = len(await entries(service))

    assert (await service.http.delete("/api/v1/servers/nas")).status_code == 204

    found = await entries(service)
    assert len(found) == before + 1
    assert found[0]["action"] == "server.remove"
    assert await database.fetchval("SELECT count(*) FROM linkbeat.server_config") == 0


async def test_old_entries_are_pruned_by_the_background_job(
    database: asyncpg.Connection, database_url: str, service: Client
) -> None:
    for _ in range(2):
        await service.http.post("/api/v1/tokens", json={"kind": "read"})
    await database.execute("UPDATE linkbeat.audit_log SET at = now() - INTERVAL '366 days' WHERE entry = 1")
    await database.execute("UPDATE linkbeat.maintenance SET last_start = NULL WHERE job = 'audit log'")

    while not await maintenance.maintain(database_url):
        pass

    assert [one["entry"] for one in await entries(service)] == [2]


async def test_analysts_read_the_view(database: asyncpg.Connection, service: Client) -> None:
    await service.http.post("/api/v1/tokens", json={"kind": "read"})
    await database.execute("SET ROLE analyst")

    rows = await database.fetch("SELECT action, after ->> 'kind' AS kind FROM audit_log")

    assert [tuple(row) for row in rows] == [("token.create", "read")]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute("INSERT INTO linkbeat.audit_log (actor_kind, actor, action) VALUES ('key', 'x', 'y')")


async def test_a_change_in_a_session_names_the_session(settings: Settings, database_url: str) -> None:
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as service:
        made = (await service.http.post("/api/v1/tokens", json={"kind": "admin", "name": "tv"})).json()
        answer = await service.http.post("/sign-in", json={"token": made["token"]})
        cookie = answer.headers["set-cookie"].partition(";")[0]
        del service.http.headers["Authorization"]
        changed = await service.http.post(
            "/api/v1/tokens", json={"kind": "read"}, headers={"Cookie": cookie, "Origin": "http://linkbeat"}
        )
        assert changed.status_code == 201, changed.text
        service.http.headers["Authorization"] = f"Bearer {KEY}"

        (found,) = await entries(service, actor=made["id"])

    assert found["actor_kind"] == "session"
