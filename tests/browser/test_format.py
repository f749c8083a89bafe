"""static/js/shared/format.js, in the browser that runs it."""

from typing import Any

from playwright.async_api import Page

from tests.browser.serving import Served

BERLIN = {"timezone_id": "Europe/Berlin", "locale": "de-DE"}
CASES = [
    ("rate(null)", "\u2013"),
    ("rate(0)", "0 bit/s"),
    ("rate(0.4)", "0 bit/s"),
    ("rate(999)", "999 bit/s"),
    ("rate(999.6)", "1.00 kbit/s"),
    ("rate(1000)", "1.00 kbit/s"),
    ("rate(9994)", "9.99 kbit/s"),
    ("rate(9996)", "10.0 kbit/s"),
    ("rate(99960)", "100 kbit/s"),
    ("rate(999499)", "999 kbit/s"),
    ("rate(999500)", "1.00 Mbit/s"),
    ("rate(12345678)", "12.3 Mbit/s"),
    ("rate(400e9)", "400 Gbit/s"),
    ("rate(8e6, 'bytes')", "1.00 MB/s"),
    ("rate(80, 'bytes')", "10 B/s"),
    ("bytes(null)", "\u2013"),
    ("bytes(512)", "512 B"),
    ("bytes(1073741824)", "1.07 GB"),
    ("bytes(2 ** 64)", "18.4 EB"),
    ("bytes(1e22)", "10000 EB"),
    ("bytes(-1500)", "\u22121.50 kB"),
    ("count(0)", "0"),
    ("count(1234567)", "1\u202f234\u202f567"),
    ("count(null)", "\u2013"),
    ("percent(45.25)", "45.3 %"),
    ("percent(0)", "0.0 %"),
    ("percent(99.96)", "100 %"),
    ("percent(null)", "\u2013"),
    ("duration(0)", "0 s"),
    ("duration(59.4)", "59 s"),
    ("duration(60)", "1 min"),
    ("duration(90)", "1 min 30 s"),
    ("duration(3605)", "1 h"),
    ("duration(3660)", "1 h 1 min"),
    ("duration(86400 * 3 + 3600 * 4 + 59)", "3 d 4 h"),
    ("duration(-5)", "0 s"),
    ("duration(null)", "\u2013"),
    ("age(1000, 1400)", "now"),
    ("age(0, 12000)", "12 s ago"),
    ("age(null, 1)", "\u2013"),
    ("clock(Date.UTC(2026, 0, 29, 10, 5))", "11:05"),
    ("moment(Date.UTC(2026, 0, 29, 23, 30), Date.UTC(2026, 5, 1))", "Fr., 30. Jan., 00:30"),
    ("moment(Date.UTC(2025, 6, 1, 10), Date.UTC(2026, 5, 1))", "Di., 1. Juli 2025, 12:00"),
    ("moment(null)", "\u2013"),
]


async def test_numbers_and_times_in_words(site: Served, contexts: Any) -> None:
    context, _ = await contexts(token_id=None, **BERLIN)
    page: Page = await context.new_page()
    await page.goto("/sign-in")

    # By the protocol, which the page's policy does not hold for.
    calls = ", ".join(f"f.{call}" for call, _ in CASES)
    found = await page.evaluate(
        f"async () => {{ const f = await import('/static/js/shared/format.js'); return [{calls}] }}"
    )

    expected = [text for _, text in CASES]
    assert [one.replace("\u00a0", " ") for one in found] == expected
    assert site.url


async def test_a_sparkline_has_a_run_for_each_stretch_of_data(contexts: Any) -> None:
    context, _ = await contexts(token_id=None)
    page: Page = await context.new_page()
    await page.goto("/sign-in")

    found = await page.evaluate(
        """async () => {
             const { sparkline, draw } = await import("/static/js/shared/sparkline.js");
             const svg = sparkline("before");
             draw(svg, { rx: [1, null, 2, 0], tx: [null, null, 4, 0.001] }, "eth0");
             return [svg.getAttribute("aria-label"), ...[...svg.children].map((path) => path.getAttribute("d"))] }"""
    )

    label, zero, rx, tx = found
    assert label == "eth0"
    assert zero == "M0.0 16H30.0M60.0 16H120.0"
    assert rx == "M0.0 16V12.3H30.0V16ZM60.0 16V8.5H90.0V16.0H120.0V16Z"
    assert tx == "M60.0 16V31.0H90.0V16.7H120.0V16Z", "what there is shows, however little"
