"""The budget of bodies in flight: together, by sender and by the minute."""

import gzip
from typing import Any

import pytest

from service.http import budget as sizes
from service.http.body import read
from service.http.budget import SENDERS_LARGE_BYTES, SMALL_BYTES, Budget, Held
from service.http.errors import Problem

MEBIBYTE = 1 << 20


def held(budget: Budget, sender: str = "nas", *, is_limited: bool = False) -> Held:
    return Held(budget, sender, is_limited=is_limited)


def in_flight(budget: Budget) -> tuple[int, int, dict[Any, int]]:
    return budget.small_bytes, budget.large_bytes, dict(budget.of_sender)


def refused(hold: Held, length: int | None) -> Problem:
    with pytest.raises(Problem) as raised:
        hold.expect(length)
    return raised.value


async def send(hold: Held, body: bytes, *, announced: bool = True, is_gzip: bool = False) -> bytes:
    sent = False

    async def receive() -> Any:
        nonlocal sent
        assert not sent
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-length", b"%d" % len(body))] if announced else []
    scope: Any = {"headers": headers}
    return await read(scope, receive, 8 * MEBIBYTE, is_gzip=is_gzip, held=hold)


def test_all_that_is_held_is_given_back() -> None:
    budget = Budget()
    small, grown, large = held(budget), held(budget, "a"), held(budget, "b")

    small.arrived(1_000)
    grown.arrived(SMALL_BYTES)
    assert in_flight(budget) == (SMALL_BYTES + 1_000, 0, {})
    grown.arrived(1)
    large.expect(MEBIBYTE)
    assert in_flight(budget) == (1_000, MEBIBYTE + SMALL_BYTES + 1, {"a": SMALL_BYTES + 1, "b": MEBIBYTE})
    large.arrived(MEBIBYTE)
    assert large.bytes == MEBIBYTE, "what was expected is not counted twice"

    for one in (small, grown, large):
        one.release()
    assert in_flight(budget) == (0, 0, {})


def test_large_bodies_leave_room_for_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget()
    holding = [held(budget, f"sender-{n}") for n in range(7)]

    for one in holding[:6]:
        one.expect(8 * MEBIBYTE)
    problem = refused(holding[6], MEBIBYTE)

    assert (problem.status, problem.code) == (503, "overloaded")
    assert problem.headers == {"Retry-After": "2", "Connection": "close"}
    held(budget).arrived(SMALL_BYTES)
    holding[0].release()
    holding[6].expect(MEBIBYTE)


def test_small_bodies_have_an_end_too() -> None:
    budget = Budget()
    holding = [held(budget, "relay") for _ in range(sizes.ALL_SMALL_BYTES // SMALL_BYTES)]
    for one in holding:
        one.arrived(SMALL_BYTES)

    with pytest.raises(Problem, match="overloaded"):
        held(budget, "other").arrived(1)

    holding[0].release()
    held(budget, "other").arrived(1)


def test_one_sender_takes_a_share() -> None:
    budget = Budget()
    held(budget, "greedy").expect(SENDERS_LARGE_BYTES)

    assert refused(held(budget, "greedy"), MEBIBYTE).status == 503
    held(budget, "greedy").arrived(SMALL_BYTES)
    held(budget, "other").expect(MEBIBYTE)


def test_a_sender_waits_where_its_large_bodies_were_too_many() -> None:
    budget = Budget(large_bytes_per_minute=4 * MEBIBYTE)
    for _ in range(2):
        sent = held(budget, is_limited=True)
        sent.expect(3 * MEBIBYTE)
        sent.arrived(3 * MEBIBYTE)
        sent.is_read()
        sent.release()

    problem = refused(held(budget, is_limited=True), None)

    assert (problem.status, problem.code) == (429, "too_many_requests")
    assert 25 <= int(problem.headers["Retry-After"]) <= 31
    held(budget, is_limited=True).expect(SMALL_BYTES)
    held(budget, "other", is_limited=True).expect(3 * MEBIBYTE)
    held(budget, is_limited=False).expect(3 * MEBIBYTE)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_is_held_from_its_arrival_to_the_answer(announced: bool) -> None:
    budget = Budget()
    hold = held(budget)

    body = await send(hold, b" " * MEBIBYTE, announced=announced)

    assert len(body) == budget.large_bytes == MEBIBYTE


async def test_what_is_refused_for_want_of_room_is_not_read() -> None:
    budget = Budget()
    held(budget).expect(SENDERS_LARGE_BYTES)

    with pytest.raises(Problem, match="overloaded"):
        await send(held(budget), b" " * MEBIBYTE)

    assert budget.large_bytes == SENDERS_LARGE_BYTES


async def test_what_a_body_unpacks_to_is_counted() -> None:
    budget = Budget()
    packed = gzip.compress(b" " * (8 * MEBIBYTE))
    hold, second, third = held(budget), held(budget), held(budget)

    await send(hold, packed, is_gzip=True)
    assert hold.bytes == 8 * MEBIBYTE + len(packed)

    with pytest.raises(Problem, match="overloaded"):
        await send(second, packed, is_gzip=True)
    second.release()
    hold.release()
    await send(third, packed, is_gzip=True)
    third.release()
    assert in_flight(budget) == (0, 0, {})
