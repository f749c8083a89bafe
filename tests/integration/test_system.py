"""/api/v1/system/info, /health and /metrics, /metrics, and pages of other origins."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.alerts import set_channel
from tests.helpers.support import KEY, Client, heartbeat

pytestmark = pytest.mark.background

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


async def numbers(service: Client, path: str = "/metrics") -> dict[str, float]:
    answer = await service.http.get(path)
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_info_says_what_is_installed_and_how_much_there_is(service: Client, database: asyncpg.Connection) -> None:
    for server_id in ("nas", "pi"):
        await service.post(heartbeat(server_id, eth0=(1, 1), wlan0=(1, 1)))
    await service.post(heartbeat("nas", eth0=(1, 1)))

    info = await service.get("/system/info")

    assert info["edition"] == await database.fetchval("SELECT edition FROM linkbeat.installation")
    assert info["timescaledb_version"] == await database.fetchval(
        "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
    )
    assert (info["servers"], info["servers_online"], info["interfaces"]) == (2, 2, 4)
    assert info["retention_days"]["retain_raw_days"] == 14
    assert info["database_bytes"] > 1_000_000


async def test_health_names_each_job_and_what_is_wrong(service: Client, database: asyncpg.Connection) -> None:
    health = await service.get("/system/health")
    assert (health["database"], health["schema"], health["ingest"]) == ("ok", "ok", "ok")
    assert health["status"] in ("ok", "degraded")
    assert health["jobs"]

    await database.execute("UPDATE linkbeat.schema_version SET version_num = '9999'")
    failing = await service.http.get("/api/v1/system/health")
    assert (failing.status_code, failing.json()["status"]) == (503, "failing")
    assert failing.json()["schema"].startswith("at 9999, expected ")


async def test_metrics_count_what_happened(service: Client) -> None:
    beat = heartbeat("nas-of-mine", eth0=(1, 1)) | {"timestamp": None}
    beat.pop("timestamp")
    first = await service.post(heartbeat("nas-of-mine", eth0=(1, 1)))
    at = first["server_time"]
    for _ in range(2):
        await service.post(heartbeat("nas-of-mine", eth0=(1, 1)) | {"timestamp": at})
    await service.post_raw(b"{")
    await service.post_raw(b'{"server_id": "!", "hostname": "x"}')
    await service.post_batch([{"server_id": "!"}, heartbeat("pi")])
    for _ in range(3):
        await service.get("/metrics/sparkline/nas-of-mine/network")

    found = await numbers(service)

    assert found['linkbeat_heartbeats_total{result="stored"}'] == 3
    assert found['linkbeat_heartbeats_total{result="duplicate"}'] == 1
    assert found['linkbeat_heartbeats_rejected_total{reason="invalid_json"}'] == 1
    assert found['linkbeat_heartbeats_rejected_total{reason="invalid"}'] == 2
    assert found["linkbeat_ingest_seconds_count"] == 3
    assert found["linkbeat_ingest_batch_heartbeats_sum"] == 4
    assert found['linkbeat_answers_total{result="hits"}'] >= 1
    assert found["linkbeat_database_up"] == found["linkbeat_ingest_up"] == 1
    assert found["linkbeat_read_queries_total"] > 0
    assert found["process_resident_memory_bytes"] > 0
    assert sum(value for name, value in found.items() if name.startswith("linkbeat_jobs{")) > 0


async def test_metrics_count_alerts_by_rule_and_say_when_they_were_evaluated(
    service: Client, database: asyncpg.Connection
) -> None:
    await database.execute(
        "INSERT INTO linkbeat.alerts (rule_id, server_id, subject, state, seen_at, severity) VALUES "
        "('busy', 'nas', 'eth0', 'firing', now(), 'critical'), ('busy', 'pi', 'eth0', 'firing', now(), 'critical'), "
        "('busy', 'pi', 'eth1', 'pending', now(), 'critical'), ('busy', 'pi', 'eth2', 'watched', now(), 'critical')"
    )
    at = datetime.now(UTC) + timedelta(hours=1)  # no turn of the service is due before
    await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = $1, took = '250 ms'", at)

    found = await numbers(service)

    labels = 'alertname="busy",alertstate="{}",severity="critical"'
    alerts = {name: value for name, value in found.items() if name.startswith("linkbeat_alerts{")}
    assert {name: value for name, value in alerts.items() if "busy" in name} == {
        f"linkbeat_alerts{{{labels.format('firing')}}}": 2, f"linkbeat_alerts{{{labels.format('pending')}}}": 1,
    }  # fmt: skip
    assert found["linkbeat_alert_evaluation_seconds"] == 0.25
    assert found["linkbeat_alert_evaluated_timestamp_seconds"] == pytest.approx(at.timestamp())


async def test_metrics_say_how_many_messages_about_alerts_wait_or_were_given_up(
    service: Client, database: asyncpg.Connection
) -> None:
    await set_channel(database)
    await database.execute(
        "INSERT INTO linkbeat.outbox (channel_id, created_at, next_attempt_at, attempts, dead_at, delivered_at) "
        "SELECT 'ops', now() - age, now() + due_in, attempts, now() - dead, now() - delivered FROM (VALUES "
        "(INTERVAL '20 minutes', INTERVAL '1 hour', 3, NULL::interval, NULL::interval), "
        "('1 second', '1 hour', 0, NULL, NULL), ('2 days', '0', 9, '1 hour', NULL), "
        "('9 days', '0', 9, '2 days', NULL), ('3 days', '0', 1, NULL, '3 days')) "
        "AS o(age, due_in, attempts, dead, delivered)"
    )

    found = await numbers(service)

    assert (found["linkbeat_outbox_due"], found["linkbeat_outbox_given_up"]) == (1, 1)
    assert 1_200 <= found["linkbeat_outbox_oldest_seconds"] < 1_800
    await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = now()")
    ready = (await service.http.get("/health/ready")).json()
    assert ready["status"] == "ready"
    assert ready["alerts"] == "a message could not be delivered within the last day: see /api/v1/alert-messages"


async def test_metrics_go_on_saying_when_alerts_were_evaluated_while_the_database_is_away(
    service: Client, database: asyncpg.Connection
) -> None:
    await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = now() + INTERVAL '1 hour'")
    before = (await numbers(service))["linkbeat_alert_evaluated_timestamp_seconds"]

    await database.execute("ALTER TABLE linkbeat.alert_clock RENAME TO away")
    found = await numbers(service)

    assert found["linkbeat_alert_evaluated_timestamp_seconds"] == before
    assert "linkbeat_alert_evaluation_seconds" not in found


async def test_metrics_name_no_server_and_no_secret(service: Client, database_url: str) -> None:
    await service.post(heartbeat("nas-of-mine", eth0=(1, 1)))
    await service.get("/metrics/sparkline/nas-of-mine/network")

    text = (await service.http.get("/metrics")).text

    assert not [word for word in ("nas-of-mine", "eth0", KEY, database_url) if word in text]


async def test_metrics_are_open_metrics_where_that_is_asked_for(service: Client) -> None:
    for path in ("/metrics", "/api/v1/system/metrics"):
        answer = await service.http.get(path, headers={"Accept": OPEN_METRICS})

        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert answer.text.endswith("# EOF\n")
    plain = await service.http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    families = re.findall(r"^# TYPE (\S+)", plain.text, re.MULTILINE)
    assert len(families) == len(set(families))


@dataclass(frozen=True)
class Served:
    url: str
    settings: Settings

    def __call__(self, **changes: Any) -> Any:
        settings = msgspec.structs.replace(self.settings, **changes)
        return in_process(create_app(settings, database_url=self.url, key=KEY))


@pytest.fixture
def serving(database_url: str, settings: Settings) -> Served:
    return Served(database_url, settings)


async def test_metrics_need_a_key_unless_they_are_made_public(serving: Served) -> None:
    for public, status in ((False, 401), (True, 200)):
        async with serving(metrics_public=public) as service:
            for path, expected in (("/metrics", status), ("/api/v1/system/metrics", 401)):
                assert (await service.http.get(path, headers={"Authorization": ""})).status_code == expected


async def test_pages_of_named_origins_alone_may_read(serving: Served) -> None:
    ours, other = "https://dash.example.net", "https://evil.example.net"
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

    async with serving(cors_origins=(ours,)) as service:
        for origin, allowed in ((ours, ours), (other, None)):
            asked = await service.http.options(
                "/api/v1/servers", headers={"Origin": origin, "Authorization": ""} | preflight
            )
            read = await service.http.get("/api/v1/servers", headers={"Origin": origin})
            refused = await service.http.get("/api/v1/servers", headers={"Origin": origin, "Authorization": ""})

            assert asked.headers.get("access-control-allow-origin") == allowed
            assert read.headers.get("access-control-allow-origin") == allowed
            assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (401, allowed)
            assert "access-control-allow-credentials" not in read.headers
        beat = await service.http.post("/api/v1/agents/heartbeat", json=heartbeat(), headers={"Origin": ours})
        assert beat.status_code == 200
        assert "access-control-allow-origin" not in beat.headers
    async with serving() as service:
        read = await service.http.get("/api/v1/servers", headers={"Origin": ours})
        assert "access-control-allow-origin" not in read.headers


async def test_metrics_and_health_answer_while_the_database_is_away(
    service: Client, database: asyncpg.Connection, database_server: str
) -> None:
    name = await database.fetchval("SELECT current_database()")
    other = await asyncpg.connect(database_server)
    try:
        await other.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        await other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

        health = await service.http.get("/api/v1/system/health")
        found = await numbers(service)
        info = await service.http.get("/api/v1/system/info")
    finally:
        await other.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        await other.close()

    assert (health.status_code, health.json()["status"], health.json()["jobs"]) == (503, "failing", [])
    assert found["linkbeat_database_up"] == 0
    assert found["linkbeat_read_failures_total"] > 0
    assert (info.status_code, info.json()["code"]) == (503, "database_unavailable")
    assert info.headers["retry-after"]
