"""What a picture shows and says, of a sparkline's JSON."""

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Literal, NamedTuple, cast

import msgspec

from service.pictures.drawing import Chart, Curve
from service.pictures.figures import bits, celsius, percent
from service.traffic.gauges import FilesystemSparkline, GaugeSparkline
from service.traffic.periods import Grid
from service.traffic.sparkline import Sparkline

FRESH_SECONDS = 300  # a figure as old as this still is one of now; of wide buckets, the last two are
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))
Pictured = Literal["cpu", "memory", "disk", "temperature"]
GAUGES: dict[Pictured, str] = {"cpu": "CPU", "memory": "Memory", "disk": "Disk", "temperature": "Temperature"}

_traffic = msgspec.json.Decoder(Sparkline).decode
_gauge = msgspec.json.Decoder(GaugeSparkline).decode
_filesystem = msgspec.json.Decoder(FilesystemSparkline).decode

Values = list[float | None]


class _Said(NamedTuple):
    """A curve in words: "receiving 1.2 Mb/s, at most 94 Mb/s"."""

    what: str
    now: str
    peak: str

    def __str__(self) -> str:
        return f"{self.what} {self.now}, at most {self.peak}"


def of_traffic(body: bytes, asked: Grid) -> Chart:
    """Received above the axis and sent below it, in bits a second.

    Without the bucket under way, of which a part alone has come: every picture would end in a fall.
    """
    answer = _traffic(body)
    buckets = asked.of_width(answer.bucket_seconds)
    values = _placed(answer.data, ("rx_bps", "tx_bps"), buckets)
    if any(value is not None for value in values[0][:-1]):
        values = [one[:-1] for one in values]
    figures = [(bits(_newest(one, buckets)), bits(_highest(one))) for one in values]
    said = [_Said(what, *of) for what, of in zip(("receiving", "sending"), figures, strict=True)]
    curves = [Curve(role, one, *of) for role, one, of in zip(("rx", "tx"), values, figures, strict=True)]
    name = answer.server_id if answer.interface is None else f"{answer.server_id} · {answer.interface}"
    return _chart(name, "network traffic", said, curves, buckets, top=None)


def of_gauge(body: bytes, asked: Grid) -> Chart:
    """The mean of each bucket, of 100 percent or, of a temperature, of the highest; the highest sample as the peak."""
    answer = _gauge(body)
    name = GAUGES[cast("Pictured", answer.metric)]
    buckets = asked.of_width(answer.bucket_seconds)
    if answer.unit == "celsius":
        return _gauge_chart(f"{answer.server_id} · {name}", name, answer.data, buckets, celsius, top=None)
    return _gauge_chart(f"{answer.server_id} · {name}", name, answer.data, buckets, percent, top=100.0)


def of_filesystem(body: bytes, asked: Grid) -> Chart:
    answer = _filesystem(body)
    buckets = asked.of_width(answer.bucket_seconds)
    name = f"{answer.server_id} · {answer.mount_point}"
    return _gauge_chart(name, "filesystem usage", answer.data, buckets, percent, top=100.0)


def _gauge_chart(
    name: str,
    what: str,
    data: Sequence[object],
    buckets: Grid,
    figure: Callable[[float | None], str],
    top: float | None,
) -> Chart:
    means, highest = _placed(data, ("avg", "max"), buckets)
    said = _Said("at", figure(_newest(means, buckets)), figure(_highest(highest)))
    drawn = [None if value is None else max(value, 0.0) for value in means]  # below 0 °C is below the picture
    curve = Curve("share", drawn, said.now, said.peak)
    return _chart(name, what, [said], [curve], buckets, top=top)


def _chart(
    name: str, what: str, said: Sequence[_Said], curves: Sequence[Curve], buckets: Grid, top: float | None
) -> Chart:
    span, width = buckets.period.span, _width(buckets.bucket_seconds)
    values = curves[0].values
    gaps = sum(value is None for value in values)
    if gaps == len(values):
        words = "No data."
    else:
        words = "; ".join(map(str, said))
        words = f"{words[0].upper()}{words[1:]}; one value for each {width}"
        words += f", {gaps} of {len(values)} missing." if gaps else "."
    until = (buckets.first + len(values) * buckets.bucket).astimezone(UTC)
    return Chart(name, span, f"{name}: {what}, {span}", f"{words} Until {until:%Y-%m-%d %H:%M} UTC.", curves, top)


def _placed(data: Sequence[object], columns: tuple[str, ...], buckets: Grid) -> list[Values]:
    """Of each column, a value or None for each bucket of the grid; what clocks ahead bring beyond it is not shown."""
    first, width, count = buckets.first, buckets.bucket, buckets.count
    placed: list[Values] = [[None] * count for _ in columns]
    for point in data:
        place = (point.timestamp - first) // width  # type: ignore[attr-defined]  # every point has it
        if 0 <= place < count:
            for values, column in zip(placed, columns, strict=True):
                values[place] = getattr(point, column)
    return placed


def _width(seconds: int) -> str:
    """The width of a bucket in words: "minute", "5 minutes", "6 hours"."""
    size, unit = next(one for one in _UNITS if seconds % one[0] == 0)
    return unit if seconds == size else f"{seconds // size} {unit}s"


def _newest(values: Values, buckets: Grid) -> float | None:
    """The newest that is one of now."""
    last = values[-max(2, FRESH_SECONDS // buckets.bucket_seconds) :]
    return next((value for value in reversed(last) if value is not None), None)


def _highest(values: Values) -> float | None:
    return max((value for value in values if value is not None), default=None)


Charting = Callable[[bytes, Grid], Chart]
