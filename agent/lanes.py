"""The threads of delivery, and how long they wait after a failure."""

import threading
from collections.abc import Callable

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0


class Backoff:
    """Full jitter from 1 s to 60 s, without end; on top of what the service asked for.

    Added and not the greater of both: a fleet that was told the same number must not come back at once. From the second
    failure on, and where the service says that it has too much to do, over two intervals at least: agents that try more
    often than they report would meet the service, when it is back, with all their tries of a few seconds at once.
    """

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self.patient_seconds = 0.0
        """Two intervals."""
        self._failures = 0  # in a row

    def wait(self, retry_after: float | None = None) -> float:
        ceiling = FIRST_BACKOFF_SECONDS * 2 ** min(self._failures, 10)
        if self._failures or retry_after:
            ceiling = max(ceiling, self.patient_seconds)
        self._failures += 1
        return (retry_after or 0.0) + self._uniform(0.0, min(LONGEST_BACKOFF_SECONDS, ceiling))

    def reset(self) -> None:
        self._failures = 0


class Lane:
    """A thread that makes one request after the other and waits between them as long as `step` returns; None: until
    it is woken.

    wakes_early  a wake-up ends any wait; otherwise only a wait without end, so that it does not cut a backoff short
    """

    def __init__(
        self, name: str, step: Callable[[], float | None], stopping: threading.Event, *, wakes_early: bool = False
    ) -> None:
        self._step, self._stopping, self._wakes_early = step, stopping, wakes_early
        self._awake = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        self._awake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._awake.clear()
            wait = self._step()
            if wait is None:
                self._awake.wait()
            elif wait > 0:
                (self._awake if self._wakes_early else self._stopping).wait(wait)
