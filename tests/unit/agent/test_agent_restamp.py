"""A clock that is ahead and is put right, against the service's own decoder; spool, delivery and heartbeats are real.

A machine's one counter counts milliseconds, so that each stored sample says when it was really taken.
"""

import email.utils
import http.client
import itertools
import json
import logging
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent import host
from agent.answers import Failed, Outcome, judge
from agent.clock import Clock, last_moment, rfc3339
from agent.deadletter import DeadLetters
from agent.delivery import Delivery
from agent.heartbeat import Collector, encode, stamp_ms
from agent.identity import ApiKey
from agent.remote import RemoteConfig, apply
from agent.restamp import Timekeeper
from agent.settings import Settings
from agent.spool import Spool
from service.http.errors import Problem
from service.ingest.heartbeat import decode_heartbeat

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86_400, 365 * 86_400
START = 1_790_000_000  # the truth, in seconds since 1970, when the machine boots
INTERVAL = 30


class World:
    """One machine and the service, in seconds that pass when `beat` says so.

    ahead       of the truth, by which the machine's wall clock is wrong
    skew        of the truth, by which the service's is
    stored      what the service took: the machine's boot and the counter, by timestamp in milliseconds
    """

    def __init__(self, directory: Path, *, memory_only: bool = False, has_date: bool = True) -> None:
        self.directory, self.has_date = directory, has_date
        self.running, self.booted, self.ahead, self.skew = 100.0, float(START), 0.0, 0.0
        self.is_down, self.boots, self.collected = False, 0, 0
        self.says_since_boot = True
        self.stored: dict[int, tuple[str, int]] = {}
        self.repeated: list[int] = []
        self.live: list[bool] = []  # of each live request that the service answered: whether it took it
        self._delay = 1e9 if memory_only else 0.0
        for name in ("proc/1/net", "proc/sys/kernel/random", "sys", "root/etc"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "proc/1/mounts").write_text("")
        self.settings = Settings(
            proc=str(directory / "proc"), sys=str(directory / "sys"), root=str(directory / "root"), server_id="pi"
        )
        self.reboot()

    @property
    def truth(self) -> float:
        return self.booted + self.running

    def reboot(self) -> None:
        if self.boots:
            self.spool.close()
            # Odd, so that heartbeats of two boots do not share a grid of milliseconds.
            self.booted, self.running = self.truth + 60.137, 10.0
        self.boots += 1
        (self.directory / "proc/sys/kernel/random/boot_id").write_text(f"boot-{self.boots}\n")
        self._start()

    def restart(self) -> None:
        """Of the agent."""
        self.spool.close()
        self._start()

    def _start(self) -> None:
        roots = self.settings.roots
        self.spool = Spool(
            self.directory / "spool", max_bytes=1 << 24, max_age_seconds=1e12, memory_heartbeats=10_000,
            segment_bytes=4096, delay_seconds=self._delay, now_ms=lambda: 0,
        )  # fmt: skip
        clock = Clock(
            lambda: round((self.truth + self.ahead) * 1e9),
            running_ns=lambda: round(self.running * 1e9),
            last=last_moment(self.spool.last, host.read_boot_id(roots)),
        )
        timekeeper = Timekeeper(clock, self.spool, lambda: host.read_boot_id(roots))
        self.clock = clock
        self.letters = self.directory / "refused.ndjson"
        self.delivery = Delivery(
            self, self, ApiKey(Settings()), self.spool, DeadLetters(self.letters), "service",
            timestamps=timekeeper, interval_seconds=INTERVAL, uniform=lambda low, high: 0.0 if low else high / 100,
            monotonic=lambda: self.running, now=lambda: self.truth,
        )  # fmt: skip
        self.collector = Collector(self.settings, clock)

    def beat(self, count: int = 1, *, seconds: float = INTERVAL) -> None:
        """`count` heartbeats are collected, `seconds` apart; after each, both lanes do what they can."""
        for _ in range(count):
            self.running += seconds
            counter = round((self.truth - START) * 1000)
            (self.directory / "proc/1/net/dev").write_text(f"h|\nh|\neth0: {counter}" + " 0" * 15 + "\n")
            made = self.collector.collect(self.delivery.report())
            if not self.says_since_boot:
                made = msgspec.structs.replace(made, since_boot_ms=msgspec.UNSET)
            self.spool.append(encode(made), stamp_ms(made))
            self.collected += 1
            self.deliver()

    def deliver(self) -> None:
        for step in (self.delivery.step_live, self.delivery.step_backlog):
            for _ in range(100):
                if step() != 0.0:
                    break
            else:
                raise AssertionError("it sends without end")

    def heartbeat(self, body: bytes) -> Outcome:
        if self.is_down:
            return Failed("ConnectionRefusedError", "connection refused")
        rejection = self._judged(body)
        self.live.append(rejection is None)
        if rejection:
            return judge(rejection.status, self._headers(), rejection.body())
        return judge(200, self._headers(), b'{"status":"ok"}')

    def heartbeats(self, bodies: list[bytes]) -> Outcome:
        if self.is_down:
            return Failed("ConnectionRefusedError", "connection refused")
        rejected = [
            {"index": index, "code": problem.code, "errors": [{"path": "timestamp", "reason": problem.detail}]}
            for index, body in enumerate(bodies)
            if (problem := self._judged(body))
        ]
        return judge(200, self._headers(), json.dumps({"status": "ok", "rejected": rejected}).encode())

    def hurry(self, timeout_seconds: float) -> None: ...
    def close(self) -> None: ...

    def _judged(self, body: bytes) -> Problem | None:
        now = datetime.fromtimestamp(self.truth + self.skew, UTC)
        try:
            beat = decode_heartbeat(body, now=now, oldest=timedelta(days=7))
        except Problem as problem:
            return problem
        assert beat.timestamp is not None
        stamp = round(beat.timestamp.timestamp() * 1000)
        if stamp in self.stored:
            self.repeated.append(stamp)
        elif beat.network_interfaces:
            self.stored[stamp] = (beat.boot_id or "", beat.network_interfaces[0].rx_bytes)
        return None

    def _headers(self) -> http.client.HTTPMessage:
        headers = http.client.HTTPMessage()
        if self.has_date:
            headers["Date"] = email.utils.formatdate(self.truth + self.skew, usegmt=True)
        return headers

    @property
    def dead(self) -> list[str]:
        return self.letters.read_text().splitlines() if self.letters.exists() else []

    def is_known(self) -> bool:
        """Whether the service has the newest sample."""
        return any(counter == round((self.truth - START) * 1000) for _, counter in self.stored.values())

    def errors(self) -> list[float]:
        """By how many seconds each stored sample's timestamp is later than the truth, in order."""
        return [stamp / 1000 - START - counter / 1000 for stamp, (_, counter) in sorted(self.stored.items())]

    def assert_no_counter_falls(self) -> None:
        in_order = sorted(self.stored.items())
        by_boot = {boot: [counter for _, (of, counter) in in_order if of == boot] for _, (boot, _) in in_order}
        for counters in by_boot.values():
            assert counters == sorted(set(counters))
        assert self.repeated == []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("ahead", [6 * MINUTE, 10 * MINUTE, DAY, 80 * YEAR])
@pytest.mark.parametrize("refused", [0, 1, 10])
@pytest.mark.parametrize(("has_restarted", "has_date"), [(False, True), (True, True), (True, False)])
def test_a_clock_that_was_ahead_and_is_put_right_costs_nothing(
    tmp_path: Path, ahead: float, refused: int, has_restarted: bool, has_date: bool
) -> None:
    world = World(tmp_path, has_date=has_date)
    world.ahead = ahead
    world.beat(refused)
    assert world.stored == {}
    assert len(world.spool) == refused

    world.ahead = 0
    if has_restarted:
        world.restart()
    world.beat()
    assert world.is_known()
    world.beat(2)

    assert len(world.stored) == world.collected
    assert all(abs(error) < 0.002 for error in world.errors())
    assert (world.dead, len(world.spool), world.delivery.rejected) == ([], 0, 0)


@pytest.mark.parametrize("ahead", [10 * MINUTE, YEAR])
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("has_restarted", [False, True])
def test_a_clock_that_is_put_right_during_an_outage_costs_nothing(
    world: World, ahead: float, before: int, has_restarted: bool
) -> None:
    world.beat(before)
    world.is_down, world.ahead = True, ahead
    world.beat(5)
    world.ahead = 0
    world.beat(5)
    if has_restarted:
        world.restart()
        world.beat()

    world.is_down = False
    world.beat()
    assert world.is_known()
    world.beat(2)

    assert len(world.stored) == world.collected
    assert all(abs(error) < 0.002 for error in world.errors())
    assert (world.dead, len(world.spool)) == ([], 0)


@pytest.mark.parametrize("ahead", [5.0, 100.0, 290.0])
@pytest.mark.parametrize("is_down", [False, True])
def test_a_clock_that_was_ahead_by_less_than_the_service_minds_slews_back(
    world: World, ahead: float, is_down: bool
) -> None:
    world.beat(3)
    world.ahead, world.is_down = ahead, is_down
    world.beat(3)

    world.ahead = 0
    world.beat()
    world.is_down = False
    world.beat(round(ahead / 0.015 / 300) + 5, seconds=300)

    assert all(world.live)
    assert len(world.stored) == world.collected
    world.assert_no_counter_falls()
    # No interval is shorter than what its link counted: 1.5 % less.
    samples = sorted((stamp, counter) for stamp, (_, counter) in world.stored.items())
    pairs = itertools.pairwise(samples)
    assert all(stamp - before >= 0.985 * (counter - was) - 1 for (before, was), (stamp, counter) in pairs)
    assert abs(world.errors()[-1]) < 0.002


@pytest.mark.parametrize("has_restarted", [False, True])
@pytest.mark.parametrize(("ahead", "skew"), [(290.0, -30.0), (200.0, -200.0), (30.0, -HOUR), (320.0, 30.0)])
def test_a_clock_that_was_too_far_ahead_only_by_the_services_clock_is_heard_when_it_is_right(
    world: World, ahead: float, skew: float, has_restarted: bool
) -> None:
    world.ahead, world.skew = ahead, skew
    world.beat(4)
    taken = len(world.stored)
    world.ahead, world.skew = 0, max(skew, -200.0)
    if has_restarted:
        world.restart()
    world.beat(3)

    assert taken == (4 if ahead - skew <= 300 else 0)
    assert world.is_known()
    assert len(world.stored) == world.collected
    world.assert_no_counter_falls()
    if not taken and skew > -HOUR:  # else the service takes them as they are, once its own clock is right
        assert all(abs(error) < 0.002 for error in world.errors())


def test_what_the_service_has_is_never_undercut(world: World) -> None:
    """Ahead by 4 minutes, which is stored; then by a day, which is not; then right."""
    world.ahead = 4 * MINUTE
    world.beat(2)
    world.ahead = DAY
    world.beat(2)
    world.ahead = 0
    world.beat(70, seconds=300)

    assert len(world.stored) == world.collected
    world.assert_no_counter_falls()
    assert max(world.errors()) == pytest.approx(4 * MINUTE, abs=1)
    assert abs(world.errors()[-1]) < 0.002


@pytest.mark.parametrize("memory_only", [False, True])
@pytest.mark.parametrize("skew", [-100.0, 0.0, 100.0])
def test_what_the_service_has_is_never_undercut_by_an_agent_without_a_disk_or_with_another_clock(
    tmp_path: Path, memory_only: bool, skew: float
) -> None:
    world = World(tmp_path, memory_only=memory_only)
    world.skew = skew
    world.ahead = 3 * MINUTE
    world.beat()
    world.ahead = YEAR
    world.beat()
    world.ahead = 0
    world.beat()
    assert world.is_known()
    world.beat(10)

    assert len(world.stored) == world.collected
    world.assert_no_counter_falls()


def test_a_clock_that_is_put_right_by_halves_is_heard_when_it_is_right(world: World) -> None:
    for ahead in (YEAR, DAY, HOUR):
        world.ahead = ahead
        world.beat(3)
    assert world.stored == {}

    world.ahead = 0
    world.beat(2)

    assert len(world.stored) == world.collected == 11
    assert all(abs(error) < 0.002 for error in world.errors())


def test_while_the_clock_is_wrong_all_is_kept_and_each_heartbeat_asks_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.ahead = HOUR
    world.beat(20)

    assert world.live == [False] * 20
    assert (len(world.spool), world.dead) == (20, [])
    assert caplog.text.count("refuses the time of this machine's clock") == 1
    assert "5 minutes ahead" in caplog.text


def test_a_service_whose_own_clock_is_behind_loses_and_moves_nothing(world: World) -> None:
    world.beat(2)
    world.skew = -HOUR
    world.beat(5)
    assert len(world.spool) == 5

    world.skew = 0
    world.beat(2)

    assert len(world.stored) == world.collected
    assert all(abs(error) < 0.002 for error in world.errors())
    assert world.dead == []


@pytest.mark.parametrize("behind", [10 * MINUTE, 6 * DAY])
@pytest.mark.parametrize("has_restarted", [False, True])
def test_a_clock_that_was_behind_and_is_set_forward_is_heard_at_once(
    world: World, behind: float, has_restarted: bool
) -> None:
    world.ahead = -behind
    world.beat(3)
    world.ahead = 0
    if has_restarted:
        world.restart()
    world.beat(2)

    assert all(world.live)
    assert len(world.stored) == 5
    world.assert_no_counter_falls()
    assert [round(error) for error in world.errors()] == [-behind] * 3 + [0, 0]


def test_what_another_boot_stamped_in_the_future_goes_to_the_dead_letters(world: World) -> None:
    """Nobody knows by how much that clock was ahead."""
    world.ahead = YEAR
    world.beat(5)
    world.ahead = 0
    world.reboot()
    world.beat(5)

    assert len(world.stored) == 5
    assert len(world.dead) == world.delivery.rejected == 5
    assert all("5 minutes ahead" in line for line in world.dead)
    assert len(world.spool) == 0


def test_heartbeats_of_a_paused_agent_get_their_time_too(world: World) -> None:
    world.collector.effective = apply(world.settings, RemoteConfig(paused=True))
    world.ahead = YEAR
    world.beat(3)
    world.ahead = 0
    world.beat(2)

    assert world.live == [False, False, False, False, True, True]
    assert (len(world.spool), world.dead) == (0, [])


def test_a_heartbeat_of_an_older_agent_stays_as_it_is_and_the_next_is_taken(world: World) -> None:
    """It does not say since_boot_ms."""
    world.ahead = YEAR
    world.beat()
    [record] = world.spool.oldest(1, 1 << 20, 1 << 62)
    world.spool.acknowledge([record.sequence])
    fields = json.loads(record.body)
    del fields["since_boot_ms"]
    world.spool.append(json.dumps(fields).encode(), record.stamp_ms)
    world.restart()

    world.ahead = 0
    world.beat(3)

    assert len(world.stored) == 3
    assert all(abs(error) < 0.002 for error in world.errors())
    assert len(world.dead) == 1


def test_where_heartbeats_say_no_time_since_boot_the_clock_still_goes_back_and_undercuts_nothing(
    world: World,
) -> None:
    """As on macOS and Windows: nothing can be restamped there."""
    world.says_since_boot = False
    world.ahead = 4 * MINUTE
    world.beat(2)
    world.ahead = DAY
    world.beat(3)
    world.ahead = 0
    world.beat(2)
    assert world.is_known()
    world.beat(5)

    world.assert_no_counter_falls()
    assert len(world.stored) + len(world.dead) == world.collected
    assert len(world.dead) == 4


def test_the_log_says_how_far_the_clock_was_ahead(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.ahead = DAY
    world.beat(3)
    world.ahead = 0
    world.beat(3)

    [said] = [record.getMessage() for record in caplog.records if "has been corrected;" in record.getMessage()]
    assert said.startswith("the clock was 86")
    assert "; corrected the time of 4 waiting heartbeats" in said


EVENTS = st.one_of(
    st.tuples(st.just("beat"), st.integers(1, 12)),
    st.tuples(st.just("clock"), st.sampled_from([0, 0, 2, 60, 240, 290, 310, 600, HOUR, DAY, YEAR, -60, -600, -HOUR])),
    st.tuples(st.just("down"), st.booleans()),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("reboot"), st.just(0)),
)


@settings(max_examples=25, deadline=None)
@example([("clock", 60), ("beat", 6), ("clock", 310), ("beat", 1), ("restart", 0)])
@example([("clock", 290), ("beat", 6), ("clock", 310), ("restart", 0), ("beat", 12)])
@given(st.lists(EVENTS, max_size=14))
def test_whatever_the_clock_did_a_right_one_is_heard_within_two_intervals(events: list[tuple[str, int]]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="linkbeat-clock-"))
    logging.disable()
    try:
        world = World(directory)
        for what, value in events:
            match what:
                case "beat":
                    world.beat(value)
                case "clock":
                    world.ahead = value
                case "down":
                    world.is_down = bool(value)
                case "restart":
                    world.restart()
                case "reboot":
                    world.reboot()
        world.ahead, world.is_down = 0, False
        world.beat()
        if not world.is_known():
            world.beat()
        assert world.is_known()
        world.beat(5, seconds=300)

        assert len(world.spool) == 0
        assert len(world.stored) + len(world.dead) == world.collected
        world.assert_no_counter_falls()
    finally:
        logging.disable(logging.NOTSET)
        world.spool.close()
        shutil.rmtree(directory)


def test_a_timestamp_is_written_as_the_heartbeat_writes_it(world: World) -> None:
    world.beat()

    [stamp] = world.stored
    assert rfc3339(stamp) == datetime.fromtimestamp(stamp / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
