"""The dashboard's modules as files: who imports whom, what the pages load ahead, and what only one of them does."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.web.pages import STATIC

SCRIPTS = STATIC / "js"
PAGES = sorted(path.name for path in STATIC.glob("*.html"))
MODULES = sorted(path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.js"))
_IMPORT = re.compile(r'^(?:import|export)\s[^;]*?from "([^"]+)";', re.MULTILINE)


def imports(name: str) -> Iterator[str]:
    for found in _IMPORT.findall((SCRIPTS / name).read_text(encoding="utf-8")):
        yield os.path.normpath(Path(name).parent / found)


def reached(starts: list[str]) -> set[str]:
    """These modules and all that they import, directly or not."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports(name)
    return found


def scripts(page: str) -> tuple[list[str], list[str]]:
    """What a page runs, and what it has loaded ahead."""
    text = (STATIC / page).read_text(encoding="utf-8")
    run = re.findall(r'<script type="module" src="/static/js/([^"]+)">', text)
    return run, re.findall(r'<link rel="modulepreload" href="/static/js/([^"]+)">', text)


@pytest.mark.parametrize("page", ["fleet.html", "server.html"])
def test_a_page_loads_all_of_its_modules_ahead_and_no_other(page: str) -> None:
    run, ahead = scripts(page)

    assert run
    assert sorted(ahead) == sorted(reached(run) - set(run)), "one that is missing costs a round trip more"


def test_every_module_is_one_of_a_page() -> None:
    run = [name for page in PAGES for name in scripts(page)[0]]

    assert sorted(reached(run) | {"shared/theme.js"}) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_its_own_page_and_what_is_shared(name: str) -> None:
    folder = Path(name).parts[0]

    assert {Path(one).parts[0] for one in imports(name)} <= {folder, "shared"}


@pytest.mark.parametrize(
    "words",
    ["setInterval(", "visibilitychange", "document.hidden", 'addEventListener("online"', "new AbortController"],
)
def test_only_one_module_knows_when_to_ask_again(words: str) -> None:
    knowing = {name for name in MODULES if words in (SCRIPTS / name).read_text(encoding="utf-8")}

    assert knowing <= {"shared/freshness.js"}


def test_no_module_has_more_than_three_hundred_lines() -> None:
    lengths = {name: len((SCRIPTS / name).read_text(encoding="utf-8").splitlines()) for name in MODULES}

    assert {name: lines for name, lines in lengths.items() if lines > 310} == {}
