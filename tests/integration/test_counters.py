"""linkbeat.repair_deltas against the oracle, at the edges of the rules, where random histories seldom come."""

import os
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from service.ingest.batch import boot_fingerprint
from tests.helpers.oracle import COUNTERS, JUMBO_FRAME, MIB, ROW_COUNTERS, WRAP, Beat, Boots, Sample, account
from tests.helpers.support import boot_id, hours_ago

START = hours_ago(20) - timedelta(days=60)
SERIES = int(os.environ.get("LINKBEAT_LAW_SERIES", "600"))  # make laws: 2,000
KINDS = {"first", "normal", "gap", "reboot", "reset", "wrap", "dip", "glitch", "rejected"}
EXTREMES = (0, 5, WRAP - 1, WRAP, 2**63 - 1, 2**63, 2**64 - 10**9, 2**64 - 1)
SECONDS = (30, 30, 30, 30, 30, 0.001, 1, 29.9995, 90, 90.001, 90.0005, 870, 900, 900.001, 1_200, 86_400 * 26)
BOOTS: tuple[list[str | None], ...] = (
    ["a"],
    [boot_id("a"), boot_id("a"), boot_id("b")],
    ["a", "b"],
    [None, "a", boot_id("b")],
)
GIGABIT, FASTEST = 127_500, 50_000_000  # octets in a millisecond at 1 Gb/s and 2 %, and at 400 Gb/s

Counts = list[int]


async def test_every_row_is_judged_as_the_oracle_says(database: asyncpg.Connection) -> None:
    """A failure prints the series and its seed."""
    seed = random.randrange(10**9)
    rng = random.Random(seed)
    sent = {f"s{number:04}": _series(rng) for number in range(SERIES)}
    alternating = {name: _alternating(rng, beats) for name, beats in sent.items()}

    await _store(database, rng, sent, alternating)
    await database.execute(
        "SELECT linkbeat.repair_deltas(server_id, '{eth0}', '{-infinity}', true) FROM servers ORDER BY server_id"
    )

    stored = {
        (row["server_id"], row["time"]): row for row in await database.fetch("SELECT * FROM network_interface_metrics")
    }
    kinds = set()
    for name, beats in sent.items():
        gains = account(beats, alternating[name]).gains
        for beat in beats:
            row, gain = stored.pop((name, beat.time)), gains["eth0", beat.time]
            kinds.add(gain.kind)
            assert (
                tuple(row[f"{counter}_delta"] for counter in COUNTERS),
                row["delta_kind"],
                row["elapsed_ms"],
                row["counts_64bit"],
            ) == (gain.deltas, gain.kind, gain.elapsed_ms, gain.counts_64bit), (
                f"seed {seed}, {name}, row {beats.index(beat)}, alternating {alternating[name]}\n"
                + "\n".join(map(str, beats))
            )
    assert stored == {}
    assert kinds == KINDS


class _Source:
    """What a series reports: counters that truly count, and readings of them that are at some edge of the rules."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.per_ms = rng.choice([0, 1, 1_000, GIGABIT, 10 * GIGABIT])
        self.packet_octets = rng.choice([64, 700, 1_400, JUMBO_FRAME, MIB])
        octets = rng.choice([*EXTREMES, rng.randint(0, WRAP), WRAP - rng.randint(1, 10**9), 10**13])
        packets = 0 if rng.random() < 0.2 else rng.choice([octets // self.packet_octets, *EXTREMES])
        self.true = [octets, octets // 3, packets, packets // 2, *(rng.choice([0, 7, 2**63]) for _ in range(4))]
        self.counts_packets = packets > 0
        self.highest = [*self.true]
        self.gained = [0] * len(COUNTERS)

    def run(self, milliseconds: int) -> None:
        """Traffic crosses; 32-bit counters wrap."""
        octets = round(self.per_ms * milliseconds * self.rng.choice([0, 0.3, 1, 1, 1]))
        packets = -(-octets // self.packet_octets) * self.counts_packets
        self.gained = [octets, octets // 3, packets, -(-packets // 3), *(self.rng.randint(0, 3) for _ in range(4))]
        bits = 32 if max(self.true[:ROW_COUNTERS]) < WRAP and self.rng.random() < 0.8 else 64
        self.true = [(count + gain) % 2**bits for count, gain in zip(self.true, self.gained, strict=True)]

    def readings(self, limit: int) -> Counts:
        """The truth, or one counter or all of them at an edge, or all of them lower by a share."""
        rng, shown = self.rng, [*self.true]
        event = rng.choice(["", "", "", "one", "one", "direction", "all", "share", "restart"])
        if event == "one":
            index = rng.randrange(len(COUNTERS))
            shown[index] = self.edge(index, limit)
        elif event == "direction":
            first = rng.randrange(2)
            for index in (first, first + 2):
                shown[index] = self.edge(index, limit)
        elif event == "all":
            shown = [self.edge(index, limit) for index in range(len(COUNTERS))]
        elif event == "share":
            numerator, denominator = rng.choice([(99, 100), (995, 1000), (3, 4), (1, 2), (1, 3), (0, 1)])
            off = rng.choice([-1, 0, 1])
            shown = [max(0, count * numerator // denominator + off) for count in shown]
        elif event == "restart":
            self.true = shown = [min(gain, 2**64 - 1) for gain in self.gained]
        if rng.random() < 0.2:
            self.true = [*shown]  # from here on it counts from there
        if not self.counts_packets and rng.random() < 0.9:
            shown[2] = shown[3] = 0
        self.highest = [max(*both) for both in zip(self.highest, shown, strict=True)]
        return shown

    def edge(self, index: int, limit: int) -> int:
        """A value next to one at which a rule ends."""
        true, highest, gained = self.true[index], self.highest[index], self.gained[index]
        packets = self.gained[2 + index % 2]
        edges = [
            highest * 99 // 100, highest // 2, true - gained, true, true + 3 * gained, (true + gained) % WRAP,
            true + limit, true + FASTEST * 31_000, true + packets * MIB, (highest + packets * MIB) % WRAP,
            (highest + packets * JUMBO_FRAME) % WRAP, (highest + packets * 8 * self.packet_octets) % WRAP,
            (highest + GIGABIT * 31_000) % WRAP, (highest + limit) % WRAP, gained, 4 * gained, limit,
            self.rng.randint(0, WRAP), *EXTREMES,
        ]  # fmt: skip
        return max(0, min(self.rng.choice(edges) + self.rng.choice([-1, 0, 1]), 2**64 - 1))


def _series(rng: random.Random) -> list[Beat]:
    """Up to nine readings of one interface by a machine, or by two under one id."""
    source = _Source(rng)
    speed = rng.choice([None, None, 10, 1_000, 10_000, 800_000])
    interval = rng.choice([None, None, 30, 200, 400])
    boots: list[str | None] = rng.choice(BOOTS)
    boot, ifindex, time, uptime, errors_are_told = rng.choice(boots), 2, START, 1_000.0, rng.random() < 0.7
    beats: list[Beat] = []
    for _ in range(rng.randint(3, 9)):
        shown: list[int | None] = [*source.readings(_limit(rng, speed, beats, time))]
        if not errors_are_told or rng.random() < 0.05:
            shown[ROW_COUNTERS:] = [None] * ROW_COUNTERS
        sample = Sample(
            tuple(shown),
            "physical",
            speed if rng.random() < 0.9 else None,
            ifindex=rng.choice([None, ifindex, ifindex]),
        )
        beats.append(Beat(time, boot, {"eth0": sample}, interval, rng.choice([None, uptime])))
        seconds = rng.choice(SECONDS)
        time += timedelta(seconds=seconds)
        uptime = 5 if rng.random() < 0.1 else uptime + seconds
        ifindex += rng.random() < 0.1
        boot = rng.choice(boots) if rng.random() < 0.3 else boot
        source.run(round(seconds * 1000))
    return beats


def _limit(rng: random.Random, speed: int | None, beats: Sequence[Beat], time: datetime) -> int:
    """Octets that a line carries since the reading before, or since the first one."""
    since = rng.choice([beats[0], beats[-1]]).time if beats else time
    milliseconds = (time - since) // timedelta(milliseconds=1)
    return (FASTEST if speed is None else speed * 255 // 2) * (milliseconds + 1_000)


def _alternating(rng: random.Random, beats: Sequence[Beat]) -> list[str]:
    """Of boots that overlap, now and then all are other machines'."""
    boots = Boots(beats)
    overlapping = [one for one in boots.spans if any(boots.overlap(one, other) for other in boots.spans)]
    return overlapping if rng.random() < 0.5 else []


async def _store(
    database: asyncpg.Connection, rng: random.Random, sent: dict[str, list[Beat]], alternating: dict[str, list[str]]
) -> None:
    """Rows as ingest writes them, but for what is to be concluded: that is nonsense."""
    await database.copy_records_to_table(
        "servers",
        columns=["server_id", "hostname", "first_seen", "last_seen", "received_at"],
        records=[(name, name, beats[0].time, beats[-1].time, beats[-1].time) for name, beats in sent.items()],
    )
    await database.copy_records_to_table(
        "server_boots",
        columns=["server_id", "boot", "boot_id", "first_seen", "last_seen", "alternates"],
        records=[
            (name, boot_fingerprint(boot), boot, *span, boot in alternating[name])
            for name, beats in sent.items()
            for boot, span in Boots(beats).spans.items()
        ],
    )
    await database.copy_records_to_table(
        "server_metrics",
        columns=["server_id", "time", "uptime_seconds"],
        records=[
            (name, beat.time, beat.uptime_seconds)
            for name, beats in sent.items()
            for beat in beats
            if beat.uptime_seconds is not None
        ],
    )
    rows = [_row(rng, name, beat) for name, beats in sent.items() for beat in beats]
    for row in rows:
        if row["time"] == sent[row["server_id"]][0].time:
            row["delta_kind"] = (
                ""  # as ingest leaves it to repair; of any other kind, retention dropped those before it
            )
    await database.copy_records_to_table(
        "network_interface_metrics", columns=list(rows[0]), records=[tuple(row.values()) for row in rows]
    )


def _row(rng: random.Random, name: str, beat: Beat) -> dict[str, Any]:
    sample = beat.samples["eth0"]
    return {
        "server_id": name,
        "interface_name": "eth0",
        "time": beat.time,
        "boot": None if beat.boot is None else boot_fingerprint(beat.boot),
        "speed_mbps": sample.line_rate_mbps,
        "ifindex": sample.ifindex,
        "interval_ms": beat.interval_ms,
        "is_up": True,
        "is_lowest": True,
        **{
            counter: None if value is None else value - 2**64 * (value >= 2**63)
            for counter, value in zip(COUNTERS, sample.counters, strict=True)
        },
        **{f"{counter}_delta": rng.randint(0, 10**9) for counter in COUNTERS},
        "elapsed_ms": rng.randint(0, 10**6),
        "counts_64bit": rng.random() < 0.5,
        "delta_kind": rng.choice(sorted(KINDS)),
        "levels": rng.choice([None, [], _nonsense(rng, 10**9)]),
        "old_levels": rng.choice([None, _nonsense(rng, 10**9)]),
        "doubted_since": [beat.time] * len(COUNTERS),
    }


def _nonsense(rng: random.Random, most: int) -> Iterable[int]:
    return [rng.randint(0, most) for _ in COUNTERS]
