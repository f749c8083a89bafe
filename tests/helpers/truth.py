"""Interfaces whose true traffic is known, seen through sources that report it badly.

What crosses is counted without a bound; kernels count it in 32 or 64 bits, since a boot or since the interface was
created; a faulty source reports something else for a while; the agent stamps the readings.
tests/integration/test_counter_laws.py holds the stored deltas against what truly crossed.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.helpers.oracle import COUNTERS, WRAP, Beat, Sample
from tests.helpers.support import boot_id

INTERVAL = 30
Counts = list[int]


@dataclass
class History:
    """One interface's readings, and what they may be counted as.

    beats    heartbeats in the order of their timestamps
    reported octets received and sent that truthful readings show: the least that is to be counted (law 2)
    crossed  octets that crossed from the first reading to the last: the most, but for one interval's (law 1)
    busiest  octets of the busiest interval
    faults   what happened, and how often
    """

    beats: list[Beat] = field(default_factory=list)
    reported: Counts = field(default_factory=lambda: [0, 0])
    crossed: Counts = field(default_factory=lambda: [0, 0])
    busiest: Counts = field(default_factory=lambda: [0, 0])
    faults: Counter[str] = field(default_factory=Counter)


@dataclass
class Interface:
    """The kernel's side: counters since they began, by a rate that varies from interval to interval."""

    rng: random.Random
    bits: int
    bytes_per_second: float
    packet_bytes: int
    burstiness: float
    counts: Counts
    ifindex: int | None = None

    def run(self, seconds: float) -> Counts:
        """Traffic crosses for so long. Returns its octets."""
        pace = self.rng.uniform(0.5, 1.0)
        if self.rng.random() < self.burstiness:
            pace = self.rng.choice([0.0, 0.02, 1.0])
        received = round(self.bytes_per_second * seconds * pace)
        sent = received // self.rng.randint(2, 9)
        errors = [self.rng.choice([0, 0, 0, self.rng.randint(0, 3)]) for _ in range(4)]
        grown = [received, sent, -(-received // self.packet_bytes), -(-sent // self.packet_bytes), *errors]
        self.counts = [count + more for count, more in zip(self.counts, grown, strict=True)]
        return [received, sent]

    def restart(self) -> None:
        self.counts = [0] * len(COUNTERS)
        if self.ifindex is not None:
            self.ifindex += 1

    def readings(self) -> Counts:
        return [count % 2**self.bits for count in self.counts]


# What a source reports instead of the truth, given that and what it reported before.
Fault = Callable[[random.Random, Counts, list[Counts]], Counts]


def _dips(low: float, high: float) -> Callable[[random.Random], Fault]:
    """All counters, or one of them, stand lower for some readings, each time by another share."""

    def dips(rng: random.Random) -> Fault:
        only = rng.choice([None, 0, 1, 2, 3])

        def fault(rng: random.Random, true: Counts, _: list[Counts]) -> Counts:
            share = rng.uniform(low, high)
            return [int(count * share) if only in (None, n) else count for n, count in enumerate(true)]

        return fault

    return dips


def _jumps(rng: random.Random) -> Fault:
    """Octets, or octets and packets, far above anything that a line carries."""
    jumping = rng.choice([(0,), (1,), (0, 1), (0, 1, 2, 3)])

    def fault(_: random.Random, true: Counts, __: list[Counts]) -> Counts:
        return [count + 2**55 if n in jumping else count for n, count in enumerate(true)]

    return fault


def _zeros(_: random.Random) -> Fault:
    return lambda _rng, true, _reported: [0] * len(true)


def _stale(_: random.Random) -> Fault:
    return lambda _rng, _true, reported: reported[-1]


def _lower_level(_: random.Random) -> Fault:
    """Every other reading is of a source that lags behind by a share."""
    return lambda _rng, true, reported: [int(count * 0.97) for count in true] if len(reported) % 2 else true


# By name, how a fault begins, and how many readings it may last.
FAULTS: dict[str, tuple[Callable[[random.Random], Fault], int]] = {
    "small dip": (_dips(0.99, 1.0), 3),
    "dip above half": (_dips(0.5, 0.99), 3),
    "dip below half": (_dips(0.01, 0.5), 3),
    "zeros": (_zeros, 3),
    "slow refresh": (_stale, 1),
    "freeze": (_stale, 29),
    "alternating levels": (_lower_level, 12),
    "jump": (_jumps, 3),
}
EVENTS = ("reboot", "re-creation", "missed heartbeats", "clock ahead", "rename")
BOOT_IDS = ("uuid", "sliding", "flickering", "none")
SPEEDS = ("unknown", "right", "too low", "senseless")


def history(  # noqa: PLR0912, PLR0915 - a story told in the order of its draws: a seed must tell the same one
    rng: random.Random, start: datetime
) -> History:
    """A machine with one interface for up to an hour: one to three faults or events between truthful readings."""
    story = History()
    bits = rng.choice([32, 64, 64, 64])
    rate = rng.choice(
        [10**3, 10**5, 10**6 if rng.random() < 0.5 else 10**4] if bits == 32 else [10**3, 10**5, 10**7, 10**8, 10**9]
    )
    link = Interface(rng, bits, rate, rng.choice([90, 700, 1400]), rng.choice([0.0, 0.0, 0.3]), [0] * len(COUNTERS))
    link.ifindex = rng.choice([None, 3])
    wraps = bits == 32 and rng.random() < 0.5
    _age(rng, link, wraps=wraps)
    boots = rng.choices(BOOT_IDS, [5, 1, 1, 1])[0]
    speeds = rng.choice(SPEEDS)
    speed = _speed(speeds, rate)
    plan = rng.sample([*FAULTS, *EVENTS], rng.randint(1, 3))
    if wraps:
        # What a wrap is amid wrong readings, or while heartbeats are missing, nobody can tell.
        plan = [what for what in plan if what in ("reboot", "re-creation", "clock ahead", "rename")]

    moment, offset, boot = start, timedelta(0), 0
    if boots in ("none", "sliding") and {"reboot", "re-creation"} <= set(plan):
        plan.remove("re-creation")  # one soon after the other is a glitch as well, and that with less traffic
    if boots == "flickering":
        # Which of two ids a device's counters belong to is seen by how often they fall, so not at once.
        plan = [what for what in plan if what != "re-creation"]
    # What a renamed interface is recognised by.
    address = "52:54:00:12:34:56" if "rename" in plan else None
    name = "eth0"
    reported: list[Counts] = []
    best = [0, 0]  # the most that a reading of this run of counting showed
    base = [0, 0]

    def read(fault: Fault | None = None) -> None:
        true = link.readings()
        shown = fault(rng, true, reported) if fault and reported else true
        reported.append(shown)
        if fault is None:
            best[:] = link.counts[:2]
        kind = "physical" if speed or address else None
        sample = Sample(tuple(shown), kind, speed, True, link.ifindex, permanent_address=address)
        stamp = moment + offset
        story.beats.append(Beat(stamp, _boot(rng, boots, boot, moment), {name: sample}, INTERVAL))

    def let_pass(seconds: float) -> None:
        nonlocal moment
        octets = link.run(seconds)
        moment += timedelta(seconds=seconds)
        for n in range(2):
            story.crossed[n] += octets[n]
            story.busiest[n] = max(story.busiest[n], octets[n])

    def settle() -> None:
        """The run of counting ends: what truthful readings showed of it is to be counted."""
        for n in range(2):
            story.reported[n] += best[n] - base[n]
            base[n] = best[n] = 0

    read()
    base = [*best]
    for what in ["", *plan]:
        story.faults[what or "none"] += 1
        for _ in range(rng.randint(2, 6) + 6 * (boots == "flickering")):
            let_pass(INTERVAL)
            read()
        if what in FAULTS:
            begin, longest = FAULTS[what]
            fault = begin(rng)
            for _ in range(rng.randint(1, longest)):
                let_pass(INTERVAL)
                read(fault)
        elif what in ("reboot", "re-creation"):
            settle()
            let_pass(rng.randint(1, INTERVAL))
            link.restart()
            if what == "reboot":
                boot += 1
            # Until a counter shows many times what an interval adds, a fall of it tells little.
            for _ in range(25 if {"zeros", "dip below half", "re-creation"} & set(plan) else 1):
                let_pass(INTERVAL)
                read()
        elif what == "missed heartbeats":
            let_pass(INTERVAL * rng.randint(2, 40))
            read()
        elif what == "rename":
            name = "lan0"
        elif what == "clock ahead":
            offset += timedelta(seconds=rng.choice([1, 45, 600, 3_600]))
    for _ in range(rng.randint(2, 4)):
        let_pass(INTERVAL)
        read()
    settle()
    story.faults[f"{bits} bits"] += 1
    story.faults[f"boot ids: {boots}"] += 1
    story.faults[f"speed: {speeds}"] += 1
    return story


def _age(rng: random.Random, link: Interface, *, wraps: bool) -> None:
    """It has counted for a while, and may be about to wrap."""
    octets = rng.choice([10**12, 10**13, 10**15]) if link.bits == 64 else rng.randint(10**9, 2 * 10**9)
    if wraps:
        octets = WRAP - round(link.bytes_per_second * INTERVAL * rng.uniform(1, 8)) % WRAP
    octets += rng.randint(0, 10**6)
    link.counts = [octets, octets // 5, octets // link.packet_bytes, octets // 5 // link.packet_bytes, 40, 0, 9, 3]


def _speed(kind: str, bytes_per_second: float) -> int | None:
    right = max(1, round(bytes_per_second * 8 / 10**6 * 1.2))
    return {"unknown": None, "right": right, "too low": max(1, right // 3), "senseless": -1}[kind]


def _boot(rng: random.Random, kind: str, boot: int, moment: datetime) -> str | None:
    if kind == "uuid":
        return boot_id(str(boot))
    if kind == "sliding":
        return f"{boot}-{int(moment.timestamp()) // 61}"
    if kind == "flickering":
        return f"{boot}-{rng.randint(0, 1)}"
    return None
