"""The agent's clock, whatever the wall clock does."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Clock, Moment, last_moment, moment_of, rfc3339, time_since_boot_ns
from agent.segments import Record


def test_the_timestamp_is_utc_in_milliseconds() -> None:
    assert rfc3339(Clock(lambda: 1_769_680_800_123_999_999).read().stamp_ms) == "2026-01-29T10:00:00.123Z"


@given(st.lists(st.integers(0, 4_102_444_800_000_000_000), min_size=2, max_size=20))
def test_pitfall_37_timestamps_strictly_increase_whatever_the_clock_does(moments: list[int]) -> None:
    readings = iter([0, *moments])
    clock = Clock(lambda: next(readings))

    stamps = [clock.read().stamp_ms for _ in moments]

    assert all(earlier < later for earlier, later in itertools.pairwise(stamps))


def test_pitfall_37_after_a_step_back_time_goes_on_by_a_millisecond() -> None:
    readings = iter([0, 10_000_000_000, 5_000_000_000, 10_000_000_000, 20_000_000_000])
    clock = Clock(lambda: next(readings), running_ns=lambda: 0)

    assert [clock.read().stamp_ms for _ in range(4)] == [10_000, 10_001, 10_002, 20_000]


class Machine:
    """Its wall clock and its running time, in seconds; `beat` gives the timestamps of one heartbeat after another."""

    def __init__(self, *, last: Moment | None = None) -> None:
        self.wall, self.running = 1_800_000_000.0, 1_000.0
        self.clock = Clock(
            lambda: round(self.wall * 1e9), running_ns=lambda: round(self.running * 1e9), last=last
        )  # fmt: skip

    def beat(self, seconds: float = 30.0, *, step: float = 0.0) -> float:
        """`seconds` pass, in which the wall clock is set by `step`; the timestamp, in seconds since 1970."""
        self.running += seconds
        self.wall += seconds + step
        return self.clock.read().stamp_ms / 1000


@pytest.mark.parametrize("step", [3600.0, 86_400.0, 20 * 365 * 86_400.0])
def test_e38_a_clock_that_is_set_forward_is_followed_at_once(step: float) -> None:
    machine = Machine()
    machine.beat()

    assert machine.beat(step=step) == machine.wall


@pytest.mark.parametrize("step", [-0.2, -20.0, -299.0, -3600.0])
def test_e38_after_a_step_back_no_interval_is_too_short_for_what_a_busy_link_counted(step: float) -> None:
    machine = Machine()
    before = machine.beat()

    stamps = [machine.beat(step=step), *(machine.beat() for _ in range(1_000))]

    # sql/function/counters.sql, delta_limit: the line rate and 2 %, over the time between and one second.
    assert all(1.02 * (later - earlier + 1) >= 30 for earlier, later in itertools.pairwise([before, *stamps]))
    assert (stamps[-1] == machine.wall) == (step > -400)


def test_e38_a_step_forward_that_is_taken_back_loses_no_sample_and_repeats_none() -> None:
    machine = Machine()
    stamps = [machine.beat(), machine.beat(step=3600.0), machine.beat(step=-3600.0), machine.beat()]

    assert all(earlier < later for earlier, later in itertools.pairwise(stamps))


def test_e38_suspend_counts_as_time() -> None:
    machine = Machine()
    before = machine.beat()

    assert machine.beat(8 * 3600.0) - before == 8 * 3600


def test_a_restarted_agent_stays_above_the_timestamps_of_the_one_before_and_slews_from_them() -> None:
    machine = Machine(last=Moment(1_800_000_100_000, 1_000_000))

    stamps = [machine.beat(), machine.beat()]

    assert stamps == [1_800_000_129.55, 1_800_000_159.1]


def test_a_clock_that_goes_back_is_as_if_what_came_after_had_never_been() -> None:
    machine, same = Machine(), Machine()
    last = Moment(round(machine.beat() * 1000), round(machine.running * 1000))
    machine.beat(step=86_400.0)
    machine.beat(step=-86_420.0)
    machine.clock.go_back(last)
    same.beat()
    same.running, same.wall = machine.running, machine.wall

    assert [machine.beat(), machine.beat()] == [same.beat(), same.beat()]
    machine.clock.go_back(None)
    assert machine.beat() == machine.wall


def test_the_time_since_boot_is_the_kernels() -> None:
    assert abs(time_since_boot_ns() / 1e9 - float(Path("/proc/uptime").read_text().split()[0])) < 1


@pytest.mark.parametrize(
    ("body", "moment"),
    [
        (b'{"boot_id":"this","since_boot_ms":5,"metrics":{"since_boot_ms":6}}', Moment(7_000, 5)),
        (b'{"boot_id":"that","since_boot_ms":5}', None),
        (b'{"boot_id":"this"}', None),
        (b'{"boot_id":"this","since_boot_ms":"5"}', None),
        (b'{"since_boot_ms":5}', None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_when_a_heartbeat_was_collected_is_known_within_a_boot(body: bytes, moment: Moment | None) -> None:
    record = Record(1, 7_000, body)

    assert moment_of(record, "this") == moment
    assert moment_of(record, None) is None
    if moment:
        assert last_moment(record, "this") == moment


def test_only_timestamps_of_this_boot_bind_also_those_of_an_older_agent() -> None:
    older = last_moment(Record(1, 7_000, b'{"boot_id":"this"}'), "this")

    assert older is not None
    assert older.stamp_ms == 7_000
    assert abs(older.since_boot_ms - time_since_boot_ns() // 1_000_000) < 60_000
    for record in (Record(1, 7_000, b'{"boot_id":"that","since_boot_ms":5}'), Record(1, 7_000, b"{}"), None):
        assert last_moment(record, "this") is None
    assert last_moment(Record(1, 7_000, b'{"boot_id":"this"}'), None) is None
