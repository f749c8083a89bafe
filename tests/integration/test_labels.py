"""Display names and tags of servers, whoever set them, and all that selects and adds up by them."""

import csv
import io
import json
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.helpers.alerts import MEGABIT, backtest, begin, listen, samples, set_rule, states, store, turn, turns
from tests.helpers.support import Client, heartbeat, hours_ago

TAGS = {"web-1": ["role=web", "site=home"], "web-2": ["role=web", "edge"], "db": ["role=db"], "nas": []}


async def put(service: Client, server_id: str, labels: dict[str, Any], **headers: str) -> httpx.Response:
    return await service.http.put(f"/api/v1/servers/{server_id}/labels", json=labels, headers=headers)


async def tagged_fleet(service: Client) -> datetime:
    """Four servers, each with its tags and 1,000 octets more than the one before; returns the time of their traffic."""
    since = hours_ago(1)
    for n, (server_id, tags) in enumerate(TAGS.items(), start=1):
        for minute in range(2):
            at = since + timedelta(minutes=minute)
            await service.post(heartbeat(server_id, at=at, eth0=(minute * 1000 * n, 0)))
        if tags:
            assert (await put(service, server_id, {"tags": tags})).status_code == 200
    return since


async def test_a_name_and_tags_are_set_shown_and_removed(service: Client) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    assert (await service.get("/servers/nas/labels"))["display_name"] is None

    answer = await put(service, "nas", {"display_name": "Attic, under the roof", "tags": ["site=home", "backup"]})

    expected = {
        "display_name": "Attic, under the roof", "tags": ["backup", "site=home"], "agent_tags": [],
        "all_tags": ["backup", "site=home"],
    }  # fmt: skip
    assert answer.json() == expected == await service.get("/servers/nas/labels")
    for path, of in (("/servers/nas", None), ("/servers", "servers"), ("/agents", "agents"), ("/fleet", "servers")):
        found = await service.get(path)
        shown = found if of is None else found[of][0]
        assert (shown["display_name"], shown["tags"]) == (expected["display_name"], expected["all_tags"]), path
    assert [one["id"] for one in (await service.get("/servers", search="ATTIC"))["servers"]] == ["nas"]
    assert (await put(service, "nas", {})).status_code == 200
    assert (await service.get("/servers/nas"))["display_name"] is None


@pytest.mark.parametrize(
    ("labels", "path"),
    [
        ({"tags": ["role=web", "role=db"]}, "tags[1]"),
        ({"tags": ["a", "a"]}, "tags[1]"),
        ({"tags": ["role=web", "role"]}, "tags[1]"),
        ({"tags": ["ok", "two words"]}, "tags[1]"),
        ({"tags": ["=x"]}, "tags[0]"),
        ({"tags": ["a="]}, "tags[0]"),
        ({"tags": ["a,b"]}, "tags[0]"),
        ({"tags": ["web*"]}, "tags[0]"),
        ({"tags": ["a=b=c"]}, "tags[0]"),
        ({"tags": [f"t{n}" for n in range(33)]}, "tags"),
        ({"tags": "web"}, "tags"),
        ({"display_name": ""}, "display_name"),
        ({"display_name": "a\nb"}, "display_name"),
        ({"display_name": "x" * 101}, "display_name"),
        ({"name": "x"}, "name"),
    ],
)
async def test_wrong_labels_name_the_field(labels: dict[str, Any], path: str, service: Client) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))

    answer = await put(service, "nas", labels)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == path, answer.text


async def test_labels_of_an_unknown_server_are_404(service: Client) -> None:
    assert (await put(service, "nobody", {"tags": ["a"]})).status_code == 404
    assert (await service.http.get("/api/v1/servers/nobody/labels")).status_code == 404


async def test_the_agents_own_tags_count_unless_one_with_the_same_key_is_set(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)) | {"tags": ["role=web", "rack=7"]})
    await put(service, "nas", {"tags": ["role=db"]})

    found = await service.get("/servers/nas/labels")

    assert (found["tags"], found["agent_tags"], found["all_tags"]) == (
        ["role=db"], ["rack=7", "role=web"], ["rack=7", "role=db"],
    )  # fmt: skip
    rows = await database.fetch("SELECT tag, key, value, source FROM server_tags ORDER BY tag")
    assert [tuple(row) for row in rows] == [("rack=7", "rack", "7", "agent"), ("role=db", "role", "db", "set")]
    await service.post(heartbeat("nas", eth0=(2, 2)) | {"delivery": {"queued": 1}, "truncated": True})
    assert (await service.get("/servers/nas"))["tags"] == ["role=db"], "an agent that no longer has them"
    assert (await service.get("/servers/nas/agent"))["truncated"] is True


@pytest.mark.parametrize("tags", ["web", [1], ["two words"], {"a": 1}, [["x"]], ["x"] * 40, None, []])
async def test_tags_of_an_agent_that_make_no_sense_cost_only_themselves(tags: Any, service: Client) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)) | {"tags": tags})

    found = await service.get("/servers/nas")
    assert (found["tags"], len(found["network_interfaces"])) == ([], 1)


async def test_lists_are_filtered_by_tag_and_by_key(service: Client) -> None:
    await tagged_fleet(service)

    async def of(*tags: str, path: str = "/servers") -> list[str]:
        rows = (await service.get(path, tag=list(tags)))[path.strip("/").replace("fleet", "servers")]
        return [one.get("id", one.get("server_id")) for one in rows]

    for path in ("/servers", "/agents", "/fleet"):
        assert await of("role=web", path=path) == ["web-1", "web-2"], path
        assert await of("role", path=path) == ["db", "web-1", "web-2"], path
        assert await of("role=web", "edge", path=path) == ["web-2"], path
        assert await of("rol", path=path) == [], path
    answer = await service.http.get("/api/v1/servers", params={"tag": [f"t{n}" for n in range(21)]})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "tag")


async def test_totals_sparklines_and_export_are_of_the_servers_with_the_tag(
    service: Client, database: asyncpg.Connection
) -> None:
    await tagged_fleet(service)

    total = await service.get("/traffic/summary", group_by="role")
    web = await service.get("/traffic/summary", tag="role=web", group_by="site")

    assert (total["rx_bytes"], total["servers"]) == (10_000, 4)
    groups = {one["tag"]: (one["servers"], one["rx_bytes"]) for one in total["groups"]}
    assert groups == {"role=web": (2, 3_000), "role=db": (1, 3_000), None: (1, 4_000)}
    assert sum(one["total_bytes"] for one in total["groups"]) == total["total_bytes"], "each octet in one group"
    assert (web["rx_bytes"], web["servers"]) == (3_000, 2)
    assert {one["tag"]: one["rx_bytes"] for one in web["groups"]} == {"site=home": 1_000, None: 2_000}
    assert "groups" not in await service.get("/traffic/summary")

    lines = await service.get("/metrics/sparkline/network", period="24h", tag="role=web")
    assert [one["server_id"] for one in lines["series"]] == ["web-1", "web-2"]
    named = await service.get("/metrics/sparkline/network", period="24h", tag="role", server=["db", "nas"])
    assert [one["server_id"] for one in named["series"]] == ["db"]

    answer = await service.http.get("/api/v1/export/traffic", params={"tag": "role=web", "bucket": "raw"})
    assert {row["server_id"] for row in csv.DictReader(io.StringIO(answer.text))} == {"web-1", "web-2"}
    nothing = await service.http.get("/api/v1/export/traffic", params={"tag": "nothing", "bucket": "raw"})
    assert (nothing.status_code, list(csv.DictReader(io.StringIO(nothing.text)))) == (200, [])

    of_sql = await database.fetch(
        "SELECT tag, sum(rx_bytes)::bigint AS rx FROM network_traffic_1d JOIN server_tags USING (server_id) "
        "WHERE key = 'role' GROUP BY tag ORDER BY tag"
    )
    assert [tuple(row) for row in of_sql] == [("role=db", 3_000), ("role=web", 3_000)]


async def test_a_stale_change_is_refused_and_changes_nothing(service: Client) -> None:
    """Of labels, configuration and quota: the second of two browsers that saw the same version."""
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await service.http.put("/api/v1/servers/nas/quota", json={"bytes": 5})
    for path, first, second in (
        ("labels", {"tags": ["a"]}, {"tags": ["b"]}),
        ("config", {"interval_seconds": 5}, {"paused": True}),
        ("quota", {"bytes": 6}, {"bytes": 7}),
    ):
        url = f"/api/v1/servers/nas/{path}"
        seen = (await service.http.get(url)).headers["etag"]

        one = await service.http.put(url, json=first, headers={"If-Match": seen})
        other = await service.http.put(url, json=second, headers={"If-Match": seen})

        assert one.status_code == 200, one.text
        assert (other.status_code, other.json()["code"]) == (412, "changed"), path
        now = await service.http.get(url)
        assert now.headers["etag"] == one.headers["etag"] != seen
        assert first.items() <= now.json().items()
        # With the new version, or without any, it is a change like every other.
        again = await service.http.put(url, json=second, headers={"If-Match": one.headers["etag"]})
        assert again.status_code == 200
        assert (await service.http.put(url, json=first)).status_code == 200
        assert (await service.http.put(url, json=second, headers={"If-None-Match": "*"})).status_code == 412
        assert (await service.http.put(url, json=second, headers={"If-Match": "x"})).status_code == 422
        if path != "labels":
            assert (await service.http.delete(url, headers={"If-Match": seen})).status_code == 412
            assert (await service.http.delete(url)).status_code == 204
            assert (await service.http.put(url, json=second, headers={"If-None-Match": "*"})).status_code == 200


async def test_a_report_is_asked_for_once_and_leaves_the_configuration_as_it_is(service: Client) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    seen = (await service.http.get("/api/v1/servers/nas/config")).headers["etag"]

    asked = await service.http.post("/api/v1/servers/nas/report")
    assert (asked.status_code, asked.json()) == (200, {"within_seconds": 30})

    first = (await service.post(heartbeat("nas", eth0=(2, 2))))["config"]["report_at"]
    assert (await service.post(heartbeat("nas", eth0=(3, 3))))["config"] == {"report_at": first}
    assert await service.get("/servers/nas/config") == {}
    changed = await service.http.put("/api/v1/servers/nas/config", json={"paused": True}, headers={"If-Match": seen})
    assert changed.status_code == 200, "a request for a report is not a change of the configuration"
    assert (await service.post(heartbeat("nas", eth0=(4, 4))))["config"] == {"paused": True, "report_at": first}
    await service.http.post("/api/v1/servers/nas/report")
    assert (await service.post(heartbeat("nas", eth0=(5, 5))))["config"]["report_at"] > first
    assert (await service.http.post("/api/v1/servers/nobody/report")).status_code == 404


async def test_a_waiting_page_learns_of_labels_at_once(service: Client) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    at = (await service.get("/fleet"))["at"]
    at = (await service.get("/fleet", since=at))["at"]

    await put(service, "nas", {"display_name": "Attic"})

    for _ in range(5):
        changes = await service.get("/fleet", since=at)
        if named := [one["display_name"] for one in changes["servers"] if one["display_name"]]:
            break
        at = changes["at"]
    assert named == ["Attic"]


async def test_rules_and_mutes_match_tags(database: asyncpg.Connection) -> None:
    """By tag, by key and by pattern, for each kind of candidate; and an alert ends when its server leaves the scope."""
    start = hours_ago(6)
    await begin(database, start)
    await listen(database, start - timedelta(hours=1), start + timedelta(hours=1))
    for server_id, tags in TAGS.items():
        await store(database, samples(start, [8 * MEGABIT] * 12, server_id=server_id))
        await database.execute("SELECT linkbeat.set_labels($1, NULL, $2)", server_id, tags)
    kinds: dict[str, dict[str, Any]] = {"silent": {}, "rate": {"above_bps": MEGABIT}}
    for kind, more in kinds.items():
        for rule, tags in (("web", ["role=web"]), ("any", ["role"]), ("glob", ["role=d*", "edge"]), ("none", ["x"])):
            await set_rule(database, f"{kind}-{rule}", kind, scope={"tags": tags}, **more)
    await turns(database, start, start + timedelta(minutes=12))

    async def firing() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for (rule, server_id, _), state in sorted((await states(database)).items()):
            if state == "firing":
                found.setdefault(rule, []).append(server_id)
        return found

    silent = {"silent-web": ["web-1", "web-2"], "silent-any": ["db", "web-1", "web-2"], "silent-glob": ["db", "web-2"]}
    assert {rule: found for rule, found in (await firing()).items() if rule.startswith("silent")} == silent
    rates = await database.fetch(
        "SELECT rule_id, array_agg(DISTINCT server_id ORDER BY server_id) FROM linkbeat.alerts "
        "WHERE starts_with(rule_id, 'rate') GROUP BY 1"
    )
    assert {row[0].replace("rate", "silent"): row[1] for row in rates} == silent

    await database.execute("SELECT linkbeat.set_labels('web-1', NULL, '{role=mail}')")
    await turn(database, start + timedelta(minutes=13))
    assert (await firing())["silent-web"] == ["web-2"]
    closed = await database.fetchval(
        "SELECT reason FROM linkbeat.alert_events WHERE rule_id = 'silent-web' AND to_state = 'closed'"
    )
    assert closed == "out_of_scope"

    await database.execute(
        "SELECT linkbeat.set_alert_mute('m', $1, NULL, now() + INTERVAL '1 day', NULL, 'UTC', NULL, NULL)",
        json.dumps({"tags": ["edge"]}),
    )
    muted = await database.fetch("SELECT server_id FROM servers WHERE linkbeat.is_muted('any', server_id, now())")
    assert [row[0] for row in muted] == ["web-2"]
    found = await backtest(database, "silent", start, start + timedelta(minutes=12), scope={"tags": ["role=d*"]})
    assert {one.server_id for one in found} == {"db"}


async def test_a_pattern_of_tags_that_cannot_be_read_is_refused(service: Client) -> None:
    wrong: dict[str, Any] = {"kind": "silent", "scope": {"tags": ["[z-a]"]}}
    assert (await service.http.put("/api/v1/alert-rules/bad", json=wrong)).status_code == 422
    wrong = {"matcher": {"tags": ["[z-a]"]}, "ends_at": "2199-01-01T00:00:00Z"}
    assert (await service.http.put("/api/v1/alert-mutes/bad", json=wrong)).status_code == 422


async def test_labels_go_with_the_server(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat("nas", eth0=(1, 1)))
    await put(service, "nas", {"display_name": "Attic", "tags": ["a"]})

    assert (await service.http.delete("/api/v1/servers/nas")).status_code == 204

    assert await database.fetchval("SELECT count(*) FROM linkbeat.server_labels") == 0
    await service.post(heartbeat("nas", eth0=(1, 1)))
    assert (await service.get("/servers/nas"))["tags"] == []
    assert json.loads((await service.http.get("/api/v1/servers/nas/labels")).text)["display_name"] is None
