"""A picture of whatever series, at whatever size, is whole, within its edges, and harmless."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.pictures.drawing import STYLE, Chart, Curve, Look, Theme, draw
from service.pictures.figures import bits, ellipsis, percent, text_width

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<img src=x onerror="alert(1)">&amp;]]></title><script>alert(1)</script>\x00\x1b\u202e\ufffe'
ELEMENTS = {"svg", "title", "desc", "style", "g", "rect", "text", "path"}
ATTRIBUTES = {
    "width", "height", "viewBox", "role", "aria-labelledby", "font-family", "fill", "id", "class", "color", "rx", "x",
    "y", "font-size", "font-weight", "text-anchor", "d", "fill-opacity", "stroke", "stroke-linejoin", "stroke-width",
    "vector-effect", "shape-rendering",
}  # fmt: skip

looks = st.builds(
    Look, st.integers(40, 2000), st.integers(16, 1000), st.sampled_from(["light", "dark", "auto"]), st.booleans()
)
rates = st.floats(0, 1e21, allow_nan=False) | st.sampled_from([0.0, 1e-300, 5e-324, 1.0])
values = st.lists(st.none() | rates, min_size=1, max_size=400)


@st.composite
def charts(draw_: st.DrawFn) -> Chart:
    received = draw_(values)
    sent = draw_(st.none() | st.just([None if one is None else one / 3 for one in received]))
    name = draw_(st.text(max_size=60) | st.just(HOSTILE))

    def curve(role: str, of: list[float | None]) -> Curve:
        return Curve(role, of, bits(of[-1]), bits(max((one for one in of if one is not None), default=None)))

    curves = [curve("share", received)] if sent is None else [curve("rx", received), curve("tx", sent)]
    return Chart(name, "last 24 hours", f"{name}: traffic", f"of {name}", curves, 100.0 if sent is None else None)


def drawn(chart: Chart, look: Look) -> ET.Element:
    return ET.fromstring(draw(chart, look).decode())  # noqa: S314 - the service drew it


def points(path: str) -> Iterator[tuple[float, float]]:
    """The corners of a path."""
    x = y = 0.0
    for letter, rest in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        numbers = [float(one) for one in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", rest)]
        if letter == "z":
            continue
        match letter:
            case "M" | "L":
                x, y = numbers
            case "l":
                x, y = x + numbers[0], y + numbers[1]
            case "h":
                x += numbers[0]
            case "H":
                (x,) = numbers
            case "V":
                (y,) = numbers
            case _:
                raise AssertionError(letter)
        yield x, y


def line(picture: ET.Element, which: int = 0) -> str:
    """The data of a curve's line."""
    found = [one.get("d") or "" for one in picture.iter(f"{SVG}path") if one.get("stroke-linejoin")]
    return found[which]


def curve(*of: float | None, role: str = "share") -> Curve:
    return Curve(role, of, "", "")


def chart(*curves: Curve, top: float | None = None) -> Chart:
    return Chart("nas", "last hour", "", "", curves, top)


@given(chart=charts(), look=looks)
@example(chart=chart(curve(0.0)), look=Look(40, 16, "auto", True))
@example(chart=chart(curve(5e-324), curve(0.0)), look=Look(2000, 1000, "auto", True))
@example(chart=chart(curve(1e21), curve(1e-9)), look=Look(160, 32, "dark", True))
def test_it_is_xml_within_its_edges_with_nothing_that_runs_or_loads(chart: Chart, look: Look) -> None:
    picture = drawn(chart, look)

    assert (picture.get("width"), picture.get("height")) == (str(look.width), str(look.height))
    for element in picture.iter():
        assert element.tag.removeprefix(SVG) in ELEMENTS
        assert set(element.keys()) <= ATTRIBUTES
        for value in element.attrib.values():
            if not value.startswith("#"):
                assert not re.search(r"nan|inf|\de[+-]?\d|url|:", value), value
        for x, y in points(element.get("d", "")):
            assert -0.05 <= x <= look.width + 0.05, (x, y)
            assert -0.05 <= y <= look.height + 0.05, (x, y)
        if element.tag == f"{SVG}style":
            assert element.text == STYLE
        if element.tag == f"{SVG}text":
            assert 0 <= float(element.get("x", "")) <= look.width
            assert 0 <= float(element.get("y", "")) <= look.height
    assert len(draw(chart, look)) < 80_000


@given(chart=charts(), look=looks)
def test_a_name_stays_text_and_controls_do_not_reach_it(chart: Chart, look: Look) -> None:
    said = drawn(chart, look).findtext(f"{SVG}title") or ""

    assert len(said) == len(chart.title)
    for found, given_ in zip(said, chart.title, strict=True):
        is_control = unicodedata.category(given_) in ("Cc", "Cf", "Cs", "Cn")
        assert found == ("\ufffd" if is_control else given_)


@given(
    shares=st.lists(st.floats(0, 100, width=16), min_size=2, max_size=90),
    height=st.integers(16, 300),
    width=st.integers(100, 600),
)
def test_every_value_lies_on_the_line(shares: list[float], height: int, width: int) -> None:
    look = Look(width, height, "light", False)
    corners = list(points(line(drawn(chart(curve(*shares), top=100.0), look))))
    pad = 2 if height < 48 else 4
    step = (width - 2 * pad) / len(shares)

    bottom, top = corner_heights(look)
    for place, share in enumerate(shares):
        x, y = pad + (place + 0.5) * step, bottom - (bottom - top) * share / 100
        (ax, ay), (bx, by) = next(
            (one, other) for one, other in pairwise(corners) if one[0] - 0.06 <= x <= other[0] + 0.06
        )
        at = ay if bx == ax else ay + (by - ay) * (x - ax) / (bx - ax)
        # The corners are to a tenth, across too: in a steep rise that is more along.
        assert abs(at - y) <= 0.3 + 0.06 * abs(by - ay) / max(bx - ax, 0.1)


def corner_heights(look: Look) -> tuple[float, float]:
    """Where 0 and 100 percent are, from pictures of nothing else."""
    found = [next(points(line(drawn(chart(curve(one, one), top=100.0), look))))[1] for one in (0.0, 100.0)]
    return found[0], found[1]


def test_a_spike_in_a_year_is_seen_in_forty_pixels() -> None:
    year: list[float | None] = [1.0] * 365
    year[200] = 100.0
    look = Look(40, 32, "light", False)

    corners = list(points(line(drawn(chart(curve(*year), top=100.0), look))))

    x, y = min(corners, key=lambda one: one[1])
    assert y == pytest.approx(corner_heights(look)[1], abs=0.1)
    assert x == pytest.approx(2 + 36 * 200.5 / 365, abs=0.1)
    assert len(corners) < 10


def test_a_gap_is_no_line_and_as_wide_as_its_buckets() -> None:
    path = line(drawn(chart(curve(5.0, None, None, 5.0, 6.0, None), top=100.0), Look(124, 32, "light", False)))

    runs = [list(points(f"M{one}")) for one in path.split("M")[1:]]
    assert [(one[0][0], one[-1][0]) for one in runs] == [(2, 22), (62, 102)]


def test_both_directions_are_on_one_scale_and_use_the_height() -> None:
    look = Look(200, 60, "light", False)
    picture = drawn(chart(curve(0.0, 90.0, role="rx"), curve(0.0, 30.0, role="tx")), look)

    received, sent = (sorted({y for _, y in points(line(picture, n))}) for n in range(2))
    assert (received[1] - received[0]) / (sent[1] - sent[0]) == pytest.approx(3, abs=0.1)
    assert received[0] < 7
    assert sent[1] > 53


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_and_texts_stand_out(theme: Theme) -> None:
    """WCAG 2.2: 4.5 for texts (1.4.3), 3 for lines (1.4.11)."""
    source = draw(chart(curve(1.0, role="rx"), curve(1.0, role="tx")), Look(300, 150, theme, True)).decode()
    colours = {role: source.partition(f'class="lb-{role}" color="')[2][:7] for role in ("s", "t", "m", "rx", "tx")}

    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for role, least in (("t", 4.5), ("m", 4.5), ("rx", 3.0), ("tx", 3.0)):
        dark, bright = sorted((light(colours["s"]), light(colours[role])))
        assert (bright + 0.05) / (dark + 0.05) >= least, role


def test_a_day_is_some_kilobytes() -> None:
    noise: list[float | None] = [float(n * 7919 % 1000) for n in range(96)]
    day = Chart("mediaserver", "last 24 hours", "t" * 60, "d" * 150, [curve(*noise, role="rx"), curve(*noise)], None)

    assert len(draw(day, Look(160, 32, "auto", True))) < 5_000
    assert len(draw(day, Look(600, 200, "auto", True))) < 6_000


@pytest.mark.parametrize(
    ("bps", "text"),
    [(None, "–"), (0, "0 b/s"), (999.4, "999 b/s"), (999.5, "1.00 kb/s"), (1_234, "1.23 kb/s"),  # noqa: RUF001
     (9_996, "10.0 kb/s"), (12_340_000, "12.3 Mb/s"), (999_499_999, "999 Mb/s"), (999_500_000, "1.00 Gb/s"),
     (2**64 * 8 / 60, "2.46 Eb/s"), (1e24, "1000 Zb/s")],
)  # fmt: skip
def test_a_rate_has_three_digits(bps: float | None, text: str) -> None:
    assert bits(bps).replace("\xa0", " ") == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0, "0.0 %"), (9.94, "9.9 %"), (9.96, "10 %"), (100, "100 %"), (1e300, "1e+300 %")],  # noqa: RUF001
)
def test_a_share(share: float | None, text: str) -> None:
    assert percent(share).replace("\xa0", " ") == text


@given(text=st.text(max_size=40), width=st.floats(0, 400), size=st.floats(7, 28))
def test_what_is_cut_fits(text: str, width: float, size: float) -> None:
    shown = ellipsis(text, width, size)

    assert text_width(shown.removesuffix("…"), size) + (size if shown != text and shown else 0) <= width + 1e-6
    assert shown in ("", text) or (shown.endswith("…") and text.startswith(shown[:-1].rstrip()))
