"""Requests at a rate that does not wait for the answers, as agents send them; wrk sends the next when one is answered.

Moments are random (a Poisson process). A latency counts from the moment at which the request was due: what waits for a
free connection, or for this generator, has waited all the same.
"""

import asyncio
import random
import statistics
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.harness import Result

CONNECTIONS = 256
LAST_ANSWER_SECONDS = 30


class _Connection(asyncio.Protocol):
    """One request at a time: `answered` is called with the connection and the status, None where it was lost."""

    def __init__(self, answered: Callable[["_Connection", int | None], None]) -> None:
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def ask(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        if len(body) >= length:
            self._received = b""
            self._answered(self, int(head[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        if self.due:
            self._answered(self, None)


def offer(base: str, make_request: Callable[[], bytes], *, per_second: float, seconds: float) -> Result:
    """What came of it: how many were answered, how fast. Raises TimeoutError where some never are."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Load().run(base, make_request, per_second, seconds))


class _Load:
    def __init__(self) -> None:
        self._idle: deque[_Connection] = deque()  # each in its turn, so that none is closed for being idle
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._latencies: list[float] = []
        self._errors = 0
        self._open = 0
        self._quiet = asyncio.Event()

    async def run(self, base: str, make_request: Callable[[], bytes], per_second: float, seconds: float) -> Result:
        loop = asyncio.get_running_loop()
        address = urlsplit(base)
        assert address.hostname
        assert address.port
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._answered), address.hostname, address.port
            )
            self._idle.append(connection)
        begun = due = loop.time()
        while (due := due + random.expovariate(per_second)) < begun + seconds:
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._ask(make_request(), due)
        async with asyncio.timeout(LAST_ANSWER_SECONDS):
            await self._quiet.wait()
        answered = len(self._latencies) - self._errors
        hundredths = statistics.quantiles(self._latencies, n=100)
        return Result(
            answered, answered / (loop.time() - begun), self._errors, hundredths[49] * 1000, hundredths[98] * 1000
        )

    def _ask(self, request: bytes, due: float) -> None:
        self._open += 1
        self._quiet.clear()
        if self._idle:
            self._idle.popleft().ask(request, due)
        else:
            self._waiting.append((request, due))

    def _answered(self, connection: _Connection, status: int | None) -> None:
        self._latencies.append(asyncio.get_running_loop().time() - connection.due)
        self._errors += status is None or status >= 400
        self._open -= 1
        if self._open == 0:
            self._quiet.set()
        connection.due = 0.0
        if status is None:
            return  # the connection is gone
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._idle.append(connection)
