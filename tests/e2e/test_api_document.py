"""docs/api.md, usage.md and pictures.md: every command runs against the service and answers as the page says; and no
route is missing in the first of them."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import ServiceProcess
from tests.helpers.support import KEY, heartbeat

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "api.md").read_text(encoding="utf-8")
# Commands, and what the last of them answers, where the page says so.
BLOCK = re.compile(r"^```sh\n(?P<commands>.*?)^```$(?:\n\n```json\n(?P<answer>.*?)^```$)?", re.MULTILINE | re.DOTALL)
CURL = re.compile(r'"\$URL(?P<path>/[^"?]*)')


def documented() -> set[tuple[str, str]]:
    """The method and path of every command."""
    found = set()
    for block in BLOCK.finditer(PAGE):
        for command in re.split(r"(?m)(?=^curl |^printf )", block["commands"]):
            path = CURL.search(command)
            if path:
                named = re.search(r"-X (\w+)", command)
                is_sent = " -G " not in command and re.search(r" (-d|--data-binary) ", command) is not None
                found.add((named[1] if named else "POST" if is_sent else "GET", path["path"]))
    return found


def differences(said: Any, found: Any, where: str = "") -> list[str]:
    """What the answer lacks of what the page says: names, and kinds of value; `…` stands for any text."""
    if isinstance(said, dict) and isinstance(found, dict):
        lines = [f"{where}.{name} is missing" for name in said.keys() - found.keys()]
        for name in said.keys() & found.keys():
            lines += differences(said[name], found[name], f"{where}.{name}")
        return lines
    if isinstance(said, list) and isinstance(found, list):
        if len(found) < len(said):
            return [f"{where} has {len(found)} members, not {len(said)}"]
        return [line for n, one in enumerate(said) for line in differences(one, found[n], f"{where}[{n}]")]
    if said == "…":
        return [] if isinstance(found, str) else [f"{where} is {found!r}, no text"]
    return [] if said == found else [f"{where} is {found!r}, not {said!r}"]


def last_answer(output: str) -> Any:
    """Of several answers, one behind the other."""
    answer, at = None, 0
    while at < len(output):
        answer, at = json.JSONDecoder().raw_decode(output, at)
    return answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl")
@pytest.mark.parametrize(("page", "commands"), [("api.md", 97), ("usage.md", 8), ("pictures.md", 4)])
def test_every_command_runs_and_answers_as_the_page_says(
    service_process: ServiceProcess, page: str, commands: int, tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "URL": service_process.url, "KEY": KEY, "no_proxy": "*"}
    blocks = list(BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")))
    assert sum(block["commands"].count("curl ") for block in blocks) >= commands
    if page != "api.md":  # which reports by itself
        server_id = "nas" if page == "usage.md" else "mediaserver"
        httpx.post(
            f"{service_process.url}/api/v1/agents/heartbeat", json=heartbeat(server_id, eth0=(1, 2)),
            headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=60,
        ).raise_for_status()  # fmt: skip

    for block in blocks:
        # A curl whose answer is an error, and is not expected to be, fails.
        run = subprocess.run(
            ["sh", "-e", "-c", block["commands"]],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == 0, (block["commands"], run.stdout, run.stderr)
        if block["answer"]:
            said, found = json.loads(block["answer"]), last_answer(run.stdout)
            assert differences(said, found) == [], (block["commands"], run.stdout)
    if page == "pictures.md":
        assert (tmp_path / "nas.svg").read_text().startswith("<svg ")


def test_every_route_has_a_command_and_every_command_a_route(service_process: ServiceProcess) -> None:
    paths = httpx.get(f"{service_process.url}/schema/openapi.json", trust_env=False, timeout=60).json()["paths"]
    routes = {
        (method.upper(), path): re.compile(re.sub(r"{\w+}", "[^/]+", path))
        for path, item in paths.items()
        for method in item
    }

    commands = documented()

    def route(method: str, path: str) -> tuple[str, str] | None:
        # A literal path goes before one with parameters.
        found = [key for key, pattern in routes.items() if key[0] == method and pattern.fullmatch(path)]
        return min(found, key=lambda key: key[1].count("{"), default=None)

    assert [one for one in commands if route(*one) is None] == []
    assert sorted(routes.keys() - {route(*one) for one in commands}) == []
