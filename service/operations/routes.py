"""Whether the service lives, whether it can do its work, and what it says of itself."""

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
# What works in the background; nothing that is stored or read depends on it at once. What does not work stands first.
_JOBS = """
SELECT job, state, every, last_success, last_failure, consecutive_failures, last_error FROM linkbeat.jobs
ORDER BY state = 'ok', state = 'taken over', consecutive_failures DESC, job
"""
# How evaluating alerts goes, and how many there are; one row without a rule where there are none.
_ALERTS = """
SELECT c.evaluated_at, extract(epoch FROM now() - c.evaluated_at)::float8 AS age_seconds,
       extract(epoch FROM c.took)::float8 AS took_seconds, a.rule_id, a.severity, a.state, a.alerts
FROM (SELECT nullif(evaluated_at, '-infinity') AS evaluated_at, took FROM linkbeat.alert_clock) c
LEFT JOIN (SELECT rule_id, severity, state, count(*) AS alerts FROM public.alerts GROUP BY 1, 2, 3) a ON true
"""
LATE_TURNS = 4  # missed one after the other, before it is said
_STATE = "SELECT edition, (SELECT version_num FROM linkbeat.schema_version) AS revision FROM linkbeat.installation"
_INFO = f"""
SELECT i.edition, v.version_num AS revision, current_setting('server_version') AS postgresql_version,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb_version,
       pg_database_size(current_database()) AS database_bytes, i.installed, s.*
FROM linkbeat.installation i, linkbeat.schema_version v, (
    SELECT count(*) AS servers, count(*) FILTER (WHERE {ONLINE}) AS servers_online,
           coalesce(sum(cardinality(s.interfaces)), 0)::bigint AS interfaces,
           coalesce(sum(s.duplicates), 0)::bigint AS duplicates, coalesce(sum(s.conflicts), 0)::bigint AS conflicts
    FROM servers s) s
"""


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """What the service needs, each `ok` or what is wrong with it.

    jobs   the work in the background: refresh of the aggregates, compression, retention. Where it fails, heartbeats
           are stored and answers are right all the same; so this alone leaves the service ready.
    alerts whether they are evaluated, and in time; the service is ready all the same
    """

    status: Literal["ready", "not ready"]
    database: str
    schema: str
    ingest: str
    jobs: str
    alerts: str
    edition: str


class Job(msgspec.Struct, frozen=True):
    """Work in the background. `state`: ok, failing, overdue, off, or taken over by the service from TimescaleDB."""

    job: str
    state: str
    every_seconds: float
    last_success: datetime | None
    last_failure: datetime | None
    consecutive_failures: int
    last_error: str | None


class SystemHealth(msgspec.Struct, frozen=True):
    """What the service needs, each `ok` or what is wrong with it; and each job in the background.

    status            ok; degraded: jobs do not work, heartbeats and answers do; failing: it cannot do its work
    queue_heartbeats  heartbeats that wait for the database
    """

    status: Literal["ok", "degraded", "failing"]
    database: str
    schema: str
    ingest: str
    edition: str
    queue_heartbeats: int
    jobs: list[Job]


class SystemInfo(msgspec.Struct, frozen=True):
    """What is installed, and how much there is of it.

    edition         of TimescaleDB: apache or community
    schema_revision of the database's migrations
    started_at      when this process did
    retention_days  how long rows and buckets are kept, and when they are compressed (docs/settings.md)
    interfaces      whose newest state is remembered, gone ones included
    duplicates      heartbeats that were sent again; conflicts, those of them whose values differed
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


class _Found(msgspec.Struct):
    """What a look at the database, the schema and ingest showed."""

    database: str = "ok"
    schema: str = "unknown"
    ingest: str = "ok"
    edition: str = "unknown"
    jobs: list[asyncpg.Record] | None = None
    alerts: list[asyncpg.Record] | None = None

    @property
    def is_ready(self) -> bool:
        return self.database == self.schema == self.ingest == "ok"


def routers(
    reader: Reader,
    ingest: Ingest,
    exposed: Exposition,
    settings: Settings,
) -> tuple[Router, Router]:
    """/health, /health/ready and /metrics, at the root; and /system, which belongs below /api/v1 with its guards."""
    expected, started_at = schema.head(), datetime.now(UTC)

    async def look() -> _Found:
        found = _Found()
        try:
            rows = await reader.database.fetch(_STATE)
            found.jobs = await reader.database.fetch(_JOBS)
            found.alerts = await reader.database.fetch(_ALERTS)
        except Problem as problem:
            found.database = problem.detail
        except asyncpg.PostgresError as raised:
            log.warning("the schema cannot be read: %s", raised)
            found.schema = "cannot be read"
        else:
            found.edition = rows[0]["edition"] if rows else "unknown"
            revision = rows[0]["revision"] if rows else None
            found.schema = "ok" if revision == expected else f"at {revision or 'no revision'}, expected {expected}"
        if not ingest.is_connected:
            found.ingest = "no connection to the database"
        return found

    async def exposition(request: Request[Any, Any, Any]) -> Response[bytes]:
        jobs, alerts, edition = None, None, "unknown"
        with suppress(Problem, asyncpg.PostgresError):
            rows = await reader.database.fetch(_STATE)
            edition = rows[0]["edition"] if rows else "unknown"
            jobs = [row["state"] for row in await reader.database.fetch(_JOBS)]
            alerts = await reader.database.fetch(_ALERTS)
        text, media_type = exposed.text(request.headers.get("accept", ""), jobs, alerts, edition)
        return Response(text, media_type=media_type)

    @get("/health", scope="open", summary="Is the process alive?")
    async def health() -> Alive:
        return Alive()

    not_ready = ResponseSpec(Readiness, generate_examples=False, description="It cannot; the fields say why.")

    @get("/health/ready", scope="open", summary="Can it store and answer?", responses={503: not_ready})
    async def ready() -> Response[Readiness]:
        found = await look()
        told = "unknown" if found.jobs is None else _told([job for job in found.jobs if job["state"] != "ok"])
        alerts = "unknown" if not found.alerts else _evaluated(found.alerts[0], settings.alert_seconds)
        status: Literal["ready", "not ready"] = "ready" if found.is_ready else "not ready"
        return Response(
            Readiness(status, found.database, found.schema, found.ingest, told, alerts, found.edition),
            status_code=200 if found.is_ready else 503,
        )

    @get(
        "/metrics",
        summary="Numbers for Prometheus",
        media_type="text/plain",
        responses={} if settings.metrics_public else problems(401),
        scope="open" if settings.metrics_public else "read",
    )
    async def public_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """OpenMetrics where `Accept` asks for it. Without a key only where LINKBEAT_METRICS_PUBLIC says so."""
        return await exposition(request)

    failing = ResponseSpec(SystemHealth, generate_examples=False, description="It cannot; the fields say why.")

    @get("/health", summary="Everything that it needs", responses=problems(401) | {503: failing})
    async def system_health() -> Response[SystemHealth]:
        found = await look()
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
            SystemHealth(status, found.database, found.schema, found.ingest, found.edition, ingest.queued, jobs),
            status_code=200 if found.is_ready else 503,
        )

    @get("/info", summary="What is installed, and how much there is of it", responses=problems(401, 503) | NOT_MODIFIED)
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
            )

        return await reader.answers.get(request, "info", read, keep_seconds=LONGEST_SECONDS)

    @get("/metrics", summary="Numbers for Prometheus", media_type="text/plain", responses=problems(401))
    async def system_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The same as `/metrics`, always with a key."""
        return await exposition(request)

    return (
        Router("/", route_handlers=[health, ready, public_metrics], tags=["system"]),
        Router("/system", route_handlers=[system_health, info, system_metrics], tags=["system"]),
    )


def _evaluated(clock: asyncpg.Record, seconds: float) -> str:
    """What is wrong with the turns of alerts, which are due every `seconds`; or `ok`."""
    if clock["evaluated_at"] is None:
        return "not evaluated yet"
    if clock["age_seconds"] > LATE_TURNS * seconds:
        return f"last evaluated {clock['evaluated_at']:%Y-%m-%dT%H:%M:%SZ}"
    if clock["took_seconds"] > seconds:
        return f"a turn took {clock['took_seconds']:.1f} s; one is due every {seconds:g} s"
    return "ok"


def _told(jobs: list[asyncpg.Record]) -> str:
    """`refresh network_traffic_1m failing (3 times in a row, last success 2026-01-29T10:00:00Z); …`, or `ok`."""
    words = []
    for job in jobs[:JOBS_NAMED]:
        last = f"{job['last_success']:%Y-%m-%dT%H:%M:%SZ}" if job["last_success"] else "never"
        times = f"{job['consecutive_failures']} times in a row, " if job["state"] == "failing" else ""
        words.append(f"{job['job']} {job['state']} ({times}last success {last})")
    if len(jobs) > JOBS_NAMED:
        words.append(f"and {len(jobs) - JOBS_NAMED} more")
    return "; ".join(words) or "ok"
