"""E35: a thousand agents come back at once after an outage; what the service then sees a second.

    make drill-agent

The delivery of every agent is the real one; time, the network and what a spool holds are simulated, in one thread.
"""

import heapq
import itertools
import math
import random
from collections import Counter
from pathlib import Path

import pytest

from agent.answers import Delivered, Failed, Outcome
from agent.deadletter import DeadLetters
from agent.delivery import Delivery
from agent.identity import ApiKey
from agent.segments import Record
from agent.settings import Settings
from agent.spool import Spooled

AGENTS = 1_000
INTERVAL_SECONDS = 30.0
STEADY = AGENTS / INTERVAL_SECONDS  # requests a second
RATE_SECONDS = 3
DAY = 2_880  # heartbeats
HEARTBEAT_BYTES = 1_500


class CountingSpool:
    """What waits in a spool, and what is kept for another epoch, without the heartbeats."""

    dropped = 0
    epoch = ""

    def __init__(self, backlog: int, kept: int) -> None:
        self._last = backlog
        self._kept = kept  # whenever the epoch changes
        self._due = 0
        self._done_to = 0  # all up to this one are acknowledged
        self._done: set[int] = set()  # and these
        self._live = 0

    def append(self) -> None:
        self._last += 1
        self._live = self._last

    def newest(self) -> Record | None:
        return Record(self._live, 0, b"") if self._live > self._done_to and self._live not in self._done else None

    def oldest(self, count: int, max_bytes: int, before: int) -> list[Record]:
        waiting = (n for n in range(self._done_to + 1, min(before, self._last + 1)) if n not in self._done)
        return [Record(n, 0, b"") for n in itertools.islice(waiting, min(count, max_bytes // HEARTBEAT_BYTES))]

    def latest(self, before: int) -> list[Record]:
        raise AssertionError("nothing is refused here")

    def discard(self, sequences: list[int]) -> None:
        raise AssertionError("nothing is refused here")

    def again(self, count: int, max_bytes: int) -> list[Record]:
        return [Record(-1, 0, b"")] * min(count, max_bytes // HEARTBEAT_BYTES, self._due)

    def due(self) -> int:
        return self._due

    def acknowledge(self, sequences: list[int], epoch: str = "", *, asked: str = "") -> None:
        if epoch != self.epoch:
            self._due = self._kept if self.epoch else 0
            self.epoch = epoch
        if asked:
            self._due -= len(sequences)
            return
        self._done.update(sequences)
        while self._done_to + 1 in self._done:
            self._done_to += 1
            self._done.remove(self._done_to)

    def state(self) -> Spooled:
        raise AssertionError("nobody asks")

    def __len__(self) -> int:
        return self._last - self._done_to - len(self._done)


class Fleet:
    """Agents with a service that is away until second 0, when it has another database; what arrives there is counted
    by the second.
    """

    def __init__(self, seed: int, *, outage_seconds: float, backlog: int, answer: Failed, kept: int = 0) -> None:
        self._random = random.Random(seed)
        self.now = -outage_seconds - 60.0
        self._outage_began = -outage_seconds
        self._answer = answer
        self._events: list[tuple[float, int, int, str]] = []
        self._order = itertools.count()
        self.arrived: Counter[int] = Counter()
        self.latest_live = 0.0  # the most that a heartbeat of an agent that is back had to wait
        self.spools = [CountingSpool(backlog, kept) for _ in range(AGENTS)]
        key, letters = ApiKey(Settings()), DeadLetters(Path("/nonexistent"))
        self._agents = [
            Delivery(
                self,
                self,
                key,
                spool,
                letters,
                "fleet",
                interval_seconds=INTERVAL_SECONDS,
                uniform=self._random.uniform,
                monotonic=lambda: self.now,
            )
            for spool in self.spools
        ]
        self._busy: set[tuple[int, str]] = set()  # lanes that wait for a moment of their own
        self._stamped = [0.0] * AGENTS
        self._back: set[int] = set()  # agents of which the service has taken a heartbeat since the outage
        for agent in range(AGENTS):
            self._at(self.now + self._random.uniform(0, INTERVAL_SECONDS), agent, "tick")

    def heartbeat(self, body: bytes) -> Outcome:
        self.arrived[math.floor(self.now)] += 1
        if self._outage_began <= self.now < 0:
            return self._answer
        return Delivered([], "", epoch="before" if self.now < 0 else "after")

    def heartbeats(self, bodies: list[bytes]) -> Outcome:
        return self.heartbeat(b"")

    def hurry(self, timeout_seconds: float) -> None: ...
    def close(self) -> None: ...

    def _at(self, moment: float, agent: int, what: str) -> None:
        heapq.heappush(self._events, (moment, next(self._order), agent, what))

    def run(self, until: float) -> None:
        while self._events[0][0] < until:
            self.now, _, agent, what = heapq.heappop(self._events)
            if what == "tick":
                self._at(self.now + INTERVAL_SECONDS, agent, "tick")
                self.spools[agent].append()
                self._stamped[agent] = self.now
            else:
                self._busy.discard((agent, what))
            for lane, step in (
                ("live", self._agents[agent].step_live),
                ("backlog", self._agents[agent].step_backlog),
            ):
                while (agent, lane) not in self._busy:
                    waited = len(self.spools[agent])
                    wait = step()
                    if lane == "live" and agent in self._back and len(self.spools[agent]) < waited:
                        self.latest_live = max(self.latest_live, self.now - self._stamped[agent])
                    if lane == "live" and self.now > 0 and len(self.spools[agent]) < waited:
                        self._back.add(agent)
                    if wait is None:
                        break
                    if wait > 0:
                        self._busy.add((agent, lane))
                        self._at(self.now + wait, agent, lane)

    def backlog(self) -> int:
        return sum(max(0, len(spool) - 1) for spool in self.spools)


@pytest.mark.parametrize(
    "answer",
    [Failed("ConnectionRefusedError", "refused connections"), Failed("HTTP 503", "503 with Retry-After", 2.0)],
    ids=["refused", "503"],
)
@pytest.mark.parametrize(
    ("outage_seconds", "backlog"), [(5.0, 0), (20.0, 0), (120.0, 0), (600.0, DAY)], ids=["5s", "20s", "2min", "day"]
)
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_fleet_that_comes_back_at_once_asks_at_most_twice_as_much_as_ever(
    answer: Failed, outage_seconds: float, backlog: int, seed: int
) -> None:
    """A rate is over some seconds: of a thousand agents that all is well with, up to 50 report in one, by chance."""
    fleet = Fleet(seed, outage_seconds=outage_seconds, backlog=backlog, answer=answer)
    fleet.run(0)
    waiting, caught_up = fleet.backlog(), 0
    while fleet.backlog() or caught_up < 150:
        caught_up += 30
        fleet.run(caught_up)
        assert caught_up < 3_600, "not caught up within an hour"

    seconds = [fleet.arrived[second] for second in range(caught_up)]
    peak, usual = (
        max(seconds),
        max(fleet.arrived[second] for second in range(-int(outage_seconds) - 31, -int(outage_seconds) - 1)),
    )
    windows = zip(seconds, seconds[1:], seconds[2:], strict=False)
    rate = max(sum(window) / RATE_SECONDS for window in windows)
    print(
        f"\n{answer.reason} for {outage_seconds:.0f} s, {waiting:,} heartbeats to catch up on: {rate:.1f} requests a "
        f"second in the busiest {RATE_SECONDS}, {peak} in the busiest one ({seconds.index(peak)}), "
        f"{sum(seconds) / len(seconds):.1f} on average; before, {usual} and {STEADY:.1f}. All caught up within "
        f"{caught_up} s; once an agent was back, no heartbeat waited for more than {fleet.latest_live:.1f} s. "
        f"Seconds by requests: {sorted(Counter(n // 10 * 10 for n in seconds).items())}"
    )
    assert rate <= 2 * STEADY
    assert fleet.latest_live <= INTERVAL_SECONDS


@pytest.mark.parametrize(("kept", "within_seconds"), [(30, 300), (DAY, 2_400)], ids=["15min", "day"])
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_fleet_that_sees_another_database_at_once_asks_at_most_twice_as_much_as_ever(
    seed: int, kept: int, within_seconds: int
) -> None:
    """No agent has noticed an outage: nothing but the pace of what is sent again spreads it."""
    fleet = Fleet(seed, outage_seconds=0, backlog=0, answer=Failed("", ""), kept=kept)
    fleet.run(0)
    assert not any(spool.due() for spool in fleet.spools)
    fleet.run(within_seconds)

    seconds = [fleet.arrived[second] for second in range(within_seconds)]
    rate = max(sum(window) / RATE_SECONDS for window in zip(seconds, seconds[1:], seconds[2:], strict=False))
    print(
        f"\n{kept:,} heartbeats again: {rate:.1f} requests a second in the busiest {RATE_SECONDS}, "
        f"{sum(seconds) / len(seconds):.1f} on average, {STEADY:.1f} usually"
    )
    assert rate <= 2 * STEADY
    assert not any(spool.due() for spool in fleet.spools)
    assert fleet.backlog() == 0
