"""Quotas: the traffic limit of a server for a billing month, and its use."""

from datetime import datetime
from typing import Any, Literal

import asyncpg
import msgspec
from litestar import Request, Response, Router, delete, get, put
from litestar.params import FromPath

from service.access.identity import Caller
from service.clock import Clock
from service.database.audit import by
from service.database.names import check_known, series_called, storable, unknown_server
from service.database.pool import Database
from service.database.series_links import SeriesLinks, Sums
from service.database.zones import Zones
from service.http.conditional import seen_version, version_header
from service.http.errors import Problem
from service.http.json_body import body
from service.http.problems import problems
from service.wire import Quota

# public.quota_usage documents each column (docs/sql.md).
STATES = """
SELECT q.server_id, q.bytes, q.direction, q.billing_day, q.time_zone, q.interface_name AS interface, q.near_percent,
       q.since, q.until, q.used_bytes::bigint, q.used_percent, q.expected_bytes::bigint, q.state,
       linkbeat.version_of(linkbeat.quota_json(s)) AS version
FROM quota_usage($1) q JOIN linkbeat.quotas s USING (server_id) WHERE q.server_id = ANY ($2::text[])
"""
_SET = (
    "linkbeat.set_quota(of_server => $1, new_bytes => $2, new_direction => $3, new_billing_day => $4, "
    "new_time_zone => $5, new_interface => $6, new_near_percent => $7, seen => $8) AS is_known"
)


class QuotaState(Quota, frozen=True, kw_only=True):
    """A quota and its use in the current billing month.

    since, until    the billing month, half-open
    used_bytes      traffic including the newest heartbeat; used_percent: as a share of `bytes`
    expected_bytes  forecast for the end of the month at the average rate so far; null during the first day
    state           `ok`; `near` from near_percent on; `over`: above the quota
    sums            interfaces that links add up, also where both have samples at the same time; absent: none, or a part
                    of a response that has them
    """

    since: datetime
    until: datetime
    used_bytes: int
    used_percent: float
    expected_bytes: int | None
    state: Literal["ok", "near", "over"]
    sums: Sums = msgspec.UNSET


def router(database: Database, writing: Database, zones: Zones, clock: Clock, links: SeriesLinks) -> Router:
    """GET, PUT and DELETE /servers/{server_id}/quota."""

    async def state(server_id: str) -> Response[QuotaState]:
        rows = await database.fetch(STATES, clock.now(), [storable(server_id)])
        if not rows:
            await check_known(database, server_id)
            raise Problem("not_found", f"no quota is set for {server_id!r}")
        found, linked = state_of(rows[0]), await links.of(server_id)
        found = msgspec.structs.replace(found, sums=linked.sums(found.interface))
        return Response(found, headers=version_header(rows[0]["version"]))

    @get("/", summary="Get the quota of a server and its state", responses=problems(401, 404, 503))
    async def get_quota(server_id: FromPath[str]) -> Response[QuotaState]:
        """Its ETag is the version for If-Match."""
        return await state(server_id)

    @put("/", summary="Set the quota of a server", responses=problems(400, 401, 404, 408, 412, 413, 415, 422, 503))
    async def put_quota(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> Response[QuotaState]:
        """Replaces the quota; the traffic since the beginning of the billing month counts. With If-Match, only if
        nobody has changed it since that version; with If-None-Match: *, only if none is set."""
        quota = await body(request, Quota)
        await zones.check(quota.time_zone)
        interface = quota.interface
        if interface is not None:
            interface = await series_called(database, server_id, interface) or interface
        await write(request, server_id, quota.bytes, quota.direction, quota.billing_day, quota.time_zone,
                    interface, quota.near_percent)  # fmt: skip
        return await state(server_id)

    @delete("/", summary="Remove the quota of a server", responses=problems(401, 404, 412, 422, 503))
    async def delete_quota(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> None:
        await write(request, server_id, *[None] * 6)

    async def write(request: Request[Any, Caller, Any], server_id: str, *quota: Any) -> None:
        (row,) = await by(writing.fetch, request.auth.actor)(_SET, storable(server_id), *quota, seen_version(request))
        if not row["is_known"]:
            raise unknown_server(server_id)

    return Router("/servers/{server_id:str}/quota", route_handlers=[get_quota, put_quota, delete_quota], tags=["usage"])


def state_of(row: asyncpg.Record) -> QuotaState:
    """A row of STATES."""
    values = dict(row)
    del values["server_id"], values["version"]
    return QuotaState(**values)
