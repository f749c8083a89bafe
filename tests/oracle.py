"""The rules of spec section 3 once more, in Python and written for clarity: what the database is held against.

A server's whole history goes in, in any order; what each of its samples gained comes out. Nothing here is incremental
and nothing is fast: every sample looks at all that came before it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

COUNTERS = (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
)  # fmt: skip
BYTE_COUNTERS = 2  # the first ones: they tell whether an interface counts beyond 2**32
ROW_COUNTERS = 4  # the first ones: the kind of a row is the worst of theirs
WORST_FIRST = ("rejected", "reset", "wrap", "reboot", "normal", "first")
RATE_KNOWN = ("normal", "gap", "wrap")  # kinds of rows from which a rate can be told

WRAP = 2**32
MIB = 2**20
FASTEST_BYTES_PER_SECOND = 50_000_000_000  # 400 Gb/s
GRACE_MS = 1_000
LONGEST_MS = 2**31 - 1


@dataclass(frozen=True)
class Sample:
    """One interface's counters at one moment, in the order of COUNTERS; None: not reported."""

    counters: tuple[int | None, ...]
    kind: str | None = None
    speed_mbps: int | None = None
    is_up: bool = True

    @property
    def line_rate_mbps(self) -> int:
        """What bounds its traffic; 0: nothing known. Of virtual links drivers say anything."""
        return max(self.speed_mbps or 0, 0) if self.kind == "physical" else 0


@dataclass(frozen=True)
class Beat:
    """One heartbeat; `boot` None where the agent does not say."""

    time: datetime
    boot: str | None
    samples: Mapping[str, Sample]
    interval_seconds: float | None = None


@dataclass(frozen=True)
class Gain:
    """What a sample adds: a delta for each counter, and how it came about."""

    deltas: tuple[int | None, ...]
    kind: str
    elapsed_ms: int
    counts_64bit: bool


@dataclass(frozen=True)
class _Row:
    """A sample in its series. `base`: the row that it is counted from; None: it is counted from nothing."""

    beat: Beat
    sample: Sample
    base: "_Row | None"
    gain: Gain


class Boots:
    """When each boot of a server was seen. Boots that overlap in time are two machines under one id."""

    def __init__(self, beats: Iterable[Beat]) -> None:
        seen: dict[str, list[datetime]] = defaultdict(list)
        for beat in beats:
            if beat.boot is not None:
                seen[beat.boot].append(beat.time)
        self.spans = {boot: (min(times), max(times)) for boot, times in seen.items()}

    def overlap(self, one: str, other: str) -> bool:
        """Touching is not overlapping."""
        (first, last), (other_first, other_last) = self.spans[one], self.spans[other]
        return one != other and first < other_last and other_first < last

    def began_beside(self, boot: str) -> bool:
        """Whether another boot ran when this one began: it is another machine, and nobody rebooted."""
        began = self.spans[boot][0]
        return any(self.overlap(boot, other) and self.spans[other][0] < began for other in self.spans)

    @property
    def are_shared(self) -> bool:
        return any(self.overlap(one, other) for one in self.spans for other in self.spans)


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


def account(beats: Sequence[Beat]) -> Account:
    """Counts the whole history of one server, whose heartbeats stand in any order."""
    boots = Boots(beats)
    series: dict[str, list[_Row]] = defaultdict(list)
    for beat in sorted(beats, key=lambda one: one.time):
        for name, sample in beat.samples.items():
            base = _base(beat, series[name], boots)
            series[name].append(_Row(beat, sample, base, _gain(beat, sample, base)))
    return Account({(name, row.beat.time): row.gain for name, rows in series.items() for row in rows})


def _base(beat: Beat, earlier: Sequence[_Row], boots: Boots) -> _Row | None:
    """The row that a sample is counted from."""
    if not earlier:
        return None
    before = earlier[-1]
    if beat.boot is None or before.beat.boot is None or beat.boot == before.beat.boot:
        return before
    own = next((row for row in reversed(earlier) if row.beat.boot == beat.boot), None)
    if own is not None:
        return own
    if boots.began_beside(beat.boot) or boots.overlap(beat.boot, before.beat.boot):
        return None
    return before


def _gain(beat: Beat, sample: Sample, base: _Row | None) -> Gain:
    is_wide = any(counter is not None and counter >= WRAP for counter in sample.counters[:BYTE_COUNTERS])
    if base is None:
        deltas = tuple(None if counter is None else 0 for counter in sample.counters)
        return Gain(deltas, "first", 0, is_wide)
    is_rebooted = None not in (beat.boot, base.beat.boot) and beat.boot != base.beat.boot
    elapsed_ms = min(round((beat.time - base.beat.time) / timedelta(milliseconds=1)), LONGEST_MS)
    was_wide = base.gain.counts_64bit and not is_rebooted
    most = _most(elapsed_ms, sample, base.sample)
    judged = [
        _judge(old, new, most, elapsed_ms, base.gain, index, is_rebooted=is_rebooted, was_wide=was_wide)
        for index, (old, new) in enumerate(zip(base.sample.counters, sample.counters, strict=True))
    ]
    kind = min((kind for _, kind in judged[:ROW_COUNTERS]), key=WORST_FIRST.index)
    interval_ms = 30_000 if beat.interval_seconds is None else round(beat.interval_seconds * 1000)
    if kind == "normal" and elapsed_ms > 3 * interval_ms:
        kind = "gap"
    return Gain(tuple(delta for delta, _ in judged), kind, elapsed_ms, is_wide or was_wide)


def _most(elapsed_ms: int, sample: Sample, before: Sample) -> int:
    """Bytes that can have crossed: at the line rate and 2 %, or at 400 Gb/s; a second of grace for clocks."""
    mbps = max(sample.line_rate_mbps, before.line_rate_mbps)
    bytes_per_second = mbps * 125_000 * 102 // 100 if mbps else FASTEST_BYTES_PER_SECOND
    return bytes_per_second * (elapsed_ms + GRACE_MS) // 1000


def _judge(
    old: int | None,
    new: int | None,
    most: int,
    elapsed_ms: int,
    before: Gain,
    index: int,
    *,
    is_rebooted: bool,
    was_wide: bool,
) -> tuple[int | None, str]:
    """One counter's delta and kind."""
    if new is None:
        return None, "first"
    if old is None:
        return 0, "first"
    wrapped = new + WRAP - old
    if is_rebooted:
        delta, kind = new, "reboot"
    elif new >= old:
        delta, kind = new - old, "normal"
    elif old < WRAP and not was_wide and wrapped <= most and _is_in_line(wrapped, elapsed_ms, before, index):
        delta, kind = wrapped, "wrap"
    else:
        delta, kind = new, "reset"
    return (0, "rejected") if delta > most else (delta, kind)


def _is_in_line(wrapped: int, elapsed_ms: int, before: Gain, index: int) -> bool:
    """Half to twice what the rate just before would give, or too little to matter."""
    if wrapped < MIB:
        return True
    gained = before.deltas[index]
    if before.kind not in RATE_KNOWN or before.elapsed_ms == 0 or gained is None:
        return False
    # The usual gain, gained * elapsed_ms / before.elapsed_ms, without a division: nothing is lost to rounding.
    usual, scale = gained * elapsed_ms, before.elapsed_ms
    return usual <= 2 * wrapped * scale and wrapped * scale <= 2 * usual
