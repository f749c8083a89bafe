"""Rates where heartbeats are rarer than buckets, or irregular: none is shown that the line did not carry."""

import random
from datetime import datetime, timedelta
from itertools import accumulate, pairwise, product
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from service.clock import Clock
from service.fleet import overview
from service.traffic import gauges, sparkline
from service.traffic.periods import PERIODS
from tests.helpers.support import Client, hours_ago, interface

NOW = hours_ago(0) + timedelta(seconds=30)
BPS = 96_000_000
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    for module in (sparkline, gauges, overview):
        monkeypatch.setattr(module, "keep_seconds", lambda _: 0)


def beats(
    times: list[float], interval: float | None, server_id: str = "seldom", names: tuple[str, ...] = ("eth0",)
) -> list[dict[str, Any]]:
    """Heartbeats so many seconds before NOW; each interface receives 96 Mb/s all the time, and sends a tenth of it."""
    return [
        {
            "server_id": server_id, "hostname": server_id, "boot_id": "b1", "primary_interface": "eth0",
            "timestamp": (NOW - timedelta(seconds=ago)).isoformat(),
            "network_interfaces": [
                interface(name, 10**15 - round(ago * BPS / 8), 10**14 - round(ago * BPS / 80), rx_packets=10**12,
                          tx_packets=10**12, kind="physical")
                for name in names
            ],
            "metrics": {"cpu_percent": 50.0},
            "filesystems": [{"mount_point": "/", "total_bytes": 100, "used_bytes": 40, "percent": 40.0}],
        } | ({} if interval is None else {"interval_seconds": interval})
        for ago in sorted(times, reverse=True)
    ]  # fmt: skip


def regular(interval: float, over: float, phase: float = 3.0) -> list[float]:
    return [phase + n * interval for n in range(int(over // interval) + 2)]


async def report(service: Client, bodies: list[dict[str, Any]]) -> None:
    # A few at a time: a server's heartbeats are stored one after the other, and a busy machine answers late.
    for start in range(0, len(bodies), 50):
        answer = await service.post_batch(bodies[start : start + 50])
        assert not answer["rejected"]


async def spark(service: Client, server_id: str = "seldom", **query: Any) -> dict[str, Any]:
    return await service.get(f"/metrics/sparkline/{server_id}/network", **query)


def check(points: list[dict[str, Any]], width: int, *, lines: int = 1, is_steady: bool = True) -> None:
    """Nowhere more than the line carries; and where heartbeats are steady, nowhere less but at the two ends."""
    assert points
    assert all(point["rx_bps"] <= BPS * lines for point in points)
    assert all(point["tx_bps"] <= BPS * lines / 10 for point in points)
    starts = [datetime.fromisoformat(point["timestamp"]) for point in points]
    assert starts == sorted(starts)
    if is_steady:
        assert all(later - earlier == timedelta(seconds=width) for earlier, later in pairwise(starts))
        assert all(point["rx_bps"] == pytest.approx(BPS * lines, rel=0.01) for point in points[1:-1])
        assert all(point["tx_bps"] == pytest.approx(BPS * lines / 10, rel=0.01) for point in points[1:-1])


STEADY = [
    (7, "1h", 60), (30, "1h", 60), (45, "1h", 60), (60, "1h", 60), (61, "1h", 120), (90, "1h", 120),
    (300, "1h", 300), (301, "1h", 600), (600, "1h", 600), (1_200, "1h", 1_200), (1_800, "1h", 1_800),
    (3_600, "1h", 3_600), (86_400, "1h", 3_600), (45, "24h", 900), (300, "24h", 900), (600, "24h", 900),
    (1_000, "24h", 1_800), (3_600, "24h", 3_600), (86_400, "24h", 86_400), (3_600, "7d", 3_600),
    (5_000, "7d", 7_200), (86_400, "7d", 86_400), (86_400, "30d", 86_400), (86_400, "1y", 86_400),
]  # fmt: skip


async def test_a_steady_line_is_steady_in_buckets_that_its_interval_fills(
    service: Client, subtests: pytest.Subtests
) -> None:
    for interval, period, width in STEADY:
        with subtests.test(name := f"every-{interval}-over-{period}"):
            over = max(min(PERIODS[period].duration_seconds, 300 * interval, 6.5 * 86_400) - 2 * interval, 2 * interval)
            await report(service, beats(regular(interval, over), interval, name))

            one = await spark(service, name, period=period, interface="eth0")
            total = await spark(service, name, period=period)
            grouped = await spark(service, name, period=period, group_by="interface")

            assert one["bucket_seconds"] == total["bucket_seconds"] == grouped["bucket_seconds"] == width
            check(one["data"], width)
            assert total["data"] == grouped["series"][0]["data"] == one["data"]
            since = NOW - PERIODS[period].duration
            assert all(datetime.fromisoformat(point["timestamp"]) >= since for point in one["data"])
            filled = (await spark(service, name, period=period, interface="eth0", fill="null"))["data"]
            assert len(filled) <= PERIODS[period].duration_seconds // width + 1
            known = [place for place, point in enumerate(filled) if point["rx_bps"] is not None]
            assert known == list(range(known[0], known[-1] + 1)), "no bucket in between is empty"
            assert [filled[place] for place in known] == one["data"]


async def test_wherever_in_the_buckets_the_heartbeats_come(service: Client, subtests: pytest.Subtests) -> None:
    for interval, seconds_into in product((300, 3_600), (0.0, 1.5, 59.0)):
        with subtests.test(name := f"every-{interval}-at-{seconds_into}"):
            await report(service, beats(regular(interval, 3_720, phase=seconds_into), interval, name))

            answer = await spark(service, name, interface="eth0")

            assert answer["bucket_seconds"] == interval
            check(answer["data"], interval)
            assert answer["data"][-1]["rx_bps"] in (pytest.approx(BPS, rel=0.01), 0.0)


@pytest.mark.parametrize("interval", [300, 600])
async def test_the_picture_has_the_lines_rate_as_its_peak(service: Client, interval: int) -> None:
    await report(service, beats(regular(interval, 3_720), interval))

    for period in ("1h", "24h"):
        answer = await service.http.get(
            "/api/v1/metrics/sparkline/seldom/network.svg", params={"period": period, "width": 600, "height": 200}
        )
        picture = ET.fromstring(answer.text)  # noqa: S314 - the service drew it
        said = (picture.findtext(f"{SVG}desc") or "").replace("\xa0", " ")
        assert said.startswith("Receiving 96.0 Mb/s, at most 96.0 Mb/s; sending 9.60 Mb/s, at most 9.60 Mb/s")
        if period == "1h":
            assert f"one value for each {interval // 60} minutes." in said
    gauge = ET.fromstring(  # noqa: S314 - the service drew it
        (await service.http.get("/api/v1/metrics/sparkline/seldom/cpu.svg", params={"period": "1h"})).text
    )
    assert "missing" not in (gauge.findtext(f"{SVG}desc") or "")


async def test_a_bucket_that_is_asked_for_is_no_narrower_either(service: Client, subtests: pytest.Subtests) -> None:
    await report(service, beats(regular(300, 3_720), 300))

    for bucket, width in (("1m", 300), ("2m", 600), ("5m", 300), ("7m", 420), ("10m", 600), ("20m", 1_200)):
        with subtests.test(bucket):
            answer = await spark(service, bucket=bucket, interface="eth0")

            assert answer["bucket_seconds"] == width
            check(answer["data"], width)


async def test_an_interval_that_changed_half_way(service: Client, subtests: pytest.Subtests) -> None:
    for before, after in ((300, 10), (10, 300), (600, 60), (45, 90)):
        with subtests.test(name := f"{before}-then-{after}"):
            old = beats([1_800 + before + n * before for n in range(2_400 // before)], before, name)
            new = beats([after / 2 + n * after for n in range(1_800 // after)], after, name)
            await report(service, old + new)

            answer = await spark(service, name, interface="eth0")

            check(answer["data"], answer["bucket_seconds"], is_steady=False)
            assert answer["bucket_seconds"] >= max(before, after)
            # The bucket in which it changed ends before the first heartbeat of the longer interval has come.
            lower = [point for point in answer["data"][1:-1] if point["rx_bps"] != pytest.approx(BPS, rel=0.01)]
            assert len(lower) <= 1


async def test_a_fleet_of_different_intervals_has_a_width_for_each_series_that_needs_one(service: Client) -> None:
    intervals = {"a": 30, "b": 300, "c": 45, "d": 3_600, "e": 600, "f": None, "g": 300}
    for server_id, interval in intervals.items():
        times = regular(interval or 30, 3_720)
        await report(service, beats(times, interval, server_id, names=("eth0", "wlan0")))

    answer = await service.get("/metrics/sparkline/network", period="1h")
    filled = await service.get("/metrics/sparkline/network", period="1h", fill="null", server=["b", "a"])
    columns = await service.get(
        "/fleet/sparklines", period="1h", series=[f"{one}/{name}" for one in intervals for name in ("eth0", "wlan0")]
    )

    assert answer["bucket_seconds"] == columns["bucket_seconds"] == 60
    widths = {one["server_id"]: one.get("bucket_seconds") for one in answer["series"]}
    assert widths == {"a": None, "b": 300, "c": None, "d": 3_600, "e": 600, "f": None, "g": 300}
    names = [(one["server_id"], one["interface"]) for one in answer["series"]]
    assert names == [(server_id, name) for server_id in intervals for name in ("eth0", "wlan0")]
    paged: list[dict[str, Any]] = []
    query: dict[str, Any] = {"period": "1h", "limit": 3}  # a server's two interfaces are on different pages
    while "after" not in query or query["after"] is not None:
        page = await service.get("/metrics/sparkline/network", **query)
        paged += page["series"]
        query["after"] = page["next"]
    assert paged == answer["series"]
    for one in answer["series"]:
        check(one["data"], widths[one["server_id"]] or 60)
        alone = await spark(service, one["server_id"], interface=one["interface"])
        assert alone["data"] == one["data"]
    assert [len(one["data"]) for one in filled["series"]] == [60, 60, 12, 12]
    assert {one["server_id"]: one.get("bucket_seconds") for one in columns["series"]} == widths
    for shown, one in zip(answer["series"], columns["series"], strict=True):
        assert [round(point["rx_bps"]) for point in shown["data"]] == [bps for bps in one["rx_bps"] if bps is not None]
        start = datetime.fromisoformat(one.get("first", columns["first"]))
        width = one.get("bucket_seconds", 60)
        at = [start + timedelta(seconds=width * n) for n, bps in enumerate(one["rx_bps"]) if bps is not None]
        assert at == [datetime.fromisoformat(point["timestamp"]) for point in shown["data"]]


async def test_the_sum_over_interfaces_is_what_they_carried_together(service: Client) -> None:
    await report(service, beats(regular(300, 3_720), 300, names=("eth0", "eth1", "eth2")))

    answer = await spark(service)

    assert (answer["bucket_seconds"], answer["interfaces"]) == (300, ["eth0", "eth1", "eth2"])
    check(answer["data"], 300, lines=3)


async def test_behind_an_outage_the_rate_is_one_that_the_line_carried(
    service: Client, subtests: pytest.Subtests
) -> None:
    for interval, period in ((30, "24h"), (300, "24h"), (30, "7d"), (None, "24h")):
        with subtests.test(name := f"every-{interval}-over-{period}"):
            step = interval or 30
            times = [5.0 + n * step for n in range(1_200 // step)] + [8_405.0 + n * step for n in range(1_200 // step)]
            await report(service, beats(times, interval, name))

            answer = await spark(service, name, period=period, interface="eth0")
            history = await service.get(
                "/traffic/history", server=name, bucket="15m", since=(NOW - timedelta(hours=4)).isoformat()
            )

            check(answer["data"], answer["bucket_seconds"], is_steady=False)
            check(history["data"], 900, is_steady=False)
            moved = round((max(times) - min(times)) * BPS / 8)
            assert sum(point["rx_bytes"] for point in answer["data"]) == moved
            assert sum(point["rx_bytes"] for point in history["data"]) == moved
            behind = max(answer["data"], key=lambda point: point["rx_bytes"])
            assert behind["rx_bps"] == pytest.approx(BPS, rel=0.01)


async def test_irregular_heartbeats_show_no_rate_above_the_highest_between_two(
    service: Client, subtests: pytest.Subtests
) -> None:
    for seed in range(6):
        with subtests.test(name := f"seed-{seed}"):
            draw = random.Random(seed)
            interval = draw.choice([20, 45, 60, 100])
            steps = [
                interval * draw.uniform(0.7, 1.3) if draw.random() > 0.1 else draw.uniform(1, 900) for _ in range(200)
            ]
            times = [float(round(one)) for one in dict.fromkeys(accumulate(steps))]
            await report(service, beats(times, interval, name))

            for query in ({}, {"bucket": "3m"}, {"period": "24h"}, {"interface": "eth0"}, {"period": "7d"}):
                answer = await spark(service, name, **query)
                check(answer["data"], answer["bucket_seconds"], is_steady=False)
                since = NOW - timedelta(hours=1, seconds=answer["bucket_seconds"])  # in which the first bucket begins
                inside = [point for point in answer["data"] if datetime.fromisoformat(point["timestamp"]) > since]
                assert sum(point["rx_bytes"] for point in inside) > 0
            history = await service.get("/traffic/history", server=name, group_by="server", bucket="1m", limit=10_000)
            check(history["data"], 60, is_steady=False)


async def test_history_of_any_width_has_no_rate_above_the_lines(service: Client) -> None:
    await report(service, beats(regular(300, 3_720), 300, names=("eth0", "eth1")))

    for bucket in ("1m", "5m", "15m", "1h"):
        one = await service.get("/traffic/history", server="seldom", interface="eth0", bucket=bucket)
        check(one["data"], 0, is_steady=False)
        total = await service.get("/traffic/history", server="seldom", group_by="server", bucket=bucket)
        check(total["data"], 0, lines=2, is_steady=False)
    assert max(point["rx_bps"] for point in one["data"]) == pytest.approx(BPS, rel=0.01)


async def test_octets_are_the_same_in_whatever_buckets(service: Client) -> None:
    await report(service, beats(regular(300, 86_400), 300))

    hour = await spark(service, interface="eth0")
    day = await spark(service, period="24h", interface="eth0")

    assert sum(point["rx_bytes"] for point in hour["data"]) % (300 * BPS // 8) == 0
    first = datetime.fromisoformat(hour["data"][0]["timestamp"])
    assert len(hour["data"]) == (NOW - timedelta(seconds=3) - first) // timedelta(seconds=300) + 1
    assert {point["rx_bytes"] for point in day["data"][1:-1]} == {900 * BPS // 8}


async def test_gauges_use_buckets_that_the_interval_fills(service: Client) -> None:
    await report(service, beats(regular(300, 3_720), 300))

    for metric, query in (("cpu", {}), ("filesystem", {"mount_point": "/"})):
        answer = await service.get(f"/metrics/sparkline/seldom/{metric}", fill="null", **query)
        assert answer["bucket_seconds"] == 300
        assert [one["avg"] for one in answer["data"]] == [50.0 if metric == "cpu" else 40.0] * 12


async def test_what_a_server_does_not_say_is_thirty_seconds(service: Client) -> None:
    """Between its heartbeats there is a gap then; what is shown is still no more than the line carried."""
    await report(service, beats(regular(300, 3_720), None))

    answer = await spark(service, interface="eth0")

    assert answer["bucket_seconds"] == 60
    check(answer["data"], 60, is_steady=False)
    assert {point["rx_bps"] for point in answer["data"][1:]} == {BPS}
