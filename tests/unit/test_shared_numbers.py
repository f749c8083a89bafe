"""Numbers of several processes on one port: sums that never fall, and gauges of those that live."""

import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.operations.shared_numbers import STALE_SECONDS, SharedNumbers


class Process:
    """One of them: it counts, gauges and measures."""

    def __init__(self, directory: Path, number: int) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("heartbeats", "Heartbeats.", ["result"], registry=self.registry)
        self.gauge = Gauge("queue", "Queue.", registry=self.registry)
        self.seconds = Histogram("took", "Took.", buckets=(1, 2), registry=self.registry)
        self.shared = SharedNumbers(directory, number)

    def write(self, *, is_last: bool = False) -> None:
        self.shared.write(self.registry.collect(), is_last=is_last)


class Told(Collector):
    def __init__(self, shared: SharedNumbers) -> None:
        self._shared = shared

    def collect(self) -> list[Metric]:
        return list(self._shared.of_all())


def told(process: Process) -> dict[str, float]:
    """What Prometheus reads, by the name and labels of each series."""
    registry = CollectorRegistry()
    registry.register(Told(process.shared))
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_counters_and_histograms_are_added_up_and_gauges_named_by_process(tmp_path: Path) -> None:
    first, second = (Process(tmp_path, number) for number in range(2))
    for process, count in ((first, 3), (second, 4)):
        process.counter.labels("stored").inc(count)
        process.gauge.set(count * 10)
        process.seconds.observe(0.5 * count)
        process.write()
    second.counter.labels("duplicate").inc()  # not written yet: nobody tells it

    found = told(first)

    assert found == told(second)
    assert found['heartbeats_total{result="stored"}'] == 7
    assert 'heartbeats_total{result="duplicate"}' not in found
    assert (found['queue{worker="0"}'], found['queue{worker="1"}']) == (30, 40)
    assert (found["took_count"], found["took_sum"]) == (2, 3.5)
    assert (found['took_bucket{le="1.0"}'], found['took_bucket{le="2.0"}'], found['took_bucket{le="+Inf"}']) == (
        0,
        2,
        2,
    )
    assert found["took_created"] == min(one.seconds._created for one in (first, second))
    assert found["linkbeat_workers"] == 2


@pytest.mark.parametrize("ends_in_order", [True, False])
def test_a_successor_goes_on_from_where_the_process_before_it_was_seen(tmp_path: Path, ends_in_order: bool) -> None:
    first, other = Process(tmp_path, 0), Process(tmp_path, 1)
    first.counter.labels("stored").inc(100)
    first.seconds.observe(1.5)
    first.write(is_last=ends_in_order)
    other.counter.labels("stored").inc(1)
    other.write()
    before = told(other)

    successor = Process(tmp_path, 0)
    between = told(other)
    successor.write()
    successor.counter.labels("stored").inc(5)
    successor.seconds.observe(1.5)
    successor.write()
    after = told(other)

    name = 'heartbeats_total{result="stored"}'
    assert (before[name], between[name], after[name]) == (101, 101, 106)
    assert (before["took_count"], after["took_count"]) == (1, 2)


def test_gauges_of_a_process_that_ended_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, hangs, lives = (Process(tmp_path, number) for number in range(3))
    ended.write(is_last=True)
    hangs.write()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + STALE_SECONDS + 1)
    lives.write()

    found = told(lives)

    assert [name for name in found if name.startswith("queue")] == ['queue{worker="2"}']
    assert found["linkbeat_workers"] == 1


def test_a_file_that_is_no_longer_whole_is_left_out(tmp_path: Path) -> None:
    process = Process(tmp_path, 0)
    process.counter.labels("stored").inc()
    process.write()
    (tmp_path / "1.numbers").write_bytes(b"\x93")

    assert told(process)['heartbeats_total{result="stored"}'] == 1
    Process(tmp_path, 1).write()  # begins at nothing
    assert told(process)["linkbeat_workers"] == 2
