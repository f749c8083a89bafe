"""Background tasks."""

import asyncio
from contextlib import suppress
from typing import Self


class BackgroundTask:
    """A task that runs inside `async with`, and is cancelled at its end."""

    def __init__(self, name: str) -> None:
        """`name`: of the asyncio task."""
        self._name = name

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"linkbeat {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        raise NotImplementedError
