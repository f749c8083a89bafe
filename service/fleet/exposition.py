"""/metrics/fleet: the counters and the state of every server, in the text format of Prometheus."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

import asyncpg
import msgspec
from litestar import Response, Router, get
from litestar.params import QueryParameter

from service.cache import beside
from service.database.names import storable, wanted_tags
from service.database.pool import Database
from service.fleet.listing import ONLINE
from service.http.parameters import TagFilter
from service.http.problems import problems

MEDIA_TYPE = "text/plain; version=0.0.4"  # to which the framework adds the charset
# The last counters of a silent server are outdated: only its state is exposed.
_SERVERS = f"""
SELECT s.server_id, s.hostname, coalesce(l.display_name, '') AS display_name, coalesce(s.agent_version, '') AS version,
       coalesce(s.primary_interface, '') AS primary_interface, o.is_online,
       s.reported_status IS NOT DISTINCT FROM 'paused' AS is_paused,
       extract(epoch FROM s.received_at)::float8 AS received,
       (s.latest_metrics).cpu_percent, (s.latest_metrics).memory_percent, (s.latest_metrics).disk_percent,
       (s.latest_metrics).load_1m, linkbeat.tags_of(l.tags, s.agent_report) AS tags, i.interfaces,
       coalesce(a.alerts, '[]') AS alerts
FROM servers s
LEFT JOIN linkbeat.server_labels l USING (server_id)
CROSS JOIN LATERAL (SELECT {ONLINE} AS is_online) o
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_array(
               interface_name, is_up, linkbeat.unsigned(rx_bytes), linkbeat.unsigned(tx_bytes),
               linkbeat.unsigned(rx_packets), linkbeat.unsigned(tx_packets), linkbeat.unsigned(rx_errors),
               linkbeat.unsigned(tx_errors), linkbeat.unsigned(rx_dropped), linkbeat.unsigned(tx_dropped))
           ORDER BY interface_name), '[]')::text AS interfaces
    FROM unnest(s.interfaces) WHERE o.is_online AND time = s.last_seen AND NOT is_folded
) i
LEFT JOIN (
    SELECT server_id, json_agg(json_build_array(rule_id, subject, severity, state, extract(epoch FROM active_at))
                               ORDER BY rule_id, subject)::text AS alerts
    FROM alerts WHERE server_id > $1 GROUP BY 1
) a USING (server_id)
WHERE s.server_id > $1 AND ($3::text[] IS NULL OR linkbeat.has_tags(linkbeat.tags_of(l.tags, s.agent_report), $3))
ORDER BY s.server_id LIMIT $2
"""


class _Server(NamedTuple):
    row: asyncpg.Record
    labels: str
    interfaces: Sequence[tuple[str, Sequence[int | None]]]  # labels, and values in the order of _OF_INTERFACE


# name, type, help, value of a row; None: not reported
_OF_SERVER: tuple[tuple[str, str, str, Callable[[asyncpg.Record], float | None]], ...] = (
    ("linkbeat_server_up", "gauge", "Whether the server reports: 0 after three intervals without a heartbeat.",
     lambda row: int(row["is_online"])),
    ("linkbeat_server_paused", "gauge", "Whether its agent is paused.", lambda row: int(row["is_paused"])),
    ("linkbeat_server_last_heartbeat_timestamp_seconds", "gauge", "When a heartbeat was last stored.",
     lambda row: row["received"]),
    ("linkbeat_server_cpu_percent", "gauge", "Processor time in use.", lambda row: _now(row, "cpu_percent")),
    ("linkbeat_server_memory_percent", "gauge", "Share of the memory in use.", lambda row: _now(row, "memory_percent")),
    ("linkbeat_server_disk_percent", "gauge", "Share of the root filesystem in use.",
     lambda row: _now(row, "disk_percent")),
    ("linkbeat_server_load1", "gauge", "Load average over 1 minute.", lambda row: _now(row, "load_1m")),
)  # fmt: skip
_OF_INTERFACE = (
    ("linkbeat_interface_up", "gauge", "Whether the interface is up."),
    ("linkbeat_interface_receive_bytes_total", "counter", "Octets received since boot, as the kernel counts them."),
    ("linkbeat_interface_transmit_bytes_total", "counter", "Octets sent since boot, as the kernel counts them."),
    ("linkbeat_interface_receive_packets_total", "counter", "Packets received since boot."),
    ("linkbeat_interface_transmit_packets_total", "counter", "Packets sent since boot."),
    ("linkbeat_interface_receive_errors_total", "counter", "Receive errors since boot."),
    ("linkbeat_interface_transmit_errors_total", "counter", "Transmit errors since boot."),
    ("linkbeat_interface_receive_dropped_total", "counter", "Received packets that were dropped since boot."),
    ("linkbeat_interface_transmit_dropped_total", "counter", "Outgoing packets that were dropped since boot."),
)  # fmt: skip
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_rows = msgspec.json.Decoder(list[tuple[Any, ...]]).decode


def router(database: Database) -> Router:
    """GET /metrics/fleet, at the root beside /metrics."""

    @get(
        "/metrics/fleet",
        scope="read",
        summary="Servers for Prometheus",
        media_type="text/plain",
        responses=problems(401, 422, 503),
    )
    async def fleet(
        tag: TagFilter = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Maximum number of servers.")] = 1000,
        after: Annotated[str, QueryParameter(description="Only servers whose id is after this.", max_length=100)] = "",
    ) -> Response[bytes]:
        """Counters and state of the servers by id. linkbeat_fleet_is_truncated is 1, and a Link header continues the
        list, if there are more than `limit`: scrape by tag then, or one page for each `after`."""
        tags = wanted_tags(tag)
        rows = await database.fetch(_SERVERS, storable(after), limit + 1, tags or None)
        body = await beside(_text, rows[:limit], len(rows) > limit)
        headers = {}
        if len(rows) > limit:
            query = urlencode({"tag": tags, "limit": limit, "after": rows[limit - 1]["server_id"]}, doseq=True)
            headers["Link"] = f'</metrics/fleet?{query}>; rel="next"'
        return Response(body, media_type=MEDIA_TYPE, headers=headers)

    return Router("/", route_handlers=[fleet], tags=["system"])


def _now(row: asyncpg.Record, name: str) -> float | None:
    """A metric of the newest heartbeat, while that is new."""
    value: float | None = row[name]
    return value if row["is_online"] else None


def _text(rows: Sequence[asyncpg.Record], is_truncated: bool) -> bytes:  # for `beside`
    return "".join(_lines([_server(row) for row in rows], is_truncated=is_truncated)).encode()


def _server(row: asyncpg.Record) -> _Server:
    labels = f'server="{row["server_id"]}"'
    interfaces = [
        (f'{labels},interface="{_escaped(name)}"', (int(is_up), *counters))
        for name, is_up, *counters in _rows(row["interfaces"])
    ]
    return _Server(row, labels, interfaces)


def _lines(servers: Sequence[_Server], *, is_truncated: bool) -> Iterator[str]:
    yield _head("linkbeat_fleet_is_truncated", "gauge", "Whether there are more servers than this page has.")
    yield f"linkbeat_fleet_is_truncated {int(is_truncated)}\n"
    yield _head("linkbeat_server_info", "gauge", "Names of the server; always 1.")
    for row, labels, _ in servers:
        more = ("hostname", "display_name", "version", "primary_interface")
        named = ",".join(f'{name}="{_escaped(row[name])}"' for name in more)
        yield f"linkbeat_server_info{{{labels},{named}}} 1\n"
    yield _head("linkbeat_server_tag", "gauge", "Tags of the server; always 1.")
    for row, labels, _ in servers:
        for tag in row["tags"]:
            key, _, value = tag.partition("=")
            yield f'linkbeat_server_tag{{{labels},key="{_escaped(key)}",value="{_escaped(value)}"}} 1\n'
    yield _head("linkbeat_server_alert_active_timestamp_seconds", "gauge", "Since when an alert's condition holds.")
    for row, labels, _ in servers:
        for rule, subject, severity, state, active in _rows(row["alerts"]):
            named = (
                f'alertname="{_escaped(rule)}",subject="{_escaped(subject)}",severity="{severity}",alertstate="{state}"'
            )
            yield f"linkbeat_server_alert_active_timestamp_seconds{{{labels},{named}}} {active}\n"
    for name, kind, words, value_of in _OF_SERVER:
        yield _head(name, kind, words)
        for row, labels, _ in servers:
            if (value := value_of(row)) is not None:
                yield f"{name}{{{labels}}} {value}\n"
    for place, (name, kind, words) in enumerate(_OF_INTERFACE):
        yield _head(name, kind, words)
        for _, _, interfaces in servers:
            for labels, values in interfaces:
                if (value := values[place]) is not None:
                    yield f"{name}{{{labels}}} {value}\n"


def _head(name: str, kind: str, words: str) -> str:
    return f"# HELP {name} {words}\n# TYPE {name} {kind}\n"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
