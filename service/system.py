"""Whether the service lives, and whether it can do its work."""

import logging
from collections.abc import Callable
from typing import Literal

import asyncpg
import msgspec
from litestar import Response, Router, get
from litestar.openapi.datastructures import ResponseSpec

from service import schema
from service.database import Database
from service.errors import Problem
from service.ingest import Ingest

log = logging.getLogger("linkbeat")

JOBS_NAMED = 5
# What works in the background and does not: nothing that is stored or read depends on it at once.
_JOBS = """
SELECT job, state, consecutive_failures, last_success FROM linkbeat.jobs
WHERE state <> 'ok' ORDER BY state = 'taken over', consecutive_failures DESC, job
"""
_STATE = "SELECT edition, (SELECT version_num FROM linkbeat.schema_version) AS revision FROM linkbeat.installation"


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """What the service needs, each `ok` or what is wrong with it.

    jobs   the work in the background: refresh of the aggregates, compression, retention. Where it fails, heartbeats
           are stored and answers are right all the same; so this alone leaves the service ready.
    """

    status: Literal["ready", "not ready"]
    database: str
    schema: str
    ingest: str
    jobs: str
    edition: str


def router(database: Callable[[], Database], ingest: Callable[[], Ingest]) -> Router:
    """GET /health and /health/ready; without a key, for load balancers and service managers."""

    @get("/health", summary="Is the process alive?")
    async def health() -> Alive:
        return Alive()

    expected = schema.head()
    not_ready = ResponseSpec(Readiness, generate_examples=False, description="It cannot; the fields say why.")

    @get("/health/ready", summary="Can it store and answer?", responses={503: not_ready})
    async def ready() -> Response[Readiness]:
        edition, reachable, right, background = "unknown", "ok", "unknown", "unknown"
        try:
            rows = await database().fetch(_STATE)
            background = _told(await database().fetch(_JOBS))
        except Problem as problem:
            reachable = problem.detail
        except asyncpg.PostgresError as raised:
            log.warning("the schema cannot be read: %s", raised)
            right = "cannot be read"
        else:
            edition = rows[0]["edition"] if rows else "unknown"
            found = rows[0]["revision"] if rows else None
            right = "ok" if found == expected else f"at {found or 'no revision'}, expected {expected}"
        writing = "ok" if ingest().is_connected else "no connection to the database"
        is_ready = reachable == right == writing == "ok"
        return Response(
            Readiness("ready" if is_ready else "not ready", reachable, right, writing, background, edition),
            status_code=200 if is_ready else 503,
        )

    return Router("/", route_handlers=[health, ready], opt={"scope": "open"}, tags=["system"])


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
