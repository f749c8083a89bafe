"""`linkbeat run`: database, schema, service and agent on this machine, until Ctrl-C.

The children run in separate sessions, so that Ctrl-C reaches only this process and they are stopped in order: the
agent, then the service, then the database.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from service.access.keys import fleet_key, key_path, secret_key
from service.access.sessions import CODE_SECONDS, Sessions
from service.command import INSTALLED, python_module
from service.database import schema
from service.embedded.choose import choose_database
from service.embedded.guarded import Guarded
from service.serving.single import single_run
from service.settings import Settings

AGENT_INTERVAL_SECONDS = "5"
READY_SECONDS = 30
POINTS_SECONDS = 60
IDLE_SECONDS = 7  # two heartbeats: after that, an interface without traffic is shown too
STOP_SECONDS = 15
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


class Stopped(Exception):
    """A signal requests the end, or a child exited unexpectedly; `failure` describes that."""

    def __init__(self, failure: str = "") -> None:
        super().__init__(failure)
        self.failure = failure


def run_all(settings: Settings) -> int:
    """Runs until one of SIGNALS, then stops everything that it started. Returns 1 if a part failed."""
    failures: list[str] = []

    def give_up(failure: str) -> None:
        """Called from the thread that supervises the database; the main thread stops everything, as after a signal."""
        failures.append(failure)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        with single_run(settings, _say) as lock:
            key = fleet_key(settings)
            for number in SIGNALS:
                signal.signal(number, _stop)
            with choose_database(settings, _say) as database, database.watched(_say, give_up):
                asyncio.run(schema.migrate(database.url, _say, settings))
                _run_on(settings, database.url, key, lock)
    except Stopped as stopped:
        failure = "".join(failures[:1]) or stopped.failure
        _say(failure or "Stopped.")
        return 1 if failure else 0
    return 0


def _run_on(settings: Settings, database_url: str, key: str, lock: int) -> None:
    """Starts service and agent, prints the addresses, and waits. Always raises Stopped.

    lock    inherited by both: it is held for as long as a process of this run exists.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - not bound here
    api = _Api(f"http://{host}:{settings.port}", key)
    environment = os.environ | {"LINKBEAT_DATABASE_URL": database_url, "LINKBEAT_API_KEY": key, "LINKBEAT_URL": api.url}
    # A heartbeat every five seconds, so that data appears soon; environment variables override it.
    # Its spool is in the data directory, separate from that of an installed agent, whose configuration file it ignores.
    agent = {
        "LINKBEAT_INTERVAL_SECONDS": AGENT_INTERVAL_SECONDS,
        "LINKBEAT_START_JITTER_SECONDS": "0",
        "LINKBEAT_SPOOL_DIR": str(settings.data_path / "agent"),
        "LINKBEAT_CONFIG": os.devnull,
    } | environment
    with _child("service", python_module("service", "serve"), environment, lock) as serving:
        _await_ready(api, serving)
        with _child("agent", python_module("agent", "run"), agent, lock) as reporting:
            seen = _await_points(api, [serving, reporting])
            _show(seen, api.url, settings, _code(settings, key))
            while True:
                _check_alive([serving, reporting])
                time.sleep(0.5)


@dataclass
class _Child:
    name: str
    program: Guarded


@contextlib.contextmanager
def _child(name: str, command: list[str], environment: dict[str, str], lock: int) -> Iterator[_Child]:
    with contextlib.ExitStack() as stack:
        with _signals_held():
            # If this process is killed, the service still finishes the requests in progress.
            program = Guarded(command, environment, first=signal.SIGTERM, pass_fds=[lock])
            stack.callback(_end, program)
        yield _Child(name, program)


def _end(program: Guarded) -> None:
    _ignore_signals()
    program.process.terminate()
    try:
        program.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        program.process.kill()
        program.wait()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Defers signals: an exception raised within Popen would leave a child behind."""
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


class _Api:
    """The service's API, as a client sees it."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._key = key
        # Without the proxies of the environment: they cannot reach this machine's loopback address.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **query: str) -> Any:
        """The JSON of the response, or None if there is none yet."""
        request = urllib.request.Request(  # noqa: S310 - always http
            f"{self.url}{path}?{urllib.parse.urlencode(query)}", headers={"Authorization": f"Bearer {self._key}"}
        )
        try:
            with self._opener.open(request, timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None


@dataclass
class _Seen:
    """The result of the agent's first heartbeats."""

    server_id: str
    interface: str
    points: list[dict[str, Any]]


def _await_ready(api: _Api, serving: _Child) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while api.get("/health/ready") is None:
        _check_alive([serving])
        if time.monotonic() > deadline:
            raise Stopped(f"The service was not ready within {READY_SECONDS} seconds.")
        time.sleep(0.1)


def _await_points(api: _Api, children: list[_Child]) -> _Seen | None:
    """The points of the primary interface, once it has traffic or IDLE_SECONDS have passed; None without an
    interface."""
    _say("Waiting for the first heartbeats …")
    started = time.monotonic()
    while time.monotonic() < started + POINTS_SECONDS:
        _check_alive(children)
        newest = (api.get("/api/v1/servers", sort="last_seen", order="desc", limit="1") or {}).get("servers")
        if newest:
            path = f"/api/v1/metrics/sparkline/{newest[0]['id']}/network"
            series = (api.get(path, period="1h", group_by="interface") or {}).get("series", [])
            main = _main(series, newest[0]["primary_interface"])
            if main and (_traffic(main) or time.monotonic() > started + IDLE_SECONDS):
                return _Seen(newest[0]["id"], main["interface"], main["data"])
            if not newest[0]["network_interfaces"]:
                return _Seen(newest[0]["id"], "", [])
        time.sleep(0.5)
    return None


def _main(series: list[dict[str, Any]], primary: str | None) -> dict[str, Any] | None:
    """The series of the primary interface, or of the busiest one if the agent chose none."""
    named = next((one for one in series if one["interface"] == primary), None)
    return named or max(series, key=_traffic, default=None)


def _traffic(series: dict[str, Any]) -> int:
    return sum(map(_traffic_at, series["data"]))


def _traffic_at(point: dict[str, Any]) -> int:
    return int(point["rx_bytes"] + point["tx_bytes"])


def _code(settings: Settings, key: str) -> str:
    """A code that signs in once; "" without a terminal, because anybody who can read the log could use it."""
    return Sessions(secret_key(settings), key).code() if sys.stderr.isatty() else ""


def _show(seen: _Seen | None, url: str, settings: Settings, code: str) -> None:
    # Browsers do not send the part after # to any server.
    dashboard = f"{url}/sign-in#code={code}" if code else f"{url}/"
    if seen is None:
        _say(
            f"No heartbeat arrived within {POINTS_SECONDS} seconds; the lines above show the reason. The service is "
            "running:\n"
            f"  {dashboard}"
        )
        return
    key = "$LINKBEAT_API_KEY" if settings.api_key else f"$(cat {_shell(key_path(settings))})"
    query = {"period": "1h"} | ({"interface": seen.interface} if seen.interface else {})
    target = f"{url}/api/v1/metrics/sparkline/{seen.server_id}/network?{urllib.parse.urlencode(query)}"
    if seen.points:
        last = next((point for point in reversed(seen.points) if _traffic_at(point)), seen.points[-1])
        first_line = (
            f"{seen.server_id} {seen.interface}: {last['rx_bytes']:,} bytes received and "
            f"{last['tx_bytes']:,} sent in the minute from {last['timestamp'][11:16]} UTC"
        )
    else:
        first_line = f"{seen.server_id} reports no interface except lo: {url}/api/v1/servers/{seen.server_id}"
    once = f"              (signs in one browser, once, within {CODE_SECONDS // 60} minutes)\n"
    _say(
        f"\nLinkbeat is running. {first_line}.\n\n"
        f"  Dashboard:  {dashboard}\n"
        f"{once if code else ''}"
        f"  Sparkline:  curl -s -H \"Authorization: Bearer {key}\" '{target}'\n"
        f"  API:        {url}/schema\n"
        f"  Database:   {'linkbeat psql' if INSTALLED else 'make psql'}\n\n"
        f"Ctrl-C stops the agent, the service and the database.\n"
    )


def _shell(path: Path) -> str:
    text = str(path)
    return text if text.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum() else f"'{text}'"


def _check_alive(children: list[_Child]) -> None:
    for child in children:
        if child.program.has_ended:
            status = child.program.process.returncode
            raise Stopped(f"The {child.name} exited unexpectedly with status {status}; its last lines are above.")


def _stop(_: int, __: FrameType | None) -> None:
    _ignore_signals()
    raise Stopped


def _ignore_signals() -> None:
    """Ignores signals during shutdown: a second Ctrl-C must not leave a child behind."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
