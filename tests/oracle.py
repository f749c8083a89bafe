"""The rules of docs/counters.md once more, in Python and written for clarity: the database is held against them.

A server's whole history goes in, in any order; what each of its samples gained comes out. Nothing here is incremental and
nothing is fast: every series is judged from its beginning.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
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
    doubt   the values that counters fell or jumped from, while a later reading may still show that they did not
    """

    beat: Beat
    sample: Sample
    gain: Gain
    held: Values
    doubt: Values = NONE
    doubted_since: datetime | None = None


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
        if self._is_back(base, beat, sample):
            self._correct(base, beat)
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
            flickers = not is_uuid(beat.boot) and not is_uuid(before.beat.boot) and all(
                low <= middle <= high  # type: ignore[operator]  # these four are never None
                for low, middle, high in list(
                    zip(own.sample.counters, before.sample.counters, sample.counters, strict=True)
                )[:ROW_COUNTERS]
            )  # fmt: skip
            return before if flickers else own
        return None if self.boots.is_other_machine(beat.boot, before.beat.boot) else before

    def before(self, moment: datetime, beat: Beat) -> list[_Row]:
        """The rows that tell what is usual: the last ten of the time before a moment, those of them that grew."""
        rows = [row for row in self.rows if moment - beat.look_back <= row.beat.time < moment][-10:]
        return [row for row in rows if row.gain.kind in PLAIN and row.gain.elapsed_ms > 0]

    def rate(self, index: int, moment: datetime, beat: Beat) -> int | None:
        """The highest of a counter before a moment, in 1,000 seconds, rounded up."""
        rates = [
            -(-delta * 1_000_000 // row.gain.elapsed_ms)
            for row in self.before(moment, beat)
            if (delta := row.gain.deltas[index]) is not None
        ]
        return max(rates, default=None)

    def size(self, direction: int, beat: Beat) -> int | None:
        """Octets per packet, rounded up."""
        rows = self.before(beat.time, beat)
        octets = sum(row.gain.deltas[direction] or 0 for row in rows)
        packets = sum(row.gain.deltas[direction + 2] or 0 for row in rows)
        return -(-octets // packets) if packets else None

    def _is_back(self, base: _Row, beat: Beat, sample: Sample) -> bool:
        """Whether all counters in doubt are where they would be had they never fallen or jumped."""
        since = base.doubted_since
        if since is None or beat.time - since > beat.doubt_lasts:
            return False
        if beat.boot is not None and base.beat.boot not in (None, beat.boot) and is_uuid(beat.boot):
            return False
        if any(
            old is not None and new is not None and old > new
            for old, new in zip(base.doubt, sample.counters, strict=True)
        ):
            return False
        elapsed = _elapsed_ms(base.beat.time, beat.time)
        unexplained = False
        for index in ALL:
            old, level, new = base.doubt[index], base.held[index], sample.counters[index]
            if old is None or level is None or new is None:
                continue
            if old < level <= new:
                return False
            before = self.rate(index, since, beat) or 0
            usual = max(before, self.rate(index, beat.time, beat) or 0)
            away = _elapsed_ms(since, beat.time) + elapsed
            if (new - old) * 2_000_000 > max(3 * before * away, abs(level - old) * 2_000_000):
                return False
            unexplained |= level > old or (new - level) * 2_000_000 > 3 * usual * elapsed
        return unexplained

    def _correct(self, base: _Row, beat: Beat) -> None:
        """The rows in doubt were wrong readings: no traffic of the counters in doubt, and their old level holds."""
        doubt, since = base.doubt, base.doubted_since
        assert since is not None
        for row in self.rows:
            boot = row.beat.boot
            if row.beat.time < since or not (boot is None or boot in (base.beat.boot, beat.boot) or not is_uuid(boot)):
                continue
            deltas = tuple(
                delta if old is None or delta is None else 0 for old, delta in zip(doubt, row.gain.deltas, strict=True)
            )
            row.gain = replace(row.gain, deltas=deltas, kind="glitch")
            row.held = tuple(held if old is None else old for old, held in zip(doubt, row.held, strict=True))
            row.doubt, row.doubted_since = NONE, None


class _Judgement:
    """What one sample proves, given the row that it is counted from."""

    def __init__(self, series: _Series, base: _Row, beat: Beat, sample: Sample) -> None:
        self.series, self.base, self.beat, self.sample = series, base, beat, sample
        self.now, self.held = sample.counters, base.held
        self.elapsed = _elapsed_ms(base.beat.time, beat.time)
        speeds = [one.line_rate_mbps for one in (sample, base.sample) if one.line_rate_mbps is not None]
        self.speed = max(speeds, default=None)
        fell = [self.fell(index) for index in range(ROW_COUNTERS) if self.held[index]]
        below_half = any(
            2 * (self.now[index] or 0) < (self.held[index] or 0) for index in range(ROW_COUNTERS) if self.held[index]
        )
        self.is_restarted = all(fell) and below_half
        self.is_rebooted = self.is_certain = False
        if None not in (beat.boot, base.beat.boot) and beat.boot != base.beat.boot:
            assert beat.boot is not None
            self.is_certain = is_uuid(beat.boot) or (not self.is_restarted and self.uptime_fell())
            self.is_rebooted = self.is_certain or self.is_restarted
        elif any(fell) and None not in (sample.ifindex, base.sample.ifindex) and sample.ifindex != base.sample.ifindex:
            self.is_restarted = self.is_certain = True
        self.is_wide = base.gain.counts_64bit and not self.is_rebooted
        self.new_doubt: list[int | None] = [None] * len(COUNTERS)
        self.new_held: list[int | None] = list(self.now)
        self.accepted: dict[int, bool] = {}

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
        doubt, since = self.doubt()
        return _Row(self.beat, self.sample, gain, tuple(self.new_held), doubt, since)

    def doubt(self) -> tuple[Values, datetime | None]:
        """What is in doubt after this row: what was before, until it is certain or too old; or what fell or jumped now."""
        doubt, since = NONE, None
        before = self.base.doubted_since
        if before is not None and not self.is_certain and self.beat.time - before <= self.beat.doubt_lasts:
            doubt = tuple(
                None if None not in (old, held, now) and held < old <= now else old  # type: ignore[operator]
                for old, held, now in zip(self.base.doubt, self.held, self.now, strict=True)
            )
            since = before if doubt != NONE else None
        if any(old is not None for old in self.new_doubt) and (since is None or self.base.gain.kind in PLAIN):
            doubt, since = tuple(self.new_doubt), self.beat.time
        return doubt, since

    def judge(self, index: int) -> tuple[int | None, str]:
        """One counter's delta and kind."""
        now, held = self.now[index], self.held[index]
        if now is None or held is None:
            return (None if now is None else 0), "first"
        if self.is_rebooted or self.is_restarted:
            return self.restarted(index, now, held)
        if now >= held:
            if self.is_plausible(index, now - held):
                return now - held, "normal"
            self.new_doubt[index] = held
            return 0, "rejected"
        return self.fallen(index, now, held)

    def restarted(self, index: int, now: int, held: int) -> tuple[int, str]:
        if index < BYTE_COUNTERS:
            packets = self.now[index + 2]
            is_accepted = self.can_carry(index, now, packets, packets, self.elapsed)
            usual_line = _limit(self.elapsed, 1_000 if self.speed is None else self.speed)
            if is_accepted and self.is_restarted and not self.is_certain and now > usual_line:
                rate = self.series.rate(index, self.beat.time, self.beat)
                is_accepted = rate is not None and now * 1_000_000 <= 4 * rate * self.elapsed
            self.accepted[index] = is_accepted
        else:
            is_accepted = self.accepted[index % 2] and self.can_carry(index, now, None, None, self.elapsed)
        if not self.is_certain and now < held:
            self.new_doubt[index] = held
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
            self.new_doubt[index] = held
            return wrapped, "wrap"
        if 2 * now >= held:
            self.new_held[index] = held
            return 0, "dip"
        self.new_doubt[index] = held
        rate = self.series.rate(index, self.beat.time, self.beat) or 0
        packets = self.gained(index + 2) if index < BYTE_COUNTERS else None
        counted = self.now[index + 2] if index < BYTE_COUNTERS else None
        if now * 1_000_000 <= rate * self.elapsed and self.can_carry(index, now, packets, counted, self.elapsed):
            return now, "reset"
        return 0, "dip"

    def gained(self, index: int) -> int:
        """By the readings alone; below 0 where it fell."""
        return (self.now[index] or 0) - (self.base.sample.counters[index] or 0)

    def is_wrap(self, index: int, now: int, wrapped: int) -> bool:
        """Whether octets and packets of one direction confirm each other if this counter wrapped."""
        direction = index % 2
        octets = wrapped if index < BYTE_COUNTERS else self.gained(direction)
        packets = self.gained(direction + 2) if index < BYTE_COUNTERS else wrapped
        size = self.series.size(direction, self.beat)
        largest = MIB if size is None else min(max(8 * size, JUMBO_FRAME), MIB)
        return (
            1 <= now < WRAP
            and 0 < packets <= octets <= packets * largest
            and self.can_carry(direction, octets, packets, packets, self.elapsed)
        )

    def is_plausible(self, index: int, gain: int) -> bool:
        """Whether so much can have crossed since the row before, or since the counter last moved."""
        packets = counted = None
        if index < BYTE_COUNTERS:
            counted = self.now[index + 2]
            packets = self.gained(index + 2)
            packets = packets if packets >= 0 else None
        if self.can_carry(index, gain, packets, counted, self.elapsed):
            return True
        boots = (None, self.base.beat.boot, self.beat.boot)
        rows = [
            row
            for row in self.series.rows
            if self.beat.time - LOOK_BACK <= row.beat.time <= self.base.beat.time and row.beat.boot in boots
        ]
        moved = [row for row in rows if row.gain.deltas[index] or row.gain.kind in ("rejected", "first")]
        last = (moved[-1:] or rows[:1] or [self.base])[0]
        if last.beat.time >= self.base.beat.time:
            return False
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


def _is_wide(sample: Sample) -> bool:
    return any(counter is not None and counter >= WRAP for counter in sample.counters[:BYTE_COUNTERS])


def _elapsed_ms(earlier: datetime, later: datetime) -> int:
    return min(round((later - earlier) / MILLISECOND), LONGEST_MS)


def _limit(elapsed_ms: int, mbps: int | None) -> int:
    """Bytes that can have crossed: at a line rate and 2 %, or at 400 Gb/s; a second of grace for clocks."""
    if mbps is None:
        return FASTEST_BYTES_PER_MS * (elapsed_ms + GRACE_MS)
    return mbps * 255 * (elapsed_ms + GRACE_MS) // 2
