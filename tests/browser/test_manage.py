"""The page to manage: every action by an administrator, what a reader sees, and two browsers at once."""

import fnmatch
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Complaints
from tests.browser.serving import Served, violations
from tests.helpers.support import heartbeat, interface

pytestmark = pytest.mark.background

PHONE = {"width": 360, "height": 740}
NAS = "/manage?server=nas#servers"


async def fleet(site: Served) -> None:
    await site.client.post(
        heartbeat("nas", eth0=(10**9, 10**8), eth1=(1, 1), docker0=(5, 5))
        | {"tags": ["rack=7"], "interval_seconds": 30}
    )
    await site.client.post(heartbeat("web-1", eth0=(1, 1)))


async def shoot(page: Page, name: str) -> None:
    if directory := os.environ.get("LINKBEAT_SCREENSHOTS"):
        await page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)


async def audited(database: asyncpg.Connection) -> list[str]:
    rows = await database.fetch("SELECT action FROM audit_log WHERE actor_kind = 'session' ORDER BY entry")
    return [row[0] for row in rows]


async def test_an_administrator_manages_a_server(site: Served, page: Page, complaints: Complaints) -> None:
    complaints.expect("422")
    await fleet(site)
    await page.goto("/manage")
    await expect(page.get_by_role("row", name="nas")).to_contain_text("rack=7")
    await shoot(page, "manage-servers")
    await page.get_by_role("link", name="nas", exact=True).click()

    labels = page.get_by_role("form", name="Name and tags")
    await labels.get_by_label("Display name").fill("Attic")
    await labels.get_by_label("Tags").fill("site=home, backup")
    await labels.get_by_role("button", name="Save").click()
    await expect(labels.get_by_role("status")).to_have_text("Saved.")
    await expect(labels).to_contain_text("rack=7")
    found = await site.client.get("/servers/nas/labels")
    assert (found["display_name"], found["all_tags"]) == ("Attic", ["backup", "rack=7", "site=home"])

    await labels.get_by_label("Tags").fill("role=a, role=b")
    await labels.get_by_role("button", name="Save").click()
    await expect(labels.get_by_role("alert")).to_contain_text("same key")
    await labels.get_by_label("Tags").fill("site=home, backup")

    agent = page.get_by_role("form", name="Agent")
    await agent.get_by_label("Heartbeat every").fill("10")
    await agent.get_by_role("checkbox", name="eth1").uncheck()
    await agent.get_by_label("Not these").fill("eth1, docker*")
    await expect(agent.get_by_role("listitem").filter(has_text="docker0")).to_contain_text("left out by docker*")
    await expect(agent.get_by_role("checkbox", name="docker0")).to_be_disabled()
    await agent.get_by_role("button", name="Save").click()
    await expect(agent.get_by_role("status")).to_have_text("Saved.")
    await shoot(page, "manage-server")
    assert await site.client.get("/servers/nas/config") == {
        "interval_seconds": 10, "exclude_interfaces": ["eth1", "docker*"],
    }  # fmt: skip
    await agent.get_by_role("checkbox", name="eth1").check()
    await agent.get_by_label("Paused").check()
    await agent.get_by_role("button", name="Save").click()
    await expect(agent.get_by_role("status")).to_have_text("Saved.")
    assert await site.client.get("/servers/nas/config") == {
        "interval_seconds": 10, "exclude_interfaces": ["docker*"], "paused": True,
    }  # fmt: skip
    await agent.get_by_role("button", name="Report now").click()
    await expect(agent.get_by_role("status")).to_contain_text("within 30 s")
    assert "report_at" in (await site.client.post(heartbeat("nas", eth0=(10**9, 10**8))))["config"]


async def test_an_administrator_sets_a_quota_and_removes_a_server(
    site: Served, page: Page, database: asyncpg.Connection, complaints: Complaints
) -> None:
    complaints.expect("404")  # of what was asked for in the moment of the removal
    await fleet(site)
    await page.goto(NAS)
    quota = page.get_by_role("form", name="Quota")
    await quota.get_by_label("Per month", exact=True).fill("2")
    await quota.get_by_label("Unit of: Per month").select_option("TB")
    await quota.get_by_label("From day").fill("15")
    await quota.get_by_role("button", name="Set").click()
    await expect(quota.get_by_role("status")).to_have_text("Saved.")
    stored = await site.client.get("/servers/nas/quota")
    assert (stored["bytes"], stored["billing_day"]) == (2 * 10**12, 15)
    await quota.get_by_role("button", name="Remove the quota").click()
    await expect(quota.get_by_role("status")).to_have_text("Removed.")

    gone = page.get_by_role("form", name="Remove")
    button = gone.get_by_role("button", name="Remove it with its history")
    await gone.get_by_label("Type nas to confirm").fill("na")
    await expect(button).to_be_disabled()
    await gone.get_by_label("Type nas to confirm").fill("nas")
    await button.click()
    await expect(page.get_by_role("row", name="web-1")).to_be_visible()
    await expect(page.get_by_role("row", name="nas")).to_have_count(0)
    assert await audited(database) == ["quota.set", "quota.delete", "server.remove"]


async def test_an_interface_gets_a_name_for_people(site: Served, page: Page, complaints: Complaints) -> None:
    complaints.expect("422")
    await fleet(site)
    await page.goto(NAS)
    form = page.get_by_role("form", name="Names of interfaces", exact=True)
    await form.get_by_label("Interface").select_option("eth1")
    await form.get_by_label("Shown as").fill("WAN")
    await form.get_by_role("button", name="Save").click()
    await expect(form.get_by_role("status")).to_have_text("Saved.")
    await form.get_by_label("Interface").select_option("eth0")
    await expect(form.get_by_label("Shown as")).to_have_value("")
    await form.get_by_label("Shown as").fill("WAN")
    await form.get_by_role("button", name="Save").click()
    await expect(form.get_by_role("alert")).to_contain_text("the interface 'eth1' has that name")
    await form.get_by_label("Interface").select_option("eth1")
    await expect(form.get_by_label("Shown as")).to_have_value("WAN")

    await page.goto("/servers/nas")

    await expect(page.get_by_role("row", name="eth1")).to_contain_text("“WAN”")


async def test_a_server_gets_another_id(site: Served, page: Page, complaints: Complaints) -> None:
    complaints.expect("409")
    await fleet(site)
    await page.goto(NAS)
    form = page.get_by_role("form", name="Other ids")
    await form.get_by_label("Another id").fill("web-1")
    await form.get_by_role("button", name="Add").click()
    await expect(form.get_by_role("alert")).to_contain_text("server 'web-1' has the id")
    await form.get_by_label("Another id").fill("storage")
    await form.get_by_role("button", name="Add").click()
    await expect(form.get_by_role("listitem")).to_contain_text("storage")
    await site.client.post(heartbeat("storage", eth0=(10**9 + 1, 10**8)))
    assert [one["id"] for one in (await site.client.get("/servers"))["servers"]] == ["nas", "web-1"]
    await page.goto("/servers/storage")
    await expect(page.locator("h1")).to_contain_text("nas")
    await page.goto(NAS)
    await form.get_by_role("button", name="Remove storage").click()
    await expect(form.get_by_role("listitem")).to_have_count(0)


async def test_an_interface_and_a_server_go_on_under_another_name(
    site: Served, page: Page, database: asyncpg.Connection, complaints: Complaints
) -> None:
    complaints.expect("409|422")
    await fleet(site)
    begin = datetime.now(UTC) - timedelta(hours=5)
    for number in range(4):
        counted = interface("ens3" if number < 2 else "eth9", 10**9 * (number + 1), 10**8)
        for server in ("old-nas", "nas"):
            beat = heartbeat(server, at=begin + number * timedelta(hours=1))
            await site.client.post(beat | {"network_interfaces": [counted]})
    await page.goto(NAS)

    links = page.get_by_role("form", name="Earlier names of interfaces")
    await expect(links.locator("datalist option")).to_have_count(5)
    await links.get_by_label("Samples of", exact=True).fill("ens3")
    await links.get_by_label("are samples of").fill("eth7")
    await links.get_by_role("button", name="Preview").click()
    await expect(links.get_by_role("alert")).to_contain_text("has no samples of an interface 'eth7'")
    await links.get_by_label("are samples of").fill("eth9")
    await links.get_by_role("button", name="Preview").click()
    await expect(links.get_by_role("row", name="ens3")).to_contain_text("1.00 GB")
    await expect(links.get_by_role("row", name="eth9").get_by_role("cell").last).to_contain_text("2.00 GB")
    await shoot(page, "manage-link-preview")
    await links.get_by_role("button", name="Link", exact=True).click()
    await expect(links.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    await expect(links.get_by_role("row", name="ens3")).to_contain_text("the last")
    (link,) = (await site.client.get("/servers/nas/links"))["links"]
    assert (link["interface"], link["into"], link["since"], link["sum"]) == ("ens3", "eth9", None, False)
    await links.get_by_label("Samples of", exact=True).fill("eth9")
    await links.get_by_label("are samples of").fill("eth0")
    await links.get_by_role("button", name="Link", exact=True).click()
    await expect(links.get_by_role("alert")).to_contain_text("remove it first")
    await links.get_by_role("button", name="Remove the link of ens3").click()
    await expect(links.get_by_role("row", name="ens3")).to_have_count(0)

    replaced = page.get_by_role("form", name="Replaced server")
    await replaced.get_by_label("It replaced", exact=True).fill("old-nas")
    await replaced.get_by_label("Since").fill(
        (begin + timedelta(minutes=90)).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    )
    await replaced.get_by_role("button", name="Preview").click()
    await expect(replaced.get_by_role("row", name="old-nas").get_by_role("cell").first).to_contain_text("2.00 GB")
    await expect(replaced.get_by_role("row", name="old-nas").get_by_role("cell").last).to_contain_text("1.00 GB")
    await expect(replaced).to_contain_text("Traffic of nas before that time no longer counts: ↓ received 1.00 GB")
    await shoot(page, "manage-succession-preview")
    await replaced.get_by_role("button", name="Save").click()
    await expect(replaced.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    assert (await site.client.get("/servers/nas/succession"))["predecessor"] == "old-nas"
    await page.goto("/manage?server=old-nas#servers")
    await expect(page.get_by_role("form", name="Replaced server")).to_contain_text("nas replaced it on")
    await shoot(page, "manage-successor")
    await page.goto(NAS)
    await replaced.get_by_role("button", name="Undo the replacement").click()
    await expect(replaced.get_by_role("status").filter(has_text="Removed.")).to_be_visible()
    await expect(replaced.get_by_label("It replaced", exact=True)).to_have_value("")
    assert await audited(database) == ["link.set", "link.delete", "succession.set", "succession.delete"]


async def test_a_stale_succession_is_refused(site: Served, page: Page, complaints: Complaints) -> None:
    complaints.expect("412")
    await fleet(site)
    await page.goto(NAS)
    form = page.get_by_role("form", name="Replaced server")
    await form.get_by_label("It replaced", exact=True).fill("web-1")
    await form.get_by_label("Since").fill("2026-01-20T10:00:00")
    made = {"predecessor": "web-1", "since": "2026-01-01T00:00:00Z"}
    assert (await site.client.http.put("/api/v1/servers/nas/succession", json=made)).is_success

    await form.get_by_role("button", name="Save").click()

    await expect(form.get_by_role("alert")).to_contain_text("Nothing was overwritten")
    assert (await site.client.get("/servers/nas/succession"))["since"] == made["since"]
    await form.get_by_role("button", name="Show the current values").click()
    await expect(form.get_by_label("It replaced", exact=True)).to_have_value("web-1")


async def test_tokens_are_made_shown_once_and_revoked(site: Served, page: Page) -> None:
    await page.goto("/manage#tokens")
    await expect(page.locator("#no-tokens")).to_be_visible()
    await page.get_by_role("button", name="New token").click()
    await page.get_by_label("Kind", exact=True).select_option("server")
    await page.get_by_label("Server", exact=True).fill("nas")
    await page.get_by_label("Description").fill("of the attic")
    await shoot(page, "manage-new-token")
    await page.get_by_role("button", name="Create").click()
    token = await page.get_by_label("The new token").input_value()
    assert token.startswith("lb_s_")
    await shoot(page, "manage-token-once")
    await page.get_by_role("button", name="Close").click()
    row = page.get_by_role("row", name=token.split("_")[2])
    await expect(row).to_contain_text("of the attic")
    assert token not in await page.content()
    answer = await site.client.http.post(
        "/api/v1/agents/heartbeat", json=heartbeat("nas", eth0=(1, 1)), headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200

    await page.get_by_role("button", name="New enrolment").click()
    await page.get_by_label("Agents").fill("7")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_label("The new token")).to_have_value(
        r := await page.get_by_label("The new token").input_value()
    )
    assert r.startswith("lb_e_")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("row").filter(has_text="7 left")).to_have_count(1)
    await shoot(page, "manage-tokens")

    await row.get_by_role("button", name="Revoke").click()
    await page.locator("#dialog").get_by_role("button", name="Revoke").click()
    await expect(row).to_have_count(0)
    await page.get_by_label("also revoked and expired").check()
    await expect(row).to_contain_text("revoked")

    await page.get_by_role("link", name="Audit log").click()
    await expect(page.locator("#entries tbody tr")).to_have_count(3)
    await expect(page.locator("#entries tbody tr").first).to_contain_text("token.revoke")
    await expect(page.locator("#entries tbody tr").first).to_contain_text("in a browser")
    await page.get_by_label("Only this server").fill("nas")
    await expect(page.locator("#entries tbody tr")).to_have_count(2)
    await shoot(page, "manage-audit")
    await page.get_by_label("What", exact=True).select_option("quota")
    await expect(page.locator("#no-entries")).to_be_visible()


async def test_a_reader_sees_what_is_set_and_is_told_why_it_cannot_be_changed(
    site: Served, contexts: Callable[..., Any]
) -> None:
    await fleet(site)
    await site.client.http.put("/api/v1/servers/nas/labels", json={"display_name": "Attic", "tags": ["site=home"]})
    await site.client.http.put("/api/v1/servers/nas/quota", json={"bytes": 10**12})
    made = (await site.client.http.post("/api/v1/tokens", json={"kind": "read"})).json()
    context, _ = await contexts(made["id"])
    page = await context.new_page()

    await page.goto(NAS)

    await expect(page.locator("#reader")).to_contain_text("may only read")
    labels = page.get_by_role("form", name="Name and tags")
    await expect(labels.get_by_label("Display name")).to_have_value("Attic")
    for form in (
        "Name and tags",
        "Agent",
        "Quota",
        "Names of interfaces",
        "Earlier names of interfaces",
        "Other ids",
        "Replaced server",
        "Remove",
    ):
        for button in await page.get_by_role("form", name=form, exact=True).get_by_role("button").all():
            await expect(button).to_be_disabled()
    await shoot(page, "manage-reader")
    assert await violations(page) == []
    for tab, words in (("Audit log", "#no-entries"), ("Tokens", "#no-tokens")):
        await page.get_by_role("link", name=tab, exact=True).click()
        await expect(page.locator(words)).to_contain_text("Only administrators can see this")
    await expect(page.get_by_role("button", name="New token")).to_be_disabled()


async def test_of_two_browsers_the_second_sees_the_change_and_a_stale_one_is_refused(
    site: Served, contexts: Callable[..., Any]
) -> None:
    await fleet(site)
    pages, complaints = [], []
    for _ in range(2):
        context, heard = await contexts()
        complaints.append(heard)
        pages.append(await context.new_page())
        await pages[-1].goto(NAS)
        await expect(pages[-1].get_by_role("form", name="Name and tags")).to_contain_text("rack=7")
    one, other = pages

    async def name(page: Page, value: str) -> None:
        await page.get_by_label("Display name").fill(value)
        await page.get_by_role("form", name="Name and tags").get_by_role("button", name="Save").click()

    # Shown to whoever is not just changing it, without reloading.
    await name(one, "Attic")
    await expect(other.get_by_label("Display name")).to_have_value("Attic")

    # Typed in both; the first one wins, and the second one is told.
    await other.get_by_label("Display name").fill("Cellar")
    await name(one, "Roof")
    form = other.get_by_role("form", name="Name and tags")
    await expect(form.get_by_role("status")).to_contain_text("Someone else has changed this")
    complaints[1].expect("412")
    await form.get_by_role("button", name="Save").click()
    await expect(form.get_by_role("alert")).to_contain_text("Nothing was overwritten")
    await shoot(other, "manage-stale")
    assert (await site.client.get("/servers/nas/labels"))["display_name"] == "Roof"
    await form.get_by_role("button", name="Show the current values").click()
    await expect(other.get_by_label("Display name")).to_have_value("Roof")
    await name(other, "Cellar")
    await expect(form.get_by_role("status")).to_have_text("Saved.")
    await expect(one.get_by_label("Display name")).to_have_value("Cellar")


async def test_the_time_zone_is_kept_and_used_for_totals(site: Served, page: Page) -> None:
    await fleet(site)
    await page.goto("/manage#page")
    await page.get_by_label("Time zone").select_option("Asia/Tokyo")
    await expect(page.locator("#zone-saved")).to_contain_text("Kept")

    async with page.expect_request(lambda request: "time_zone=Asia%2FTokyo" in request.url):
        await page.goto("/servers/nas")
    await expect(page.locator("#usage-zone")).to_contain_text("Asia/Tokyo")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_fits_a_phone_in_both_themes_and_axe_finds_nothing(
    theme: str, site: Served, contexts: Callable[..., Any]
) -> None:
    await fleet(site)
    await site.client.http.put("/api/v1/servers/nas/labels", json={"display_name": "Attic", "tags": ["site=home"]})
    await site.client.http.put(
        "/api/v1/servers/nas/config", json={"exclude_interfaces": ["a-very-long-pattern-of-names-*"]}
    )
    await site.client.http.post("/api/v1/tokens", json={"kind": "server", "server_id": "nas", "name": "x" * 60})
    context, _ = await contexts(viewport=PHONE, color_scheme=theme)
    page: Page = await context.new_page()
    for number, (address, ready) in enumerate((
        ("/manage#servers", "#server-list table"), (NAS, "form[aria-label=Quota] input"),
        ("/manage#tokens", "#token-list table"),        ("/manage#audit", "#entries table"), ("/manage#page", "#zone"),
    )):  # fmt: skip
        await page.goto("about:blank")
        await page.goto(address)
        await expect(page.locator(ready).first).to_be_visible()
        await shoot(page, f"manage-phone-{theme}-{number}")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{address} is wider than a phone"
        )
        assert await violations(page) == [], address


async def test_everything_is_reached_by_keyboard(site: Served, page: Page, complaints: Complaints) -> None:
    await fleet(site)
    await page.goto(NAS)
    await expect(page.get_by_role("form", name="Agent")).to_contain_text("eth1")
    await page.get_by_role("checkbox", name="eth1").focus()
    await page.keyboard.press("Space")
    await expect(page.get_by_label("Not these")).to_have_value("eth1")
    await expect(page.get_by_role("checkbox", name="eth1")).to_be_focused()
    await page.get_by_label("Heartbeat every").focus()
    await page.keyboard.type("20")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("form", name="Agent").get_by_role("status")).to_have_text("Saved.")
    assert (await site.client.get("/servers/nas/config"))["interval_seconds"] == 20


async def test_patterns_match_as_the_agents_do(site: Served, page: Page) -> None:
    await fleet(site)
    await page.goto("/manage")
    patterns = [
        "eth0",
        "eth*",
        "*",
        "e?h0",
        "[ew]*",
        "[!e]*",
        "[a-f]th0",
        "br-[0-9]*",
        "a.b",
        "a+b",
        "[",
        "[]]x",
        "x]",
        "veth[*]",
    ]
    names = [
        "eth0",
        "eth10",
        "wlan0",
        "br-1",
        "br-a",
        "a.b",
        "axb",
        "a+b",
        "aab",
        "[",
        "]x",
        "x]",
        "veth*",
        "veth1",
        "",
    ]

    found = await page.evaluate(
        "async ([patterns, names]) => { const { matches, exactly } = await import('/static/js/manage/interfaces.js');"
        " return [patterns.map((one) => names.map((name) => matches(one, name))),"
        " names.map((one) => names.map((name) => matches(exactly(one), name)))]; }",
        [patterns, names],
    )

    assert found[0] == [[fnmatch.fnmatchcase(name, one) for name in names] for one in patterns]
    assert found[1] == [[one == name for name in names] for one in names], "a switch concerns one interface alone"
