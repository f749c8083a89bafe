"""A balancer of TCP connections before several services, as a load balancer or a Service of Kubernetes is."""

import asyncio
import itertools
from typing import Self
from urllib.parse import urlsplit

from tests.helpers.faults import passed_on


class Balancer:
    """`async with Balancer(urls) as balancer:` passes connections to `balancer.url` on to the services by turns."""

    def __init__(self, urls: list[str]) -> None:
        self._in_turn = itertools.cycle(urls)
        self._count = len(urls)
        self._passing: set[asyncio.Task[None]] = set()
        self.out: set[str] = set()  # that get no new connections

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for url in itertools.islice(self._in_turn, self._count):
            if url in self.out:
                continue
            try:
                to_service = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
            except OSError:
                continue
            self._passing |= {
                asyncio.create_task(passed_on(reader, to_service[1])),
                asyncio.create_task(passed_on(to_service[0], writer)),
            }
            return
        writer.transport.abort()
