"""Rules, channels and mutes over REST: set, read, listed, removed; what is wrong is named, and no secret comes out."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.helpers.support import Client

pytestmark = pytest.mark.background

WEBHOOK = {"kind": "webhook", "url": "https://hooks.example.net:8443/T0/s3cret-path?s3cret", "secret": "s3cret-key"}
EMAIL = {
    "kind": "email", "host": "smtp.example.net", "sender": "linkbeat@example.net", "recipients": ["ops@example.net"],
    "username": "ops", "password": "s3cret-password",
}  # fmt: skip
APPRISE = {"kind": "apprise", "urls": ["ntfys://s3cret-topic", "https://ops:s3cret@discord.example/x"]}


async def put(service: Client, path: str, body: Any) -> httpx.Response:
    return await service.http.put(f"/api/v1{path}", json=body)


async def stored(service: Client, path: str, body: Any) -> dict[str, Any]:
    answer = await put(service, path, body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_rule_is_set_read_listed_replaced_and_removed(service: Client, database: asyncpg.Connection) -> None:
    first = await stored(service, "/alert-rules/web", {"kind": "silent", "scope": {"servers": ["web-*"]}})
    busy = await stored(
        service, "/alert-rules/busy", {"kind": "rate", "above_bps": 1e9, "for_seconds": 300, "note": "Ä\n"}
    )
    second = await stored(service, "/alert-rules/web", {"kind": "silent", "after_seconds": 600, "severity": "critical"})

    assert (first["scope"], first["revision"]) == ({"servers": ["web-*"]}, 1)
    assert (second["scope"], second["revision"], second["after_seconds"]) == ({}, 2, 600)
    assert second == await service.get("/alert-rules/web")
    assert (busy["above_bps"], busy["direction"], busy["window_seconds"], busy["note"]) == (1e9, "max", 300, "Ä\n")
    assert (busy["managed_by"], busy["channels"], busy["flaps"]) == ("api", None, None)
    listed = await service.get("/alert-rules", limit=3)
    rest = await service.get("/alert-rules", limit=100, after=listed["next"])
    ids = [one["id"] for one in listed["rules"] + rest["rules"]]
    assert ids == sorted(set(ids))
    assert {"busy", "web", "silent", "filesystem"} <= set(ids)
    spec = await database.fetchval("SELECT spec::text FROM linkbeat.alert_rules WHERE rule_id = 'web'")
    assert spec == '{"after_seconds": 600}'
    assert (await service.http.delete("/api/v1/alert-rules/web")).status_code == 204
    assert (await service.http.delete("/api/v1/alert-rules/web")).json()["code"] == "not_found"
    assert (await service.http.get("/api/v1/alert-rules/web")).status_code == 404


async def test_of_two_changes_of_a_rule_the_second_is_refused(service: Client) -> None:
    path = "/api/v1/alert-rules/busy"

    async def send(method: str, condition: dict[str, str], **spec: Any) -> httpx.Response:
        if method == "DELETE":
            return await service.http.delete(path, headers=condition)
        body: dict[str, Any] = {"kind": "rate", "above_bps": 1e9, **spec}
        return await service.http.put(path, json=body, headers=condition)

    made = await send("PUT", {"If-None-Match": "*"})
    assert made.status_code == 200
    assert (await send("PUT", {"If-None-Match": "*"}, above_bps=5)).json()["code"] == "changed"
    seen = {"If-Match": made.headers["ETag"]}
    assert (await service.http.get(path)).headers["ETag"] == made.headers["ETag"]
    assert (await send("PUT", seen)).headers["ETag"] == made.headers["ETag"]  # the same again

    changed = await send("PUT", seen, severity="critical")
    assert changed.status_code == 200
    for method in ("PUT", "DELETE"):
        refused = await send(method, seen, above_bps=7)
        assert (refused.status_code, refused.json()["code"]) == (412, "changed")
    kept = await service.get("/alert-rules/busy")
    assert (kept["severity"], kept["above_bps"]) == ("critical", 1e9)
    assert (await send("DELETE", {"If-Match": changed.headers["ETag"]})).status_code == 204
    assert (await send("DELETE", {"If-Match": "never an ETag"})).json()["errors"][0]["path"] == "If-Match"


async def test_a_preset_that_is_changed_is_one_no_longer(service: Client) -> None:
    presets = {one["id"]: one for one in (await service.get("/alert-rules"))["rules"]}

    changed = await stored(service, "/alert-rules/silent", {"kind": "silent", "enabled": False})

    assert {one["managed_by"] for one in presets.values()} == {"preset"}
    assert presets["quota"]["percent"] == [80.0, 100.0]
    assert (changed["managed_by"], changed["enabled"]) == ("api", False)


KINDS: list[dict[str, Any]] = [
    {"kind": "silent", "after_seconds": 120, "keep_seconds": 0},
    {"kind": "link", "down_seconds": 0, "flaps": 6, "window_seconds": 3600, "scope": {"kinds": ["physical"]}},
    {
        "kind": "rate",
        "direction": "sum",
        "below_percent": 1.5,
        "clear_percent": 50,
        "scope": {"interfaces": ["e*"]},
    },
    {"kind": "quota", "percent": [50, 100.5], "forecast": False},
    {"kind": "filesystem", "below_bytes": 10**12, "full_within_hours": 0.5, "scope": {"interfaces": ["/data*"]}},
    {"kind": "errors", "count": 1, "percent": 0, "packets": 0},
    {"kind": "account", "resets": 3, "repeat_seconds": 3600, "runbook": "https://wiki.example.net/resets"},
    {"kind": "agent", "channels": []},
]


async def test_every_kind_keeps_what_it_is_told(service: Client, database: asyncpg.Connection) -> None:
    for rule in KINDS:
        answer = await stored(service, "/alert-rules/one", rule)

        assert {name: answer[name] for name in rule} == rule
        # As the database takes it apart for a turn.
        assert await database.fetchval("SELECT count(*) FROM linkbeat.alert_plans WHERE rule_id = 'one'") == 1
        await database.fetch("SELECT linkbeat.evaluate_alerts(clock_timestamp(), INTERVAL '0')")


WRONG_RULES: list[tuple[dict[str, Any], str]] = [
    ({}, "kind"),
    ({"kind": "sql"}, "kind"),
    ({"kind": 1}, "kind"),
    ({"kind": "silent", "after_seconds": 1}, "after_seconds"),
    ({"kind": "silent", "after_seconds": "60"}, "after_seconds"),
    ({"kind": "silent", "flaps": 4}, "flaps"),
    ({"kind": "silent", "severity": "fatal"}, "severity"),
    ({"kind": "silent", "scope": {"servers": []}}, "scope.servers"),
    ({"kind": "silent", "scope": {"servers": ["a\0"]}}, "scope.servers[0]"),
    ({"kind": "silent", "scope": {"interfaces": ["eth0"]}}, "scope.interfaces"),
    ({"kind": "filesystem", "scope": {"kinds": ["bridge"]}}, "scope.kinds"),
    ({"kind": "silent", "scope": {"groups": ["x"]}}, "scope.groups"),
    ({"kind": "silent", "scope": {"servers": ["[z-a]"]}}, "scope"),
    ({"kind": "silent", "channels": ["nowhere"]}, "channels[0]"),
    ({"kind": "silent", "channels": ["a b"]}, "channels[0]"),
    ({"kind": "silent", "runbook": "javascript:alert(1)"}, "runbook"),
    ({"kind": "silent", "note": "a\0"}, "note"),
    ({"kind": "silent", "for_seconds": -1}, "for_seconds"),
    ({"kind": "silent", "repeat_seconds": 5}, "repeat_seconds"),
    ({"kind": "rate"}, "above_bps"),
    ({"kind": "rate", "above_bps": 1, "below_percent": 1}, "below_percent"),
    ({"kind": "rate", "above_bps": 0}, "above_bps"),
    ({"kind": "rate", "above_percent": 101}, "above_percent"),
    ({"kind": "rate", "above_bps": 1, "window_seconds": 86_400}, "window_seconds"),
    ({"kind": "quota", "percent": []}, "percent"),
    ({"kind": "quota", "percent": [0]}, "percent[0]"),
    ({"kind": "filesystem", "below_bytes": 1.5}, "below_bytes"),
    ({"kind": "errors", "count": 0}, "count"),
]


async def test_what_is_wrong_with_a_rule_is_named_and_nothing_is_set(service: Client) -> None:
    for rule, field in WRONG_RULES:
        for path in ("/alert-rules/one", "/alert-rules/test"):
            method = "PUT" if path.endswith("one") else "POST"
            answer = await service.http.request(method, f"/api/v1{path}", json=rule)
            if path.endswith("test") and field.startswith("channels") and "a b" not in rule["channels"]:
                continue  # nobody is told of a test

            assert answer.status_code == 422, answer.text
            assert field in [error["path"] for error in answer.json()["errors"]], answer.text
    assert (await service.http.get("/api/v1/alert-rules/one")).status_code == 404


async def test_a_name_that_cannot_be_one_is_refused(service: Client) -> None:
    for name in ["a b", "%2e%2e", "x" * 101, "a%00b", "ä", "test"]:
        answer = await put(service, f"/alert-rules/{name}", {"kind": "silent"})
        assert answer.status_code in (404, 405, 422), answer.text  # of .. a client makes another path

    assert (await put(service, "/alert-channels/a b", WEBHOOK)).status_code == 422
    assert (await put(service, "/alert-mutes/a b", {"ends_at": "2100-01-01T00:00:00Z"})).status_code == 422


async def test_a_rule_cannot_name_a_ping(service: Client) -> None:
    await stored(service, "/alert-channels/hc", {"kind": "ping", "url": "https://hc.example.net/s3cret"})

    answer = await put(service, "/alert-rules/one", {"kind": "silent", "channels": ["hc"]})

    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "channels[0]")


async def test_a_channels_secrets_go_in_and_never_out(
    service: Client, database: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for channel in (WEBHOOK, EMAIL, APPRISE):
        await check_secrets(service, database, channel, caplog)


async def check_secrets(
    service: Client, database: asyncpg.Connection, channel: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    answers = [(await put(service, "/alert-channels/ops", channel)).text]
    answers += [(await service.http.get(f"/api/v1{path}")).text for path in
                ("/alert-channels", "/alert-channels/ops", "/alert-messages", "/alert-rules", "/alerts")]  # fmt: skip
    wrong = await put(service, "/alert-channels/ops", channel | {"no_field": 1, "min_severity": "s"})
    answers += [wrong.text, (await put(service, "/alert-channels/ops", channel | {"time_zone": "s3cr"})).text]
    views = await database.fetch("SELECT * FROM alert_messages") + await database.fetch("SELECT * FROM alert_rules")

    assert wrong.status_code == 422
    assert [text for text in answers if "s3cret" in text] == []
    assert "s3cret" not in caplog.text
    assert "s3cret" not in str(views)
    assert b"s3cret" in await database.fetchval("SELECT secret FROM linkbeat.alert_channels")
    assert "s3cret" not in await database.fetchval("SELECT spec::text FROM linkbeat.alert_channels")
    for role in ("linkbeat_read", "analyst"):
        await database.execute(f"SET ROLE {role}")
        for secret in ("SELECT secret FROM linkbeat.alert_channels", "SELECT linkbeat.alert_channel_secrets()"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await database.fetch(secret)
        await database.execute("RESET ROLE")


async def test_what_is_shown_of_a_channel_can_be_sent_back_and_keeps_the_secrets(
    service: Client, database: asyncpg.Connection
) -> None:
    shown = await stored(service, "/alert-channels/ops", WEBHOOK | {"min_severity": "warning"})
    before = await database.fetchval("SELECT secret FROM linkbeat.alert_channels")

    again = {name: shown[name] for name in ("kind", "url", "min_severity", "sends_late", "enabled")}
    changed = await stored(service, "/alert-channels/ops", again | {"digest_seconds": 600})

    assert (shown["url"], shown["has_secret"]) == ("https://hooks.example.net:8443/…", True)
    assert changed == shown | {"digest_seconds": 600}
    assert await database.fetchval("SELECT secret FROM linkbeat.alert_channels") == before
    unsigned = await stored(service, "/alert-channels/ops", again | {"secret": ""})
    assert unsigned["has_secret"] is False
    other = await put(service, "/alert-channels/ops", {"kind": "webhook", "url": "https://evil.example/…"})
    assert (other.status_code, other.json()["errors"][0]["path"]) == (422, "url")


async def test_of_several_urls_each_that_is_shown_keeps_its_own(service: Client, database: asyncpg.Connection) -> None:
    urls = [f"https://am.example.net/s3cret-{n}" for n in range(3)]
    shown = await stored(service, "/alert-channels/am", {"kind": "alertmanager", "urls": urls})

    new = [*shown["urls"], "https://am4.example.net"]
    await stored(service, "/alert-channels/am", {"kind": "alertmanager", "urls": new})

    assert shown["urls"] == ["https://am.example.net/…"] * 3
    secret = await database.fetchval(
        "SELECT convert_from(secret, 'UTF8')::jsonb -> 'urls' FROM linkbeat.alert_channels"
    )
    assert [re.search(r"s3cret-\d|am4", one)[0] for one in eval(secret)] == [  # type: ignore[index]  # noqa: S307 - it is there
        "s3cret-0", "s3cret-1", "s3cret-2", "am4",
    ]  # fmt: skip


async def test_a_stored_password_is_not_sent_to_another_server(service: Client, database: asyncpg.Connection) -> None:
    kept = {name: value for name, value in EMAIL.items() if name != "password"}
    changes: list[dict[str, Any]] = [{"host": "evil.example"}, {"username": "root"}, {"port": 25}, {"security": "none"}]
    for change in changes:
        await stored(service, "/alert-channels/mail", EMAIL)

        same = await stored(service, "/alert-channels/mail", kept | {"recipients": ["boss@example.net"]})
        moved = await stored(service, "/alert-channels/mail", kept | change)

        assert (same["has_password"], moved["has_password"]) == (True, False)
        assert b"s3cret" not in await database.fetchval("SELECT secret FROM linkbeat.alert_channels")


WRONG_CHANNELS: list[tuple[dict[str, Any], str]] = [
    ({}, "kind"),
    ({"kind": "slack"}, "kind"),
    ({"kind": "webhook"}, "url"),
    ({"kind": "webhook", "url": "ftp://x/"}, "url"),
    ({"kind": "webhook", "url": "https://"}, "url"),
    ({"kind": "webhook", "url": "https://x:99999/"}, "url"),
    ({"kind": "webhook", "url": "https://x/\r\nHost: y"}, "url"),
    ({"kind": "webhook", "url": "https://[::1"}, "url"),
    ({"kind": "webhook", "url": "http://127.0.0.1:9093/"}, "url"),
    ({"kind": "webhook", "url": "http://2130706433/"}, "url"),
    ({"kind": "ping", "url": "http://[::ffff:10.0.0.1]/"}, "url"),
    ({"kind": "ping", "url": "http://169.254.169.254/latest"}, "url"),
    ({"kind": "alertmanager", "urls": []}, "urls"),
    ({"kind": "alertmanager", "urls": ["https://x", "http://10.1.2.3:9093"]}, "urls[1]"),
    ({"kind": "apprise", "urls": ["no url"]}, "urls[0]"),
    (EMAIL | {"recipients": []}, "recipients"),
    (EMAIL | {"recipients": ["a@b\nBcc: c@d"]}, "recipients[0]"),
    (EMAIL | {"sender": "nobody"}, "sender"),
    (EMAIL | {"host": "192.168.1.2"}, "host"),
    (EMAIL | {"host": "a b"}, "host"),
    (EMAIL | {"security": "ssl"}, "security"),
    (EMAIL | {"digest_seconds": 0}, "digest_seconds"),
    (WEBHOOK | {"time_zone": "CET+1"}, "time_zone"),
    (WEBHOOK | {"time_zone": "\0"}, "time_zone"),
    (WEBHOOK | {"min_severity": "low"}, "min_severity"),
]


async def test_what_is_wrong_with_a_channel_is_named_and_nothing_is_set(service: Client) -> None:
    for channel, field in WRONG_CHANNELS:
        answer = await put(service, "/alert-channels/ops", channel)

        assert answer.status_code == 422, answer.text
        assert field in [error["path"] for error in answer.json()["errors"]], answer.text
    assert (await service.get("/alert-channels"))["channels"] == []


async def test_a_channel_that_is_not_there_is_404(service: Client) -> None:
    for answer in (
        await service.http.get("/api/v1/alert-channels/x"),
        await service.http.delete("/api/v1/alert-channels/x"),
        await service.http.post("/api/v1/alert-channels/x/test"),
        await service.http.get("/api/v1/alert-mutes/x"),
        await service.http.delete("/api/v1/alert-mutes/x"),
        await service.http.post("/api/v1/alerts/x/acknowledge"),
        await service.http.post("/api/v1/alerts/6f1c9a52-7d2e-4c7e-9a55-3f3a0a1f9b10/acknowledge"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_what_a_file_manages_is_read_only(service: Client, database: asyncpg.Connection) -> None:
    await stored(service, "/alert-rules/one", {"kind": "silent"})
    await stored(service, "/alert-channels/ops", WEBHOOK)
    await database.execute("UPDATE linkbeat.alert_rules SET managed_by = 'file' WHERE rule_id = 'one'")
    await database.execute("UPDATE linkbeat.alert_channels SET managed_by = 'file'")

    answers = [
        await put(service, "/alert-rules/one", {"kind": "agent"}),
        await service.http.delete("/api/v1/alert-rules/one"),
        await put(service, "/alert-channels/ops", EMAIL),
        await service.http.delete("/api/v1/alert-channels/ops"),
    ]

    assert [(one.status_code, one.json()["code"]) for one in answers] == [(409, "managed_by_file")] * 4
    assert (await service.get("/alert-rules/one"))["kind"] == "silent"
    assert (await service.get("/alert-channels/ops"))["kind"] == "webhook"


async def test_a_mute_is_set_read_listed_and_removed(service: Client) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    now = await stored(service, "/alert-mutes/now", {"ends_at": until, "matcher": {"servers": ["web-*"]}})
    night = await stored(
        service,
        "/alert-mutes/night",
        {
            "weekly": {"from": "22:00", "until": "06:00", "days": [1, 7]},
            "time_zone": "Europe/Berlin",
            "comment": "Schlaf",
        },
    )

    assert (now["is_on"], now["matcher"], now["weekly"], now["created_by"]) == (
        True, {"servers": ["web-*"]}, None, "the fleet key",
    )  # fmt: skip
    assert night["weekly"] == {"from": "22:00", "until": "06:00", "days": [1, 7]}
    assert (night["time_zone"], night["comment"]) == ("Europe/Berlin", "Schlaf")
    listed = await service.get("/alert-mutes", limit=1)
    assert ([one["id"] for one in listed["mutes"]], listed["next"]) == (["night"], "night")
    assert (await service.get("/alert-mutes", after="night"))["mutes"] == [now]
    assert (await service.http.delete("/api/v1/alert-mutes/now")).status_code == 204
    assert (await service.http.get("/api/v1/alert-mutes/now")).status_code == 404


WRONG_MUTES: list[tuple[dict[str, Any], str]] = [
    ({}, "ends_at"),
    ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
    ({"ends_at": "2050-01-01T00:00:00"}, "ends_at"),
    ({"ends_at": "9999-12-31T23:59:59-14:00"}, "ends_at"),
    ({"ends_at": "2050-01-01T00:00:00Z", "starts_at": "2050-01-01T00:00:00Z"}, "ends_at"),
    ({"weekly": {"from": "22:00"}}, "weekly.until"),
    ({"weekly": {"from": "24:00", "until": "06:00"}}, "weekly.from"),
    ({"weekly": {"from": "22:00", "until": "22:00"}}, "weekly.until"),
    ({"weekly": {"from": "22:00", "until": "06:00", "days": [0]}}, "weekly.days[0]"),
    ({"weekly": {"from": "22:00", "until": "06:00"}, "time_zone": "Mars/Phobos"}, "time_zone"),
    ({"weekly": {"from": "22:00", "until": "06:00"}, "matcher": {"rules": ["[b-a]"]}}, "matcher"),
    ({"weekly": {"from": "22:00", "until": "06:00"}, "matcher": {"interfaces": ["x"]}}, "matcher.interfaces"),
]


async def test_what_is_wrong_with_a_mute_is_named_and_nothing_is_set(service: Client) -> None:
    for mute, field in WRONG_MUTES:
        answer = await put(service, "/alert-mutes/one", mute)

        assert answer.status_code == 422, answer.text
        assert field in [error["path"] for error in answer.json()["errors"]], answer.text
    assert (await service.get("/alert-mutes"))["mutes"] == []


async def test_a_cursor_that_was_made_up_is_refused(service: Client) -> None:
    for path, parameter in (("/alerts", "after"), ("/alerts/events", "cursor"), ("/alert-messages", "after")):
        for made_up in ("x", "W10=", "WzFlMzAwXQ==", "WyIyMDI2LTAxLTAxVDAwOjAwOjAwIiwieCJd"):
            answer = await service.http.get(f"/api/v1{path}", params={parameter: made_up})
            assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, parameter), answer.text
