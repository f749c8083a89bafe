"""The fleet page from second to second: what changes, what falls silent, and what happens when nobody answers."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from itertools import count

import asyncpg
from playwright.async_api import Page, expect

from service.settings import Settings
from tests.browser.conftest import Complaints
from tests.browser.fleet_page import go_on, order, row, tell
from tests.browser.serving import Served, served
from tests.helpers.durations import fastest_of
from tests.helpers.support import connected


def a_new_one(through: Served, page: Page) -> Callable[[], Awaitable[None]]:
    """Tells of one server more, until the page shows it."""
    numbers = count()

    async def shows() -> None:
        name = f"new-{next(numbers)}"
        await tell(through, name, mbit=1)
        await expect(row(page, name)).to_be_visible()

    return shows


async def test_a_heartbeat_shows_within_two_seconds_from_whichever_process(
    site: Served, page: Page, database_url: str, settings: Settings
) -> None:
    await tell(site, "nas", mbit=8)
    await page.goto("/")
    await expect(row(page, "nas").locator(".now")).to_contain_text("8.00")

    async with served(database_url, settings) as other:
        for through, first in ((site, 80), (other, 16)):
            mbit = count(first)

            async def shows(through: Served = through, mbit: Iterator[int] = mbit) -> None:
                await go_on(through, "nas", now := next(mbit))
                await expect(row(page, "nas").locator(".now")).to_contain_text(f"{now}.0\u00a0Mbit/s")

            seconds = await fastest_of(shows, within=2)
            print(f"a heartbeat showed after {seconds:.2f} s")
            assert seconds < 2
        assert await fastest_of(a_new_one(other, page), within=2.5) < 2.5


async def test_late_and_silent_are_told_by_the_servers_own_interval(
    site: Served, page: Page, database: asyncpg.Connection
) -> None:
    for name in ("up", "late", "silent", "slow"):
        await tell(site, name, interval_seconds=3600 if name == "slow" else 30)
    for name, seconds in (("late", 60), ("silent", 7200), ("slow", 4000)):
        await database.execute(
            "UPDATE servers SET received_at = now() - $2 * INTERVAL '1 second' WHERE server_id = $1",
            name,
            float(seconds),
        )

    await page.goto("/?sort=status")

    await expect(row(page, "up").locator(".status")).to_have_text("Up")
    await expect(row(page, "late").locator(".status")).to_contain_text("Late 1\u00a0min")
    await expect(row(page, "silent").locator(".status")).to_have_text("Silent 2\u00a0h")
    await expect(row(page, "silent").locator(".now")).to_have_text("\u2013")
    await expect(row(page, "slow").locator(".status")).to_have_text("Up")
    await expect(page.get_by_text("4 servers · 1 silent · 1 late")).to_be_visible()
    assert (await order(page))[:2] == ["silent", "late"]


async def test_when_the_service_is_away_the_page_says_so_and_recovers(
    site: Served, page: Page, complaints: Complaints, database_url: str, settings: Settings
) -> None:
    complaints.expect("ERR_CONNECTION|ERR_EMPTY|ERR_INCOMPLETE")
    await tell(site, "nas", mbit=8)
    await page.goto("/")
    await expect(row(page, "nas")).to_be_visible()
    stale = page.get_by_text("The service does not respond.")
    assert not await stale.is_visible()

    await site.stop()
    await expect(stale).to_be_visible()
    await expect(stale).to_contain_text(re.compile(r"Showing data from \d\d:\d\d.*Retrying automatically"))
    await expect(row(page, "nas")).to_be_visible()

    async with served(database_url, settings, site.port) as again:
        await go_on(again, "nas", mbit=16)
        await expect(stale).to_be_hidden()
        await expect(row(page, "nas").locator(".now")).to_contain_text("16.0")


async def test_when_the_database_is_away_the_page_says_so_and_recovers(
    site: Served, page: Page, complaints: Complaints, database_url: str, database_server: str
) -> None:
    complaints.expect("status of 503")
    await tell(site, "nas", mbit=8)
    await page.goto("/")
    await expect(row(page, "nas")).to_be_visible()
    async with connected(database_url) as own:
        name = await own.fetchval("SELECT current_database()")

    async with connected(database_server) as server:
        await server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        stale = page.get_by_text("The service cannot reach its database.")
        await expect(stale).to_be_visible()
        await expect(row(page, "nas")).to_be_visible()
        await server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")

    await expect(stale).to_be_hidden()
    await expect(row(page, "nas").locator(".status")).to_have_text("Up")


async def test_while_nobody_sees_it_it_asks_nothing(site: Served, page: Page) -> None:
    await tell(site, "nas")
    asked: list[str] = []
    await page.goto("/")
    await expect(row(page, "nas").get_by_role("img")).to_be_visible()
    hide = (
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')) }"
    )

    await page.evaluate(hide, True)
    page.on("request", lambda request: asked.append(request.url))
    await asyncio.sleep(2.5)
    assert asked == []
    await page.evaluate(hide, False)

    assert await fastest_of(a_new_one(site, page), within=2.5) < 2.5
    assert asked


async def test_a_session_that_has_ended_leads_to_the_sign_in_page_and_back(
    site: Served, page: Page, complaints: Complaints
) -> None:
    complaints.expect("status of 401")
    await tell(site, "nas")
    await page.goto("/?period=24h")
    await expect(row(page, "nas")).to_be_visible()

    await page.context.clear_cookies()

    await page.wait_for_url("**/sign-in?back=*")
    await page.get_by_label("Token").fill(site.settings.api_key)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/?period=24h")
    await expect(row(page, "nas")).to_be_visible()
