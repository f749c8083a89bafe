"""The dashboard's pages and files as they travel: headers, tags, compression, and what there is not."""

import asyncio
import gzip
import re
import sys
from pathlib import Path

import pytest

from agent import __version__
from agent.install import program
from service.web import agent_file, pages
from tests.helpers.support import Client

PAGES = {
    "/": "Fleet",
    "/servers/nas": "Server",
    "/servers/never-seen": "Server",
    "/sign-in": "Sign in",
    "/manage": "Manage",
}
POLICY = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
    "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
}  # fmt: skip


@pytest.mark.parametrize("path", [*PAGES, "/nothing"])
async def test_a_page_is_open_holds_nothing_inline_and_loads_nothing_from_elsewhere(service: Client, path: str) -> None:
    answer = await service.http.get(path, headers={"Authorization": "", "Accept": "text/html,*/*;q=0.8"})

    assert (answer.status_code, answer.headers["content-type"]) == (
        404 if path == "/nothing" else 200,
        "text/html; charset=utf-8",
    )
    assert f"<title>{PAGES.get(path, 'No such page')} · Linkbeat</title>" in answer.text
    assert set(answer.headers["content-security-policy"].split("; ")) == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script(?![^>]* src=)|<style|\bstyle=|\bon\w+=|javascript:|https?://", answer.text)
    for name in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        found = await service.http.get(name, headers={"Authorization": ""})
        assert found.status_code == 200, name
        assert found.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_what_a_browser_has_is_not_sent_again(service: Client) -> None:
    for name in ("/", "/static/js/shared/format.js"):
        first = await service.http.get(name)
        again = await service.http.get(name, headers={"If-None-Match": first.headers["etag"]})

        assert not first.headers["etag"].startswith("W/")
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert (await service.http.get(name, headers={"If-None-Match": '"another"'})).status_code == 200


async def test_gzip_is_sent_to_who_takes_it_under_a_tag_of_its_own(service: Client) -> None:
    plain = await service.http.get("/static/css/base.css", headers={"Accept-Encoding": "identity"})
    zipped = await service.http.get("/static/css/base.css", headers={"Accept-Encoding": "br, gzip"})

    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.content == plain.content == (pages.STATIC / "css/base.css").read_bytes()
    assert zipped.headers["etag"] != plain.headers["etag"]
    assert zipped.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert int(zipped.headers["content-length"]) == len(gzip.compress(plain.content, 9, mtime=0))


async def test_a_file_of_another_version_is_not_kept(service: Client) -> None:
    page = (await service.http.get("/")).text
    version = re.search("/static/([0-9a-f]{12})/", page)
    assert version

    other = await service.http.get("/static/0123456789ab/css/base.css")

    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")


NO_FILES = [
    "/static/", "/static/none.js", "/static/../pages.py", "/static/%2e%2e/pages.py", "/static//etc/passwd",
    "/static/js", "/static/js/shared", "/static/js/format.js", "/static/0123456789ab/../pages.py",
    "/static/js/../../sessions.py",
]  # fmt: skip


async def test_no_other_file_is_served(service: Client, subtests: pytest.Subtests) -> None:
    for path in NO_FILES:
        with subtests.test(path):
            answer = await service.http.get(path)

            assert answer.status_code == 404
            assert "import" not in answer.text


async def test_programs_are_told_of_unknown_paths_as_ever(service: Client) -> None:
    for path, accept in (("/nothing", "*/*"), ("/nothing", "application/json"), ("/api/v1/nothing", "text/html")):
        answer = await service.http.get(path, headers={"Accept": accept})

        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.json()["code"] == "not_found"


async def test_the_pages_are_not_part_of_the_api(service: Client) -> None:
    document = (await service.http.get("/schema/openapi.json")).json()

    assert not {"/", "/sign-in", "/sign-out", "/servers/{server_id}"} & set(document["paths"])
    assert not any(path.startswith("/static") for path in document["paths"])


async def test_the_agent_is_handed_out_as_one_file_that_runs(
    service: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_file, "BUILT", tmp_path / "none")
    answer = await service.http.get("/linkbeat-agent.pyz", headers={"Authorization": ""})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    again = await service.http.get("/linkbeat-agent.pyz", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    file = tmp_path / "linkbeat-agent.pyz"
    file.write_bytes(answer.content)
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", file, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await run.communicate()
    assert (run.returncode, errors) == (0, b"")
    assert __version__.encode() in output


@pytest.mark.parametrize("is_of_another_version", [False, True])
async def test_what_make_agent_has_built_goes_before_it_unless_it_is_of_another_version(
    service: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_of_another_version: bool
) -> None:
    files = program() | {"msgspec/of_every_machine.so": b""}
    if is_of_another_version:
        files["agent/loop.py"] += b"# older"
    built = tmp_path / "linkbeat-agent.pyz"
    built.write_bytes(agent_file.packed(files))
    monkeypatch.setattr(agent_file, "BUILT", built)

    handed_out = (await service.http.get("/linkbeat-agent.pyz")).content

    assert (handed_out == built.read_bytes()) is not is_of_another_version
    if is_of_another_version:
        assert handed_out == agent_file.packed(program())


def test_both_ways_of_being_dark_have_the_same_tokens() -> None:
    css = (pages.STATIC / "css/base.css").read_text()

    chosen, system = (
        sorted(re.findall(r"--[\w-]+: [^;]+|color-scheme: \w+", block))
        for block in (
            re.search(r'\[data-theme="dark"\] {(.*?)}', css, re.DOTALL)[1],  # type: ignore[index]
            re.search(r':not\(\[data-theme="light"\]\) {(.*?)}', css, re.DOTALL)[1],  # type: ignore[index]
        )
    )

    assert chosen == system
    assert len(chosen) > 10
