"""E33: the spool's disk is full, fails or is read-only; the agent goes on in memory, says so, and comes back.

make drill-agent
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent import spool as agent_spool
from agent.segments import encoded, find_records
from agent.spool import Spool
from tests.helpers.agents import AgentProcess, Ledger, on_disk

TMPFS_MIB = 16
HUGE = 2**62


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    ledger.shutdown()
    ledger.server_close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        why = done.stderr.strip() if done else "only root may mount"
        pytest.skip(f"no tmpfs to fill ({why}); run as root, in a container with --cap-add SYS_ADMIN")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(directory: Path) -> Path:
    """Takes all that is left."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def delivery_reports(ledger: Ledger) -> list[dict[str, Any]]:
    with ledger.arrived:
        bodies = sorted(((time, body) for (_, time), each in ledger.payloads.items() for body in each))
    return [msgspec.json.decode(body)["delivery"] for _, body in bodies]


def reported(ledger: Ledger, what: Callable[[dict[str, Any]], bool], seconds: float) -> bool:
    return ledger.wait_for(lambda: any(what(each) for each in delivery_reports(ledger)[-1:]), seconds)


def test_a_full_disk_costs_no_heartbeat_while_the_service_answers_and_the_agent_returns_to_it(
    ledger: Ledger, small_disk: Path
) -> None:
    filler = fill(small_disk)
    with AgentProcess(ledger.url, small_disk / "spool", "agent", log=small_disk.parent / "log") as agent:
        assert reported(ledger, lambda each: each["spool"] == "memory", 20), agent.log

        filler.unlink()
        assert reported(ledger, lambda each: each["spool"] == "disk" and each["spool_bytes"] > 0, 90), agent.log
        assert agent.stop() == 0

    reports = delivery_reports(ledger)
    assert {each["dropped"] for each in reports} == {0}
    assert agent.log.count("cannot be written (No space left on device)") == 1
    assert agent.log.count("can be written again") == 1
    print(f"\nfull for {sum(each['spool'] == 'memory' for each in reports)} of {len(reports)} heartbeats, none dropped")


def test_a_read_only_disk_is_the_same(ledger: Ledger, small_disk: Path) -> None:
    with AgentProcess(ledger.url, small_disk / "spool", "agent", log=small_disk.parent / "log") as agent:
        assert reported(ledger, lambda each: each["spool"] == "disk" and each["spool_bytes"] > 0, 20), agent.log
        assert agent.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with AgentProcess(ledger.url, small_disk / "spool", "agent", log=small_disk.parent / "log") as again:
        seen = len(ledger.live)
        assert ledger.wait_for(lambda: len(ledger.live) >= seen + 3, 20), again.log
        assert again.stop() == 0

    assert delivery_reports(ledger)[-1]["spool"] == "memory"
    assert again.log.count("cannot be written (Read-only file system)") == 1


def test_without_a_service_a_full_disk_keeps_what_fits_and_what_is_dropped_is_counted(small_disk: Path) -> None:
    seconds = 1e6
    spool = Spool(
        small_disk / "spool",
        max_bytes=64 << 20,  # more than there is
        max_age_seconds=1e9,
        memory_heartbeats=100,
        now_ms=lambda: int(seconds * 1000),
        monotonic=lambda: seconds,
    )
    body = b"x" * 4_000
    for number in range(6_000):
        spool.append(b"%06d" % number + body, int(seconds * 1000))
        seconds += 30

    state = spool.state()
    left = [int(each.body[:6]) for each in spool.oldest(10_000, HUGE, HUGE)]
    assert not state.is_on_disk
    assert state.queued + state.dropped == 6_000
    assert left[-100:] == list(range(5_900, 6_000))  # in memory
    assert left[:-100] == list(range(len(left) - 100))  # on the disk, up to where it was full
    assert len(left) > 3_500
    print(f"\n{len(left) - 100} heartbeats on the disk of {TMPFS_MIB} MiB, 100 in memory, {state.dropped} dropped")

    spool.acknowledge([each.sequence for each in spool.oldest(1_000, HUGE, HUGE)])
    seconds += 60
    spool.append(b"%06d" % 6_000 + body, int(seconds * 1000))
    assert spool.state().is_on_disk
    assert len(spool) == len(left) - 1_000 + 1
    spool.close()


def test_a_cap_below_the_disk_is_never_passed_by_more_than_a_segment(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", max_bytes=4 << 20, max_age_seconds=1e9, memory_heartbeats=100)
    most = 0
    for number in range(5_000):
        spool.append(b"%06d" % number + b"x" * 3_000, number)
        most = max(most, sum(each.stat().st_size for each in (small_disk / "spool").glob("*.*")))

    left = [int(each.body[:6]) for each in spool.oldest(10_000, HUGE, HUGE)]
    spool.close()
    assert most <= (4 << 20) + agent_spool.SEGMENT_BYTES
    assert left == list(range(5_000 - len(left), 5_000))
    assert spool.dropped == 5_000 - len(left)
    print(f"\n{most} bytes on the disk at most, of a bound of {4 << 20}")


@pytest.mark.parametrize(
    ("call", "error"), [("fsync", "EIO"), ("write", "EIO"), ("write", "ENOSPC"), ("openat", "EIO"), ("openat", "EROFS")]
)
def test_a_system_call_that_fails_costs_nothing(ledger: Ledger, tmp_path: Path, call: str, error: str) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here to make a system call fail; apt-get install strace")
    probe = subprocess.run([strace, "-f", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace may not trace here ({probe.stderr.decode().strip()}); --cap-add SYS_PTRACE in a container")
    segment = str(tmp_path / "spool" / "000000000001.seg")
    under = [strace, "-f", "-qq", "-o", "/dev/null", "-P", segment, "-e", f"inject={call}:error={error}:when=2+"]
    with AgentProcess(ledger.url, tmp_path / "spool", "agent", under=under) as agent:
        assert reported(ledger, lambda each: each["spool"] == "memory", 30), agent.log
        seen = len(ledger.live)
        assert ledger.wait_for(lambda: len(ledger.live) >= seen + 2, 20), agent.log
        time.sleep(0.2)  # for the answers

    assert agent.log.count("cannot be written") == 1
    assert "Traceback" not in agent.log
    assert {each["dropped"] for each in delivery_reports(ledger)} == {0}
    assert ledger.conflicts() == []
    # What reached the disk is whole, and had been sent.
    assert all(find_records(encoded(each)).records == [each] for each in on_disk(tmp_path / "spool").values())
    assert {each.body for each in on_disk(tmp_path / "spool").values()} <= ledger.all_payloads("agent")
