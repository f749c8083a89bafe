"""Pictures as a browser shows them: measured in pixels of an <img>, so that they hold whatever fonts there are."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from service.pictures import charts
from service.pictures.drawing import Chart, Curve, Look, draw
from service.pictures.figures import bits
from service.traffic.periods import grid
from service.traffic.sparkline import Point, Sparkline
from tests.browser.serving import Served
from tests.helpers.support import heartbeat, hours_ago

Colour = tuple[int, int, int]
SCALE = 4
RX = {"light": (0x0E, 0x74, 0x90), "dark": (0x22, 0xD3, 0xEE)}
TX = {"light": (0xB4, 0x53, 0x09), "dark": (0xFB, 0xBF, 0x24)}
SHARE = {"light": (0x5B, 0x67, 0x76), "dark": (0x9A, 0xA7, 0xB5)}
SURFACE = {"light": (0xF6, 0xF7, 0xF9), "dark": (0x17, 0x1D, 0x24)}
_PIXELS = """
async ([source, scale]) => {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth * scale;
  canvas.height = image.naturalHeight * scale;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let at = 0; at < data.length; at += 4)
    text += String.fromCharCode(data[at], data[at + 1], data[at + 2], data[at + 3]);
  return [canvas.width, canvas.height, text];
}
"""
# Of each picture, where each text and each arrow is shown, and the curves, in its pixels.
_PLACES = """
() => [...document.querySelectorAll("body > svg")].map((svg) => {
  const picture = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text, path")].filter((one) => !one.hasAttribute("fill-opacity")).map((one) => {
    const box = one.getBoundingClientRect();
    const cut = one.ownerSVGElement.getBoundingClientRect();
    return {
      is_drawing: one.hasAttribute("stroke"),
      text: one.textContent,
      left: Math.max(box.left, cut.left) - picture.left, right: Math.min(box.right, cut.right) - picture.left,
      top: box.top - picture.top, bottom: box.bottom - picture.top,
    };
  });
})
"""


class Pixels:
    """A picture, SCALE times as large as it is."""

    def __init__(self, width: int, height: int, text: str) -> None:
        self.width, self.height, self._text = width, height, text

    def at(self, x: float, y: float) -> Colour:
        place = (int(y * SCALE) * self.width + int(x * SCALE)) * 4
        red, green, blue, _ = map(ord, self._text[place : place + 4])
        return red, green, blue

    def rows(self, x: float, colour: Colour, tolerance: int = 60) -> list[float]:
        """Where in the column the colour is, from the top."""
        steps = (row / SCALE for row in range(self.height))
        return [y for y in steps if is_like(self.at(x, y), colour, tolerance)]

    def line(self, x: float, colour: Colour) -> float:
        """The middle of the line in the column."""
        found = self.rows(x, colour)
        assert found, f"no line at {x}"
        return (found[0] + found[-1] + 1 / SCALE) / 2


def is_like(one: Colour, other: Colour, tolerance: int = 60) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance


async def pixels(page: Page, chart: Chart, look: Look) -> Pixels:
    source = "data:image/svg+xml," + quote(draw(chart, look).decode())
    return Pixels(*await page.evaluate(_PIXELS, [source, SCALE]))


def share(*values: float | None) -> Chart:
    return Chart("", "", "", "", [Curve("share", values, "", "")], 100.0)


def traffic(rx: list[float | None], tx: list[float | None], name: str = "nas · eth0") -> Chart:
    def curve(role: str, of: list[float | None]) -> Curve:
        known = [one for one in of if one is not None]
        return Curve(role, of, bits(known[-1] if known else None), bits(max(known, default=None)))

    return Chart(name, "last 24 hours", "", "", [curve("rx", rx), curve("tx", tx)], None)


def plain(width: int, height: int, theme: Any = "light") -> Look:
    return Look(width, height, theme, False)


@pytest_asyncio.fixture(loop_scope="session")
async def blank(browser: Browser) -> AsyncIterator[Page]:
    """A page of nothing: a picture needs no service."""
    page = await browser.new_page()
    yield page
    await page.close()


# A picture of 200 by 100 without text: the curves are between 4 and 196, and 100 percent is 90 high, but for the
# thickness of the line.
def height_of(percent: float) -> float:
    return 95 - 90 * percent / 100


async def test_a_step_stands_where_it_happens(blank: Page) -> None:
    shown = await pixels(blank, share(*[20.0] * 48, *[80.0] * 48), plain(200, 100))

    for x in (5, 50, 97):
        assert shown.line(x, SHARE["light"]) == pytest.approx(height_of(20), abs=0.6)
    for x in (103, 150, 195):
        assert shown.line(x, SHARE["light"]) == pytest.approx(height_of(80), abs=0.6)
    rise = shown.rows(100, SHARE["light"])
    assert height_of(80) - 2 < rise[0] < rise[-1] < height_of(20) + 2
    # Below the line there is its area, and above nothing.
    assert shown.at(150, 60) != SURFACE["light"] != shown.at(50, 90)
    assert is_like(shown.at(50, 50), SURFACE["light"], 2)


async def test_a_ramp_is_straight(blank: Page) -> None:
    shown = await pixels(blank, share(*[float(n) for n in range(101)]), plain(200, 100))

    for x in range(10, 190, 9):
        assert shown.line(x, SHARE["light"]) == pytest.approx(height_of((x - 4) / 192 * 101 - 0.5), abs=0.8)


async def test_a_gap_is_empty_to_its_edges_and_one_bucket_between_two_is_seen(blank: Page) -> None:
    values = [50.0] * 24 + [None] * 12 + [50.0] + [None] * 11 + [50.0] * 48
    shown = await pixels(blank, share(*values), plain(200, 100))

    def is_empty(x: float) -> bool:
        return all(is_like(shown.at(x, y), SURFACE["light"], 2) for y in range(4, 96))

    # Buckets are 2 pixels wide: the gap is from 52 to 76, the bucket to 78, and the next gap to 100.
    assert [x for x in range(5, 195) if is_empty(x + 0.5)] == [*range(52, 76), *range(78, 100)]
    assert shown.line(77, SHARE["light"]) == pytest.approx(height_of(50), abs=0.6)


@pytest.mark.parametrize("width", [40, 160, 900])
async def test_a_spike_reaches_the_top_at_its_moment(blank: Page, width: int) -> None:
    values = [0.0] * 365
    values[255] = 100.0
    shown = await pixels(blank, share(*values), plain(width, 100))

    x = 4 + (width - 8) * 255.5 / 365
    assert min(shown.rows(x, SHARE["light"]), default=99) < height_of(90)
    far = [other for other in (x - 12, x + 12) if other < width - 4]
    assert [shown.line(other, SHARE["light"]) for other in far] == pytest.approx([height_of(0)] * len(far), abs=0.8)


@pytest.mark.parametrize(("width", "height"), [(160, 32), (600, 200)])
async def test_received_is_above_sent_and_half_as_much_is_half_as_high(blank: Page, width: int, height: int) -> None:
    shown = await pixels(blank, traffic([8e6] * 48, [4e6] * 48), plain(width, height))

    received, sent = (shown.line(width / 2, colour["light"]) for colour in (RX, TX))
    edge = 2 if height < 48 else 4
    axis = edge + (height - 2 * edge) * 2 / 3
    assert received == pytest.approx(edge + 1, abs=1.6)
    assert sent == pytest.approx(height - edge - 1, abs=1.6)
    assert axis - received == pytest.approx(2 * (sent - axis), rel=0.2)


async def test_nothing_at_all_is_two_lines_in_the_middle(blank: Page) -> None:
    shown = await pixels(blank, traffic([0.0] * 48, [0.0] * 48), plain(160, 32))

    received, sent = (shown.line(80, colour["light"]) for colour in (RX, TX))
    assert 14 < received < sent < 18


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("prefers", ["light", "dark"])
async def test_the_colours_of_a_theme_and_auto_follows_what_is_preferred(blank: Page, theme: str, prefers: Any) -> None:
    await blank.emulate_media(color_scheme=prefers)

    for asked, expected in ((theme, theme), ("auto", prefers)):
        shown = await pixels(blank, traffic([8e6] * 48, [8e6] * 48), plain(160, 32, asked))
        assert shown.at(80, 1) == SURFACE[expected]
        # A whole pixel of the line has its very colour.
        assert shown.rows(80, RX[expected], 3)
        assert shown.rows(80, TX[expected], 3)


FONTS = "system-ui,-apple-system,'Segoe UI',sans-serif"
SIZES = [(40, 16), (120, 24), (120, 32), (160, 24), (160, 32), (199, 63), (199, 400), (200, 64), (200, 119), (200, 120),
         (240, 60), (320, 80), (200, 1000), (2000, 64), (600, 200), (2000, 1000)]  # fmt: skip
NAMES = ["nas", "WWWWWWWW.MMMMMMMMM · enp0s31f6-WWWW", "服务器 · 以太网适配器名称非常长", "\ufdfd" * 12, "a\u0301" * 40]


@pytest.mark.parametrize("font", ["DejaVu Sans", "Liberation Sans", "serif"])
async def test_no_text_leaves_the_picture_or_lies_on_another_or_on_the_curves(blank: Page, font: str) -> None:
    highest: list[float | None] = [888.8e6, None, 888.8e6]
    shapes = [
        *(traffic(highest, highest, name) for name in NAMES),
        traffic([None], [None], "nas · eth0"),
        Chart(NAMES[1], "last 24 hours", "", "", [Curve("share", [50.0], "100\xa0%", "1e+300\xa0%")], 100.0),
    ]
    asked = [(width, height, chart) for width, height in SIZES for chart in shapes]
    sources = "".join(draw(chart, Look(width, height, "light", True)).decode() for width, height, chart in asked)
    await blank.set_content(f"<body style='margin:20px'>{sources.replace(FONTS, font)}")
    shown: list[list[dict[str, Any]]] = await blank.evaluate(_PLACES)

    seen = 0
    for (width, height, chart), places in zip(asked, shown, strict=True):
        where = f"{width} by {height} {chart.name}: {json.dumps(places, ensure_ascii=False)}"
        texts = [one for one in places if one["text"]]
        seen += len(texts)
        for one in texts:
            assert one["left"] >= -0.5, where
            assert one["right"] <= width + 0.5, where
            assert one["top"] >= -3, where  # the box of a letter is higher than the letter
            assert one["bottom"] <= height + 3, where
        for one, other in combinations(places, 2):
            if one["is_drawing"] and other["is_drawing"]:
                continue
            is_apart = min(one["right"], other["right"]) - max(one["left"], other["left"]) < 0.5
            # Boxes of two lines overlap by what is above and below the letters.
            overlap = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
            assert is_apart or overlap < 5, where
    assert seen > 150


@asynccontextmanager
async def elsewhere(body: str) -> AsyncIterator[str]:
    """A page on another site, which takes in nothing that does not allow it."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCross-Origin-Embedder-Policy: require-corp\r\n"
    page = f'<!doctype html><title>wiki</title><link rel="icon" href="data:,">{body}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{head}Content-Length: {len(page)}\r\nConnection: close\r\n\r\n{page}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}/"


async def test_a_page_elsewhere_shows_it_by_a_link_and_nothing_is_blocked(site: Served, contexts: Any) -> None:
    for n in range(60):
        at = hours_ago(0) - timedelta(minutes=59 - n)
        await site.client.post(heartbeat(at=at, eth0=(n * n * 1_000_000, n * 900_000)))
    made = await site.client.http.post(
        "/api/v1/pictures", json={"server_id": "nas", "metric": "network", "interface": "eth0"}
    )
    link = f"{site.url}{made.json()['path']}&period=1h&theme=auto"
    context, complaints = await contexts(token_id=None, color_scheme="dark")
    page = await context.new_page()
    async with elsewhere(f'<img alt="nas" src="{link}">') as wiki:
        complaints.expect(wiki)
        await page.goto(wiki)
        width = await page.locator("img").evaluate(
            "async (image) => { await image.decode(); return image.naturalWidth; }"
        )
    await page.goto(link)
    surface = await page.locator("rect").evaluate("(one) => getComputedStyle(one).fill")
    name = await page.evaluate("document.title")

    assert width == 160
    assert surface == "rgb({}, {}, {})".format(*SURFACE["dark"])  # its style is its policy's
    assert name == "nas · eth0: network traffic, last hour"


async def test_the_chart_of_an_answer_is_what_the_answer_says(blank: Page) -> None:
    """From the JSON to the pixels: a night without traffic data, then twice as much sent as received."""
    buckets = grid("24h", None, datetime(2026, 1, 29, 12, 7, tzinfo=UTC))
    half = [start for start in buckets.starts() if start >= datetime(2026, 1, 29, tzinfo=UTC)]
    data = [Point(start, 1, 1, 4e6, 8e6) for start in half]
    answer = Sparkline("nas", "network", "eth0", "24h", buckets.bucket_seconds, data)

    chart = charts.of_traffic(msgspec.json.encode(answer), buckets)
    shown = await pixels(blank, chart, plain(200, 62))

    assert chart.curves[0].now == "4.00\xa0Mb/s"
    assert "47 of 95 missing" in chart.description
    begins = 4 + 192 * 47 / 95
    assert shown.rows(begins - 1, RX["light"]) == shown.rows(20, TX["light"]) == []
    assert shown.line(begins + 2, RX["light"]) == pytest.approx(5, abs=1.5)
    assert shown.line(190, TX["light"]) == pytest.approx(57, abs=1.5)
