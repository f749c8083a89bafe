"""Ways between the nodes that can be cut as a network is: nothing passes, and nobody hears that it does not."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Self

from tests.helpers.processes import free_port


class Gate:
    """A TCP port of the loopback address that leads to another one.

    Cut, it accepts, and passes nothing in either direction; what is connected stays so. Opened again, those
    connections are reset, as TCP's own retries would end them or a rebooted firewall does.
    """

    def __init__(self, network: "Network", target: int) -> None:
        self._network = network
        self._target = target
        self.port = free_port()
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """From now on nothing passes."""
        self._network.run(self._cut())

    def mend(self) -> None:
        """New connections pass again; those from before or during the cut are reset."""
        self._network.run(self._mend())

    async def _cut(self) -> None:
        self._open.clear()

    async def _mend(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        self._open.set()

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            other_reader, other = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(other)
            passing = [
                asyncio.create_task(self._pass(reader, other)),
                asyncio.create_task(self._pass(other_reader, writer)),
            ]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in passing:
                    one.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
        except OSError:
            pass  # nobody listens there: the connection is closed, as a refused one
        finally:
            for end in (writer, other):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
            await self._open.wait()  # the end of a connection is not heard either


class Network:
    """All gates, in a thread of their own: a test that blocks stops no traffic."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._gates: list[Gate] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self._gates:
            self.run(gate._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def gate(self, target: int) -> Gate:
        """A new way to a port."""
        gate = Gate(self, target)
        self.run(gate._serve())
        self._gates.append(gate)
        return gate

    def run(self, work: Coroutine[object, object, None]) -> None:
        """Does it in the network's thread."""
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(30)
