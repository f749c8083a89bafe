"""The queue of heartbeats: one of a server in a batch, in the order of arrival, fair between servers."""

import asyncio
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from service.ingest.batch import Pending, Stored
from service.ingest.queue import BATCH_HEARTBEATS, BATCH_SAMPLES, HEAVY_SAMPLES, Queue
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
    assert isinstance(gone.answer, asyncio.Future)
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
    for n in range(9):
        queue.put(pending(f"s{n}", interfaces=BATCH_SAMPLES // 5))
    assert len(queue.take()) == 5


def test_it_is_full_at_its_limit() -> None:
    queue = Queue(2)
    queue.put(pending("a"))
    assert not queue.is_full_for("b")
    queue.put(pending("b"))
    assert queue.is_full_for("c")


def test_one_server_has_a_share_of_it() -> None:
    queue = Queue(5_000)
    for _ in range(1_250):
        assert not queue.is_full_for("replays")
        queue.put(pending("replays"))

    assert queue.is_full_for("replays")
    assert not queue.is_full_for("live")


def test_servers_that_replay_leave_room_for_those_that_do_not() -> None:
    queue = Queue(5_000)
    for n in range(4):
        while not queue.is_full_for(f"replays-{n}"):
            queue.put(pending(f"replays-{n}"))
    assert len(queue) == 4_000

    for n in range(999):
        assert not queue.is_full_for(f"live-{n}")
        queue.put(pending(f"live-{n}"))
    queue.put(pending("live-0"))
    assert queue.is_full_for("live-1000")


def test_a_heavy_heartbeat_is_a_batch_of_its_own() -> None:
    queue = Queue(100)
    for name in ("a", "c"):
        queue.put(pending(name))
    queue.put(pending("b", HEAVY_SAMPLES))

    assert servers(queue.take()) == ["a", "c"]
    assert servers(queue.take()) == ["b"]
    assert queue.take() == []


def test_one_heavy_heartbeat_is_executed_at_a_time_and_the_others_go_on_beside_it() -> None:
    queue = Queue(100)
    for name in ("x", "y", "z"):
        queue.put(pending(name, HEAVY_SAMPLES))
    heavy = queue.take()
    assert servers(heavy) == ["x"]

    assert queue.take() == [], "the other writer waits for what is not heavy"
    queue.put(pending("a"))
    light = queue.take()
    assert servers(light) == ["a"]
    queue.release(light)
    assert queue.take() == []

    queue.release(heavy)
    assert servers(queue.take()) == ["y"]


def test_heavy_and_other_heartbeats_take_turns() -> None:
    queue = Queue(10_000)
    for n in range(3):
        queue.put(pending(f"heavy-{n}", HEAVY_SAMPLES))
    for n in range(BATCH_HEARTBEATS * 3):
        queue.put(pending(f"light-{n:03}"))

    sizes = []
    while batch := queue.take():
        sizes.append(len(batch))
        queue.release(batch)

    assert sizes == [BATCH_HEARTBEATS, 1, BATCH_HEARTBEATS, 1, BATCH_HEARTBEATS, 1]


def test_however_many_are_heavy_the_others_are_found() -> None:
    queue = Queue(100_000)
    for n in range(10 * BATCH_HEARTBEATS):
        queue.put(pending(f"heavy-{n}", HEAVY_SAMPLES))
    queue.put(pending("light"))

    assert servers(queue.take()) == ["light"]


def test_a_server_whose_client_has_gone_gives_out_what_comes_next_whatever_it_is() -> None:
    queue = Queue(100)
    gone, heavy = pending("a"), pending("a", HEAVY_SAMPLES)
    assert isinstance(gone.answer, asyncio.Future)
    gone.answer.cancel()
    for one in (gone, heavy, pending("b")):
        queue.put(one)

    assert servers(queue.take()) == ["b"]
    assert queue.take() == [heavy]
    assert len(queue) == 0


def test_a_heavy_heartbeat_that_was_not_stored_is_given_out_again() -> None:
    queue = Queue(100)
    queue.put(pending("a", HEAVY_SAMPLES))
    batch = queue.take()

    queue.put_back(batch)
    queue.release(batch)

    assert queue.take() == batch


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40), st.integers(1, 3))
def test_all_that_is_put_is_taken_once_in_order_of_arrival_for_each_server(
    names: list[tuple[str, bool]], writers: int
) -> None:
    queue = Queue(1_000)
    put = [pending(name, HEAVY_SAMPLES if is_heavy else 0) for name, is_heavy in names]
    for one in put:
        queue.put(one)

    taken: list[Pending] = []
    executing: list[list[Pending]] = []
    while True:
        batch = queue.take()
        if batch:
            executing.append(batch)
            taken += batch
        if not executing:
            break
        if not batch or len(executing) == writers:
            queue.release(executing.pop(0))

    assert len(queue) == 0
    for name in "abc":
        assert [one for one in taken if one.heartbeat.server_id == name] == [
            one for one in put if one.heartbeat.server_id == name
        ]
