"""The answer's epoch: which database has what is acknowledged."""

import itertools

import asyncpg
import pytest

from service.ingest.commit import Ingest
from tests.helpers.support import Client, heartbeat, hours_ago

pytestmark = pytest.mark.background

T0 = hours_ago(1)
EPOCH = """
SELECT system_identifier || '.' || ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
FROM pg_control_system()
"""


async def test_every_answer_names_the_system_and_the_timeline_of_the_database(
    service: Client, database: asyncpg.Connection
) -> None:
    epoch = await database.fetchval(EPOCH)
    beat = heartbeat(at=T0, eth0=(1, 1))

    answers = [
        await service.post(beat),
        await service.post(beat),
        await service.post_batch([heartbeat(at=hours_ago(0.5), eth0=(2, 2)), beat]),
        await service.post_batch([{"server_id": "?"}]),
        await service.post_batch([]),
    ]

    assert [answer["epoch"] for answer in answers] == [epoch] * 5
    assert answers[1]["duplicate"] is True
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == 2


async def test_a_batch_that_a_failover_divides_is_to_be_sent_again(
    service: Client, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeats are of one server, so each is in a transaction of its own."""
    beats = [heartbeat(at=hours_ago(hours), eth0=(1, 1)) for hours in (3, 2, 1)]
    epochs = itertools.chain(["7.1"], itertools.repeat("7.2"))
    with monkeypatch.context() as patched:
        patched.setattr(Ingest, "epoch", property(lambda _: next(epochs)))
        divided = await service.http.post("/api/v1/agents/heartbeats", json=beats)
        whole = await service.http.post("/api/v1/agents/heartbeats", json=beats)

    assert divided.status_code == 503
    assert divided.json()["code"] == "database_unavailable"
    assert int(divided.headers["Retry-After"]) >= 1
    assert (whole.status_code, whole.json()["epoch"], whole.json()["duplicate"]) == (200, "7.2", 3)
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == 3
