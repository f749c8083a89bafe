"""The service's part in alerts: it calls the turn, keeps the ledger of when it listened, and says when it is late."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from service.alerts.evaluate import PAUSES
from service.settings import Settings
from tests.helpers.support import KEY, Client

pytestmark = pytest.mark.background


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """One turn, at the start."""
    return Settings(api_key=KEY, data_dir=str(tmp_path), alert_seconds=300)


async def test_it_evaluates_and_listens_from_its_start_on(service: Client, database: asyncpg.Connection) -> None:
    evaluated, processes = False, 0
    for _ in range(600):
        evaluated = await database.fetchval("SELECT isfinite(evaluated_at) FROM linkbeat.alert_clock")
        processes = await database.fetchval("SELECT count(*) FROM linkbeat.listening")
        if evaluated and processes:
            break
        await asyncio.sleep(0.1)

    assert (evaluated, processes) == (True, 1)


@pytest.mark.parametrize(
    ("clock", "says"),
    [
        (
            "evaluated_at = now() + INTERVAL '1 hour', took = '301.26 seconds'",
            "a turn took 301.3 s; one is due every 300 s",
        ),
        ("evaluated_at = '2026-01-29 10:00:00Z', took = '0'", "last evaluated 2026-01-29T10:00:00Z"),
        ("evaluated_at = '-infinity', took = '0'", "not evaluated yet"),
        ("evaluated_at = now(), took = '1 second'", "ok"),
    ],
)
async def test_readiness_says_when_turns_are_late_or_long_and_stays_ready(
    service: Client, database: asyncpg.Connection, clock: str, says: str
) -> None:
    for _ in range(600):
        if await database.fetchval("SELECT isfinite(evaluated_at) FROM linkbeat.alert_clock"):
            break
        await asyncio.sleep(0.1)
    await database.execute(f"UPDATE linkbeat.alert_clock SET {clock}")

    answer = await service.http.get("/health/ready")

    assert (answer.status_code, answer.json()["alerts"]) == (200, says)


@pytest.mark.parametrize(
    ("took_seconds", "due_seconds"),
    [(0.01, 13.5), (0.135, 13.5), (0.2, 20), (1, 45), (2, 45), (3, 60)],
)
async def test_a_fleet_whose_turns_take_long_is_judged_less_often(
    database: asyncpg.Connection, took_seconds: float, due_seconds: float
) -> None:
    """They use 1 % of a processor, if that is at most three times as rarely; more than 5 % never."""
    at = datetime.now(UTC)
    await database.execute(
        "UPDATE linkbeat.alert_clock SET evaluated_at = $1, took = $2", at, timedelta(seconds=took_seconds)
    )
    turn = f"SELECT is_evaluated FROM linkbeat.evaluate_alerts(at => $1, pauses => {PAUSES})"

    assert await database.fetchval(turn, at + timedelta(seconds=due_seconds - 0.001)) is False
    assert await database.fetchval(turn, at + timedelta(seconds=due_seconds)) is True
