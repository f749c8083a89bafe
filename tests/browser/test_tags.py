"""Names and tags on the fleet page: shown, filtered and grouped by, and changed elsewhere meanwhile."""

import asyncio
import os
import time
from pathlib import Path

from playwright.async_api import Page, expect

from tests.browser.fleet_page import order, row, tell
from tests.browser.serving import Served, violations

TAGS = {"web-1": ["site=home", "edge"], "web-2": ["site=attic"], "db": ["site=home"], "pi": []}


async def shoot(page: Page, name: str) -> None:
    if directory := os.environ.get("LINKBEAT_SCREENSHOTS"):
        await page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)


async def fleet(site: Served) -> None:
    for server_id, tags in TAGS.items():
        await tell(site, server_id, mbit=8, tags=tags)


async def test_the_fleet_is_grouped_by_a_tag_with_totals_and_filtered_by_a_group(site: Served, page: Page) -> None:
    await fleet(site)
    await page.goto("/")
    await expect(row(page, "web-1")).to_contain_text("site=home")

    await page.get_by_label("Group by a tag").select_option("site")

    groups = page.locator("#group-rows tr")
    await expect(groups).to_have_count(3)
    assert [" ".join((await one.inner_text()).split()) for one in await groups.all()] == [
        "site=attic 1 0 ↓ 8.00 Mbit/s ↑ 4.00 Mbit/s", "site=home 2 0 ↓ 16.0 Mbit/s ↑ 8.00 Mbit/s",
        "without site 1 0 ↓ 8.00 Mbit/s ↑ 4.00 Mbit/s",
    ]  # fmt: skip
    await shoot(page, "fleet-groups")
    assert await violations(page) == []
    assert "group=site" in page.url
    await page.get_by_role("button", name="site=home").click()
    await expect(page.get_by_label("Filter servers")).to_have_value("site=home")
    assert [name for name in await order(page) if name] == ["db", "web-1"]
    await page.reload()
    await expect(page.get_by_label("Group by a tag")).to_have_value("site")
    await page.set_viewport_size({"width": 360, "height": 740})
    await shoot(page, "fleet-groups-phone")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_a_name_that_somebody_gives_a_server_shows_without_a_heartbeat(site: Served, page: Page) -> None:
    await fleet(site)
    async with page.expect_request(lambda request: "since=" in request.url):
        await page.goto("/")
    await expect(row(page, "pi")).to_be_visible()
    await asyncio.sleep(0.5)
    started = time.monotonic()

    await site.client.http.put("/api/v1/servers/pi/labels", json={"display_name": "Weather station", "tags": ["edge"]})

    await expect(row(page, "pi").get_by_role("link")).to_have_text("Weather station")
    took = time.monotonic() - started
    await expect(row(page, "pi")).to_contain_text("pi · edge")
    # A heartbeat is half a minute away: it is not what the page learns it from. `make bench-page` measures how soon.
    assert took < 15, f"{took:.1f} s"
    await page.get_by_label("Filter servers").fill("weather")
    await expect(row(page, "pi")).to_be_visible()
    await expect(row(page, "db")).to_have_count(0)
    await row(page, "pi").get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Weather station")
    await page.get_by_role("main").get_by_role("link", name="Manage").click()
    await expect(page.get_by_label("Display name")).to_have_value("Weather station")
