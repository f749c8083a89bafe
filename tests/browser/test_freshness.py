"""shared/freshness.js, which asks for what every page shows; by a clock that the tests set forward themselves."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

# A task of a page: `asked` counts its requests, `fail` is what the next ones throw, `hold` keeps them waiting.
_BEGIN = """
async (everySeconds) => {
  const { ApiError } = await import("/static/js/shared/api.js");
  const { Freshness } = await import("/static/js/shared/freshness.js");
  const line = document.createElement("p");
  line.hidden = true;
  document.body.append(line);
  const fresh = new Freshness(line);
  const test = { asked: 0, aborted: 0, shown: 0, ticks: 0, fail: null, hold: false, line, fresh, ApiError };
  test.task = fresh.task(async (signal) => {
    test.asked += 1;
    signal.addEventListener("abort", () => { test.aborted += 1; });
    if (test.fail) throw test.fail;
    if (test.hold) await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    test.shown += 1;
  }, everySeconds);
  fresh.tick(() => { test.ticks += 1; });
  window.test = test;
  test.task.soon();
}
"""
_SEE = """
(isSeen) => {
  Object.defineProperty(document, "hidden", { value: !isSeen, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""

Begun = Callable[[float | None], Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def begun(contexts: Any) -> Begun:
    """`await begun(every_seconds)`: a page with the task, which has been answered once."""

    async def begin(every_seconds: float | None) -> Page:
        context, complaints = await contexts(token_id=None, locale="en-GB", timezone_id="UTC")
        complaints.expect("a fault of the test's own")
        page: Page = await context.new_page()
        await page.goto("/sign-in")
        await page.clock.install()
        await page.clock.pause_at("2030-01-01T12:00:00")
        await page.evaluate(_BEGIN, every_seconds)
        await page.clock.run_for(1)
        assert await asked(page) == 1
        return page

    return begin


async def asked(page: Page) -> int:
    return int(await page.evaluate("test.asked"))


async def line(page: Page) -> str:
    """What the page says; "" where it says nothing."""
    return str(await page.evaluate("test.line.hidden ? '' : test.line.textContent"))


async def test_it_asks_again_so_long_after_an_answer(begun: Begun) -> None:
    page = await begun(5)

    await page.clock.run_for(4_900)
    assert await asked(page) == 1
    await page.clock.run_for(200)
    assert await asked(page) == 2
    assert await line(page) == ""


async def test_what_is_not_periodic_is_asked_for_once(begun: Begun) -> None:
    page = await begun(None)

    await page.clock.run_for(600_000)

    assert await asked(page) == 1


async def test_after_failures_the_pauses_grow_and_the_page_says_how_old_its_data_is(begun: Begun) -> None:
    page = await begun(5)
    await page.evaluate("test.fail = new test.ApiError(0, 'unreachable', 'The service does not respond')")

    await page.clock.run_for(5_000)
    said = await line(page)
    pauses = []
    for _ in range(6):
        before, pause = await asked(page), 0.0
        while await asked(page) == before:
            await page.clock.run_for(500)
            pause += 0.5
        pauses.append(pause)

    assert said == "The service does not respond. Showing data from 12:00. Retrying automatically."
    assert pauses == [1, 2, 4, 8, 10, 10]
    await page.evaluate("test.fail = null")
    await page.clock.run_for(10_000)
    assert await line(page) == ""
    before = await asked(page)
    await page.evaluate("test.fail = new test.ApiError(0, 'unreachable', 'The service does not respond')")
    await page.clock.run_for(6_000)
    assert await asked(page) == before + 2, "after an answer, the pauses begin again at the shortest"


async def test_retry_after_is_waited_for_and_what_scrolls_by_does_not_shorten_it(begun: Begun) -> None:
    page = await begun(None)
    await page.evaluate("test.fail = new test.ApiError(503, 'database_unavailable', 'the database did not answer', 30)")
    await page.evaluate("test.task.soon()")
    await page.clock.run_for(1)
    assert await line(page) == (
        "The service cannot reach its database. Showing data from 12:00. Retrying automatically."
    )

    await page.evaluate("test.task.soon(1)")
    await page.clock.run_for(29_000)
    assert await asked(page) == 2
    await page.clock.run_for(1_100)
    assert await asked(page) == 3


async def test_a_fault_of_the_pages_own_is_said_and_logged(begun: Begun) -> None:
    page = await begun(5)
    await page.evaluate("test.fail = new TypeError('a fault of the test\\'s own')")

    await page.clock.run_for(5_000)

    assert (await line(page)).startswith("This page could not display the response.")


async def test_what_the_reader_changes_takes_the_place_of_the_request_under_way(begun: Begun) -> None:
    page = await begun(None)
    await page.evaluate("test.hold = true; test.task.restart()")
    await page.clock.run_for(1)
    assert await page.evaluate("[test.asked, test.aborted, test.shown]") == [2, 0, 1]

    await page.evaluate("test.hold = false; test.task.restart()")
    await page.clock.run_for(1)

    assert await page.evaluate("[test.asked, test.aborted, test.shown]") == [3, 1, 2]
    assert await line(page) == "", "an aborted request is no failure"


async def test_while_nobody_sees_the_page_nothing_is_asked_and_afterwards_it_is_at_once(begun: Begun) -> None:
    page = await begun(5)
    await page.evaluate("test.hold = true")
    await page.clock.run_for(5_000)
    assert await page.evaluate("[test.asked, test.aborted]") == [2, 0]

    await page.evaluate(_SEE, False)
    ticks = await page.evaluate("test.ticks")
    await page.clock.run_for(60_000)
    assert await page.evaluate("[test.asked, test.aborted, test.ticks]") == [2, 1, ticks]
    await page.evaluate("test.hold = false")
    await page.evaluate(_SEE, True)
    await page.clock.run_for(1)

    assert await page.evaluate("[test.asked, test.shown]") == [3, 2]
    await page.clock.run_for(1_000)
    assert await page.evaluate("test.ticks") > ticks


async def test_when_the_network_is_back_it_asks_at_once(begun: Begun) -> None:
    page = await begun(5)
    await page.evaluate("test.fail = new test.ApiError(0, 'unreachable', 'The service does not respond', 300)")
    await page.clock.run_for(5_000)
    assert await line(page) != ""

    await page.evaluate("test.fail = null; dispatchEvent(new Event('online'))")
    await page.clock.run_for(1)

    assert await line(page) == ""


async def test_a_page_that_has_stopped_asks_nothing_and_says_nothing(begun: Begun) -> None:
    page = await begun(5)
    await page.evaluate("test.fail = new test.ApiError(0, 'unreachable', 'The service does not respond')")
    await page.clock.run_for(5_000)

    await page.evaluate("test.fresh.stop()")
    before = await asked(page)
    await page.clock.run_for(60_000)

    assert await asked(page) == before
    assert await line(page) == ""
