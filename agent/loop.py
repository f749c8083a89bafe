"""The agent's life: collects at every tick, until it is told to stop."""

import logging
import math
import os
import random
import select
import signal
import socket
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self
from urllib.parse import urlsplit

from agent import __version__, host
from agent.complaints import Complaints
from agent.deadletter import DeadLetters
from agent.delivery import Delivery
from agent.directory import default_directory
from agent.heartbeat import Clock, Collector, encode, last_stamp_ms, stamp_ms
from agent.identity import ApiKey, Identity, identify
from agent.sender import Sender
from agent.settings import Settings, SettingsError
from agent.spool import Spool, SpoolInUse

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0


def run(settings: Settings) -> int:
    """Reports every interval until SIGTERM or SIGINT; returns the exit status.

    Raises SettingsError if the settings cannot be used on this machine.
    """
    identity = identify(settings)
    key = ApiKey(settings)
    sender = open_sender(settings, key)
    directory = spool_directory(settings, identity)
    spool = open_spool(settings, directory)
    collector = Collector(settings, Clock(last_ms=last_stamp_ms(spool.last, host.read_boot_id(settings.roots))))
    delivery = Delivery(
        sender,
        sender.another(settings.timeout_seconds),
        key,
        spool,
        DeadLetters(directory / "refused.ndjson"),
        settings.url,
        interval_seconds=settings.interval_seconds,
    )
    complaints = Complaints(log)
    warn_of_open_token(settings, key)
    with StopSignals() as stop:
        jitter = random.uniform(0, min(settings.start_jitter_seconds, settings.interval_seconds))
        tick = time.monotonic() + jitter
        log.info(
            "linkbeat agent %s reports as %s to %s every %g s, first in %.1f s",
            __version__,
            identity.server_id,
            settings.url,
            settings.interval_seconds,
            jitter,
        )
        if len(spool):
            log.info("%d heartbeats of before wait in %s", len(spool), directory)
        delivery.start()
        while not stop.wait_until(tick):
            if not delivery.is_alive():
                log.error("a sending thread has died; the agent stops, so that its supervisor starts it anew")
                spool.close()
                return 1
            beat = collector.collect(delivery.report())
            warn_if_contained(settings, len(beat.network_interfaces), complaints)
            spool.append(encode(beat), stamp_ms(beat))
            delivery.wake()
            tick = next_tick(tick, settings.interval_seconds, time.monotonic())
        delivery.stop(within_seconds=FLUSH_SECONDS)
    spool.close()
    if len(spool) or spool.dropped:
        log.warning("stopped; %d heartbeats not delivered, %d dropped since the start", len(spool), spool.dropped)
    return 0


def spool_directory(settings: Settings, identity: Identity) -> Path:
    if settings.spool_dir:
        return Path(settings.spool_dir)
    return default_directory(identity.server_id, os.environ, os.getuid() if hasattr(os, "getuid") else 1)


def open_spool(settings: Settings, directory: Path) -> Spool:
    """Raises SettingsError if another agent has the directory."""
    try:
        return Spool(
            directory,
            max_bytes=settings.spool_mib << 20,
            max_age_seconds=settings.spool_days * 86_400,
            memory_heartbeats=settings.backlog_heartbeats,
            delay_seconds=settings.spool_delay_seconds,
        )
    except SpoolInUse as error:
        raise SettingsError(f"LINKBEAT_SPOOL_DIR: {error}; each agent needs a directory of its own") from None


def next_tick(tick: float, interval_seconds: float, now: float) -> float:
    """The first moment after both `tick` and `now` on the grid of `tick` and the interval; monotonic seconds.

    Ticks that passed meanwhile are skipped: after a stall, several heartbeats at once would say nothing new.
    """
    missed = max(0, math.floor((now - tick) / interval_seconds))
    return tick + (missed + 1) * interval_seconds


def open_sender(settings: Settings, key: ApiKey) -> Sender:
    """Raises SettingsError if the file of trusted authorities cannot be used."""
    try:
        return Sender(settings.url, key, timeout_seconds=settings.timeout_seconds, ca_file=settings.ca_file)
    except OSError as error:
        raise SettingsError(f'LINKBEAT_CA_FILE: "{settings.ca_file}": {error.strerror or error}') from None


def warn_of_open_token(settings: Settings, key: ApiKey) -> None:
    """Says so when the token will cross a network unencrypted."""
    parts = urlsplit(settings.url)
    host = parts.hostname or ""
    is_loopback = host in ("localhost", "::1") or host.startswith("127.")
    if key.value and parts.scheme == "http" and not is_loopback:
        log.warning("LINKBEAT_URL is not https: whoever can read the traffic to %s can read the token", host)


def warn_if_contained(settings: Settings, interfaces: int, complaints: Complaints) -> None:
    """Says so when the counters are probably those of a container and not of its host."""
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    if in_container and not settings.roots.is_foreign and interfaces <= 1:
        complaints.about(
            "container",
            "this is a container with a network of its own, and only that is reported; for the host's, use the host's "
            "network, or mount its /proc and /sys and set LINKBEAT_PROC and LINKBEAT_SYS",
        )


class StopSignals:
    """SIGTERM and SIGINT as something to wait for.

    Through a socket and not a threading.Event: a handler that sets the event on which its own thread is just about to
    wait can deadlock.
    """

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_fd)
        self._reader.close()
        self._writer.close()

    def wait_until(self, moment: float) -> bool:
        """Waits for `moment` (monotonic seconds); true, at once, if a signal came."""
        while True:
            remaining = max(0.0, moment - time.monotonic())
            if select.select([self._reader], [], [], remaining)[0]:
                return True
            if time.monotonic() >= moment:
                return False


def _ignore(number: int, frame: FrameType | None) -> None:
    """The signal's number arrives through the wakeup socket; a handler must exist for that."""
