"""Chromium, driven by Playwright, and the service that it looks at: a browser for all tests, and for each a context, a
database and a service of its own. A test fails on anything that a page's console, policy or network has to complain of.
"""

import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from service.settings import Settings
from tests.browser.serving import REMEDY, Served, chromium, launched, served

# A busy machine takes seconds to open a page. What a test claims to be fast names a limit of its own.
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)
WIDE = {"width": 1280, "height": 800}
_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these share the browser's event loop."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(loop_scope="session")
async def site(database_url: str, settings: Settings) -> AsyncIterator[Served]:
    """The service on this test's database."""
    async with served(database_url, settings) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to this test's database, in the loop of these tests."""
    connection = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    # The same engine without a window around each page, for two thirds of the processor time.
    program = shutil.which("chromium-headless-shell") or chromium()
    if program is None:
        pytest.skip(REMEDY)
    async with launched(program) as started:
        yield started


@dataclass
class Complaints:
    """What a context's pages complained of; a test names beforehand what is part of it."""

    host: str
    found: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """Complaints that match are part of the test."""
        self.expected.append(pattern)

    def watch(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", self._on_request)

    def unexpected(self) -> list[str]:
        return [one for one in self.found if not any(re.search(pattern, one) for pattern in self.expected)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.host + "/", "data:", "blob:")):
            self.found.append(f"request to another host: {request.url}")


@pytest_asyncio.fixture(loop_scope="session")
async def contexts(browser: Browser, site: Served) -> AsyncIterator[Callable[..., Any]]:
    """Makes contexts: `await contexts(token_id=None, **options)`; as a rule signed in with the fleet key."""
    made: list[tuple[BrowserContext, Complaints]] = []

    async def make(token_id: str | None = "", **options: Any) -> tuple[BrowserContext, Complaints]:
        context = await browser.new_context(**({"viewport": WIDE, "base_url": site.url} | options))
        complaints = Complaints(site.url)
        context.set_default_timeout(PATIENCE_MS)
        context.on("page", complaints.watch)
        await context.add_init_script(_VIOLATIONS)
        if token_id is not None:
            await context.add_cookies([site.cookie(token_id)])
        made.append((context, complaints))
        return context, complaints

    yield make
    for context, _ in made:
        await context.close()
    for _, complaints in made:
        assert complaints.unexpected() == []


@pytest_asyncio.fixture(loop_scope="session")
async def context(contexts: Callable[..., Any]) -> tuple[BrowserContext, Complaints]:
    made: tuple[BrowserContext, Complaints] = await contexts()
    return made


@pytest.fixture
def complaints(context: tuple[BrowserContext, Complaints]) -> Complaints:
    """Those of `page`."""
    return context[1]


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: tuple[BrowserContext, Complaints]) -> Page:
    """A page of a browser that is signed in with the fleet key: `await page.goto("/")`."""
    return await context[0].new_page()
