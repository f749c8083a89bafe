"""A stand-in for the docker command, which keeps one container's and one volume's state: no daemon runs in tests."""

import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STAND_IN = """#!{python}
import json, os, pathlib, sys
file = pathlib.Path({state!r})
state = json.loads(file.read_text())
command = sys.argv[1]
state["calls"].append(sys.argv[1:])
code = 0
if command == "info":
    print(state["version"])
elif command == "inspect":
    code = 0 if state["image"] else 1
    print(state["running"], state["image"])
elif command == "run":
    state.update(image=sys.argv[sys.argv.index("postgres") - 1], running="true", volume="yes")
    state["password"] = os.environ["POSTGRES_PASSWORD"]
elif command in ("start", "stop"):
    state["running"] = "true" if command == "start" else "false"
elif command == "rm":
    state.update(image="", running="false")
elif command == "volume":
    code = 0 if state["volume"] else 1
elif command == "port":
    print("127.0.0.1:" + str(state["port"]))
file.write_text(json.dumps(state))
sys.exit(code)
"""


class StandIn:
    """What the stand-in was asked, and what it holds."""

    def __init__(self, file: Path, port: int) -> None:
        self._file = file
        self._write(
            {
                "version": "28.0",
                "image": "",
                "running": "false",
                "volume": "",
                "port": port,
                "password": "",
                "calls": [],
            }
        )

    def __getitem__(self, name: str) -> object:
        return json.loads(self._file.read_text(encoding="utf-8"))[name]

    def set(self, **values: str) -> None:
        self._write({**json.loads(self._file.read_text(encoding="utf-8")), **values})

    @property
    def calls(self) -> list[list[str]]:
        return [list(call) for call in json.loads(self._file.read_text(encoding="utf-8"))["calls"]]

    def _write(self, state: dict[str, object]) -> None:
        self._file.write_text(json.dumps(state), encoding="utf-8")


@contextmanager
def docker_stand_in(directory: Path, patch: pytest.MonkeyPatch, *, search: str = "") -> Iterator[StandIn]:
    """First on PATH, before the directories of `search`."""
    script = directory / "bin" / "docker"
    script.parent.mkdir()
    script.write_text(STAND_IN.format(python=sys.executable, state=str(directory / "state")), encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    patch.setenv("PATH", os.pathsep.join(filter(None, [str(script.parent), search])))
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield StandIn(directory / "state", server.getsockname()[1])
