"""The heartbeat: everything that the agent knows at one moment, as the service reads it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from agent import __version__, host
from agent.filesystems import Filesystem, get_filesystem_metrics
from agent.host import CpuTimes, Metrics
from agent.identity import identify
from agent.network import NetworkInterface, get_network_interfaces, get_primary_interface
from agent.settings import Settings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeliveryReport(msgspec.Struct, frozen=True):
    """How delivery goes, so that a loss can be seen at the service.

    queued      heartbeats that wait for an acknowledgement.
    dropped     heartbeats given up for want of room, since the agent started.
    rejected    heartbeats that the service refused for good, since the agent started.
    """

    queued: int = 0
    dropped: int = 0
    rejected: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One report of one server. `timestamp` is UTC (RFC 3339, milliseconds), strictly increasing within a process."""

    server_id: str
    server_guid: str | None
    hostname: str
    timestamp: str
    status: Literal["online"] = "online"
    boot_id: str | None
    agent_version: str
    interval_seconds: float
    os_info: dict[str, str]
    primary_interface: str | None
    metrics: Metrics
    network_interfaces: list[NetworkInterface]
    filesystems: list[Filesystem]
    delivery: DeliveryReport


class Clock:
    """Wall-clock milliseconds that never repeat and never go back.

    The service keys samples by time: after a step back, a time used twice would make the second sample a duplicate.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._last_ms = 0

    def timestamp(self) -> str:
        """Now, or a millisecond after the last answer, such as 2026-01-29T10:00:00.000Z."""
        self._last_ms = max(self._now_ns() // 1_000_000, self._last_ms + 1)
        moment = _EPOCH + timedelta(milliseconds=self._last_ms)
        return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Collector:
    """Makes heartbeats; keeps what one needs of the one before."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Raises SettingsError if the machine's identity cannot be told."""
        self._settings = settings
        self._clock = clock or Clock()
        self._roots = settings.roots
        self._cpu: CpuTimes | None = host.read_cpu_times(self._roots)
        self.identity = identify(settings)

    def collect(self, *, queued: int = 0, dropped: int = 0, rejected: int = 0) -> Heartbeat:
        """The machine as it is now. Takes milliseconds, and about a second when a mount has just stopped answering."""
        # First what may take a second, so that the timestamp is that of the counters.
        filesystems = get_filesystem_metrics(self._roots)
        cpu = host.read_cpu_times(self._roots)
        timestamp = self._clock.timestamp()
        interfaces = get_network_interfaces(
            self._roots, include=self._settings.include_interfaces, exclude=self._settings.exclude_interfaces
        )
        metrics = host.read_metrics(self._roots, interfaces, self._cpu, cpu)
        self._cpu = cpu or self._cpu
        return Heartbeat(
            server_id=self.identity.server_id,
            server_guid=self.identity.server_guid,
            hostname=self.identity.hostname,
            timestamp=timestamp,
            boot_id=host.read_boot_id(self._roots),
            agent_version=__version__,
            interval_seconds=self._settings.interval_seconds,
            os_info=host.read_os_info(self._roots),
            primary_interface=get_primary_interface(interfaces, self._roots),
            metrics=metrics,
            network_interfaces=interfaces,
            filesystems=filesystems,
            delivery=DeliveryReport(queued, dropped, rejected),
        )


encode = msgspec.json.Encoder().encode
