"""The heartbeat: everything that the agent reports at one time, in the wire format."""

import logging
import sys
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from . import __version__, host, remote
from .clock import Clock, rfc3339
from .complaints import Complaints
from .devices import Devices
from .filesystems import Filesystem, FilesystemProbe, get_filesystem_metrics, get_root_usage
from .fitting import fit
from .host import CpuTimes, Metrics
from .identity import identify
from .links import LinkTable
from .network import NetworkInterface, get_network_interfaces
from .primary import PrimaryInterface
from .remote import RemoteConfig
from .roots import wire_text
from .routes import read_default_routes
from .settings import Settings
from .spool import Spooled

log = logging.getLogger(__name__)


class DeliveryReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of delivery, so that losses are visible at the service.

    queued          heartbeats that wait for an acknowledgement.
    oldest_seconds  age of the oldest of them by the agent's clock; left out when there is none.
    spool_bytes     size of the spool, including acknowledged heartbeats that are not deleted yet.
    dropped         heartbeats dropped for lack of space since the agent started.
    rejected        heartbeats that the service rejected permanently since the agent started.
    damaged         unreadable byte ranges of the spool since the agent started; left out if there are none.
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


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life of one server: everything that a paused agent reports.

    timestamp       UTC (RFC 3339, milliseconds); unique among the stored heartbeats of one server and boot.
    tags            of the machine, as set; left out if there are none.
    since_boot_ms   the same time in milliseconds since the boot, by a clock that is never set (CLOCK_BOOTTIME); the
                    service does not use it. Left out if the system has no such clock that runs during suspend.
    """

    server_id: str
    server_guid: str | None
    hostname: str
    timestamp: str
    status: Literal["online", "paused"]
    boot_id: str | None
    agent_version: str
    interval_seconds: float
    os_info: dict[str, str]
    since_boot_ms: int | UnsetType = UNSET
    delivery: DeliveryReport | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class Heartbeat(Presence, frozen=True, kw_only=True):
    """One report of one server.

    truncated       there are more interfaces or filesystems than fit; left out otherwise.
    """

    primary_interface: str | None
    metrics: Metrics
    network_interfaces: list[NetworkInterface]
    filesystems: list[Filesystem]
    truncated: bool | UnsetType = UNSET


def stamp_ms(beat: Presence) -> int:
    """A heartbeat's timestamp in milliseconds since 1970."""
    return round(datetime.fromisoformat(beat.timestamp).timestamp() * 1000)


class Collector:
    """Collects heartbeats, and keeps the values that the next one needs."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Raises SettingsError if the machine's identity cannot be determined."""
        self.effective = remote.apply(settings, RemoteConfig())
        """The settings of the next heartbeat; roots and identity do not change."""
        self._clock = clock or Clock()
        self._roots = settings.roots
        self._cpu: CpuTimes | None = host.read_cpu_times(self._roots)
        self._links = LinkTable()
        self._devices = Devices()
        self._primary = PrimaryInterface()
        self._filesystems = FilesystemProbe()
        self._root = FilesystemProbe()
        self._complaints = Complaints(log)
        self.identity = identify(settings)

    def collect(self, delivery: DeliveryReport | UnsetType = UNSET) -> Presence:
        """The report to send now: a Heartbeat, unless the agent is paused."""
        return self._presence("paused", delivery) if self.effective.paused else self.measure(delivery)

    def measure(self, delivery: DeliveryReport | UnsetType = UNSET) -> Heartbeat:
        """The current state of the machine. Takes milliseconds, or about a second if a mount has just stopped
        responding."""
        # Measurements that may take a second come first, so that the timestamp is that of the counters.
        mounted = get_filesystem_metrics(self._roots, probe=self._filesystems)
        root = get_root_usage(self._roots, mounted, self._root)
        routes = read_default_routes(self._roots)
        cpu = host.read_cpu_times(self._roots)
        presence = self._presence("online", delivery)
        found = get_network_interfaces(
            self._roots,
            is_wanted=self.effective.reports,
            table=self._links,
            devices=self._devices,
            default_routes=routes,
        )
        interfaces, filesystems = fit(found, mounted)
        truncated = self._note_truncation(len(found) - len(interfaces), len(mounted) - len(filesystems))
        metrics = host.read_metrics(self._roots, interfaces, root, self._cpu, cpu)
        self._cpu = cpu or self._cpu
        return Heartbeat(
            **msgspec.structs.asdict(presence),
            primary_interface=self._primary.choose(interfaces, [wire_text(name) for name in routes]),
            metrics=metrics,
            network_interfaces=interfaces,
            filesystems=filesystems,
            truncated=truncated or UNSET,
        )

    def _presence(self, status: Literal["online", "paused"], delivery: DeliveryReport | UnsetType) -> Presence:
        moment = self._clock.read()
        return Presence(
            server_id=self.identity.server_id,
            server_guid=self.identity.server_guid,
            hostname=self.identity.hostname,
            timestamp=rfc3339(moment.stamp_ms),
            status=status,
            boot_id=host.read_boot_id(self._roots),
            agent_version=__version__,
            interval_seconds=self.effective.settings.interval_seconds,
            os_info=host.read_os_info(self._roots),
            since_boot_ms=moment.since_boot_ms if sys.platform == "linux" else UNSET,
            delivery=delivery,
            tags=self.effective.settings.tags or UNSET,
        )

    def _note_truncation(self, interfaces: int, filesystems: int) -> bool:
        if interfaces or filesystems:
            self._complaints.about(
                "truncated",
                "too many to report: left out %d interfaces and %d filesystems; exclude interfaces with "
                "LINKBEAT_EXCLUDE_INTERFACES",
                interfaces,
                filesystems,
            )
            return True
        self._complaints.settled("truncated", "all interfaces and filesystems are reported again")
        return False


encode = msgspec.json.Encoder().encode
