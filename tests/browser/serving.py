"""What tests, screenshots and benchmarks of the dashboard share: the service in this process, and Chromium."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from playwright.async_api import Browser, Page, async_playwright

from service.access.keys import secret_key
from service.access.sessions import Sessions
from service.app import Linkbeat, create_app
from service.http.connections import Connections
from service.http.limits import ClientAddress
from service.http.listen import listen
from service.http.protocol import protocol
from service.settings import Settings
from tests.helpers.support import KEY, Client

STOP_SECONDS = 10.0
# For the list below an address bar that nobody sees, a window loads two pages in a process of their own, which costs
# more than the page of the test. The other features are those of Playwright's switch, which this one replaces.
_DISABLED = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup",
    "AimEnabled", "AvoidCorsURLLoaderRestartOnRedirect", "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose", "HttpsFirstBalancedModeAutoEnable", "HttpsUpgrades", "LensOverlay", "MediaRouter",
    "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding", "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
)  # fmt: skip
REMEDY = "there is no Chromium to look at the dashboard with: apt install chromium"
_AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))


@dataclass
class Served:
    """A service in this process, on a real port; `client` posts and gets with the fleet key."""

    url: str
    settings: Settings
    client: Client
    app: Linkbeat
    server: uvicorn.Server
    task: "asyncio.Task[None]"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def cookie(self, token_id: str = "") -> Any:
        """Of a session of that token; of the fleet key."""
        sessions = Sessions(secret_key(self.settings), KEY)
        return {"name": sessions.cookie, "value": sessions.start(token_id), "url": self.url, "httpOnly": True}

    async def stop(self) -> None:
        """As service.server does it."""
        self.app.end_waits()
        self.server.should_exit = True
        await asyncio.wait_for(self.task, STOP_SECONDS)


@contextlib.asynccontextmanager
async def served(database_url: str, settings: Settings, port: int = 0) -> AsyncIterator[Served]:
    """The service, until the end or `stop`. With `port`, one may follow another."""
    app = create_app(settings, database_url=database_url, key=KEY)
    config = uvicorn.Config(
        app, http=protocol(Connections(2_000, ClientAddress(()), 2_000), app.direct),
        ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
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
            one = Served(url, settings, Client(http), app, server, task)
            try:
                yield one
            finally:
                await one.stop()


def chromium() -> str | None:
    """The program, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.asynccontextmanager
async def launched(program: str) -> AsyncIterator[Browser]:
    """The browser, headless. As root, its own sandbox refuses to start; proxies of the environment do not know us."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--no-proxy-server", "--disable-gpu", f"--disable-features={','.join(_DISABLED)}"],
        )
        try:
            yield browser
        finally:
            await browser.close()


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
