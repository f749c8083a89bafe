"""deploy/wheel.py: which imports are moved below `linkbeat` when the wheel is built, and that nothing else changes."""

import ast
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling builds the wheels and is missing; make lint installs it")

from deploy.wheel import MODULES, REWRITTEN, ImportFormError, below_package

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("source", "moved"),
    [
        ("from service.wire import Heartbeat\n", "from linkbeat.service.wire import Heartbeat\n"),
        ("from agent import __version__\n", "from linkbeat.agent import __version__\n"),
        ("from migrations.sql import run_file\n", "from linkbeat.migrations.sql import run_file\n"),
        ("import service.wire as wire\n", "import linkbeat.service.wire as wire\n"),
        ("import os, agent.x as a, service as s\n", "import os, linkbeat.agent.x as a, linkbeat.service as s\n"),
        ("from service import (\n    agents,\n)\n", "from linkbeat.service import (\n    agents,\n)\n"),
        ("def late():\n    from service import run\n", "def late():\n    from linkbeat.service import run\n"),
        ("é = 'ü'; from service import run\n", "é = 'ü'; from linkbeat.service import run\n"),
        ("from service import a; import agent as b", "from linkbeat.service import a; import linkbeat.agent as b"),
        ("if True:\r\n    from  agent.x import y\r\n", "if True:\r\n    from  linkbeat.agent.x import y\r\n"),
    ],
)  # fmt: skip
def test_an_import_of_linkbeats_own_packages_is_moved(source: str, moved: str) -> None:
    assert below_package(source, "x.py") == moved


@pytest.mark.parametrize(
    "source",
    [
        "from services.wire import x\n",
        "from my.service import x\n",
        "from . import service\nfrom .service import x\n",
        "import os.path, sqlalchemy\nfrom sqlalchemy import text\n",
        '"""Read this:\n\nfrom service import run\n"""\n',
        "text = '''\nimport agent.clock\n'''\nservice = 1\nprint(service.real)  # from service import run\n",
        "\f\nx = 1  # \x0b \x85 \u2028 from agent import x\n",
    ],
)
def test_anything_else_stays_as_it_is(source: str) -> None:
    assert below_package(source, "x.py") == source


@pytest.mark.parametrize(
    ("source", "line"),
    [("import service\n", 1), ("import os\nimport agent.clock, json\n", 2), ("from \\\n  service import x\n", 1)],
)
def test_an_import_that_would_bind_another_name_ends_the_build(source: str, line: int) -> None:
    with pytest.raises(ImportFormError, match=rf"^service/x\.py:{line}: .*write 'from"):
        below_package(source, "service/x.py")


def test_the_repositorys_own_files_keep_their_lines_and_lose_no_import() -> None:
    files = [path for folder in REWRITTEN for path in sorted((REPOSITORY / folder).rglob("*.py"))]

    for path in files:
        source = path.read_text(encoding="utf-8")
        moved = below_package(source, path.name)
        assert len(moved.splitlines()) == len(source.splitlines()), path
        assert imports(moved).isdisjoint(MODULES), path
        assert moved.replace("linkbeat.", "") == source.replace("linkbeat.", ""), path

    assert len(files) > 50


def test_the_agent_imports_itself_relatively_and_nothing_of_the_service() -> None:
    """It runs under four names: agent, linkbeat.agent, linkbeat_agent, and from the archive."""
    for path in sorted((REPOSITORY / "agent").glob("*.py")):
        if path.name != "archive_main.py":  # the archive's __main__, above the package
            assert imports(path.read_text(encoding="utf-8")).isdisjoint(MODULES), path


def imports(source: str) -> set[str]:
    """The top-level packages that a module imports by absolute name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
    return found
