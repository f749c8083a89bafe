"""Rate-limits log lines that clients cause: one per minute for each cause and sender, with a count of the others."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Hashable
from time import monotonic
from typing import Any

WINDOW_SECONDS = 60.0
REMEMBERED = 4_096


class _Window:
    __slots__ = ("begins", "last", "more", "timer")

    def __init__(self, begins: float) -> None:
        self.begins = begins
        self.more = 0
        self.last: tuple[int, str, tuple[Any, ...]] = (logging.INFO, "", ())
        self.timer: asyncio.TimerHandle | None = None


class LogLimit:
    """Logs the first line of each key at once. Further lines within WINDOW_SECONDS are counted; at the end of the
    window the last one is logged with their number."""

    def __init__(self, log: logging.Logger, remembered: int = REMEMBERED) -> None:
        self._log = log
        self._remembered = remembered
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()

    def __call__(
        self, level: int, key: Hashable, message: str, *arguments: Any, exc_info: BaseException | None = None
    ) -> None:
        """`key`: the cause, and the sender: an address or a token's id."""
        now = monotonic()
        window = self._windows.get(key)
        if window is not None and now - window.begins < WINDOW_SECONDS:
            window.more += 1
            window.last = level, message, arguments
            if window.timer is None:
                window.timer = self._at_its_end(key, window, WINDOW_SECONDS - (now - window.begins))
            return
        if window is not None:
            self._close(key, window)
        self._windows[key] = _Window(now)
        if len(self._windows) > self._remembered:
            oldest = next(iter(self._windows))
            self._close(oldest, self._windows[oldest])
        self._log.log(level, message, *arguments, exc_info=exc_info)

    def forget(self) -> None:
        """Resets the limit of every key."""
        for window in self._windows.values():
            if window.timer is not None:
                window.timer.cancel()
        self._windows.clear()

    def _at_its_end(self, key: Hashable, window: _Window, seconds: float) -> asyncio.TimerHandle | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None  # the next line of this key logs the count
        return loop.call_later(seconds, self._close, key, window)

    def _close(self, key: Hashable, window: _Window) -> None:
        if window.timer is not None:
            window.timer.cancel()
        if self._windows.get(key) is window:
            del self._windows[key]
        if window.more:
            level, message, arguments = window.last
            self._log.log(level, f"{message} (and %d more like it within a minute)", *arguments, window.more)


limited = LogLimit(logging.getLogger("linkbeat"))


class LimitedFilter(logging.Filter):
    """LogLimit for the logger of another library, whose lines name no sender: each message is a cause."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._limit = LogLimit(logger)
        self._is_saying = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self._is_saying or record.exc_info or record.levelno >= logging.ERROR:
            return True
        self._is_saying = True
        try:
            self._limit(record.levelno, record.msg, "%s", record.getMessage())
        finally:
            self._is_saying = False
        return False
