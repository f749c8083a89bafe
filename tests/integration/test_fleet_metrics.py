"""/metrics/fleet: what Prometheus and Home Assistant scrape of the servers."""

from datetime import timedelta

import asyncpg
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.support import Client, heartbeat, interface


async def scraped(service: Client, **query: object) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and labels, read by Prometheus' own client."""
    answer = await service.http.get("/metrics/fleet", params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            place = found.setdefault(sample.name, {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in place, "a series stands there twice"
            place[labels] = sample.value
    return found


async def test_counters_and_state_of_every_server(service: Client, database: asyncpg.Connection) -> None:
    await service.post(
        heartbeat("nas") | {
            "network_interfaces": [
                interface("eth0", 2**64 - 1, 7, rx_errors=3, tx_dropped=0), interface("wlan0", 1, 2, is_up=False),
            ],
            "metrics": {"cpu_percent": 12.5}, "tags": ["site=home", "web"], "hostname": 'a"b\\c',
        }
    )  # fmt: skip
    await service.post(heartbeat("gone", eth0=(5, 5)) | {"metrics": {"cpu_percent": 1}})
    await database.execute(
        "UPDATE servers SET received_at = received_at - $1::interval WHERE server_id = 'gone'", timedelta(hours=1)
    )
    await service.http.put("/api/v1/servers/nas/labels", json={"display_name": "Attic"})

    found = await scraped(service)

    nas, gone = ("server", "nas"), ("server", "gone")
    eth0 = (("interface", "eth0"), nas)
    assert found["linkbeat_server_up"] == {(gone,): 0, (nas,): 1}
    assert found["linkbeat_interface_receive_bytes_total"] == {eth0: 2**64 - 1, (("interface", "wlan0"), nas): 1}
    assert (
        'linkbeat_interface_receive_bytes_total{server="nas",interface="eth0"} 18446744073709551615\n'
        in (await service.http.get("/metrics/fleet")).text
    ), "exact"
    assert found["linkbeat_interface_up"][(("interface", "wlan0"), nas)] == 0
    assert found["linkbeat_interface_receive_errors_total"] == {eth0: 3}, "what is not reported is left out"
    assert found["linkbeat_interface_transmit_dropped_total"] == {eth0: 0}
    assert found["linkbeat_server_cpu_percent"] == {(nas,): 12.5}, "not what a silent server last said"
    ((info, _),) = [one for one in found["linkbeat_server_info"].items() if nas in one[0]]
    assert dict(info)["hostname"] == 'a"b\\c'
    assert dict(info)["display_name"] == "Attic"
    assert set(found["linkbeat_server_tag"]) == {
        (("key", "site"), nas, ("value", "home")), (("key", "web"), nas, ("value", "")),
    }  # fmt: skip
    assert found["linkbeat_fleet_is_truncated"] == {(): 0}


async def test_what_fires_and_what_is_about_to(service: Client, database: asyncpg.Connection) -> None:
    for name in ("nas", "pi"):
        await service.post(heartbeat(name, eth0=(5, 5)))
    await database.execute(
        """
        INSERT INTO linkbeat.alerts
               (rule_id, server_id, subject, state, severity, active_at, fired_at, seen_at, episode)
        SELECT r.rule_id, 'nas', subject, state, 'warning', to_timestamp(1700000000.5), now(), now(), gen_random_uuid()
        FROM (SELECT min(rule_id) AS rule_id FROM linkbeat.alert_rules) r,
             (VALUES ('eth0', 'firing'), ('a"b', 'pending'), ('eth1', 'watched')) AS v(subject, state)
        """
    )
    rule = await database.fetchval("SELECT min(rule_id) FROM linkbeat.alert_rules")

    found = await scraped(service)

    assert found["linkbeat_server_alert_active_timestamp_seconds"] == {
        (
            ("alertname", rule),
            ("alertstate", state),
            ("server", "nas"),
            ("severity", "warning"),
            ("subject", subject),
        ): active
        for subject, state, active in (("eth0", "firing", 1700000000.5), ('a"b', "pending", 1700000000.5))
    }
    assert set(found["linkbeat_server_up"]) == {(("server", "nas"),), (("server", "pi"),)}


async def test_pages_by_tag_and_by_server(service: Client) -> None:
    for n in range(5):
        await service.post(heartbeat(f"s{n}", eth0=(1, 1)) | {"tags": [f"shard={n % 2}"]})

    even = await scraped(service, tag="shard=0")
    assert [dict(labels)["server"] for labels in even["linkbeat_server_up"]] == ["s0", "s2", "s4"]
    path, seen = "/metrics/fleet?limit=2", []
    while path:
        answer = await service.http.get(path)
        families = {one.name: one for one in text_string_to_metric_families(answer.text)}
        seen += [sample.labels["server"] for sample in families["linkbeat_server_up"].samples]
        link = answer.headers.get("link", "")
        assert families["linkbeat_fleet_is_truncated"].samples[0].value == bool(link)
        path = link.partition("<")[2].partition(">")[0]
    assert seen == [f"s{n}" for n in range(5)]
    first = await service.http.get("/metrics/fleet", params={"tag": "shard=0", "limit": 2})
    assert "tag=shard%3D0" in first.headers["link"]
    assert (await service.http.get("/metrics/fleet", params={"limit": 0})).status_code == 422


async def test_it_needs_a_token_that_may_read(service: Client) -> None:
    reader = (await service.http.post("/api/v1/tokens", json={"kind": "read"})).json()["token"]
    agent = (await service.http.post("/api/v1/tokens", json={"kind": "fleet"})).json()["token"]

    for token, status in ((reader, 200), (agent, 403), ("", 401)):
        answer = await service.http.get("/metrics/fleet", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status
