"""The page of a server: what it says, and what a reader does with it."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Complaints
from tests.browser.machines import GAP, MARKUP, MINUTE, REBOOTED, RESET, beat, filesystem, minute_now, nas
from tests.browser.serving import Served, violations
from tests.support import heartbeat, interface

PLOT = ".plot"
NOTHING = "\u2013"


async def opened(page: Page, address: str = "/servers/nas") -> Page:
    """The page, with its chart and its totals drawn."""
    await page.goto(address)
    await expect(page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    await expect(page.locator(".plot canvas")).to_be_visible()
    await expect(page.locator("#note-today")).not_to_be_empty()
    return page


async def said(page: Page) -> str:
    """What a screen reader hears of the bucket that is selected in the chart."""
    return str(await page.locator(PLOT).get_attribute("aria-valuetext"))


def bytes_of(text: str) -> float:
    """ "1.54 GB" as a number."""
    matched = re.fullmatch(r"([\d.]+)\s(\w?)B", text)
    assert matched, text
    return float(matched[1]) * float(1000 ** " kMGTPE".index(matched[2] or " "))


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
    # A disc is full as it is.
    await expect(page.locator("#warnings li")).to_have_count(1)
    await expect(page.locator("#warnings")).to_contain_text("/srv/data is 97.5\u00a0% full.")
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


async def test_totals_of_today_and_this_month_in_the_readers_zone_are_what_the_api_says(
    site: Served, contexts: Any
) -> None:
    zone = "Pacific/Auckland"
    await nas(site, minutes=150)
    context, _ = await contexts(timezone_id=zone)
    page = await opened(await context.new_page())

    whole = await site.client.get("/usage/nas", time_zone=zone)
    for row, name in enumerate(("eth0", "eth1", "eth2", "wg0")):
        stats = await site.client.get(f"/servers/nas/interfaces/{name}/stats", time_zone=zone)
        for cell, span in ((3, "today"), (4, "month")):
            shown = page.locator("#interfaces tbody tr").nth(row).locator("td").nth(cell).locator(".value")
            for value, field in zip(await shown.all_inner_texts(), ("rx_bytes", "tx_bytes"), strict=True):
                assert bytes_of(value) == pytest.approx(stats[span][field], rel=0.005, abs=0.5), (name, span, field)
    month = await page.locator("#figure-month .value").all_inner_texts()
    assert [bytes_of(one) for one in month] == [
        pytest.approx(whole["month"][field], rel=0.005) for field in ("rx_bytes", "tx_bytes")
    ]


async def test_the_period_is_switched_by_keyboard_and_kept_in_the_address(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page)
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", re.compile("9[56]"))

    await page.get_by_role("radio", name="24h").focus()
    await page.keyboard.press("ArrowLeft")

    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", "59")
    assert page.url.endswith("/servers/nas?period=1h")
    await page.reload()
    await expect(page.get_by_role("radio", name="1h")).to_be_checked()
    await page.get_by_role("combobox", name="Interface").select_option("eth1")
    await expect(page).to_have_url(re.compile("period=1h&interface=eth1"))
    for period in ("7d", "30d", "1y"):
        await page.locator("#period").get_by_text(period).click()
        await expect(page).to_have_url(re.compile(f"period={period}&interface=eth1"))
        await expect(page.locator("#summary")).to_contain_text("received, at most")
    await page.go_back()
    await expect(page.get_by_role("radio", name="30d")).to_be_checked()


async def test_hovering_gives_the_exact_values_of_the_bucket(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page, "/servers/nas?interface=eth0")
    plot = await page.locator(".u-over").bounding_box()
    assert plot

    await page.mouse.move(plot["x"] + plot["width"] - 20, plot["y"] + 50)

    data = (await site.client.get("/metrics/sparkline/nas/network", period="24h", interface="eth0"))["data"]
    octets = {f"{one['rx_bytes']:_}".replace("_", "\u202f") for one in data[-3:]}
    tip = await page.locator(".tip").inner_text()
    assert any(f"{one}\u00a0B" in tip or f"{one} B" in tip for one in octets), (tip, octets)
    await page.mouse.move(5, 5)
    await expect(page.locator(".tip")).to_be_hidden()


async def test_the_chart_is_read_and_zoomed_by_keyboard_alone(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page)
    plot = page.locator(PLOT)

    await page.locator("#whole").evaluate("(button) => document.getElementById('interface').focus()")
    for _ in range(12):
        await page.keyboard.press("Tab")
        if await plot.evaluate("(plot) => plot === document.activeElement"):
            break
    newest = await said(page)
    assert re.search(r"received 1\.\d+\sMbit/s, [\d\u202f]+\sB, sent", newest), newest
    await page.keyboard.press("ArrowLeft")
    assert await said(page) != newest
    await page.keyboard.press("Home")
    assert f"received {NOTHING}" in await said(page)
    await page.keyboard.press("End")
    await page.keyboard.press("PageDown")
    await page.keyboard.press("PageUp")
    async with page.expect_response(lambda answer: "/traffic/history" in answer.url and "bucket=1m" in answer.url):
        for _ in range(2):
            await page.keyboard.press("+")
    await expect(page).to_have_url(re.compile("since=.*&until="))
    await expect(page.locator("#whole")).to_be_visible()
    before = page.url
    await page.keyboard.press("-")
    await expect(page).not_to_have_url(before)
    await page.keyboard.press("Escape")
    await expect(page).to_have_url(re.compile("/servers/nas$"))
    await expect(plot).to_be_focused()


async def test_dragging_zooms_in_and_brings_finer_data(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page)
    plot = await page.locator(".u-over").bounding_box()
    assert plot
    assert "bucket" not in page.url

    async with page.expect_response(lambda answer: "/traffic/history" in answer.url) as answer:
        await page.mouse.move(plot["x"] + plot["width"] * 0.94, plot["y"] + 40)
        await page.mouse.down()
        await page.mouse.move(plot["x"] + plot["width"] * 0.99, plot["y"] + 90, steps=4)
        await page.mouse.up()

    history = await (await answer.value).json()
    assert history["bucket_seconds"] == 60
    assert {one["interface"] for one in history["data"]} == {None}
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", re.compile("^[67][0-9]$"))
    await page.get_by_role("button", name="Whole period").click()
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", "95")
    await page.go_back()
    await expect(page.locator(PLOT)).to_have_attribute("aria-valuemax", re.compile("^[67][0-9]$"))
    await page.mouse.dblclick(plot["x"] + plot["width"] / 2, plot["y"] + 40)
    await expect(page).to_have_url(re.compile("/servers/nas$"))


def zoom(last: datetime, since_minutes: int, until_minutes: int) -> str:
    """The address of the chart between two moments before the last heartbeat."""
    since, until = (f"{last - minutes * MINUTE:%Y-%m-%dT%H:%M:%SZ}" for minutes in (since_minutes, until_minutes))
    return f"/servers/nas?since={since}&until={until}"


# How many pixels of a column of the plot, so far from its left (0 to 1), have the colour of what was received.
_COLOURED = """
(share) => {
  const over = document.querySelector(".u-over").getBoundingClientRect();
  const canvas = document.querySelector(".plot canvas");
  const box = canvas.getBoundingClientRect();
  const x = Math.round(over.left - box.left + over.width * share);
  const {data} = canvas.getContext("2d").getImageData(x, 0, 1, canvas.height);
  let found = 0;
  // Teal over white: less red than green by far.
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 0 && data[at + 1] - data[at] > 20) found += 1;
  return found;
}
"""


async def test_a_gap_is_drawn_as_a_gap_and_said(site: Served, page: Page, complaints: Complaints) -> None:
    complaints.expect("willReadFrequently")
    last = await nas(site)

    await opened(page, zoom(last, 80, 30))

    await expect(page.locator("#events .gap")).to_contain_text(re.compile(r"No data from .* to .*, 14\smin\."))
    for share, is_there in (((80 - 70) / 50, True), ((80 - sum(GAP) / 2) / 50, False), ((80 - 35) / 50, True)):
        assert (await page.evaluate(_COLOURED, share) > 20) is is_there, share
    await page.locator(PLOT).focus()
    await page.keyboard.press("Home")
    for _ in range(80 - GAP[0] + 3):
        await page.keyboard.press("ArrowRight")
    assert re.search(f"received {NOTHING}, sent {NOTHING}, no data", await said(page))
    for _ in range(GAP[0] - GAP[1] - 3):
        await page.keyboard.press("ArrowRight")
    # All that crossed it is there, and its rate is no peak.
    assert re.search(r"received 1\.14\sMbit/s, 127\u202f875\u202f000\sB.*all that crossed the gap", await said(page))


async def test_what_reports_seldom_has_wide_buckets_and_no_gaps(site: Served, page: Page) -> None:
    last = minute_now()
    beats = [beat("nas", last - (24 - n) * 5 * MINUTE, n, n, interval_seconds=300) for n in range(25)]
    await site.client.post_batch(beats)

    for address in ("/servers/nas?period=1h", zoom(last, 100, 10)):
        await opened(page, address)

        # Five minutes' worth of what nas gets in one.
        await expect(page.locator("#summary")).to_contain_text(re.compile(r"at most 2[0-9.]+\skbit/s"))
        await expect(page.locator("#events .gap")).to_have_count(0)
        assert await page.locator(PLOT).get_attribute("aria-valuemax") in ("5", "6")


async def test_a_reboot_a_reset_and_what_was_rejected_are_marked_with_words(site: Served, page: Page) -> None:
    last = await nas(site)
    impossible = beat("nas", last + timedelta(seconds=20), REBOOTED, RESET)
    impossible["network_interfaces"][0]["rx_bytes"] = 2**50
    await site.client.post(impossible)

    await opened(page)

    events = page.locator("#events")
    await expect(events).to_contain_text(re.compile(r"Reboot: the counters of eth0, eth1 and \d more began anew"))
    await expect(events).to_contain_text("The counters of eth1 began anew without a reboot")
    await expect(events).to_contain_text("eth0 showed more than the line can carry: not counted.")
    await page.goto(zoom(last, 40, 0).replace("?", "?interface=eth0&"))
    await expect(events.locator(".reboot")).to_have_count(1)
    await expect(events.locator(".reset")).to_have_count(0)
    await page.get_by_text("The same as a table").click()
    noted = page.locator("#numbers tbody tr", has_text="Reboot")
    await expect(noted).to_have_count(1)
    await expect(noted).to_contain_text(re.compile("the counters of eth0"))


async def test_the_same_numbers_are_there_as_a_table(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page, "/servers/nas?interface=eth0")

    await page.get_by_text("The same as a table").click()

    await expect(page.locator("#numbers-caption")).to_contain_text("Traffic of eth0, in steps of 15\u00a0min")
    data = (await site.client.get("/metrics/sparkline/nas/network", period="24h", interface="eth0"))["data"]
    cells = await page.locator("#numbers tbody td:nth-child(4)").all_inner_texts()
    told = [int(text.replace("\u202f", "")) for text in cells if text != NOTHING]
    assert told == [one["rx_bytes"] for one in reversed(data)]


async def test_an_interface_is_chosen_in_the_table_and_says_more(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page)

    await page.get_by_role("link", name="eth1").focus()
    await page.keyboard.press("Enter")

    await expect(page).to_have_url(re.compile(r"\?interface=eth1$"))
    await expect(page.get_by_role("combobox", name="Interface")).to_have_value("eth1")
    await expect(page.locator("#detail")).to_contain_text(re.compile(r"State\s*up.*Today.*MB", re.DOTALL))
    await expect(page.get_by_role("link", name="eth1")).to_have_attribute("aria-current", "true")


async def test_a_heartbeat_shows_within_two_seconds(site: Served, page: Page) -> None:
    last = await nas(site)
    await opened(page)
    fast = beat("nas", last + timedelta(seconds=30), REBOOTED, RESET)
    fast["network_interfaces"][0]["rx_bytes"] += 300_000_000
    fast["network_interfaces"][2]["is_up"] = True

    await site.client.post(fast)

    await expect(page.locator("#figure-now")).to_contain_text("80.0\u00a0Mbit/s", timeout=2_000)
    row = page.locator("#interfaces tbody tr").nth(2)
    await expect(row.locator(".badge")).to_have_text("up", timeout=1_000)


async def test_names_are_text_wherever_they_stand(site: Served, page: Page) -> None:
    name = MARKUP.replace("/", "")
    hostile = beat("nas", minute_now(), 1, 1) | {"hostname": MARKUP, "agent_version": MARKUP, "primary_interface": name}
    hostile["os_info"] = {"pretty_name": MARKUP}
    hostile["network_interfaces"] = [
        interface(name, 1, 1, kind="<b>bold</b>", stacked_on=[name[:-1]], operstate="<i>up</i>"),
        interface("eth0", 1, 1),
    ]
    hostile["filesystems"] = [filesystem(MARKUP, 99, device=MARKUP, fs_type=MARKUP, state="<b>gone</b>")]
    await site.client.post(hostile)

    await opened(page)
    await page.get_by_role("link", name=name, exact=True).click()
    await page.get_by_text("The same as a table").click()
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
    assert len(asked) < 40
    # The youngest beyond a server's budget (LINKBEAT_MAX_SERIES) are in a row together.
    await page.get_by_role("button", name="Show all 257").click()
    await expect(rows).to_have_count(257)
    together = page.get_by_role("button", name="44 of them")
    await page.get_by_role("button", name="Now", exact=True).click()
    await expect(rows.first.locator(together)).to_be_visible()
    await expect(page.get_by_role("columnheader", name="Now")).to_have_attribute("aria-sort", "descending")
    await page.get_by_role("searchbox", name="Filter interfaces").fill("eth29")
    shown = page.locator("#interfaces tbody th", has_text=re.compile("^eth29"))
    await expect(shown).to_have_count(11)
    await page.get_by_role("searchbox", name="Filter interfaces").fill("")
    await page.get_by_label("only those that are up").check()
    await expect(page.locator("#interfaces-shown")).to_have_text(re.compile(r"1[67]\d of 257"))
    await page.get_by_role("searchbox", name="Filter interfaces").fill("nothing")
    await expect(page.locator("#interfaces-shown")).to_have_text("None of its interfaces matches.")


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
    await expect(page.locator("#interfaces-shown")).to_have_text("No data: its agent reports no interfaces.")
    await expect(page.locator("#filesystems")).to_contain_text("No data")
    await expect(page.locator("#note-today")).to_have_text("no data yet")
    assert await violations(page) == []


async def test_an_unknown_server_is_said_to_be_unknown(page: Page, complaints: Complaints) -> None:
    complaints.expect("status of 404")

    await page.goto("/servers/nobody")

    await expect(page.locator("#unknown")).to_contain_text("No server of this name ever sent a heartbeat.")
    await expect(page.locator("#known")).to_be_hidden()
    assert await violations(page) == []


async def test_a_page_that_hears_nothing_any_more_says_so(site: Served, page: Page, complaints: Complaints) -> None:
    complaints.expect("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET")
    await nas(site)
    await opened(page)

    await site.stop()

    await expect(page.locator("#stale")).to_contain_text(
        re.compile(r"The service does not answer\. What is shown is of \d\d:\d\d"), timeout=8_000
    )


async def test_a_server_that_is_silent_is_offline_with_a_remedy(site: Served, page: Page, database: Any) -> None:
    await nas(site)
    await database.execute(
        "UPDATE servers SET received_at = now() - INTERVAL '2 hours', shared_since = now(), shared_at = now()"
    )

    await page.goto("/servers/nas")

    await expect(page.locator("#status")).to_have_text(re.compile(r"Silent 2\sh"))
    await expect(page.locator("#seen")).to_have_text("last heartbeat 2\u00a0h ago")
    await expect(page.locator("#warnings li").first).to_contain_text("No heartbeat since ")
    await expect(page.locator("#warnings")).to_contain_text("systemctl status linkbeat-agent")
    await expect(page.locator("#warnings")).to_contain_text("Two machines report as nas")
    await expect(page.locator("#figure-now")).to_contain_text(NOTHING)


async def test_what_an_agent_says_of_its_deliveries_is_told(site: Served, page: Page) -> None:
    said = {"queued": 40, "oldest_seconds": 4000, "spool": "memory", "dropped": 3, "rejected": 1}
    await nas(site, delivery=said, truncated=True)

    await page.goto("/servers/nas")

    warnings = page.locator("#warnings")
    for words in (
        "3 heartbeats had to be given up",
        "1 heartbeat of this agent",
        "in its memory alone",
        "40 heartbeats wait on the machine, the oldest for 1\u00a0h 6\u00a0min",
        "some are left out",
    ):
        await expect(warnings).to_contain_text(words)


async def test_a_quota_is_set_shown_and_removed(site: Served, page: Page) -> None:
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
    await expect(page.locator("#warnings")).to_contain_text(re.compile("(of its quota is used|Its quota is)"))
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
    await page.locator(PLOT).focus()
    assert "kB/s" in await said(page)
    for theme in ("light", "dark"):
        await page.locator("#theme").click()
        await expect(page.locator("html")).to_have_attribute("data-theme", theme)
        await expect(page.locator(".plot canvas")).to_have_count(1)


async def test_it_fits_a_phone_and_has_nothing_that_axe_finds_in_either_colours(site: Served, page: Page) -> None:
    await nas(site)
    await opened(page, "/servers/nas?interface=eth0")
    for opening in ("The same as a table", "Set a quota", "Picture link"):
        await page.get_by_text(opening).click()
    await expect(page.locator("#numbers tbody tr")).not_to_have_count(0)

    for width in (1280, 360):
        await page.set_viewport_size({"width": width, "height": 740})
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_the_link_to_a_picture_needs_no_token(site: Served, contexts: Any) -> None:
    await nas(site)
    context, _ = await contexts(permissions=["clipboard-read", "clipboard-write"])
    page = await opened(await context.new_page(), "/servers/nas?period=7d&interface=eth0")

    await page.get_by_text("Picture link").click()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    await page.keyboard.press("Enter")
    await page.get_by_label("Colours as the reader").select_option("dark")
    await page.get_by_role("button", name="Copy link").click()

    await expect(page.locator("#picture-words")).to_have_text("Copied.")
    link = await page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"/nas/network\.svg\?.*interface=eth0.*period=7d.*theme=dark", link), link
    picture = await site.client.http.get(link, headers={"Authorization": ""})
    assert (picture.status_code, picture.headers["content-type"].split(";")[0]) == (200, "image/svg+xml")
