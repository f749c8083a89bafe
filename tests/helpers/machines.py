"""Machines as the rules of spec section 3 meet them: kernels that count, reboot, reset and wrap, agents that stamp."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from tests.helpers.oracle import COUNTERS, WRAP, Beat, Sample
from tests.helpers.support import boot_id

# Names with the kinds that agents give them; those below FOLDING come and go on top of another, and are folded while
# they are young.
STAYING = [
    ("eth0", "physical"),
    ("wlan0", "physical"),
    ("tun0", "tunnel"),
    ("bond0", "bond"),
    ("br-90ab", "bridge"),
    ("ppp0", None),
]
FOLDING = [("veth4f1a", "veth"), ("tap9", "tunnel"), ("pod7", "veth")]
SPEEDS = [None, None, -1, 100, 1_000, 10_000, 800_000]


@dataclass
class Link:
    """One interface of a running kernel.

    bits              width of its byte and packet counters, 32 or 64
    bytes_per_second  what crosses it on average
    """

    name: str
    kind: str | None
    speed_mbps: int | None
    bits: int
    bytes_per_second: float
    counters: list[int]
    reports_errors: bool = True
    ifindex: int | None = None
    stacked_on: tuple[str, ...] = ()

    def run(self, rng: random.Random, seconds: float) -> None:
        """Traffic crosses for so long."""
        received = round(self.bytes_per_second * seconds * rng.uniform(0.7, 1.3))
        sent = received // rng.randint(1, 20)
        faults = [rng.choice([0, 0, rng.randint(1, 9)]) for _ in range(4)]
        grown = [received, sent, received // 900, sent // 400, *faults]
        self.counters = [
            (counter + more) % 2 ** (self.bits if index < 4 else 64)
            for index, (counter, more) in enumerate(zip(self.counters, grown, strict=True))
        ]

    def restart(self, rng: random.Random) -> None:
        """Its counters begin again: a driver was loaded again, or the machine booted."""
        if self.ifindex is not None:
            self.ifindex += rng.choice([0, 1])
        received = rng.choice([0, rng.randint(0, 10**6), rng.randint(0, 2**33)]) % 2**self.bits
        self.counters = [received, received // 3, received // 1000, received // 3000, 0, 0, 0, 0]

    def sample(self, rng: random.Random) -> Sample:
        """What is read of it; now and then a reading that is wrong, by a little, by half, or of zeros."""
        counters: list[int | None] = [*self.counters]
        fault = rng.choices(["", "dip", "low", "zeros", "one zero"], [30, 1, 1, 1, 1])[0]
        share = {"dip": rng.uniform(0.99, 1), "low": rng.uniform(0.1, 1), "zeros": 0}.get(fault, 1)
        if share != 1:
            counters = [None if counter is None else round(counter * share) for counter in counters]
        elif fault == "one zero":
            counters[rng.randrange(len(counters))] = 0
        if not self.reports_errors:
            counters[4:] = [None] * 4
        return Sample(tuple(counters), self.kind, self.speed_mbps, rng.random() < 0.95, self.ifindex, self.stacked_on)


def link(rng: random.Random, name: str, kind: str | None) -> Link:
    """A link with a past; one of 32 bits is about to wrap."""
    bits = rng.choice([32, 64, 64])
    rate = rng.choice([0.0, 10.0, 10**4, 10**6, 4 * 10**7, 1.2 * 10**8])
    if bits == 32:
        received = WRAP - 1 - round(rate * rng.uniform(1, 120)) % WRAP
    else:
        received = rng.choice([rng.randint(0, 2**31), WRAP - rng.randint(1, 10**9), 2**63 - 10, 2**64 - 10**9, 0])
    counters = [received, rng.randint(0, 2**30), 0, 0, 0, 7, 0, 2**63]
    counts_packets = rng.random() < 0.8
    counters[2:4] = [rng.randint(0, 10**6), WRAP - rng.randint(1, 1000)] if counts_packets else [0, 0]
    below = ("eth0",) if (name, kind) in FOLDING else ()
    # No two devices of a boot have the same number.
    ifindex = rng.choice([None, 2, 7])
    if ifindex is not None:
        ifindex += 10_000 * [known for known, _ in (*STAYING, *FOLDING)].index(name)
    return Link(name, kind, rng.choice(SPEEDS), bits, rate, counters, rng.random() < 0.6, ifindex, below)


@dataclass
class Machine:
    """A machine and its agent. Times are those that the agent stamps: within a boot they only grow.

    unrest      how likely something happens to it between two heartbeats, and then once more
    regularity  how many of its heartbeats come after 30 s
    """

    name: str
    rng: random.Random
    moment: datetime
    links: list[Link] = field(default_factory=list)
    absent: list[Link] = field(default_factory=list)
    boots: int = 0
    boot_ids: str = "uuid"
    booted: datetime | None = None
    interval_seconds: float | None = None
    clock_offset: timedelta = timedelta(0)
    stamped: datetime | None = None
    unrest: float = 0.5
    regularity: float = 0.6

    def live(self) -> Iterator[Beat]:
        """Its heartbeats, in the order in which they are made."""
        while True:
            yield self.beat()
            self._pass(30 if self.rng.random() < self.regularity else round(self.rng.uniform(0.001, 150), 3))
            while self.rng.random() < self.unrest:
                self.rng.choices(STEPS, WEIGHTS)[0](self)

    def beat(self) -> Beat:
        stamp = self.moment + self.clock_offset
        if self.stamped is not None:
            stamp = max(stamp, self.stamped + timedelta(milliseconds=1))
        self.stamped = stamp
        samples = {one.name: one.sample(self.rng) for one in self.links}
        uptime = None if self.booted is None else (self.moment - self.booted).total_seconds()
        return Beat(stamp, self.boot_id(), samples, self.interval_seconds, uptime)

    def boot_id(self) -> str | None:
        """A UUID; a label; a time that slides, or that flickers between two; or now and then nothing."""
        label = f"{self.name}-{self.boots}"
        if self.boot_ids == "none" or self.rng.random() < 0.03:
            return None
        if self.boot_ids == "uuid":
            return boot_id(label)
        if self.boot_ids == "sliding":
            return f"{label}+{int(self.moment.timestamp()) // 97}"
        if self.boot_ids == "flickering":
            return f"{label}+{self.rng.randint(0, 1)}"
        return label

    def _pass(self, seconds: float) -> None:
        self.moment += timedelta(milliseconds=round(seconds * 1000))
        for one in (*self.links, *self.absent):
            one.run(self.rng, seconds)

    def miss_heartbeats(self) -> None:
        self._pass(self.rng.choice([60, 90, 90.001, 120, 900, 5_000]))

    def suspend(self) -> None:
        """For eight hours nothing counts."""
        self.moment += timedelta(hours=8)

    def reboot(self) -> None:
        """The agent starts with the machine, and no longer knows what it stamped."""
        self.boots += 1
        self.stamped = None
        if self.booted is not None:
            self.booted = self.moment
        self.moment += timedelta(seconds=self.rng.randint(5, 200))
        for one in self.links:
            one.restart(self.rng)

    def reset(self) -> None:
        for one in self.rng.sample(self.links, min(1, len(self.links))):
            one.restart(self.rng)

    def shrink(self) -> None:
        """A counter below 2**32 is smaller all of a sudden: a wrap that nothing but itself speaks for."""
        for one in self.links:
            if one.counters[0] < WRAP:
                one.counters[0] = self.rng.randint(0, one.counters[0])

    def jump(self) -> None:
        for one in self.rng.sample(self.links, min(1, len(self.links))):
            index = self.rng.randrange(len(COUNTERS))
            one.counters[index] = self.rng.choice([self.rng.randint(0, 2**64 - 1), 2**64 - 1, 2**63, 2**63 - 1, 0])

    def overrun(self) -> None:
        """Somewhat more than its line rate, or somewhat less, crosses."""
        for one in self.links:
            if one.speed_mbps and one.speed_mbps > 0:
                one.counters[0] += round(one.speed_mbps * 125_000 * self.rng.choice([1, 1.5, 30, 31, 31.7]))
                one.counters[0] %= 2**one.bits

    def disappear(self) -> None:
        if self.links:
            self.absent.append(self.links.pop(self.rng.randrange(len(self.links))))

    def come_back(self) -> None:
        """With its counters, or made again."""
        if self.absent:
            one = self.absent.pop()
            if self.rng.random() < 0.5:
                one.restart(self.rng)
            self.links.append(one)

    def appear(self) -> None:
        known = {one.name for one in (*self.links, *self.absent)}
        unknown = [one for one in (*STAYING, *FOLDING) if one[0] not in known]
        if unknown:
            self.links.append(link(self.rng, *self.rng.choice(unknown)))

    def set_clock(self) -> None:
        self.clock_offset += timedelta(seconds=self.rng.choice([-7_200, -40, -1.5, 0.7, 61, 3_600]))

    def set_interval(self) -> None:
        self.interval_seconds = self.rng.choice([None, 10, 60, 0.5])

    def change_speed(self) -> None:
        for one in self.links:
            one.speed_mbps = self.rng.choice(SPEEDS)

    def change_errors(self) -> None:
        for one in self.links:
            one.reports_errors = self.rng.random() < 0.5


_WEIGHED: dict[Callable[[Machine], None], int] = {
    Machine.miss_heartbeats: 4, Machine.suspend: 1, Machine.reboot: 4, Machine.reset: 4, Machine.shrink: 2,
    Machine.jump: 3, Machine.overrun: 3, Machine.disappear: 2, Machine.come_back: 3, Machine.appear: 3,
    Machine.set_clock: 2, Machine.set_interval: 1, Machine.change_speed: 1, Machine.change_errors: 1,
}  # fmt: skip
STEPS, WEIGHTS = list(_WEIGHED), list(_WEIGHED.values())


def history(rng: random.Random, start: datetime, end: datetime) -> list[Beat]:
    """What one server's agents sent, by time; now and then they are two machines under one id, as of a cloned disk."""
    boot_ids = rng.choices(["uuid", "label", "sliding", "flickering", "none"], [6, 2, 1, 1, 1])[0]
    machines = [Machine("a", rng, start, boot_ids=boot_ids, booted=rng.choice([None, start - timedelta(hours=9)]))]
    machines[0].links = [link(rng, *one) for one in rng.sample([*STAYING, *FOLDING], rng.randint(1, 4))]
    if rng.random() < 0.25:
        moment = start + timedelta(seconds=rng.choice([-10, 1, 40, 200, 900]))
        twin = replace(machines[0], name="b", moment=moment, absent=[])
        twin.links = [link(rng, one.name, one.kind) for one in machines[0].links]
        machines.append(twin)
    made: dict[datetime, Beat] = {}
    for machine in machines:
        for beat in islice(machine.live(), rng.randint(1, 14)):
            if beat.time < end:
                made.setdefault(beat.time, beat)
    return [made[time] for time in sorted(made)]


def body(server_id: str, beat: Beat) -> dict[str, Any]:
    """The heartbeat as it travels."""
    told: dict[str, Any] = {
        "server_id": server_id,
        "hostname": f"{server_id}.local",
        "timestamp": beat.time.isoformat(),
        "metrics": {"cpu_percent": 1.5},
        "network_interfaces": [
            {
                "name": name, "is_up": sample.is_up, "kind": sample.kind, "speed_mbps": sample.speed_mbps,
                "ifindex": sample.ifindex, "stacked_on": [*sample.stacked_on],
                **({"permanent_address": sample.permanent_address} if sample.permanent_address else {}),
                **({"bus_path": sample.bus_path} if sample.bus_path else {}),
                **dict(zip(COUNTERS, sample.counters, strict=True)),
            }
            for name, sample in beat.samples.items()
        ],
    }  # fmt: skip
    if beat.uptime_seconds is not None:
        told["metrics"]["uptime_seconds"] = beat.uptime_seconds
    if beat.boot is not None:
        told["boot_id"] = beat.boot
    if beat.interval_seconds is not None:
        told["interval_seconds"] = beat.interval_seconds
    return told
