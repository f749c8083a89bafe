"""GET /api/v1/metrics/sparkline/…: traffic per bucket, as charts draw it."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from service.clock import Clock
from service.traffic import sparkline
from service.traffic.periods import PERIODS, grid
from tests.helpers.support import Client, heartbeat, hours_ago, interface

pytestmark = pytest.mark.usefixtures("statements")  # before `service`, whose statements they are

# The clock of this module: every period ends here, whatever the minute in which a test runs.
NOW = hours_ago(0) + timedelta(seconds=30)
ORIGIN = datetime(2000, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    # Each request reads: what is kept, test_answers.py has.
    monkeypatch.setattr(sparkline, "keep_seconds", lambda _: 0)


def floor(moment: datetime, seconds: int) -> datetime:
    return moment - (moment - ORIGIN) % timedelta(seconds=seconds)


async def spark(service: Client, server_id: str = "nas", **query: Any) -> dict[str, Any]:
    return await service.get(f"/metrics/sparkline/{server_id}/network", **query)


def bytes_by_start(data: list[dict[str, Any]]) -> list[tuple[datetime, int, int]]:
    return [(datetime.fromisoformat(point["timestamp"]), point["rx_bytes"], point["tx_bytes"]) for point in data]


async def post_steadily(service: Client, hours: int, step_minutes: int = 5) -> None:
    """Heartbeats up to now: in each step, eth0 receives 1,000 and sends 10, wlan0 receives 7 and sends 3."""
    count, step = hours * 60 // step_minutes, timedelta(minutes=step_minutes)
    bodies = [
        heartbeat(at=NOW - (count - n) * step, eth0=(n * 1_000, n * 10), wlan0=(n * 7, n * 3)) for n in range(count + 1)
    ]
    # A few at a time: a server's heartbeats are stored one after the other, and a busy machine answers late.
    for start in range(0, len(bodies), 50):
        await service.post_batch(bodies[start : start + 50])


async def test_case_17_24_hours_of_two_interfaces_are_a_series_each(service: Client) -> None:
    await post_steadily(service, 24)

    series = (await spark(service, period="24h", group_by="interface"))["series"]

    assert [one["interface"] for one in series] == ["eth0", "wlan0"]
    assert {point["rx_bytes"] for point in series[0]["data"][1:-1]} == {3_000}
    assert {point["rx_bytes"] for point in series[1]["data"][1:-1]} == {21}
    assert len(series[0]["data"]) >= 96


async def test_case_18_series_are_never_mixed(service: Client) -> None:
    await post_steadily(service, 24)

    series = (await spark(service, period="24h", group_by="interface"))["series"]
    alone = {name: (await spark(service, period="24h", interface=name))["data"] for name in ("eth0", "wlan0")}

    assert {one["interface"]: one["data"] for one in series} == alone
    assert all(point["rx_bytes"] % 1_000 == 0 for point in alone["eth0"])
    assert all(point["rx_bytes"] % 7 == 0 and point["rx_bytes"] <= 21 for point in alone["wlan0"])


async def test_case_19_a_plain_sparkline_is_ordered_with_rx_and_tx(service: Client) -> None:
    await post_steadily(service, 1)

    answer = await spark(service)

    starts = [point["timestamp"] for point in answer["data"]]
    assert starts == sorted(starts)
    assert len(set(starts)) == len(starts)
    assert all(point["timestamp"].endswith("Z") for point in answer["data"])
    assert answer | {"data": []} == {
        "server_id": "nas", "metric": "network", "interface": None, "period": "1h", "bucket_seconds": 60, "data": [],
        "interfaces": ["eth0", "wlan0"],
    }  # fmt: skip
    # It moved in the five minutes since the heartbeat before.
    assert answer["data"][-1] == {
        "timestamp": NOW.replace(second=0).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rx_bytes": 1_007, "tx_bytes": 13, "rx_bps": 26.9, "tx_bps": 0.4,
    }  # fmt: skip


async def test_case_20_of_one_interface_only_that(service: Client) -> None:
    await post_steadily(service, 1)

    answer = await spark(service, interface="eth0")

    assert answer["interface"] == "eth0"
    assert "interfaces" not in answer
    assert {(point["rx_bytes"], point["tx_bytes"]) for point in answer["data"][1:]} == {(1_000, 10)}


async def test_case_21_one_hour_of_48_is_only_the_last_hour(service: Client) -> None:
    await post_steadily(service, 48)

    data = bytes_by_start((await spark(service, period="1h", interface="eth0"))["data"])

    # Samples stand at half a minute; the bucket of the first lies before the period.
    assert data == [(NOW.replace(second=0) - timedelta(minutes=m), 1_000, 10) for m in range(55, -1, -5)]
    assert all(start >= NOW - timedelta(hours=1) for start, _, _ in data)


async def test_case_22_an_unknown_interface_has_no_points(service: Client) -> None:
    await post_steadily(service, 1)

    for name in ("eth9", "ETH0", "eth", "", "eth0\0", "br-ünï", "a/b", "*"):
        answer = await spark(service, interface=name)
        assert (answer["data"], answer["interface"]) == ([], name)
    assert (await spark(service, interface="eth9", group_by="interface"))["series"] == []


async def test_an_interface_is_found_by_whatever_the_kernel_calls_it(service: Client) -> None:
    for n in range(2):
        interfaces = [interface("br-ünï 0+&*", n * 9)]
        await service.post(heartbeat(at=NOW - timedelta(minutes=1 - n)) | {"network_interfaces": interfaces})

    assert sum(point["rx_bytes"] for point in (await spark(service, interface="br-ünï 0+&*"))["data"]) == 9


async def test_the_fleet_is_the_same_once_its_size_is_known(service: Client) -> None:
    async def fleet(limit: int) -> list[dict[str, Any]]:  # another limit is another response in the cache
        answer = await service.get("/metrics/sparkline/network", limit=limit)
        found: list[dict[str, Any]] = answer["series"]
        return found

    for server in ("nas", "pi"):
        for minute in (2, 1):
            at = NOW - timedelta(minutes=minute)
            await service.post(heartbeat(server, at=at, eth0=(5_000 - minute, 10), wlan0=(7_000 - minute, 3)))
    first = await fleet(1_000)

    assert [(one["server_id"], one["interface"]) for one in first] == [*product(("nas", "pi"), ("eth0", "wlan0"))]
    assert await fleet(999) == first
    assert await fleet(2) == first[:2]
    assert await fleet(998) == first
    await service.post(heartbeat("another", at=NOW - timedelta(minutes=1), eth0=(0, 0)))
    assert [one["server_id"] for one in await fleet(997)] == ["another", "nas", "nas", "pi", "pi"]
    assert [one["server_id"] for one in await fleet(3)] == ["another", "nas", "nas"]
    assert (await fleet(996))[1:] == first


async def test_an_unknown_server_is_404(service: Client) -> None:
    for query in ({}, {"interface": "eth0"}, {"group_by": "interface"}, {"fill": "null"}):
        answer = await service.http.get("/api/v1/metrics/sparkline/nobody/network", params=query)

        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_server")
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_server_that_never_had_an_interface_has_no_points(service: Client) -> None:
    await service.post(heartbeat())

    answer = await spark(service)

    assert (answer["data"], answer["interfaces"]) == ([], [])


async def test_what_there_is_not_is_422_naming_what_there_is(service: Client) -> None:
    await service.post(heartbeat())
    cases: list[tuple[dict[str, str], str, list[str]]] = [
        ({"period": "2h"}, "period", ["1h", "24h", "7d", "30d", "1y"]),
        ({"period": ""}, "period", ["1h", "24h", "7d", "30d", "1y"]),
        ({"bucket": "90s"}, "bucket", ["multiple of 60 seconds", "1h"]),
        ({"period": "24h", "bucket": "20m"}, "bucket", ["multiple of 900 seconds", "24h"]),
        ({"bucket": "2h"}, "bucket", ["up to 3600"]),
        ({"bucket": "often"}, "bucket", ["5m"]),
        ({"fill": "0"}, "fill", ["'0'"]),
    ]

    for path, (query, field, named) in product(("nas/network", "network"), cases):
        answer = await service.http.get(f"/api/v1/metrics/sparkline/{path}", params=query)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), (path, query, answer.text)
        (error,) = answer.json()["errors"]
        assert error["path"] == field
        assert [words for words in named if words not in error["reason"]] == [], (path, query, error)


async def test_the_newest_heartbeat_shows_at_once(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat(at=NOW - timedelta(minutes=2), eth0=(0, 0)))
    await database.execute(f"CALL linkbeat.refresh_aggregates('{NOW - timedelta(minutes=1)}')")

    for total in (10, 25):
        await service.post(heartbeat(at=NOW - timedelta(seconds=30 - total), eth0=(total, 0)))

        for period in PERIODS:
            assert sum(point["rx_bytes"] for point in (await spark(service, period=period))["data"]) == total, period


async def test_the_buckets_sum_to_the_counters_difference(service: Client) -> None:
    readings = [(0, 0), (10**12, 1), (10**12 + 5, 10**9), (3 * 10**12, 10**9)]
    for n, reading in enumerate(readings):
        await service.post(heartbeat(at=NOW - timedelta(minutes=50 - 10 * n), eth0=reading))

    for query in ({"period": "1h"}, {"period": "1h", "bucket": "7m"}, {"period": "24h"}, {"period": "1y"}):
        data = (await spark(service, **query))["data"]

        assert sum(point["rx_bytes"] for point in data) == readings[-1][0] - readings[0][0]
        assert sum(point["tx_bytes"] for point in data) == readings[-1][1] - readings[0][1]


async def test_a_bucket_without_traffic_is_0_and_one_without_samples_is_null(service: Client) -> None:
    for minutes, total in ((10, 100), (9, 100), (8, 160), (2, 200)):
        await service.post(heartbeat(at=NOW - timedelta(minutes=minutes), eth0=(total, 0)))
    null = {"rx_bytes": None, "tx_bytes": None, "rx_bps": None, "tx_bps": None}

    gaps = (await spark(service, interface="eth0"))["data"]
    filled = (await spark(service, interface="eth0", fill="null"))["data"]
    grouped = (await spark(service, group_by="interface", fill="null"))["series"][0]["data"]

    starts = [NOW.replace(second=0) - timedelta(minutes=59 - n) for n in range(60)]
    assert [datetime.fromisoformat(point["timestamp"]) for point in filled] == starts
    assert [point for point in filled if point["rx_bytes"] is not None] == gaps
    assert [point["rx_bytes"] for point in gaps] == [0, 0, 60, 40]
    assert all(point | {"timestamp": ""} == {"timestamp": "", **null} for point in filled if point not in gaps)
    assert grouped == filled


async def test_the_sum_counts_traffic_once_at_the_lowest_interfaces_and_names_them(service: Client) -> None:
    for n in range(2):
        interfaces = [
            interface("eth0", n * 600, n * 60),
            interface("eth1", n * 400, n * 40),
            interface("bond0", n * 1_000, n * 100, kind="bond", stacked_on=["eth0", "eth1"]),
            interface("bond0.7", n * 300, n * 30, kind="vlan", stacked_on=["bond0"]),
            interface("docker0", n * 5, n),
        ]
        await service.post(heartbeat(at=NOW - timedelta(minutes=1 - n)) | {"network_interfaces": interfaces})

    for query in ({}, {"bucket": "7m"}, {"period": "7d"}):
        answer = await spark(service, **query)

        assert answer["interfaces"] == ["docker0", "eth0", "eth1"]
        assert sum(point["rx_bytes"] for point in answer["data"]) == 1_005
        assert sum(point["tx_bytes"] for point in answer["data"]) == 101
    series = (await spark(service, group_by="interface"))["series"]
    assert [one["interface"] for one in series] == ["bond0", "bond0.7", "docker0", "eth0", "eth1"]
    assert sum(point["rx_bytes"] for point in (await spark(service, interface="bond0"))["data"]) == 1_000


async def test_a_clock_that_runs_ahead_adds_buckets_after_now(service: Client) -> None:
    for n in range(2):
        await service.post(heartbeat(at=NOW + timedelta(minutes=1 + n), eth0=(n * 9, n)))

    data = bytes_by_start((await spark(service, interface="eth0"))["data"])

    assert data == [(NOW.replace(second=0) + timedelta(minutes=1 + n), n * 9, n) for n in range(2)]
    assert len((await spark(service, interface="eth0", fill="null"))["data"]) == 60


async def test_a_late_heartbeat_moves_traffic_to_where_it_was(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat(at=NOW - timedelta(minutes=30), eth0=(0, 0)))
    await service.post(heartbeat(at=NOW - timedelta(minutes=10), eth0=(1_000, 0)))
    before = [rx for _, rx, _ in bytes_by_start((await spark(service))["data"])]

    await service.post(heartbeat(at=NOW - timedelta(minutes=20), eth0=(900, 0)))
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    assert before == [0, 1_000]
    assert [rx for _, rx, _ in bytes_by_start((await spark(service))["data"])] == [0, 900, 100]


SERIES = (("nas", "eth0"), ("nas", "wlan0"), ("pi", "eth0"))


@pytest.fixture(scope="module")
def history_url(database_server: str, template: str) -> Iterator[str]:
    """A database that is written once, for tests that only read."""
    name = f"linkbeat_history_{uuid.uuid4().hex[:8]}"
    url = urlunsplit(urlsplit(database_server)._replace(path=f"/{name}"))
    asyncio.run(_execute(database_server, f"CREATE DATABASE {name} TEMPLATE {template}"))
    asyncio.run(_write_history(url))
    yield url
    asyncio.run(_execute(database_server, f"DROP DATABASE {name} WITH (FORCE)"))


class TestHistory:
    """Over a year of two servers, dense at its end, written once: raw rows only, the aggregates follow."""

    @pytest.fixture
    def database_url(self, history_url: str) -> str:
        return history_url

    async def test_every_period_sums_the_raw_deltas_of_its_buckets(
        self,
        service: Client,
        database: asyncpg.Connection,
        statements: list[LoggedQuery],
        subtests: pytest.Subtests,
    ) -> None:
        for period in PERIODS:
            with subtests.test(period):
                data = (await spark(service, period=period, interface="eth0"))["data"]

                asked = grid(period, None, NOW)
                assert bytes_by_start(data) == await _recomputed(database, asked.bucket_seconds, asked.first)
                assert PERIODS[period].relation in statements[-1].query
                assert "network_interface_metrics" not in statements[-1].query

    BUCKETS = (
        ("1h", "5m", 300), ("1h", "7m", 420), ("24h", "1h", 3_600), ("7d", "1d", 86_400), ("30d", "1h", 3_600),
        ("30d", "5h", 18_000), ("1y", "7d", 604_800), ("1y", "30d", 2_592_000),
    )  # fmt: skip

    async def test_another_bucket_is_cut_from_the_same_aggregate(
        self, service: Client, database: asyncpg.Connection, subtests: pytest.Subtests
    ) -> None:
        for period, bucket, seconds in self.BUCKETS:
            with subtests.test(f"{bucket} of {period}"):
                answer = await spark(service, period=period, bucket=bucket, interface="eth0")

                data = bytes_by_start(answer["data"])
                assert answer["bucket_seconds"] == seconds
                assert data == await _recomputed(database, seconds, grid(period, bucket, NOW).first)
                assert {start for start, _, _ in data} <= set(grid(period, bucket, NOW).starts())
                for point in answer["data"]:
                    assert point["rx_bps"] == pytest.approx(point["rx_bytes"] * 8 / seconds, abs=0.0501)
                    assert point["tx_bps"] == pytest.approx(point["tx_bytes"] * 8 / seconds, abs=0.0501)

    async def test_nothing_is_older_than_the_period(self, service: Client, subtests: pytest.Subtests) -> None:
        for period in PERIODS:
            with subtests.test(period):
                data = bytes_by_start((await spark(service, period=period))["data"])

                assert data[0][0] >= NOW - PERIODS[period].duration
                assert data[0][0] < NOW - PERIODS[period].duration + timedelta(
                    seconds=2 * PERIODS[period].bucket_seconds
                )
                assert data[-1][0] == floor(NOW, PERIODS[period].bucket_seconds)

    async def test_without_an_interface_it_is_the_sum_of_the_series(
        self, service: Client, subtests: pytest.Subtests
    ) -> None:
        for period in PERIODS:
            with subtests.test(period):
                plain = await spark(service, period=period)
                series = (await spark(service, period=period, group_by="interface"))["series"]

                assert plain["interfaces"] == [one["interface"] for one in series] == ["eth0", "wlan0"]
                sums: dict[str, int] = {}
                for one in series:
                    for point in one["data"]:
                        sums[point["timestamp"]] = sums.get(point["timestamp"], 0) + point["rx_bytes"]
                assert {point["timestamp"]: point["rx_bytes"] for point in plain["data"]} == sums

    async def test_the_fleet_in_one_answer_is_what_each_server_answers(self, service: Client) -> None:
        answer = await service.get("/metrics/sparkline/network", period="24h")

        assert (answer["metric"], answer["period"], answer["bucket_seconds"]) == ("network", "24h", 900)
        assert tuple((one["server_id"], one["interface"]) for one in answer["series"]) == SERIES
        for one in answer["series"]:
            alone = await spark(service, one["server_id"], period="24h", interface=one["interface"])
            assert one["data"] == alone["data"]

    async def test_named_servers_of_the_fleet(self, service: Client) -> None:
        async def servers(*named: str) -> list[str]:
            answer = await service.get("/metrics/sparkline/network", server=list(named), bucket="5m", fill="null")
            assert all(len(one["data"]) in (12, 13) for one in answer["series"])
            return [one["server_id"] for one in answer["series"]]

        assert await servers("pi") == ["pi"]
        assert await servers("pi", "nas", "pi") == ["nas", "nas", "pi"]
        assert await servers("nobody", "pi\0") == []

    async def test_the_pages_of_the_fleet_together_are_all_of_it(
        self, service: Client, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
    ) -> None:
        for limit, most in product((1, 2, 3, 1_000), (1, 50_000)):
            with subtests.test(f"{limit} a page, {most} points"):
                monkeypatch.setattr(sparkline, "MAX_POINTS", most)
                found: list[tuple[str, str]] = []
                query: dict[str, Any] = {"limit": limit, "period": "24h", "fill": "null"}
                pages = 0

                while True:
                    answer = await service.get("/metrics/sparkline/network", **query)
                    assert len(answer["series"]) <= (1 if most == 1 else limit)
                    found += [(one["server_id"], one["interface"]) for one in answer["series"]]
                    pages += 1
                    if answer["next"] is None:
                        break
                    query["after"] = answer["next"]

                assert tuple(found) == SERIES
                assert pages <= 2 * len(SERIES) + 1

    async def test_a_page_ends_with_the_servers_that_are_named(self, service: Client) -> None:
        first = await service.get("/metrics/sparkline/network", server=["nas", "pi"], limit=2)
        rest = await service.get("/metrics/sparkline/network", server=["nas", "pi"], limit=2, after=first["next"])

        assert [one["server_id"] for one in first["series"] + rest["series"]] == ["nas", "nas", "pi"]

    async def test_at_most_500_servers_are_named(self, service: Client) -> None:
        path, names = "/api/v1/metrics/sparkline/network", [f"server-{n}" for n in range(501)]

        assert (await service.http.get(path, params={"server": names[:500]})).status_code == 200
        refused = await service.http.get(path, params={"server": names})

        assert refused.status_code == 422
        assert refused.json()["errors"] == [{"path": "server", "reason": "at most 500 names are allowed, got 501"}]

    async def test_a_cursor_that_was_made_up_is_refused(self, service: Client, subtests: pytest.Subtests) -> None:
        for after in ("x", "W10=", "WzEsMl0=", "WyJhIl0="):
            with subtests.test(after):
                refused = await service.http.get("/api/v1/metrics/sparkline/network", params={"after": after})

                assert refused.status_code == 422
                assert refused.json()["errors"][0]["path"] == "after"

    REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
        ("nas/network", {}),
        ("nas/network", {"interface": "eth0", "period": "7d"}),
        ("nas/network", {"group_by": "interface", "period": "1y", "fill": "null"}),
        ("nas/network", {"interface": "eth9"}),
        ("nobody/network", {}),
        ("network", {"period": "30d"}),
        ("network", {"server": ["pi", "nas"]}),
    )

    async def test_a_request_is_one_statement(
        self, service: Client, statements: list[LoggedQuery], subtests: pytest.Subtests
    ) -> None:
        for path, query in self.REQUESTS:
            with subtests.test(f"{path} {query}"):
                # A connection that meets a type of array for the first time asks what that is.
                await service.http.get(f"/api/v1/metrics/sparkline/{path}", params=query)
                statements.clear()

                await service.http.get(f"/api/v1/metrics/sparkline/{path}", params=query)

                # Only a name without samples is looked up: it may be what the system calls a series now.
                expected = 2 if query.get("interface") == "eth9" else 1
                assert len(statements) == expected, [one.query for one in statements]

    async def test_a_refresh_changes_no_answer(self, service: Client, database: asyncpg.Connection) -> None:
        asked = [{"period": period, "group_by": "interface"} for period in PERIODS]
        before = [await spark(service, **query) for query in asked]

        await database.execute("CALL linkbeat.refresh_aggregates(now())")

        assert [await spark(service, **query) for query in asked] == before

    async def test_it_touches_the_chunks_of_its_period_in_one_aggregate_and_the_newest_of_what_that_is_made_of(
        self,
        service: Client,
        database: asyncpg.Connection,
        statements: list[LoggedQuery],
        subtests: pytest.Subtests,
    ) -> None:
        queries: tuple[dict[str, str], ...] = ({"interface": "eth0"}, {}, {"group_by": "interface"})
        for (period, chunk), query in product((("1h", DAY), ("24h", 7 * DAY), ("7d", 7 * DAY)), queries):
            with subtests.test(f"{period} {query}"):
                await database.execute(f"CALL linkbeat.refresh_aggregates('{NOW - timedelta(minutes=2)}')")
                await spark(service, period=period, **query)

                touched = await _touched_chunks(database, statements[-1])

                relation, duration = PERIODS[period].relation, PERIODS[period].duration
                tail = {"network_traffic_1m", "network_interface_metrics"} - {relation}
                ends = {name: [end for of, _, end in touched if of == name] for name in {of for of, _, _ in touched}}
                assert set(ends) <= {relation} | tail
                assert 1 <= len(ends[relation]) <= duration // chunk + 2
                assert all(end > NOW - duration for end in ends[relation])
                # The tail begins at most one bucket and the refresh's two minutes ago, so in one chunk or in two.
                assert all(end > NOW - timedelta(hours=1, minutes=4) for name in tail for end in ends.get(name, []))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def _write_history(url: str) -> None:
    """Samples every 30 s in the last 2 hours, then rarer; none between 30 and 20 minutes ago, a gap."""
    connection = await asyncpg.connect(url)
    # Kept for as long as it reaches back, and refreshed by the test alone: policies that start meanwhile would be half
    # done.
    await connection.execute("UPDATE linkbeat.configuration SET days = 400 WHERE days < 400")
    await connection.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs "
        "WHERE proc_name = 'policy_refresh_continuous_aggregate'"
    )
    for n, (server_id, name) in enumerate(SERIES, start=1):
        await connection.execute(
            "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at) "
            "VALUES ($1, $1, $2, $2, $2) ON CONFLICT DO NOTHING",
            server_id,
            NOW,
        )
        await connection.execute(
            """
            INSERT INTO network_interface_metrics (
                server_id, interface_name, time, is_up, counts_64bit, delta_kind, elapsed_ms, rx_bytes, tx_bytes,
                rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta)
            SELECT $1, $2, time, true, true, 'normal', 30000, 0, 0, 0, 0,
                   abs(hashint8(extract(epoch FROM time)::bigint * 10 + $4::int)::bigint), 1000 + $4::int, 3, 2
            FROM (
                SELECT generate_series($3::timestamptz - INTERVAL '2 hours', $3, '30 seconds') AS time
                UNION SELECT generate_series($3 - INTERVAL '25 hours', $3, '5 minutes')
                UNION SELECT generate_series($3 - INTERVAL '7 days', $3 - INTERVAL '6 days', '1 hour')
                UNION SELECT generate_series($3 - INTERVAL '30 days', $3 - INTERVAL '29 days', '2 hours')
                UNION SELECT generate_series($3 - INTERVAL '364 days', $3, '28 days')
            ) t
            WHERE time NOT BETWEEN $3 - INTERVAL '30 minutes' AND $3 - INTERVAL '20 minutes'
            """,
            server_id,
            name,
            NOW,
            n,
        )
    await connection.close()


async def _recomputed(database: asyncpg.Connection, seconds: int, first: datetime) -> list[tuple[datetime, int, int]]:
    """nas eth0 from raw rows by plain date_bin: nothing of the aggregates or of time_bucket is used."""
    rows = await database.fetch(
        "SELECT date_bin(make_interval(secs => $1), time, $2) AS bucket, "
        "sum(rx_bytes_delta)::bigint, sum(tx_bytes_delta)::bigint FROM network_interface_metrics "
        "WHERE server_id = 'nas' AND interface_name = 'eth0' AND time >= $3 GROUP BY 1 ORDER BY 1",
        seconds,
        ORIGIN,
        first,
    )
    return [tuple(row) for row in rows]


async def _touched_chunks(database: asyncpg.Connection, statement: LoggedQuery) -> set[tuple[str, str, datetime]]:
    """What a statement really reads: (relation, chunk, end of its range)."""
    # As the service has it: planned once for all series.
    arguments = ", ".join(f"'{argument}'" for argument in statement.args)
    await database.execute("SET plan_cache_mode = force_generic_plan")
    await database.execute(f"PREPARE sparkline AS {statement.query}")
    plan = json.loads(
        await database.fetchval(f"EXPLAIN (ANALYZE, COSTS off, FORMAT JSON) EXECUTE sparkline ({arguments})")
    )
    await database.execute("DEALLOCATE sparkline")
    scanned: set[str] = set()

    def walk(node: dict[str, Any]) -> None:
        if node.get("Actual Loops", 0) > 0:
            scanned.update({node["Relation Name"]} if "Relation Name" in node else ())
            for below in node.get("Plans", []):
                walk(below)

    walk(plan[0]["Plan"])
    rows = await database.fetch(
        "SELECT chunk_name, hypertable_name, range_end FROM timescaledb_information.chunks WHERE chunk_name = ANY ($1)",
        list(scanned),
    )
    names = {
        row["materialization_hypertable_name"]: row["view_name"]
        for row in await database.fetch(
            "SELECT materialization_hypertable_name, view_name FROM timescaledb_information.continuous_aggregates"
        )
    }
    return {
        (
            names.get(row["hypertable_name"], row["hypertable_name"].removeprefix("kept_")),
            row["chunk_name"],
            row["range_end"],
        )
        for row in rows
    }
