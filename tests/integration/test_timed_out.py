"""A heartbeat that takes the database too long is refused and not tried again; its writer goes on with the others."""

import asyncio
from typing import Any

import asyncpg
import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.support import KEY, deltas, heartbeat, hours_ago

pytestmark = pytest.mark.background

SLOW = """
CREATE SEQUENCE public.executed;
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF NEW.server_id = 'slow' THEN
        PERFORM nextval('public.executed');  -- what was executed counts, also where it was rolled back
        PERFORM pg_sleep(60);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON public.network_interface_metrics FOR EACH ROW EXECUTE FUNCTION public.slow();
"""


@pytest.mark.parametrize("ends_it", ["the server", "the client"])
async def test_it_is_refused_once_and_not_executed_again(
    database_url: str, settings: Settings, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, ends_it: str
) -> None:
    """By statement_timeout; or, on a path that hangs, by the client's own limit, with which the connection goes."""
    connect: Any = asyncpg.connect

    def connected(*arguments: Any, **more: Any) -> Any:
        if "command_timeout" in more and "statement_timeout" in more["server_settings"]:
            if ends_it == "the server":
                more["server_settings"]["statement_timeout"] = "2000"
            else:
                more["command_timeout"] = 5.0  # the others' heartbeats pass within it on a busy machine
        return connect(*arguments, **more)

    await database.execute(SLOW)
    monkeypatch.setattr("service.database.pool.asyncpg.connect", connected)
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as service:
        slow = asyncio.create_task(
            service.http.post("/api/v1/agents/heartbeat", json=heartbeat("slow", at=hours_ago(1), eth0=(1, 1)))
        )
        while not await database.fetchval("SELECT is_called FROM public.executed"):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)

        await service.post(heartbeat("other", at=hours_ago(1), eth0=(1_000, 1)))
        refused = await slow
        for minute in range(3):
            await service.post(heartbeat("other", at=hours_ago(0.5 - minute / 10), eth0=(2_000 + minute, 1)))

    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert await database.fetchval("SELECT last_value FROM public.executed") == 1
    assert await database.fetchval("SELECT count(*) FROM servers WHERE server_id = 'slow'") == 0
    assert [delta for delta, _ in await deltas(database, "other")] == [0, 1_000, 1, 1]
