"""The page of alerts: a rule that is tried, fires, is acknowledged and muted; channels; what a reader may do."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page, expect

from tests.browser.machines import evaluate
from tests.browser.serving import Served, violations
from tests.helpers.support import heartbeat

pytestmark = pytest.mark.background

PHONE = {"width": 360, "height": 740}
BYTES = 750_000_000  # in 30 s: 200 Mbit/s


async def report(site: Served, minutes: int = 20) -> None:
    """Heartbeats of web-1 up to now: its uplink receives 200 Mbit/s; db-1 is quiet."""
    now = datetime.now(UTC)
    for number in range(minutes * 2, -1, -1):
        at = now - timedelta(seconds=30 * number)
        count = minutes * 2 - number
        await site.client.post(heartbeat("web-1", at=at, eth0=(10**12 + BYTES * count, 10**9 + 10_000 * count)))
        await site.client.post(heartbeat("db-1", at=at, eth0=(10**9 + 1000 * count, 10**9 + 1000 * count)))


async def shoot(page: Page, name: str) -> None:
    if directory := os.environ.get("LINKBEAT_SCREENSHOTS"):
        await page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)


async def new_rule(page: Page, name: str = "busy", mbps: int = 100) -> None:
    await page.get_by_role("button", name="New rule").click()
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Bound", exact=True).locator("visible=true").fill(str(mbps))
    await page.get_by_label("Unit of: Bound").select_option("Mbit/s")


async def test_a_rule_is_tried_on_the_past_fires_and_is_muted(
    site: Served, page: Page, database: asyncpg.Connection
) -> None:
    await report(site)
    await page.goto("/alerts#rules")
    await expect(page.get_by_role("row").filter(has_text="as installed")).to_have_count(5)

    await new_rule(page)
    await page.get_by_role("button", name="What would it have done").click()
    tried = page.locator(".tried")
    await expect(tried).to_contain_text("1 alert, ")
    await expect(tried.get_by_role("rowheader")).to_have_text("web-1 · eth0")
    await shoot(page, "rule-form")
    assert await database.fetchval("SELECT count(*) FROM linkbeat.alert_rules WHERE rule_id = 'busy'") == 0

    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("row", name="busy")).to_contain_text("above 100 Mbit/s over 5 min")
    await evaluate(database)
    await shoot(page, "rules")
    await page.get_by_role("link", name="Now", exact=True).click()
    alert = page.locator("#alerts tbody tr").filter(has_text="busy")
    await expect(alert).to_contain_text("web-1")
    await expect(alert).to_contain_text("200 Mbit/s")
    await expect(page.locator("#bell")).to_contain_text("1 alert fires")
    await expect(page.locator("#history .episode")).to_have_count(1)
    await shoot(page, "now")
    await page.goto("/servers/web-1")
    await expect(page.locator("#warnings li")).to_contain_text("eth0: the greater of", ignore_case=True)
    await page.goto("/alerts")

    await alert.get_by_role("button", name="Acknowledge").click()
    await expect(alert).to_contain_text("seen by")
    assert await database.fetchval("SELECT acknowledged_at IS NOT NULL FROM linkbeat.alerts WHERE rule_id = 'busy'")

    await page.get_by_role("link", name="Mutes", exact=True).click()
    await page.get_by_role("button", name="New mute").click()
    await page.get_by_label("Name").fill("maintenance")
    await page.get_by_label("Servers").fill("web-*")
    await page.get_by_label("Why").fill("new switch")
    await page.get_by_role("button", name="Mute", exact=True).click()
    await expect(page.get_by_role("row", name="maintenance")).to_contain_text("mutes now")
    await shoot(page, "mutes")
    await page.get_by_role("link", name="Now", exact=True).click()
    await expect(alert).to_contain_text("muted")

    await page.get_by_role("link", name="Rules", exact=True).click()
    await page.get_by_role("checkbox", name="busy is on").uncheck()
    await expect(page.get_by_role("row", name="busy")).to_have_class("off")
    assert await database.fetchval("SELECT enabled FROM linkbeat.alert_rules WHERE rule_id = 'busy'") is False
    await page.get_by_role("button", name="Remove busy").click()
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("row", name="busy")).to_have_count(0)


async def test_what_is_wrong_with_a_rule_is_said_in_its_form(site: Served, page: Page, complaints: Any) -> None:
    complaints.expect("status of 422")
    await page.goto("/alerts#rules")
    await new_rule(page)
    await page.locator("summary").click()
    await page.get_by_role("textbox", name="Channels").fill("nobody")

    await page.get_by_role("button", name="Save").click()

    await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("there is no channel 'nobody'")


async def test_a_rule_that_somebody_else_changes_meanwhile_is_not_overwritten(
    site: Served, page: Page, complaints: Any
) -> None:
    complaints.expect("status of 412")
    rule = {"kind": "rate", "above_bps": 10**9}
    await site.client.http.put("/api/v1/alert-rules/busy", json=rule)
    await page.goto("/alerts#rules")
    await page.get_by_role("button", name="Change busy").click()
    await expect(page.get_by_role("textbox", name="Name")).to_have_value("busy")
    await site.client.http.put("/api/v1/alert-rules/busy", json=rule | {"severity": "critical"})

    await page.get_by_role("button", name="Save").click()

    await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("changed")
    assert (await site.client.get("/alert-rules/busy"))["severity"] == "critical"
    # What is switched is the rule as it is now, and not as the list had it.
    await page.get_by_role("button", name="Close").click()
    await page.get_by_role("checkbox", name="busy is on").uncheck()
    await expect(page.get_by_role("checkbox", name="busy is on")).not_to_be_checked()
    await expect(page.get_by_role("row", name="busy")).to_contain_text("critical")
    stored = await site.client.get("/alert-rules/busy")
    assert (stored["severity"], stored["enabled"]) == ("critical", False)


async def test_every_kind_of_rule_is_saved_as_its_form_offers_it_and_shown_again(
    site: Served, page: Page, database: asyncpg.Connection
) -> None:
    kinds = ("silent", "link", "quota", "filesystem", "errors", "account", "agent")
    await page.goto("/alerts#rules")
    for kind in kinds:
        await page.get_by_role("button", name="New rule").click()
        await page.get_by_label("Name").fill(f"of-{kind}")
        await page.get_by_label("Alert when").select_option(kind)
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("row", name=f"of-{kind}")).to_have_count(1)
        await page.get_by_role("button", name=f"Change of-{kind}").click()
        await page.get_by_label("Servers").fill("web-*, db-*")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("row", name=f"of-{kind}")).to_contain_text("web-*, db-*")

    rows = await database.fetch(
        "SELECT kind, spec -> 'scope' ->> 'servers' AS servers FROM linkbeat.alert_rules WHERE rule_id LIKE 'of-%'"
    )
    assert {row["kind"] for row in rows} == set(kinds)
    assert {row["servers"] for row in rows} == {'["web-*", "db-*"]'}


async def test_a_channel_is_tested_and_its_secret_never_comes_back(
    site: Served, page: Page, database: asyncpg.Connection
) -> None:
    await page.goto("/alerts#channels")
    await expect(page.get_by_text("Nobody is told of alerts")).to_be_visible()
    await page.get_by_role("button", name="New channel").click()
    await page.get_by_label("Name").fill("ops")
    await page.get_by_label("URL").fill("https://alerts.invalid/hook/very-secret-path")
    await page.get_by_label("Secret of the signature").fill("very-secret-key")
    await page.get_by_role("button", name="Save").click()

    row = page.get_by_role("row", name="ops")
    await expect(row).to_contain_text("https://alerts.invalid")
    await page.get_by_role("button", name="Test ops").click()
    await expect(row).to_contain_text("Not delivered")
    await shoot(page, "channels")
    await page.get_by_role("button", name="Change ops").click()
    await page.get_by_label("Alerts from").select_option("critical")
    await page.get_by_role("button", name="Save").click()
    await expect(row).to_contain_text("from critical on")

    assert "very-secret" not in await page.content()
    stored = await database.fetchval("SELECT convert_from(secret, 'UTF8') FROM linkbeat.alert_channels")
    assert "very-secret-path" in stored
    assert "very-secret-key" in stored


async def test_a_reader_sees_alerts_and_is_told_why_nothing_can_be_changed(site: Served, contexts: Any) -> None:
    token = (await site.client.http.post("/api/v1/tokens", json={"kind": "read"})).json()["id"]
    context, complaints = await contexts(token_id=token)
    complaints.expect("status of 403")
    page = await context.new_page()
    await page.goto("/alerts#rules")

    await page.get_by_role("checkbox", name="silent is on").click()

    await expect(page.locator("#problem")).to_have_text("You are signed in with a token that may only read.")
    await expect(page.get_by_role("checkbox", name="silent is on")).to_be_checked()


async def test_bands_in_the_chart_show_when_alerts_fired(
    site: Served, page: Page, database: asyncpg.Connection
) -> None:
    await report(site)
    await site.client.http.put(
        "/api/v1/alert-rules/busy", json={"kind": "rate", "above_bps": 1e8, "severity": "critical"}
    )
    await evaluate(database)

    await page.goto("/servers/web-1")

    await expect(page.locator("#events")).to_contain_text("Alert (busy, eth0): goes on.")
    await shoot(page, "server")


async def test_the_page_fits_a_phone_and_axe_finds_nothing_in_either_colours(
    site: Served, contexts: Any, database: asyncpg.Connection
) -> None:
    await report(site, 10)
    await site.client.http.put("/api/v1/alert-rules/busy", json={"kind": "rate", "above_bps": 1e8})
    await evaluate(database)
    for scheme in ("light", "dark"):
        context, _ = await contexts(color_scheme=scheme, viewport=PHONE)
        page = await context.new_page()
        for view in ("now", "rules", "channels", "mutes"):
            await page.goto(f"/alerts#{view}")
            await expect(page.locator(f"#{view}")).to_be_visible()
            await expect(page.locator("#rule-list tr, #alerts tr, #no-channels, #new-mute").first).to_be_attached()
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view
            assert await violations(page) == [], view
            await shoot(page, f"phone-{view}-{scheme}")
        await page.goto("/alerts#rules")
        await page.get_by_role("button", name="New rule").click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert await violations(page) == []
        await shoot(page, f"phone-form-{scheme}")
