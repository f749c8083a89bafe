"""A sparkline as an SVG picture: small, crisp, complete in itself, and right beside text of any size.

Pure functions. Colours stand in attributes, so that programs without CSS draw them too; a picture of the theme `auto`
carries one style, which is always the same (STYLE): a Content-Security-Policy can name it by its hash.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Literal, NamedTuple

from service.pictures.figures import ellipsis, text_width
from service.pictures.outlines import paths, runs, simplified, tenths, thinned

Theme = Literal["light", "dark", "auto"]

# As the dashboard's tokens (service/web/static): surface, text, muted text, lines, received, sent, shares.
_ROLES = ("s", "t", "m", "l", "rx", "tx", "share")
_LIGHT = dict(zip(_ROLES, ["#f6f7f9", "#1b2430", "#5b6776", "#dfe3e8", "#0e7490", "#b45309", "#5b6776"], strict=True))
_DARK = dict(zip(_ROLES, ["#171d24", "#e4e9ef", "#9aa7b5", "#2a333d", "#22d3ee", "#fbbf24", "#9aa7b5"], strict=True))
STYLE = "@media(prefers-color-scheme:dark){" + "".join(f".lb-{n}{{color:{c}}}" for n, c in _DARK.items()) + "}"

_FONT = "system-ui,-apple-system,'Segoe UI',sans-serif"
_LEAST_HEIGHT = 3.0  # pixels that the smaller direction has at least
_OFF_AXIS = 0.9  # of a pixel: two lines that are both 0 are both seen

_STROKE = 'fill="none" stroke="currentColor" stroke-linejoin="round" vector-effect="non-scaling-stroke"'


class Look(NamedTuple):
    """What a picture is asked to look like; sizes in pixels."""

    width: int
    height: int
    theme: Theme
    is_labelled: bool


class Curve(NamedTuple):
    """A line over the buckets, and what is said of it.

    role    its colour: one of _ROLES
    values  one a bucket, oldest first; None: nothing is known, which is a gap
    now     the newest figure as text, and peak, the highest
    """

    role: str
    values: Sequence[float | None]
    now: str
    peak: str


class Chart(NamedTuple):
    """What is drawn: the first curve upwards, a second one below the axis, on the same scale.

    name, span         what and how long, as text in the picture
    title, description for those who do not see it
    top                the value at the upper edge; None: the highest
    """

    name: str
    span: str
    title: str
    description: str
    curves: Sequence[Curve]
    top: float | None


class _Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float


def draw(chart: Chart, look: Look) -> bytes:
    """The picture, in UTF-8."""
    return "".join(_svg(chart, look)).encode()


def _svg(chart: Chart, look: Look) -> Iterator[str]:
    width, height = look.width, look.height
    colours = _DARK if look.theme == "dark" else _LIGHT
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="lb-title lb-desc" font-family="{_FONT}" fill="currentColor">'
        f'<title id="lb-title">{_escaped(chart.title)}</title><desc id="lb-desc">{_escaped(chart.description)}</desc>'
    )
    if look.theme == "auto":
        yield f"<style>{STYLE}</style>"

    def coloured(role: str, *elements: str) -> str:
        return f'<g class="lb-{role}" color="{colours[role]}">{"".join(elements)}</g>'

    yield coloured("s", f'<rect width="{width}" height="{height}" rx="3"/>')
    is_empty = all(value is None for curve in chart.curves for value in curve.values)
    plot, texts = _layout(chart, look, is_empty=is_empty)
    for role, elements in groupby(texts, key=lambda one: one[0]):
        yield coloured(role, *(element for _, element in elements))
    if is_empty:
        size = max(7.0, min(13.0, plot.height * 0.6, plot.width / 5))
        yield coloured("m", _text("No data", plot.x + plot.width / 2, plot.y + plot.height / 2, size, "middle"))
    else:
        stroke = 1.25 if height < 48 else 1.5 if height < 400 else 2.0
        yield from (coloured(role, element) for role, element in _lines(chart, plot, stroke))
    yield "</svg>\n"


def _layout(chart: Chart, look: Look, *, is_empty: bool) -> tuple[_Box, list[tuple[str, str]]]:
    """Where the curves go, and the texts around them: as many as there is room for."""
    width, height = look.width, look.height
    if not look.is_labelled or height < 24 or width < 120:
        pad = 2 if height < 48 else 4
        return _Box(pad, pad, width - 2 * pad, height - 2 * pad), []
    if height < 64 or width < 200:
        return (_Box(4, 3, width - 8, height - 6), []) if is_empty else _beside(chart, width, height)
    size = round(max(11.0, min(height / 16, width / 28, 28.0)), 1)
    pad = round(size * 0.7)
    texts: list[tuple[str, str]] = []
    line = round(size * 1.7)
    used = 0.0 if is_empty else _figures(texts, [curve.now for curve in chart.curves], chart, width - pad, line, size)
    _name(texts, chart.name, _Box(pad, 0, width - 2 * pad - used - (size if used else 0), line), size)
    below = 0
    if height >= 120:
        small, below = size * 0.88, round(size * 1.5)
        row = 2 * height - below - pad / 2  # twice the middle of the row, as the height of a row from the top
        peaks = [] if is_empty else [curve.peak for curve in chart.curves]
        said = f"peak {peaks[0]}" if len(peaks) == 1 else "peak"
        if len(peaks) == 1:
            texts.append(("m", _text(said, width - pad, row / 2, small, "end")))
        elif peaks:
            used = _figures(texts, peaks, chart, width - pad, row, small, role="m")
            if used + text_width(said + chart.span, small) + 3 * size + 2 * pad <= width:
                texts.append(("m", _text(said, width - pad - used - size * 0.6, row / 2, small, "end")))
        texts.append(("m", _text(chart.span, pad, row / 2, small)))
    top = line + 1
    return _Box(pad, top, width - 2 * pad, height - top - below - pad / 2 - 1), texts


def _beside(chart: Chart, width: int, height: int) -> tuple[_Box, list[tuple[str, str]]]:
    """As a badge has it: the figures of now to the right of the curves."""
    curves = chart.curves
    size = round(max(9.0, min(height * 0.33, 12.0)), 1)
    column = max(text_width(curve.now, size) for curve in curves) + (size * 0.9 if len(curves) > 1 else 0)
    if column > width * 0.55:
        return _Box(4, 3, width - 8, height - 6), []
    texts: list[tuple[str, str]] = []
    for n, curve in enumerate(curves):
        middle = height / 2 + (n - (len(curves) - 1) / 2) * size * 1.25
        if len(curves) > 1:
            texts.append((curve.role, _arrow(width - 5 - column, middle, size * 0.62, is_down=n == 0)))
        texts.append(("t", _text(curve.now, width - 5, middle, size, "end")))
    return _Box(4, 3, width - column - 14, height - 6), texts


def _figures(
    texts: list[tuple[str, str]], figures: list[str], chart: Chart, right: float, line: float, size: float,
    role: str = "t",
) -> float:  # fmt: skip
    """Puts figures at the right end of a line, each with its arrow where there are two; says how wide they are."""
    at = right
    for n in reversed(range(len(figures))):
        texts.append((role, _text(figures[n], at, line / 2, size, "end")))
        at -= text_width(figures[n], size)
        if len(figures) > 1:
            at -= size * 0.9
            texts.append((chart.curves[n].role, _arrow(at, line / 2, size * 0.62, is_down=n == 0)))
            at -= size * 0.9 if n else 0
    return right - at


def _name(texts: list[tuple[str, str]], name: str, box: _Box, size: float) -> None:
    """The name, cut to its box; what is wider than any table knew is cut off by the box itself."""
    if shown := ellipsis(_printable(name), box.width, size * 1.08):
        inner = _text(shown, 0, box.height / 2, size, more=' font-weight="600"')
        texts.append(("t", f'<svg x="{_n(box.x)}" width="{_n(box.width)}" height="{_n(box.height)}">{inner}</svg>'))


def _lines(chart: Chart, plot: _Box, stroke: float) -> Iterator[tuple[str, str]]:
    """Area and line of each curve, and the axis."""
    inset = stroke / 2 + 0.25
    peaks = [max((value for value in curve.values if value is not None), default=0.0) for curve in chart.curves]
    if chart.top is not None:
        peaks = [max(chart.top, *peaks)]
    lowest = plot.y + plot.height - inset
    if len(peaks) == 1:
        axis, off = lowest, 0.0
        heights = [lowest - plot.y - inset]
    else:
        # Each direction is as high as it needs, the smaller one too.
        off = _OFF_AXIS
        room = lowest - plot.y - inset - 2 * off
        least = min(_LEAST_HEIGHT, room / 2)
        up = min(max(room * peaks[0] / sum(peaks) if any(peaks) else room / 2, least), room - least)
        axis = round(plot.y + inset + up + off - 0.5) + 0.5
        heights = [axis - off - plot.y - inset, lowest - axis - off]
    # One scale for both directions: what is twice as high is twice as much.
    high, most = min(
        ((h, peak) for h, peak in zip(heights, peaks, strict=True) if peak > 0),
        key=lambda one: one[0] / one[1], default=(0.0, 1.0),
    )  # fmt: skip
    for curve, sign in zip(chart.curves, (-1, 1), strict=False):
        base, up = axis + sign * off, sign * high
        step = plot.width / len(curve.values)
        drawn = ([(plot.x + x * step, base + v / most * up) for x, v in run] for run in runs(curve.values))
        # Of buckets that are wider than half a pixel, no column has more than two.
        outlines = [simplified(run if step > 0.5 else thinned(run)) for run in drawn]
        outline, area = paths(outlines, base)
        yield curve.role, f'<path fill-opacity=".2" d="{area}"/>'
        yield curve.role, f'<path {_STROKE} stroke-width="{stroke}" d="{outline}"/>'
    if len(peaks) > 1:
        yield (
            "l",
            f'<path stroke="currentColor" shape-rendering="crispEdges" d="M{_n(plot.x)} {_n(axis)}h{_n(plot.width)}"/>',
        )


def _text(text: str, x: float, middle: float, size: float, anchor: str = "start", more: str = "") -> str:
    anchored = f' text-anchor="{anchor}"' if anchor != "start" else ""
    place = f'x="{_n(x)}" y="{_n(middle + size * 0.36)}" font-size="{_n(size)}"'
    return f"<text {place}{anchored}{more}>{_escaped(text)}</text>"


def _arrow(x: float, middle: float, size: float, *, is_down: bool) -> str:
    """A triangle that points down (received) or up (sent), `size` wide: no font has to have it."""
    half = size * 0.42
    tip, back = (middle + half, middle - half) if is_down else (middle - half, middle + half)
    return f'<path d="M{_n(x)} {_n(back)}h{_n(size)}L{_n(x + size / 2)} {_n(tip)}z"/>'


def _n(value: float) -> str:
    return tenths(round(value * 10))


def _escaped(text: str) -> str:
    return escape(_printable(text))


def _printable(text: str) -> str:
    """Without what XML may not hold, and without controls that would turn the text around them."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn") else c for c in text)
