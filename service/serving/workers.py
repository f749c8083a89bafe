"""`serve --workers N`: a supervisor and N processes that serve on one port.

Each process has its own socket (SO_REUSEPORT), among which the kernel distributes the connections. It listens only once
it can serve, so no client waits for a starting process. The supervisor keeps the sockets open to pass them on.

SIGTERM and SIGINT shut all processes down. SIGHUP replaces them one after the other: the old process is stopped once
its successor serves on the same socket. So a new version can be activated without a refused or delayed connection.
"""

import fcntl
import logging
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

from service.command import python_module
from service.embedded.guarded import Guarded
from service.embedded.handle import DatabaseHandle
from service.http.listen import bind_shared, check_free
from service.serving.process import DRAIN_SECONDS, Place
from service.settings import Settings, SettingsError

log = logging.getLogger("linkbeat")

MOST_WORKERS = 64
POLL_SECONDS = 0.05
READY_SECONDS = 60.0
STOP_SECONDS = DRAIN_SECONDS + 8.0  # queued heartbeats are stored after the last response
STEADY_SECONDS = 60.0  # a process that ran for this long did not fail at its start
BACKOFF_SECONDS = 0.5
MOST_BACKOFF_SECONDS = 30.0
UNHEARD_SECONDS = 0.5  # by then, terminating processes have closed their sockets


class _Worker:
    """A serving process."""

    def __init__(self, place: Place, program: Guarded, ready: int) -> None:
        self.number = place.number
        self.program = program
        self.started = time.monotonic()
        self._ready = ready
        self._is_ready = False

    @property
    def is_ready(self) -> bool:
        if not self._is_ready:
            readable, _, _ = select.select([self._ready], [], [], 0)
            self._is_ready = bool(readable) and os.read(self._ready, 1) != b""
        return self._is_ready

    @property
    def has_ended(self) -> bool:
        return self.program.has_ended

    @property
    def status(self) -> int | None:
        return self.program.process.returncode

    def terminate(self) -> None:
        self.program.process.terminate()

    def end(self, until: float) -> None:
        """Waits until it has ended; kills it at `until`, by the monotonic clock."""
        while not self.has_ended:
            if time.monotonic() > until:
                self.program.process.kill()
            time.sleep(POLL_SECONDS)
        os.close(self._ready)


class _Seat:
    """A socket of the port and the process that serves on it; without a process, `next_start` is when to start one."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener: socket.socket | None = listener
        self.worker: _Worker | None = None
        self.failures = 0
        self.next_start = 0.0


class Workers:
    """The supervisor of all processes."""

    def __init__(
        self, settings: Settings, database: DatabaseHandle, count: int, directory: Path, say: Callable[[str], None]
    ) -> None:
        """Raises SettingsError where the address is not to be had."""
        self._settings = settings
        self._environment = os.environ | {"LINKBEAT_DATABASE_URL": database.url}
        self._directory = directory
        self._say = say
        self._is_ending = False
        self._is_to_renew = False
        check_free(settings.host, settings.port)
        self._seats = [_Seat(self._bind()) for _ in range(count)]
        self._leaving: list[_Worker] = []

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT. Returns exit status 1 if a process failed at the first start."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        try:
            for seat in self._seats:
                seat.worker = self._start(seat)
            if not self._await_all():
                return 0 if self._is_ending else 1
            host, port = self._settings.host, self._settings.port
            address = f"[{host}]" if ":" in host else host
            self._say(f"Listening on http://{address}:{port} with {len(self._seats)} processes")
            while not self._is_ending:
                self._tend()
                if self._is_to_renew:
                    self._is_to_renew = False
                    self._renew()
                time.sleep(POLL_SECONDS)
        finally:
            self._end()
        return 0

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._is_to_renew = True
        else:
            self._is_ending = True

    def _await_all(self) -> bool:
        """Waits until all processes serve. Returns False if one ended or took too long, or on SIGTERM."""
        until = time.monotonic() + READY_SECONDS
        while not all(one.is_ready for one in self._workers()):
            if ended := next((one for one in self._workers() if one.has_ended), None):
                self._say(f"linkbeat: worker {ended.number} ended with status {ended.status}; the reason is above")
                return False
            if self._is_ending:
                return False
            if time.monotonic() > until:
                self._say(f"linkbeat: not all processes started within {READY_SECONDS:.0f} seconds")
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _workers(self) -> Iterator[_Worker]:
        yield from (seat.worker for seat in self._seats if seat.worker)
        yield from self._leaving

    def _tend(self) -> None:
        """Restarts processes that ended by themselves: immediately the first time, then after increasing delays."""
        now = time.monotonic()
        for seat in self._seats:
            worker = seat.worker
            if worker and worker.has_ended:
                worker.end(now)
                seat.worker = None
                seat.failures = 1 if now - worker.started > STEADY_SECONDS else seat.failures + 1
                self._put_off(seat, f"worker {worker.number} ended unexpectedly with status {worker.status}")
            if seat.worker is None and now >= seat.next_start:
                try:
                    seat.listener = seat.listener or self._bind()
                    seat.worker = self._start(seat)
                except (OSError, SettingsError) as raised:
                    seat.failures += 1
                    self._put_off(seat, f"a worker cannot be started: {raised}")

    def _put_off(self, seat: _Seat, reason: str) -> None:
        # The exponent is limited, because the process may fail for weeks.
        pause = min(BACKOFF_SECONDS * 2 ** min(seat.failures - 2, 10), MOST_BACKOFF_SECONDS) if seat.failures > 1 else 0
        seat.next_start = time.monotonic() + pause
        log.error("%s; %s", reason, f"restarting in {pause:.1f} s" if pause else "restarting")
        if seat.listener:
            # Connections waiting there would wait for the next start; clients that reconnect get another process.
            _close(seat.listener)
            seat.listener = None

    def _start(self, seat: _Seat) -> _Worker:
        assert seat.listener is not None
        used = {one.number for one in self._workers()}
        number = next(n for n in range(len(used) + 1) if n not in used)
        ready, answers = os.pipe()
        answers = _inheritable(answers)
        place = Place(number, len(self._seats), seat.listener.fileno(), answers, self._directory)
        try:
            program = Guarded(
                python_module("service", "serve", "--worker", str(place)),
                self._environment,
                first=signal.SIGTERM,
                pass_fds=[seat.listener.fileno(), answers],
            )
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(answers)
        return _Worker(place, program, ready)

    def _renew(self) -> None:
        """Replaces each process by a new one; stops at the first that fails to start."""
        self._say("Replacing the processes one by one")
        for seat in self._seats:
            old = seat.worker
            if old is None or seat.listener is None:
                continue  # it is being started again anyway
            self._leaving.append(old)
            seat.worker = new = self._start(seat)
            until = time.monotonic() + READY_SECONDS
            while not new.is_ready and not new.has_ended and not self._is_ending and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
            if not new.is_ready:
                new.terminate()
                new.end(time.monotonic() + STOP_SECONDS)
                self._leaving.remove(old)
                seat.worker = old
                if not self._is_ending:
                    self._say(f"linkbeat: worker {new.number} failed to start; the other processes keep running")
                return
            old.terminate()
            old.end(time.monotonic() + STOP_SECONDS)
            self._leaving.remove(old)
            if self._is_ending:
                return
        self._say("All processes have been replaced")

    def _end(self) -> None:
        """Shuts all processes down; they store and answer the received requests."""
        workers = list(self._workers())
        until = time.monotonic() + STOP_SECONDS
        for worker in workers:
            with suppress(ProcessLookupError):
                worker.terminate()
        time.sleep(UNHEARD_SECONDS)
        for seat in self._seats:
            if seat.listener:
                _close(seat.listener)
        for worker in workers:
            worker.end(until)

    def _bind(self) -> socket.socket:
        bound = bind_shared(self._settings.host, self._settings.port)
        return socket.socket(fileno=_inheritable(bound.detach()))


def run_workers(settings: Settings, database: DatabaseHandle, count: int, say: Callable[[str], None]) -> int:
    """Serves with `count` processes until SIGTERM or SIGINT. Returns the exit status.

    Raises SettingsError where the address is not to be had.
    """
    failures: list[str] = []

    def give_up(failure: str) -> None:
        """Called from the thread that watches the database; the main thread shuts down, as for any signal."""
        failures.append(failure)
        os.kill(os.getpid(), signal.SIGTERM)

    with _shared_directory(settings) as directory, database.watched(say, give_up):
        status = Workers(settings, database, count, Path(directory), say).run()
    for failure in failures:
        say(f"linkbeat: {failure}")
    return 1 if failures else status


def _shared_directory(settings: Settings) -> tempfile.TemporaryDirectory[str]:
    """A private directory for the metrics of the processes, in memory if possible: they are written every second.

    Raises SettingsError if no directory is writable, as in a read-only container without a volume.
    """
    for place in (Path("/dev/shm"), Path(tempfile.gettempdir()), settings.data_path):  # noqa: S108 - what is made there is private
        with suppress(OSError):
            return tempfile.TemporaryDirectory(prefix="linkbeat-workers-", dir=place)
    raise SettingsError(f"LINKBEAT_DATA_DIR: {settings.data_path} cannot be written to, and neither can /dev/shm")


def _inheritable(descriptor: int) -> int:
    """Duplicates the descriptor to a number that the guard's shell does not use (service/embedded/guarded.py)."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


def _close(listener: socket.socket) -> None:
    """Shuts the socket down for all its holders: the guards of running processes hold it too."""
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
