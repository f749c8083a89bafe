"""What tests of a server's page share: opening it, and reading what it says."""

import re
from datetime import datetime

from playwright.async_api import Page, expect

from tests.browser.machines import MINUTE

PLOT = ".plot"
NOTHING = "\u2013"


async def opened(page: Page, address: str = "/servers/nas") -> Page:
    """The page, with its chart and its totals drawn."""
    await page.goto(address)
    await expect(page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    await expect(page.locator(".plot canvas")).to_be_visible()
    await expect(page.locator("#note-today")).not_to_be_empty()
    return page


async def said(page: Page) -> str:
    """What a screen reader hears of the bucket that is selected in the chart."""
    return str(await page.locator(PLOT).get_attribute("aria-valuetext"))


def bytes_of(text: str) -> float:
    """ "1.54 GB" as a number."""
    matched = re.fullmatch(r"([\d.]+)\s(\w?)B", text)
    assert matched, text
    return float(matched[1]) * float(1000 ** " kMGTPE".index(matched[2] or " "))


def zoom(last: datetime, since_minutes: int, until_minutes: int) -> str:
    """The address of the chart between two moments before the last heartbeat."""
    since, until = (f"{last - minutes * MINUTE:%Y-%m-%dT%H:%M:%SZ}" for minutes in (since_minutes, until_minutes))
    return f"/servers/nas?since={since}&until={until}"
