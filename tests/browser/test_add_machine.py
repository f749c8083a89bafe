"""The first minutes: an empty fleet, the command that it shows, and a machine that is added with it."""

import asyncio
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.serving import Served, violations
from tests.helpers.support import heartbeat

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl")


async def commands(page: Page) -> list[str]:
    await page.get_by_role("button", name="Make a command").click()
    await expect(page.locator("pre code")).to_have_count(2)
    return await page.locator("pre code").all_inner_texts()


def environment(directory: Path) -> dict[str, str]:
    """Of a person's shell, whose python3 is one that the agent can run on; without the agent's pause at its start."""
    python = directory / "bin" / "python3"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(shutil.which("python3.11") or os.sys.executable))  # type: ignore[attr-defined]
    return {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "HOME": str(directory),
        "no_proxy": "*",
        "LINKBEAT_START_JITTER_SECONDS": "0",
    }


@needs_curl
async def test_an_empty_fleet_shows_a_command_that_adds_a_machine(site: Served, page: Page, tmp_path: Path) -> None:
    await page.goto("/")
    await expect(page.get_by_role("heading", name="No machine reports yet")).to_be_visible()
    running, _ = await commands(page)

    agent = await asyncio.create_subprocess_exec(
        "sh", "-c", f"{running.replace('python3 ', 'exec python3 ')}", cwd=tmp_path, env=environment(tmp_path),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        row = page.locator("tbody tr")
        await expect(row).to_have_count(1, timeout=20_000)
        await expect(row.locator(".status")).to_have_text("Up")
        await expect(page.get_by_role("heading", name="No machine reports yet")).to_be_hidden()
        tokens = (await site.client.get("/tokens", kind="server"))["tokens"]
        assert [one["server_id"] for one in tokens] == [await row.get_attribute("data-server")]
    finally:
        agent.terminate()
        _, log = await agent.communicate()
    assert b"Traceback" not in log, log.decode()


@needs_curl
async def test_the_command_that_installs_it_does_what_it_says(site: Served, page: Page, tmp_path: Path) -> None:
    await page.goto("/")
    _, installing = await commands(page)
    shell = environment(tmp_path)
    # It only says what it would do: nothing of this machine is changed. The Python of tests may be closed to others.
    sudo = tmp_path / "bin" / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@" --dry-run --python /usr/bin/python3\n')
    sudo.chmod(sudo.stat().st_mode | stat.S_IXUSR)

    done = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        installing,
        cwd=tmp_path,
        env=shell,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await done.communicate()

    assert done.returncode == 0, output.decode()
    assert b"linkbeat-agent.pyz: OK" in output
    assert b"/etc/systemd/system/linkbeat-agent.service" in output
    assert b"/etc/linkbeat/token" in output
    assert b"lb_e_" not in output
    assert site.url in installing


async def test_a_file_that_is_not_the_services_is_not_run(site: Served, page: Page, tmp_path: Path) -> None:
    await page.goto("/")
    await page.get_by_role("button", name="Make a command").click()
    command = await page.locator("pre code").first.inner_text()
    (tmp_path / "linkbeat-agent.pyz").write_bytes(b"print('somebody else')")

    # What curl fetched was exchanged on the way.
    checking = command.partition("&&")[2].partition("&&")[0]
    done = await asyncio.create_subprocess_shell(
        f"{checking} && echo ran", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await done.communicate()

    assert done.returncode != 0
    assert b"linkbeat-agent.pyz: FAILED" in output
    assert await page.get_by_role("alert").count() == 0, "this machine's own pages are warned of nothing"


async def test_a_fleet_that_is_not_empty_can_be_added_to(site: Served, page: Page) -> None:
    await site.client.post(heartbeat("nas", eth0=(1, 1)))
    await page.goto("/")
    await expect(page.locator("tbody tr")).to_have_count(1)

    await page.get_by_role("button", name="Add a machine").click()
    dialog = page.get_by_role("dialog", name="Add a machine")
    await dialog.get_by_role("button", name="Make a command").click()
    await expect(dialog.locator("pre code").first).to_contain_text("LINKBEAT_API_KEY=lb_e_")
    assert await violations(page) == []
    await page.keyboard.press("Escape")

    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("button", name="Add a machine")).to_be_focused()


async def test_who_may_only_read_is_told_what_it_takes(site: Served, contexts: Any) -> None:
    token = (await site.client.http.post("/api/v1/tokens", json={"kind": "read"})).json()
    context, complaints = await contexts(token_id=token["id"])
    complaints.expect("status of 403")
    page = await context.new_page()

    await page.goto("/")
    await page.get_by_role("button", name="Make a command").click()

    await expect(page.get_by_text("Sign in with the fleet key or an admin token")).to_be_visible()
    assert await page.locator("pre").count() == 0
