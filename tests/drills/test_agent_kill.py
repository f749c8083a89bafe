"""E32: kill -9 of a running agent, 200 times at random and at chosen system calls; nothing kept is lost, none invented.

    make drill-agent

The ledger of heartbeats that count as kept is what stands in the spool's files after each kill: a heartbeat is there
before it is sent. So each of them must arrive, and nothing else may; what arrives twice must be the same bytes.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.segments import Segment, encoded, find_records, read_acknowledged
from tests.helpers.agents import AgentProcess, Ledger, LedgerHandler, Respond, on_disk, take

AGENTS = 2  # at once, each killed half of the times
KILLS = 200
SECONDS_TO_CATCH_UP = 60.0


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    ledger.shutdown()
    ledger.server_close()


def unreliable(rng: random.Random) -> Respond:
    """Takes some, refuses some, and of some the answer is lost."""

    def respond(handler: LedgerHandler) -> None:
        chance = rng.random()
        if chance < 0.5:
            take(handler)
        elif chance < 0.75:
            handler.answer(503, b"")
        else:
            handler.close_connection = True

    return respond


class Life:
    """One agent's spool through many lives, and all heartbeats that were seen to be kept in it."""

    def __init__(self, ledger: Ledger, directory: Path, name: str) -> None:
        self.ledger, self.spool, self.name = ledger, directory / name, name
        self.kept: dict[int, bytes] = {}
        self.lives = 0

    def look(self) -> None:
        for sequence, record in on_disk(self.spool).items():
            assert self.kept.setdefault(sequence, record.body) == record.body, "one record, two payloads"

    def live(self, seconds: float) -> None:
        """Starts the agent and kills it after so long."""
        agent = AgentProcess(self.ledger.url, self.spool, self.name)
        time.sleep(seconds)
        assert agent.process.poll() is None, agent.log
        agent.kill()
        self.lives += 1
        self.look()

    def check(self) -> int:
        """A last life, in which everything arrives. Returns how many heartbeats."""
        self.ledger.respond = take
        agent = AgentProcess(self.ledger.url, self.spool, self.name)
        everything = set(self.kept.values())
        before = len(self.ledger.live)
        arrived = self.ledger.wait_for(
            lambda: len(self.ledger.live) > before and everything <= self.ledger.all_payloads(self.name),
            SECONDS_TO_CATCH_UP,
        )
        assert agent.stop() == 0
        self.look()
        assert arrived, f"{len(everything - self.ledger.all_payloads(self.name))} of {len(everything)} never arrived"
        assert self.ledger.all_payloads(self.name) <= set(self.kept.values()), "sent, but never on the disk"
        assert self.ledger.conflicts() == []
        assert "damaged" not in agent.log
        assert "Traceback" not in agent.log
        return len(self.kept)


def test_two_hundred_kills_lose_nothing_and_invent_nothing(ledger: Ledger, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    ledger.respond = unreliable(rng)
    lives = [Life(ledger, tmp_path, f"agent-{number}") for number in range(AGENTS)]

    def go_on(life: Life) -> None:
        for _ in range(KILLS // AGENTS):
            life.live(rng.uniform(0.2, 1.3))

    with ThreadPoolExecutor(AGENTS) as pool:
        list(pool.map(go_on, lives))
    requests = len(ledger.live)
    heartbeats = [life.check() for life in lives]

    print(f"\nseed {seed}: {sum(life.lives for life in lives)} kills, {sum(heartbeats)} heartbeats kept, all arrived;")
    print(f"{requests} live requests during the kills")
    assert sum(heartbeats) >= KILLS / 2
    # The timestamps, by which the service tells heartbeats apart, are as many as the heartbeats.
    assert len(ledger.payloads) == sum(heartbeats)


def rearrange(spool: Path) -> None:
    """The same records and acknowledgements in one segment each, so that a start has some to delete; in the last,
    bytes that are nothing, so that it has one to write again."""
    acknowledged = frozenset[int]().union(*map(read_acknowledged, spool.glob("*.seg")))
    records = on_disk(spool)
    for path in [*spool.glob("*.seg"), *spool.glob("*.ack")]:
        path.unlink()
    for number, (sequence, record) in enumerate(sorted(records.items()), 1):
        segment = Segment(spool / f"{number:012}.seg")
        segment.append([record])
        if sequence in acknowledged:
            segment.acknowledge([sequence])
    segment.path.write_bytes(b"?" * 7 + segment.path.read_bytes())


@pytest.mark.parametrize(("call", "times"), [("write", 6), ("fsync", 6), ("rename", 1), ("unlink", 3), ("openat", 8)])
def test_a_kill_at_any_system_call_loses_nothing(ledger: Ledger, tmp_path: Path, call: str, times: int) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here to kill an agent at a chosen system call; apt-get install strace")
    probe = subprocess.run([strace, "-f", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace may not trace here ({probe.stderr.decode().strip()}); --cap-add SYS_PTRACE in a container")
    rng = random.Random(call)
    ledger.respond = unreliable(rng)
    life = Life(ledger, tmp_path, "agent")
    for _ in range(3):
        life.live(1.0)
    killed = 0
    for number in range(1, times + 1):
        rearrange(life.spool)
        # Calls on the spool's own files alone; others come by the hundred.
        paths = [life.spool, life.spool / "damaged", *life.spool.glob("*.*")]
        last = max((int(each.stem) for each in life.spool.glob("*.seg")), default=0)
        paths += [life.spool / f"{last + 1:012}.seg", *(each.with_suffix(".ack") for each in life.spool.glob("*.seg"))]
        paths += [each.with_suffix(".tmp") for each in life.spool.glob("*.seg")]
        traced = [argument for path in paths for argument in ("-P", str(path))]
        inject = f"inject={call}:signal=KILL:when={number}"
        agent = AgentProcess(
            ledger.url, life.spool, "agent", under=[strace, "-f", "-qq", "-o", "/dev/null", *traced, "-e", inject]
        )
        try:
            agent.process.wait(4)
            killed += 1
        except subprocess.TimeoutExpired:
            agent.kill()
        life.look()
    agent_log = (tmp_path / "agent.log").read_text()
    heartbeats = life_checked(life)

    print(f"\n{call}: killed at {killed} of {times} places; {heartbeats} heartbeats kept, all arrived")
    assert killed >= 1
    assert "Traceback" not in agent_log


def life_checked(life: Life) -> int:
    """As Life.check, where segments were damaged on purpose."""
    log = life.spool.parent / f"{life.spool.name}.log"
    log.write_text("")
    for path in life.spool.glob("*.seg"):
        path.write_bytes(b"".join(map(encoded, find_records(path.read_bytes()).records)))
    return life.check()
