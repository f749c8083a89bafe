"""The rules of docs/counters.md once more, in Python and written for clarity: the database is held against them.

A server's whole history goes in, in any order; what each of its samples gained comes out. Nothing here is incremental
and nothing is fast: every series is judged from its beginning.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

COUNTERS = (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
)  # fmt: skip
ALL = range(len(COUNTERS))
BYTE_COUNTERS = 2  # the first ones; the packet counters of the same directions stand two places on
ROW_COUNTERS = 4  # the first ones: the kind of a row is the worst of theirs
WORST_FIRST = ("rejected", "reset", "wrap", "dip", "reboot", "normal", "first")
PLAIN = ("normal", "gap")

WRAP = 2**32
MIB = 2**20
JUMBO_FRAME = 9_216
ETHERNET_FRAME = 1_518
FASTEST_BYTES_PER_MS = 50_000_000  # 400 Gb/s
GRACE_MS = 1_000
LONGEST_MS = 2**31 - 1
LOOK_BACK = timedelta(minutes=15)
MILLISECOND = timedelta(milliseconds=1)

Values = tuple[int | None, ...]
NONE: Values = (None,) * len(COUNTERS)


@dataclass(frozen=True)
class Sample:
    """One interface's counters at one moment, in the order of COUNTERS; None: not reported."""

    counters: Values
    kind: str | None = None
    speed_mbps: int | None = None
    is_up: bool = True
    ifindex: int | None = None
    stacked_on: tuple[str, ...] = ()
    permanent_address: str | None = None
    bus_path: str | None = None

    @property
    def line_rate_mbps(self) -> int | None:
        """Of virtual links drivers say anything; None: nothing known."""
        return self.speed_mbps if self.kind == "physical" and (self.speed_mbps or 0) > 0 else None


@dataclass(frozen=True)
class Beat:
    """One heartbeat; `boot` None where the agent does not say."""

    time: datetime
    boot: str | None
    samples: Mapping[str, Sample]
    interval_seconds: float | None = None
    uptime_seconds: float | None = None

    @property
    def interval_ms(self) -> int:
        return 30_000 if self.interval_seconds is None else round(self.interval_seconds * 1000)

    @property
    def look_back(self) -> timedelta:
        """How far back rates are asked for."""
        return max(LOOK_BACK, 10 * self.interval_ms * MILLISECOND)

    @property
    def doubt_lasts(self) -> timedelta:
        return max(LOOK_BACK, 5 * self.interval_ms * MILLISECOND)


@dataclass(frozen=True)
class Gain:
    """What a sample adds: a delta for each counter, and how it came about."""

    deltas: Values
    kind: str
    elapsed_ms: int
    counts_64bit: bool


@dataclass
class _Row:
    """A sample in its series, and what is concluded from it.

    held    what growth is counted from after it: its counters, or the level that one of them fell from
    doubts  by counter, the value that it fell or jumped from, and when, while a later reading may still deny that
    """

    beat: Beat
    sample: Sample
    gain: Gain
    held: Values
    doubts: Mapping[int, "_Doubt"] = field(default_factory=dict)


@dataclass(frozen=True)
class _Doubt:
    old: int
    since: datetime


class Boots:
    """When each boot of a server was seen; `alternating` are those whose heartbeats arrived by turns."""

    def __init__(self, beats: Iterable[Beat], alternating: Iterable[str] = ()) -> None:
        seen: dict[str, list[datetime]] = defaultdict(list)
        for beat in beats:
            if beat.boot is not None:
                seen[beat.boot].append(beat.time)
        self.spans = {boot: (min(times), max(times)) for boot, times in seen.items()}
        self.alternating = set(alternating)

    def overlap(self, one: str, other: str) -> bool:
        """Touching is not overlapping."""
        (first, last), (other_first, other_last) = self.spans[one], self.spans[other]
        return one != other and first < other_last and other_first < last

    def is_other_machine(self, boot: str, before: str) -> bool:
        """Whether a boot is not of the machine whose row stands before it, and nobody rebooted."""
        beside = [other for other in self.alternating if self.overlap(boot, other)]
        began = self.spans[boot][0]
        return boot in self.alternating and any(other == before or self.spans[other][0] < began for other in beside)


@dataclass
class Account:
    """What a server's samples gained, by interface and time."""

    gains: dict[tuple[str, datetime], Gain] = field(default_factory=dict)

    def totals(self) -> dict[str, tuple[int, ...]]:
        """What each interface gained in all, in the order of COUNTERS; what is not reported adds nothing."""
        totals: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
        for (name, _), gain in self.gains.items():
            totals[name] = [total + (delta or 0) for total, delta in zip(totals[name], gain.deltas, strict=True)]
        return {name: tuple(total) for name, total in totals.items()}


def account(beats: Sequence[Beat], alternating: Iterable[str] = ()) -> Account:
    """Counts the whole history of one server, whose heartbeats stand in any order."""
    boots = Boots(beats, alternating)
    series: dict[str, _Series] = defaultdict(lambda: _Series(boots))
    for beat in sorted(beats, key=lambda one: one.time):
        for name, sample in beat.samples.items():
            series[name].add(beat, sample)
    return Account({(name, row.beat.time): row.gain for name, one in series.items() for row in one.rows})


def is_uuid(boot: str) -> bool:
    try:
        return UUID(boot) is not None
    except ValueError:
        return False


class _Series:
    """The rows of one interface, in the order of time."""

    def __init__(self, boots: Boots) -> None:
        self.rows: list[_Row] = []
        self.boots = boots

    def add(self, beat: Beat, sample: Sample) -> None:
        base = self._base(beat, sample)
        if base is None:
            deltas = tuple(None if counter is None else 0 for counter in sample.counters)
            gain = Gain(deltas, "first", 0, _is_wide(sample))
            self.rows.append(_Row(beat, sample, gain, sample.counters))
            return
        if back := self.back(base, beat, sample):
            self._correct(base, back)
        self.rows.append(_Judgement(self, base, beat, sample).row())

    def _base(self, beat: Beat, sample: Sample) -> _Row | None:
        """The row that a sample is counted from."""
        if not self.rows:
            return None
        before = self.rows[-1]
        if beat.boot is None or before.beat.boot is None or beat.boot == before.beat.boot:
            return before
        own = next((row for row in reversed(self.rows) if row.beat.boot == beat.boot), None)
        if own is not None:
            return before if self._flickers(own, before, beat, sample) else own
        return None if self.boots.is_other_machine(beat.boot, before.beat.boot) else before

    def _flickers(self, own: _Row, before: _Row, beat: Beat, sample: Sample) -> bool:
        """Whether ids that are no UUIDs alternate while one machine counts on: between them, counters seldom fall."""
        assert beat.boot is not None
        assert before.beat.boot is not None
        pair = {beat.boot, before.beat.boot}
        if any(is_uuid(boot) for boot in pair) or pair <= self.boots.alternating:
            return False
        if _lies_between(own, before, sample):
            return True
        rows = [(row.beat, row.sample) for row in self.rows[-20:]]
        switches = [
            (one, other)
            for (one_beat, one), (other_beat, other) in pairwise([*rows, (beat, sample)])
            if one_beat.boot != other_beat.boot and {one_beat.boot, other_beat.boot} <= pair
        ]
        falls = sum(_lies_apart(one, other) for one, other in switches)
        if _lies_apart(before.sample, sample) and _lies_apart(own.sample, sample):
            falls -= 1  # from either boot it fell, and says nothing of them
        return 2 * falls + 1 < len(switches)

    def before(self, moment: datetime, beat: Beat) -> list[_Row]:
        """The rows that tell what is usual: the last ten of the time before a moment whose counters moved and grew."""
        return [
            row
            for row in self.between(moment - beat.look_back, moment)
            if row.gain.kind in PLAIN and row.gain.elapsed_ms > 0 and any(row.gain.deltas[:ROW_COUNTERS])
        ][-10:]

    def between(self, since: datetime, until: datetime) -> list[_Row]:
        """The rows of [since, until)."""
        ends = [bisect_left(self.rows, moment, key=lambda row: row.beat.time) for moment in (since, until)]
        return self.rows[slice(*ends)]

    def highest_rate(self, index: int, beat: Beat) -> float:
        """The highest of a counter before a heartbeat, per millisecond; 0 where none is known."""
        return max(self.rates(index, self.before(beat.time, beat)), default=0)

    def highest_burst(self, index: int, beat: Beat) -> float:
        """The same; where gaps alone tell, all of a gap's may have crossed in one interval."""
        rows = self.before(beat.time, beat)
        if any(row.gain.kind != "gap" for row in rows):
            return self.highest_rate(index, beat)
        gained = [(float(row.gain.deltas[index] or 0), row.gain.elapsed_ms) for row in rows]
        return max((octets / min(elapsed, beat.interval_ms) for octets, elapsed in gained), default=0)

    def usual_rate(self, index: int, since: datetime, beat: Beat) -> float:
        """What a counter gained before it fell or jumped, or gains since, per millisecond; 0 where none is known.

        Before: the second highest, because the highest may be what a source that stood still had put by. Since then:
        the middle one, and none where one row tells it, because readings that are wrong may grow as well.
        """
        before = self.rates(index, self.before(since, beat))
        after = self.rates(index, [row for row in self.before(beat.time, beat) if row.beat.time >= since])
        return max(before[-2:][:1] + after[(len(after) - 1) // 2 :][: len(after) > 1], default=0)

    def rates(self, index: int, rows: Iterable[_Row]) -> list[float]:
        return sorted(
            float(delta) / row.gain.elapsed_ms for row in rows if (delta := row.gain.deltas[index]) is not None
        )

    def size(self, direction: int, moment: datetime, beat: Beat) -> float | None:
        """Octets per packet before a moment."""
        rows = self.before(moment, beat)
        octets = sum(row.gain.deltas[direction] or 0 for row in rows)
        packets = sum(row.gain.deltas[direction + 2] or 0 for row in rows)
        return float(octets) / float(packets) if packets else None

    def back(self, base: _Row, beat: Beat, sample: Sample) -> set[int]:
        """The counters in doubt that are where they would be had they never fallen or jumped."""
        if beat.boot is not None and base.beat.boot not in (None, beat.boot) and is_uuid(beat.boot):
            return set()
        back, unexplained = set(), set()
        for index, doubt in base.doubts.items():
            level, new = base.held[index], sample.counters[index]
            if level is None or new is None or beat.time - doubt.since > beat.doubt_lasts:
                continue
            elapsed = _elapsed_ms(base.beat.time, beat.time)
            usual = self.usual_rate(index, doubt.since, beat)
            in_all = _elapsed_ms(doubt.since, beat.time) + elapsed
            if (
                new < doubt.old
                or doubt.old < level <= new
                or float(new - doubt.old)
                > max(
                    1.5 * usual * in_all, float(doubt.old - level if level <= doubt.old else (level - doubt.old) // 2)
                )
            ):
                continue
            back.add(index)
            # Where a reading was passed over, the level is an older one's.
            grown_in = elapsed + base.gain.elapsed_ms * (level != base.sample.counters[index])
            # What counts for long already may catch up with what its source kept back.
            run_for = _elapsed_ms(doubt.since, beat.time) - elapsed
            has_run = level >= 3 * (new - level) and float(level) <= 1.5 * usual * run_for
            if level > doubt.old or (not has_run and float(new - level) > 1.5 * usual * grown_in):
                unexplained.add(index)
        # What jumped comes back by itself. What fell together comes back together: most of it, if octets and packets
        # are among it, because one of them may be wrong again in this reading.
        found = {index for index in unexplained if (base.held[index] or 0) > base.doubts[index].old}
        for since in {base.doubts[index].since for index in unexplained}:
            event = {index for index, doubt in base.doubts.items() if doubt.since == since}
            octets = event & set(range(BYTE_COUNTERS))
            if octets and all(self._goes_on(index, base, beat, sample) for index in octets):
                continue
            rows = event & set(range(ROW_COUNTERS)) or event
            if rows & unexplained and 2 * len(rows & back) > len(rows):
                found |= event
        return found

    def _goes_on(self, index: int, base: _Row, beat: Beat, sample: Sample) -> bool:
        """Whether a counter grows at no more than twice the rate of the row before, one of several since it fell."""
        level, grown, new = base.held[index] or 0, base.gain.deltas[index] or 0, sample.counters[index] or 0
        if base.gain.kind not in PLAIN or not base.gain.elapsed_ms or not 0 < 2 * grown <= level <= new:
            return False
        elapsed = _elapsed_ms(base.beat.time, beat.time)
        return float(new - level) * base.gain.elapsed_ms <= 2.0 * grown * elapsed

    def _correct(self, base: _Row, back: set[int]) -> None:
        """The readings in between were wrong: no traffic of these counters, and their old level holds."""
        doubts = {index: base.doubts[index] for index in back}
        for row in self.rows:
            # Each row passes its doubts on: those that have this one are what was counted since.
            wrong = {index: doubt for index, doubt in doubts.items() if row.doubts.get(index) == doubt}
            if not wrong:
                continue
            deltas = tuple(
                0 if index in wrong and delta is not None else delta for index, delta in enumerate(row.gain.deltas)
            )
            row.gain = replace(row.gain, deltas=deltas, kind="glitch")
            row.held = tuple(wrong[index].old if index in wrong else held for index, held in enumerate(row.held))
            row.doubts = {index: doubt for index, doubt in row.doubts.items() if index not in wrong}


class _Judgement:
    """What one sample proves, given the row that it is counted from."""

    def __init__(self, series: _Series, base: _Row, beat: Beat, sample: Sample) -> None:
        self.series, self.base, self.beat, self.sample = series, base, beat, sample
        self.now, self.held = sample.counters, base.held
        self.elapsed = _elapsed_ms(base.beat.time, beat.time)
        speeds = [one.line_rate_mbps for one in (sample, base.sample) if one.line_rate_mbps is not None]
        self.speed = max(speeds, default=None)
        counting = [index for index in range(ROW_COUNTERS) if self.held[index]]
        fell = [index for index in counting if self.fell(index)]
        below_half = [index for index in counting if 2 * (self.now[index] or 0) < (self.held[index] or 0)]
        # All of them; or all but one, which may have been small before.
        self.is_restarted = (bool(below_half) and len(fell) == len(counting)) or len(below_half) >= max(
            2, len(counting) - 1
        )
        self.is_rebooted = self.is_certain = False
        if None not in (beat.boot, base.beat.boot) and beat.boot != base.beat.boot:
            assert beat.boot is not None
            self.is_certain = is_uuid(beat.boot) or (not self.is_restarted and self.uptime_fell())
            self.is_rebooted = self.is_certain or self.is_restarted
        elif fell and None not in (sample.ifindex, base.sample.ifindex) and sample.ifindex != base.sample.ifindex:
            self.is_restarted = self.is_certain = True
        self.is_wide = base.gain.counts_64bit and not self.is_rebooted
        self.new_doubts: dict[int, int] = {}
        self.new_held: list[int | None] = list(self.now)
        self.accepted: dict[int, bool] = {}
        self.confirmed: set[int] = set()

    def fell(self, index: int) -> bool:
        now, held = self.now[index], self.held[index]
        return now is not None and held is not None and now < held

    def uptime_fell(self) -> bool:
        now, before = self.beat.uptime_seconds, self.base.beat.uptime_seconds
        return now is not None and before is not None and now < before

    def row(self) -> _Row:
        judged = [self.judge(index) for index in ALL]
        kind = min((kind for _, kind in judged[:ROW_COUNTERS]), key=WORST_FIRST.index)
        if kind == "normal" and self.elapsed > 3 * self.beat.interval_ms:
            kind = "gap"
        deltas = tuple(delta for delta, _ in judged)
        gain = Gain(deltas, kind, self.elapsed, self.is_wide or _is_wide(self.sample))
        doubts = self.doubts([kind for _, kind in judged])
        return _Row(self.beat, self.sample, gain, tuple(self.new_held), doubts)

    def doubts(self, kinds: Sequence[str]) -> dict[int, _Doubt]:
        """What is in doubt after this row: what was, until it is certain or too old, and what fell or jumped now."""
        doubts = {}
        for index, doubt in self.base.doubts.items():
            held, now = self.held[index], self.now[index]
            came_past = kinds[index] == "normal" and held is not None and now is not None and held < doubt.old <= now
            is_over = self.is_certain or came_past or index in self.confirmed
            if not is_over and self.beat.time - doubt.since <= self.beat.doubt_lasts:
                doubts[index] = doubt
        for index, old in self.new_doubts.items():
            if index not in doubts or self.has_counted_on(index, doubts[index].since):
                doubts[index] = _Doubt(old, self.beat.time)
        return doubts

    def has_counted_on(self, index: int, since: datetime) -> bool:
        """Whether the octets of a counter's direction began again: they show what is usual for the time since."""
        direction = index % 2
        kind = self.base.gain.kind
        if since == self.base.beat.time or not (self.base.gain.deltas[direction] or kind in PLAIN or kind == "dip"):
            return False
        in_all = (self.beat.time - since) / MILLISECOND + self.elapsed
        # A reading or two may be wrong twice.
        if in_all < 5 * self.beat.interval_ms and self.fell(index):
            return False
        gain, level = self.base.gain, self.held[direction] or 0
        grown = gain.deltas[direction] or 0
        # At about the rate of the row before, which was one of several since.
        is_run = gain.kind in PLAIN and direction in self.new_doubts and gain.elapsed_ms
        is_run = is_run and grown <= _limit(gain.elapsed_ms, 1_000 if self.speed is None else self.speed)
        # Octets in doubt by themselves grew in packets, of 64 KiB at most, and not much larger than before.
        doubted, counted = self.base.doubts, self.base.sample.counters[direction + 2]
        if is_run and direction in doubted and direction + 2 not in doubted and counted:
            packets = gain.deltas[direction + 2] or 0
            size = self.series.size(direction, doubted[direction].since, self.beat)
            is_usual = size is None or float(grown) <= max(3.0 * size, ETHERNET_FRAME) * packets
            is_run = is_usual and grown // 65536 <= packets
        if is_run and 0 < 3 * grown <= level and float(level) <= 1.5 * grown / gain.elapsed_ms * in_all:
            return True
        if self.ran_as_usual(direction, since, in_all):
            return True
        # What fell together began again together.
        other = self.base.doubts.get(1 - direction)
        return (
            other is not None
            and other.since == since
            and bool(self.held[1 - direction])
            and self.ran_as_usual(1 - direction, since, in_all)
        )

    def ran_as_usual(self, direction: int, since: datetime, in_all: float) -> bool:
        rate = self.series.usual_rate(direction, since, self.beat)
        return float(self.held[direction] or 0) <= 1.5 * rate * in_all

    def judge(self, index: int) -> tuple[int | None, str]:
        """One counter's delta and kind."""
        now, held = self.now[index], self.held[index]
        if now is None or held is None:
            return (None if now is None else 0), "first"
        if self.is_rebooted or self.is_restarted:
            return self.restarted(index, now, held)
        if now >= held:
            if self.is_plausible(index, now - held):
                return now - held + self.late_gain(index), "normal"
            self.new_doubts[index] = held
            return 0, "rejected"
        return self.fallen(index, now, held)

    def late_gain(self, index: int) -> int:
        """What was rejected, where packets that could not be read then and since are back, and carry it."""
        doubt = self.base.doubts.get(index)
        if index >= BYTE_COUNTERS or doubt is None or not doubt.old < (self.held[index] or 0):
            return 0
        witness = index + 2
        wrong = next((row for row in self.series.rows if row.beat.time == doubt.since), None)
        is_held = wrong is not None and wrong.held[witness] != wrong.sample.counters[witness]
        if (
            wrong is None
            or not is_held
            or self.base.held[witness] != wrong.held[witness]
            or self.base.held[witness] == self.base.sample.counters[witness]
            or self.beat.time - doubt.since > self.beat.doubt_lasts
        ):
            return 0
        packets = self.grown(witness)
        in_all = _elapsed_ms(wrong.beat.time - wrong.gain.elapsed_ms * MILLISECOND, self.beat.time)
        octets = (self.now[index] or 0) - doubt.old
        if packets <= 0 or not self.can_carry(index, octets, packets, self.now[witness], in_all):
            return 0
        self.confirmed.add(index)
        counted = self.series.between(doubt.since, self.beat.time)
        return (self.held[index] or 0) - doubt.old - sum(row.gain.deltas[index] or 0 for row in counted)

    def restarted(self, index: int, now: int, held: int) -> tuple[int, str]:
        if index < BYTE_COUNTERS:
            packets = self.now[index + 2]
            is_accepted = self.can_carry(index, now, packets, packets, self.elapsed)
            usual_line = _limit(self.elapsed, 1_000 if self.speed is None else self.speed)
            if is_accepted and self.is_restarted and not self.is_certain and now > usual_line:
                other = self.now[1 - index] or 0
                is_accepted = any(
                    octets <= 4 * self.series.highest_burst(direction, self.beat) * self.elapsed
                    for direction, octets in ((index, now), (1 - index, other))
                    if octets >= now
                )
            self.accepted[index] = is_accepted
        else:
            is_accepted = self.accepted[index % 2] and self.can_carry(index, now, None, None, self.elapsed)
        if not self.is_certain and now < held:
            self.new_doubts[index] = held
        if not is_accepted:
            return 0, "rejected"
        return now, "reboot" if self.is_rebooted else "reset"

    def fallen(self, index: int, now: int, held: int) -> tuple[int, str]:
        """By itself: its siblings went on."""
        if 100 * (held - now) < held:
            self.new_held[index] = held
            return 0, "dip"
        wrapped = now + WRAP - held
        if index < ROW_COUNTERS and not self.is_wide and held < WRAP and self.is_wrap(index, now, wrapped):
            self.new_doubts[index] = held
            return wrapped, "wrap"
        if 2 * now >= held:
            self.new_held[index] = held
            return 0, "dip"
        self.new_doubts[index] = held
        rate = self.series.highest_rate(index, self.beat)
        packets = self.gained(index + 2) if index < BYTE_COUNTERS else None
        counted = self.now[index + 2] if index < BYTE_COUNTERS else None
        if now <= rate * self.elapsed * 1.000001 and self.can_carry(index, now, packets, counted, self.elapsed):
            return now, "reset"
        return 0, "dip"

    def gained(self, index: int) -> int:
        """By the readings alone; below 0 where it fell."""
        return (self.now[index] or 0) - (self.base.sample.counters[index] or 0)

    def grown(self, index: int) -> int:
        """Above what growth is counted from; below 0 where it fell."""
        return (self.now[index] or 0) - (self.held[index] or 0)

    def is_wrap(self, index: int, now: int, wrapped: int) -> bool:
        """Whether octets and packets of one direction confirm each other if this counter wrapped."""
        direction = index % 2
        octets = wrapped if index < BYTE_COUNTERS else self.grown(direction)
        packets = self.grown(direction + 2) if index < BYTE_COUNTERS else wrapped
        size = self.series.size(direction, self.beat.time, self.beat)
        # By half or less it may have stepped back as well: then packets have to be of about the usual size.
        smallest = JUMBO_FRAME if 2 * now < (self.held[index] or 0) else 0
        largest = MIB if size is None else min(max(8 * size, smallest), MIB)
        return (
            0 <= now < WRAP
            and 0 < packets <= octets <= packets * largest
            and self.can_carry(direction, octets, packets, packets, self.elapsed)
        )

    def is_plausible(self, index: int, gain: int) -> bool:
        """Whether so much can have crossed since the row before, or since the counter last moved."""
        packets = counted = None
        if index < BYTE_COUNTERS:
            counted = self.now[index + 2]
            gains = self.grown(index + 2), self.gained(index + 2)
            packets = next((gained for gained in gains if gained >= 0), None)
        if self.can_carry(index, gain, packets, counted, self.elapsed):
            return True
        boots = (None, self.base.beat.boot, self.beat.boot)
        rows = [
            row
            for row in self.series.between(self.beat.time - LOOK_BACK, self.beat.time)
            if row.beat.time <= self.base.beat.time and row.beat.boot in boots
        ]
        moved = [row for row in rows if row.gain.deltas[index] or row.gain.kind in ("rejected", "first")]
        last = (moved[-1:] or rows[:1] or [self.base])[0]
        if last.beat.time < self.base.beat.time and self.can_carry_since(last, rows, index, gain, packets, counted):
            return True
        # Its packets cannot be read: what it usually gains is believed.
        rate = self.series.highest_rate(index, self.beat)
        return (
            index < BYTE_COUNTERS
            and not packets
            and gain <= _limit(self.elapsed, None)
            and gain <= 4 * rate * self.elapsed
        )

    def can_carry_since(
        self, last: _Row, rows: Sequence[_Row], index: int, gain: int, packets: int | None, counted: int | None
    ) -> bool:
        since = [row for row in rows if row.beat.time > last.beat.time]
        # Other counters than octets have no witness; their packets play no part.
        packets = (packets or 0) + sum(row.gain.deltas[2 + index % 2] or 0 for row in since)
        return self.can_carry(index, gain, packets, counted, _elapsed_ms(last.beat.time, self.beat.time))

    def can_carry(self, index: int, gain: int, packets: int | None, counted: int | None, elapsed_ms: int) -> bool:
        if gain == 0 or (self.speed is not None and gain <= _limit(elapsed_ms, self.speed)):
            return True
        if gain > _limit(elapsed_ms, None):
            return False
        if index >= BYTE_COUNTERS:
            return True
        if packets is not None and packets > 0:
            return gain // MIB <= packets
        if self.speed is not None:
            return False
        return counted == 0 or gain <= _limit(elapsed_ms, 1_000)


def _lies_between(own: _Row, before: _Row, sample: Sample) -> bool:
    """Whether octets and packets count on from one row over another boot's to a sample, but for some that jumped there.

    Where they have doubled since, two machines may have passed each other.
    """
    grew, jumped = [], []
    for index in range(ROW_COUNTERS):
        was, held, now = own.held[index], before.held[index], sample.counters[index]
        if was is None or held is None or now is None:
            continue
        old = before.doubts[index].old if index in before.doubts else held
        most = max(2 * was - 1, was)
        grew.append(was <= held <= now <= most)
        jumped.append(was <= old <= min(held, now) and now <= most)
    return any(grew) and all(one or other for one, other in zip(grew, jumped, strict=True))


def _lies_apart(earlier: Sample, later: Sample) -> bool:
    """Whether octets and packets fell below half, two of them at least: one alone may have wrapped."""
    pairs = list(zip(earlier.counters, later.counters, strict=True))[:ROW_COUNTERS]
    counting = [(old, new or 0) for old, new in pairs if old]
    return sum(2 * new < old for old, new in counting) >= max(min(2, len(counting)), 1)


def _is_wide(sample: Sample) -> bool:
    return any(counter is not None and counter >= WRAP for counter in sample.counters[:BYTE_COUNTERS])


def _elapsed_ms(earlier: datetime, later: datetime) -> int:
    return min(round((later - earlier) / MILLISECOND), LONGEST_MS)


def _limit(elapsed_ms: int, mbps: int | None) -> int:
    """Bytes that can have crossed: at a line rate and 2 %, or at 400 Gb/s; a second of grace for clocks."""
    if mbps is None:
        return FASTEST_BYTES_PER_MS * (elapsed_ms + GRACE_MS)
    return mbps * 255 * (elapsed_ms + GRACE_MS) // 2
