"""Links of interfaces for the past: every read with them says what the samples add up to, and nothing is rewritten."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest
from asyncpg.connection import LoggedQuery

from service.app import create_app
from service.clock import Clock
from service.database import series_links
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, as_login, connected, heartbeat
from tests.integration.test_usage import keep, kept_for_ever

NOW = datetime(2025, 11, 6, 9, 7, 30, tzinfo=UTC)
SINCE = NOW - timedelta(days=3)
# In the middle of a minute, an hour and a day of the billing month.
RENAMED = datetime(2025, 11, 4, 13, 37, 12, tzinfo=UTC)
LEVELS = {"1m": 60, "15m": 900, "1h": 3_600, "1d": 86_400}
AMOUNTS = ("rx_bytes", "tx_bytes", "rx_packets", "samples", "up_samples", "resets")

# Values follow from the key alone. br0 is above eth0; a row now and then is a reset, or down.
_ROWS = """
INSERT INTO network_interface_metrics (
    time, server_id, interface_name, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta,
    rx_packets_delta, tx_packets_delta, rx_errors_delta, elapsed_ms, interval_ms, is_up, is_lowest, counts_64bit,
    delta_kind)
SELECT time, $1, $2, 0, 0, 0, 0, h % 1000000007, h % 100003, h % 997, h % 101, h % 7, $6, $6, h % 29 > 0, $2 <> 'br0',
       true, CASE WHEN h % 37 = 0 THEN 'reset' ELSE 'normal' END
FROM generate_series($3::timestamptz, $4::timestamptz - INTERVAL '1 microsecond', $5) AS time,
     LATERAL (SELECT abs(hashtextextended(time::text || $1 || $2, 0)) AS h) AS hashed
"""


async def write(
    database: asyncpg.Connection,
    name: str,
    since: datetime,
    until: datetime,
    *,
    server: str = "nas",
    seconds: int = 1_800,
) -> None:
    """Samples of a series, `seconds` apart."""
    every = timedelta(seconds=seconds)
    await database.execute(_ROWS, server, name, since, until, every, seconds * 1000)


async def register(service: Client, *servers: str) -> None:
    """Servers that the service knows, with a heartbeat at NOW of an interface that no test looks at."""
    for server in servers:
        await service.post(heartbeat(server, at=NOW, tun9=(1, 1)))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return kept_for_ever(tmp_path)


@pytest.fixture
async def service(
    database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, database: asyncpg.Connection
) -> AsyncIterator[Client]:
    """At NOW; `old` became eth0 at RENAMED, below br0, and wlan0 is beside them."""
    await keep(database_url, settings)
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as client:
        await register(client, "nas", "pi")
        await write(database, "old", SINCE, RENAMED)
        await write(database, "eth0", RENAMED + timedelta(seconds=20), NOW)
        await write(database, "br0", SINCE + timedelta(seconds=3), NOW)
        await write(database, "wlan0", SINCE + timedelta(seconds=7), NOW)
        await write(database, "eth0", SINCE, NOW, server="pi", seconds=7_200)
        await refresh(database)
        yield client


async def refresh(database: asyncpg.Connection) -> None:
    """So that the aggregates have what was written into the table: nothing told them of it."""
    await database.execute("CALL linkbeat.refresh_aggregates($1)", NOW + timedelta(hours=1))


async def link(service: Client, server: str = "nas", route: str = "", **body: Any) -> httpx.Response:
    body = {name: one.isoformat() if isinstance(one, datetime) else one for name, one in body.items()}
    return await service.http.post(f"/api/v1/servers/{server}/links{route}", json=body)


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"sparkline {period}": ("/metrics/sparkline/nas/network", {"period": period})
       for period in ("1h", "24h", "7d", "30d", "1y")},
    **{f"sparkline {period} {name}": ("/metrics/sparkline/nas/network", {"period": period, "interface": name})
       for period in ("1h", "24h", "7d", "30d", "1y") for name in ("old", "eth0", "wlan0")},
    "grouped": ("/metrics/sparkline/nas/network", {"period": "30d", "bucket": "1h", "group_by": "interface"}),
    "fleet sparklines": ("/metrics/sparkline/network", {"period": "30d"}),
    "columns": ("/fleet/sparklines", {"period": "30d", "series": ["nas/old", "nas/eth0", "pi/eth0"]}),
    "peaks": ("/fleet/peaks", {"period": "30d"}),
    **{f"history {level}": ("/traffic/history", {
        "server": "nas", "bucket": level, "since": SINCE.isoformat(), "until": NOW.isoformat(), "limit": 10_000,
        **({"interface": "eth0"} if level == "1m" else {})}) for level in LEVELS},
    "history of all": ("/traffic/history", {"bucket": "1d", "since": SINCE.isoformat(), "until": NOW.isoformat()}),
    "history of servers": ("/traffic/history", {
        "bucket": "1d", "since": SINCE.isoformat(), "until": NOW.isoformat(), "group_by": "server"}),
    "summary": ("/traffic/summary", {"period": "30d"}),
    "summary of one": ("/traffic/summary", {"period": "30d", "server": "nas"}),
    "events": ("/traffic/events", {"server": "nas", "since": SINCE.isoformat(), "until": NOW.isoformat()}),
    "events of one": ("/traffic/events", {
        "server": "nas", "interface": "eth0", "since": SINCE.isoformat(), "until": NOW.isoformat()}),
    "usage": ("/usage/nas", {"since": "2025-10-29"}),
    "usage of eth0": ("/usage/nas", {"interface": "eth0", "since": "2025-10-29", "time_zone": "Asia/Kathmandu"}),
    "months": ("/usage/nas", {"by": "month", "since": "2025-09-01"}),
    "usage of the fleet": ("/usage", {}),
    **{f"export {level}": ("/export/traffic", {"server": "nas", "bucket": level}) for level in ("raw", *LEVELS)},
    "export of all": ("/export/traffic", {"bucket": "1d"}),
    "quota": ("/servers/nas/quota", {}),
}  # fmt: skip


async def bodies(service: Client) -> dict[str, bytes]:
    """What every read says."""
    found = {}
    for name, (path, query) in REQUESTS.items():
        answer = await service.http.get(f"/api/v1{path}", params=query)
        assert answer.status_code == 200, (name, answer.text)
        found[name] = answer.content
    return found


def rows_of(content: bytes, *names: str) -> dict[tuple[str, str], tuple[int, ...]]:
    """Of an export: the amounts by interface and bucket."""
    return {
        (row["interface_name"], row["bucket_utc"]): tuple(int(row[name]) for name in names)
        for row in csv.DictReader(io.StringIO(content.decode()))
    }


def merged(
    rows: dict[tuple[str, str], tuple[int, ...]], was: str, becomes: str
) -> dict[tuple[str, str], tuple[int, ...]]:
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    for (name, at), amounts in rows.items():
        key = (becomes if name == was else name, at)
        found[key] = tuple(map(sum, zip(found.get(key, (0,) * len(amounts)), amounts, strict=True)))
    return found


def octets(points: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    return {one["timestamp"]: (one["rx_bytes"], one["tx_bytes"]) for one in points}


async def test_a_merged_past_adds_up_in_every_read_and_is_undone_to_the_byte(
    service: Client, database: asyncpg.Connection
) -> None:
    assert (
        await service.http.put("/api/v1/servers/nas/quota", json={"bytes": 20 * 10**12, "interface": "eth0"})
    ).is_success
    stored = await database.fetchval("SELECT md5(string_agg(m::text, ',' ORDER BY m)) FROM network_interface_metrics m")
    before = await bodies(service)
    was = {name: json.loads(body) for name, body in before.items() if not name.startswith("export")}

    made = await link(service, interface="old", into="eth0")

    assert made.status_code == 201, made.text
    after = await bodies(service)
    now = {name: json.loads(body) for name, body in after.items() if not name.startswith("export")}
    for period in ("1h", "24h", "7d", "30d", "1y"):
        name = f"sparkline {period}"
        assert octets(now[name]["data"]) == octets(was[name]["data"])  # each octet once, as before
        parts = [octets(was[f"{name} {one}"]["data"]) for one in ("old", "eth0")]
        expected = {
            at: tuple(map(sum, zip(*(part[at] for part in parts if at in part), strict=True)))
            for at in sorted({at for part in parts for at in part})
        }
        assert octets(now[f"{name} eth0"]["data"]) == expected
        assert now[f"{name} old"]["data"] == now[f"{name} eth0"]["data"]  # the name goes on
        assert now[f"{name} wlan0"] == was[f"{name} wlan0"]
    assert [one["interface"] for one in now["grouped"]["series"]] == ["br0", "eth0", "tun9", "wlan0"]
    assert [(one["server_id"], one["interface"]) for one in now["columns"]["series"]] == [
        ("nas", "eth0"),
        ("pi", "eth0"),
    ]
    nas = [one["interface"] for one in now["fleet sparklines"]["series"] if one["server_id"] == "nas"]
    assert nas == ["br0", "eth0", "tun9", "wlan0"]
    assert [one for one in now["fleet sparklines"]["series"] if one["server_id"] == "pi"] == [
        one for one in was["fleet sparklines"]["series"] if one["server_id"] == "pi"
    ]
    for level in LEVELS:
        assert rows_of(after[f"export {level}"], *AMOUNTS) == merged(
            rows_of(before[f"export {level}"], *AMOUNTS), "old", "eth0"
        )
    raw = [list(csv.DictReader(io.StringIO(found["export raw"].decode()))) for found in (before, after)]
    for row in raw[0]:
        row["interface_name"] = row["interface_name"].replace("old", "eth0")
    assert sorted(map(str, raw[0])) == sorted(map(str, raw[1]))
    for name in ("summary", "summary of one", "usage", "months", "usage of the fleet"):
        for field in ("rx_bytes", "tx_bytes", "total_bytes", "days", "months", "month", "top_servers", "servers"):
            assert without_quota(now[name].get(field)) == without_quota(was[name].get(field)), (name, field)
    of = {one["interface"]: one["rx_bytes"] for one in was["usage"]["interfaces"]}
    assert {one["interface"]: one["rx_bytes"] for one in now["usage"]["interfaces"]} == {
        "br0": of["br0"], "eth0": of["old"] + of["eth0"], "tun9": of["tun9"], "wlan0": of["wlan0"],
    }  # fmt: skip
    assert now["usage of eth0"]["month"]["percentile"] == await percentile(database, now["usage of eth0"]["month"])
    assert now["quota"]["used_bytes"] == now["usage of eth0"]["month"]["total_bytes"]
    assert {name for one in now["events"]["data"] for name in one["interfaces"]} == {"br0", "eth0", "wlan0"}
    assert len(now["events of one"]["data"]) == sum(
        1 for one in was["events"]["data"] for name in one["interfaces"] if name in ("old", "eth0")
    )
    assert "sums" not in now["usage"]

    gone = await service.http.delete(f"/api/v1/servers/nas/links/{made.json()['id']}")

    assert gone.status_code == 204
    assert await bodies(service) == before
    assert stored == await database.fetchval(
        "SELECT md5(string_agg(m::text, ',' ORDER BY m)) FROM network_interface_metrics m"
    )


def without_quota(value: Any) -> Any:
    """That one is of eth0, and has grown."""
    if isinstance(value, list):
        return [without_quota(one) for one in value]
    return {name: one for name, one in value.items() if name != "quota"} if isinstance(value, dict) else value


async def percentile(database: asyncpg.Connection, month: dict[str, Any]) -> dict[str, Any]:
    """Of both series together, from the rows."""
    rows = await database.fetch(
        "SELECT sum(rx_bytes_delta) * 8 / 300.0 AS rx, sum(tx_bytes_delta) * 8 / 300.0 AS tx "
        "FROM network_interface_metrics WHERE server_id = 'nas' AND interface_name IN ('old', 'eth0') "
        "AND time >= $1 AND time < $2 GROUP BY time_bucket('5 minutes', time)",
        datetime.fromisoformat(month["since"]), NOW - timedelta(minutes=2, seconds=30),
    )  # fmt: skip
    until = NOW - timedelta(minutes=2, seconds=30)
    slots = int((until - datetime.fromisoformat(month["since"])).total_seconds()) // 300
    answer: dict[str, Any] = {"samples": len(rows), "slots": slots}
    received, sent = [float(row["rx"]) for row in rows], [float(row["tx"]) for row in rows]
    for kind, missing in (("of_samples", 0), ("of_slots", slots - len(rows))):
        series = (received, sent, [rx + tx for rx, tx in zip(received, sent, strict=True)])
        values = [[*one, *[0.0] * missing] for one in series]
        rx, tx, both = (sorted(one)[len(one) - 1 - int(len(one) * 0.05 + 1e-9)] for one in values)
        answer[kind] = {
            "rx_bps": pytest.approx(rx), "tx_bps": pytest.approx(tx), "max_bps": pytest.approx(max(rx, tx)),
            "sum_bps": pytest.approx(both),
        }  # fmt: skip
    return answer


async def test_an_overlap_is_refused_unless_the_link_says_that_it_adds(
    service: Client, database: asyncpg.Connection
) -> None:
    every = timedelta(minutes=30)
    since = SINCE + ((RENAMED - SINCE) // every - 3) * every  # four heartbeats have both
    await write(database, "eth0", since, RENAMED)
    await refresh(database)
    await service.http.put("/api/v1/servers/nas/quota", json={"bytes": 20 * 10**12})
    first, last = (moment.isoformat().replace("+00:00", "Z") for moment in (since, since + 3 * every))

    refused = await link(service, interface="old", into="eth0")

    assert refused.status_code == 409
    assert refused.json()["code"] == "overlap"
    assert f"both have samples from {first} to {last} (4 of each)" in refused.json()["detail"]
    assert (await service.get("/servers/nas/links"))["links"] == []
    before = await bodies(service)

    made = await link(service, interface="old", into="eth0", sum=True)

    assert made.status_code == 201
    assert made.json()["sum"] is True
    sums = [{"server_id": "nas", "interface": "eth0", "of": ["eth0", "old"]}]
    for name, body in (await bodies(service)).items():
        if name.startswith("export") or name.endswith("wlan0"):
            continue
        assert json.loads(body).get("sums") == sums, name
    exported = await service.http.get("/api/v1/export/traffic", params={"server": "nas", "bucket": "1d"})
    assert json.loads(exported.headers["linkbeat-sums"]) == sums
    assert rows_of(exported.content, *AMOUNTS) == merged(rows_of(before["export 1d"], *AMOUNTS), "old", "eth0")
    assert "sums" not in json.loads((await bodies(service))["sparkline 24h wlan0"])


async def test_a_range_divides_buckets_exactly(service: Client, database: asyncpg.Connection) -> None:
    """Random links, in the middle of buckets of every width, against the rows themselves."""
    random = Random(20251120)
    names = ("a", "b", "c", "d")
    begin = NOW - timedelta(days=3)
    for number, name in enumerate(names):
        await write(database, name, begin + timedelta(seconds=number), NOW, server="pi", seconds=193)
    rows = await database.fetch(
        "SELECT time, interface_name, rx_bytes_delta AS rx, is_up FROM network_interface_metrics "
        "WHERE server_id = 'pi' AND interface_name = ANY ($1)", names,
    )  # fmt: skip
    await refresh(database)
    for _ in range(6):
        await database.execute("DELETE FROM linkbeat.series_links")
        links = []
        for name in names[:3]:
            at = begin
            for _ in range(random.randrange(3)):
                since = at + timedelta(seconds=random.uniform(0, 100_000))
                at = since + timedelta(seconds=random.choice((13, 500, 4_000, 90_000)) * random.random())
                links.append((name, "d", since, at))
        await database.executemany(
            "INSERT INTO linkbeat.series_links (server_id, series, into_series, since, until, is_sum) "
            "VALUES ('pi', $1, $2, $3, $4, true)", links,
        )  # fmt: skip

        def read_as(name: str, time: datetime, links: list[Any] = links) -> str:
            return next((into for of, into, since, until in links if of == name and since <= time < until), name)

        samples = {(read_as(r["interface_name"], r["time"]), r["time"], r["rx"]) for r in rows}
        found = await database.fetch("SELECT * FROM linked_samples('pi', $1, $2)", begin, NOW)
        assert {
            (r["interface_name"], r["time"], r["rx_bytes"]) for r in found if r["interface_name"] in names
        } == samples
        for level, seconds in LEVELS.items():
            expected: dict[tuple[str, datetime], list[int]] = defaultdict(lambda: [0, 0, 0])
            for row in rows:
                start = datetime.fromtimestamp(row["time"].timestamp() // seconds * seconds, UTC)
                total = expected[read_as(row["interface_name"], row["time"]), start]
                total[0] += row["rx"]
                total[1] += 1
                total[2] += row["is_up"]
            for only in (None, "d", "a"):
                found = await database.fetch(
                    "SELECT * FROM linked_traffic($1, 'pi', '-infinity', 'infinity', $2)", level, only
                )
                assert {
                    (r["interface_name"], r["bucket"]): [r["rx_bytes"], r["samples"], r["up_samples"]]
                    for r in found
                    if r["interface_name"] in names
                } == {key: total for key, total in expected.items() if only in (None, key[0])}, (level, links)
    assert links


async def test_without_links_reads_are_the_statements_that_they_were(
    database_url: str, settings: Settings, statements: list[LoggedQuery], service: Client, database: asyncpg.Connection
) -> None:
    """I15: the same text, so the same plan, and no other statement; also beside 10,000 links of other servers."""
    requests = [
        ("/metrics/sparkline/nas/network", {"period": period, "interface": "eth0"}) for period in ("1h", "24h", "7d")
    ]
    requests += [("/metrics/sparkline/nas/network", {"period": "24h"}), ("/usage/nas", {}),
                 ("/traffic/history", {"server": "nas"}), ("/servers/nas/interfaces/tun9/stats", {})]  # fmt: skip

    async def sent() -> list[str]:
        statements.clear()
        for path, query in requests:
            answer = await service.http.get(f"/api/v1{path}", params=query, headers={"Cache-Control": "no-cache"})
            assert answer.status_code == 200
        return [one.query for one in statements]

    without = await sent()
    assert not any("linked" in one for one in without)
    await database.execute(
        "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) "
        "SELECT 'other-' || n, 'x', now(), now(), now() FROM generate_series(1, 5000) n"
    )
    await database.execute(
        "INSERT INTO linkbeat.series_links (server_id, series, into_series) "
        "SELECT 'other-' || n, s, 'eth0' FROM generate_series(1, 5000) n, unnest('{old,older}'::text[]) s"
    )
    await database.execute("ANALYZE linkbeat.series_map, linkbeat.series_links")
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        service = other

        assert await sent() == without

        await service.get("/metrics/sparkline/other-7/network")
    assert "linked_rows" in statements[-1].query
    # What a read of a server with links looks up, it finds by an index.
    for lookup in (
        "SELECT FROM linkbeat.series_map m WHERE m.server_id = 'other-7'",
        "SELECT FROM linkbeat.series_map m WHERE m.into_server_id = ANY ('{other-7}')",
        "SELECT linkbeat.resolve_series('other-7', 'old', now())",
    ):
        plan = "\n".join(row[0] for row in await database.fetch(f"EXPLAIN {lookup}"))
        assert "Seq Scan" not in plan, plan


async def test_a_preview_says_the_totals_before_and_after_and_changes_nothing(
    service: Client, database: asyncpg.Connection
) -> None:
    of = {
        row["interface_name"]: (row["rx"], row["n"])
        for row in await database.fetch(
            "SELECT interface_name, sum(rx_bytes_delta)::bigint AS rx, count(*) AS n, $1::timestamptz AS at "
            "FROM network_interface_metrics WHERE server_id = 'nas' GROUP BY 1", NOW
        )
    }  # fmt: skip

    answer = await service.http.post("/api/v1/servers/nas/links/preview", json={"interface": "old", "into": "eth0"})

    assert answer.status_code == 200, answer.text
    assert [(one["interface"], one["rx_bytes"], one["samples"]) for one in answer.json()["before"]] == [
        ("old", *of["old"]), ("eth0", *of["eth0"])
    ]  # fmt: skip
    assert [(one["interface"], one["rx_bytes"], one["samples"]) for one in answer.json()["after"]] == [
        ("old", 0, 0), ("eth0", of["old"][0] + of["eth0"][0], of["old"][1] + of["eth0"][1])
    ]  # fmt: skip
    assert answer.json()["overlap"] is None
    assert (await service.get("/servers/nas/links"))["links"] == []
    assert await database.fetchval("SELECT count(*) FROM linkbeat.series_map") == 0
    assert (await service.get("/audit", action="link"))["entries"] == []


async def test_links_are_listed_audited_and_removed_with_their_server(
    service: Client, database: asyncpg.Connection
) -> None:
    made = (await link(service, interface="old", into="eth0", until=RENAMED)).json()

    listed = (await service.get("/servers/nas/links"))["links"]
    assert listed == [made]
    assert (made["interface"], made["into"], made["since"], made["until"]) == (
        "old",
        "eth0",
        None,
        "2025-11-04T13:37:12Z",
    )
    assert (await service.http.delete(f"/api/v1/servers/pi/links/{made['id']}")).status_code == 404
    assert (await service.http.delete(f"/api/v1/servers/nas/links/{made['id']}")).status_code == 204
    assert (await service.http.delete(f"/api/v1/servers/nas/links/{made['id']}")).status_code == 404
    gone, entry = (await service.get("/audit", action="link"))["entries"]
    assert (entry["action"], entry["server_id"], entry["subject"], entry["before"]) == (
        "link.set",
        "nas",
        str(made["id"]),
        None,
    )
    assert (entry["after"]["series"], entry["after"]["into_series"]) == ("old", "eth0")
    assert gone["action"] == "link.delete"
    assert gone["after"] is None

    assert (await link(service, interface="old", into="eth0")).status_code == 201
    await database.execute("DELETE FROM servers WHERE server_id = 'nas'")
    assert await database.fetchval("SELECT count(*) FROM linkbeat.series_links") == 0
    assert await database.fetchval("SELECT count(*) FROM linkbeat.series_map") == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"interface": "old"}, "into"),
    ({"interface": "old", "into": "old"}, "into"),
    ({"interface": "old", "into": "eth7"}, "into"),
    ({"interface": "eth7", "into": "eth0"}, "interface"),
    ({"interface": "veth/*", "into": "eth0"}, "interface"),
    ({"interface": "old", "into": "eth0", "since": RENAMED, "until": RENAMED}, "until"),
    ({"interface": "old", "into": "eth0", "since": "2025-11-03"}, "since"),
    ({"interface": "old", "into": "eth0", "until": "1999-01-01T00:00:00Z"}, "until"),
    ({"interface": "old", "into": "eth0", "sum": "yes"}, "sum"),
    ({"interface": "old", "into": "eth0", "series": "x"}, "series"),
]


async def test_a_wrong_link_names_the_field(service: Client) -> None:
    for body, path in WRONG:
        for route in ("", "/preview"):
            answer = await link(service, route=route, **body)

            assert answer.status_code == 422, (body, answer.text)
            assert answer.json()["errors"][0]["path"] == path, body


async def test_links_are_no_chains(service: Client) -> None:
    assert (await link(service, interface="old", into="eth0")).status_code == 201

    for interface, into in (("eth0", "wlan0"), ("old", "wlan0"), ("wlan0", "old")):
        refused = await link(service, interface=interface, into=into, sum=True)
        assert (refused.status_code, refused.json()["code"]) == (409, "linked"), (interface, into)
    assert (await link(service, server="unknown", interface="old", into="eth0")).status_code == 404


async def test_another_process_follows_a_link(
    service: Client, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as other:
        was = await other.get("/metrics/sparkline/nas/network", period="30d", interface="eth0")
        await link(service, interface="old", into="eth0")

        # Without waiting for the poll: past STALE_SECONDS a read would.
        monkeypatch.setattr(series_links, "STALE_SECONDS", -1.0)
        becomes = await other.get("/metrics/sparkline/nas/network", period="30d", interface="eth0")
    assert len(becomes["data"]) > len(was["data"])


async def test_an_analyst_follows_links_in_sql(
    service: Client, login: str, database: asyncpg.Connection, database_url: str
) -> None:
    await database.execute(f'GRANT analyst TO "{login}"')
    await link(service, interface="old", into="eth0")

    async with connected(as_login(database_url, login)) as analyst:
        await analyst.execute("SET ROLE analyst")
        rows = await analyst.fetch(
            "SELECT DISTINCT interface_name FROM linked_traffic('1d', 'nas', $1, $2) ORDER BY 1", SINCE, NOW
        )
        assert [row[0] for row in rows] == ["br0", "eth0", "tun9", "wlan0"]
        assert await analyst.fetchval("SELECT into_interface_name FROM interface_links") == "eth0"
        assert await analyst.fetchval("SELECT count(*) FROM linked_samples('nas', $1, $2, 'old')", SINCE, NOW) == 0
        assert await analyst.fetchval(
            "SELECT count(*) FROM network_total($1, $2)",
            datetime(2025, 11, 1, tzinfo=UTC),
            datetime(2025, 12, 1, tzinfo=UTC),
        )
        assert await analyst.fetchval("SELECT rx_bytes FROM network_month('nas', $1, of_interface => 'eth0')", NOW) > 0
        with pytest.raises(asyncpg.InvalidParameterValueError, match="expected 1m, 15m, 1h or 1d"):
            await analyst.fetch("SELECT * FROM linked_traffic('5m', 'nas', $1, $2)", SINCE, NOW)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await analyst.fetch("SELECT * FROM linkbeat.series_map")
