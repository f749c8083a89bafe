"""Liveness, readiness, health, version information and metrics of the service."""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import asyncpg
import msgspec
from litestar import Request, Response, Router, get
from litestar.openapi.datastructures import ResponseSpec

from agent import __version__
from service.cache import LONGEST_SECONDS, Reader
from service.database import schema
from service.fleet.listing import ONLINE
from service.http.conditional import NOT_MODIFIED
from service.http.errors import Problem
from service.http.problems import problems
from service.ingest.commit import Ingest
from service.operations.collectors import Exposition
from service.settings import Settings

log = logging.getLogger("linkbeat")

JOBS_NAMED = 5
# Background jobs; storing and reading do not depend on them immediately. Failing jobs come first.
_JOBS = """
SELECT job, state, every, last_success, last_failure, consecutive_failures, last_error FROM linkbeat.jobs
ORDER BY state = 'ok', state = 'taken over', consecutive_failures DESC, job
"""
# Whether TimescaleDB's scheduler runs jobs of ours, whatever LINKBEAT_MAINTENANCE says.
_SCHEDULED = """
current_setting('timescaledb.max_background_workers')::integer > 0 AND EXISTS (
    SELECT FROM timescaledb_information.jobs
    WHERE scheduled AND (hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat'))
"""
_STATE = f"""
SELECT edition, (SELECT version_num FROM linkbeat.schema_version) AS revision, {_SCHEDULED} AS is_scheduled
FROM linkbeat.installation
"""
# How evaluating and delivering alerts goes, and how many there are; one row without a rule where there are none.
_ALERTS = """
SELECT c.evaluated_at, extract(epoch FROM now() - c.evaluated_at)::float8 AS age_seconds,
       extract(epoch FROM c.took)::float8 AS took_seconds, m.due, m.oldest_seconds, d.given_up,
       a.rule_id, a.severity, a.state, a.alerts
FROM (SELECT nullif(evaluated_at, '-infinity') AS evaluated_at, took FROM linkbeat.alert_clock) c
CROSS JOIN (SELECT count(*) AS due, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest_seconds
            FROM public.alert_messages
            WHERE delivered_at IS NULL AND dead_at IS NULL AND (attempts > 0 OR next_attempt_at <= now())) m
CROSS JOIN (SELECT count(*) AS given_up FROM public.alert_messages WHERE dead_at > now() - INTERVAL '1 day') d
LEFT JOIN (SELECT rule_id, severity, state, count(*) AS alerts FROM public.alerts GROUP BY 1, 2, 3) a ON true
"""
LATE_TURNS = 4  # missed one after the other, before it is said
_INFO = f"""
SELECT i.edition, v.version_num AS revision, current_setting('server_version') AS postgresql_version,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb_version,
       pg_database_size(current_database()) AS database_bytes, i.installed, {_SCHEDULED} AS is_scheduled, s.*
FROM linkbeat.installation i, linkbeat.schema_version v, (
    SELECT count(*) AS servers, count(*) FILTER (WHERE {ONLINE}) AS servers_online,
           coalesce(sum(cardinality(s.interfaces)), 0)::bigint AS interfaces,
           coalesce(sum(s.duplicates), 0)::bigint AS duplicates, coalesce(sum(s.conflicts), 0)::bigint AS conflicts
    FROM servers s) s
"""


class Alive(msgspec.Struct, frozen=True):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """The dependencies of the service, each `ok` or a description of the problem.

    jobs   the work in the background: refresh of the aggregates, compression, retention. Where it fails or is off,
           heartbeats are stored and answers are right all the same; so this alone leaves the service ready.
    durability           whether 200 can mean what LINKBEAT_DURABILITY says
    durability_in_force  what the database's commits are worth: local, on the primary's disk; replicated, on a
                         synchronous standby's too; none, nothing is acknowledged
    alerts               whether alerts are evaluated in time, and delivered; it leaves the service ready
    """

    status: Literal["ready", "not ready"]
    database: str
    schema: str
    ingest: str
    jobs: str
    alerts: str
    edition: str
    durability: str
    durability_asked: Literal["local", "replicated"]
    durability_in_force: Literal["local", "replicated", "none"]


class Job(msgspec.Struct, frozen=True):
    """A background job. `state`: ok, failing, overdue, off, or taken over (by the service from TimescaleDB)."""

    job: str
    state: str
    every_seconds: float
    last_success: datetime | None
    last_failure: datetime | None
    consecutive_failures: int
    last_error: str | None


class SystemHealth(msgspec.Struct, frozen=True):
    """The dependencies of the service, each `ok` or a description of the problem; and each background job.

    status            ok; degraded: background jobs fail, but heartbeats are stored and responses are correct; failing:
                      the service cannot store or read
    queue_heartbeats  heartbeats that wait for the database
    durability        as in /health/ready
    """

    status: Literal["ok", "degraded", "failing"]
    database: str
    schema: str
    ingest: str
    durability: str
    edition: str
    queue_heartbeats: int
    jobs: list[Job]


class SystemInfo(msgspec.Struct, frozen=True):
    """Versions, sizes and counts of the installation.

    edition         of TimescaleDB: apache or community
    schema_revision of the database's migrations
    started_at      when this process did
    retention_days  how long rows and buckets are kept, and when they are compressed (docs/settings.md)
    maintenance     on; or off by LINKBEAT_MAINTENANCE, and whether TimescaleDB's own jobs run all the same
    interfaces      whose newest state is remembered, gone ones included
    duplicates      heartbeats that were sent again; conflicts, those of them whose values differed
    durability      what 200 is to mean for a heartbeat (LINKBEAT_DURABILITY), and what it can mean now
    """

    version: str
    edition: str
    schema_revision: str
    timescaledb_version: str
    postgresql_version: str
    started_at: datetime
    installed_at: datetime
    database_bytes: int
    servers: int
    servers_online: int
    interfaces: int
    duplicates: int
    conflicts: int
    retention_days: dict[str, float]
    maintenance: str
    durability_asked: Literal["local", "replicated"]
    durability_in_force: Literal["local", "replicated", "none"]


class _Found(msgspec.Struct):
    """The result of checking the database, the schema and ingest."""

    database: str = "ok"
    schema: str = "unknown"
    ingest: str = "ok"
    durability: str = "ok"
    edition: str = "unknown"
    jobs: list[asyncpg.Record] | None = None
    is_scheduled: bool = False
    alerts: list[asyncpg.Record] | None = None

    @property
    def is_ready(self) -> bool:
        return self.database == self.schema == self.ingest == self.durability == "ok"


def routers(
    reader: Reader,
    ingest: Ingest,
    exposed: Exposition,
    settings: Settings,
) -> tuple[Router, Router]:
    """/health, /health/ready and /metrics, at the root; and /system, which belongs below /api/v1 with its guards."""
    started_at = datetime.now(UTC)

    async def exposition(request: Request[Any, Any, Any]) -> Response[bytes]:
        jobs, alerts, edition = None, None, "unknown"
        with suppress(Problem, asyncpg.PostgresError):
            rows = await reader.database.fetch(_STATE)
            edition = rows[0]["edition"] if rows else "unknown"
            jobs = [row["state"] for row in await reader.database.fetch(_JOBS)]
            alerts = await reader.database.fetch(_ALERTS)
        text, media_type = exposed.text(request.headers.get("accept", ""), jobs, alerts, edition)
        return Response(text, media_type=media_type)

    @get("/health", scope="open", summary="Liveness")
    async def health() -> Alive:
        return Alive()

    not_ready = ResponseSpec(Readiness, generate_examples=False, description="Not ready; the fields have the reason.")

    @get(
        "/health/ready", scope="open", summary="Readiness: can the service store and read?", responses={503: not_ready}
    )
    async def ready() -> Response[Readiness]:
        found = await _check(reader, ingest)
        told = _told(found, settings)
        alerts = "unknown" if not found.alerts else _evaluated(found.alerts[0], settings.alert_seconds)
        status: Literal["ready", "not ready"] = "ready" if found.is_ready else "not ready"
        return Response(
            Readiness(
                status,
                found.database,
                found.schema,
                found.ingest,
                told,
                alerts,
                found.edition,
                found.durability,
                ingest.durability.asked,
                ingest.durability.in_force,
            ),
            status_code=200 if found.is_ready else 503,
        )

    @get(
        "/metrics",
        summary="Metrics for Prometheus",
        media_type="text/plain",
        responses={} if settings.metrics_public else problems(401),
        scope="open" if settings.metrics_public else "read",
        is_fresh=True,
    )
    async def public_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """OpenMetrics if `Accept` requests it. Needs a token unless LINKBEAT_METRICS_PUBLIC is true."""
        return await exposition(request)

    failing = ResponseSpec(SystemHealth, generate_examples=False, description="Failing; the fields have the reason.")

    @get("/health", is_fresh=True, summary="Everything that it needs", responses=problems(401) | {503: failing})
    async def system_health() -> Response[SystemHealth]:
        found = await _check(reader, ingest)
        jobs = [
            Job(
                job["job"], job["state"], job["every"].total_seconds(), job["last_success"], job["last_failure"],
                job["consecutive_failures"] or 0, job["last_error"],
            )
            for job in found.jobs or ()
        ]  # fmt: skip
        works = all(job.state in ("ok", "taken over") for job in jobs)
        status: Literal["ok", "degraded", "failing"] = (
            "failing" if not found.is_ready else "ok" if works else "degraded"
        )
        return Response(
            SystemHealth(
                status, found.database, found.schema, found.ingest, found.durability, found.edition, ingest.queued, jobs
            ),
            status_code=200 if found.is_ready else 503,
        )

    @get("/info", summary="Versions, sizes and counts", responses=problems(401, 503) | NOT_MODIFIED)
    async def info(request: Request[Any, Any, Any]) -> Response[SystemInfo]:
        async def read() -> SystemInfo:
            (row,) = await reader.database.fetch(_INFO)
            return SystemInfo(
                version=__version__,
                edition=row["edition"],
                schema_revision=row["revision"],
                timescaledb_version=row["timescaledb_version"],
                postgresql_version=row["postgresql_version"],
                started_at=started_at,
                installed_at=row["installed"],
                database_bytes=row["database_bytes"],
                servers=row["servers"],
                servers_online=row["servers_online"],
                interfaces=row["interfaces"],
                duplicates=row["duplicates"],
                conflicts=row["conflicts"],
                retention_days=settings.database_configuration(),
                maintenance=_maintenance(settings, is_scheduled=row["is_scheduled"]),
                durability_asked=ingest.durability.asked,
                durability_in_force=ingest.durability.in_force,
            )

        return await reader.answers.get(request, "info", read, keep_seconds=LONGEST_SECONDS)

    @get(
        "/metrics",
        is_fresh=True,
        summary="Numbers for Prometheus",
        media_type="text/plain",
        responses=problems(401),
    )
    async def system_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The same as `/metrics`, but always needs a token."""
        return await exposition(request)

    return (
        Router("/", route_handlers=[health, ready, public_metrics], tags=["system"]),
        Router("/system", route_handlers=[system_health, info, system_metrics], tags=["system"]),
    )


def _evaluated(clock: asyncpg.Record, seconds: float) -> str:
    """What is wrong with alerts, whose evaluation is due every `seconds`; or `ok`."""
    if clock["evaluated_at"] is None:
        return "not evaluated yet"
    if clock["age_seconds"] > LATE_TURNS * seconds:
        return f"last evaluated {clock['evaluated_at']:%Y-%m-%dT%H:%M:%SZ}"
    if clock["took_seconds"] > seconds:
        return f"a turn took {clock['took_seconds']:.1f} s; one is due every {seconds:g} s"
    if clock["given_up"]:
        messages = "a message" if clock["given_up"] == 1 else f"{clock['given_up']} messages"
        return f"{messages} could not be delivered within the last day: see /api/v1/alert-messages"
    return "ok"


async def _check(reader: Reader, ingest: Ingest) -> _Found:
    found = _Found()
    expected = schema.head()
    try:
        rows = await reader.database.fetch(_STATE)
        found.jobs = await reader.database.fetch(_JOBS)
        found.alerts = await reader.database.fetch(_ALERTS)
    except Problem as problem:
        found.database = problem.detail
    except asyncpg.PostgresError as raised:
        log.warning("cannot read the schema: %s", raised)
        found.schema = "cannot be read"
    else:
        edition, revision, found.is_scheduled = rows[0] if rows else ("unknown", None, False)
        found.edition = edition
        found.schema = "ok" if revision == expected else f"at {revision or 'no revision'}, expected {expected}"
    if not ingest.is_connected:
        found.ingest = "no connection to the database"
    state = ingest.durability
    if state.asked == "replicated" and state.reason:
        found.durability = state.reason
        if ingest.is_reached:
            found.ingest = "ok"  # it has its connection, and does not acknowledge by it
    return found


def _maintenance(settings: Settings, *, is_scheduled: bool) -> str:
    """`on`, or what LINKBEAT_MAINTENANCE=off has switched off, and what it has not."""
    if settings.maintenance == "on":
        return "on"
    if is_scheduled:
        return (
            "off (LINKBEAT_MAINTENANCE), but TimescaleDB's own jobs run: "
            "set timescaledb.max_background_workers = 0 in its server"
        )
    return "off (LINKBEAT_MAINTENANCE)"


def _told(found: _Found, settings: Settings) -> str:
    """`refresh network_traffic_1m failing (3 times in a row, last success 2026-01-29T10:00:00Z); …`, `ok`, `off …`."""
    if found.jobs is None:
        return "unknown"
    if settings.maintenance == "off":
        return _maintenance(settings, is_scheduled=found.is_scheduled)
    jobs = [job for job in found.jobs if job["state"] != "ok"]
    words = []
    for job in jobs[:JOBS_NAMED]:
        last = f"{job['last_success']:%Y-%m-%dT%H:%M:%SZ}" if job["last_success"] else "never"
        times = f"{job['consecutive_failures']} times in a row, " if job["state"] == "failing" else ""
        words.append(f"{job['job']} {job['state']} ({times}last success {last})")
    if len(jobs) > JOBS_NAMED:
        words.append(f"and {len(jobs) - JOBS_NAMED} more")
    return "; ".join(words) or "ok"
