"""What is sent first, when again, and what is forgotten; the service is a list of answers, the spool is real."""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.answers import Delivered, Failed, Outcome, Refused, RejectedHeartbeat, Unauthorized
from agent.deadletter import DeadLetters
from agent.delivery import BATCH_HEARTBEATS, HOLD_SECONDS, Delivery
from agent.identity import ApiKey
from agent.lanes import Lane
from agent.settings import Settings
from agent.spool import Spool
from tests.helpers.durations import fastest

OK = Delivered([], '{"status":"ok"}')
Answer = Callable[[list[bytes]], Outcome]
HUGE = 2**62


class Service:
    """Answers with `answer`; `requests` are the bodies that arrived, a live one as a list of one in `live`."""

    def __init__(self) -> None:
        self.requests: list[list[bytes]] = []
        self.live: list[bytes] = []
        self.answer: Answer = lambda bodies: OK
        self.timeout: float | None = None

    def heartbeat(self, body: bytes) -> Outcome:
        self.live.append(body)
        return self.heartbeats([body])

    def heartbeats(self, bodies: list[bytes]) -> Outcome:
        self.requests.append(bodies)
        return self.answer(bodies)

    def hurry(self, timeout_seconds: float) -> None:
        self.timeout = timeout_seconds

    def close(self) -> None:
        pass


class Setup:
    """A delivery whose jitter always takes the whole of its range, at moments that the test gives."""

    def __init__(
        self, directory: Path, waiting: int = 0, interval_seconds: float = 30.0, delay_seconds: float = 1e9
    ) -> None:
        self.service = Service()
        self.seconds = 0.0
        self.spool = Spool(
            directory,
            max_bytes=1 << 20,
            max_age_seconds=1e9,
            memory_heartbeats=1000,
            delay_seconds=delay_seconds,
            keep_seconds=900.0,
            now_ms=lambda: 0,
            monotonic=lambda: self.seconds,
        )
        self.key = ApiKey(Settings(api_key="k"))
        self.letters = directory / "refused.ndjson"
        self.configs: list[bytes] = []
        self.delivery = Delivery(
            self.service,
            self.service,
            self.key,
            self.spool,
            DeadLetters(self.letters),
            "http://service",
            interval_seconds=interval_seconds,
            on_config=lambda: self.configs.append(self.delivery.config),
            uniform=lambda _, high: high,
            monotonic=lambda: self.seconds,
        )
        for number in range(waiting):
            self.add(b"%d" % number)

    def add(self, body: bytes) -> None:
        self.spool.append(body, 0)

    def drain(self, limit: int = 1000) -> None:
        """Both lanes, until neither has anything to do; time passes as they ask for."""
        for _ in range(limit):
            waits = [self.delivery.step_live(), self.delivery.step_backlog()]
            wanted = [wait for wait in waits if wait is not None]
            if not wanted:
                return
            self.seconds += min(wanted)
        raise AssertionError("never ready")

    def pass_by(self, seconds: float) -> float | None:
        """The backlog lane's next request, after so long."""
        self.seconds += seconds
        return self.delivery.step_backlog()

    def left(self) -> list[bytes]:
        return [each.body for each in self.spool.oldest(100_000, HUGE, HUGE)]

    def buried(self) -> list[tuple[str, object]]:
        lines = self.letters.read_text().splitlines() if self.letters.exists() else []
        return [(each["reason"], each["heartbeat"]) for each in map(json.loads, lines)]


Make = Callable[..., Setup]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Setup] = []

    def setup(waiting: int = 0, interval_seconds: float = 30.0, delay_seconds: float = 1e9) -> Setup:
        made.append(Setup(tmp_path / f"spool-{len(made)}", waiting, interval_seconds, delay_seconds))
        return made[-1]

    yield setup
    for each in made:
        each.spool.close()


def bodies(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def test_an_empty_spool_sends_nothing(make: Make) -> None:
    setup = make()

    assert setup.delivery.step_live() is None
    assert setup.delivery.step_backlog() is None
    assert setup.service.requests == []


def test_pitfall_40_the_live_heartbeat_goes_first_and_the_backlog_in_order(make: Make) -> None:
    setup = make(waiting=1_000)

    setup.drain()

    assert setup.service.live == bodies(999)
    assert setup.service.requests == [bodies(999), bodies(*range(500)), bodies(*range(500, 999))]
    assert len(setup.spool) == 0


def test_the_backlog_waits_until_a_live_heartbeat_was_taken(make: Make) -> None:
    setup = make(waiting=10)
    setup.service.answer = lambda bodies: Failed("x", "x")

    assert setup.delivery.step_backlog() is None
    setup.delivery.step_live()

    assert setup.delivery.step_backlog() is None
    assert setup.service.requests == [bodies(9)]


def test_batches_are_spread_over_time(make: Make) -> None:
    setup = make(waiting=1_200)
    setup.delivery.step_live()

    waits = [setup.delivery.step_backlog(), setup.pass_by(269), setup.pass_by(1), setup.pass_by(60)]

    assert waits == [270, 1, 270, 210]
    assert [len(each) for each in setup.service.requests] == [1, 500]


def test_what_is_left_behind_in_an_earlier_process_is_backlog(make: Make, tmp_path: Path) -> None:
    make(waiting=3).spool.close()
    setup = Setup(tmp_path / "spool-0")

    assert setup.delivery.step_live() is None
    setup.add(b"new")
    setup.drain()
    setup.spool.close()

    assert setup.service.requests == [[b"new"], bodies(0, 1, 2)]


def test_a_new_heartbeat_goes_while_a_batch_is_on_its_way(make: Make) -> None:
    setup = make(waiting=10)

    def answer(sent: list[bytes]) -> Outcome:
        if len(sent) > 1:
            setup.add(b"new")
            setup.delivery.step_live()
        return OK

    setup.service.answer = answer
    setup.drain()

    assert setup.service.live == [b"9", b"new"]
    assert setup.left() == []


@pytest.mark.parametrize(
    ("interval_seconds", "expected"),
    [(1, [1, 2, 4, 8, 16, 32, 60, 60]), (10, [1, 20, 20, 20, 20, 32, 60, 60]), (30, [1, *[60] * 7])],
)
def test_backoff_grows_from_a_second_to_a_minute_without_end(
    make: Make, interval_seconds: float, expected: list[float]
) -> None:
    setup = make(waiting=1, interval_seconds=interval_seconds)
    setup.service.answer = lambda bodies: Failed("HTTP 500", "HTTP 500")

    waits = [setup.delivery.step_live() for _ in range(50)]

    assert waits[:8] == expected
    assert set(waits[8:]) == {60}
    assert len(setup.spool) == 1


def test_backoff_starts_again_after_a_success(make: Make) -> None:
    setup = make(waiting=1)
    setup.service.answer = lambda bodies: Failed("x", "x")
    for _ in range(5):
        setup.delivery.step_live()
    setup.service.answer = lambda bodies: OK
    assert setup.delivery.step_live() == 0.0

    setup.add(b"next")
    setup.service.answer = lambda bodies: Failed("x", "x")

    assert setup.delivery.step_live() == 1.0


def test_a_batch_that_fails_backs_off_by_itself_and_live_heartbeats_go_on(make: Make) -> None:
    setup = make(waiting=10)
    setup.service.answer = lambda sent: Failed("HTTP 500", "x") if len(sent) > 1 else OK
    setup.delivery.step_live()

    waits = [setup.pass_by(270), setup.pass_by(1), setup.pass_by(60)]
    setup.add(b"new")

    assert waits == [1, 60, 60]
    assert setup.delivery.step_live() == 0.0
    assert setup.left() == bodies(*range(9))


def test_retry_after_is_the_floor(make: Make) -> None:
    setup = make(waiting=1)
    setup.service.answer = lambda bodies: Failed("HTTP 503", "busy", 120.0)

    assert setup.delivery.step_live() == 180.0


def test_only_the_same_failure_is_quiet(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    setup = make(waiting=3)
    answers: list[Outcome] = [*[Failed("a", "refused")] * 3, Failed("b", "busy 1"), Failed("b", "busy 2"), OK, OK, OK]
    setup.service.answer = lambda bodies: answers.pop(0)

    setup.drain()

    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    assert "refused" in messages[0]
    assert "busy 1" in messages[1]
    assert messages[2].startswith("http://service: delivering again after")


@pytest.mark.parametrize("status", ["HTTP 401", "HTTP 403"])
def test_a_refused_token_keeps_everything_and_says_so_once(
    make: Make, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    setup = make(waiting=5)
    setup.service.answer = lambda bodies: Unauthorized(status, f"{status} Unauthorized")

    waits = [setup.delivery.step_live() for _ in range(10)]

    assert len(setup.spool) == 5
    assert waits[:3] == [1, 60, 60]
    assert len(caplog.records) == 1
    assert "LINKBEAT_API_KEY" in caplog.text
    assert setup.delivery.rejected == 0


def test_a_token_that_was_replaced_is_used_at_once(make: Make) -> None:
    setup = make(waiting=1)
    setup.key.read_again = lambda: True  # type: ignore[method-assign]
    answers: list[Outcome] = [Unauthorized("HTTP 401", "x"), OK]
    setup.service.answer = lambda bodies: answers.pop(0)

    assert setup.delivery.step_live() == 0.0
    assert setup.delivery.step_live() == 0.0
    assert len(setup.spool) == 0


def test_a_refused_live_heartbeat_goes_to_the_dead_letters(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    setup = make(waiting=3)
    setup.service.answer = lambda bodies: Refused("HTTP 422", "HTTP 422: hostname: missing") if b"2" in bodies else OK

    assert setup.delivery.step_live() == 0.0
    setup.add(b"3")
    setup.drain()

    assert len(setup.spool) == 0
    assert setup.delivery.rejected == 1
    assert setup.service.requests == [bodies(2), bodies(3), bodies(0, 1)]
    assert setup.buried() == [("HTTP 422: hostname: missing", 2)]
    assert "hostname: missing" in caplog.text


def test_rejected_of_a_batch_go_to_the_dead_letters_and_their_neighbours_are_acknowledged(make: Make) -> None:
    setup = make(waiting=4)
    answers: list[Outcome] = [
        OK,
        Delivered([RejectedHeartbeat(1, "rx_bytes: expected int"), RejectedHeartbeat(99, "?")], ""),
    ]
    setup.service.answer = lambda bodies: answers.pop(0)

    setup.drain()

    assert len(setup.spool) == 0
    assert setup.delivery.rejected == 1
    assert setup.buried() == [("rx_bytes: expected int", 1)]


@pytest.mark.parametrize("status", ["HTTP 413", "HTTP 422"])
def test_a_refused_batch_is_split_until_only_the_bad_heartbeat_is_left_out(make: Make, status: str) -> None:
    setup = make(waiting=401)
    arrived: set[bytes] = set()

    def answer(bodies: list[bytes]) -> Outcome:
        if b"37" in bodies:
            return Refused(status, status)
        arrived.update(bodies)
        return OK

    setup.service.answer = answer
    setup.drain()

    assert arrived == set(bodies(*range(401))) - {b"37"}
    assert setup.buried() == [(status, 37)]
    assert len(setup.service.requests) < 40


def test_a_limit_on_size_halves_batches_and_loses_nothing(make: Make) -> None:
    setup = make(waiting=101)
    arrived: list[bytes] = []

    def answer(bodies: list[bytes]) -> Outcome:
        if len(bodies) > 30:
            return Refused("HTTP 413", "too large")
        arrived.extend(bodies)
        return OK

    setup.service.answer = answer
    setup.drain()

    assert arrived == [b"100", *bodies(*range(100))]
    assert setup.delivery.rejected == 0


@pytest.mark.parametrize("cause", ["TimeoutError", "HTTP 503", "HTTP 504"])
def test_a_batch_that_does_not_go_in_time_is_made_smaller(make: Make, cause: str) -> None:
    setup = make(waiting=101)
    setup.delivery.step_live()
    setup.service.answer = lambda bodies: Failed(cause, "no answer within 10 s")

    for _ in range(3):
        setup.pass_by(270)

    assert [len(each) for each in setup.service.requests] == [1, 100, 50, 25]


@pytest.mark.parametrize(("interval_seconds", "expected"), [(30, [500, 125, 125]), (3, [50, 100, 75])])
def test_a_batch_takes_at_most_half_an_interval_and_half_of_the_time_that_the_service_has(
    make: Make, interval_seconds: float, expected: list[int]
) -> None:
    setup = make(waiting=2_000, interval_seconds=interval_seconds)

    def answer(sent: list[bytes]) -> Outcome:
        # 20 ms each; the first batch of the short interval is quick.
        setup.seconds += 0.02 * len(sent) if len(sent) > 50 else 0.0
        return OK

    setup.service.answer = answer
    setup.drain()

    assert [len(each) for each in setup.service.requests[1:4]] == expected


def test_a_service_that_refuses_every_live_heartbeat_does_not_get_them_all_buried(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    setup = make()
    setup.service.answer = lambda bodies: Refused("HTTP 422", "HTTP 422: no")

    waits = []
    for number in range(20):
        setup.add(b"%d" % number)
        waits.append(setup.delivery.step_live())

    assert setup.left() == bodies(*range(3, 20))
    assert setup.delivery.rejected == len(setup.buried()) == 3
    assert waits[:6] == [0, 0, 0, 1, 60, 60]
    assert caplog.text.count("refuses every heartbeat") == 1
    setup.service.answer = lambda bodies: OK
    setup.drain()
    assert setup.left() == []
    assert setup.delivery.rejected == 3


@pytest.mark.parametrize("way", ["each of a batch", "the batch as a whole"])
def test_a_service_that_refuses_the_whole_backlog_does_not_get_it_buried(make: Make, way: str) -> None:
    setup = make(waiting=5_000)

    def refuse(sent: list[bytes]) -> Outcome:
        if way == "each of a batch":
            return Delivered([RejectedHeartbeat(n, "too old") for n in range(len(sent))], "")
        return Refused("HTTP 422", "no")

    setup.delivery.step_live()
    setup.service.answer = refuse
    for _ in range(100):
        setup.pass_by(HOLD_SECONDS)

    most = 3 * BATCH_HEARTBEATS if way == "each of a batch" else 3
    assert setup.delivery.rejected == most
    assert len(setup.spool) == 4_999 - most
    probes = setup.service.requests[-20:]
    assert probes == [[b"4998"]] * 20  # the newest, alone
    setup.service.answer = lambda sent: OK
    setup.drain()
    assert setup.left() == []


def test_a_backlog_that_is_too_old_at_its_beginning_is_delivered_from_where_it_is_not(make: Make) -> None:
    setup = make(waiting=4_000)
    arrived: set[bytes] = set()

    def answer(sent: list[bytes]) -> Outcome:
        arrived.update(each for each in sent if int(each) >= 3_000)
        return Delivered([RejectedHeartbeat(n, "too old") for n, each in enumerate(sent) if int(each) < 3_000], "")

    setup.service.answer = answer
    setup.drain()

    assert arrived == set(bodies(*range(3_000, 4_000)))
    assert setup.delivery.rejected == 3_000


def test_the_newest_configuration_is_told_when_it_changes(make: Make) -> None:
    setup = make()
    configs = [b"{}", b'{"paused":true}', b'{"paused":true}', b"{}"]
    setup.service.answer = lambda sent: Delivered([], "", configs.pop(0))

    for number in range(4):
        setup.add(b"%d" % number)
        setup.delivery.step_live()

    assert setup.configs == [b'{"paused":true}', b"{}"]
    assert setup.delivery.config == b"{}"


def test_the_report_says_how_delivery_goes(make: Make) -> None:
    setup = make(waiting=3)
    setup.service.answer = lambda sent: Refused("HTTP 422", "no")
    setup.delivery.step_live()
    report = msgspec.to_builtins(setup.delivery.report())

    assert report.pop("oldest_seconds") >= 0
    assert report == {"queued": 2, "spool_bytes": 0, "dropped": 0, "rejected": 1, "spool": "disk"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(["add", "ok", "fail", "413", "reject", "batch", "batch"]), max_size=60))
def test_every_heartbeat_is_delivered_buried_or_waiting(make: Make, events: list[str]) -> None:
    setup = make()
    delivered: list[bytes] = []
    added = 0
    event = ""

    def answer(bodies: list[bytes]) -> Outcome:
        if event in ("ok", "batch"):
            delivered.extend(bodies)
            return OK
        if event == "reject":
            delivered.extend(bodies[1:])
            return Delivered([RejectedHeartbeat(0, "bad")], "")
        return Refused("HTTP 413", "large") if event == "413" else Failed("x", "x")

    setup.service.answer = answer
    logging.disable()
    for event in events:
        if event == "add":
            setup.add(b"%d" % added)
            added += 1
        elif event == "batch":
            setup.pass_by(1_000)
        else:
            setup.delivery.step_live()
            setup.pass_by(1_000)
    logging.disable(logging.NOTSET)
    left = setup.left()
    setup.spool.close()

    reached = [*delivered, *left, *(str(number).encode() for _, number in setup.buried())]
    assert sorted(reached) == sorted(bodies(*range(added)))


def test_collecting_never_waits_for_a_service_that_hangs(make: Make) -> None:
    setup = make(waiting=1)
    hung = threading.Event()
    released = threading.Event()

    def hangs(bodies: list[bytes]) -> Outcome:
        hung.set()
        released.wait(120)
        return OK

    setup.service.answer = hangs
    setup.delivery.start()
    setup.delivery.wake()
    assert hung.wait(60)

    def collect() -> None:
        for _ in range(100):
            setup.add(b"x")
            setup.delivery.wake()
        setup.delivery.stop(within_seconds=0.2)

    assert fastest(collect, within=1.0) < 1.0
    assert not released.is_set()
    released.set()
    assert len(setup.spool) >= 100


def test_a_batch_that_hangs_keeps_no_live_heartbeat_waiting(make: Make) -> None:
    setup = make(waiting=10)
    hung = threading.Event()
    released = threading.Event()
    arrived = threading.Semaphore(0)

    def answer(sent: list[bytes]) -> Outcome:
        if len(sent) > 1:
            hung.set()
            released.wait(120)
        else:
            arrived.release()
        return OK

    setup.service.answer = answer
    setup.delivery.step_live()
    arrived.acquire()
    setup.seconds += 1_000
    setup.delivery.start()
    assert hung.wait(60)

    numbers = count(100)

    def deliver() -> None:
        for number in islice(numbers, 20):
            setup.add(b"%d" % number)
            setup.delivery.wake()
            assert arrived.acquire(timeout=60)

    assert fastest(deliver, within=1.0) < 1.0
    released.set()
    setup.delivery.stop(within_seconds=60)

    deadline = time.monotonic() + 60
    while setup.left() and time.monotonic() < deadline:
        time.sleep(0.01)  # the batch's own thread notes what the answer means
    assert setup.left() == []


def test_stopping_tries_once_more_and_cuts_a_wait_short(make: Make) -> None:
    setup = make(waiting=2)
    failed = threading.Event()

    def answer(bodies: list[bytes]) -> Outcome:
        if failed.is_set():
            return OK
        failed.set()
        return Failed("HTTP 500", "HTTP 500")

    setup.service.answer = answer
    setup.delivery.start()
    setup.delivery.wake()
    assert failed.wait(60)
    setup.delivery.stop(within_seconds=60)

    assert setup.service.requests == [bodies(1), bodies(1), bodies(0)]
    assert setup.service.timeout == 60
    assert not setup.delivery.is_alive()


def test_stopping_leaves_a_service_alone_that_asked_for_it(make: Make) -> None:
    setup = make(waiting=1)
    failed = threading.Event()

    def answer(bodies: list[bytes]) -> Outcome:
        failed.set()
        return Failed("HTTP 503", "busy", 30.0)

    setup.service.answer = answer
    setup.delivery.start()
    setup.delivery.wake()
    assert failed.wait(60)
    setup.delivery.stop(within_seconds=60)

    assert len(setup.service.requests) == 1


def test_dead_letters_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "refused.ndjson", max_bytes=10_000)
    for number in range(300):
        letters.add([("why\nnot", b'{"n": %d,\n "x": "\\n"}' % number)])
        assert (tmp_path / "refused.ndjson").stat().st_size <= 10_000

    kept = [json.loads(line) for line in (tmp_path / "refused.ndjson").read_text().splitlines()]
    numbers = [each["heartbeat"]["n"] for each in kept]
    assert numbers == list(range(numbers[0], 300))
    assert len(numbers) > 30
    assert kept[0]["reason"] == "why\nnot"
    assert (tmp_path / "refused.ndjson").stat().st_mode & 0o777 == 0o600


def test_more_dead_letters_at_once_than_there_is_room_for_leave_the_last_of_them(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "refused.ndjson", max_bytes=10_000)
    letters.add([("why", b"%d" % number) for number in range(1_000)])

    numbers = [json.loads(line)["heartbeat"] for line in (tmp_path / "refused.ndjson").read_text().splitlines()]
    assert (tmp_path / "refused.ndjson").stat().st_size <= 10_000
    assert numbers == list(range(numbers[0], 1_000))
    assert len(numbers) > 30


def test_a_dead_letter_that_is_no_json_or_cannot_be_written_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DeadLetters(tmp_path / "refused.ndjson").add([("why", b"\xff{")])
    DeadLetters(tmp_path / "no" / "refused.ndjson").add([("why", b"{}")])

    assert json.loads((tmp_path / "refused.ndjson").read_text())["heartbeat"] == "\ufffd{"
    assert "1 rejected heartbeats were not saved" in caplog.text


def by(epoch: str, *rejected: RejectedHeartbeat) -> Delivered:
    """An acknowledgement by the database of this epoch."""
    return Delivered(list(rejected), "", epoch=epoch)


def test_another_epoch_has_the_latest_sent_again_soon_and_the_rest_after_what_was_never_acknowledged(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    setup = make(waiting=30)
    setup.service.answer = lambda sent: by("a.1")
    setup.drain()
    setup.service.requests.clear()
    for body in (b"30", b"31"):
        setup.add(body)
    setup.service.answer = lambda sent: by("a.2")

    assert setup.delivery.step_live() == 0.0
    assert setup.delivery.step_backlog() == 60  # spread over two intervals
    assert setup.pass_by(60) == 210  # spread over nine intervals, as after an outage
    setup.drain()
    setup.drain()

    assert setup.service.requests == [bodies(31), bodies(28, 29), bodies(30), bodies(*range(28))]
    assert "has another database now (a.2, was a.1); sending 30 acknowledged heartbeats again" in caplog.text
    assert caplog.text.count("all kept heartbeats have been sent again") == 1
    assert (setup.delivery.rejected, setup.spool.dropped, setup.buried()) == (0, 0, [])


def test_an_epoch_that_the_live_lane_notes_cuts_the_pause_of_the_backlog_lane_short() -> None:
    stopping, called = threading.Event(), threading.Semaphore(0)

    def step() -> float:
        called.release()
        return 1e6

    lane = Lane("backlog", step, stopping, wakes_early=True)
    lane.thread.start()
    assert called.acquire(timeout=60)
    lane.wake()
    assert called.acquire(timeout=60)
    stopping.set()
    lane.wake()
    lane.thread.join(60)
    assert not lane.thread.is_alive()


def test_answers_without_an_epoch_and_the_first_with_one_send_nothing_again(make: Make) -> None:
    setup = make(waiting=3)
    setup.drain()
    setup.add(b"3")
    setup.service.answer = lambda sent: by("a.1")
    setup.drain()
    setup.add(b"4")
    setup.service.answer = lambda sent: OK
    setup.drain()

    assert setup.service.requests == [bodies(2), bodies(0, 1), bodies(3), bodies(4)]


@pytest.mark.parametrize("way", ["rejected live", "a batch"])
def test_every_answer_tells_of_another_epoch(make: Make, way: str) -> None:
    setup = make(waiting=3)
    setup.service.answer = lambda sent: by("a.1")
    setup.drain()
    setup.service.requests.clear()
    setup.add(b"3")
    setup.add(b"4")
    refused = [RejectedHeartbeat(0, "no")]
    setup.service.answer = lambda sent: by("a.2", *refused) if way == "rejected live" or len(sent) > 1 else by("a.1")
    if way == "a batch":
        refused.clear()
        setup.add(b"5")

    setup.delivery.step_live()
    refused.clear()
    setup.pass_by(270)
    setup.pass_by(270)
    setup.pass_by(270)

    sent_again = [body for request in setup.service.requests for body in request]
    assert set(bodies(0, 1, 2)) <= set(sent_again)


def test_a_batch_that_is_sent_again_is_paced_halved_and_retried_as_any_other(make: Make) -> None:
    setup = make(waiting=9)
    setup.service.answer = lambda sent: by("a.1")
    setup.drain()
    setup.service.requests.clear()
    setup.add(b"9")

    def answer(sent: list[bytes]) -> Outcome:
        return Failed("HTTP 503", "busy") if len(sent) > 5 else by("a.2")

    setup.service.answer = answer
    setup.delivery.step_live()
    waits = [setup.pass_by(60), setup.pass_by(210), setup.pass_by(60), setup.pass_by(270)]
    setup.drain()

    assert waits == [210, 1, 270, 270]
    assert setup.service.requests == [bodies(9), bodies(7, 8), bodies(*range(7)), bodies(4, 5, 6), bodies(*range(4))]


def test_the_latest_are_sent_again_while_a_backlog_waits_for_its_turn_and_retried_after_a_failure(make: Make) -> None:
    setup = make(interval_seconds=5)
    setup.service.answer = lambda sent: by("a.1")
    for number in range(40):
        setup.add(b"%d" % number)
        setup.delivery.step_live()
    setup.service.answer = lambda sent: Failed("HTTP 503", "busy")
    setup.add(b"40")
    setup.delivery.step_live()
    setup.add(b"41")
    setup.service.requests.clear()
    answers: Iterator[Outcome] = iter([by("a.2"), Failed("HTTP 500", "HTTP 500")])
    setup.service.answer = lambda sent: next(answers, by("a.2"))

    setup.delivery.step_live()
    assert setup.delivery.step_backlog() == 10
    assert setup.pass_by(10) == 1
    assert setup.pass_by(1) == 34  # the rest of nine intervals
    assert setup.service.requests == [bodies(41), bodies(*range(28, 40)), bodies(*range(28, 40))]
    setup.drain()
    assert setup.service.requests[3:] == [bodies(40), bodies(*range(28))]


@pytest.mark.parametrize("way", ["each of a batch", "the batch as a whole"])
def test_a_heartbeat_that_is_refused_when_it_is_sent_again_is_no_dead_letter(
    make: Make, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    setup = make(waiting=4)
    setup.service.answer = lambda sent: by("a.1")
    setup.drain()
    setup.service.requests.clear()
    setup.add(b"4")

    def answer(sent: list[bytes]) -> Outcome:
        if b"2" not in sent:
            return by("a.2")
        if way == "the batch as a whole":
            return Refused("HTTP 422", "too old")
        return by("a.2", RejectedHeartbeat(sent.index(b"2"), "too old"))

    setup.service.answer = answer
    for _ in range(3):
        setup.drain()

    arrived = {body for request in setup.service.requests for body in request}
    assert arrived == set(bodies(0, 1, 2, 3, 4))
    assert caplog.text.count("refused 1 heartbeats that were acknowledged before and sent again: too old") == 1
    assert (setup.delivery.rejected, setup.buried()) == (0, [])
    assert setup.spool.due() == 0


@pytest.mark.parametrize("epochs", ["ab", "aabb", "abc", "aaaab"])
def test_databases_that_answer_by_turns_get_each_heartbeat_once_each_and_backlog_goes_on(
    make: Make, caplog: pytest.LogCaptureFixture, epochs: str
) -> None:
    caplog.set_level(logging.INFO)
    setup = make(interval_seconds=30)
    rng = random.Random(epochs)
    setup.service.answer = lambda sent: by(rng.choice(epochs))
    for number in range(600):
        setup.add(b"%d" % number)
        setup.delivery.step_live()
        setup.delivery.step_backlog()
        setup.seconds += 30

    sent = [body for request in setup.service.requests for body in request]
    most = max(sent.count(b"%d" % number) for number in range(600))
    assert most <= len(set(epochs))
    assert len(sent) <= len(set(epochs)) * 600
    # One that a database had while it was not asked for anything has grown too old by the time that it is.
    assert sum(sent.count(b"%d" % number) > 1 for number in range(500)) > 50
    assert caplog.text.count("alternates between several databases") == 1
    assert caplog.text.count("has another database now") <= 3


@pytest.mark.parametrize("delay_seconds", [0.0, 1e9])
def test_a_restart_in_between_sends_the_rest_again(make: Make, tmp_path: Path, delay_seconds: float) -> None:
    setup = make(waiting=20, delay_seconds=delay_seconds)
    setup.service.answer = lambda sent: by("a.1")
    setup.drain()
    setup.add(b"20")
    setup.service.answer = lambda sent: by("a.2") if len(sent) < 10 else Failed("HTTP 503", "busy")
    setup.delivery.step_live()
    setup.pass_by(60)
    setup.pass_by(210)
    setup.pass_by(60)
    assert setup.spool.due() == 9
    setup.spool.close()

    again = Setup(tmp_path / "spool-0", 0)
    again.service.answer = lambda sent: by("a.2")
    again.add(b"21")
    again.drain()
    again.spool.close()

    assert again.service.requests == [bodies(21), bodies(*range(9))]
