"""The rules of spec section 3 once more, written for clarity and in Python: what SQL is held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WRAP = 2**32
MIB = 2**20
BYTES_PER_MS = 50_000_000  # 400 Gb/s


@dataclass(frozen=True)
class Reading:
    """One series' counters at one moment: rx_bytes, tx_bytes, rx_packets, tx_packets."""

    time: datetime
    boot: str | None
    counters: tuple[int, int, int, int]


@dataclass(frozen=True)
class Settled:
    """What a reading adds: a delta for each counter, the row's kind, and what the next row needs to know."""

    deltas: tuple[int, ...]
    kind: str
    elapsed_ms: int
    counts_64bit: bool


_WORST_FIRST = ("rejected", "reset", "wrap", "reboot", "normal", "first")


def settle(readings: Sequence[Reading]) -> list[Settled]:
    """The deltas of a series whose readings came in any order."""
    result: list[Settled] = []
    previous: Reading | None = None
    for reading in sorted(readings, key=lambda one: one.time):
        wide = any(counter >= WRAP for counter in reading.counters[:2])
        if previous is None:
            result.append(Settled((0, 0, 0, 0), "first", 0, wide))
        else:
            result.append(_settle_next(previous, result[-1], reading, wide))
        previous = reading
    return result


def _settle_next(previous: Reading, before: Settled, reading: Reading, wide: bool) -> Settled:
    rebooted = None not in (previous.boot, reading.boot) and previous.boot != reading.boot
    elapsed_ms = round((reading.time - previous.time).total_seconds() * 1000)
    wide_before = before.counts_64bit and not rebooted
    judged = [
        _judge(old, new, rebooted, wide_before, elapsed_ms, before, index)
        for index, (old, new) in enumerate(zip(previous.counters, reading.counters, strict=True))
    ]
    kind = min((kind for _, kind in judged), key=_WORST_FIRST.index)
    return Settled(tuple(delta for delta, _ in judged), kind, elapsed_ms, wide or wide_before)


def _judge(
    old: int, new: int, rebooted: bool, wide: bool, elapsed_ms: int, before: Settled, index: int
) -> tuple[int, str]:
    if rebooted:
        delta, kind = new, "reboot"
    elif new >= old:
        delta, kind = new - old, "normal"
    elif not wide and old < WRAP and _in_line(new + WRAP - old, elapsed_ms, before, index):
        delta, kind = new + WRAP - old, "wrap"
    else:
        delta, kind = new, "reset"
    return (0, "rejected") if delta > BYTES_PER_MS * (elapsed_ms + 1000) else (delta, kind)


def _in_line(wrapped: int, elapsed_ms: int, before: Settled, index: int) -> bool:
    if wrapped < MIB:
        return True
    if before.kind not in ("normal", "wrap") or before.elapsed_ms == 0:
        return False
    # As fractions, so that nothing is lost to rounding: half to twice the rate before.
    usual, scale = before.deltas[index] * elapsed_ms, before.elapsed_ms
    return usual <= 2 * wrapped * scale and wrapped * scale <= 2 * usual
