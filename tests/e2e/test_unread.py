"""Clients that ask and do not read: uvicorn as the service runs it, with an answer of some megabytes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from service.http import connections
from service.http import protocol as http_protocol
from service.http.connections import Connections
from service.http.limits import ClientAddress
from service.http.protocol import MAX_PIPELINED, Server, protocol

BODY = bytes(8 << 20)
REQUEST = b"GET / HTTP/1.1\r\nHost: linkbeat\r\n\r\n"


class Served:
    def __init__(self, port: int) -> None:
        self.port = port
        self.requests = 0
        self.known = Connections(1_000, ClientAddress([]), 1_000)
        self.config = uvicorn.Config(
            self, http=protocol(self.known), lifespan="off", log_config=None, timeout_keep_alive=1
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.requests += 1
            size = int(scope["path"].strip("/") or len(BODY))
            headers = [(b"content-length", b"%d" % size)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": BODY[:size], "more_body": False})

    def connect(self) -> socket.socket:
        """A client whose own system takes as little as it can before it is read."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.port))
        client.setblocking(False)
        return client

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.known) != count:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)

    async def until_asked(self, requests: int) -> None:
        async with asyncio.timeout(60):
            while self.requests < requests:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)

    def let_time_pass(self) -> None:
        """UNREAD_SECONDS, for every connection with an answer that waits to be read."""
        waiting: list[Any] = [one for of_address in self.known._of.values() for one in of_address]
        for connection in waiting:
            assert connection._reading is not None
            connection._reading.cancel()
            connection._check_reading()


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = Served(listener.getsockname()[1])
        running = Server(served.config, lambda _: None, lambda: None)
        task = asyncio.create_task(running._serve([listener]))
        while not running.started:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        yield served
        running.should_exit = running.force_exit = True
        await task


async def take(client: socket.socket, size: int) -> bytes:
    loop, taken = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(60):
        while len(taken) < size and (data := await loop.sock_recv(client, min(1 << 16, size - len(taken)))):
            taken += data
    return bytes(taken)


@pytest.mark.parametrize("pipelined", [1, 5])
async def test_an_answer_that_nobody_reads_is_dropped(served: Served, pipelined: int) -> None:
    with contextlib.closing(served.connect()) as client:
        client.send(REQUEST * pipelined)
        await served.until_asked(1)

        await served.until(0)

    assert served.requests <= 2


async def test_an_answer_that_fits_below_the_high_water_mark_is_dropped_too(served: Served) -> None:
    """It pauses no writing, and closing waits until all is sent."""
    with contextlib.closing(served.connect()) as client:
        # As much as the kernel takes, and a little more.
        client.send(b"".join(REQUEST.replace(b"/ ", b"/60000 ") for _ in range(MAX_PIPELINED)))
        await served.until_asked(1)

        await served.until(0)


async def test_a_client_that_reads_slowly_is_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 3_600.0)
    with contextlib.closing(served.connect()) as client:
        client.send(REQUEST)
        for _ in range(8):
            assert len(await take(client, 256 << 10)) == 256 << 10
            served.let_time_pass()

        assert len(await take(client, 1 << 20)) == 1 << 20
        served.let_time_pass()
        served.let_time_pass()  # nothing was read in between
        await served.until(0)


async def test_past_so_much_unread_the_one_that_waited_the_longest_is_dropped(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 60.0)
    monkeypatch.setattr(connections, "ALL_UNREAD_BYTES", 5 << 20)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(served.connect())) for _ in range(3)]
        for number, client in enumerate(clients, start=1):
            client.send(REQUEST)
            await served.until_asked(number)

        await served.until(1)

        last = await take(clients[2], len(BODY))
        assert last.startswith(b"HTTP/1.1 200 OK")
        assert len(last) == len(BODY)


async def test_more_requests_at_once_than_may_wait_end_the_connection(served: Served) -> None:
    with contextlib.closing(served.connect()) as client:
        client.send(REQUEST.replace(b"/ ", b"/10 ") * MAX_PIPELINED)
        assert (await take(client, 1_000)).count(b"HTTP/1.1 200 OK") >= 10

    with contextlib.closing(served.connect()) as client:
        client.send(REQUEST * (MAX_PIPELINED + 5))
        await asyncio.sleep(0)
        with contextlib.suppress(ConnectionResetError):
            await take(client, 2 * len(BODY))
        await served.until(0)
    assert served.requests <= MAX_PIPELINED + 1 + 2


async def test_past_the_bound_of_an_address_an_idle_connection_makes_room(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None of them goes by itself meanwhile, however long that is.
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 3_600.0)
    served.config.timeout_keep_alive = 3_600
    served.known._per_address = 2
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(contextlib.closing(served.connect())) for _ in range(2)]
        await served.until(2)

        new = stack.enter_context(contextlib.closing(served.connect()))
        new.send(REQUEST.replace(b"/ ", b"/10 "))

        assert (await take(new, 40)).startswith(b"HTTP/1.1 200 OK")
        assert await take(idle[0], 1) == b"", "the oldest was closed"
        for client in (idle[1], new):
            client.send(REQUEST)
        await served.until_asked(3)
        refused = stack.enter_context(contextlib.closing(served.connect()))
        head = await take(refused, 4_000)
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable")
        assert b"retry-after: 5\r\n" in head
        assert b'"overloaded"' in head
