"""The page of a server: what it says when things happen, and what a reader changes by it."""

import re
from datetime import timedelta
from itertools import count
from typing import Any

import asyncpg
from playwright.async_api import Page, expect

from service.settings import Settings
from tests.browser.conftest import Complaints
from tests.browser.machines import (
    MARKUP,
    MINUTE,
    REBOOTED,
    RESET,
    beat,
    evaluate,
    filesystem,
    fires,
    minute_now,
    nas,
)
from tests.browser.server_page import NOTHING, PLOT, opened, zoom
from tests.browser.serving import Served, served, violations
from tests.helpers.durations import fastest_of
from tests.helpers.support import heartbeat, interface


async def test_it_says_at_once_whether_the_server_lives_and_what_it_moves(site: Served, page: Page) -> None:
    await nas(site)

    await opened(page)

    assert await page.title() == "nas · Linkbeat"
    await expect(page.get_by_role("heading", level=1)).to_have_text("nas")
    await expect(page.locator("#status")).to_have_text("Up")
    await expect(page.locator("#facts")).to_contain_text(
        re.compile(r"nas\.local.*1\sd\s1\sh.*eth0.*1\.2\.3", re.DOTALL)
    )
    # The sum over eth0 and eth1, and not over wg0, which eth0 carries.
    await expect(page.locator("#figure-now")).to_have_text(re.compile(r"1\.10\sMbit/s.*500\skbit/s"))
    rows = page.locator("#interfaces tbody tr")
    assert await rows.locator("a").all_inner_texts() == ["eth0", "eth1", "eth2", "wg0"]
    await expect(rows.nth(0)).to_contain_text("primary")
    await expect(rows.nth(0)).to_contain_text("1 Gbit/s")
    await expect(rows.nth(0)).to_contain_text("0 / 12")
    await expect(rows.nth(2).locator(".badge")).to_have_text("down")
    await expect(rows.nth(3)).to_contain_text("tunnel · on eth0")
    filesystems = page.locator(".filesystem")
    await expect(filesystems).to_have_count(3)
    await expect(filesystems.nth(0)).to_contain_text(
        re.compile(r"/.*60\.0\s%.*60\.0\sGB of 100\sGB used, 40\.0\sGB free")
    )
    await expect(filesystems.nth(1)).to_contain_text("read-only")
    await expect(page.locator(".gauge").nth(2)).to_contain_text("0.75")


async def test_the_temperature_is_shown_of_machines_alone_that_report_it(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page)
    await expect(page.locator(".gauge:visible")).to_have_count(3)

    warm = {"metrics": {"cpu_percent": 25.5, "temperature_celsius": 48.5}}
    await site.client.post(beat("nas", minute_now() + MINUTE / 2, 1e6, 1e6) | warm)
    await page.reload()

    await expect(page.locator(".gauge:visible")).to_have_count(4)
    await expect(page.locator(".gauge").nth(3)).to_contain_text(re.compile(r"Temperature.*48\.5\s°C.*most 48\.5\s°C"))


TMP = "/tmp"  # noqa: S108 - where AppImages mount themselves; nothing is written there


async def test_images_that_are_always_full_are_no_warning(site: Served, page: Page, database: Any) -> None:
    full = {"percent": 100.0, "total_bytes": 700_000_000, "used_bytes": 700_000_000, "available_bytes": 0}
    images = [
        (f"{TMP}/.mount_ObsidiAbc123", "fuse.Obsidian-1.5.AppImage"),
        (f"{TMP}/.mount_launchQ1", "fuse.launcher-lite.AppImage"),
        ("/opt/img", "fuse.squashfuse"), ("/media/ana/FILM", "udf"), ("/snap/x", "squashfs"), ("/a", "erofs"),
        ("/b", "cramfs"), ("/c", "iso9660"),
    ]  # fmt: skip
    mounts = [{"mount_point": at, "fs_type": fs_type, **full} for at, fs_type in [*images, ("/srv", "ext4")]]
    last = minute_now()
    await site.client.post_batch([beat("nas", last - (1 - n) * MINUTE, n, n, filesystems=mounts) for n in range(2)])
    await evaluate(database)

    await opened(page)

    await expect(page.locator(".filesystem")).to_have_count(len(mounts))
    await expect(page.locator(".filesystem .tag", has_text="read-only")).to_have_count(len(images))
    await expect(page.locator("#warnings li")).to_have_count(1)
    await expect(page.locator("#warnings")).to_contain_text("/srv: 100.0 % used. 0 B are available.")


async def test_two_machines_under_one_id_are_said_for_as_long_as_they_are(
    site: Served, database: asyncpg.Connection, page: Page
) -> None:
    await nas(site)
    await database.execute("SELECT linkbeat.set_alert_rule('account', 'account', '{\"keep_seconds\": 0}')")
    await database.execute("UPDATE servers SET shared_since = now(), shared_at = now()")
    await evaluate(database)
    await opened(page)
    banner = page.locator("#warnings li", has_text="Two machines report under its id.")
    await expect(banner).to_contain_text("set another LINKBEAT_SERVER_ID on one of them")

    await database.execute("UPDATE servers SET shared_since = NULL, shared_at = NULL")
    await evaluate(database)
    await evaluate(database)
    await page.reload()
    await expect(page.locator("#note-today")).not_to_be_empty()

    await expect(banner).to_have_count(0)


async def test_the_alerts_that_fire_are_its_warnings_the_worst_first_each_with_a_remedy(
    site: Served, page: Page, database: asyncpg.Connection
) -> None:
    rule = {
        "kind": "rate",
        "above_bps": 900_000,
        "note": "Call the network team.",
        "runbook": "https://wiki.example.net/busy",
    }
    await nas(site, delivery={"queued": 40, "oldest_seconds": 4000})
    await site.client.http.put("/api/v1/alert-rules/busy", json=rule)
    troubles = "3 heartbeats were dropped; heartbeats were rejected; its spool is in memory; interfaces are left out"
    await fires(database, "busy", "eth0", value=1e6, peak=2e6)
    await fires(database, "agent", reason=troubles)
    await fires(database, "silent", reason="silent", severity="critical", since=timedelta(hours=2))
    await fires(database, "filesystem", "/srv/data", reason="97.5 % used")

    await opened(page)

    warnings = page.locator("#warnings li")
    await expect(warnings.first).to_contain_text("No heartbeat since ")
    await expect(warnings.first).to_contain_text("systemctl status linkbeat-agent")
    for words in (
        re.compile(
            r"eth0: .*above 900\skbit/s over 5\smin.*rule busy; now 1.*Mbit/s\..*Call the network team\. https://wiki"
        ),
        re.compile(r"3 heartbeats were dropped.*_SPOOL_MIB.*refused\.ndjson.*doctor.*LINKBEAT_EXCLUDE_INTERFACES"),
        re.compile(r"/srv/data: 97\.5 % used\. .* are available\."),
        re.compile(r"40 heartbeats wait on the machine, the oldest for 1\sh 6\smin"),
    ):
        await expect(warnings.filter(has_text=words)).to_have_count(1)


async def test_what_reports_seldom_has_wide_buckets_and_no_gaps(site: Served, page: Page) -> None:
    last = minute_now()
    beats = [beat("nas", last - (24 - n) * 5 * MINUTE, n, n, interval_seconds=300) for n in range(25)]
    await site.client.post_batch(beats)

    # Each of ten minutes, which two heartbeats fill: of an hour, and of an hour and a half.
    for address, newest in (("/servers/nas?period=1h", ("5", "6")), (zoom(last, 100, 10), ("8", "9"))):
        await opened(page, address)

        # Five minutes' worth of what nas gets in one.
        await expect(page.locator("#summary")).to_contain_text(re.compile(r"at most 2[0-9.]+\skbit/s"))
        await expect(page.locator("#events .gap")).to_have_count(0)
        assert await page.locator(PLOT).get_attribute("aria-valuemax") in newest


async def test_a_reboot_a_reset_and_what_was_rejected_are_marked_with_words(site: Served, page: Page) -> None:
    last = await nas(site)
    impossible = beat("nas", last + timedelta(seconds=20), REBOOTED, RESET)
    impossible["network_interfaces"][0]["rx_bytes"] = 2**50
    await site.client.post(impossible)

    await opened(page)

    events = page.locator("#events")
    await expect(events).to_contain_text(re.compile(r"Reboot: the counters of eth0, eth1, eth2 restarted"))
    await expect(events).to_contain_text("The counters of eth1 restarted without a reboot")
    await expect(events).to_contain_text("eth0 had an implausible gain: not counted.")
    await page.goto(zoom(last, 40, 0).replace("?", "?interface=eth0&"))
    await expect(events.locator(".reboot")).to_have_count(1)
    await expect(events.locator(".reset")).to_have_count(0)
    await page.get_by_text("Data table").click()
    noted = page.locator("#numbers tbody tr", has_text="Reboot")
    await expect(noted).to_have_count(1)
    await expect(noted).to_contain_text(re.compile("the counters of eth0"))


async def test_a_wrong_reading_that_was_corrected_is_told_quietly_and_a_dip_is_not(
    site: Served, database: asyncpg.Connection, page: Page
) -> None:
    last = await nas(site)
    await database.executemany(
        "UPDATE network_interface_metrics SET delta_kind = $1 WHERE interface_name = 'eth0' AND time = $2",
        [("glitch", last - 2 * MINUTE), ("dip", last - 3 * MINUTE)],
    )

    await opened(page, "/servers/nas?period=1h&interface=eth0")

    told = page.locator("#events .glitch")
    await expect(told).to_have_count(1)
    await expect(told).to_contain_text("eth0 had a wrong reading, corrected by later ones: no traffic is missing.")
    await expect(page.locator("#events .dip")).to_have_count(0)


async def test_a_heartbeat_shows_within_two_seconds(site: Served, page: Page) -> None:
    last = await nas(site)
    await opened(page)
    beats = count(1)
    moved = 0

    async def shows() -> None:
        nonlocal moved
        mbit = 70 + 10 * (number := next(beats))
        moved += mbit * 30 * 125_000
        fast = beat("nas", last + number * timedelta(seconds=30), REBOOTED, RESET)
        fast["network_interfaces"][0]["rx_bytes"] += moved
        fast["network_interfaces"][2]["is_up"] = number % 2 == 1
        await site.client.post(fast)
        await expect(page.locator("#figure-now")).to_contain_text(f"{mbit}.0\u00a0Mbit/s")
        badge = page.locator("#interfaces tbody tr").nth(2).locator(".badge")
        await expect(badge).to_have_text("up" if number % 2 else "down")

    assert await fastest_of(shows, within=2) < 2


async def test_names_are_text_wherever_they_stand(site: Served, page: Page, database: Any) -> None:
    name = MARKUP.replace("/", "")
    hostile = beat("nas", minute_now(), 1, 1) | {"hostname": MARKUP, "agent_version": MARKUP, "primary_interface": name}
    hostile["os_info"] = {"pretty_name": MARKUP}
    hostile["network_interfaces"] = [
        interface(name, 1, 1, kind="<b>bold</b>", stacked_on=[name[:-1]], operstate="<i>up</i>"),
        interface("eth0", 1, 1),
    ]
    hostile["filesystems"] = [filesystem(MARKUP, 99, device=MARKUP, fs_type=MARKUP, state="<b>gone</b>")]
    await site.client.post(hostile)
    await fires(database, "filesystem", MARKUP, reason="<b>gone</b>")

    await opened(page)
    await page.get_by_role("link", name=name, exact=True).click()
    await page.get_by_text("Data table").click()
    await expect(page.locator("#numbers-caption")).to_contain_text(name)

    assert await page.locator("main img, main b, main i").count() == 0
    for where in ("#facts", "#interfaces", "#filesystems", "#warnings"):
        await expect(page.locator(where)).to_contain_text("<img src=x onerror=")
    assert await page.title() == "nas · Linkbeat"


async def test_three_hundred_interfaces_stay_usable(site: Served, page: Page) -> None:
    names = [f"eth{n}" for n in range(300)]
    for n in range(2):
        many = [interface(name, n * 75 * int(name[3:]), 0, is_up=int(name[3:]) % 3 > 0) for name in names]
        at = minute_now() - (1 - n) * MINUTE
        await site.client.post(heartbeat("nas", at=at) | {"network_interfaces": many, "interval_seconds": 60})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    await opened(page, "/servers/nas?period=1h")

    rows = page.locator("#interfaces tbody tr")
    assert len([url for url in asked if "group_by=interface" in url]) == 1
    assert len([url for url in asked if "/api/" in url]) < 20
    # The youngest beyond a server's budget (LINKBEAT_MAX_SERIES) are in a row together.
    await page.get_by_role("button", name="Show all 257").click()
    await expect(rows).to_have_count(257)
    together = page.get_by_role("button", name="44 of them")
    await page.get_by_role("button", name="Now", exact=True).click()
    await expect(rows.first.locator(together)).to_be_visible()
    await expect(page.get_by_role("columnheader", name="Now")).to_have_attribute("aria-sort", "descending")
    await page.get_by_role("button", name="Now", exact=True).press("Enter")
    await expect(page.get_by_role("columnheader", name="Now")).to_have_attribute("aria-sort", "ascending")
    await expect(rows.last.locator(together)).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.type("eth29")
    shown = page.locator("#interfaces tbody th", has_text=re.compile("^eth29"))
    await expect(shown).to_have_count(11)
    await page.get_by_role("searchbox", name="Filter interfaces").fill("")
    await page.get_by_label("only interfaces that are up").check()
    await expect(page.locator("#interfaces-shown")).to_have_text(re.compile(r"1[67]\d of 257"))
    await page.get_by_role("searchbox", name="Filter interfaces").fill("nothing")
    await expect(page.locator("#interfaces-shown")).to_have_text("No interface matches the filter.")


async def test_short_lived_interfaces_are_one_row_that_opens(site: Served, page: Page) -> None:
    for n in range(3):
        veths = [interface(f"veth{k}", n * 1_000, 0, kind="veth", stacked_on=["eth0"]) for k in range(40)]
        at = minute_now() - (2 - n) * MINUTE
        await site.client.post(
            heartbeat("nas", at=at)
            | {"network_interfaces": [interface("eth0", n * 50_000, 0), *veths], "interval_seconds": 60}
        )

    await opened(page, "/servers/nas?period=1h")

    rows = page.locator("#interfaces tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(1)).to_contain_text("veth/*")
    await page.get_by_role("button", name="40 of them").press("Enter")
    await expect(rows).to_have_count(42)
    await expect(rows.nth(2)).to_contain_text(re.compile("veth0.*counted in veth/"))


async def test_a_server_without_interfaces_has_no_data(site: Served, page: Page) -> None:
    await site.client.post({"server_id": "bare", "hostname": "bare.local"})

    await page.goto("/servers/bare")

    await expect(page.locator("#empty")).to_have_text("No data in this period.")
    await expect(page.locator("#figure-now")).to_contain_text(NOTHING)
    await expect(page.locator("#interfaces-shown")).to_have_text("No data: the agent reports no interfaces.")
    await expect(page.locator("#filesystems")).to_contain_text("No data")
    await expect(page.locator("#note-today")).to_have_text("no data yet")
    assert await violations(page) == []


async def test_a_page_that_gets_no_answer_says_so_and_recovers_by_itself(
    site: Served, page: Page, complaints: Complaints, database_url: str, settings: Settings
) -> None:
    complaints.expect("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_INCOMPLETE")
    last = await nas(site)
    await opened(page)
    stale = page.locator("#stale")

    await site.stop()
    await expect(stale).to_have_text(
        re.compile(r"The service does not respond\. Showing data from \d\d:\d\d.*\. Retrying automatically\."),
    )

    async with served(database_url, settings, site.port) as again:
        fast = beat("nas", last + timedelta(seconds=30), REBOOTED, RESET)
        fast["network_interfaces"][0]["rx_bytes"] += 300_000_000
        await again.client.post(fast)
        await expect(stale).to_be_hidden()
        await expect(page.locator("#figure-now")).to_contain_text("80.0\u00a0Mbit/s")


async def test_a_server_that_is_silent_is_offline_with_a_remedy(site: Served, page: Page, database: Any) -> None:
    await nas(site)
    await database.execute("UPDATE servers SET received_at = now() - INTERVAL '2 hours'")

    await page.goto("/servers/nas")

    await expect(page.locator("#status")).to_have_text(re.compile(r"Silent 2\sh"))
    await expect(page.locator("#seen")).to_have_text("last heartbeat 2\u00a0h ago")
    await expect(page.locator("#figure-now")).to_contain_text(NOTHING)


async def test_a_quota_is_set_shown_and_removed(site: Served, page: Page, database: Any) -> None:
    await nas(site)
    await opened(page)

    await page.get_by_text("Set a quota").click()
    await page.get_by_label("Per month").fill("1.2")
    await page.get_by_label("Unit").select_option("GB")
    await page.get_by_label("from day").fill("5")
    await page.get_by_role("button", name="Set", exact=True).click()

    await expect(page.locator("#quota-state")).to_contain_text(re.compile(r"Quota: .* of 1\.20\sGB"))
    quota = await site.client.get("/servers/nas/quota")
    assert (quota["bytes"], quota["direction"], quota["billing_day"]) == (1_200_000_000, "sum", 5)
    await evaluate(database, 6 * MINUTE)
    await page.reload()
    await expect(page.locator("#warnings")).to_contain_text(re.compile("80% of its quota is used."))
    await page.get_by_text("Change the quota").click()
    await page.get_by_role("button", name="Remove").click()
    await expect(page.locator("#quota-state")).to_be_hidden()
    assert (await site.client.http.get("/api/v1/servers/nas/quota")).status_code == 404


async def test_who_may_only_read_is_told_so(site: Served, contexts: Any) -> None:
    await nas(site)
    token = (await site.client.http.post("/api/v1/tokens", json={"kind": "read"})).json()
    context, complaints = await contexts(token_id=token["id"])
    complaints.expect("status of 403")
    page = await opened(await context.new_page())

    await page.get_by_text("Set a quota").click()
    await page.get_by_label("Per month").fill("1")
    await page.get_by_role("button", name="Set", exact=True).click()

    await expect(page.locator("#quota-problem")).to_have_text("You are signed in with a token that may only read.")


async def test_units_and_colours_are_the_readers(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page)

    await page.locator("#units").click()
    await expect(page.locator("#figure-now")).to_have_text(re.compile(r"138\skB/s"))
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuetext", re.compile("kB/s"))
    for theme in ("light", "dark"):
        await page.locator("#theme").click()
        await expect(page.locator("html")).to_have_attribute("data-theme", theme)
        await expect(page.locator(".plot canvas")).to_have_count(1)
