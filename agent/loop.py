"""The main loop of the agent: collects a heartbeat at every tick until a signal stops it."""

import logging
import math
import os
import random
import time
from pathlib import Path
from urllib.parse import urlsplit

from . import __version__, host, remote
from .clock import Clock, last_moment
from .complaints import Complaints
from .deadletter import DeadLetters
from .delivery import Delivery
from .directory import default_directory
from .enrolment import Enrolment
from .heartbeat import Collector, Heartbeat, encode, stamp_ms
from .identity import ApiKey, Identity, identify
from .restamp import Timekeeper
from .sender import Sender
from .settings import Settings, SettingsError, reload
from .signals import Signals
from .spool import Spool, SpoolInUse

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0


def run(settings: Settings) -> int:
    """Reports every interval until SIGTERM or SIGINT, and reads the settings again at SIGHUP; returns the exit status.

    Raises SettingsError if the settings cannot be used on this machine.
    """
    with Signals() as signals:
        return Agent(settings, signals).run()


class Agent:
    """The running agent: its current settings, the collector of heartbeats, the spool and the delivery."""

    def __init__(self, settings: Settings, signals: Signals) -> None:
        """Raises SettingsError if the settings cannot be used on this machine."""
        self._signals = signals
        self._identity = identify(settings)
        self._directory = spool_directory(settings, self._identity)
        self._enrolment = Enrolment(self._identity, self._directory / "token")
        # Errors in it are reported before the spool is opened.
        open_sender(settings, ApiKey(settings), self._enrolment)
        self._spool = open_spool(settings, self._directory)
        self._letters = DeadLetters(self._directory / "refused.ndjson")
        clock = Clock(last=last_moment(self._spool.last, host.read_boot_id(settings.roots)))
        self._timekeeper = Timekeeper(clock, self._spool, lambda: host.read_boot_id(settings.roots))
        self._delivery = self._new_delivery(settings)
        self._collector = Collector(settings, clock)
        self._complaints = Complaints(log)
        self._settings = settings
        self._asked = self._delivery.config
        self._last = self._tick = time.monotonic()

    def run(self) -> int:
        """Runs until a signal stops it; returns the exit status."""
        settings = self._settings
        jitter = random.uniform(0, min(settings.start_jitter_seconds, settings.interval_seconds))
        self._tick += jitter
        log.info(
            "linkbeat agent %s reports as %s to %s every %g s, first in %.1f s",
            __version__,
            self._identity.server_id,
            settings.url,
            settings.interval_seconds,
            jitter,
        )
        if len(self._spool):
            log.info("%d heartbeats from an earlier run wait in %s", len(self._spool), self._directory)
        self._delivery.start()
        while (cause := self._signals.wait_until(self._tick)) != "stop":
            if not self._delivery.is_alive():
                log.error("a sending thread has died; stopping, so that the supervisor restarts the agent")
                self._spool.close()
                return 1
            if cause == "reload":
                self._reload()
            if self._delivery.config != self._asked:
                self._apply_remote_config()
            if cause is None:
                self._report()
        self._delivery.stop(within_seconds=FLUSH_SECONDS)
        self._spool.close()
        left, dropped = len(self._spool), self._spool.dropped
        if left or dropped:
            log.warning("stopped; %d heartbeats not delivered, %d dropped since the start", left, dropped)
        return 0

    def _report(self) -> None:
        beat = self._collector.collect(self._delivery.report())
        if isinstance(beat, Heartbeat):
            warn_if_contained(self._settings, len(beat.network_interfaces), self._complaints)
        self._spool.append(encode(beat), stamp_ms(beat))
        self._delivery.wake()
        self._last = self._tick
        self._tick = next_tick(self._tick, self._collector.effective.settings.interval_seconds, time.monotonic())

    def _reload(self) -> None:
        """Applies the reloaded settings, if they are valid; waiting heartbeats stay in the spool."""
        found = reload(self._settings, os.environ)
        for complaint in found.complaints:
            log.warning("%s", complaint)
        if found.settings is self._settings:
            return  # the file is invalid, and the error has been logged
        try:
            delivery = self._new_delivery(found.settings)
        except SettingsError as error:
            log.warning("%s; the previous settings stay in effect", error)
            return
        self._delivery.stop(within_seconds=FLUSH_SECONDS)
        delivery.rejected, delivery.config = self._delivery.rejected, self._delivery.config
        self._settings, self._delivery = found.settings, delivery
        logging.getLogger().setLevel(found.settings.log_level.upper())
        log.info("settings reloaded; reports to %s every %g s", found.settings.url, found.settings.interval_seconds)
        self._apply_remote_config()
        delivery.start()

    def _apply_remote_config(self) -> None:
        """Applies the remote configuration within the bounds of the settings."""
        self._asked = self._delivery.config
        config, complaint = remote.parse(self._asked)
        effective = remote.apply(self._settings, config)
        for words in (complaint, *effective.held_back):
            if words:
                log.warning("%s", words)
        before = self._collector.effective
        self._collector.effective = effective
        if effective.remote != before.remote:
            log.info("remote configuration: %s", effective.remote.words() or "none")
        interval = effective.settings.interval_seconds
        self._delivery.keep_pace(interval)
        # Never later than planned: the service counts an agent as offline after three of its last reported intervals.
        self._tick = max(time.monotonic(), min(self._tick, self._last + interval))
        if effective.remote.report_at not in (None, before.remote.report_at):
            self._tick = time.monotonic()

    def _new_delivery(self, settings: Settings) -> Delivery:
        """Raises SettingsError if the token or the trusted authorities cannot be used."""
        key = ApiKey(settings)
        sender = open_sender(settings, key, self._enrolment)
        warn_of_open_token(settings, key)
        return Delivery(
            sender,
            sender.another(settings.timeout_seconds),
            key,
            self._spool,
            self._letters,
            settings.url,
            timestamps=self._timekeeper,
            interval_seconds=settings.interval_seconds,
            on_config=self._signals.wake,
        )


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
            keep_seconds=settings.spool_keep_seconds,
        )
    except SpoolInUse as error:
        raise SettingsError(f"LINKBEAT_SPOOL_DIR: {error}; each agent needs its own directory") from None


def next_tick(tick: float, interval_seconds: float, now: float) -> float:
    """The first time after both `tick` and `now` on the grid of `tick` and the interval; monotonic seconds.

    Missed ticks are skipped: after a stall, several heartbeats at once would contain nothing new.
    """
    missed = max(0, math.floor((now - tick) / interval_seconds))
    return tick + (missed + 1) * interval_seconds


def open_sender(settings: Settings, key: ApiKey, enrolment: Enrolment) -> Sender:
    """Raises SettingsError if the file of trusted authorities cannot be used."""
    try:
        return Sender(
            settings.url,
            key,
            timeout_seconds=settings.timeout_seconds,
            ca_file=settings.ca_file,
            enrolment=enrolment,
        )
    except OSError as error:
        raise SettingsError(f'LINKBEAT_CA_FILE: "{settings.ca_file}": {error.strerror or error}') from None


def warn_of_open_token(settings: Settings, key: ApiKey) -> None:
    """Warns if the token will cross a network unencrypted."""
    parts = urlsplit(settings.url)
    host = parts.hostname or ""
    is_loopback = host in ("localhost", "::1") or host.startswith("127.")
    if key.value and parts.scheme == "http" and not is_loopback:
        log.warning("LINKBEAT_URL is not https: anybody who can read the traffic to %s can read the token", host)


def warn_if_contained(settings: Settings, interfaces: int, complaints: Complaints) -> None:
    """Warns if the counters are probably those of a container and not of its host."""
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    if in_container and not settings.roots.is_foreign and interfaces <= 1:
        complaints.about(
            "container",
            "this container has its own network, and only that is reported; to report the host's, use the host's "
            "network, or mount its /proc and /sys and set LINKBEAT_PROC and LINKBEAT_SYS",
        )
