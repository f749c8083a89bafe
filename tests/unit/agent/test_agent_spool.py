"""The spool on a real file system: what is kept, what is given up, and what a start makes of what it finds."""

import errno
import itertools
import logging
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.directory import default_directory
from agent.segments import Record, encoded, find_records
from agent.spool import Spool, SpoolInUse

DAY_MS = 86_400_000
HUGE = 2**62


class Time:
    """Both clocks, moved by the test; the wall clock may be ahead."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return int(self.seconds * 1000) + self.ahead_ms

    def monotonic(self) -> float:
        return self.seconds


def opened(
    directory: Path,
    time: Time | None = None,
    *,
    max_bytes: int = 1 << 20,
    segment_bytes: int = 1_000,
    memory_heartbeats: int = 100,
    delay_seconds: float = 0.0,
    max_age_seconds: float = 1e9,
) -> Spool:
    time = time or Time()
    return Spool(
        directory,
        max_bytes=max_bytes,
        max_age_seconds=max_age_seconds,
        memory_heartbeats=memory_heartbeats,
        delay_seconds=delay_seconds,
        segment_bytes=segment_bytes,
        now_ms=time.now_ms,
        monotonic=time.monotonic,
    )


def filled(directory: Path, count: int, size: int = 100) -> Spool:
    spool = opened(directory)
    for number in range(count):
        spool.append(body(number, size), 1_000 + number)
    return spool


def body(number: int, size: int = 100) -> bytes:
    return b"%d" % number + b" " * (size - len(str(number)))


def waiting(spool: Spool) -> list[int]:
    return [int(record.body) for record in spool.oldest(100_000, HUGE, HUGE)]


def files(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.glob("*.seg"))


def test_a_heartbeat_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")

    spool.append(b"{}", 7)

    [path] = (tmp_path / "spool").glob("*.seg")
    assert find_records(path.read_bytes()).records == [Record(1, 7, b"{}")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert spool.state().is_on_disk


def test_what_waits_comes_again_after_a_restart_in_order_and_what_was_acknowledged_does_not(tmp_path: Path) -> None:
    spool = filled(tmp_path, 30)
    chosen = spool.oldest(100, HUGE, HUGE)
    spool.acknowledge([chosen[29].sequence, *(each.sequence for each in chosen[3:10])])
    spool.close()

    again = opened(tmp_path)

    assert waiting(again) == [0, 1, 2, *range(10, 29)]
    assert again.newest() is None  # nothing of this process's own yet
    assert again.last == chosen[29]
    assert len(again) == again.state().queued == 22
    assert again.state().oldest_ms == 1_000


def test_sequences_go_on_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()

    again = opened(tmp_path)
    again.append(body(3), 1)

    assert [each.sequence for each in again.oldest(9, HUGE, HUGE)] == [1, 2, 3, 4]


def test_a_segment_is_deleted_when_all_in_it_is_acknowledged_but_the_newest_stays(tmp_path: Path) -> None:
    spool = filled(tmp_path, 30)
    before = files(tmp_path)
    spool.acknowledge([each.sequence for each in spool.oldest(100, HUGE, HUGE)])

    assert len(before) > 2
    assert files(tmp_path) == before[-1:]
    assert spool.state().oldest_ms is None
    assert len(list(tmp_path.glob("*.ack"))) == 1


def test_batches_are_bounded_in_count_and_bytes_and_end_before_the_live_heartbeat(tmp_path: Path) -> None:
    spool = filled(tmp_path, 10)

    assert [int(each.body) for each in spool.oldest(3, HUGE, HUGE)] == [0, 1, 2]
    assert [int(each.body) for each in spool.oldest(100, 250, HUGE)] == [0, 1]
    assert [int(each.body) for each in spool.oldest(100, 1, HUGE)] == [0]
    assert [int(each.body) for each in spool.oldest(100, HUGE, 4)] == [0, 1, 2]
    assert [int(each.body) for each in spool.latest(8)] == [6]
    assert spool.latest(1) == []


def test_the_oldest_segments_are_dropped_and_counted_and_the_bound_is_never_passed(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=5_000)
    for number in range(200):
        spool.append(body(number), number)
        assert sum(each.stat().st_size for each in tmp_path.glob("*.seg")) <= 5_000 + 1_000

    left = waiting(spool)
    assert left == list(range(200 - len(left), 200))
    assert len(left) >= 20
    assert spool.dropped == 200 - len(left)


def test_what_is_too_old_is_dropped_and_counted(tmp_path: Path) -> None:
    time = Time()
    spool = opened(tmp_path, time, max_age_seconds=20_000)
    for number in range(100):
        spool.append(body(number), time.now_ms())
        time.seconds += 600

    left = waiting(spool)
    assert 20_000 <= 600 * len(left) <= 20_000 + 3_600 + 2 * 600 * 8  # the hour of grace, and whole segments of 7
    assert spool.dropped == 100 - len(left)


def test_a_clock_that_is_a_year_ahead_for_a_while_costs_nothing(tmp_path: Path) -> None:
    time = Time()
    spool = opened(tmp_path, time, max_age_seconds=20_000)
    for number in range(60):
        time.ahead_ms = 365 * DAY_MS if number == 50 else 0
        spool.append(body(number), time.now_ms())
        time.seconds += 30

    assert waiting(spool) == list(range(60))


def test_a_heartbeat_that_arrived_after_it_was_dropped_is_not_counted_as_dropped(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=5_000)
    spool.append(body(0), 0)
    [sent] = spool.oldest(1, HUGE, HUGE)
    for number in range(1, 200):
        spool.append(body(number), number)
    dropped = spool.dropped

    spool.acknowledge([sent.sequence])

    assert spool.dropped == dropped - 1


def test_with_a_delay_what_is_acknowledged_soon_never_touches_the_disk(tmp_path: Path) -> None:
    time = Time()
    spool = opened(tmp_path, time, delay_seconds=60)
    for number in range(10):
        spool.append(body(number), number)
        newest = spool.newest()
        assert newest is not None
        spool.acknowledge([newest.sequence])
        time.seconds += 30
    assert files(tmp_path) == []

    for number in range(10, 14):
        spool.append(body(number), number)
        time.seconds += 30

    assert waiting(spool) == [10, 11, 12, 13]
    assert [int(each.body) for each in find_records((tmp_path / files(tmp_path)[0]).read_bytes()).records] == [
        10,
        11,
        12,
    ]
    assert spool.state().is_on_disk
    spool.close()
    assert waiting(opened(tmp_path)) == [10, 11, 12, 13]


def test_a_second_agent_is_told_who_has_the_directory(tmp_path: Path) -> None:
    spool = opened(tmp_path)

    with pytest.raises(SpoolInUse, match=f'"{tmp_path}" is in use by process {os.getpid()}'):
        opened(tmp_path)

    spool.close()
    opened(tmp_path).close()


def test_a_directory_that_cannot_be_made_leaves_the_memory_bounded_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    time = Time()
    spool = opened(tmp_path / "file" / "spool", time, memory_heartbeats=3)
    for number in range(5):
        spool.append(body(number), number)
    assert not spool.state().is_on_disk
    assert waiting(spool) == [2, 3, 4]
    assert spool.dropped == 2
    assert len([each for each in caplog.records if "cannot be written" in each.message]) == 1

    (tmp_path / "file").unlink()
    spool.append(body(5), 5)
    assert not spool.state().is_on_disk  # tried again once a minute
    time.seconds += 61
    spool.append(body(6), 6)

    assert spool.state().is_on_disk
    assert waiting(spool) == [3, 4, 5, 6]
    assert files(tmp_path / "file" / "spool") == ["000000000001.seg"]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_after_a_failed_write_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    time = Time()
    spool = opened(tmp_path, time)
    spool.append(body(0), 0)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        spool.append(body(1), 1)
        spool.append(body(2), 2)
    assert not spool.state().is_on_disk
    assert waiting(spool) == [0, 1, 2]
    time.seconds += 61
    spool.append(body(3), 3)

    assert spool.state().is_on_disk
    assert waiting(spool) == [0, 1, 2, 3]
    assert len(files(tmp_path)) == 2  # what failed to be flushed once is not written to again
    spool.close()
    assert waiting(opened(tmp_path)) == [0, 1, 2, 3]


def test_a_write_that_was_kept_although_it_failed_is_not_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    spool = opened(tmp_path, time)
    spool.append(body(0), 0)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        patched.setattr(os, "ftruncate", fail)
        spool.append(body(1), 1)
    time.seconds += 61
    spool.append(body(2), 2)
    spool.close()

    again = opened(tmp_path)

    assert waiting(again) == [0, 1, 2]
    again.acknowledge([2])
    again.close()
    assert waiting(opened(tmp_path)) == [0, 2]


def test_a_directory_that_went_away_is_made_again(tmp_path: Path) -> None:
    time = Time()
    spool = opened(tmp_path / "spool", time)
    spool.append(body(0), 0)
    shutil.rmtree(tmp_path / "spool")

    spool.append(body(1), 1)
    time.seconds += 61
    spool.append(body(2), 2)

    assert spool.state().is_on_disk
    assert waiting(spool) == [1, 2]


def test_a_directory_that_another_agent_takes_meanwhile_leaves_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    time = Time()
    spool = opened(tmp_path / "file" / "spool", time)
    (tmp_path / "file").unlink()
    other = opened(tmp_path / "file" / "spool")

    time.seconds += 61
    spool.append(body(0), 0)
    assert not spool.state().is_on_disk
    other.close()
    time.seconds += 61
    spool.append(body(1), 1)

    assert spool.state().is_on_disk
    assert waiting(spool) == [0, 1]


def test_a_disk_that_comes_late_gives_what_it_holds(tmp_path: Path) -> None:
    place = tmp_path / "mount"
    filled(place / "spool", 3).close()
    place.rename(tmp_path / "elsewhere")
    place.write_text("not mounted")
    time = Time()
    spool = opened(place / "spool", time)
    spool.append(body(3), 3)

    place.unlink()
    (tmp_path / "elsewhere").rename(place)
    time.seconds += 61
    spool.append(body(4), 4)

    assert waiting(spool) == [0, 1, 2, 3, 4]


def test_a_torn_tail_is_cut_and_not_counted(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    path = tmp_path / files(tmp_path)[-1]
    with path.open("ab") as file:
        file.write(encoded(Record(4, 4, body(3)))[:-1])

    again = opened(tmp_path)
    again.append(body(4), 4)

    assert waiting(again) == [0, 1, 2, 4]
    assert again.state().damaged == 0
    assert len(files(tmp_path)) == 1


def test_a_damaged_record_alone_is_lost_counted_and_set_aside_once(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    path = tmp_path / files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    again = opened(tmp_path)
    found, damaged = waiting(again), again.state().damaged
    again.close()
    third = opened(tmp_path)

    assert (found, damaged) == ([0, 2], 1)
    assert [each.read_bytes() for each in (tmp_path / "damaged").iterdir()] == [bytes(data)]
    assert waiting(third) == [0, 2]
    assert third.state().damaged == 0


def test_a_record_that_rots_while_the_agent_runs_is_passed_over_and_counted(tmp_path: Path) -> None:
    spool = filled(tmp_path, 3)
    path = tmp_path / files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    assert waiting(spool) == [0, 2]
    assert len(spool) == 2
    assert spool.state().damaged == 1
    spool.append(body(3), 3)
    assert waiting(spool) == [0, 2, 3]


def test_a_segment_that_goes_away_while_the_agent_runs_is_passed_over_and_counted(tmp_path: Path) -> None:
    spool = filled(tmp_path, 30)
    (tmp_path / files(tmp_path)[0]).unlink()

    left = waiting(spool)

    assert 0 < len(left) < 30
    assert len(spool) == len(left)
    assert spool.state().damaged == 1


def test_damaged_files_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    for _ in range(5):
        (tmp_path / "000000000001.seg").write_bytes(os.urandom(400_000))
        opened(tmp_path).close()

    kept = list((tmp_path / "damaged").iterdir())
    assert len(kept) == 2
    assert sum(each.stat().st_size for each in kept) <= 1 << 20


def strange_directory(path: Path) -> None:
    (path / "000000000001.seg").mkdir()
    os.mkfifo(path / "000000000002.seg")
    (path / "000000000003.seg").symlink_to("/dev/zero")
    with (path / "000000000004.seg").open("wb") as sparse:
        sparse.truncate(1 << 33)
    (path / "000000000005.seg").write_bytes(b"")
    (path / "000000000006.seg").write_bytes(bytes(10_000))
    (path / "000000000007.seg").write_bytes(encoded(Record(9, 9, b"9")))
    (path / "000000000007.ack").write_bytes(b"nonsense")
    (path / "000000000008.ack").mkdir()
    (path / "000000000009.tmp").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path / "000000000010.seg"))
    (path / "damaged").write_text("in the way")
    (path / os.fsdecode(b"\xff.seg")).write_text("?")


def test_it_starts_whatever_is_in_the_directory(tmp_path: Path) -> None:
    strange_directory(tmp_path)

    spool = opened(tmp_path)
    spool.append(body(10), 10)

    assert waiting(spool) == [9, 10]
    assert spool.state().is_on_disk


@given(st.binary(max_size=300), st.binary(max_size=100), st.lists(st.binary(max_size=50), max_size=4))
def test_any_bytes_around_records_cost_none_of_them(before: bytes, between: bytes, bodies: list[bytes]) -> None:
    records = [Record(number, number, each) for number, each in enumerate(bodies, 1)]
    data = before + between.join(map(encoded, records))

    assert find_records(data).records == records


@given(st.integers(0, 500), st.integers(1, 255))
def test_a_flipped_byte_costs_one_record(position: int, flip: int) -> None:
    records = [Record(number, number, body(number)) for number in range(1, 5)]
    data = bytearray(b"".join(map(encoded, records)))
    data[position] ^= flip

    found = find_records(bytes(data))

    lost = position // len(encoded(records[0]))
    assert found.records == [each for each in records if each.sequence != lost + 1]
    assert found.damaged + found.is_torn == 1


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"STATE_DIRECTORY": "/s/a:/s/b"}, 0, "/s/a/nas.spool"),
        ({}, 0, "/var/lib/linkbeat-agent/nas.spool"),
        ({"XDG_STATE_HOME": "/x"}, 1000, "/x/linkbeat-agent/nas.spool"),
        ({}, 1000, str(Path.home() / ".local/state/linkbeat-agent/nas.spool")),
    ],
)
def test_each_server_id_has_a_directory_of_its_own(environ: dict[str, str], uid: int, expected: str) -> None:
    assert default_directory("nas", environ, uid) == Path(expected)


@pytest.mark.parametrize("place", [0, 40, 70])
def test_the_number_of_a_damaged_record_is_not_given_again(tmp_path: Path, place: int) -> None:
    """Its acknowledgement would be taken for that of the heartbeat that had its number."""
    spool = opened(tmp_path, Time())
    for number in (0, 1):
        spool.append(body(number, 20), number)
    spool.acknowledge([record.sequence for record in spool.oldest(2, HUGE, HUGE)])
    spool.close()
    (segment,) = tmp_path.glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[place] ^= 1
    segment.write_bytes(content)
    spool = opened(tmp_path, Time())
    spool.append(body(2, 20), 2)
    spool.append(body(3, 20), 3)
    spool.close()

    assert waiting(opened(tmp_path, Time())) == [2, 3]


def bigger(record: Record, is_waiting: bool) -> Record:
    """Each that waits with a longer body and an earlier time."""
    return record._replace(body=record.body + b" ", stamp_ms=record.stamp_ms - 1) if is_waiting else record


@pytest.mark.parametrize("delay_seconds", [0.0, 1e9])
def test_what_waits_can_be_revised_wherever_it_is_and_stays_so(tmp_path: Path, delay_seconds: float) -> None:
    spool = opened(tmp_path, Time(), segment_bytes=200, delay_seconds=delay_seconds)
    for number in range(1, 7):
        spool.append(body(number, 60), 10 + number)
    before = spool.oldest(100, HUGE, HUGE)
    spool.acknowledge([before[1].sequence])

    changed = spool.revise(bigger)

    kept = [each for each in before if each is not before[1]]
    revised = [each._replace(body=each.body + b" ", stamp_ms=each.stamp_ms - 1) for each in kept]
    assert changed == {each.sequence for each in kept}
    assert spool.oldest(100, HUGE, HUGE) == revised
    assert spool.newest() == revised[-1]
    assert spool.state().oldest_ms == 10
    spool.append(body(7, 60), 7)
    spool.close()
    again = opened(tmp_path, Time())
    assert again.oldest(100, HUGE, HUGE)[:-1] == revised
    assert again.state().damaged == 0
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_revision_sees_what_is_acknowledged_and_in_which_order(tmp_path: Path) -> None:
    spool = opened(tmp_path, Time())
    for number in range(3):
        spool.append(body(number), number)
    spool.acknowledge([record.sequence for record in spool.oldest(1, HUGE, HUGE)])
    seen: list[tuple[int, bool]] = []

    def see(record: Record, is_waiting: bool) -> Record:
        seen.append((int(record.body), is_waiting))
        return record

    assert spool.revise(see) == frozenset()
    assert seen == [(0, False), (1, True), (2, True)]


def test_a_revision_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(tmp_path, Time())
    spool.append(body(1), 5)
    before = spool.oldest(100, HUGE, HUGE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agent.segments.rewrite", full)

    assert spool.revise(bigger) == frozenset()
    assert spool.oldest(100, HUGE, HUGE) == before
    assert "No space left on device; its heartbeats are left unchanged" in caplog.text


class SpoolMachine(RuleBasedStateMachine):
    """Any history of a spool against lists of numbers: each heartbeat's payload is its number.

    A crash leaves what a kernel may leave: all that was kept, and any beginning of the record after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="linkbeat-spool-"))
        self.time = Time()
        self.kept: list[int] = []  # appended, not acknowledged, not known to be lost
        self.uncertain: set[int] = set()  # acknowledged: may come again after a crash, as the same payload
        self.numbers = itertools.count()
        self.dropped = self.damaged = 0
        logging.disable()

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        shutil.rmtree(self.directory)

    @initialize(max_bytes=st.sampled_from([3_000, 100_000]))
    def start(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.spool = self.open()

    def open(self) -> Spool:
        return opened(self.directory, self.time, max_bytes=self.max_bytes, segment_bytes=600)

    @rule(count=st.integers(1, 6), size=st.sampled_from([20, 100, 400]))
    def append(self, count: int, size: int) -> None:
        for _ in range(count):
            number = next(self.numbers)
            self.spool.append(body(number, size), number)
            self.kept.append(number)
        gone, self.dropped = self.spool.dropped - self.dropped, self.spool.dropped
        del self.kept[:gone]

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        records = self.spool.oldest(100_000, HUGE, HUGE)
        chosen = data.draw(st.lists(st.sampled_from(records), unique=True)) if records else []
        self.spool.acknowledge([each.sequence for each in chosen])
        done = {int(each.body) for each in chosen}
        self.kept = [number for number in self.kept if number not in done]
        self.uncertain |= done

    @rule()
    def revise(self) -> None:
        before = waiting(self.spool)
        self.spool.revise(lambda record, is_waiting: record._replace(stamp_ms=record.stamp_ms + 1))
        assert waiting(self.spool) == before

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = self.open()
        self.dropped = self.damaged = 0
        # Acknowledgements that reached the file hold; none of these comes again.

    @rule(torn=st.integers(0, 150), size=st.sampled_from([20, 100]))
    def crash(self, torn: int, size: int) -> None:
        self.spool.close()
        paths = sorted(self.directory.glob("*.seg"))
        if paths and (found := find_records(paths[-1].read_bytes()).records):
            unfinished = encoded(Record(found[-1].sequence + 1, 1, body(next(self.numbers), size)))
            with paths[-1].open("ab") as file:
                file.write(unfinished[: min(torn, len(unfinished) - 1)])
        self.spool = self.open()
        self.dropped = self.damaged = 0
        assert self.spool.state().damaged == 0

    @rule(data=st.data())
    def lose_acknowledgements(self, data: st.DataObject) -> None:
        """A power failure may take what was not flushed."""
        self.spool.close()
        for path in self.directory.glob("*.ack"):
            os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
        self.spool = self.open()
        self.dropped = self.damaged = 0
        found = set(waiting(self.spool))
        assert found >= set(self.kept)
        assert found <= set(self.kept) | self.uncertain
        self.kept = sorted(found)

    @rule(data=st.data(), flip=st.integers(1, 255))
    def corrupt(self, data: st.DataObject, flip: int) -> None:
        self.spool.close()
        paths = sorted(each for each in self.directory.glob("*.???") if each.is_file())
        is_tail = True
        if paths:
            path = data.draw(st.sampled_from(paths))
            content = bytearray(path.read_bytes())
            if content:
                position = data.draw(st.integers(0, len(content) - 1))
                content[position] ^= flip
                path.write_bytes(content)
                last = sorted(self.directory.glob("*.seg"))[-1]
                is_tail = path == last and position >= find_records(bytes(content)).whole
        self.spool = self.open()
        self.dropped = self.damaged = 0
        found = set(waiting(self.spool))
        # A flip back makes an acknowledgement whole again, of what had come again without it.
        lost = set(self.kept) - found - self.uncertain
        assert len(lost) <= 1
        assert found <= set(self.kept) | self.uncertain
        # The last record with a broken head cannot be told from one that was never finished.
        assert not lost or is_tail or self.spool.state().damaged >= 1
        self.kept = sorted(found)

    @invariant()
    def what_waits_is_what_was_kept(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert waiting(self.spool) == self.kept
        assert len(self.spool) == len(self.kept)
        assert self.spool.state().is_on_disk
        assert sum(each.stat().st_size for each in self.directory.glob("*.seg")) <= self.max_bytes + 600


SpoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSpoolMachine = SpoolMachine.TestCase
