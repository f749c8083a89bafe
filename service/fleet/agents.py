"""Agents: lateness of their heartbeats, state of their delivery, and their remote configuration."""

from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import asyncpg
import msgspec
from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import FromPath

from service.access.identity import Caller
from service.database.audit import by
from service.database.names import storable, unknown_server, wanted_tags
from service.database.pool import Database
from service.fleet.listing import DEFAULT_INTERVAL_SECONDS, Direction, Search, SortKey, Status, StatusFilter, page
from service.http.conditional import seen_version, version_header
from service.http.errors import Problem
from service.http.json_body import body
from service.http.parameters import After, Limit, TagFilter
from service.http.problems import problems
from service.ingest.agent_config import Configurations
from service.wire import AgentConfig

# public.agent_overview has the meaning of each column (docs/sql.md).
_AGENTS = """
SELECT s.server_id, s.hostname, s.status, s.is_paused AS paused, s.agent_version, s.interval_seconds, s.last_seen,
       s.received_at, s.lateness_seconds, s.clock_skew_seconds, s.duplicates, s.conflicts, s.queued, s.oldest_seconds,
       s.spool, s.spool_bytes, s.dropped, s.rejected, s.is_truncated AS truncated, s.display_name, s.tags,
       s.config::text, linkbeat.version_of(s.config) AS version
FROM agent_overview s
"""
MAX_CONFIG_BYTES = 256 << 10

_CONFIGURE = "linkbeat.configure_server(of_server => $1, new_config => $2::jsonb, seen => $3) AS is_known"
_REQUEST = "linkbeat.request_report($1) AS is_known"


class Agent(msgspec.Struct, frozen=True):
    """An agent, from its newest heartbeat. Null: not reported.

    status              online until three intervals have passed without a heartbeat
    paused              the agent sends heartbeats without measurements, as configured
    last_seen           time of the newest heartbeat, by the agent's clock
    received_at         when a heartbeat was last stored, by the service's clock
    lateness_seconds    how much later than an interval after the one before the last heartbeat came, or the next one is
                        by now if that is more; 0: in time
    clock_skew_seconds  the service's clock less the agent's, with the time on the way, when a heartbeat last came live
    duplicates          heartbeats that were sent again; conflicts: those of them whose values differed (the first stay)
    queued              heartbeats that are not acknowledged yet, and oldest_seconds, the age of the oldest of them
    spool               where they are kept, and spool_bytes, its size, including acknowledged heartbeats
    dropped             heartbeats dropped for lack of room, and rejected permanently, since the agent's start
    truncated           interfaces were left out to make the heartbeat fit
    display_name, tags  of its server
    config              what is set for it; null: nothing
    """

    server_id: str
    hostname: str
    status: Status
    paused: bool
    agent_version: str | None
    interval_seconds: float | None
    last_seen: datetime
    received_at: datetime
    lateness_seconds: float
    clock_skew_seconds: float | None
    duplicates: int
    conflicts: int
    queued: int | None
    oldest_seconds: float | None
    spool: Literal["disk", "memory"] | None
    spool_bytes: int | None
    dropped: int | None
    rejected: int | None
    truncated: bool | None
    display_name: str | None
    tags: list[str]
    config: AgentConfig | None


class ReportRequest(msgspec.Struct, frozen=True):
    """A request for a report. `within_seconds`: the agent's interval, within which its next heartbeat is due."""

    within_seconds: float


class AgentPage(msgspec.Struct, frozen=True):
    """Agents in the requested order; `next` continues after the last one, null at the end."""

    agents: list[Agent]
    next: str | None


def router(database: Database, writing: Database, configurations: Configurations) -> Router:
    """GET /agents, /servers/{server_id}/agent, and GET, PUT and DELETE /servers/{server_id}/config."""

    @get("/agents", summary="List agents", responses=problems(401, 422, 503))
    async def list_agents(
        status: StatusFilter = None,
        search: Search = None,
        tag: TagFilter = None,
        sort: SortKey = "id",
        order: Direction = "asc",
        limit: Limit = 100,
        after: After = None,
    ) -> AgentPage:
        rows, following = await page(
            database,
            _AGENTS,
            status=status,
            search=search,
            tags=wanted_tags(tag),
            sort=sort,
            order=order,
            limit=limit,
            after=after,
        )
        return AgentPage([_agent(row) for row in rows], following)

    @get("/servers/{server_id:str}/agent", summary="Get the agent of a server", responses=problems(401, 404, 503))
    async def get_agent(server_id: FromPath[str]) -> Agent:
        return await one(server_id)

    async def one(server_id: str) -> Agent:
        rows = await database.fetch(f"{_AGENTS} WHERE s.server_id = $1", storable(server_id))
        if not rows:
            raise unknown_server(server_id)
        return _agent(rows[0])

    @get(
        "/servers/{server_id:str}/config",
        summary="Get the remote configuration of an agent",
        responses=problems(401, 404, 503),
    )
    async def get_config(server_id: FromPath[str]) -> Response[AgentConfig]:
        """`{}` if none is set. Its ETag is the version for If-Match."""
        return await config_of(server_id)

    async def config_of(server_id: str) -> Response[AgentConfig]:
        rows = await database.fetch(f"{_AGENTS} WHERE s.server_id = $1", storable(server_id))
        if not rows:
            raise unknown_server(server_id)
        return Response(_agent(rows[0]).config or AgentConfig(), headers=version_header(rows[0]["version"]))

    @put(
        "/servers/{server_id:str}/config",
        summary="Set the remote configuration of an agent",
        responses=problems(400, 401, 404, 408, 412, 413, 415, 422, 503),
    )
    async def put_config(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> Response[AgentConfig]:
        """Replaces the whole configuration. The agent receives it in the response to its next heartbeat. With If-Match,
        only if nobody has changed it since that version."""
        config = await body(request, AgentConfig, MAX_CONFIG_BYTES)
        await configure(request, server_id, config)
        return await config_of(server_id)

    @delete(
        "/servers/{server_id:str}/config",
        summary="Remove the remote configuration of an agent",
        responses=problems(401, 404, 412, 422, 503),
    )
    async def delete_config(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> None:
        """The same as setting `{}`."""
        await configure(request, server_id, None)

    async def configure(request: Request[Any, Caller, Any], server_id: str, config: AgentConfig | None) -> None:
        new = None if config is None else msgspec.json.encode(config).decode()
        (row,) = await by(writing.fetch, request.auth.actor)(
            _CONFIGURE, storable(server_id), new, seen_version(request)
        )
        if not row["is_known"]:
            raise unknown_server(server_id)
        await refresh()

    @post(
        "/servers/{server_id:str}/report",
        status_code=200,
        summary="Request a report from an agent",
        responses=problems(401, 404, 503),
    )
    async def request_report(server_id: FromPath[str], request: Request[Any, Caller, Any]) -> ReportRequest:
        """The agent receives the request in the response to its next heartbeat, within its interval, and then reports
        immediately. An agent that does not allow remote configuration ignores it."""
        (row,) = await by(writing.fetch, request.auth.actor)(_REQUEST, storable(server_id))
        if not row["is_known"]:
            raise unknown_server(server_id)
        await refresh()
        return ReportRequest((await one(server_id)).interval_seconds or DEFAULT_INTERVAL_SECONDS)

    async def refresh() -> None:
        with suppress(Problem):  # the change is committed: if this fails, this process sees it with its next poll
            await configurations.refresh()

    handlers = [list_agents, get_agent, get_config, put_config, delete_config, request_report]
    return Router("/", route_handlers=handlers, tags=["agents"])


def _agent(row: asyncpg.Record) -> Agent:
    values = dict(row)
    config = values.pop("config")
    del values["version"]
    # Returned as stored, without decoding it.
    return Agent(**values, config=None if config is None else msgspec.Raw(config.encode()))  # type: ignore[arg-type]
