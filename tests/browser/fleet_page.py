"""What the tests of the fleet page tell the service, and where on the page they look for it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Locator, Page

from tests.browser.serving import Served
from tests.helpers.support import heartbeat, interface


def beat(
    server_id: str, seconds_ago: float, *interfaces: dict[str, Any], now: datetime | None = None, **more: Any
) -> dict[str, Any]:
    """A heartbeat before `now`; of two that a rate is counted from, both are before the same moment."""
    at = (now or datetime.now(UTC)).replace(microsecond=0) - timedelta(seconds=seconds_ago)
    return heartbeat(server_id, at) | {"network_interfaces": list(interfaces)} | more


async def tell(site: Served, server_id: str, name: str = "eth0", mbit: float = 8.0, **more: Any) -> None:
    """Two heartbeats, ten seconds apart, between which so many Mbit/s were received and half of it sent."""
    moved, now = int(mbit * 1_250_000), datetime.now(UTC)
    for ago, rx in ((11, 0), (1, moved)):
        one = interface(name, rx, rx // 2)
        await site.client.post(beat(server_id, ago, one, now=now, primary_interface=name, **more))


async def go_on(site: Served, server_id: str, mbit: float) -> None:
    """A heartbeat ten seconds after the last one, since which so many Mbit/s were received."""
    found = await site.client.get(f"/servers/{server_id}")
    (before,) = found["network_interfaces"]
    rx = before["rx_bytes"] + int(mbit * 1_250_000)
    at = datetime.fromisoformat(found["last_seen"]) + timedelta(seconds=10)
    one = interface(before["name"], rx, before["tx_bytes"])
    await site.client.post(heartbeat(server_id, at) | {"network_interfaces": [one]})


async def choose(page: Page, period: str) -> None:
    await page.locator(".switch").get_by_text(period).click()


def row(page: Page, server_id: str) -> Locator:
    return page.locator(f'tr[data-server="{server_id}"]')


async def order(page: Page) -> list[str]:
    found: list[str] = await page.locator("tbody tr").evaluate_all("rows => rows.map((one) => one.dataset.server)")
    return found
