"""The queue of heartbeats: one of a server in a batch, in the order of arrival, fair between servers."""

import asyncio
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from service.batch import Pending, Stored
from service.queue import BATCH_HEARTBEATS, BATCH_SAMPLES, Queue
from service.wire import Heartbeat, NetworkInterface

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pending(server_id: str, interfaces: int = 0) -> Pending:
    names = [NetworkInterface(f"eth{n}", 0, 0, 0, 0, True) for n in range(interfaces)]
    answer: asyncio.Future[Stored] = asyncio.Future(loop=LOOP)
    return Pending(Heartbeat(server_id, "host", network_interfaces=names), NOW, 0.0, answer)


LOOP = asyncio.new_event_loop()
LOOP.close()


def servers(batch: list[Pending]) -> list[str]:
    return [one.heartbeat.server_id for one in batch]


def test_a_batch_holds_each_server_once_in_the_order_of_ids() -> None:
    queue = Queue(10)
    waiting = [pending(name) for name in ("c", "a", "c", "b")]
    for one in waiting:
        queue.put(one)

    batch = queue.take()

    assert servers(batch) == ["a", "b", "c"]
    assert batch[2] is waiting[0]
    assert len(queue) == 1


def test_a_servers_next_waits_until_its_batch_is_released() -> None:
    queue = Queue(10)
    for _ in range(2):
        queue.put(pending("a"))
    batch = queue.take()

    assert queue.take() == []
    queue.release(batch)
    assert servers(queue.take()) == ["a"]


def test_what_was_not_stored_comes_before_what_waits() -> None:
    queue = Queue(10)
    first, second = pending("a"), pending("a")
    queue.put(first)
    queue.put(second)
    batch = queue.take()

    queue.put_back(batch)
    queue.release(batch)

    assert queue.take() == [first]
    assert len(queue) == 1


def test_a_client_that_was_told_to_come_again_is_passed_over() -> None:
    queue = Queue(10)
    gone, waiting = pending("a"), pending("a")
    gone.answer.cancel()
    queue.put(gone)
    queue.put(waiting)

    assert queue.take() == [waiting]
    assert len(queue) == 0


def test_a_replay_does_not_keep_others_waiting() -> None:
    queue = Queue(10_000)
    for _ in range(1_000):
        queue.put(pending("replays"))
    queue.put(pending("live"))

    assert servers(queue.take()) == ["live", "replays"]


def test_a_batch_ends_at_so_many_heartbeats_or_samples() -> None:
    queue = Queue(10_000)
    for n in range(BATCH_HEARTBEATS + 1):
        queue.put(pending(f"s{n}"))
    assert len(queue.take()) == BATCH_HEARTBEATS

    queue = Queue(10_000)
    for n in range(5):
        queue.put(pending(f"s{n}", interfaces=BATCH_SAMPLES // 2))
    assert len(queue.take()) == 2


def test_it_is_full_at_its_limit() -> None:
    queue = Queue(2)
    queue.put(pending("a"))
    assert not queue.is_full
    queue.put(pending("a"))
    assert queue.is_full


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_all_that_is_put_is_taken_once_in_order_of_arrival_for_each_server(names: list[str]) -> None:
    queue = Queue(1_000)
    put = [pending(name) for name in names]
    for one in put:
        queue.put(one)

    taken: list[Pending] = []
    while batch := queue.take():
        taken += batch
        queue.release(batch)

    assert len(queue) == 0
    for name in "abc":
        assert [one for one in taken if one.heartbeat.server_id == name] == [
            one for one in put if one.heartbeat.server_id == name
        ]
