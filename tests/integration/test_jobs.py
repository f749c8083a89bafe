"""The work in the background: what is done, and what is told of it when it fails (linkbeat.jobs, /health/ready)."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from service.database.maintenance import maintain
from tests.helpers.history import write_rows
from tests.helpers.support import Client, differing_rows, hours_ago

pytestmark = pytest.mark.background

RIGHT = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
SECONDS = 60  # for TimescaleDB's scheduler to come to a job three times
OURS = "(hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat')"
REFRESH = "proc_name = 'policy_refresh_continuous_aggregate' AND hypertable_name = 'network_traffic_1m'"


@pytest.fixture
async def job(database: asyncpg.Connection) -> str:
    """All jobs as after an installation, none of them due; the name of the one that refreshes network_traffic_1m."""
    await database.execute("SELECT _timescaledb_functions.stop_background_workers()")
    await database.execute(
        f"SELECT alter_job(job_id, scheduled => true) FROM timescaledb_information.jobs WHERE {OURS}"
    )
    # What was tried in the template while that was made.
    await database.execute("DELETE FROM _timescaledb_internal.bgw_job_stat")
    await database.execute("UPDATE linkbeat.installation SET installed = now()")
    await database.execute("UPDATE linkbeat.maintenance SET installed = now()")
    has_policies = await database.fetchval(f"SELECT EXISTS (SELECT FROM timescaledb_information.jobs WHERE {OURS})")
    return "refresh network_traffic_1m" if has_policies else "refresh"


@pytest.fixture
async def refused(database: asyncpg.Connection, job: str) -> str:
    """network_traffic_1m keeps nothing of what it is to take in; the statement that ends that."""
    if job == "refresh":  # so that there is something to take in, whenever the template was made
        await database.execute(
            "UPDATE linkbeat.watermarks "
            "SET watermark = watermark - INTERVAL '1 day', taking = taking - INTERVAL '1 day'"
        )
    await write_rows(database, hours_ago(30), hours_ago(0), timedelta(minutes=3))
    kept = await database.fetchval("SELECT kept::text FROM linkbeat.kept WHERE relation = 'network_traffic_1m'")
    await database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more'; END $$;"
        f"CREATE TRIGGER refuse BEFORE INSERT ON {kept} FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    return f"DROP TRIGGER refuse ON {kept}"


async def run(database: asyncpg.Connection, url: str, job: str, *, is_done: str) -> int:
    """Has the job run by itself until `is_done` holds of its row in linkbeat.jobs; how often it failed in a row."""
    if job != "refresh":
        await database.execute(
            "SELECT alter_job(job_id, next_start => now(), schedule_interval => '1 second', "
            f"retry_period => '1 second') FROM timescaledb_information.jobs WHERE {REFRESH}"
        )
        await database.execute("SELECT _timescaledb_functions.start_background_workers()")
    failures = 0
    for _ in range(SECONDS * 10):
        await database.execute("UPDATE linkbeat.maintenance SET last_start = NULL")
        await maintain(url)
        found = await database.fetchrow(
            f"SELECT consecutive_failures, {is_done} AS is_done FROM linkbeat.jobs WHERE job = $1", job
        )
        assert found is not None
        failures = found["consecutive_failures"]
        if found["is_done"]:
            break
        await asyncio.sleep(0.1)
    return failures


async def told(service: Client) -> str:
    answer = await service.http.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    return str(answer.json()["jobs"])


async def test_jobs_that_work_are_ok(database: asyncpg.Connection, job: str, service: Client) -> None:
    names = [row["job"] for row in await database.fetch("SELECT job FROM linkbeat.jobs ORDER BY job")]

    assert await told(service) == "ok"
    expected = ["alert history", "audit log", "refresh", "retention"]
    assert names == expected if job == "refresh" else len(names) == 12 * 3 + 3 * 2 + 2


async def test_a_job_that_fails_three_times_is_told_and_nothing_that_is_read_is_wrong(
    database: asyncpg.Connection, database_url: str, job: str, refused: str, service: Client
) -> None:
    failures = await run(database, database_url, job, is_done="consecutive_failures >= 3")

    assert failures >= 3
    assert f"{job} failing ({failures} times in a row, last success " in await told(service)
    assert await database.fetchval("SELECT last_error <> '' FROM linkbeat.jobs WHERE job = $1", job)
    assert await differing_rows(database) == RIGHT
    await service.post({"server_id": "live", "hostname": "live", "network_interfaces": []})

    await database.execute(refused)
    await run(database, database_url, job, is_done="last_success > now() - INTERVAL '1 minute'")

    assert f"{job} failing" not in await told(service)
    assert await differing_rows(database) == RIGHT


async def test_a_job_that_does_not_come_to_run_is_overdue(
    database: asyncpg.Connection, job: str, service: Client
) -> None:
    """Two of its intervals after it last should have worked, whatever keeps it: here, that nobody starts it."""
    assert await told(service) == "ok"

    await database.execute("UPDATE linkbeat.maintenance SET last_success = now() - 2.1 * every")
    await database.execute(
        "SELECT alter_job(job_id, next_start => now() - schedule_interval * 1.1) "
        f"FROM timescaledb_information.jobs WHERE {REFRESH}"
    )

    assert f"{job} overdue (last success " in await told(service)


async def test_a_policy_that_the_scheduler_does_not_run_is_taken_over(
    database: asyncpg.Connection, database_url: str, job: str
) -> None:
    """TimescaleDB may be short of workers, or its scheduler broken; on Apache all of the work is the service's."""
    await write_rows(database, hours_ago(30), hours_ago(0), timedelta(minutes=3))
    await database.execute(
        "SELECT alter_job(job_id, next_start => now() - INTERVAL '1 day') "
        f"FROM timescaledb_information.jobs WHERE {REFRESH}"
    )
    await database.execute("UPDATE linkbeat.maintenance SET last_start = NULL, last_success = NULL")

    assert await maintain(database_url)

    state = await database.fetchval("SELECT state FROM linkbeat.jobs WHERE job = $1", job)
    assert state == ("ok" if job == "refresh" else "taken over")
    kept = await database.fetchval("SELECT kept::text FROM linkbeat.kept WHERE relation = 'network_traffic_1m'")
    assert await database.fetchval(f"SELECT count(*) FROM {kept} WHERE bucket > now() - INTERVAL '10 minutes'") > 0
    assert not await database.fetchval("SELECT is_due FROM linkbeat.jobs WHERE job = $1", job)
    assert await differing_rows(database) == RIGHT


async def test_policies_that_are_turned_off_are_told_and_left_alone(
    database: asyncpg.Connection, database_url: str, job: str, service: Client
) -> None:
    await database.execute(
        f"SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE {OURS}"
    )

    await maintain(database_url)

    if job != "refresh":
        assert (await told(service)).startswith("columnstore filesystem_metrics off (last success never); ")
        assert (await told(service)).endswith("; and 37 more")
        assert await database.fetchval("SELECT count(*) FROM linkbeat.maintenance WHERE is_taken_over") == 0
