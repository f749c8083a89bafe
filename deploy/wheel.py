"""Builds the wheel `linkbeat`, which installs everything below one package of that name. hatchling runs it.

In the repository, agent, service, migrations and sql are folders at the top, and modules import each other by those
names. Installed like that, they would meet the packages service, agent and sql of PyPI in site-packages, and
whichever came second would break the first. So the wheel holds linkbeat/agent, linkbeat/service and so on, and the
imports of its files name them there. Imports are changed at the positions that the syntax tree gives; the rest of a
file, line numbers included, stays as it is. The agent's files import each other relatively and are not touched: they
also run as the archive linkbeat-agent.pyz and from the package linkbeat_agent of the agent's own wheel.
"""

import ast
import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilderConfig

PACKAGE = "linkbeat"
MODULES = ("agent", "service", "migrations")
REWRITTEN = ("service", "migrations")

_INIT = '"""Linkbeat: what crosses every network interface of a fleet, exact to the byte, in TimescaleDB."""\n\n'
INIT = f"{_INIT}from .agent import __version__ as __version__\n"
# An editable installation finds the packages in the repository, which is on sys.path then.
INIT_OF_EDITABLE = f"{_INIT}__path__ = [{{repository!r}}]\n"


class ImportFormError(Exception):
    """An import that cannot be moved below `linkbeat` without changing what it binds; names file and line."""


class Wheel(BuildHookInterface[WheelBuilderConfig]):
    """Puts the packages below `linkbeat`, over the files that pyproject.toml selects."""

    PLUGIN_NAME = "custom"
    _directory: "tempfile.TemporaryDirectory[str]"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="linkbeat-wheel-")
        if version == "editable":
            init = INIT_OF_EDITABLE.format(repository=self.root)
            build_data["force_include_editable"][self._written("__init__.py", init)] = f"{PACKAGE}/__init__.py"
            return
        # hatchling leaves a selected file out where a hook names another for its place.
        included = build_data["force_include"]
        included[self._written("__init__.py", INIT)] = f"{PACKAGE}/__init__.py"
        for file in self.build_config.builder.recurse_included_files():
            top = Path(file.relative_path).parts[0]
            if top in REWRITTEN and file.relative_path.endswith(".py"):
                source = Path(file.path).read_text(encoding="utf-8")
                moved = below_package(source, file.relative_path)
                included[self._written(file.relative_path, moved)] = file.distribution_path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._directory.cleanup()

    def _written(self, name: str, content: str) -> str:
        path = Path(self._directory.name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")
        return str(path)


def below_package(source: str, name: str) -> str:
    """The module with each absolute import of Linkbeat's own packages changed to its name in the wheel.

    name    of the file, for errors.

    Raises ImportFormError for `import service.x`: it binds `service`, which in the wheel is another name.
    """
    lines = source.encode().splitlines(keepends=True)  # the syntax tree counts columns in bytes of UTF-8
    places: list[tuple[int, int]] = []
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_ours(node.module):
            found = re.compile(rb"from[ \t]+(?=\w)").match(lines[node.lineno - 1], node.col_offset)
            if found is None:
                raise ImportFormError(f"{name}:{node.lineno}: write 'from {node.module} import' on one line")
            places.append((node.lineno - 1, found.end()))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _is_ours(alias.name):
                    if alias.asname is None:
                        raise ImportFormError(
                            f"{name}:{node.lineno}: 'import {alias.name}' cannot be moved into the wheel's package; "
                            f"write 'from … import' or 'import {alias.name} as'"
                        )
                    places.append((alias.lineno - 1, alias.col_offset))
    for row, column in sorted(places, reverse=True):
        line = lines[row]
        lines[row] = line[:column] + f"{PACKAGE}.".encode() + line[column:]
    return b"".join(lines).decode()


def _is_ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in MODULES
