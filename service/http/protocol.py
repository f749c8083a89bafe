"""uvicorn tuned for Linkbeat: one write per response, fewer garbage-collection passes, and a timeout for every wait."""

import asyncio
import fcntl
import gc
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any
from typing import Protocol as Interface

import uvicorn
from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

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


class Direct(Interface):
    """A route of POST that needs no task: it is given a request that has arrived whole, with its head."""

    def begin(self, scope: Scope, body: bytes, exchange: "Exchange") -> bool:
        """Whether it takes the request on, to be answered by `exchange`; otherwise the application has it."""


_NO_ROUTES: Mapping[bytes, Direct] = MappingProxyType({})


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with limits on the connections and memory that a client can hold.

    It writes headers and body of a response at once, for which uvicorn makes two system calls and two packets. Where
    uvicorn waits forever, it closes a connection whose request head is not complete within HEAD_SECONDS or exceeds
    HEAD_BYTES, whose body continues slowly after the response, or whose client does not read its responses
    (service/http/connections.py). The body of a request that is being processed is limited by its reader
    (service/http/body.py).
    """

    def __init__(self, *arguments: Any, known: Connections, direct: Mapping[bytes, Direct], **more: Any) -> None:
        """`direct`: by path, as requests spell it."""
        super().__init__(*arguments, **more)
        self._known = known
        self._direct = direct
        self._body: list[bytes] | None = None  # of a request for a direct route, whose end has not been parsed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._gathering = _Gathering(transport, self.loop, self._is_closing)
        super().connection_made(self._gathering)  # type: ignore[arg-type]  # it has the methods that uvicorn uses
        self._head_bytes = 0  # of an incomplete head
        self._is_in_body = False
        self._messages = 0
        self._is_last = False  # the next response is
        self._unread = 0  # bytes of responses that waited at the last check
        self._reading: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None  # by the loop's clock; None: in a request
        self._deadline: asyncio.TimerHandle | None = None
        self._host = self.client[0] if self.client else ""
        if self._known.add(self, self._host):
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)
        else:
            self._refuse("503 Service Unavailable", "overloaded", "too many connections", "retry-after: 5\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        self._end_reading()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
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
        self._idle_since = None
        super().data_received(data)
        if self.transport.is_closing():
            self._body = None
            return
        if self._body is not None:  # the rest of the body may take long
            self._start()
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
        if self.url in self._direct and self._may_be_direct():
            self._body = []
            return
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def _may_be_direct(self) -> bool:
        """Whether nothing is to be heeded but the request itself."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not (self.pipeline or self._is_last or self.expect_100_continue or self.flow.write_paused)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            super().on_body(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._messages += 1
        if self._body is not None:
            exchange = Exchange(self)
            if self._direct[self.url].begin(self.scope, b"".join(self._body), exchange):  # type: ignore[arg-type]  # HTTP
                self._body = None
                self.cycle = exchange  # type: ignore[assignment]  # it has what uvicorn asks for
                return
            self._start()
        super().on_message_complete()

    def _start(self) -> None:
        """Gives the application what was meant for a direct route."""
        pieces, self._body = self._body or [], None
        super().on_headers_complete()
        for one in pieces:
            super().on_body(one)

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn has a timer for each pause between requests. Here one timer finds out how long the pause has been."""

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._check_idle)

    def _check_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # the end of the response sets it again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self._check_idle)
        else:
            self.timeout_keep_alive_handler()

    def respond(self, response: bytes, *, is_last: bool) -> None:
        """Sends the response to a request of a direct route."""
        self._gathering.write_at_once(response)
        if is_last:
            self.transport.close()
        self.on_response_complete()

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


def protocol(known: Connections, direct: Mapping[bytes, Direct] = _NO_ROUTES) -> Any:
    """A factory of Protocol, for uvicorn."""
    return partial(Protocol, known=known, direct=direct)


class _NothingWaits:
    def set(self) -> None:
        pass


class Exchange:
    """A request of a direct route, and the way back: what uvicorn's cycle is to a request that has a task."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "response_complete")

    message_event = _NothingWaits()

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every response, such as Date: another list once they have changed."""
        return self._protocol.server_state.default_headers

    def rendered(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        """A response for `send`; `headers` are without Content-Length."""
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers, (b"content-length", b"%d" % len(body))):
            if name == b"connection" and value == b"close":
                self.keep_alive = False
            else:
                lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", body)
        return b"".join(lines)

    def send(self, response: bytes) -> None:
        """Ends the exchange."""
        self.response_complete = True
        if self.disconnected:
            return
        self._protocol.respond(response, is_last=not self.keep_alive)

    def abort(self) -> None:
        """Ends it without a response."""
        self.response_complete = True
        if not self.disconnected:
            self._protocol.abort()


class _Gathering:
    """A transport that joins all writes of one iteration of the event loop."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_closing: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._is_closing = is_closing
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing  # asked for twice a request

    def write_at_once(self, data: bytes) -> None:
        """A complete response, behind what is held."""
        if self._held:
            self._held.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

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
