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
from agent.segments import Record
from agent.settings import Settings
from agent.spool import Spooled

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeliveryReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """How delivery goes, so that a loss can be seen at the service.

    queued          heartbeats that wait for an acknowledgement.
    oldest_seconds  age of the oldest of them by the agent's clock; left out when there is none.
    spool_bytes     of heartbeats on the agent's disk, those included that are acknowledged and not deleted yet.
    dropped         heartbeats given up for want of room, since the agent started.
    rejected        heartbeats that the service refused for good, since the agent started.
    damaged         stretches of the spool that could not be read, since the agent started; left out when there is none.
    spool           where a new heartbeat waits; in "memory" only while the disk cannot be written.
    """

    queued: int
    spool_bytes: int
    dropped: int
    rejected: int
    spool: Literal["disk", "memory"]
    damaged: int = 0
    oldest_seconds: float | None = None

    @classmethod
    def of(cls, spooled: Spooled, *, rejected: int, now_ms: int) -> "DeliveryReport":
        return cls(
            queued=spooled.queued,
            spool_bytes=spooled.size_bytes,
            dropped=spooled.dropped,
            rejected=rejected,
            spool="disk" if spooled.is_on_disk else "memory",
            damaged=spooled.damaged,
            oldest_seconds=None if spooled.oldest_ms is None else max(0.0, (now_ms - spooled.oldest_ms) / 1000),
        )


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
    delivery: DeliveryReport | msgspec.UnsetType = msgspec.UNSET


class Clock:
    """Wall-clock milliseconds that never repeat and never go back.

    The service keys samples by time: after a step back, a time used twice would make the second sample a duplicate.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns, last_ms: int = 0) -> None:
        """`last_ms`: the last that a process before this one gave out, in milliseconds since 1970."""
        self._now_ns = now_ns
        self._last_ms = last_ms

    def timestamp(self) -> str:
        """Now, or a millisecond after the last answer, such as 2026-01-29T10:00:00.000Z."""
        self._last_ms = max(self._now_ns() // 1_000_000, self._last_ms + 1)
        moment = _EPOCH + timedelta(milliseconds=self._last_ms)
        return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class _Stamped(msgspec.Struct):
    boot_id: str | None = None


def last_stamp_ms(record: Record | None, boot_id: str | None) -> int:
    """The timestamp of an earlier process's heartbeat, if the machine has not been booted since; else 0.

    The clock may have been set back since then. Timestamps have to rise within a boot only: after one, a clock that
    was wrong is right at once.
    """
    try:
        if record and boot_id and msgspec.json.decode(record.body, type=_Stamped).boot_id == boot_id:
            return record.stamp_ms
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return 0


def stamp_ms(beat: Heartbeat) -> int:
    """A heartbeat's timestamp in milliseconds since 1970."""
    return round(datetime.fromisoformat(beat.timestamp).timestamp() * 1000)


class Collector:
    """Makes heartbeats; keeps what one needs of the one before."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Raises SettingsError if the machine's identity cannot be told."""
        self._settings = settings
        self._clock = clock or Clock()
        self._roots = settings.roots
        self._cpu: CpuTimes | None = host.read_cpu_times(self._roots)
        self.identity = identify(settings)

    def collect(self, delivery: DeliveryReport | msgspec.UnsetType = msgspec.UNSET) -> Heartbeat:
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
            delivery=delivery,
        )


encode = msgspec.json.Encoder().encode
