"""GET /api/v1/metrics/sparkline/{server_id}/cpu, /memory, /disk and /filesystem."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from service.clock import Clock
from service.traffic import gauges
from service.traffic.periods import PERIODS
from tests.helpers.plans import old_chunks_read
from tests.helpers.support import Client, heartbeat, hours_ago

NOW = hours_ago(0) + timedelta(seconds=30)
HIGHEST = 2**64 - 1


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    monkeypatch.setattr(gauges, "keep_seconds", lambda _: 0)


def beat(minutes_ago: float, busy: float | None, **filesystem: Any) -> dict[str, Any]:
    """A heartbeat whose processor, memory and disk are as busy as each other; and a filesystem, if one is given."""
    names = ("cpu_percent", "memory_percent", "disk_percent", "load_1m", "temperature_celsius")
    body = heartbeat(at=NOW - timedelta(minutes=minutes_ago)) | {
        "metrics": {} if busy is None else dict.fromkeys(names, busy)
    }
    return body | ({"filesystems": [{"device": "/dev/sda1", "fs_type": "ext4"} | filesystem]} if filesystem else {})


UNITS = {"load": "processes", "temperature": "celsius"}


@pytest.mark.parametrize("metric", ["cpu", "memory", "disk", "load", "temperature"])
async def test_a_bucket_has_the_lowest_highest_and_mean_of_its_samples(service: Client, metric: str) -> None:
    for minutes_ago, percent in ((61, 99), (5.4, 10), (5.2, 20), (5.0, 60), (3, None), (0, 50)):
        await service.post(beat(minutes_ago, percent))

    answer = await service.get(f"/metrics/sparkline/nas/{metric}")

    assert answer | {"data": []} == {
        "server_id": "nas", "metric": metric, "unit": UNITS.get(metric, "percent"), "period": "1h",
        "bucket_seconds": 60, "data": [],
    }  # fmt: skip
    assert [(one["min"], one["max"], one["avg"]) for one in answer["data"]] == [(10, 60, 30), (50, 50, 50)]
    grid = (await service.get(f"/metrics/sparkline/nas/{metric}", fill="null"))["data"]
    assert (len(grid), [one["avg"] for one in grid[-6:]]) == (60, [30, None, None, None, None, 50])


async def test_a_machine_without_sensors_has_no_temperature_and_a_frozen_one_has(service: Client) -> None:
    await service.post(heartbeat("plain", at=NOW) | {"metrics": {"cpu_percent": 1}})
    for server, celsius in (("frozen", -40.5), ("hot", 149.9)):
        await service.post(heartbeat(server, at=NOW) | {"metrics": {"temperature_celsius": celsius}})

    found = {}
    for server in ("plain", "frozen", "hot"):
        data = (await service.get(f"/metrics/sparkline/{server}/temperature"))["data"]
        found[server] = [(point["min"], point["max"], point["avg"]) for point in data]
    assert found == {"plain": [], "frozen": [(-40.5,) * 3], "hot": [(149.9,) * 3]}
    drawn = await service.http.get("/api/v1/metrics/sparkline/frozen/temperature.svg")
    assert "At -40.5\N{NO-BREAK SPACE}°C" in drawn.text


@pytest.mark.parametrize("celsius", [150, -50, 1e300, "48", True])
async def test_a_temperature_that_no_machine_has_is_refused_naming_the_field(service: Client, celsius: Any) -> None:
    answer = await service.http.post(
        "/api/v1/agents/heartbeat", json=heartbeat() | {"metrics": {"temperature_celsius": celsius}}
    )

    assert answer.status_code == 422
    assert [one["path"] for one in answer.json()["errors"]] == ["metrics.temperature_celsius"]


async def test_the_mean_of_wide_buckets_is_that_of_all_samples(service: Client) -> None:
    for minutes_ago, percent in ((9, 0), (8.9, 0), (8.8, 0), (5, 100)):
        await service.post(beat(minutes_ago, percent))

    for period in PERIODS:
        data = (await service.get("/metrics/sparkline/nas/cpu", period=period))["data"]
        assert sum(one["avg"] for one in data) in (25, 100), period  # in one bucket, or in two
        assert max(one["max"] for one in data) == 100


async def test_a_filesystem_has_its_sizes_exactly(service: Client) -> None:
    for minutes_ago, used in ((2, 3), (1, HIGHEST)):
        await service.post(
            beat(minutes_ago, 1, mount_point="/mnt/My Disk", total_bytes=HIGHEST, used_bytes=used, percent=50)
        )

    answer = await service.get("/metrics/sparkline/nas/filesystem", mount_point="/mnt/My Disk")

    assert answer["mount_point"] == "/mnt/My Disk"
    assert [(one["avg"], one["used_bytes"], one["total_bytes"]) for one in answer["data"]] == [
        (50, 3, HIGHEST),
        (50, HIGHEST, HIGHEST),
    ]
    assert (await service.get("/metrics/sparkline/nas/filesystem", mount_point="/none"))["data"] == []


async def test_what_there_is_not_is_named(service: Client) -> None:
    await service.post(heartbeat())

    for path, status, named in (
        ("nobody/cpu", 404, None),
        ("nobody/filesystem?mount_point=/", 404, None),
        ("nas/cpu?period=2h", 422, "period"),
        ("nas/disk?bucket=90s", 422, "bucket"),
        ("nas/filesystem", 422, "mount_point"),
        ("nas/filesystem?mount_point=", 422, "mount_point"),
    ):
        answer = await service.http.get(f"/api/v1/metrics/sparkline/{path}")
        assert answer.status_code == status, (path, answer.text)
        if named:
            assert answer.json()["errors"][0]["path"] == named, path
    assert (await service.get("/metrics/sparkline/nas/memory"))["data"] == []


@pytest.mark.parametrize("metric", ["cpu", "filesystem"])
async def test_it_reads_one_aggregate_and_the_chunks_of_its_period(
    statements: list[LoggedQuery], service: Client, database: asyncpg.Connection, metric: str
) -> None:
    for minutes_ago in (6 * 24 * 60, 5):
        await service.post(beat(minutes_ago, 10, mount_point="/", percent=10))
    statements.clear()

    answer = await service.get(
        f"/metrics/sparkline/nas/{metric}", **({"mount_point": "/"} if metric == "filesystem" else {})
    )

    assert len(answer["data"]) == 1
    (statement,) = [one for one in statements if "time_bucket" in one.query]
    assert ("FROM filesystem_metrics_1m " if metric == "filesystem" else "FROM server_metrics_1m ") in statement.query
    assert await old_chunks_read(database, statement, before=NOW - timedelta(days=2)) == []
