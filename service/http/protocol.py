"""uvicorn tuned for Linkbeat: one write per answer, fewer garbage-collection passes, and an end to every wait."""

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

# Nothing that a heartbeat leaves behind is in a cycle; to look for it after every 700 objects is a twelfth of all work.
COLLECT_AFTER_OBJECTS = 50_000

HEAD_SECONDS = 10.0
HEAD_BYTES = 64 << 10
MAX_PIPELINED = 16  # requests that wait for the answer before theirs
JOINED_BYTES = (
    64 << 10
)  # a larger answer is written as it is: a copy for each client that does not read it would add up


# At the end, connections have so long for a last request, whose answer says that they are closed.
LAST_REQUEST_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn, which says its address once it answers, and before its end calls `ending`: requests that wait for
    something to happen would otherwise keep it waiting for them.

    At its end it listens no more, and each connection is closed by the answer to its next request: one that is closed
    as a client sends a request leaves that without an answer.
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
                connection.close_with_next_answer()
        until = time.monotonic() + LAST_REQUEST_SECONDS
        while self.server_state.connections and not self.force_exit and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with an end to what a client can keep open and have remembered.

    It writes an answer's headers and its body at once, of which uvicorn makes two system calls and two packets. And
    where uvicorn waits for ever, it closes a connection that does not bring a whole head within HEAD_SECONDS, or brings
    more than HEAD_BYTES without an end of it, or trickles a body whose answer has gone out, or does not read its
    answers (service/http/connections.py). The body of a request that is being worked on is its reader's to limit
    (service/http/body.py).
    """

    def __init__(self, *arguments: Any, known: Connections, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._known = known

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._gathering = _Gathering(transport, self.loop, self._is_closing)
        super().connection_made(self._gathering)  # type: ignore[arg-type]  # what it uses of one
        self._head_bytes = 0  # of a head that has not ended
        self._is_in_body = False
        self._messages = 0
        self._is_last = False  # the next answer is
        self._unread = 0  # bytes of answers, when that was last asked
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
        # They refer to each other: what a connection has received would stay until garbage is collected.
        self._gathering.forget()
        self.cycle = None  # type: ignore[assignment]  # as uvicorn begins
        self.pipeline.clear()

    @property
    def is_idle(self) -> bool:
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and not self.pipeline and self._reading is None and not self.transport.is_closing()

    def close_idle(self) -> None:
        self.transport.close()

    def close_with_next_answer(self) -> None:
        """The answer that is being made, or else the next one, is the last, and says so."""
        self._is_last = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def abort(self) -> None:
        """Ends it without sending what waits to be sent."""
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
        """It is closed once all has been sent, which may be never."""
        if self._reading is None and self.transport.get_write_buffer_size():
            self._await_reading()

    def _await_reading(self) -> None:
        """Gives the client UNREAD_SECONDS to take UNREAD_LEAST_BYTES of what waits, again and again."""
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
        """Bytes of answers that the client has not acknowledged, here and in the kernel's buffer.

        Of megabytes in the latter, the kernel asks for more only when a third has gone: seen from here alone, a client
        on a slow line would look like one that does not read.
        """
        queued = self.transport.get_write_buffer_size()
        try:
            kernel = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0" * 4)
        except (OSError, ValueError):  # closed by now
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
        # What was read in one piece with the end of a message is not counted: it may be of whole ones.
        self._head_bytes = 0 if self._is_in_body or self._messages != passed else self._head_bytes + len(data)
        if self._head_bytes > HEAD_BYTES:  # the parser itself keeps a header of any length until its end
            self._refuse("431 Request Header Fields Too Large", "bad_request", "the head is too large")
            return
        # A head that came in one piece, as almost every one does, is being worked on by now, and costs no timer.
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_headers_complete(self) -> None:
        self._end_deadline()
        self._is_in_body = True
        if len(self.pipeline) >= MAX_PIPELINED:
            self.abort()  # nothing that could be said now would be the answer to this one
            return
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._messages += 1
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in the words of everything else."""
        self._refuse("400 Bad Request", "bad_request", msg)

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._head_bytes and not self._is_in_body:
            self._refuse("408 Request Timeout", "request_timeout", "the head did not arrive in time")
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
    """Protocol for uvicorn, which only calls it."""
    return partial(Protocol, known=known)


class _Gathering:
    """A transport that writes once for all that is written in one turn of the loop."""

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
