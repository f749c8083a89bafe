"""What is sent first, when again, and what is forgotten; the service is a list of answers."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backlog import Backlog
from agent.delivery import Delivery
from agent.identity import ApiKey
from agent.sender import Delivered, Failed, Outcome, Refused, RejectedHeartbeat, Unauthorized
from agent.settings import Settings

OK = Delivered([], '{"status":"ok"}')
Answer = Callable[[list[bytes]], Outcome]


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
    """A delivery whose jitter always takes the whole of its range."""

    def __init__(self, waiting: int = 0, capacity: int = 1000) -> None:
        self.service = Service()
        self.backlog = Backlog(capacity)
        self.key = ApiKey(Settings(api_key="k"))
        self.delivery = Delivery(self.service, self.key, self.backlog, "http://service", uniform=lambda _, high: high)
        for number in range(waiting):
            self.backlog.add(b"%d" % number)

    def drain(self, limit: int = 1000) -> None:
        for _ in range(limit):
            if self.delivery.step() != 0.0:
                return
        raise AssertionError("never ready")


def bodies(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def test_an_empty_backlog_sends_nothing() -> None:
    setup = Setup()

    assert setup.delivery.step() is None
    assert setup.service.requests == []


def test_pitfall_40_the_live_heartbeat_goes_first_and_the_backlog_in_order() -> None:
    setup = Setup(waiting=250)

    setup.drain()

    assert setup.service.live == bodies(249)
    assert setup.service.requests == [
        bodies(249),
        bodies(*range(100)),
        bodies(*range(100, 200)),
        bodies(*range(200, 249)),
    ]
    assert len(setup.backlog) == 0


def test_a_new_heartbeat_goes_between_two_batches() -> None:
    setup = Setup(waiting=250)
    setup.delivery.step()
    setup.delivery.step()

    setup.backlog.add(b"new")
    setup.delivery.step()

    assert setup.service.requests[-1] == [b"new"]
    assert setup.service.live == [b"249", b"new"]


def test_backoff_doubles_from_a_second_to_a_minute_without_end() -> None:
    setup = Setup(waiting=1)
    setup.service.answer = lambda bodies: Failed("HTTP 500", "HTTP 500")

    waits = [setup.delivery.step() for _ in range(50)]

    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert set(waits[8:]) == {60}
    assert len(setup.backlog) == 1


def test_backoff_starts_anew_after_a_success() -> None:
    setup = Setup(waiting=1)
    setup.service.answer = lambda bodies: Failed("x", "x")
    for _ in range(5):
        setup.delivery.step()
    setup.service.answer = lambda bodies: OK
    assert setup.delivery.step() == 0.0

    setup.backlog.add(b"next")
    setup.service.answer = lambda bodies: Failed("x", "x")

    assert setup.delivery.step() == 1.0


def test_retry_after_is_the_floor() -> None:
    setup = Setup(waiting=1)
    setup.service.answer = lambda bodies: Failed("HTTP 503", "busy", 120.0)

    assert setup.delivery.step() == 121.0


def test_only_the_same_failure_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    setup = Setup(waiting=3)
    answers: list[Outcome] = [*[Failed("a", "refused")] * 3, Failed("b", "busy 1"), Failed("b", "busy 2"), OK, OK, OK]
    setup.service.answer = lambda bodies: answers.pop(0)

    for _ in range(8):
        setup.delivery.step()

    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    assert "refused" in messages[0]
    assert "busy 1" in messages[1]
    assert messages[2].startswith("http://service: delivering again after")


@pytest.mark.parametrize("status", ["HTTP 401", "HTTP 403"])
def test_a_refused_token_keeps_everything_and_says_so_once(status: str, caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup(waiting=5)
    setup.service.answer = lambda bodies: Unauthorized(status, f"{status} Unauthorized")

    waits = [setup.delivery.step() for _ in range(10)]

    assert len(setup.backlog) == 5
    assert waits[:3] == [1, 2, 4]
    assert len(caplog.records) == 1
    assert "LINKBEAT_API_KEY" in caplog.text
    assert setup.delivery.rejected == 0


def test_a_token_that_was_replaced_is_used_at_once() -> None:
    setup = Setup(waiting=1)
    setup.key.read_again = lambda: True  # type: ignore[method-assign]
    answers: list[Outcome] = [Unauthorized("HTTP 401", "x"), OK]
    setup.service.answer = lambda bodies: answers.pop(0)

    assert setup.delivery.step() == 0.0
    assert setup.delivery.step() == 0.0
    assert len(setup.backlog) == 0


def test_a_refused_live_heartbeat_is_dropped_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup(waiting=3)
    setup.service.answer = lambda bodies: Refused("HTTP 422", "HTTP 422: hostname: missing") if b"2" in bodies else OK

    setup.drain()

    assert len(setup.backlog) == 0
    assert setup.delivery.rejected == 1
    assert setup.service.requests == [bodies(2), bodies(0, 1)]
    assert "hostname: missing" in caplog.text


def test_rejected_of_a_batch_are_dropped_and_counted_and_their_neighbours_acknowledged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    setup = Setup(waiting=4)
    answers: list[Outcome] = [
        OK,
        Delivered([RejectedHeartbeat(1, "rx_bytes: expected int"), RejectedHeartbeat(99, "?")], ""),
    ]
    setup.service.answer = lambda bodies: answers.pop(0)

    setup.drain()

    assert len(setup.backlog) == 0
    assert setup.delivery.rejected == 1
    assert "rx_bytes: expected int" in caplog.text


@pytest.mark.parametrize("status", ["HTTP 413", "HTTP 422"])
def test_a_refused_batch_is_split_until_only_the_bad_heartbeat_is_lost(status: str) -> None:
    setup = Setup(waiting=101)
    arrived: set[bytes] = set()

    def answer(bodies: list[bytes]) -> Outcome:
        if b"37" in bodies:
            return Refused(status, status)
        arrived.update(bodies)
        return OK

    setup.service.answer = answer
    setup.drain()

    assert arrived == set(bodies(*range(101))) - {b"37"}
    assert setup.delivery.rejected == 1
    assert len(setup.service.requests) < 30


def test_a_limit_on_size_halves_batches_and_loses_nothing() -> None:
    setup = Setup(waiting=101)
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


def test_a_batch_that_a_slow_line_cannot_carry_in_time_is_made_smaller() -> None:
    setup = Setup(waiting=101)
    setup.delivery.step()
    setup.service.answer = lambda bodies: Failed("TimeoutError", "no answer within 10 s")

    for _ in range(3):
        setup.delivery.step()

    assert [len(each) for each in setup.service.requests] == [1, 100, 50, 25]


def test_a_full_backlog_drops_the_oldest_and_counts_them() -> None:
    setup = Setup(waiting=15, capacity=10)

    setup.drain()

    assert setup.backlog.dropped == 5
    assert setup.service.requests == [bodies(14), bodies(*range(5, 14))]


def test_a_backlog_is_bounded_in_octets_too_and_always_keeps_the_newest() -> None:
    backlog = Backlog(100, max_bytes=10)

    assert [backlog.add(b"1234") for _ in range(3)] == [0, 0, 1]
    assert backlog.add(b"x" * 50) == 2
    assert len(backlog) == 1


def test_a_heartbeat_that_arrived_after_it_was_given_up_is_not_counted_as_dropped() -> None:
    backlog = Backlog(1)
    backlog.add(b"old")
    backlog.add(b"new")

    backlog.remove([1])

    assert backlog.dropped == 0
    assert len(backlog) == 1


@given(st.lists(st.sampled_from(["add", "ok", "fail", "413", "reject"]), max_size=60), st.integers(1, 8))
def test_every_heartbeat_is_delivered_rejected_dropped_or_waiting(events: list[str], capacity: int) -> None:
    setup = Setup(capacity=capacity)
    delivered: list[bytes] = []
    added = 0
    event = ""

    def answer(bodies: list[bytes]) -> Outcome:
        if event == "ok":
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
            setup.backlog.add(b"%d" % added)
            added += 1
        else:
            setup.delivery.step()
    logging.disable(logging.NOTSET)

    assert added == len(delivered) + setup.delivery.rejected + setup.backlog.dropped + len(setup.backlog)
    assert len(delivered) == len(set(delivered))


def test_collecting_never_waits_for_a_service_that_hangs() -> None:
    setup = Setup(waiting=1)
    hung = threading.Event()
    released = threading.Event()

    def hangs(bodies: list[bytes]) -> Outcome:
        hung.set()
        released.wait(10)
        return OK

    setup.service.answer = hangs
    setup.delivery.start()
    setup.delivery.wake()
    assert hung.wait(5)

    begin = time.monotonic()
    for _ in range(100):
        setup.backlog.add(b"x")
        setup.delivery.wake()
    setup.delivery.stop(within_seconds=0.2)
    duration = time.monotonic() - begin
    released.set()

    assert duration < 1.0
    assert len(setup.backlog) == 101


def test_stopping_tries_once_more_and_cuts_a_wait_short() -> None:
    setup = Setup(waiting=2)
    failed = threading.Event()

    def answer(bodies: list[bytes]) -> Outcome:
        if failed.is_set():
            return OK
        failed.set()
        return Failed("HTTP 500", "HTTP 500")

    setup.service.answer = answer
    setup.delivery.start()
    assert failed.wait(5)
    setup.delivery.stop(within_seconds=5)

    assert setup.service.requests == [bodies(1), bodies(1), bodies(0)]
    assert setup.service.timeout == 5
    assert not setup.delivery.is_alive()


def test_stopping_leaves_a_service_alone_that_asked_for_it() -> None:
    setup = Setup(waiting=1)
    failed = threading.Event()

    def answer(bodies: list[bytes]) -> Outcome:
        failed.set()
        return Failed("HTTP 503", "busy", 30.0)

    setup.service.answer = answer
    setup.delivery.start()
    assert failed.wait(5)
    setup.delivery.stop(within_seconds=5)

    assert len(setup.service.requests) == 1
