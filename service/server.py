"""uvicorn as it serves Linkbeat: one write an answer, and no collections of garbage that there is none of."""

import asyncio
import gc
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Nothing that a heartbeat leaves behind is in a cycle; to look for it after every 700 objects is a twelfth of all work.
COLLECT_AFTER_OBJECTS = 50_000


class Server(uvicorn.Server):
    """uvicorn, which says its address once it answers."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 20)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            self._say(f"Listening on http://{f'[{host}]' if ':' in host else host}:{port}")


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which writes an answer's headers and its body apart: two system calls, and two packets."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]  # what it uses of one


class _Gathering:
    """A transport that writes once for all that is written in one turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
