"""Bounds of time that hold on a busy machine too."""

import time
from collections.abc import Awaitable, Callable

ATTEMPTS = 5


def fastest(attempt: Callable[[], object], within: float) -> float:
    """Seconds that the fastest of some attempts took; the first that took less than `within` is the last.

    A busy machine delays one attempt or the other; what waits for something delays them all.
    """
    durations = []
    for _ in range(ATTEMPTS):
        begin = time.monotonic()
        attempt()
        durations.append(time.monotonic() - begin)
        if durations[-1] < within:
            break
    return min(durations)


async def fastest_of(attempt: Callable[[], Awaitable[object]], within: float) -> float:
    """The same for what is awaited."""
    durations = []
    for _ in range(ATTEMPTS):
        begin = time.monotonic()
        await attempt()
        durations.append(time.monotonic() - begin)
        if durations[-1] < within:
            break
    return min(durations)
