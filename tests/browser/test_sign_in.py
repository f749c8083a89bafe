"""Signing in and out, as people do it."""

from typing import Any

from playwright.async_api import Page, expect

from service.access.keys import secret_key
from service.access.sessions import Sessions
from tests.browser.serving import Served, violations
from tests.helpers.support import KEY


async def signed_out(contexts: Any) -> tuple[Page, Any]:
    context, complaints = await contexts(token_id=None)
    complaints.expect("status of 401")
    return await context.new_page(), complaints


async def test_a_token_opens_the_page_that_was_asked_for(site: Served, contexts: Any) -> None:
    page, _ = await signed_out(contexts)

    await page.goto("/sign-in?back=%2F%3Fperiod%3D7d")
    await page.get_by_label("Token").fill("wrong-wrong-wrong-wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("This token is not valid.")
    await page.get_by_label("Token").fill(KEY)
    await page.keyboard.press("Enter")

    await page.wait_for_url(f"{site.url}/?period=7d")
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/sign-in?back=**")
    assert await page.context.cookies() == []


async def test_a_token_that_only_reports_is_told_what_is_needed(site: Served, contexts: Any) -> None:
    page, complaints = await signed_out(contexts)
    complaints.expect("status of 403")
    fleet = (await site.client.http.post("/api/v1/tokens", json={"kind": "fleet"})).json()["token"]

    await page.goto("/sign-in")
    await page.get_by_label("Token").fill(fleet)
    await page.get_by_role("button", name="Sign in").click()

    await expect(page.get_by_role("alert")).to_contain_text("Signing in needs a token with the 'read' permission")


async def test_the_link_of_make_run_signs_in_by_itself_and_leaves_no_code_in_the_address(
    site: Served, contexts: Any
) -> None:
    page, _ = await signed_out(contexts)
    code = Sessions(secret_key(site.settings), KEY).code()

    await page.goto(f"/sign-in#code={code}")

    await page.wait_for_url(f"{site.url}/")
    assert "code" not in await page.evaluate("document.referrer")
    assert len(await page.context.cookies()) == 1


async def test_it_leads_nowhere_else(site: Served, contexts: Any) -> None:
    page, _ = await signed_out(contexts)

    for back in (
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "/.//evil.example",
        "javascript:alert(1)",
    ):
        await page.goto(f"/sign-in?back={back}")
        await page.get_by_label("Token").fill(KEY)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{site.url}/")


async def test_the_sign_in_page_has_nothing_that_axe_finds(contexts: Any) -> None:
    for scheme in ("light", "dark"):
        context, _ = await contexts(token_id=None, color_scheme=scheme)
        page = await context.new_page()
        await page.goto("/sign-in")
        assert await violations(page) == []
