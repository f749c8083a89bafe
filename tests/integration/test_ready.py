"""GET /health and /health/ready: for load balancers and service managers."""

import asyncpg
import pytest

from service.database.schema import head
from tests.helpers.support import Client

pytestmark = pytest.mark.background


async def test_health_says_that_the_process_answers(service: Client) -> None:
    answer = await service.http.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_says_what_it_found(service: Client, database: asyncpg.Connection) -> None:
    answer = await service.http.get("/health/ready")

    edition = await database.fetchval("SELECT edition FROM linkbeat.installation")
    assert answer.status_code == 200
    # Of jobs: test_jobs.py.
    assert answer.json() | {"jobs": "", "alerts": ""} == {
        "status": "ready", "database": "ok", "schema": "ok", "ingest": "ok", "jobs": "", "alerts": "",
        "edition": edition,
        "durability": "ok", "durability_asked": "local", "durability_in_force": "local",
    }  # fmt: skip


async def test_both_answer_without_a_key_and_tell_nothing_secret(service: Client, database_url: str) -> None:
    for path in ("/health", "/health/ready"):
        answer = await service.http.get(path, headers={"Authorization": ""})

        assert answer.status_code == 200
        assert database_url not in answer.text


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE linkbeat.schema_version SET version_num = '9999'", f"at 9999, expected {head()}"),
        ("DELETE FROM linkbeat.schema_version", f"at no revision, expected {head()}"),
        ("DELETE FROM linkbeat.installation", f"at no revision, expected {head()}"),
        ("ALTER TABLE linkbeat.installation RENAME TO elsewhere", "cannot be read"),
    ],
)
async def test_it_is_not_ready_where_the_schema_is_not_its_own(
    service: Client, database: asyncpg.Connection, statement: str, says: str
) -> None:
    await database.execute(statement)

    answer = await service.http.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["status"] == "not ready"
    assert answer.json()["database"] == "ok"
    assert says in answer.json()["schema"]
    assert (await service.http.get("/health")).status_code == 200
