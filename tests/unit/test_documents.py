"""The pages of the project: links lead somewhere, citations of the specification resolve, what they name is there."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from agent import __version__
from service.traffic.periods import PERIODS

REPOSITORY = Path(__file__).parents[2]
SPECIFICATION = REPOSITORY / "docs/specification.md"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "deploy/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")

# How code and tests cite the specification.
SECTION = re.compile(r"\bspec(?:ification)?(?:'s)?(?:\.md)?,? (?:section )?(\d+(?:\.\d+)?)\b")
CASES = re.compile(r"\btest_cases?_(\d+)(?:_to_(\d+))?_|\bacceptance cases? (\d+)(?: (?:and|to) (\d+))?")
PITFALLS = re.compile(r"\btest_pitfalls?_(\d+)(?:_to_(\d+))?_|\bpitfalls? (\d+)(?: (?:and|to) (\d+))?")


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that a heading gets on GitHub: lower case, without punctuation, hyphens for blanks."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for found in LINK.finditer(prose(page)):
            yield page, found[1] or found[2]


def tracked(*folders: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [REPOSITORY / name for name in listed if (REPOSITORY / name).is_file()]


def cited(pattern: re.Pattern[str]) -> dict[str, set[str]]:
    """What is cited, and the files that do; of a range, both ends."""
    places: dict[str, set[str]] = {}
    for path in tracked("agent", "service", "sql", "migrations", "tests", "deploy", "benchmarks", "docs"):
        if path == Path(__file__) or path.suffix not in (".py", ".sql", ".md", ".js"):
            continue
        for found in pattern.finditer(path.read_text(encoding="utf-8")):
            for number in filter(None, found.groups()):
                places.setdefault(number, set()).add(str(path.relative_to(REPOSITORY)))
    return places


def test_every_link_between_the_pages_leads_somewhere() -> None:
    broken = []
    count = 0
    for page, target in links():
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        count += 1
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(f"{page.relative_to(REPOSITORY)}: {target}")

    assert broken == []
    assert count > 60


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, queue = set(), [REPOSITORY / "README.md"]
    while queue:
        page = queue.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        queue += [(page.parent / target.partition("#")[0]).resolve() for of, target in links() if of == page]

    assert {str(page.relative_to(REPOSITORY)) for page in set(PAGES) - reached} == set()


def test_every_cited_section_of_the_specification_is_there() -> None:
    headings = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)", SPECIFICATION.read_text(encoding="utf-8"), re.MULTILINE))

    places = cited(SECTION)

    assert {number: files for number, files in places.items() if number not in headings} == {}
    assert {"1.4", "2.1", "3", "6"} <= set(places)


def test_every_cited_acceptance_case_and_pitfall_is_there() -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")
    cases = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    pitfalls = [int(number) for number in re.findall(r"^(\d+)\. ", text.partition("## Appendix")[2], re.MULTILINE)]

    assert {number: files for number, files in cited(CASES).items() if int(number) not in cases} == {}
    assert {number: files for number, files in cited(PITFALLS).items() if int(number) not in pitfalls} == {}
    assert cases == set(range(1, 25))
    assert pitfalls == list(range(1, 46)), "the numbers are stable, and Markdown counts them by itself"


def test_every_acceptance_case_has_a_test() -> None:
    tested = {int(number) for number in cited(CASES)}
    for found in (
        CASES.finditer(path.read_text(encoding="utf-8")) for path in tracked("tests") if path.suffix == ".py"
    ):
        for one in found:
            if one[2]:
                tested |= set(range(int(one[1]), int(one[2]) + 1))

    assert set(range(1, 25)) - tested == set()


def test_every_decision_is_listed_and_says_why_and_when_to_think_again() -> None:
    records = sorted((REPOSITORY / "docs/decisions").glob("0*.md"))
    listed = re.findall(r"\((0\d+-[\w-]+\.md)\)", (REPOSITORY / "docs/decisions/README.md").read_text(encoding="utf-8"))

    assert listed == [path.name for path in records]
    for number, path in enumerate(records, start=1):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. ")
        for part in ("Status", "Context", "Decision", "Why", "Reconsider"):
            assert f"**{part}" in text, (path.name, part)


def test_every_file_that_contributing_and_the_decisions_name_is_there() -> None:
    files = tracked(".")
    paths = {str(path.relative_to(REPOSITORY)) for path in files} | {path.name for path in files}
    folders = {
        str(parent.relative_to(REPOSITORY))
        for path in files
        for parent in path.parents
        if parent.is_relative_to(REPOSITORY)
    }
    named = set()
    for page in (REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs/decisions").glob("*.md"))):
        named |= set(re.findall(r"`([\w-][\w./-]*/[\w./-]+|[\w-]+\.(?:py|md|sql|lock|json))`", prose(page)))
    named = {name.rstrip("/") for name in named if not name.startswith("dist/")}

    assert named - paths - folders == set()
    assert len(named) > 20


def test_the_changelog_has_this_version_first() -> None:
    headings = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert next(heading for heading in headings if heading != "Unreleased") == __version__


@pytest.mark.parametrize("page", ["README.md", "docs/api.md", "docs/pictures.md", "docs/specification.md"])
def test_a_page_that_lists_the_periods_lists_all_of_them(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")

    assert [name for name in PERIODS if f"`{name}`" not in text] == []


def test_contributing_names_what_there_is() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    named = {target for words in re.findall(r"\bmake ((?:[a-z-]+ ?)+)`", page) for target in words.split()}
    named |= set(re.findall(r"^make ([a-z-]+)", page, re.MULTILINE))

    assert named - targets == set()
    assert {"lint", "test", "run", "lock", "wheel", "agent"} <= named


def test_hooks_before_a_commit_are_local_and_run_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    lint = re.findall(
        r"^\t\$\(BIN\)/(\w+(?: \w+)?)", makefile.partition("\nlint:")[2].partition("\n.PHONY")[0], re.MULTILINE
    )

    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert [hook["name"] for hook in repository["hooks"]] == lint
    assert all(hook["entry"].startswith(f".venv/bin/{hook['name']}") for hook in repository["hooks"])


def test_the_editor_keeps_the_line_length_of_the_linter() -> None:
    configured = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"][
        "line-length"
    ]
    kept = re.findall(
        r"^max_line_length = (\d+)$", (REPOSITORY / ".editorconfig").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert kept == [str(configured)]
