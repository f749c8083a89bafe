"""What processes on one port (service/serving/workers.py) tell Prometheus: whichever is asked answers for all.

As Prometheus' own client does for several processes: counters and histograms are sums, and a gauge has a series for
each process, with its number as `worker`. A sum that fell, as where a process ends and takes its counts along, would
look like a restart, and Prometheus would count all of it again. So each process writes its numbers to a file, what is
told is what stands in the files, and a successor goes on from where the file of its number ends.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

SHARE_SECONDS = 1.0
STALE_SECONDS = 5.0  # the gauges of a process that has not written for as long are not told

_SUMMED = {"counter", "histogram"}
Sample = tuple[str, dict[str, str], float]


class _Family(msgspec.Struct):
    name: str
    kind: str
    words: str
    samples: list[Sample]


class _Numbers(msgspec.Struct):
    """A process's file.

    written_at  by the monotonic clock, which all processes of a machine share; before all time where it has ended
    """

    written_at: float
    families: list[_Family]


_decode = msgspec.msgpack.Decoder(_Numbers).decode
_encode = msgspec.msgpack.Encoder().encode


class SharedNumbers:
    """The numbers of this process, and the files of the others."""

    def __init__(self, directory: Path, number: int) -> None:
        """`number`: of no other living process; counts of the one that had it before are gone on with."""
        self._directory = directory
        self._path = directory / f"{number}.numbers"
        found = _read(self._path)
        self._before = [one for one in found.families if one.kind in _SUMMED] if found else []

    def write(self, families: Iterable[Metric], *, is_last: bool) -> None:
        """Puts down this process's numbers; `is_last` as it ends. Raises OSError."""
        own = [
            _Family(one.name, one.type, one.documentation, [(s.name, dict(s.labels), s.value) for s in one.samples])
            for one in families
        ]
        together = _Sums(self._before)
        together.add(one for one in own if one.kind in _SUMMED)
        gauges = [one for one in own if one.kind not in _SUMMED]
        written = _Numbers(float("-inf") if is_last else time.monotonic(), [*together.families(), *gauges])
        # Renamed, so that nobody reads half of it.
        new = self._path.with_suffix(".new")
        new.write_bytes(_encode(written))
        new.replace(self._path)

    def of_all(self) -> Iterator[Metric]:
        """What stands in the files of all processes."""
        sums = _Sums([])
        gauges: dict[str, Metric] = {}
        fresh = 0
        for path in sorted(self._directory.glob("*.numbers")):
            found = _read(path)
            if found is None:
                continue
            sums.add(one for one in found.families if one.kind in _SUMMED)
            if found.written_at < time.monotonic() - STALE_SECONDS:
                continue
            fresh += 1
            for one in found.families:
                if one.kind not in _SUMMED:
                    family = gauges.setdefault(one.name, Metric(one.name, one.words, one.kind))
                    for name, labels, value in one.samples:
                        family.add_sample(name, {**labels, "worker": path.stem}, value)
        for one in sums.families():
            family = Metric(one.name, one.words, one.kind)
            for name, labels, value in one.samples:
                family.add_sample(name, labels, value)
            yield family
        yield from gauges.values()
        yield GaugeMetricFamily("linkbeat_workers", "Processes that answer on this port.", float(fresh))


class _Sums:
    """Counters and histograms of several processes, added up."""

    def __init__(self, families: Iterable[_Family]) -> None:
        self._families: dict[str, _Family] = {}
        self._values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        self.add(families)

    def add(self, families: Iterable[_Family]) -> None:
        for family in families:
            self._families.setdefault(family.name, family)
            values = self._values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                key = name, tuple(labels.items())
                if key not in values:
                    values[key] = value
                elif name.endswith("_created"):  # a moment, and not a count
                    values[key] = min(values[key], value)
                else:
                    values[key] += value

    def families(self) -> list[_Family]:
        return [
            _Family(name, one.kind, one.words, [(of, dict(labels), value) for (of, labels), value in values.items()])
            for (name, one), values in zip(self._families.items(), self._values.values(), strict=True)
        ]


def _read(path: Path) -> _Numbers | None:
    with suppress(OSError, msgspec.DecodeError):
        return _decode(path.read_bytes())
    return None
