"""tsc and Biome check the dashboard's JavaScript where Node.js is installed; nothing else needs either."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from docs.generate_types import DECLARATIONS, declarations, document
from service.web.pages import STATIC

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "node_modules" / ".bin"
UNREACHABLE = "http://127.0.0.1:9"  # discard: nothing listens there
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None,
    reason="Node.js or npm is missing: apt install nodejs npm",
)
needs_tools = pytest.mark.skipif(not (TOOLS / "tsc").exists(), reason="tsc and Biome are not installed: make js-tools")


def lint(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make lint-js`, with no registry in reach."""
    make = shutil.which("make")
    assert make
    offline = {"npm_config_registry": UNREACHABLE, "npm_config_fetch_retry_mintimeout": "10"}
    return subprocess.run(
        [make, "--no-print-directory", "-f", str(ROOT / "Makefile"), "lint-js"],
        cwd=directory, env=os.environ | offline | environment, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip


def test_the_types_are_what_the_openapi_document_says() -> None:
    text = declarations(document())

    assert DECLARATIONS.read_text(encoding="utf-8") == text, "run: make docs"
    assert '"/api/v1/servers/{server_id}": { asked: { path: { "server_id": string } }; answer: Server };' in text
    assert '"/api/v1/system/definitions": { asked: {}; answer: Definitions };' in text
    assert '    "folded_into": string | null;' in text
    assert '"kind": "reboot" | "reset" | "rejected" | "glitch";' in text


def test_the_lock_names_no_host_and_only_what_development_needs() -> None:
    lock = (ROOT / "package-lock.json").read_text(encoding="utf-8")
    package = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))

    assert "://" not in lock, "run: make lock-js, which leaves addresses out"
    assert "dependencies" not in package
    assert all(one.get("dev") for name, one in json.loads(lock)["packages"].items() if name)
    assert all(version[0].isdigit() for version in package["devDependencies"].values()), "a version is named exactly"


def test_the_types_of_uplot_are_those_of_the_vendored_release() -> None:
    package = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))

    vendored = (STATIC / "vendor" / "uPlot.iife.min.js").read_text(encoding="utf-8")
    assert f"(v{package['devDependencies']['uplot']})" in vendored.partition("\n")[0]


def test_without_node_it_says_so_in_one_line_and_goes_on(tmp_path: Path) -> None:
    for name in ("sh", "make"):
        (tmp_path / name).symlink_to(os.path.realpath(str(shutil.which(name))))

    done = lint(ROOT, PATH=str(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "The dashboard's JavaScript is not checked: Node.js or npm is missing (apt install nodejs npm).\n"
    )


@needs_node
def test_where_the_tools_cannot_be_installed_it_says_so_and_goes_on(tmp_path: Path) -> None:
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(ROOT / name, tmp_path)

    done = lint(tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("The dashboard's JavaScript is not checked: npm could not install")
    assert "make js-tools" in done.stdout


@needs_node
@needs_tools
def test_it_passes_and_asks_no_registry_where_the_tools_are_installed() -> None:
    done = lint(ROOT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "node_modules/.bin/tsc" in done.stdout
    assert "not checked" not in done.stdout


@needs_node
@needs_tools
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            "/** @param {Api.Server} server */\nexport const f = (server) => server.hostnam;\n",
            "Did you mean 'hostname'",
        ),
        ("export const f = (server) => server;\n", "implicitly has an 'any' type"),
        ("/** @type {Api.Agent | null} */\nconst agent = null;\nexport const f = () => agent.paused;\n", "null"),
    ],
)
def test_a_wrong_type_is_an_error(tmp_path: Path, wrong: str, words: str) -> None:
    (tmp_path / "wrong.js").write_text(wrong)
    config = {"extends": str(ROOT / "tsconfig.json"), "include": ["wrong.js", str(DECLARATIONS)]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))

    done = subprocess.run(
        [TOOLS / "tsc", "-p", tmp_path], capture_output=True, text=True, timeout=170, check=False, cwd=ROOT
    )

    assert done.returncode != 0
    assert words in done.stdout


@needs_node
@needs_tools
@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ("export const f = (a) => a == 1;\n", "noDoubleEquals"),
        ("const unused = 1;\nexport const f = 2;\n", "noUnusedVariables"),
        ("export const f = (values) => values.map((one) => { one.show(); });\n", "useIterableCallbackReturn"),
    ],
)
def test_what_the_linter_warns_of_is_an_error(tmp_path: Path, wrong: str, rule: str) -> None:
    directory = tmp_path / "service" / "web" / "static" / "js"
    directory.mkdir(parents=True)
    (directory / "wrong.js").write_text(wrong)
    shutil.copy(ROOT / "biome.json", tmp_path)

    done = subprocess.run(
        [TOOLS / "biome", "lint", "--error-on-warnings"], cwd=tmp_path, capture_output=True, text=True, timeout=170,
        check=False,
    )  # fmt: skip

    assert done.returncode != 0
    assert rule in done.stdout + done.stderr
