"""The folders of service/ stand in an order: a module imports from its own folder and from those below it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import service

ROOT = Path(service.__file__).parent

# From the lowest to the highest; rooms on one line know nothing of each other.
ORDER = (
    ("background", "clock", "command", "directories", "metrics", "wire"),
    ("settings",),
    ("embedded",),
    ("http",),
    ("database",),
    ("access", "cache"),
    ("ingest", "usage", "traffic"),
    ("alerts",),
    ("fleet", "pictures", "web"),
    ("operations", "openapi"),
    ("app",),
    ("serving",),
    ("run",),
    ("__main__",),
)
LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MODULES = {
    ".".join(("service", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "__init__.py"
}


def imported(source: str) -> Iterator[str]:
    """The modules of service/ that this source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == "service")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "service":
            for one in node.names:
                full = f"{node.module}.{one.name}"
                yield full if full in MODULES else node.module


def refused(module: str, source: str) -> list[str]:
    """What this module imports against the order."""
    room = module.split(".")[1]
    return [
        f"{module} imports {other}"
        for other in imported(source)
        if (of := other.split(".")[1]) != room and LEVELS[of] >= LEVELS[room]
    ]


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {module.split(".")[1] for module in MODULES}

    assert rooms == LEVELS.keys()
    assert len(rooms) <= 25


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_rooms_below_its_own(module: str) -> None:
    assert refused(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_no_modules_import_each_other_in_a_ring() -> None:
    arrows = {module: set(imported(path.read_text(encoding="utf-8"))) for module, path in MODULES.items()}

    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the ring


@pytest.mark.parametrize(
    "source",
    [
        "from service.fleet.listing import page",
        "from service.fleet import listing",
        "import service.fleet.listing",
        "from service.traffic import totals",  # beside it
        "def late() -> None:\n    from service.app import create_app",
    ],
)
def test_an_import_against_the_order_is_seen(source: str) -> None:
    assert len(refused("service.usage.routes", source)) == 1


def test_imports_along_the_order_pass() -> None:
    source = "import asyncio\nfrom service.http.errors import Problem\nfrom service.usage import quotas"

    assert refused("service.usage.routes", source) == []
