"""Servers that replaced others: the account goes on to the byte (I13), and it can be taken back."""

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

from service.app import create_app
from service.clock import Clock
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, as_login, connected, heartbeat, interface
from tests.integration.test_series_links import LEVELS, NOW, REQUESTS, refresh, write
from tests.integration.test_usage import keep, kept_for_ever

SINCE = datetime(2025, 10, 30, 11, 5, 3, tzinfo=UTC)
# In the middle of a minute, an hour and a day of the billing month; the new machine has reported for two hours then,
# and the old one goes on for one.
REPLACED = datetime(2025, 11, 4, 13, 37, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUOTA = {"bytes": 20 * 10**12, "direction": "sum"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return kept_for_ever(tmp_path)


@pytest.fixture
async def service(
    database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, database: asyncpg.Connection
) -> AsyncIterator[Client]:
    """At NOW; `new` replaced `old` at REPLACED. `twin` has the rows that count of both."""
    await keep(database_url, settings)
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as client:
        for server, first_seen in (("old", SINCE), ("new", REPLACED - 2 * HOUR), ("twin", SINCE), ("other", SINCE)):
            await client.post(heartbeat(server, at=NOW, tun9=(1, 1)))
            await database.execute("UPDATE servers SET first_seen = $2 WHERE server_id = $1", server, first_seen)
        for name, later in (("eth0", 0), ("br0", 3), ("usb0", 5)):
            await write(database, name, SINCE + timedelta(seconds=later), REPLACED + HOUR, server="old", seconds=1_200)
        for name in ("eth0", "br0"):
            await write(database, name, REPLACED - 2 * HOUR, NOW, server="new", seconds=600)
        await write(database, "eth0", SINCE, NOW, server="other", seconds=7_200)
        await copy(database, "old", "twin", "-infinity", REPLACED)
        await copy(database, "new", "twin", REPLACED, NOW)
        await refresh(database)
        yield client


async def copy(database: asyncpg.Connection, server: str, into: str, since: datetime | str, until: datetime) -> None:
    columns = await database.fetchval(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = "
        "'network_interface_metrics'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'server_id'"
    )
    await database.execute(
        f"INSERT INTO network_interface_metrics (server_id, {columns}) SELECT '{into}', {columns} "
        f"FROM network_interface_metrics WHERE server_id = '{server}' AND time >= '{since}' AND time < '{until}'"
    )


async def put(service: Client, server: str, predecessor: str, since: datetime, **headers: str) -> httpx.Response:
    body = {"predecessor": predecessor, "since": since.isoformat()}
    return await service.http.put(f"/api/v1/servers/{server}/succession", json=body, headers=headers)


async def bodies(service: Client, server: str) -> dict[str, str]:
    """What every read says of a server, without its name."""
    found = {}
    for name, request in REQUESTS.items():
        text = json.dumps(request).replace("/old", "/usb0").replace('"old"', '"usb0"').replace("nas", server)
        path, query = json.loads(text)
        answer = await service.http.get(f"/api/v1{path}", params=query)
        assert answer.status_code in ((200, 404) if name == "quota" else (200,)), (name, answer.text)
        found[name] = answer.text.replace(f"{server}.local", "NAME").replace(server, "NAME")
    return found


ABOUT_THE_FLEET = ("fleet sparklines", "columns", "peaks", "history of all", "history of servers", "summary",
                   "usage of the fleet", "export of all")  # fmt: skip


async def test_a_replaced_server_goes_on_in_every_read_and_it_is_undone_to_the_byte(
    service: Client, database: asyncpg.Connection
) -> None:
    """I13"""
    for server in ("old", "twin"):
        assert (await service.http.put(f"/api/v1/servers/{server}/quota", json=QUOTA)).is_success
    stored = await database.fetchval("SELECT md5(string_agg(m::text, ',' ORDER BY m)) FROM network_interface_metrics m")
    before = {server: await bodies(service, server) for server in ("old", "new", "other")}
    twin = await bodies(service, "twin")
    assert {name for name in twin if twin[name] != before["new"][name]} >= {"usage", "quota", "sparkline 30d"}

    made = await put(service, "new", "old", REPLACED)

    assert made.status_code == 200, made.text
    since = "2025-11-04T13:37:12Z"
    nothing = dict.fromkeys(("predecessor", "since", "successor", "until"))
    assert made.json() == {"server_id": "new", **nothing, "predecessor": "old", "since": since}
    assert await service.get("/servers/old/succession") == {
        "server_id": "old", **nothing, "successor": "new", "until": since,
    }  # fmt: skip
    becomes = await bodies(service, "new")
    for name in REQUESTS:
        if name not in ABOUT_THE_FLEET:
            assert becomes[name] == twin[name], name
    assert json.loads(becomes["quota"])["used_bytes"] == json.loads(becomes["usage"])["month"]["total_bytes"]
    assert json.loads(becomes["quota"])["expected_bytes"] is not None
    rows = await database.fetchrow(
        "SELECT sum(rx_bytes_delta) AS rx, count(*) AS samples FROM network_interface_metrics "
        "WHERE is_lowest AND time >= '2025-11-01' "
        "AND (server_id = 'old' AND time < $1 OR server_id = 'new' AND time >= $1)",
        REPLACED,
    )
    assert rows is not None
    assert json.loads(becomes["usage"])["month"]["rx_bytes"] == rows["rx"]
    # Of the fleet, each byte once: those of the new machine before it replaced the old one are nobody's.
    usage = await service.get("/usage")
    moved = {one["server_id"]: one["rx_bytes"] for one in usage["servers"]}
    assert moved["new"] == moved["twin"] == rows["rx"]
    assert moved["old"] == await database.fetchval(
        "SELECT sum(rx_bytes_delta) FROM network_interface_metrics "
        "WHERE is_lowest AND server_id = 'old' AND time >= $1",
        REPLACED,
    )
    path, query = REQUESTS["history of servers"]
    history = (await service.http.get(f"/api/v1{path}", params=query)).json()["data"]
    of_both = [
        [{**one, "server_id": ""} for one in history if one["server_id"] == server] for server in ("new", "twin")
    ]
    assert of_both[0] == of_both[1] != []

    gone = await service.http.delete("/api/v1/servers/new/succession")

    assert gone.status_code == 204
    assert {server: await bodies(service, server) for server in before} == before
    assert await service.get("/servers/new/succession") == {"server_id": "new", **nothing}
    assert stored == await database.fetchval(
        "SELECT md5(string_agg(m::text, ',' ORDER BY m)) FROM network_interface_metrics m"
    )


async def test_a_preview_says_the_totals_and_changes_nothing(service: Client, database: asyncpg.Connection) -> None:
    body = {"predecessor": "old", "since": REPLACED.isoformat()}
    before = await bodies(service, "new")

    said = (await service.http.post("/api/v1/servers/new/succession/preview", json=body)).json()

    async def rows(condition: str) -> int:
        return int(await database.fetchval(
            f"SELECT coalesce(sum(rx_bytes_delta), 0) FROM network_interface_metrics WHERE is_lowest AND {condition}"
        ))  # fmt: skip

    late = f"time >= '{REPLACED}'"
    assert [(one["server_id"], one["rx_bytes"]) for one in said["before"]] == [
        ("old", await rows("server_id = 'old'")), ("new", await rows("server_id = 'new'")),
    ]  # fmt: skip
    assert [(one["server_id"], one["rx_bytes"]) for one in said["after"]] == [
        ("old", await rows(f"server_id = 'old' AND {late}")), ("new", await rows("server_id = 'twin'")),
    ]  # fmt: skip
    assert await bodies(service, "new") == before
    for table in ("successions", "series_map"):
        assert await database.fetchval(f"SELECT count(*) FROM linkbeat.{table}") == 0


async def test_a_quota_that_was_changed_outlives_the_succession(service: Client) -> None:
    await service.http.put("/api/v1/servers/old/quota", json=QUOTA)
    await put(service, "new", "old", REPLACED)
    assert (await service.get("/servers/new/quota"))["bytes"] == QUOTA["bytes"]
    await service.http.put("/api/v1/servers/new/quota", json=QUOTA | {"bytes": 5})

    await service.http.delete("/api/v1/servers/new/succession")

    assert (await service.get("/servers/new/quota"))["bytes"] == 5
    assert (await service.get("/servers/old/quota"))["bytes"] == QUOTA["bytes"]


async def test_what_cannot_be_is_refused_with_the_field(service: Client, database: asyncpg.Connection) -> None:
    assert (await put(service, "new", "old", REPLACED)).is_success
    assert (await put(service, "twin", "new", REPLACED + HOUR)).is_success

    refusals = [
        ("other", "old", REPLACED, 409, "replaced", "'new'"),
        ("other", "nobody", REPLACED, 422, "predecessor", "no server 'nobody'"),
        ("other", "other", REPLACED, 422, "predecessor", "another server"),
        ("other", "twin", REPLACED.replace(year=1999), 422, "since", "2000"),
        ("other", "twin", REPLACED + HOUR, 422, "since", "after 2025-11-04T14:37:12Z"),
        ("old", "other", REPLACED, 422, "since", "before 2025-11-04T13:37:12Z"),
        ("old", "twin", REPLACED, 422, "predecessor", "was replaced by 'twin'"),
    ]
    for server, predecessor, since, status, where, told in refusals:
        for answer in (
            await put(service, server, predecessor, since),
            await service.http.post(
                f"/api/v1/servers/{server}/succession/preview",
                json={"predecessor": predecessor, "since": since.isoformat()},
            ),
        ):
            said = answer.json()
            assert answer.status_code == status, (server, predecessor, answer.text)
            assert said["errors"][0]["path"] == where if status == 422 else said["code"] == where
            assert told in (said["errors"][0]["reason"] if status == 422 else said["detail"])
    for server in ("nobody", "nobody%00"):
        assert (await put(service, server, "old", REPLACED)).status_code == 404
        assert (await service.http.delete(f"/api/v1/servers/{server}/succession")).status_code == 404
    assert await database.fetchval("SELECT count(*) FROM linkbeat.successions") == 2


async def test_an_interface_continues_under_the_name_that_the_new_machine_has(
    service: Client, database: asyncpg.Connection
) -> None:
    await write(database, "lan0", REPLACED, NOW, server="new", seconds=600)
    await refresh(database)
    body = {"interface": "usb0", "into": "lan0"}
    unknown = await service.http.post("/api/v1/servers/old/links", json=body)
    assert (unknown.status_code, unknown.json()["errors"][0]["path"]) == (422, "into")
    await put(service, "new", "old", REPLACED)

    made = await service.http.post("/api/v1/servers/old/links", json=body)

    assert made.status_code == 201, made.text
    query = {"server": "new", "interface": "lan0", "bucket": "raw"}
    exported = await service.http.get("/api/v1/export/traffic", params=query)
    counted = [int(row["rx_bytes"]) for row in csv.DictReader(io.StringIO(exported.text))]
    stored = await database.fetch(
        "SELECT rx_bytes_delta FROM network_interface_metrics WHERE server_id = 'new' AND interface_name = 'lan0' "
        "OR server_id = 'old' AND interface_name = 'usb0' AND time < $1 ORDER BY time", REPLACED,
    )  # fmt: skip
    assert counted == [row[0] for row in stored]
    assert len(counted) > 500


async def test_a_predecessor_may_be_named_by_another_id(service: Client) -> None:
    assert (await service.http.put("/api/v1/servers/old/aliases/older")).is_success

    assert (await put(service, "new", "older", REPLACED)).json()["predecessor"] == "old"

    refused = await put(service, "old", "older", REPLACED)
    assert refused.json()["errors"][0]["path"] == "predecessor"


async def test_a_server_that_has_the_same_hardware_is_suggested(service: Client, database: asyncpg.Connection) -> None:
    """One that fell silent before the new one appeared; neither a clone, which reports beside it, nor a stranger."""

    async def report(server: str, first: datetime, last: datetime, address: str, **more: Any) -> None:
        for moment in (first, last):
            card = interface("eth0", 1, 1, kind="physical", permanent_address=address)
            await service.post(heartbeat(server, at=moment) | {"network_interfaces": [card], **more})

    begin, guid = datetime(2025, 11, 1, tzinfo=UTC), "5f9a1c1e-0000-4000-8000-000000000001"
    await report("before", begin, begin + HOUR, "02:00:00:00:00:01", server_guid=guid)
    await report("clone", begin, begin + 9 * HOUR, "02:00:00:00:00:01")
    await report("stranger", begin, begin + HOUR, "02:00:00:00:00:02")
    await report("after", begin + 2 * HOUR, begin + 3 * HOUR, "02:00:00:00:00:01", server_guid=guid)

    found = await service.get("/servers/after/succession/suggestions")

    assert found["suggestions"] == [
        {"predecessor": "before", "since": "2025-11-01T02:00:00Z", "gone_at": "2025-11-01T01:00:00Z",
         "evidence": ["server_guid", "permanent_address"]},
    ]  # fmt: skip
    assert (await put(service, "after", "before", begin + 2 * HOUR)).is_success
    assert (await service.get("/servers/after/succession/suggestions"))["suggestions"] == []
    assert (await service.http.get("/api/v1/servers/nobody/succession/suggestions")).status_code == 404


async def test_a_stale_change_is_refused(service: Client) -> None:
    made = await put(service, "new", "old", REPLACED, **{"If-None-Match": "*"})
    seen = made.headers["ETag"]
    assert (await put(service, "new", "old", REPLACED + HOUR, **{"If-None-Match": "*"})).status_code == 412
    assert (await put(service, "new", "old", REPLACED + HOUR, **{"If-Match": seen})).is_success

    refused = await service.http.delete("/api/v1/servers/new/succession", headers={"If-Match": seen})

    assert (refused.status_code, refused.json()["code"]) == (412, "changed")
    assert (await service.get("/servers/new/succession"))["since"] == "2025-11-04T14:37:12Z"


async def test_a_succession_ends_with_either_server(service: Client, database: asyncpg.Connection) -> None:
    for gone in ("old", "new"):
        async with database.transaction():
            await put(service, "new", "old", REPLACED)
            assert await database.fetchval("SELECT count(*) FROM linkbeat.series_map") == 4
            await database.execute("DELETE FROM servers WHERE server_id = $1", gone)
            assert await database.fetchval("SELECT count(*) FROM linkbeat.series_map") == 0
            await database.execute(
                "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) "
                "VALUES ($1, $1, $2, $2, $2)", gone, SINCE,
            )  # fmt: skip


async def test_an_analyst_follows_successions_in_sql(
    service: Client, login: str, database: asyncpg.Connection, database_url: str
) -> None:
    await database.execute(f'GRANT analyst TO "{login}"')
    await put(service, "new", "old", REPLACED)

    async with connected(as_login(database_url, login)) as analyst:
        await analyst.execute("SET ROLE analyst")
        row = await analyst.fetchrow("SELECT server_id, predecessor_id, since FROM server_successions")
        assert tuple(row or ()) == ("new", "old", REPLACED)
        for server in ("new", "twin"):
            months = await analyst.fetch("SELECT * FROM network_month($1, $2, as_of => $2)", server, NOW)
            totals = await analyst.fetch(
                "SELECT * FROM server_total($1, $2, $3) ORDER BY 2, 3", server, NOW - 72 * HOUR, NOW
            )
            if server == "new":
                expected = months, [tuple(row)[1:] for row in totals]
        assert (months, [tuple(row)[1:] for row in totals]) == expected


async def test_chains_and_links_divide_buckets_exactly(service: Client, database: asyncpg.Connection) -> None:
    """Random chains of servers, with links of series, in the middle of buckets of every width, against the rows."""
    random = Random(20251130)
    servers = ("a", "b", "c", "d")
    begin = NOW - timedelta(days=3)
    for number, server in enumerate(servers):
        await database.execute(
            "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) VALUES ($1, $1, $2, $2, $2)",
            server, begin,
        )  # fmt: skip
        for name in ("eth0", "wlan0"):
            await write(database, name, begin + timedelta(seconds=number), NOW, server=server, seconds=307)
    rows = await database.fetch(
        "SELECT time, server_id, interface_name, rx_bytes_delta AS rx FROM network_interface_metrics "
        "WHERE server_id = ANY ($1)", servers,
    )  # fmt: skip
    await refresh(database)
    lengths = set()
    for _ in range(8):
        await database.execute("DELETE FROM linkbeat.successions; DELETE FROM linkbeat.series_links")
        chain = random.sample(servers, random.randrange(2, 5))
        times = sorted(begin + timedelta(seconds=random.uniform(0, 250_000)) for _ in chain[1:])
        successions = list(zip(chain[1:], chain[:-1], times, strict=True))
        links = [
            (server, "wlan0", "eth0", since, since + timedelta(seconds=random.choice((13, 4_000, 90_000))))
            for server in random.sample(servers, 2)
            for since in [begin + timedelta(seconds=random.uniform(0, 200_000))]
        ]
        changes: list[tuple[str, tuple[Any, ...]]] = [
            ("successions (server_id, predecessor_id, since) VALUES ($1, $2, $3)", one) for one in successions
        ]
        changes += [
            ("series_links (server_id, series, into_series, since, until, is_sum) VALUES ($1,$2,$3,$4,$5, true)", one)
            for one in links
        ]  # fmt: skip
        for statement, values in random.sample(changes, len(changes)):
            await database.execute(f"INSERT INTO linkbeat.{statement}", *values)
        lengths.add(len(chain))

        def read_as(
            server: str, name: str, time: datetime, *, links: list[Any] = links, successions: list[Any] = successions
        ) -> tuple[str, str] | None:
            for of, series, into, since, until in links:
                if (of, series) == (server, name) and since <= time < until:
                    name = into
            if any(of == server and time < since for of, _, since in successions):
                return None  # another one was in its place
            for of, predecessor, since in successions:  # oldest first
                if predecessor == server and time < since:
                    server = of
            return server, name

        for level, seconds in LEVELS.items():
            expected: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
            for row in rows:
                key = read_as(row["server_id"], row["interface_name"], row["time"])
                if key is not None:
                    start = datetime.fromtimestamp(row["time"].timestamp() // seconds * seconds, UTC)
                    expected[*key, start][0] += row["rx"]
                    expected[*key, start][1] += 1
            found = {}
            for server in servers:
                for row in await database.fetch(
                    "SELECT * FROM linked_traffic($1, $2, '-infinity', 'infinity')", level, server
                ):
                    found[server, row["interface_name"], row["bucket"]] = [row["rx_bytes"], row["samples"]]
            assert found == expected, (level, successions, links)
    assert lengths == {2, 3, 4}
