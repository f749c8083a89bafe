"""Writes docs/images/: `make screenshots`, which is python -m docs.screenshots.

A service in this process and a browser look at a fleet that real heartbeats have told of (tests/helpers/showcase.py),
on a database of TEST_DATABASE_URL or the one that tests would have.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from benchmarks.harness import database
from service.embedded.choose import choose_test_database
from service.settings import Settings
from tests.browser.serving import REMEDY, Served, chromium, launched, served
from tests.helpers.showcase import machines, report
from tests.helpers.support import KEY, connected

IMAGES = Path(__file__).with_name("images")
MAX_BYTES = 250_000
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def main() -> int:
    """Prints what it writes."""
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots", description=__doc__)
    parser.add_argument("--to", type=Path, default=IMAGES, help="where to (default docs/images)")
    parser.add_argument("--days", type=float, default=6.8, help="of history (default %(default)s)")
    parser.add_argument("--phone", action="store_true", help="a phone's too, which the documentation does not show")
    parser.add_argument("--serve", action="store_true", help="keep the service running afterwards, to be looked at")
    given = parser.parse_args()
    program = chromium()
    if program is None:
        print(REMEDY, file=sys.stderr)
        return 1
    given.to.mkdir(parents=True, exist_ok=True)
    with (
        choose_test_database(os.environ.get("TEST_DATABASE_URL") or None, print) as server,
        database(server.url) as url,
        database(server.url) as empty_url,
    ):
        asyncio.run(_take(program, url, empty_url, given))
    return 0


async def _take(program: str, url: str, empty_url: str, given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(api_key=KEY, data_dir=directory)
        async with launched(program) as browser:
            async with served(empty_url, settings) as site:
                for scheme in ("light", "dark"):
                    await _shoot(browser, site, "/sign-in", f"sign-in-{scheme}", scheme, given.to, is_signed_in=False)
                    await _shoot(browser, site, "/", f"empty-{scheme}", scheme, given.to)
            async with served(url, settings) as site:
                await _tell(site, url, given.days)
                sizes = {"": WIDE} | ({"-phone": PHONE} if given.phone else {})
                for name, size in sizes.items():
                    for scheme in ("light", "dark"):
                        for page, path in (("fleet", "/?period=24h"), ("server", "/servers/mediaserver?period=24h")):
                            await _shoot(browser, site, path, f"{page}{name}-{scheme}", scheme, given.to, size=size)
                if given.serve:
                    print(f"{site.url} until Ctrl-C; the fleet key is {KEY}", flush=True)
                    with suppress(asyncio.CancelledError):
                        await asyncio.Event().wait()


async def _tell(site: Served, url: str, days: float) -> None:
    """Days of history, the last of them in minutes, and a heartbeat of now."""
    started = time.monotonic()
    end = datetime.now(UTC).replace(microsecond=0)
    fleet = machines()
    first = end - timedelta(days=days)
    parts = [
        (first, end - 25 * HOUR, 10 * MINUTE),
        (end - 25 * HOUR, end - HOUR, 2 * MINUTE),
        (end - HOUR, end + timedelta(seconds=1), timedelta(seconds=30)),
    ]
    told = sum([await report(site.client.http, fleet, max(first, a), b, end, c) for a, b, c in parts if b > first])
    await site.client.http.put(
        "/api/v1/servers/mediaserver/quota",
        json={"bytes": 10 * 10**12, "direction": "sum", "time_zone": "Europe/Berlin", "billing_day": 1},
    )
    # What is told of as long ago has been received now: but for the one that fell silent.
    async with connected(url) as connection:
        await connection.execute(
            "UPDATE servers SET received_at = last_seen WHERE last_seen < now() - INTERVAL '1 hour'"
        )
    print(f"{told} heartbeats in {time.monotonic() - started:.0f} s")


async def _shoot(
    browser: Browser, site: Served, path: str, name: str, scheme: str, to: Path, *, is_signed_in: bool = True,
    size: dict[str, int] = WIDE,
) -> None:  # fmt: skip
    options: dict[str, Any] = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
    context = await browser.new_context(base_url=site.url, **options)
    if is_signed_in:
        await context.add_cookies([site.cookie()])
    page = await context.new_page()
    page.on("pageerror", lambda error: print(f"{name}: {error}"))
    await page.goto(path)
    await _settle(page)
    if name.startswith("empty"):
        await page.get_by_role("button", name="Make a command").click()
        await page.get_by_role("button", name="Copy").first.wait_for()
    target = to / f"{name}.png"
    await page.screenshot(path=target, full_page=name.startswith("server"))
    await context.close()
    size_bytes = target.stat().st_size
    assert size_bytes < MAX_BYTES, f"{target} has {size_bytes} bytes"
    print(f"{target}: {size_bytes:,} bytes")


async def _settle(page: Page) -> None:
    """All that it fetches at first is there; the long poll goes on for ever."""
    await page.wait_for_timeout(1500)


if __name__ == "__main__":
    sys.exit(main())
