"""A file of rules and channels: applied at the start, at SIGHUP and by command; twice changes nothing (A25)."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from service.alerts import file
from service.settings import SettingsError
from tests.e2e.conftest import REPOSITORY, serving
from tests.helpers.support import KEY

FILE = """
[channels.ops]
kind = "webhook"
url = "https://hooks.example.net/s3cret-path"
secret_file = "{secret}"

[channels."mail.ops"]
kind = "email"
host = "smtp.example.net"
sender = "linkbeat@example.net"
recipients = ["ops@example.net"]
time_zone = "Europe/Berlin"
digest_seconds = 60

[rules.web-silent]
kind = "silent"
severity = "critical"
channels = ["ops", "mail.ops"]
scope = {{ servers = ["web-*"] }}

[rules.busy]
kind = "rate"
above_bps = 9e8
for_seconds = 300
"""


@pytest.fixture
def alerts_file(tmp_path: Path) -> Path:
    secret = tmp_path / "secret"
    secret.write_text("s3cret-key\n")
    path = tmp_path / "alerts.toml"
    path.write_text(FILE.format(secret=secret))
    return path


def without_busy(path: Path) -> None:
    path.write_text(path.read_text().split("[rules.busy]")[0])


async def snapshot(database: asyncpg.Connection) -> list[Any]:
    return [
        await database.fetch(f"SELECT t.*, xmin::text FROM linkbeat.{table} t ORDER BY 1")
        for table in ("alert_rules", "alert_channels", "alerts")
    ]


async def test_a_file_is_applied_again_without_a_change_and_what_leaves_it_is_closed(
    database: asyncpg.Connection, alerts_file: Path
) -> None:
    first = await file.apply(database, file.read(alerts_file, allows_private=False))
    await database.execute(
        "INSERT INTO linkbeat.alerts (rule_id, server_id, state, seen_at, active_at, fired_at, episode, sequence, "
        "severity, told_at) "
        "SELECT rule_id, 'web-1', 'firing', now(), now(), now(), gen_random_uuid(), 1, 'critical', now() "
        "FROM unnest(ARRAY['web-silent', 'busy']) AS rule_id"
    )
    before = await snapshot(database)

    again = await file.apply(database, file.read(alerts_file, allows_private=False))

    assert [str(one) for one in first] == [
        "add channel mail.ops", "add channel ops", "add rule busy", "add rule web-silent",
    ]  # fmt: skip
    assert (again, await snapshot(database)) == ([], before)
    assert await database.fetchval("SELECT secret FROM linkbeat.alert_channels WHERE channel_id = 'ops'") == (
        b'{"secret":"s3cret-key","url":"https://hooks.example.net/s3cret-path"}'
    )

    without_busy(alerts_file)
    gone = await file.apply(database, file.read(alerts_file, allows_private=False))
    await database.fetch("SELECT linkbeat.evaluate_alerts($1)", datetime.now(UTC))

    assert [str(one) for one in gone] == ["delete rule busy"]
    events = await database.fetch("SELECT rule_id, to_state, reason FROM alert_events WHERE to_state = 'closed'")
    assert [tuple(row) for row in events if row["rule_id"] == "busy"] == [("busy", "closed", "rule_removed")]
    assert await database.fetchval("SELECT count(*) FROM linkbeat.alert_rules WHERE managed_by = 'preset'") == 5


async def test_what_the_api_had_set_is_taken_over_and_an_export_applied_changes_nothing(
    database: asyncpg.Connection, alerts_file: Path, tmp_path: Path
) -> None:
    await database.execute("SELECT linkbeat.set_alert_rule('busy', 'agent', '{}')")

    made = await file.changes(database, file.read(alerts_file, allows_private=False))
    await file.apply(database, file.read(alerts_file, allows_private=False))
    exported = await file.export(database)

    assert "take over rule busy" in [str(one) for one in made]
    assert "s3cret" not in exported
    secrets = {"url": "https://hooks.example.net/s3cret-path", "secret": "s3cret-key"}
    for name, secret in secrets.items():
        (tmp_path / name).write_text(secret)
        exported = exported.replace(f'{name}_file = ""', f'{name}_file = "{tmp_path / name}"')
    copy = tmp_path / "copy.toml"
    copy.write_text(exported)
    parsed = file.read(copy, allows_private=False)
    assert set(parsed.rules) == {"busy", "web-silent", "silent", "filesystem", "account", "agent", "quota"}
    taken = [str(one) for one in await file.changes(database, parsed)]
    assert [one for one in taken if not one.startswith("take over rule")] == []


WRONG = [
    ("x = 1", "x: unknown table; expected the tables rules and channels"),
    ("[rules.a]\nkind = 'silent'\n[rules.a]", "Cannot declare"),
    ("rules = 1", "rules: expected tables"),
    ("[rules]\na = 1", "rules.a: expected a table"),
    ("[rules.a]", "rules.a: kind: is missing"),
    ("[rules.a]\nkind = 'silence'", "rules.a: kind: expected one of silent"),
    ("[rules.a]\nkind = 'silent'\nafter = 5", "rules.a: after: is not known"),
    ("[rules.a]\nkind = 'silent'\nafter_seconds = 2026-01-01", "rules.a: after_seconds: expected int"),
    ("[rules.'a b']\nkind = 'silent'", "rules.a b: name: expected"),
    ("[rules.test]\nkind = 'silent'", "rules.test: name: is reserved"),
    ("[rules.a]\nkind = 'rate'", "rules.a: above_bps: expected exactly one"),
    (
        "[channels.a]\nkind = 'webhook'\nurl = 'http://127.0.0.1/s3cret'",
        "channels.a: url: 127.0.0.1 is an address inside",
    ),
    (
        "[channels.a]\nkind = 'webhook'\nurl_file = '/nonexistent/s'",
        "channels.a: url_file: /nonexistent/s: No such file",
    ),
    ("[channels.a]\nkind = 'webhook'\nurl_file = 'relative'", "channels.a: url_file: expected an absolute path"),
    (
        "[channels.a]\nkind = 'webhook'\nurl = 's3cret'\nurl_file = '/x'",
        "channels.a: url_file: cannot be combined with url",
    ),
    ("[channels.a]\nkind = 'webhook'\nurl = 's3cret'", "channels.a: url: "),
    ("[rules.a]\nkind = 'silent'\nchannels = ['nowhere']", "rules.a: channels[0]: there is no channel 'nowhere'"),
    ("[rules.a]\nkind = 'silent'\nscope.servers = ['[z-a]']", "an invalid [range]"),
    (
        "[channels.a]\nkind = 'webhook'\nurl = 'https://x/'\ntime_zone = 'Mars'",
        "channels.a: time_zone: expected an IANA",
    ),
]


async def test_what_is_wrong_with_a_file_is_named_and_nothing_is_applied(
    database: asyncpg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "alerts.toml"
    before = await snapshot(database)
    for text, says in WRONG:
        path.write_text(text)

        with pytest.raises(SettingsError, match=re.escape(says)) as raised:
            await file.apply(database, file.read(path, allows_private=False))

        assert "s3cret" not in str(raised.value)
        assert await snapshot(database) == before
    for content in (b"\xff", b"a = " + b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=re.escape(str(path))):
            file.read(path, allows_private=False)
    with pytest.raises(SettingsError, match="No such file"):
        file.read(tmp_path / "none.toml", allows_private=False)


def command(database_url: str, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    ours = {"LINKBEAT_DATABASE_URL": database_url, "LINKBEAT_DATA_DIR": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "service", "alerts", *arguments],
        cwd=REPOSITORY, env=kept | ours, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_and_the_service_apply_a_file_and_sighup_reads_it_again(
    database_url: str, alerts_file: Path, tmp_path: Path
) -> None:
    dry = command(database_url, tmp_path, "apply", "--dry-run", str(alerts_file))
    assert (dry.returncode, dry.stdout) == (0, ""), dry.stderr
    assert "would add rule busy\n" in dry.stderr
    assert "busy" not in command(database_url, tmp_path, "export").stdout

    with (
        serving(database_url, tmp_path, ALERTS_FILE=str(alerts_file)) as service,
        httpx.Client(base_url=service.url, trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as http,
    ):
        assert http.get("/api/v1/alert-rules/busy").json()["managed_by"] == "file"
        assert http.delete("/api/v1/alert-rules/busy").status_code == 409
        applied = command(database_url, tmp_path, "apply", str(alerts_file))
        assert (applied.returncode, applied.stderr) == (0, "nothing to change\n")

        alerts_file.write_text(alerts_file.read_text().replace("for_seconds = 300", "for_seconds = 'x'"))
        service.process.send_signal(signal.SIGHUP)
        service.await_log("rules.busy: for_seconds: expected int, got str; alert rules and channels are unchanged")
        assert http.get("/api/v1/alert-rules/busy").json()["for_seconds"] == 300
        alerts_file.write_text(alerts_file.read_text().replace("for_seconds = 'x'", "for_seconds = 600"))
        service.process.send_signal(signal.SIGHUP)
        service.await_log("change rule busy")
        assert http.get("/api/v1/alert-rules/busy").json()["for_seconds"] == 600
        assert "s3cret" not in service.log

    exported = command(database_url, tmp_path, "export")
    assert tomllib.loads(exported.stdout)["rules"]["busy"]["for_seconds"] == 600
    alerts_file.write_text("[rules.a]")
    wrong = command(database_url, tmp_path, "apply", str(alerts_file))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == f"linkbeat: {alerts_file}: rules.a: kind: is missing\n"
