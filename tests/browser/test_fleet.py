"""The fleet page, as people look at it."""

import re
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from playwright.async_api import CDPSession, Page, expect

from tests.browser.fleet_page import beat, choose, order, row, tell
from tests.browser.serving import Served, violations
from tests.helpers.support import interface

PHONE = {"width": 360, "height": 740}
EVIL = "<img onerror=alert(1) src=x>"


async def test_it_shows_each_server_with_its_state_its_rates_and_a_picture(site: Served, page: Page) -> None:
    await tell(site, "nas", mbit=8)
    await tell(site, "pi", "wlan0", mbit=0.5)

    await page.goto("/")

    nas = row(page, "nas")
    await expect(nas.locator(".status")).to_have_text("Up")
    await expect(nas.locator(".interface")).to_have_text("eth0")
    await expect(nas.locator(".now")).to_have_text("↓ 8.00\u00a0Mbit/s↑ 4.00\u00a0Mbit/s")
    await expect(nas.locator(".peak")).to_have_text("8.00\u00a0Mbit/s")
    await expect(nas.locator(".errors")).to_have_text("0")
    await expect(
        nas.get_by_role("img", name="eth0 of nas: receiving 8.00\u00a0Mbit/s, sending 4.00\u00a0Mbit/s, peak")
    ).to_be_visible()
    assert await nas.locator("path.rx").get_attribute("d")
    await expect(page.get_by_text("2 servers")).to_be_visible()
    await expect(nas.get_by_role("link", name="nas")).to_have_attribute("href", "/servers/nas?period=1h")


async def test_the_period_is_in_the_address_and_the_way_back_works(site: Served, page: Page) -> None:
    await tell(site, "now")
    for ago in (3.01, 3.0):
        await site.client.post(beat("earlier", ago * 3600, interface("eth0", int(9e9 - ago * 1e9))))
    await page.goto("/")
    await expect(row(page, "earlier")).to_contain_text("No data")

    await choose(page, "24h")

    await page.wait_for_url("**/?period=24h")
    await expect(row(page, "earlier").get_by_role("img")).to_be_visible()
    await expect(page.get_by_role("columnheader", name="Traffic, 24h")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("24h")).to_be_checked()
    await expect(row(page, "earlier").get_by_role("img")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_label("1h")).to_be_checked()
    await expect(row(page, "earlier")).to_contain_text("No data")


async def test_one_filters_as_one_types(site: Served, page: Page) -> None:
    for name in ("nas", "mediaserver", "pi"):
        await tell(site, name, "wlan0" if name == "pi" else "eth0", hostname=f"{name}.home.arpa")
    await page.goto("/")
    await expect(row(page, "nas")).to_be_visible()

    await page.keyboard.press("/")
    await page.keyboard.type("med")
    assert await order(page) == ["mediaserver"]
    await expect(page.get_by_role("status").filter(has_text="1 of 3")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.type("WLAN up")
    assert await order(page) == ["pi"]
    await page.get_by_label("Filter servers").fill("nothing of the kind")
    await expect(page.get_by_text("No server matches the filter.")).to_be_visible()
    assert "q=nothing" in page.url
    await page.reload()
    await expect(page.get_by_label("Filter servers")).to_have_value("nothing of the kind")


async def test_one_sorts_by_the_headers_with_the_keyboard_too(site: Served, page: Page) -> None:
    for name, mbit in (("a10", 1), ("a9", 30), ("b", 5)):
        await tell(site, name, mbit=mbit)
    await page.goto("/")
    await expect(row(page, "b")).to_be_visible()
    assert await order(page) == ["a9", "a10", "b"], "as people count"
    now = page.get_by_role("columnheader", name="Now")

    await now.get_by_role("button").focus()
    await page.keyboard.press("Enter")

    assert await order(page) == ["a9", "b", "a10"]
    assert await now.get_attribute("aria-sort") == "descending"
    await page.keyboard.press("Space")
    assert await order(page) == ["a10", "b", "a9"]
    assert await now.get_attribute("aria-sort") == "ascending"
    assert await page.locator("[aria-sort]").count() == 1
    assert "sort=now&order=asc" in page.url


async def test_all_of_it_can_be_reached_by_keyboard_alone(site: Served, page: Page) -> None:
    await tell(site, "nas")
    await page.goto("/")
    await expect(row(page, "nas")).to_be_visible()

    reached = []
    for _ in range(22):
        await page.keyboard.press("Tab")
        name = await page.evaluate(
            "(({id, dataset, textContent}) => id || dataset.sort || textContent.trim())(document.activeElement)"
        )
        reached.append(name)
        if name == "nas":
            break
        ring = await page.evaluate(
            "(one => { const style = getComputedStyle(one.type === 'radio' ? one.parentElement : one);"
            " return style.outlineStyle + style.outlineWidth })(document.activeElement)"
        )
        assert ring == "solid2px", f"{name} does not show that it has the focus"

    assert reached == [
        "Skip to content", "Linkbeat", "Fleet", "Alerts", "Manage", "API", "units", "theme", "sign-out", "filter",
        reached[10], "add", "status", "server", "interface", "now", "peak", "errors", "nas",
    ]  # fmt: skip
    # Since the sparklines are there.
    await expect(page.get_by_role("link", name="nas", exact=True)).to_have_attribute("href", "/servers/nas?period=1h")
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile("/servers/nas[?]period=1h$"))


async def test_no_data_is_said_and_no_interface_and_one_that_is_down(site: Served, page: Page) -> None:
    down = interface("eth1", 0, is_up=False)
    await site.client.post(beat("nas", 1, interface("eth0", 5), down, primary_interface="eth1"))
    await site.client.post(beat("none", 1))

    await page.goto("/")

    await expect(row(page, "nas").locator(".interface")).to_have_text("eth1 Down of 2, 1 down")
    await expect(row(page, "nas").locator(".now")).to_have_text("\u2013")
    await expect(row(page, "none").locator(".interface")).to_have_text("No interface")
    await expect(row(page, "none").locator(".traffic")).to_have_text("No data")


async def test_hundreds_of_interfaces_are_a_row_like_any_other(site: Served, page: Page) -> None:
    many = [interface(f"if{number}", number, is_up=number > 2) for number in range(200)]
    await site.client.post(beat("switch", 1, *many, primary_interface="if7"))

    await page.goto("/")

    await expect(row(page, "switch").locator(".interface")).to_have_text("if7 of 200, 3 down")
    assert await row(page, "switch").locator(".others .name").all_inner_texts() == ["if197", "if198", "if199"]
    box = await row(page, "switch").bounding_box()
    assert box
    assert box["height"] < 60


# Of the other interfaces that are in sight: those whose rate is cut off by the end of their cell or of their own box.
_CUT_RATES = """
items => items.filter((item) => {
  const rate = item.querySelector(".rate").getBoundingClientRect();
  const list = item.parentElement.getBoundingClientRect();
  const room = item.closest("td").getBoundingClientRect();
  return rate.width && rate.top < list.bottom && (rate.right > room.right || rate.bottom > list.bottom + 1);
}).map((item) => item.textContent)
"""


async def test_no_rate_of_another_interface_is_cut_off(site: Served, page: Page) -> None:
    now = datetime.now(UTC)
    for ago, rx in ((11, 0), (1, 1_230_000_000)):
        names = ("eth0", "cni0", "flannel.1", "enp129s0f1np1")
        interfaces = [interface(name, rx, rx) for name in names]
        await site.client.post(beat("kube", ago, *interfaces, now=now, primary_interface="eth0"))
    await page.goto("/")
    await expect(row(page, "kube").locator(".others .rate")).to_have_text(["1.97\u00a0Gbit/s"] * 3)

    for width in (360, 1121, 1200, 1256, 1257, 1300, 1600):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await row(page, "kube").locator(".others li").evaluate_all(_CUT_RATES) == [], width


async def test_where_heartbeats_are_seldom_there_are_no_gaps_between_them(site: Served, page: Page) -> None:
    for number in range(10):
        one = interface("eth0", number * 10_000_000)
        await site.client.post(beat("seldom", 3000 - 300 * number, one, interval_seconds=300))

    await page.goto("/")

    await expect(row(page, "seldom").get_by_role("img")).to_be_visible()
    path = await row(page, "seldom").locator("path.zero").get_attribute("d")
    assert path
    assert path.count("M") == 1


async def test_names_are_text_whatever_they_are(site: Served, page: Page) -> None:
    await tell(site, "nas", EVIL, hostname=EVIL)

    await page.goto("/")

    await expect(row(page, "nas").locator(".hostname")).to_have_text(EVIL)
    await expect(row(page, "nas").locator(".interface")).to_have_text(EVIL)
    await expect(row(page, "nas").get_by_role("img", name=f"{EVIL} of nas")).to_be_visible()
    assert await page.locator("tbody img").count() == 0


async def test_rates_are_in_bits_or_bytes_as_one_likes_and_stay_so(site: Served, page: Page) -> None:
    await tell(site, "nas", mbit=8)
    await page.goto("/")
    await expect(row(page, "nas").locator(".now")).to_contain_text("8.00\u00a0Mbit/s")

    await page.get_by_role("button", name="Rates in bits per second").click()

    await expect(row(page, "nas").locator(".now")).to_have_text("↓ 1.00\u00a0MB/s↑ 500\u00a0kB/s")
    await page.reload()
    await expect(row(page, "nas").locator(".now")).to_contain_text("1.00\u00a0MB/s")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_and_the_colours_are_the_ones_that_were_chosen(
    site: Served, contexts: Any, scheme: str
) -> None:
    await tell(site, "nas")
    await site.client.post(beat("pi", 1, interface("eth0", 1), interface("wlan0", 1, is_up=False)))
    context, _ = await contexts(color_scheme=scheme)
    page = await context.new_page()

    await page.goto("/")
    await expect(row(page, "nas").get_by_role("img")).to_be_visible()
    background = "getComputedStyle(document.body).backgroundColor"
    dark, light = "rgb(15, 20, 25)", "rgb(255, 255, 255)"
    assert await page.evaluate(background) == (dark if scheme == "dark" else light)
    assert await violations(page) == []
    await page.get_by_role("button", name="Add a machine").click()
    assert await violations(page) == []
    await page.get_by_role("button", name="Close").click()

    theme = page.get_by_role("button", name="Colours")
    await theme.click()
    assert await page.evaluate(background) == light
    await theme.click()
    assert await page.evaluate(background) == dark
    await page.reload()
    assert await page.evaluate(background) == dark


async def test_on_a_phone_nothing_is_cut_off(site: Served, contexts: Any) -> None:
    await tell(site, "a-server-with-quite-a-long-name.example")
    many = [interface(f"enp{number}s0f0np{number}", number) for number in range(6)]
    await site.client.post(beat("switch", 1, *many, primary_interface="enp1s0f0np1"))
    context, _ = await contexts(viewport=PHONE)
    page = await context.new_page()

    await page.goto("/")
    await expect(row(page, "switch").get_by_role("img").first).to_be_visible()

    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    for selector in (".status", ".server", ".interface", ".traffic", ".now"):
        box = await row(page, "switch").locator(f"> {selector}").bounding_box()
        assert box, selector
        assert box["x"] >= 0, selector
        assert box["x"] + box["width"] <= 360, selector
    assert await violations(page) == []


# Each server's state, and how long ago it was heard from.
STANDINGS = {
    "Up": 1,
    "Late 59 s": 59.2,
    "Silent 15 min": 905,
    "Silent 59 min": 3_545,
    "Silent 23 h": 83_000,
    "Silent 365 d": 365.2 * 86_400,
}
_IS_CUT = """
(cells) => cells.map((cell) => {
  const badge = cell.querySelector(".badge").getBoundingClientRect();
  const room = cell.getBoundingClientRect();
  return [cell.textContent, cell.scrollWidth > cell.clientWidth || badge.right > room.right || badge.left < room.left];
})
"""


@pytest.mark.parametrize("width", [360, 768, 800, 1024, 1120, 1300, 1440, 1600, 1920])
async def test_no_word_on_a_servers_state_is_cut(
    site: Served, database: asyncpg.Connection, contexts: Any, width: int
) -> None:
    for number, seconds in enumerate(STANDINGS.values()):
        await tell(site, f"mediaserver-{number}")
        await database.execute(
            "UPDATE servers SET received_at = now() - $1 * INTERVAL '1 second' WHERE server_id = $2",
            seconds, f"mediaserver-{number}",
        )  # fmt: skip
    await tell(site, "paused", status="paused")
    context, _ = await contexts(viewport={"width": width, "height": 800})
    page = await context.new_page()

    await page.goto("/")

    await expect(page.locator("tbody .status").first).to_have_text("Up")
    found = dict(await page.locator("tbody td.status").evaluate_all(_IS_CUT))
    assert {words.replace("\xa0", " ").partition(" ")[0] for words in found} == {"Up", "Late", "Silent", "Paused"}
    assert [words for words, is_cut in found.items() if is_cut] == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_five_hundred_servers_are_there_at_once_and_stay_fluid(site: Served, page: Page) -> None:
    names = [f"server-{number:03}" for number in range(500)]
    for ago, rx in ((40, 0), (10, 10_000_000)):
        beats = [
            beat(
                name,
                ago,
                *(interface(f"eth{place}", rx * (place + 1), rx) for place in range(4)),
                primary_interface="eth0",
            )
            for name in names
        ]
        answer = await site.client.post_batch(beats)
        assert answer["stored"] + answer["duplicate"] == 500, answer

    await page.goto("/")
    await expect(page.locator("tbody tr")).to_have_count(500, timeout=30_000)

    await expect(row(page, "server-000").get_by_role("img")).to_have_count(4)
    assert await row(page, "server-400").get_by_role("img").count() == 0, "what is out of view is not drawn"
    await row(page, "server-400").scroll_into_view_if_needed()
    await expect(row(page, "server-400").get_by_role("img")).to_have_count(4)
    # Of the processor: what a busy machine lets the page wait for is not its own.
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = await _spent(session)
    await page.evaluate(
        """() => { const filter = document.getElementById("filter");
             filter.value = "server-49"; filter.dispatchEvent(new Event("input"));
             document.body.getBoundingClientRect() }"""
    )
    spent = await _spent(session) - before
    assert await order(page) == names[490:500]
    assert 0 < spent < 0.25


async def _spent(session: CDPSession) -> float:
    """Seconds of processor that the page's thread has taken for scripts, styles and layout."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    named = {one["name"]: one["value"] for one in metrics}
    return float(named["ScriptDuration"] + named["LayoutDuration"] + named["RecalcStyleDuration"])
