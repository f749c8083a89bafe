"""What ends a wait: signals, other threads, time."""

import contextlib
import select
import signal
import socket
import time
from types import FrameType, TracebackType
from typing import Literal, Self

Cause = Literal["stop", "reload", "wake"]

_WAKE = 0  # no signal has this number
_CAUSES: dict[int, Cause] = {_WAKE: "wake", signal.SIGTERM: "stop", signal.SIGINT: "stop"}
if hasattr(signal, "SIGHUP"):  # not on Windows
    _CAUSES[signal.SIGHUP] = "reload"


class Signals:
    """SIGTERM, SIGINT and SIGHUP as something to wait for; and wake(), for other threads.

    Through a socket and not a threading.Event: a handler that sets the event on which its own thread is just about to
    wait can deadlock.
    """

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _ignore) for number in _CAUSES if number != _WAKE}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_fd)
        self._reader.close()
        self._writer.close()

    def wake(self) -> None:
        """Ends a wait with "wake", the present one or the next. For any thread, also after the end."""
        with contextlib.suppress(OSError):  # full: it will end; closed: there is none to end
            self._writer.send(bytes([_WAKE]))

    def wait_until(self, moment: float) -> Cause | None:
        """Waits for `moment` (monotonic seconds), then None; or at once for what comes before."""
        while True:
            remaining = max(0.0, moment - time.monotonic())
            if select.select([self._reader], [], [], remaining)[0]:
                return _CAUSES[self._reader.recv(1)[0]]
            if time.monotonic() >= moment:
                return None


def _ignore(number: int, frame: FrameType | None) -> None:
    """The signal's number arrives through the wakeup socket; a handler must exist for that."""
