"""The agent's life: collects at every tick, until it is told to stop."""

import logging
import math
import random
import select
import signal
import socket
import time
from pathlib import Path
from types import FrameType, TracebackType
from urllib.parse import urlsplit

from agent import __version__
from agent.backlog import Backlog
from agent.complaints import Complaints
from agent.delivery import Delivery
from agent.heartbeat import Collector, encode
from agent.identity import ApiKey
from agent.sender import Sender
from agent.settings import Settings, SettingsError

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0


def run(settings: Settings) -> int:
    """Reports every interval until SIGTERM or SIGINT; returns the exit status.

    Raises SettingsError if the settings cannot be used on this machine.
    """
    collector = Collector(settings)
    key = ApiKey(settings)
    backlog = Backlog(settings.queue_heartbeats)
    delivery = Delivery(open_sender(settings, key), key, backlog, settings.url)
    complaints = Complaints(log)
    warn_of_plain_http(settings, key)
    with StopSignals() as stop:
        tick = time.monotonic() + random.uniform(0, min(settings.start_jitter_seconds, settings.interval_seconds))  # noqa: S311  spreads load, guards nothing
        log.info(
            "linkbeat agent %s reports as %s to %s every %g s, first in %.0f s",
            __version__,
            collector.identity.server_id,
            settings.url,
            settings.interval_seconds,
            tick - time.monotonic(),
        )
        delivery.start()
        while not stop.wait_until(tick):
            if not delivery.is_alive():
                log.error("the sending thread has died; the agent stops, so that whoever started it can start it again")
                return 1
            beat = collector.collect(queued=len(backlog), dropped=backlog.dropped, rejected=delivery.rejected)
            if not tick_is_late(tick, settings.interval_seconds, time.monotonic()):
                complaints.settled("late")
            warn_if_contained(settings, len(beat.network_interfaces), complaints)
            if backlog.add(encode(beat)):
                complaints.about("full", "%d heartbeats wait, no room for more: the oldest are dropped", len(backlog))
            elif len(backlog) <= 1:
                complaints.settled("full")
            delivery.wake()
            tick = next_tick(tick, settings.interval_seconds, time.monotonic())
        delivery.stop(within_seconds=FLUSH_SECONDS)
    if backlog or backlog.dropped:
        log.warning("stopped; not delivered: %d heartbeats waiting, %d dropped", len(backlog), backlog.dropped)
    return 0
