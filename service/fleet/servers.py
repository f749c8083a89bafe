"""Servers: the identity of each machine, and its newest heartbeat."""

import re
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Router, get
from litestar.params import FromPath

from service.access.identity import MAY, Caller
from service.database.names import storable, unknown_server, wanted_tags
from service.database.pool import Database
from service.fleet.listing import ONLINE, Direction, Search, SortKey, Status, StatusFilter, page
from service.http.parameters import After, Limit, TagFilter
from service.http.problems import problems
from service.wire import Filesystem, HostMetrics, NetworkInterface

# The interfaces of the newest heartbeat are those with its time.
_SERVERS = f"""
SELECT s.server_id, s.hostname, s.server_guid, CASE WHEN {ONLINE} THEN 'online' ELSE 'offline' END AS status,
       s.reported_status IS NOT DISTINCT FROM 'paused' AS paused, s.first_seen, s.last_seen, s.agent_version,
       s.primary_interface, linkbeat.still_shared(s.shared_since, s.shared_at) AS shared_since, s.shared_at,
       s.duplicates, s.conflicts, s.os_info::text, m.metrics::text AS latest_metrics, s.filesystems::text,
       i.interfaces::text, l.display_name, linkbeat.tags_of(l.tags, s.agent_report) AS tags
FROM servers s
LEFT JOIN linkbeat.server_labels l USING (server_id)
CROSS JOIN LATERAL (
    SELECT jsonb_strip_nulls(to_jsonb(s.latest_metrics) || jsonb_build_object(
               'network_rx_bytes', linkbeat.unsigned((s.latest_metrics).network_rx_bytes),
               'network_tx_bytes', linkbeat.unsigned((s.latest_metrics).network_tx_bytes))) AS metrics
) m
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_object(
               'name', interface_name,
               'rx_bytes', linkbeat.unsigned(rx_bytes), 'tx_bytes', linkbeat.unsigned(tx_bytes),
               'rx_packets', linkbeat.unsigned(rx_packets), 'tx_packets', linkbeat.unsigned(tx_packets),
               'rx_errors', linkbeat.unsigned(rx_errors), 'tx_errors', linkbeat.unsigned(tx_errors),
               'rx_dropped', linkbeat.unsigned(rx_dropped), 'tx_dropped', linkbeat.unsigned(tx_dropped),
               'is_up', is_up, 'kind', kind, 'stacked_on', linkbeat.names_below(stacked_on),
               'speed_mbps', speed_mbps, 'operstate', operstate, 'os_name', coalesce(os_name, interface_name),
               'carrier_changes', carrier_changes, 'display_name', (
                   SELECT n.display_name FROM linkbeat.interface_labels n
                   WHERE n.server_id = s.server_id AND n.series = interface_name),
               'rx_bps', linkbeat.bps(rx_bytes_delta, elapsed_ms, delta_kind),
               'tx_bps', linkbeat.bps(tx_bytes_delta, elapsed_ms, delta_kind),
               'delta_kind', delta_kind, 'elapsed_seconds', CASE WHEN elapsed_ms > 0 THEN elapsed_ms / 1000.0 END,
               'is_lowest', is_lowest, 'is_folded', is_folded,
               'folded_into', CASE WHEN is_folded THEN coalesce(linkbeat.fold_series(interface_name), 'other/*') END)
           ORDER BY interface_name), '[]') AS interfaces
    FROM unnest(s.interfaces)
    WHERE time = s.last_seen
) i
"""


# Read-only images are always full. Current agents leave them out; older and other agents report them.
_IMAGES = frozenset({"squashfs", "iso9660", "udf", "erofs", "cramfs", "romfs"})
_FUSE_IMAGES = re.compile(r"fuse\.(squashfuse|.*appimage)", re.IGNORECASE)
_APPIMAGE_MOUNT = "/.mount_"  # /tmp/.mount_ObsidiAbc123, whatever the filesystem type
READ_ONLY = "read-only"


class MountedFilesystem(Filesystem, frozen=True, omit_defaults=False):
    """A filesystem of the newest heartbeat, with all fields; the stored JSON omits defaults such as 0.

    state   as sent; read-only for an image that is always full
    """

    def __post_init__(self) -> None:
        if self.state is None and is_image(self.fs_type, self.mount_point):
            msgspec.structs.force_setattr(self, "state", READ_ONLY)


def is_image(fs_type: str, mount_point: str) -> bool:
    """Whether the filesystem is a read-only image, such as a snap or an AppImage, which is always full."""
    if fs_type in _IMAGES or _FUSE_IMAGES.match(fs_type):
        return True
    return fs_type.startswith("fuse") and _APPIMAGE_MOUNT in mount_point


class InterfaceState(NetworkInterface, frozen=True, kw_only=True):
    """An interface of the newest heartbeat, and its traffic since the previous sample.

    name             of its series: the first name under which the device was seen; os_name: what it is called now
    display_name     the name that an administrator gave it; null: none
    rx_bps, tx_bps   bits per second; null: unknown
    delta_kind       how they were derived: first, normal, gap, reboot, reset, wrap, dip, glitch or
                     rejected (docs/counters.md)
    elapsed_seconds  since the previous sample; for a gap, its length; null: there is no previous sample
    is_lowest        no other interface of the server is below it; the server's traffic is the sum over these
    is_folded        it is counted in the series of its kind, folded_into, such as veth/*; null: it has its own series
    """

    rx_bps: float | None
    tx_bps: float | None
    delta_kind: str
    elapsed_seconds: float | None
    is_lowest: bool
    is_folded: bool
    folded_into: str | None
    os_name: str
    display_name: str | None


class Server(msgspec.Struct, frozen=True):
    """A machine that sends heartbeats.

    display_name        the name that an administrator gave it; null: none
    tags                words and key=value pairs: those set for it, and the agent's own
    server_guid         null for read tokens
    status              online until three intervals have passed without a heartbeat
    paused              the agent sends heartbeats without measurements, as configured
    last_seen           time of the newest heartbeat, by the agent's clock
    latest_metrics      metrics of the newest heartbeat; null if it had none
    network_interfaces  interfaces of the newest heartbeat, with the counters as reported by the kernel
    shared_since        when two machines were first detected to report under this id; shared_at: last; null: never
    duplicates          heartbeats that were received again; conflicts: duplicates whose values differed (the first
    values
                        were kept)
    """

    id: str
    hostname: str
    server_guid: str | None
    status: Status
    paused: bool
    first_seen: datetime
    last_seen: datetime
    agent_version: str | None
    primary_interface: str | None
    os_info: dict[str, Any] | None
    latest_metrics: HostMetrics | None
    shared_since: datetime | None
    shared_at: datetime | None
    duplicates: int
    conflicts: int
    network_interfaces: list[InterfaceState]
    filesystems: list[MountedFilesystem]
    display_name: str | None
    tags: list[str]


class ServerPage(msgspec.Struct, frozen=True):
    """Servers in the requested order; `next` continues after the last one, null at the end."""

    servers: list[Server]
    next: str | None


def router(database: Database) -> Router:
    """GET /servers and /servers/{server_id}."""

    @get("/", summary="List servers", responses=problems(401, 422, 503))
    async def list_servers(
        request: Request[Any, Caller, Any],
        status: StatusFilter = None,
        search: Search = None,
        tag: TagFilter = None,
        sort: SortKey = "id",
        order: Direction = "asc",
        limit: Limit = 100,
        after: After = None,
    ) -> ServerPage:
        rows, following = await page(
            database,
            _SERVERS,
            status=status,
            search=search,
            tags=wanted_tags(tag),
            sort=sort,
            order=order,
            limit=limit,
            after=after,
        )
        return ServerPage([_server(row, request.auth) for row in rows], following)

    @get("/{server_id:str}", summary="Get a server", responses=problems(401, 404, 503))
    async def get_server(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> Server:
        rows = await database.fetch(f"{_SERVERS} WHERE s.server_id = $1", storable(server_id))
        if not rows:
            raise unknown_server(server_id)
        return _server(rows[0], request.auth)

    return Router("/servers", route_handlers=[list_servers, get_server], tags=["servers"])


def _server(row: asyncpg.Record, caller: Caller) -> Server:
    return Server(
        id=row["server_id"],
        hostname=row["hostname"],
        # With the GUID, an enrolment token can take over a machine whose token was revoked.
        server_guid=row["server_guid"] if "admin" in MAY[caller.kind] else None,
        status=row["status"],
        paused=row["paused"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        agent_version=row["agent_version"],
        primary_interface=row["primary_interface"],
        shared_since=row["shared_since"],
        shared_at=row["shared_at"],
        duplicates=row["duplicates"],
        conflicts=row["conflicts"],
        # Returned as stored, without decoding them.
        os_info=_raw(row["os_info"]),
        latest_metrics=_raw(row["latest_metrics"]),
        network_interfaces=_raw(row["interfaces"]),
        filesystems=_filesystems(row["filesystems"]),
        display_name=row["display_name"],
        tags=row["tags"],
    )


_filesystems = msgspec.json.Decoder(list[MountedFilesystem]).decode


def _raw(text: str | None) -> Any:
    return None if text is None else msgspec.Raw(text.encode())
