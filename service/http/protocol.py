"""uvicorn tuned for Linkbeat: one write per response, fewer garbage-collection passes, and a timeout for every wait."""

import asyncio
import fcntl
import gc
import socket
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http.connections import UNREAD_LEAST_BYTES, UNREAD_SECONDS, Connections
from service.http.errors import MEDIA_TYPE, Problem

# A heartbeat creates no reference cycles; collecting after every 700 objects would be a twelfth of all work.
COLLECT_AFTER_OBJECTS = 50_000

HEAD_SECONDS = 10.0
HEAD_BYTES = 64 << 10
MAX_PIPELINED = 16  # requests that wait for an earlier response on their connection
# A larger response is not joined: a copy for each client that does not read it would add up.
JOINED_BYTES = 64 << 10


# During shutdown, connections have this long for a last request, whose response says that they are closed.
LAST_REQUEST_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn, which prints its address once it accepts connections, and calls `ending` before it shuts down: otherwise
    it would wait for long-polling requests to end.

    As it shuts down, it stops listening, and the response to a connection's next request closes that connection. If it
    closed one while a client sends a request, that request would have no response.
    """

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._say = say
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 20)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            self._say(f"Listening on http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.close_after_response()
        until = time.monotonic() + LAST_REQUEST_SECONDS
        while self.server_state.connections and not self.force_exit and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with limits on the connections and memory that a client can hold.

    It writes headers and body of a response at once, for which uvicorn makes two system calls and two packets. Where
    uvicorn waits forever, it closes a connection whose request head is not complete within HEAD_SECONDS or exceeds
    HEAD_BYTES, whose body continues slowly after the response, or whose client does not read its responses
    (service/http/connections.py). The body of a request that is being processed is limited by its reader
    (service/http/body.py).
    """

    def __init__(self, *arguments: Any, known: Connections, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._known = known

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._gathering = _Gathering(transport, self.loop, self._is_closing)
        super().connection_made(self._gathering)  # type: ignore[arg-type]  # it has the methods that uvicorn uses
        self._head_bytes = 0  # of an incomplete head
        self._is_in_body = False
        self._messages = 0
        self._is_last = False  # the next response is
        self._unread = 0  # bytes of responses that waited at the last check
        self._reading: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._host = self.client[0] if self.client else ""
        if self._known.add(self, self._host):
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)
        else:
            self._refuse("503 Service Unavailable", "overloaded", "too many connections", "retry-after: 5\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        self._end_reading()
        self._known.remove(self, self._host)
        super().connection_lost(exc)
        # They refer to each other: without this, the received data would stay in memory until the next garbage
        # collection.
        self._gathering.forget()
        self.cycle = None  # type: ignore[assignment]  # as uvicorn initializes it
        self.pipeline.clear()

    @property
    def is_idle(self) -> bool:
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.pipeline and self._reading is None and not self.transport.is_closing()

    def close_idle(self) -> None:
        self.transport.close()

    def close_after_response(self) -> None:
        """The response in progress, or else the next one, is the last, and says so."""
        self._is_last = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def abort(self) -> None:
        """Closes the connection without sending the data that waits."""
        self._end_reading()
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._end_reading()

    def _is_closing(self) -> None:
        """Limits the wait for the client: the connection is closed only after everything has been sent."""
        if self._reading is None and self.transport.get_write_buffer_size():
            self._await_reading()

    def _await_reading(self) -> None:
        """Gives the client UNREAD_SECONDS to read the next UNREAD_LEAST_BYTES."""
        self._unread = self._outstanding()
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self.loop.call_later(UNREAD_SECONDS, self._check_reading)
        self._known.is_unread(self, self.transport.get_write_buffer_size())

    def _check_reading(self) -> None:
        self._reading = None
        if self._outstanding() > self._unread - UNREAD_LEAST_BYTES:
            self.abort()
        else:
            self._await_reading()

    def _outstanding(self) -> int:
        """Bytes of responses that the client has not acknowledged, in this process and in the kernel's buffer.

        The kernel accepts more data only once a third of its buffer is free: without the kernel's part, a client on a
        slow line would look like a client that does not read.
        """
        queued = self.transport.get_write_buffer_size()
        try:
            kernel = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0" * 4)
        except (OSError, ValueError):  # already closed
            return queued
        return queued + int.from_bytes(kernel, sys.byteorder)

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
            self._known.is_read(self)

    def data_received(self, data: bytes) -> None:
        passed = self._messages
        super().data_received(data)
        if self.transport.is_closing():
            return
        # Data that arrived together with the end of a message is not counted: it may hold complete messages.
        self._head_bytes = 0 if self._is_in_body or self._messages != passed else self._head_bytes + len(data)
        if self._head_bytes > HEAD_BYTES:  # the parser itself buffers a header of any length
            self._refuse("431 Request Header Fields Too Large", "bad_request", "the request head is too large")
            return
        # A head that arrived in one piece, as almost all do, is already being processed and needs no timer.
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_headers_complete(self) -> None:
        self._end_deadline()
        self._is_in_body = True
        if len(self.pipeline) >= MAX_PIPELINED:
            self.abort()  # an error sent now would be taken for the response to an earlier request
            return
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._messages += 1
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Invalid HTTP gets the same error format as every other request."""
        self._refuse("400 Bad Request", "bad_request", msg)

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._head_bytes and not self._is_in_body:
            self._refuse("408 Request Timeout", "request_timeout", "the request head did not arrive in time")
        else:
            self.transport.close()

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: str, code: str, detail: str, headers: str = "") -> None:
        body = Problem(code, detail).body()
        self.transport.write(
            f"HTTP/1.1 {status}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
            f"{headers}connection: close\r\n\r\n".encode()
            + body
        )
        self.transport.close()


def protocol(known: Connections) -> Any:
    """A factory of Protocol, for uvicorn."""
    return partial(Protocol, known=known)


class _Gathering:
    """A transport that joins all writes of one iteration of the event loop."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_closing: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._is_closing = is_closing
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        self._is_closing()

    def forget(self) -> None:
        self._is_closing = _nothing

    def _flush(self) -> None:
        if not self._held:
            return
        held, self._held = self._held, []
        if self._transport.is_closing():
            return
        if len(held[-1]) > JOINED_BYTES:
            self._transport.writelines(held)
        else:
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _nothing() -> None:
    pass
