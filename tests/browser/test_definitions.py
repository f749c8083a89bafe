"""Both pages go by the thresholds, the periods and the clock of the service, and by none of their own."""

import re
from typing import Any

import asyncpg
import msgspec
import pytest
from playwright.async_api import Page, expect

from service.operations import definitions
from tests.browser.fleet_page import row, tell
from tests.browser.machines import MINUTE, beat, filesystem, minute_now, nas
from tests.browser.server_page import opened
from tests.browser.serving import Served


def serve(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """The service has other definitions."""
    monkeypatch.setattr(definitions, "DEFINITIONS", msgspec.structs.replace(definitions.DEFINITIONS, **changed))


async def test_late_and_silent_are_what_the_service_says(
    site: Served, page: Page, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, late_after_intervals=10.0, offline_after_intervals=100.0)
    for name, intervals in (("up", 8), ("late", 50), ("silent", 200)):
        await tell(site, name, interval_seconds=30)
        await database.execute(
            "UPDATE servers SET received_at = now() - $1 * INTERVAL '30 seconds' WHERE server_id = $2", intervals, name
        )

    await page.goto("/")

    for name, words in (("up", "Up"), ("late", "Late 25 min"), ("silent", "Silent 1 h")):
        await expect(row(page, name).locator(".status")).to_have_text(words)
        await page.goto(f"/servers/{name}")
        await expect(page.locator("#status")).to_have_text(words)
        await page.goto("/")


async def test_full_is_what_the_service_says(site: Served, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, filesystem_warning_percent=20.0, filesystem_full_percent=50.0)
    last = minute_now()
    disks = [filesystem("/a", 10.0), filesystem("/b", 30.0), filesystem("/c", 60.0)]
    for n in range(2):
        await site.client.post(beat("nas", last - (1 - n) * MINUTE, n, n, filesystems=disks))

    await opened(page)

    levels = await page.locator(".filesystem .fill").evaluate_all("fills => fills.map((one) => one.className)")
    assert levels == ["fill ok", "fill warn", "fill bad"]


async def test_the_periods_of_the_server_page_are_the_services(
    site: Served, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = [one for one in definitions.DEFINITIONS.periods if one.name in ("1h", "24h", "30d")]
    serve(monkeypatch, periods=offered)
    await nas(site)

    await opened(page, "/servers/nas?period=7d")

    assert await page.locator("#period label").all_inner_texts() == ["1h", "24h", "30d"]
    await expect(page.get_by_role("radio", name="24h")).to_be_checked()


CASES = [
    # period, seconds between heartbeats, heartbeats a bucket, most buckets: seconds of a bucket
    (("1h", 30, 2, None), 60),
    (("1h", 45, 2, None), 120),
    (("1h", 300, 2, None), 600),
    (("1h", 3600, 2, None), 1800),
    (("24h", 30, 2, None), 900),
    (("24h", 86_400, 1.5, 96), 43_200),
    (("7d", 30, 1.5, 96), 7_200),
    (("7d", 30, 2, None), 3_600),
    (("30d", 30, 2, None), 21_600),
    (("1y", 30, 2, None), 86_400),
    (("1y", 86_400, 2, None), 172_800),
]


async def test_buckets_are_as_wide_as_heartbeats_fill_them(site: Served, page: Page) -> None:
    await site.client.post(beat("nas", minute_now(), 1, 1))
    await page.goto("/")

    found = await page.evaluate(
        """async (cases) => {
             const { bucketSeconds, loadDefinitions } = await import("/static/js/shared/definitions.js");
             await loadDefinitions();
             return cases.map(([period, interval, beats, most]) =>
               bucketSeconds(period, { interval, beats, ...(most ? { most } : {}) })) }""",
        [case for case, _ in CASES],
    )

    assert found == [width for _, width in CASES]
    for (period, *_), width in CASES:
        answer = await site.client.http.get(
            "/api/v1/metrics/sparkline/nas/network", params={"period": period, "bucket": f"{width // 60}m"}
        )
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("wrong_hours", [-5, 3])
async def test_a_browser_whose_clock_is_wrong_shows_who_reports(
    site: Served, contexts: Any, database: asyncpg.Connection, wrong_hours: int
) -> None:
    for name in ("alive", "dead"):
        await tell(site, name)
    await database.execute("UPDATE servers SET received_at = now() - INTERVAL '30 minutes' WHERE server_id = 'dead'")
    context, _ = await contexts()
    await context.add_init_script(f"const right = Date.now; Date.now = () => right() + {wrong_hours} * 3_600_000;")
    page = await context.new_page()

    await page.goto("/")
    await expect(row(page, "alive").locator(".status")).to_have_text("Up")
    await expect(row(page, "dead").locator(".status")).to_have_text("Silent 30\u00a0min")
    await page.goto("/servers/alive")
    await expect(page.locator("#status")).to_have_text("Up")
    await expect(page.locator("#seen")).to_have_text(re.compile(r"last heartbeat (now|\d+\ss ago)"))
    await page.goto("/servers/dead")
    await expect(page.locator("#status")).to_have_text(re.compile(r"Silent 30\smin"))
