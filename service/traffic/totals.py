"""Totals with the busiest servers and interfaces, and current rates."""

from datetime import datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Request, Response, Router, get
from litestar.params import QueryParameter

from service.cache import LONGEST_SECONDS, Reader
from service.database.names import check_known, storable, wanted_tags
from service.database.series_links import Sums
from service.http import cursor
from service.http.conditional import NOT_MODIFIED
from service.http.parameters import After, Rows, ServerFilter, TagFilter
from service.http.problems import problems
from service.traffic.periods import PeriodName, grid
from service.traffic.series import first_of

_SUMMARY = """
WITH series AS MATERIALIZED (
    SELECT server_id, interface_name, sum(rx_bytes)::bigint AS rx, sum(tx_bytes)::bigint AS tx
    FROM {relation} WHERE bucket >= $1 AND is_lowest {where} GROUP BY 1, 2),
servers AS MATERIALIZED (SELECT server_id, sum(rx) AS rx, sum(tx) AS tx FROM series GROUP BY 1),
tagged AS MATERIALIZED ({groups})
SELECT NULL AS part, NULL AS server_id, NULL AS interface_name, coalesce(sum(rx), 0) AS rx_bytes,
       coalesce(sum(tx), 0) AS tx_bytes, count(*) AS servers, (SELECT count(*) FROM series) AS interfaces FROM servers
UNION ALL
(SELECT 'server', server_id, NULL, rx, tx, NULL, NULL FROM servers ORDER BY rx + tx DESC, server_id LIMIT $2)
UNION ALL
(SELECT 'interface', server_id, interface_name, rx, tx, NULL, NULL FROM series
 ORDER BY rx::numeric + tx DESC, server_id, interface_name LIMIT $2)
UNION ALL
(SELECT 'tag', NULL, tag, sum(rx), sum(tx), count(*), NULL FROM servers LEFT JOIN tagged USING (server_id)
 WHERE {is_grouped} GROUP BY tag ORDER BY sum(rx) + sum(tx) DESC, tag)
"""
# A server has one tag of a key at most, so each octet counts in one group.
_NO_GROUPS = "SELECT NULL::text AS server_id, NULL::text AS tag WHERE false"
_GROUPS = """
SELECT s.server_id, t.tag FROM public.servers s LEFT JOIN linkbeat.server_labels l USING (server_id)
CROSS JOIN LATERAL unnest(linkbeat.tags_of(l.tags, s.agent_report)) AS t(tag) WHERE linkbeat.tag_key(t.tag) = $3
"""
_TAGGED = """
AND server_id = ANY (ARRAY(
    SELECT s.server_id FROM public.servers s LEFT JOIN linkbeat.server_labels l USING (server_id)
    WHERE linkbeat.has_tags(linkbeat.tags_of(l.tags, s.agent_report), {tags})))
"""
_LATEST = """
SELECT i.server_id, i.interface_name, i.time, i.is_up, i.is_lowest, i.is_folded, i.speed_mbps, i.rx_bps, i.tx_bps,
       i.delta_kind, i.elapsed_seconds
FROM interface_overview i WHERE i.is_current {where} ORDER BY i.server_id, i.interface_name LIMIT $1
"""


class Talker(msgspec.Struct, frozen=True):
    """Traffic of a server or an interface; `interface` null: the sum over the server's lowest interfaces."""

    server_id: str
    interface: str | None
    rx_bytes: int
    tx_bytes: int
    total_bytes: int


class TagTraffic(msgspec.Struct, frozen=True):
    """Traffic of the servers with one tag; `tag` null: of those without a tag of the key."""

    tag: str | None
    servers: int
    rx_bytes: int
    tx_bytes: int
    total_bytes: int


class TrafficSummary(msgspec.Struct, frozen=True):
    """Traffic of a period up to now; each octet is counted once, at the lowest interface that it crosses.

    servers, interfaces               number of those with samples in the period
    top_servers, top_interfaces       the busiest first
    groups                            with group_by: for each tag of that key its servers' traffic, the busiest first
    sums                              interfaces that links add up, also where both have samples at the same time;
                                      absent: none
    """

    period: str
    since: datetime
    rx_bytes: int
    tx_bytes: int
    total_bytes: int
    servers: int
    interfaces: int
    top_servers: list[Talker]
    top_interfaces: list[Talker]
    groups: list[TagTraffic] | msgspec.UnsetType = msgspec.UNSET
    sums: Sums = msgspec.UNSET


class LatestTraffic(msgspec.Struct, frozen=True):
    """An interface in its server's newest heartbeat; rx_bps, tx_bps: since the previous one, null: unknown."""

    server_id: str
    interface: str
    time: datetime
    is_up: bool
    is_lowest: bool
    is_folded: bool
    speed_mbps: int | None
    rx_bps: float | None
    tx_bps: float | None
    delta_kind: str
    elapsed_seconds: float | None


class LatestPage(msgspec.Struct, frozen=True):
    """Interfaces by server and name; `next` continues after the last one, null at the end."""

    data: list[LatestTraffic]
    next: str | None


Top = Annotated[int, QueryParameter(ge=1, le=100, description="Number of servers and interfaces to list.")]


def router(reader: Reader) -> Router:
    """GET /traffic/summary and /traffic/latest."""

    @get(
        "/summary",
        summary="Totals with the busiest servers and interfaces",
        responses=problems(401, 404, 422, 503) | NOT_MODIFIED,
    )
    async def summary(
        request: Request[Any, Any, Any],
        period: PeriodName = "24h",
        server: ServerFilter = None,
        tag: TagFilter = None,
        group_by: Annotated[
            str | None,
            QueryParameter(description="Key of tags: totals for each tag with this key, in `groups`.", max_length=32),
        ] = None,
        top: Top = 10,
    ) -> Response[TrafficSummary]:
        """Totals of a period up to now, in whole buckets of its aggregate."""
        buckets = grid(period, None, reader.clock.now())
        tags = wanted_tags(tag)
        key = None if group_by is None else storable(group_by)
        linked = await (reader.links.of(server) if server else reader.links.of())

        async def read() -> TrafficSummary:
            arguments: list[Any] = [buckets.first, top]
            groups, where = _NO_GROUPS, ""
            relation = buckets.period.relation
            if linked:
                relation = linked.rows_of_all(
                    relation,
                    "bucket, server_id, interface_name, is_lowest, rx_bytes, tx_bytes",
                    first=first_of(buckets),
                )
            if key is not None:
                arguments.append(key)
                groups = _GROUPS
            if server:
                arguments.append(storable(server))
                where += f"AND server_id = ${len(arguments)}"
                if linked:
                    relation = linked.rows(
                        buckets.period.relation, servers=f"ARRAY[${len(arguments)}]", first=first_of(buckets)
                    )
            if tags:
                arguments.append(tags)
                where += _TAGGED.format(tags=f"${len(arguments)}::text[]")
            rows = await reader.database.fetch(
                _SUMMARY.format(relation=relation, where=where, groups=groups, is_grouped=str(key is not None)),
                *arguments,
            )
            if server and not rows[0]["servers"]:
                await check_known(reader.database, server)
            total, *parts = rows
            made = [
                Talker(one["server_id"], one["interface_name"], *_octets(one)) for one in parts if one["part"] != "tag"
            ]
            by_tag = [
                TagTraffic(one["interface_name"], one["servers"], *_octets(one))
                for one in parts
                if one["part"] == "tag"
            ]
            return TrafficSummary(
                period, buckets.first, *_octets(total), total["servers"], total["interfaces"],
                [one for one in made if one.interface is None], [one for one in made if one.interface is not None],
                msgspec.UNSET if key is None else by_tag, linked.sums(),
            )  # fmt: skip

        return await reader.answers.get(
            request, ("summary", server, top, buckets, key, *tags, *linked.mark), read,
            keep_seconds=LONGEST_SECONDS, servers=[server] if server else (),
        )  # fmt: skip

    @get("/latest", summary="Current rates", responses=problems(401, 404, 422, 503))
    async def latest(server: ServerFilter = None, limit: Rows = 1_000, after: After = None) -> LatestPage:
        """Rates of every interface in its server's newest heartbeat, without reading history."""
        where = ""
        arguments: list[object] = [limit + 1]
        if server is not None:
            arguments.append(storable(server))
            where += f" AND i.server_id = ${len(arguments)}"
        if after is not None:
            server_id, name = cursor.read(after, tuple[str, str])
            arguments += [storable(server_id), storable(name)]
            # The first condition alone can use the index of servers.
            where += " AND i.server_id >= ${0} AND (i.server_id, i.interface_name) > (${0}, ${1})".format(
                len(arguments) - 1, len(arguments)
            )
        rows = await reader.database.fetch(_LATEST.format(where=where), *arguments)
        if server is not None and not rows:
            await check_known(reader.database, server)
        data = [LatestTraffic(*row) for row in rows[:limit]]
        return LatestPage(data, cursor.write(data[-1].server_id, data[-1].interface) if len(rows) > limit else None)

    return Router("/traffic", route_handlers=[summary, latest], tags=["traffic"])


def _octets(row: asyncpg.Record) -> tuple[int, int, int]:
    rx, tx = int(row["rx_bytes"]), int(row["tx_bytes"])
    return rx, tx, rx + tx
