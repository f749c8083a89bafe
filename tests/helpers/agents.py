"""Agents as processes, and a ledger: an HTTP server that writes down every heartbeat, whatever it then answers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from agent.segments import Record, find_records

REPOSITORY = Path(__file__).parents[2]
TAKEN = b'{"status":"ok"}'

Respond = Callable[["LedgerHandler"], None]


class Ledger(ThreadingHTTPServer):
    """Answers with `respond`, by default with an acknowledgement.

    payloads    the bytes of each heartbeat that arrived, by server and timestamp; more than one is a conflict.
    live        server, timestamp and monotonic moment of each live heartbeat's arrival.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), LedgerHandler)
        self.respond: Respond = take
        self.payloads: dict[tuple[str, str], set[bytes]] = defaultdict(set)
        self.live: list[tuple[str, str, float]] = []
        self.arrived = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: agents are killed while they wait for an answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def note(self, path: str, bodies: list[bytes]) -> None:
        with self.arrived:
            for each in bodies:
                beat = json.loads(each)
                self.payloads[beat["server_id"], beat["timestamp"]].add(each)
                if path.endswith("/heartbeat"):
                    self.live.append((beat["server_id"], beat["timestamp"], time.monotonic()))
            self.arrived.notify_all()

    def wait_for(self, what: Callable[[], bool], seconds: float) -> bool:
        with self.arrived:
            return self.arrived.wait_for(what, seconds)

    def all_payloads(self, server_id: str) -> set[bytes]:
        with self.arrived:
            return {each for (server, _), bodies in self.payloads.items() for each in bodies if server == server_id}

    def conflicts(self) -> list[tuple[str, str]]:
        return [key for key, bodies in self.payloads.items() if len(bodies) > 1]


class LedgerHandler(BaseHTTPRequestHandler):
    """`bodies` are the heartbeats of the request."""

    protocol_version = "HTTP/1.1"
    server: Ledger
    bodies: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, wbits=31)
        is_one = self.path.endswith("/heartbeat")
        self.bodies = [body] if is_one else list(map(bytes, msgspec.json.decode(body, type=list[msgspec.Raw])))
        self.server.note(self.path, self.bodies)
        self.server.respond(self)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


def take(handler: LedgerHandler) -> None:
    handler.answer(200, TAKEN, Accept_Encoding="gzip")


class AgentProcess:
    """A running `python -m agent run`, one heartbeat a second, the first at once."""

    def __init__(
        self,
        url: str,
        spool: Path,
        server_id: str,
        *,
        under: Sequence[str] = (),
        log: Path | None = None,
        **more: str,
    ) -> None:
        """`under`: the command that runs it, such as strace. Its log goes on where that of one before it ended."""
        self._log = log or spool.parent / f"{spool.name}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
        chosen = {
            "URL": url,
            "API_KEY": "the-token",
            "SERVER_ID": server_id,
            "SPOOL_DIR": str(spool),
            "CONFIG": os.devnull,
            "INTERVAL_SECONDS": "1",
            "START_JITTER_SECONDS": "0",
        } | more
        with self._log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "agent", "run"],
                cwd=REPOSITORY,
                env=kept | {f"LINKBEAT_{name}": value for name, value in chosen.items()},
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """The whole session: under strace, the agent is its child."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


def on_disk(spool: Path) -> dict[int, Record]:
    """Every record in a spool's segments, by sequence. Two of one sequence must be the same."""
    records: dict[int, Record] = {}
    for path in sorted(spool.glob("*.seg")):
        for record in find_records(path.read_bytes()).records:
            assert records.setdefault(record.sequence, record) == record
    return records
