"""Chromium, driven by Playwright, and the service that it looks at: a browser for all tests, and for each a context, a
database and a service of its own. A test fails on anything that a page's console, policy or network has to complain of.
"""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

from service.app import create_app
from service.keys import secret_key
from service.listen import listen
from service.server import Protocol
from service.settings import Settings
from service.web.sessions import Sessions
from tests.support import KEY, Client

_AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
STOP_SECONDS = 10.0
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


@dataclass
class Served:
    """A service in this process, on a real port.

    client   who posts and gets with the fleet key
    cookie   of a session of the fleet key
    """

    url: str
    settings: Settings
    client: Client
    server: uvicorn.Server
    task: "asyncio.Task[None]"

    def cookie(self, token_id: str = "") -> dict[str, Any]:
        sessions = Sessions(secret_key(self.settings), KEY)
        return {"name": sessions.cookie, "value": sessions.start(token_id), "url": self.url, "httpOnly": True}

    async def stop(self) -> None:
        self.server.should_exit = True
        await asyncio.wait_for(self.task, STOP_SECONDS)


@contextlib.asynccontextmanager
async def served(database_url: str, settings: Settings, port: int = 0) -> AsyncIterator[Served]:
    """The service, until the end or `stop`. With `port`, one may follow another."""
    app = create_app(settings, database_url=database_url, key=KEY)
    config = uvicorn.Config(
        app, http=Protocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    with listen("127.0.0.1", port) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]  # the runner's own
        task = asyncio.create_task(server.serve([listener]))
        async with httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=20
        ) as http:
            while not server.started:
                assert not task.done(), "the service ended by itself"
                await asyncio.sleep(0.01)
            one = Served(url, settings, Client(http), server, task)
            try:
                yield one
            finally:
                await one.stop()


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
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium to look at the dashboard with: apt install chromium")
    async with async_playwright() as playwright:
        # As root, Chromium's own sandbox refuses to start. Without the proxies of the environment: the service is here.
        started = await playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--no-proxy-server", "--disable-gpu"]
        )
        yield started
        await started.close()


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
        context.set_default_timeout(5_000)
        context.on("page", complaints.watch)
        await context.add_init_script(_VIOLATIONS)
        if token_id is not None:
            await context.add_cookies([site.cookie(token_id)])  # type: ignore[list-item]
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


@cache
def axe_core() -> str:
    """Its source; what it evaluates to is nothing that would have to be sent back."""
    return _AXE.read_text(encoding="utf-8") + ";0"


async def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it is now; [] is what a test expects."""
    # By the protocol, which the page's policy does not hold for.
    await page.evaluate(axe_core())
    result = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in result["violations"]
        for node in one["nodes"]
    ]
