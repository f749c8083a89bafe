"""make bench-page: the fleet page with 500 servers of four interfaces: its first paint, bytes on the wire, and how soon
a change shows. BENCH="--servers 10000 --hours 0.05" for a large fleet.

The service runs as a process on a database of TEST_DATABASE_URL, or of the one that tests would have; a browser that
has nothing of it yet opens the page, as often as asked. Everything counts that it fetches until the first screen is
complete: the rows in view with their rates, peaks and sparklines.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from playwright.async_api import Browser, Page

from benchmarks.harness import KEY, database, machine, service
from service.embedded.choose import choose_test_database
from tests.browser.serving import REMEDY, chromium, launched
from tests.helpers.showcase import Link, Machine, report

FIRST_PAINT_MS = 1_000
WIRE_BYTES = 300_000
CHANGE_MS = 2_000
# The rows of the first screen are complete when their sparklines are drawn: fleet/sparklines.js sets `drawn`.
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_WHEN = """
new Promise((resolve) => {{
  const look = () => {} ? resolve(performance.now()) : requestAnimationFrame(look);
  look();
}})
"""
_ROWS = _WHEN.format('document.querySelector("tbody tr")')
_COMPLETE = _WHEN.format("document.documentElement.dataset.drawn !== undefined")


@dataclass
class Opened:
    """One opening of the page: in milliseconds since the navigation, and what came over the wire."""

    paint_ms: float
    rows_ms: float
    complete_ms: float
    wire_bytes: int
    requests: int
    change_ms: float  # from the request that names a server to its name in the page


def main() -> int:
    """Prints the figures; 1 where one is beyond its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--servers", type=int, default=500)
    parser.add_argument("--times", type=int, default=5, help="how often the page is opened (default %(default)s)")
    parser.add_argument("--hours", type=float, default=1.0, help="of history, a minute apart (default %(default)s)")
    parser.add_argument("--period", default="1h")
    given = parser.parse_args()
    program = chromium()
    if program is None:
        print(REMEDY, file=sys.stderr)
        return 1
    print(machine())
    with (
        choose_test_database(os.environ.get("TEST_DATABASE_URL") or None, print) as server,
        database(server.url) as url,
        service(url) as running,
    ):
        return asyncio.run(_measure(program, running.base, given))


async def _measure(program: str, base: str, given: argparse.Namespace) -> int:
    await _fill(base, given.servers, given.hours)
    async with launched(program) as browser:
        await _open(browser, base, given.period)  # what the service and the database make once
        found = [await _open(browser, base, given.period) for _ in range(given.times)]
    paint, rows, complete = (
        statistics.median(getattr(one, name) for one in found) for name in ("paint_ms", "rows_ms", "complete_ms")
    )
    change = max(one.change_ms for one in found)
    wire = max(one.wire_bytes for one in found)
    print(
        f"{given.servers} servers x 4 interfaces, {given.period}: first paint {paint:.0f} ms, "
        f"first rows {rows:.0f} ms, first screen complete {complete:.0f} ms (medians of {given.times}); "
        f"{wire:,} bytes on the wire in {found[-1].requests} requests; a change shows within {change:.0f} ms"
    )
    is_well = max(paint, rows) < FIRST_PAINT_MS and wire < WIRE_BYTES and change < CHANGE_MS
    if not is_well:
        print(f"beyond the limit: {FIRST_PAINT_MS} ms, {WIRE_BYTES:,} bytes, {CHANGE_MS} ms", file=sys.stderr)
    return 0 if is_well else 1


async def _fill(base: str, servers: int, hours: float) -> None:
    started = time.monotonic()
    end = datetime.now(UTC).replace(microsecond=0)
    fleet = [
        Machine(
            f"server-{number:04}",
            f"server-{number:04}.example.net",
            [Link(name, (number % 50 + 1) * 1e6, 3e6, kind="physical") for name in ("eth0", "eth1", "docker0", "wg0")],
        )
        for number in range(servers)
    ]
    async with httpx.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as http:
        count = await report(http, fleet, end - timedelta(hours=hours), end, end, timedelta(minutes=1))
    print(f"{count} heartbeats in {time.monotonic() - started:.0f} s")


async def _open(browser: Browser, base: str, period: str) -> Opened:
    context = await browser.new_context(base_url=base, viewport={"width": 1280, "height": 800})
    signed_in = await context.request.post("/sign-in", data={"token": KEY})
    assert signed_in.status == 204, await signed_in.text()
    page = await context.new_page()
    protocol = await context.new_cdp_session(page)
    await protocol.send("Network.enable")
    received: dict[str, float] = {}

    def arrived(event: Any) -> None:
        received[event["requestId"]] = event["encodedDataLength"]

    protocol.on("Network.loadingFinished", arrived)
    await page.goto(f"/?period={period}", wait_until="commit")
    rows_ms = await page.evaluate(_ROWS)
    complete_ms = await page.evaluate(_COMPLETE)
    paint_ms = await page.evaluate(_PAINT)
    wire_bytes, requests = int(sum(received.values())), len(received)
    change_ms = await _change(page)
    await context.close()
    return Opened(paint_ms, rows_ms, complete_ms, wire_bytes, requests, change_ms)


async def _change(page: Page) -> float:
    """Names the first server, as another browser would, and waits for the page to show it."""
    # When all pages of a large fleet are loaded, the page waits for changes.
    async with page.expect_request(lambda request: "since=" in request.url, timeout=120_000):
        pass
    name = f"server-0000 {time.monotonic_ns()}"  # first in the order, as before
    started = time.monotonic()
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = await page.context.request.put(
        "/api/v1/servers/server-0000/labels", data={"display_name": name}, headers=headers
    )
    assert answer.ok, await answer.text()
    await page.get_by_role("link", name=name, exact=True).wait_for()
    return (time.monotonic() - started) * 1000


if __name__ == "__main__":
    sys.exit(main())
