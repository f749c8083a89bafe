"""Acknowledged heartbeats on a real file system: how long they are kept, and which another database is sent."""

import errno
import itertools
import logging
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent import acknowledged
from agent.acknowledged import Acknowledged, fingerprint
from agent.keeping import MOST_EPOCHS, Epochs, read_epochs
from agent.segments import Record
from agent.spool import Spool

HUGE = 2**62
KEEP = 900.0


class Time:
    """Both clocks, moved by the test; the wall clock may be ahead."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.ahead = 0.0

    def now_ms(self) -> int:
        return int((self.seconds + self.ahead) * 1000)

    def monotonic(self) -> float:
        return self.seconds


def opened(
    directory: Path,
    time: Time,
    *,
    keep_seconds: float = KEEP,
    max_bytes: int = 1 << 20,
    memory_heartbeats: int = 1_000,
    delay_seconds: float = 0.0,
) -> Spool:
    return Spool(
        directory,
        max_bytes=max_bytes,
        max_age_seconds=1e9,
        memory_heartbeats=memory_heartbeats,
        delay_seconds=delay_seconds,
        keep_seconds=keep_seconds,
        segment_bytes=600,
        now_ms=time.now_ms,
        monotonic=time.monotonic,
    )


def body(number: int, size: int = 100) -> bytes:
    return b"%d" % number + b" " * (size - len(str(number)))


def add(spool: Spool, numbers: range) -> None:
    for number in numbers:
        spool.append(body(number), 1_000 + number)


def acknowledge(spool: Spool, epoch: str = "", count: int = 100_000) -> None:
    """The oldest that wait."""
    spool.acknowledge([record.sequence for record in spool.oldest(count, HUGE, HUGE)], epoch)


def send_again(spool: Spool, epoch: str) -> list[int]:
    """All that is due, answered with `epoch`."""
    records = spool.again(100_000, HUGE)
    spool.acknowledge([record.sequence for record in records], epoch, asked=spool.epoch)
    return [int(record.body) for record in records]


def due(spool: Spool) -> list[int]:
    found = [int(record.body) for record in spool.again(100_000, HUGE)]
    assert len(found) == spool.due()
    return found


def waiting(spool: Spool) -> list[int]:
    return [int(record.body) for record in spool.oldest(100_000, HUGE, HUGE)]


def size(directory: Path) -> int:
    return sum(each.stat().st_size for each in directory.glob("*.seg"))


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.mark.parametrize("delay_seconds", [0.0, 1e9])
@pytest.mark.parametrize("restarts", [False, True])
def test_what_was_acknowledged_lately_is_due_when_the_epoch_changes_and_only_then(
    tmp_path: Path, time: Time, delay_seconds: float, restarts: bool
) -> None:
    spool = opened(tmp_path, time, delay_seconds=delay_seconds)
    for number in range(40):
        add(spool, range(number, number + 1))
        acknowledge(spool, "a.1")
        time.seconds += 30
    assert (due(spool), len(spool), spool.newest()) == ([], 0, None)
    if restarts:
        spool.close()
        spool = opened(tmp_path, time)
    assert spool.epoch == "a.1"

    add(spool, range(40, 41))
    acknowledge(spool, "a.2")

    # The last one of a.1 was acknowledged 30 seconds ago: those of the 15 minutes before it.
    assert due(spool) == list(range(9, 40))
    assert spool.dropped == spool.state().queued == 0
    assert send_again(spool, "a.2") == list(range(9, 40))
    assert due(spool) == []
    spool.close()
    # When its segment is still there, a restart cannot tell that one was too old at the change.
    assert set(due(opened(tmp_path, time))) <= set(range(5, 9))


def test_the_first_epoch_of_all_sends_nothing_again_but_the_second_does_what_was_acknowledged_before_it(
    tmp_path: Path, time: Time
) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(3))
    acknowledge(spool)  # by a service that names no epoch
    add(spool, range(3, 5))
    acknowledge(spool, "a.1")
    assert due(spool) == []
    spool.close()

    spool = opened(tmp_path, time)
    acknowledge(spool, "a.1")
    assert due(spool) == []
    acknowledge(spool, "a.2")

    assert due(spool) == [0, 1, 2, 3, 4]
    assert read_epochs(tmp_path / "epoch") == Epochs("a.1", "a.2")


def test_a_service_that_names_no_epoch_changes_nothing(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    for epoch in ("", "a.1", "", "a.1"):
        add(spool, range(1))
        acknowledge(spool, epoch)

    assert due(spool) == []
    assert spool.epoch == "a.1"


def test_a_long_outage_before_the_failover_costs_nothing_of_what_was_kept(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(5))
    acknowledge(spool, "a.1")

    time.seconds += 100 * KEEP
    spool.close()
    spool = opened(tmp_path, time)
    add(spool, range(5, 6))
    acknowledge(spool, "a.2")
    time.seconds += 100 * KEEP  # nor does a service that takes no batch for hours
    acknowledge(spool, "a.2")

    assert due(spool) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ahead", [-1e8, 1e8])
def test_a_wall_clock_that_is_set_costs_nothing_of_what_is_kept(tmp_path: Path, time: Time, ahead: float) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(2))
    acknowledge(spool, "a.1")
    time.ahead = ahead
    add(spool, range(2, 4))
    acknowledge(spool, "a.1")
    spool.close()

    spool = opened(tmp_path, time)
    acknowledge(spool, "a.2")

    assert due(spool) == [0, 1, 2, 3]


def test_what_is_kept_no_longer_is_deleted(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    most = 0
    for number in range(500):
        add(spool, range(number, number + 1))
        acknowledge(spool, "a.1")
        time.seconds += 30
        most = max(most, size(tmp_path))

    assert most <= (31 + 2 * 6) * 132  # of the 15 minutes, and of the segments at both ends
    assert 31 <= spool.state().kept <= 31 + 2 * 6


def test_without_keeping_what_is_acknowledged_is_gone(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(20))
    acknowledge(spool, "a.1")
    spool.close()

    spool = opened(tmp_path, time, keep_seconds=0)
    add(spool, range(20, 30))
    acknowledge(spool, "a.1")
    acknowledge(spool, "a.2")

    assert due(spool) == []
    assert len(list(tmp_path.glob("*.seg"))) == 1


def test_what_was_refused_for_good_is_not_sent_again(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(3))
    acknowledge(spool, "a.1", 1)
    spool.discard([record.sequence for record in spool.oldest(1, HUGE, HUGE)])
    acknowledge(spool, "a.1")
    spool.close()

    spool = opened(tmp_path, time)
    acknowledge(spool, "a.2")

    assert due(spool) == [0, 2]


def test_epochs_that_come_by_turns_have_each_heartbeat_sent_once_an_epoch(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(10))
    acknowledge(spool, "a")
    sent: list[int] = []
    for number in range(40):
        acknowledge(spool, "ba"[number % 2])
        sent += send_again(spool, "ba"[number % 2])
        time.seconds += 30

    assert sent == list(range(10))


def test_an_answer_of_another_epoch_than_the_one_it_was_sent_for_ends_it_for_both(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(10))
    acknowledge(spool, "a")
    sent: list[int] = []
    for _ in range(20):
        acknowledge(spool, "b")  # live heartbeats by one database, batches by the other
        sent += send_again(spool, "a")

    assert sent == list(range(10))
    assert spool.epoch == "a"


def test_a_database_that_is_another_one_every_time_gets_a_heartbeat_a_few_times(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(10))
    acknowledge(spool, "0")
    sent: list[int] = []
    for number in range(1, 50):
        acknowledge(spool, str(number))
        sent += send_again(spool, str(number))
        if number % 3 == 0:
            spool.close()
            spool = opened(tmp_path, time)

    assert sorted(sent) == sorted(list(range(10)) * MOST_EPOCHS)


def test_a_full_disk_loses_nothing_that_waits_as_long_as_anything_is_only_kept(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time, max_bytes=6_000)
    add(spool, range(40))
    acknowledge(spool, "a")
    assert spool.state().kept == 40

    add(spool, range(40, 75))  # 5,180 bytes with their headers
    assert (waiting(spool), spool.dropped) == (list(range(40, 75)), 0)
    add(spool, range(75, 200))

    left = waiting(spool)
    assert left == list(range(200 - len(left), 200))
    assert len(left) == 160 - spool.dropped >= 40
    assert spool.state().kept == 0
    assert size(tmp_path) <= 6_000 + 600


@pytest.mark.parametrize("every", [2, 3, 5])
def test_room_is_made_inside_of_segments_too(tmp_path: Path, time: Time, every: int) -> None:
    spool = opened(tmp_path, time, max_bytes=6_000)
    add(spool, range(45))
    records = spool.oldest(100, HUGE, HUGE)
    spool.acknowledge([record.sequence for number, record in enumerate(records) if number % every], "a")
    wait = [number for number in range(45) if not number % every]

    add(spool, range(45, 45 + 45 - len(wait) - 12))

    expected = [*wait, *range(45, 90 - len(wait) - 12)]
    assert (waiting(spool), spool.dropped) == (expected, 0)
    assert size(tmp_path) <= 6_000 + 600
    spool.close()
    again = opened(tmp_path, time, max_bytes=6_000)
    assert waiting(again) == expected
    assert again.state().damaged == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_others_have_filled_gets_room_from_what_is_only_kept(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(20))
    acknowledge(spool, "a")
    full = size(tmp_path)
    write = os.write

    def limited(file: int, data: bytes) -> int:
        if size(tmp_path) + len(data) > full:
            raise OSError(code, os.strerror(code))
        return write(file, data)

    monkeypatch.setattr(os, "write", limited)
    add(spool, range(20, 30))

    assert spool.state().is_on_disk
    assert (waiting(spool), spool.dropped) == (list(range(20, 30)), 0)


def test_a_full_memory_loses_nothing_that_waits_as_long_as_anything_is_only_kept(tmp_path: Path, time: Time) -> None:
    (tmp_path / "file").write_text("in the way")
    spool = opened(tmp_path / "file" / "spool", time, memory_heartbeats=10)
    add(spool, range(8))
    acknowledge(spool, "a", 6)
    acknowledge(spool, "b", 0)
    assert due(spool) == [0, 1, 2, 3, 4, 5]

    add(spool, range(8, 14))
    assert (waiting(spool), due(spool), spool.dropped) == ([6, 7, *range(8, 14)], [4, 5], 0)
    add(spool, range(14, 20))

    assert (waiting(spool), due(spool), spool.dropped) == (list(range(10, 20)), [], 4)


def test_what_is_kept_in_memory_goes_to_the_disk_with_its_epochs_when_there_is_one(tmp_path: Path, time: Time) -> None:
    (tmp_path / "file").write_text("in the way")
    spool = opened(tmp_path / "file" / "spool", time)
    add(spool, range(4))
    acknowledge(spool, "a", 2)
    acknowledge(spool, "b", 1)
    (tmp_path / "file").unlink()
    time.seconds += 61
    add(spool, range(4, 5))
    assert spool.state().is_on_disk
    spool.close()

    again = opened(tmp_path / "file" / "spool", time)

    assert (waiting(again), due(again), again.epoch) == ([3, 4], [0, 1], "b")


def old_reader(path: Path) -> set[int]:
    """How an agent of before reads the acknowledgements."""
    pairs = struct.Struct(">QI").iter_unpack(path.read_bytes())
    return {sequence for sequence, crc in pairs if crc == zlib.crc32(sequence.to_bytes(8, "big"))}


def test_an_older_agent_reads_the_acknowledgements_and_its_own_are_not_kept(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(3))
    acknowledge(spool, "a.1", 2)
    spool.close()
    (path,) = tmp_path.glob("*.ack")
    assert old_reader(path) == {1, 2}
    segment = path.with_suffix(".seg")
    path.write_bytes(b"".join(struct.pack(">QI", n, zlib.crc32(n.to_bytes(8, "big"))) for n in (1, 2)))

    assert acknowledged.read(segment) == dict.fromkeys((1, 2), acknowledged.NOT_KEPT)
    again = opened(tmp_path, time)
    acknowledge(again, "a.2", 0)
    assert (waiting(again), due(again), again.state().kept) == ([2], [], 0)


NOTES = [(range(1, 4), Acknowledged(5, frozenset({7, 8}))), (range(4, 6), Acknowledged(6, frozenset({9})))]


@given(st.integers(0, 12 * 10 - 1), st.integers(1, 255))
def test_a_damaged_note_costs_one_acknowledgement_or_has_heartbeats_sent_once_too_often(
    position: int, flip: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="linkbeat-notes-") as directory:
        segment = Path(directory, "000000000001.seg")
        for sequences, how in NOTES:
            acknowledged.note(segment, sequences, how)
        path = acknowledged.path_of(segment)
        data = bytearray(path.read_bytes())
        data[position % len(data)] ^= flip
        path.write_bytes(data)

        found = acknowledged.read(segment)

    written = {sequence: how for sequences, how in NOTES for sequence in sequences}
    assert len(found) >= len(written) - 1
    for sequence, how in found.items():
        assert how.epochs <= written[sequence].epochs  # never one in which it was not acknowledged
        assert 0 < how.at_ms <= written[sequence].at_ms


@pytest.mark.parametrize("at_ms", [2**53 + 1, 2**63, 2**64 - 1])
def test_a_time_that_no_clock_shows_keeps_no_agent_from_starting(tmp_path: Path, time: Time, at_ms: int) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(2))
    spool.close()
    (segment,) = tmp_path.glob("*.seg")
    acknowledged.note(segment, [1], Acknowledged(at_ms, frozenset({fingerprint("a.1")})))

    spool = opened(tmp_path, time)
    acknowledge(spool, "a.2")

    assert (waiting(spool), due(spool)) == ([], [0])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"first":1}', b"x" * 100])
def test_an_epoch_file_that_cannot_be_read_is_none(tmp_path: Path, time: Time, content: bytes) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(3))
    acknowledge(spool, "a.1")
    spool.close()
    (tmp_path / "epoch").write_bytes(content)

    spool = opened(tmp_path, time)
    assert spool.epoch == ""
    acknowledge(spool, "a.2")

    # The notes of the acknowledgements name the epoch too.
    assert due(spool) == [0, 1, 2]


def test_a_revision_of_timestamps_leaves_what_is_kept_as_it_is(tmp_path: Path, time: Time) -> None:
    spool = opened(tmp_path, time)
    add(spool, range(4))
    acknowledge(spool, "a.1", 2)

    def later(record: Record, is_waiting: bool) -> Record:
        return record._replace(stamp_ms=record.stamp_ms + 1, body=record.body + b" ") if is_waiting else record

    spool.revise(later)
    acknowledge(spool, "a.2", 0)

    assert [record.body for record in spool.again(9, HUGE)] == [body(0), body(1)]
    assert waiting(spool) == [2, 3]


class KeepingMachine(RuleBasedStateMachine):
    """Any history of acknowledgements, databases and crashes, against sets of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="linkbeat-keeping-"))
        self.time = Time()
        self.numbers = itertools.count()
        self.waiting: list[int] = []
        self.epochs: dict[int, set[str]] = {}  # of those that were acknowledged, where they are
        self.acknowledged_at: dict[int, float] = {}
        self.kept: set[int] = set()  # of those, the ones that must not be forgotten
        self.sent_again: dict[int, int] = {}
        self.epoch = "0"
        self.answered_at = self.time.seconds
        self.dropped = 0
        logging.disable()

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        self.spool._directory.close()
        shutil.rmtree(self.directory)

    @initialize(max_bytes=st.sampled_from([3_000, 100_000]))
    def start(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.spool = self.open()
        self.spool.acknowledge([], self.epoch)

    def open(self) -> Spool:
        self.dropped = 0
        return opened(self.directory, self.time, max_bytes=self.max_bytes)

    @property
    def is_small(self) -> bool:
        return self.max_bytes < 100_000

    def is_due(self, number: int) -> bool:
        return self.epoch not in self.epochs[number] and len(self.epochs[number]) <= MOST_EPOCHS

    def answer(self, numbers: set[int], epoch: str, *, asked: str | None = None) -> None:
        """What an answer with `epoch` means for the model."""
        if epoch != self.epoch:
            oldest = self.answered_at - KEEP
            self.kept = {each for each in self.kept if self.is_due(each) or self.acknowledged_at[each] >= oldest}
            self.epoch = epoch
        self.answered_at = self.time.seconds
        for number in numbers:
            self.epochs.setdefault(number, set()).update({epoch, asked or epoch})
            self.acknowledged_at[number] = self.time.seconds
            self.kept.add(number)

    @rule(count=st.integers(1, 6), size=st.sampled_from([20, 100, 400]))
    def append(self, count: int, size: int) -> None:
        for _ in range(count):
            number = next(self.numbers)
            self.spool.append(body(number, size), number)
            self.waiting.append(number)
        gone, self.dropped = self.spool.dropped - self.dropped, self.spool.dropped
        del self.waiting[:gone]
        if gone:
            last = self.spool._disk.segments[-1]
            # Before any that waits, all that is kept has gone: but from the last segment, and the newest of all.
            assert self.spool.state().kept <= last.kept + 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), epoch=st.sampled_from([None, None, "0", "1", "2"]))
    def acknowledge(self, data: st.DataObject, epoch: str | None) -> None:
        records = self.spool.oldest(100_000, HUGE, HUGE)
        chosen = data.draw(st.lists(st.sampled_from(records), unique=True))
        self.spool.acknowledge([each.sequence for each in chosen], epoch or self.epoch)
        done = {int(each.body) for each in chosen}
        self.waiting = [number for number in self.waiting if number not in done]
        self.answer(done, epoch or self.epoch)

    @rule(epoch=st.integers(0, 12))
    def change_the_database(self, epoch: int) -> None:
        self.spool.acknowledge([], str(epoch))
        self.answer(set(), str(epoch))

    @rule(count=st.integers(1, 5), epoch=st.sampled_from([None, None, None, "0", "1"]))
    def send_again(self, count: int, epoch: str | None) -> None:
        asked = self.spool.epoch
        records = self.spool.again(count, HUGE)
        self.spool.acknowledge([each.sequence for each in records], epoch or asked, asked=asked)
        numbers = {int(each.body) for each in records}
        for number in numbers:
            self.sent_again[number] = self.sent_again.get(number, 0) + 1
            assert self.sent_again[number] <= MOST_EPOCHS
        self.answer(numbers, epoch or asked, asked=asked)

    @rule(seconds=st.sampled_from([1, 30, 500, 2_000]))
    def wait(self, seconds: int) -> None:
        self.time.seconds += seconds

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = self.open()

    @rule()
    def kill(self) -> None:
        self.spool._directory.close()
        self.spool = self.open()

    @rule(data=st.data())
    def lose_notes(self, data: st.DataObject) -> None:
        """A power failure may take what was not flushed: what is no longer acknowledged waits, and is sent."""
        self.spool.close()
        for path in self.directory.glob("*.ack"):
            os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
        self.spool = self.open()
        before, self.waiting = set(self.waiting), waiting(self.spool)
        assert before <= set(self.waiting) <= before | set(self.epochs)
        for number in set(self.waiting) - before:
            del self.epochs[number], self.acknowledged_at[number]
            self.sent_again.pop(number, None)
            self.kept.discard(number)
        # Of the others the note may lack epochs, or be older.
        for number in self.epochs:
            self.sent_again.pop(number, None)
        for segment in self.spool._disk.segments:
            for record in segment.read(set(segment.kept_sequences(lambda how: True))):
                how = next(how for sequence, how in self.notes().items() if sequence == record.sequence)
                number = int(record.body)
                assert {fingerprint(each) for each in self.epochs[number]} >= how.epochs
                self.epochs[number] = {each for each in self.epochs[number] if fingerprint(each) in how.epochs}
                self.acknowledged_at[number] = how.at_ms / 1000
        newest = max((self.acknowledged_at[each] for each in self.kept), default=0)
        self.kept = {each for each in self.kept if self.is_due(each) or self.acknowledged_at[each] >= newest - KEEP}

    def notes(self) -> dict[int, Acknowledged]:
        found: dict[int, Acknowledged] = {}
        for path in self.directory.glob("*.seg"):
            found |= acknowledged.read(path)
        return found

    @invariant()
    def what_must_be_sent_again_is_due_and_nothing_that_the_database_has(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert self.spool.epoch == self.epoch
        assert waiting(self.spool) == self.waiting
        assert len(self.spool) == len(self.waiting)
        found = due(self.spool)
        assert found == sorted(found)
        assert all(self.is_due(number) for number in found)
        if not self.is_small:
            assert self.spool.dropped == 0
            assert set(found) >= {number for number in self.kept if self.is_due(number)}
        assert size(self.directory) <= self.max_bytes + 600
        assert self.spool.state().damaged == 0


KeepingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestKeepingMachine = KeepingMachine.TestCase
