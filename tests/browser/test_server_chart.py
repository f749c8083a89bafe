"""The page of a server that nothing happens to: its chart, its sums, and how it is found by keyboard and on a phone."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from service.settings import Settings
from tests.browser.conftest import Complaints
from tests.browser.machines import GAP, nas
from tests.browser.server_page import NOTHING, PLOT, bytes_of, opened, said, zoom
from tests.browser.serving import Served, served, violations
from tests.conftest import Clones, with_database
from tests.helpers.support import KEY


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def site(database_server: str, clones: Clones, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One service for all of these tests, which look at what there is: `nas`."""
    name = await clones.take()
    settings = Settings(api_key=KEY, data_dir=str(tmp_path_factory.mktemp("data")))
    async with served(with_database(database_server, name), settings) as one:
        yield one
    clones.give_back(name)


@pytest_asyncio.fixture(loop_scope="session", scope="module", autouse=True)
async def last(site: Served) -> datetime:
    """When its last heartbeat was."""
    return await nas(site, minutes=150)


async def test_totals_of_today_and_this_month_in_the_readers_zone_are_what_the_api_says(
    site: Served, contexts: Any
) -> None:
    zone = "Pacific/Auckland"
    context, _ = await contexts(timezone_id=zone)
    page = await opened(await context.new_page())

    whole = await site.client.get("/usage/nas", time_zone=zone)
    for row, name in enumerate(("eth0", "eth1", "eth2", "wg0")):
        stats = await site.client.get(f"/servers/nas/interfaces/{name}/stats", time_zone=zone)
        for cell, span in ((3, "today"), (4, "month")):
            shown = page.locator("#interfaces tbody tr").nth(row).locator("td").nth(cell).locator(".value")
            for value, field in zip(await shown.all_inner_texts(), ("rx_bytes", "tx_bytes"), strict=True):
                assert bytes_of(value) == pytest.approx(stats[span][field], rel=0.005, abs=0.5), (name, span, field)
    month = await page.locator("#figure-month .value").all_inner_texts()
    assert [bytes_of(one) for one in month] == [
        pytest.approx(whole["month"][field], rel=0.005) for field in ("rx_bytes", "tx_bytes")
    ]


async def test_the_period_is_switched_by_keyboard_and_kept_in_the_address(site: Served, page: Page) -> None:
    await opened(page)
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", re.compile("9[56]"))

    await page.get_by_role("radio", name="24h").focus()
    await page.keyboard.press("ArrowLeft")

    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", "59")
    assert page.url.endswith("/servers/nas?period=1h")
    await page.reload()
    await expect(page.get_by_role("radio", name="1h")).to_be_checked()
    await page.get_by_role("combobox", name="Interface").select_option("eth1")
    await expect(page).to_have_url(re.compile("period=1h&interface=eth1"))
    for period in ("7d", "30d", "1y"):
        await page.locator("#period").get_by_text(period).click()
        await expect(page).to_have_url(re.compile(f"period={period}&interface=eth1"))
        await expect(page.locator("#summary")).to_contain_text("received, at most")
    await page.go_back()
    await expect(page.get_by_role("radio", name="30d")).to_be_checked()


async def test_hovering_gives_the_exact_values_of_the_bucket(site: Served, page: Page) -> None:
    await opened(page, "/servers/nas?interface=eth0")
    plot = await page.locator(".u-over").bounding_box()
    assert plot

    await page.mouse.move(plot["x"] + plot["width"] - 20, plot["y"] + 50)

    data = (await site.client.get("/metrics/sparkline/nas/network", period="24h", interface="eth0"))["data"]
    octets = {f"{one['rx_bytes']:_}".replace("_", "\u202f") for one in data[-3:]}
    tip = await page.locator(".tip").inner_text()
    assert any(f"{one}\u00a0B" in tip or f"{one} B" in tip for one in octets), (tip, octets)
    await page.mouse.move(5, 5)
    await expect(page.locator(".tip")).to_be_hidden()


async def test_the_chart_is_read_and_zoomed_by_keyboard_alone(site: Served, page: Page) -> None:
    await opened(page)
    plot = page.locator(PLOT)

    await page.locator("#whole").evaluate("(button) => document.getElementById('interface').focus()")
    for _ in range(12):
        await page.keyboard.press("Tab")
        if await plot.evaluate("(plot) => plot === document.activeElement"):
            break
    newest = await said(page)
    assert re.search(r"received 1\.\d+\sMbit/s, [\d\u202f]+\sB, sent", newest), newest
    await page.keyboard.press("ArrowLeft")
    assert await said(page) != newest
    await page.keyboard.press("Home")
    assert f"received {NOTHING}" in await said(page)
    await page.keyboard.press("End")
    await page.keyboard.press("PageDown")
    await page.keyboard.press("PageUp")
    async with page.expect_response(lambda answer: "/traffic/history" in answer.url and "bucket=1m" in answer.url):
        for _ in range(2):
            await page.keyboard.press("+")
    await expect(page).to_have_url(re.compile("since=.*&until="))
    await expect(page.locator("#whole")).to_be_visible()
    before = page.url
    await page.keyboard.press("-")
    await expect(page).not_to_have_url(before)
    await page.keyboard.press("Escape")
    await expect(page).to_have_url(re.compile("/servers/nas$"))
    await expect(plot).to_be_focused()


async def test_dragging_zooms_in_and_brings_finer_data(site: Served, page: Page) -> None:
    await opened(page)
    plot = await page.locator(".u-over").bounding_box()
    assert plot
    assert "bucket" not in page.url

    async with page.expect_response(lambda answer: "/traffic/history" in answer.url) as answer:
        await page.mouse.move(plot["x"] + plot["width"] * 0.94, plot["y"] + 40)
        await page.mouse.down()
        await page.mouse.move(plot["x"] + plot["width"] * 0.99, plot["y"] + 90, steps=4)
        await page.mouse.up()

    history = await (await answer.value).json()
    assert history["bucket_seconds"] == 60
    assert {one["interface"] for one in history["data"]} == {None}
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", re.compile("^[67][0-9]$"))
    await page.get_by_role("button", name="Whole period").click()
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", "95")
    await page.go_back()
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", re.compile("^[67][0-9]$"))
    await page.mouse.dblclick(plot["x"] + plot["width"] / 2, plot["y"] + 40)
    await expect(page).to_have_url(re.compile("/servers/nas$"))


# How many pixels of a column of the plot, so far from its left (0 to 1), have the colour of what was received.
_COLOURED = """
(share) => {
  const over = document.querySelector(".u-over").getBoundingClientRect();
  const canvas = document.querySelector(".plot canvas");
  const box = canvas.getBoundingClientRect();
  const x = Math.round(over.left - box.left + over.width * share);
  const {data} = canvas.getContext("2d").getImageData(x, 0, 1, canvas.height);
  let found = 0;
  // Teal over white: less red than green by far.
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 0 && data[at + 1] - data[at] > 20) found += 1;
  return found;
}
"""


async def test_a_gap_is_drawn_as_a_gap_and_said(last: datetime, page: Page, complaints: Complaints) -> None:
    complaints.expect("willReadFrequently")
    await opened(page, zoom(last, 80, 30))

    await expect(page.locator("#events .gap")).to_contain_text(re.compile(r"No data from .* to .*, 14\smin\."))
    for share, is_there in (((80 - 70) / 50, True), ((80 - sum(GAP) / 2) / 50, False), ((80 - 35) / 50, True)):
        assert (await page.evaluate(_COLOURED, share) > 20) is is_there, share
    await page.locator(PLOT).focus()
    await page.keyboard.press("Home")
    for _ in range(80 - GAP[0] + 3):
        await page.keyboard.press("ArrowRight")
    assert re.search(f"received {NOTHING}, sent {NOTHING}, no data", await said(page))
    for _ in range(GAP[0] - GAP[1] - 3):
        await page.keyboard.press("ArrowRight")
    # All that crossed it is there, and its rate is no peak.
    assert re.search(r"received 1\.10\sMbit/s, 127\u202f875\u202f000\sB.*all traffic of the gap", await said(page))


async def test_the_same_numbers_are_there_as_a_table(site: Served, page: Page) -> None:
    await opened(page, "/servers/nas?interface=eth0")

    await page.get_by_text("Data table").click()

    await expect(page.locator("#numbers-caption")).to_contain_text("Traffic of eth0, in buckets of 15\u00a0min")
    data = (await site.client.get("/metrics/sparkline/nas/network", period="24h", interface="eth0"))["data"]
    cells = await page.locator("#numbers tbody td:nth-child(4)").all_inner_texts()
    told = [int(text.replace("\u202f", "")) for text in cells if text != NOTHING]
    assert told == [one["rx_bytes"] for one in reversed(data)]


async def test_an_interface_is_chosen_in_the_table_and_says_more(site: Served, page: Page) -> None:
    await opened(page)

    await page.get_by_role("link", name="eth1").focus()
    await page.keyboard.press("Enter")

    await expect(page).to_have_url(re.compile(r"\?interface=eth1$"))
    await expect(page.get_by_role("combobox", name="Interface")).to_have_value("eth1")
    await expect(page.locator("#detail")).to_contain_text(re.compile(r"State\s*up.*Today.*MB", re.DOTALL))
    await expect(page.get_by_role("link", name="eth1")).to_have_attribute("aria-current", "true")


async def test_it_fits_a_phone_and_has_nothing_that_axe_finds_in_either_colours(site: Served, page: Page) -> None:
    await opened(page, "/servers/nas?interface=eth0")
    for opening in ("Data table", "Set a quota", "Picture link"):
        await page.get_by_text(opening).click()
    await expect(page.locator("#numbers tbody tr")).not_to_have_count(0)

    for width in (1280, 360):
        await page.set_viewport_size({"width": width, "height": 740})
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_the_link_to_a_picture_needs_no_token(site: Served, contexts: Any) -> None:
    context, _ = await contexts(permissions=["clipboard-read", "clipboard-write"])
    page = await opened(await context.new_page(), "/servers/nas?period=7d&interface=eth0")

    await page.get_by_text("Picture link").click()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    await page.keyboard.press("Enter")
    await page.get_by_label("Colours system setting").select_option("dark")
    await page.get_by_role("button", name="Copy link").click()

    await expect(page.locator("#picture-words")).to_have_text("Copied.")
    link = await page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"/nas/network\.svg\?.*interface=eth0.*period=7d.*theme=dark", link), link
    picture = await site.client.http.get(link, headers={"Authorization": ""})
    assert (picture.status_code, picture.headers["content-type"].split(";")[0]) == (200, "image/svg+xml")


async def test_an_unknown_server_is_said_to_be_unknown(page: Page, complaints: Complaints) -> None:
    complaints.expect("status of 404")

    await page.goto("/servers/nobody")

    await expect(page.locator("#unknown")).to_contain_text("No server with this name has sent a heartbeat.")
    await expect(page.locator("#known")).to_be_hidden()
    assert await violations(page) == []
