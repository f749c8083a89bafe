"""Interfaces of a server: newest state, totals of today and this month, and the last change of state."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from service.clock import Clock
from service.database.names import storable, unknown_server
from service.database.pool import Database
from service.database.series_links import SeriesLinks, Sums
from service.database.zones import Zones
from service.fleet.calendar import day_and_month
from service.http import cursor
from service.http.errors import Problem
from service.http.parameters import After, Limit, TimeZone
from service.http.problems import problems

# public.interface_overview documents each column (docs/sql.md). The query includes the server, so that no row means an
# unknown server.
_COLUMNS = """
    i.interface_name AS name, i.time, i.first_seen, i.is_current, i.is_up, i.operstate, i.kind, i.stacked_on,
    i.is_lowest, i.is_folded, coalesce(i.is_primary, false) AS is_primary, i.speed_mbps, i.rx_bps, i.tx_bps,
    i.delta_kind, i.elapsed_seconds, i.rx_bytes_counter AS rx_bytes, i.tx_bytes_counter AS tx_bytes,
    i.rx_packets_counter AS rx_packets, i.tx_packets_counter AS tx_packets, i.rx_errors_counter AS rx_errors,
    i.tx_errors_counter AS tx_errors, i.rx_dropped_counter AS rx_dropped, i.tx_dropped_counter AS tx_dropped,
    i.folded_into, i.os_name, i.carrier_changes, i.display_name
"""
_LIST = f"""
SELECT {_COLUMNS} FROM server_overview s
LEFT JOIN interface_overview i ON i.server_id = s.server_id AND {{conditions}}
WHERE s.server_id = $1 ORDER BY i.interface_name COLLATE "C" LIMIT $2
"""
_ONE = f"""
SELECT {_COLUMNS} FROM server_overview s
LEFT JOIN interface_overview i ON i.server_id = s.server_id AND $2 IN (i.interface_name, i.display_name, i.os_name)
WHERE s.server_id = $1
ORDER BY i.interface_name <> $2, i.display_name IS DISTINCT FROM $2, i.is_current DESC, i.interface_name LIMIT 1
"""
_CHANGE = "SELECT interface_last_change($1, $2, $3) AS changed_at"
_SUMS = (
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
    "samples", "resets", "rejected",
)  # fmt: skip
_TOTAL = ", ".join(
    [*(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in _SUMS), "max(rx_bps_max) AS rx_bps_max",
     "max(tx_bps_max) AS tx_bps_max"]
)  # fmt: skip
# The day is part of its month; in every time zone, midnight is on a quarter of an hour. The range does not end now,
# because samples of a clock that is ahead are already stored.
_TOTALS = f"""
WITH month AS MATERIALIZED (
    SELECT * FROM {{relation}}
    WHERE server_id = $1 AND interface_name = $2 AND bucket >= $3 AND bucket < $4)
SELECT {_TOTAL} FROM month WHERE bucket >= $5 AND bucket < $6
UNION ALL SELECT {_TOTAL} FROM month
"""


class Interface(msgspec.Struct, frozen=True):
    """An interface, from the newest heartbeat that contains it.

    name             of its series: the first name under which the device was seen
    os_name          what the operating system called it in that heartbeat
    display_name     the name that an administrator gave it; null: none
    time             time of that heartbeat, by the agent's clock
    is_current       the server's newest heartbeat contains it; false: it has disappeared
    is_lowest        no other interface of the server is below it; the server's traffic is the sum over these
    is_folded        short-lived, or above the server's limit of series: it is counted in the series of its kind,
                     folded_into, such as veth/*; null: it has its own series
    rx_bps, tx_bps   bits per second between the last two samples; null: it has disappeared, or the rate is unknown
    delta_kind       how they were derived: first, normal, gap, reboot, reset, wrap, dip, glitch or rejected
    elapsed_seconds  time between the last two samples
    carrier_changes  how often its link came or went since the device appeared; null: not reported
    rx_bytes and the other counters  since boot, as counted by the kernel: 0 to 2**64-1; null: not reported
    """

    name: str
    time: datetime
    first_seen: datetime
    is_current: bool
    is_up: bool
    operstate: str | None
    kind: str | None
    stacked_on: list[str] | None
    is_lowest: bool
    is_folded: bool
    is_primary: bool
    speed_mbps: int | None
    rx_bps: float | None
    tx_bps: float | None
    delta_kind: str
    elapsed_seconds: float | None
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    rx_errors: int | None
    tx_errors: int | None
    rx_dropped: int | None
    tx_dropped: int | None
    folded_into: str | None
    os_name: str
    carrier_changes: int | None
    display_name: str | None


class InterfacePage(msgspec.Struct, frozen=True):
    """Interfaces of a server by name; `next` continues after the last one, null at the end."""

    server_id: str
    interfaces: list[Interface]
    next: str | None


class Totals(msgspec.Struct, frozen=True):
    """Traffic of an interface in [since, until), exact to the octet.

    rx_bps_max, tx_bps_max  highest rate between two samples, in bits per second; null: unknown
    samples                 number of heartbeats
    resets                  how often the counters restarted; rejected: samples with an implausible gain
    """

    since: datetime
    until: datetime
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int
    samples: int
    resets: int
    rejected: int
    rx_bps_max: float | None
    tx_bps_max: float | None


class InterfaceStats(msgspec.Struct, frozen=True):
    """An interface with its totals.

    changed_at   when it entered its current state, up or down: the time of the first sample; null: it never had the
                 other state
    today        totals of the whole day in `time_zone`; month: of the whole month; null for a folded interface, which
    is
                 counted in the series of its kind
    """

    server_id: str
    interface: Interface
    changed_at: datetime | None
    time_zone: str
    today: Totals | None
    month: Totals | None
    sums: Sums = msgspec.UNSET


Up = Annotated[bool | None, QueryParameter(description="Only interfaces that are up (true) or down (false).")]
Kind = Annotated[
    str | None, QueryParameter(description="Only interfaces of this kind, such as physical.", max_length=64)
]
NamePart = Annotated[
    str | None, QueryParameter(description="Only interfaces whose name contains this text.", max_length=255)
]
Gone = Annotated[bool, QueryParameter(description="Also interfaces that are not in the server's newest heartbeat.")]


def router(database: Database, zones: Zones, clock: Clock, links: SeriesLinks) -> Router:
    """GET /servers/{server_id}/interfaces, /interfaces/{name} and /interfaces/{name}/stats."""

    @get("/", summary="List the interfaces of a server", responses=problems(401, 404, 422, 503))
    async def list_interfaces(
        server_id: FromPath[str],
        is_up: Up = None,
        kind: Kind = None,
        search: NamePart = None,
        gone: Gone = False,
        limit: Limit = 100,
        after: After = None,
    ) -> InterfacePage:
        conditions = ["true" if gone else "i.is_current"]
        arguments: list[object] = [storable(server_id), limit + 1]
        for condition, value in (
            ("i.is_up = {}", is_up),
            ("i.kind = {}", None if kind is None else storable(kind)),
            ("strpos(lower(i.interface_name), lower({})) > 0", None if search is None else storable(search)),
            (
                'i.interface_name COLLATE "C" > {}',
                None if after is None else storable(cursor.read(after, tuple[str])[0]),
            ),
        ):
            if value is not None:
                arguments.append(value)
                conditions.append(condition.format(f"${len(arguments)}"))
        rows = await database.fetch(_LIST.format(conditions=" AND ".join(conditions)), *arguments)
        if not rows:
            raise unknown_server(server_id)
        found = [_interface(row) for row in rows if row["name"] is not None]
        return InterfacePage(
            server_id, found[:limit], cursor.write(found[limit - 1].name) if len(found) > limit else None
        )

    @get("/{name:str}", summary="Get an interface", responses=problems(401, 404, 503))
    async def get_interface(server_id: FromPath[str], name: FromPath[str]) -> Interface:
        return await newest(server_id, name)

    @get("/{name:str}/stats", summary="Get an interface with its totals", responses=problems(401, 404, 422, 503))
    async def get_stats(server_id: FromPath[str], name: FromPath[str], time_zone: TimeZone = "UTC") -> InterfaceStats:
        return await stats(server_id, name, time_zone)

    # The slash of a series such as eth0/2, percent-encoded by the client, arrives decoded.
    @get("/{name:str}/{number:int}", include_in_schema=False)
    async def get_numbered(server_id: FromPath[str], name: FromPath[str], number: FromPath[int]) -> Interface:
        return await newest(server_id, f"{name}/{number}")

    @get("/{name:str}/{number:int}/stats", include_in_schema=False)
    async def get_numbered_stats(
        server_id: FromPath[str], name: FromPath[str], number: FromPath[int], time_zone: TimeZone = "UTC"
    ) -> InterfaceStats:
        return await stats(server_id, f"{name}/{number}", time_zone)

    async def stats(server_id: str, name: str, time_zone: str) -> InterfaceStats:
        await zones.check(time_zone)
        linked = await links.of(server_id)
        interface = await newest(server_id, linked.series(storable(name)))
        series = storable(server_id), interface.name
        ((changed_at,),) = await database.fetch(_CHANGE, *series, interface.is_up)
        if interface.is_folded:
            return InterfaceStats(server_id, interface, changed_at, time_zone, None, None)
        today, month = await day_and_month(database, time_zone, clock.now())
        relation = "network_traffic_15m"
        if linked:
            relation = linked.rows(relation, servers="ARRAY[$1]", interface="$2", first="$3", last="$4")
        rows = await database.fetch(_TOTALS.format(relation=relation), *series, *month, *today)
        of_day, of_month = (Totals(*span, **row) for span, row in zip((today, month), rows, strict=True))
        sums = linked.sums(interface.name)
        return InterfaceStats(server_id, interface, changed_at, time_zone, of_day, of_month, sums)

    async def newest(server_id: str, name: str) -> Interface:
        rows = await database.fetch(_ONE, storable(server_id), storable(name))
        if not rows:
            raise unknown_server(server_id)
        if rows[0]["name"] is None:
            raise Problem("not_found", f"server {server_id!r} has no interface {name!r}")
        return _interface(rows[0])

    return Router(
        "/servers/{server_id:str}/interfaces",
        route_handlers=[list_interfaces, get_interface, get_stats, get_numbered, get_numbered_stats],
        tags=["servers"],
    )


def _interface(row: asyncpg.Record) -> Interface:
    # Counters are numeric in the view, because bigint ends at 2**63.
    values: dict[str, Any] = {name: int(v) if isinstance(v, Decimal) else v for name, v in row.items()}
    return Interface(**values)
