"""Serves HTTP in one process until SIGTERM or SIGINT."""

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
    """The parameters that service/serving/workers.py passes to one of several processes on a port.

    number      identifies the process in the log and in its metrics
    processes   number of processes
    listener    descriptor of the socket to listen on
    ready       descriptor of a pipe: the process writes a byte to it once it serves requests
    directory   where the processes share their metrics
    """

    def __init__(self, number: int, processes: int, listener: int, ready: int, directory: Path) -> None:
        self.number = number
        self.processes = processes
        self.listener = listener
        self.ready = ready
        self.directory = directory

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Parses the result of `str`. Raises SettingsError for any other text."""
        try:
            number, processes, listener, ready, directory = text.split(":", 4)
            return cls(int(number), int(processes), int(listener), int(ready), Path(directory))
        except ValueError:
            raise SettingsError(f"--worker: only for the processes of `serve --workers`, got {text!r}") from None

    def __str__(self) -> str:
        return f"{self.number}:{self.processes}:{self.listener}:{self.ready}:{self.directory}"

    def socket(self) -> socket.socket:
        """The socket to listen on."""
        return socket.socket(fileno=self.listener)

    def is_ready(self, _: str) -> None:
        """Reports that the process serves requests."""
        with os.fdopen(self.ready, "wb") as pipe:
            pipe.write(b".")


def serve_on(
    listener: socket.socket,
    settings: Settings,
    database: DatabaseHandle,
    say: Callable[[str], None],
    place: Place | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT, then stores and answers the received requests. Returns the exit status."""
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
        http=protocol(known, app.direct),
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
    # Other threads hand the GIL back to the event loop after 0.5 ms instead of 5 ms.
    sys.setswitchinterval(0.0005)
    # The same handlers as uvicorn sets while it serves. When it ends, it raises the received signal again; that must
    # not end the process, because the database still has to be stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    failures: list[str] = []

    def give_up(failure: str) -> None:
        """Called from the thread that watches the database; shuts the service down as SIGTERM does."""
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
