"""Serving: one process that answers on a socket, until SIGTERM or SIGINT."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from service.access.keys import fleet_key
from service.app import create_app
from service.embedded.handle import DatabaseHandle
from service.http.connections import Connections, raise_descriptor_limit
from service.http.limits import ClientAddress
from service.http.listen import BACKLOG
from service.http.protocol import Server, protocol
from service.operations.shared_numbers import SharedNumbers
from service.settings import Settings, SettingsError

DRAIN_SECONDS = 10


class Place:
    """Of a process that serves beside others on one port: what service/serving/workers.py hands it.

    number      by which its lines in the log and its numbers for Prometheus are told from the others'
    processes   how many there are
    listener    descriptor of the socket to listen on
    ready       descriptor of a pipe: a byte is written once it answers
    directory   where the processes share their numbers
    """

    def __init__(self, number: int, processes: int, listener: int, ready: int, directory: Path) -> None:
        self.number = number
        self.processes = processes
        self.listener = listener
        self.ready = ready
        self.directory = directory

    @classmethod
    def parse(cls, text: str) -> "Place":
        """What `str` gave. Raises SettingsError for a text that this version does not make."""
        try:
            number, processes, listener, ready, directory = text.split(":", 4)
            return cls(int(number), int(processes), int(listener), int(ready), Path(directory))
        except ValueError:
            raise SettingsError(f"--worker: it is for the processes of `serve --workers` alone, got {text!r}") from None

    def __str__(self) -> str:
        return f"{self.number}:{self.processes}:{self.listener}:{self.ready}:{self.directory}"

    def socket(self) -> socket.socket:
        """The socket to listen on."""
        return socket.socket(fileno=self.listener)

    def is_ready(self, _: str) -> None:
        """It answers from now on."""
        with os.fdopen(self.ready, "wb") as pipe:
            pipe.write(b".")


def serve_on(
    listener: socket.socket,
    settings: Settings,
    database: DatabaseHandle,
    say: Callable[[str], None],
    place: Place | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT; what was taken in by then is stored and answered. Returns the exit status."""
    app = create_app(
        settings,
        database_url=database.url,
        key=fleet_key(settings),
        shared=SharedNumbers(place.directory, place.number) if place else None,
        processes=place.processes if place else 1,
    )
    known = Connections(
        settings.connections_per_address, ClientAddress(settings.trusted_proxies), raise_descriptor_limit()
    )
    config = uvicorn.Config(
        app,
        http=protocol(known),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=BACKLOG,
    )
    server = Server(config, place.is_ready if place else say, app.end_waits)
    # What works beside the event loop gives it its turn after half a millisecond, and not after five.
    sys.setswitchinterval(0.0005)
    # As uvicorn sets them while it serves. At its end it raises what came once more, and that must not end the
    # process: the database is still to be stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    failures: list[str] = []

    def give_up(failure: str) -> None:
        """Called from the thread that watches the database; ends the service in order, as the signal does."""
        failures.append(failure)
        os.kill(os.getpid(), signal.SIGTERM)

    with (
        listener,
        database.watched(say, give_up),
        asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,
    ):
        runner.run(server.serve([listener]))
    for failure in failures:
        say(f"linkbeat: {failure}")
    return 0 if server.started and not failures else 1
