"""Group commit when the database is slow, refuses or is in conflict: who is answered what, and when."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from service.app import create_app
from service.http.errors import Problem
from service.ingest.batch import CALL, Pending, arguments
from service.ingest.commit import Ingest
from service.ingest.heartbeat import decode_heartbeat
from service.settings import Settings
from tests.conftest import running
from tests.helpers.durations import fastest_of
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

T0 = hours_ago(1)
PATH = "/api/v1/agents/heartbeat"
FOLDING: dict[str, Any] = {"series_budget": 256, "fold_seconds": 3_600}


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else at work on the same database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close(timeout=5)


async def post_all(service: Client, names: list[str], at: datetime = T0) -> list[httpx.Response]:
    """A heartbeat of each server, all at the same time."""
    return await asyncio.gather(
        *(service.http.post(PATH, json=heartbeat(name, at=at, eth0=(1_000, 2_000))) for name in names)
    )


async def stored(database: asyncpg.Connection) -> set[str]:
    return {row["server_id"] for row in await database.fetch("SELECT server_id FROM network_interface_metrics")}


async def lock_server(connection: asyncpg.Connection, server_id: str) -> asyncpg.transaction.Transaction:
    """Who reports as this server waits until the returned transaction ends."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT FROM servers WHERE server_id = $1 FOR UPDATE", server_id)
    return transaction


async def test_a_single_heartbeat_is_answered_at_once(service: Client) -> None:
    await service.post(heartbeat(at=T0, eth0=(0, 0)))
    seconds = []
    for n in range(1, 21):
        started = time.perf_counter()
        await service.post(heartbeat(at=T0 + timedelta(seconds=n), eth0=(n, n)))
        seconds.append(time.perf_counter() - started)

    assert sorted(seconds)[len(seconds) // 2] < 0.1


async def test_past_the_queues_limit_503_is_answered_at_once(
    database_url: str, database: asyncpg.Connection, other: asyncpg.Connection, settings: Settings
) -> None:
    app = create_app(
        Settings(api_key=KEY, data_dir=settings.data_dir, queue_heartbeats=10), database_url=database_url, key=KEY
    )
    async with (
        running(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://linkbeat",
            headers={"Authorization": f"Bearer {KEY}"},
        ) as http,
    ):
        service = Client(http)
        await post_all(service, ["locked-a", "locked-b"])
        transaction = await lock_server(other, "locked-a")
        await other.execute("SELECT FROM servers WHERE server_id = 'locked-b' FOR UPDATE")
        # Both writers wait for a lock; then the queue fills.
        waiting = []
        for name in ["locked-a", "locked-b", *(f"waiting-{n}" for n in range(10))]:
            waiting.append(asyncio.create_task(post_all(service, [name], T0 + timedelta(seconds=1))))
            if name.startswith("locked"):
                await so_many_wait(database, len(waiting))
        async with asyncio.timeout(60):
            while "\nlinkbeat_ingest_queue_heartbeats 10.0\n" not in (await http.get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        refused: list[httpx.Response] = []

        async def excess() -> None:
            refused.extend(await post_all(service, [f"excess-{n}" for n in range(20)]))

        refused_seconds = await fastest_of(excess, within=1)
        await transaction.rollback()
        answers = [answer for task in waiting for answer in await task]

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "overloaded")}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert refused_seconds < 1
    assert {answer.status_code for answer in answers} == {200}
    assert await stored(database) == {"locked-a", "locked-b", *(f"waiting-{n}" for n in range(10))}


async def test_a_lock_that_outlasts_the_deadline_is_503_and_the_neighbours_pass_afterwards(
    service: Client, database: asyncpg.Connection, other: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post_all(service, ["locked"])
    transaction = await lock_server(other, "locked")

    answers: list[httpx.Response] = []

    async def report() -> None:
        answers[:] = await post_all(service, ["locked"], T0 + timedelta(seconds=1))

    with monkeypatch.context() as patch:
        patch.setattr("service.ingest.commit.ANSWER_SECONDS", 3.0)
        seconds = await fastest_of(report, within=6)
    # One writer still waits, or has given up; the other one writes.
    meanwhile = await post_all(service, ["free"])
    await transaction.rollback()
    again = await post_all(service, ["locked"], T0 + timedelta(seconds=1))

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "database_unavailable")]
    assert "Retry-After" in answers[0].headers
    assert seconds < 6
    assert [answer.status_code for answer in meanwhile + again] == [200, 200]
    assert await stored(database) == {"locked", "free"}


@pytest.mark.parametrize(
    "refusal",
    [
        "ALTER TABLE servers ADD CHECK (server_id <> 'poison')",
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF new.server_id = 'poison' THEN RAISE 'not this one'; END IF; RETURN new; END $$;
           CREATE TRIGGER refuse BEFORE INSERT ON servers FOR EACH ROW EXECUTE FUNCTION refuse()""",
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF new.server_id = 'poison' THEN new.interval_seconds := 1 / 0; END IF; RETURN new; END $$;
           CREATE TRIGGER refuse BEFORE INSERT ON servers FOR EACH ROW EXECUTE FUNCTION refuse()""",
    ],
    ids=["constraint", "raise", "arithmetic"],
)
async def test_what_the_database_refuses_fails_alone(
    refusal: str, service: Client, database: asyncpg.Connection
) -> None:
    await database.execute(refusal)
    neighbours = [f"{letter}-{n:03}" for letter in "az" for n in range(150)]

    answers = await post_all(service, [*neighbours[:150], "poison", *neighbours[150:]])

    poisoned = answers.pop(150)
    assert (poisoned.status_code, poisoned.json()["code"]) == (422, "invalid")
    assert {answer.status_code for answer in answers} == {200}
    assert await stored(database) == set(neighbours)


async def test_in_a_batch_the_refused_one_is_named(service: Client, database: asyncpg.Connection) -> None:
    await database.execute("ALTER TABLE servers ADD CHECK (server_id <> 'poison')")

    answer = await service.post_batch([heartbeat(name, at=T0, eth0=(1, 1)) for name in ("a", "poison", "z")])

    assert (answer["stored"], answer["duplicate"], [one["index"] for one in answer["rejected"]]) == (2, 0, [1])
    assert await stored(database) == {"a", "z"}


async def so_many_wait(database: asyncpg.Connection, count: int) -> None:
    """Returns once so many sessions of this database wait for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND wait_event_type = 'Lock'"
    )
    while await database.fetchval(waiting) < count:  # noqa: ASYNC110 - PostgreSQL tells nobody
        await asyncio.sleep(0.01)


async def test_a_deadlock_is_tried_again(
    database_url: str,
    service: Client,
    database: asyncpg.Connection,
    other: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await post_all(service, ["first", "last"])
    connect: Any = asyncpg.connect

    def patient(*arguments: Any, **more: Any) -> Any:
        more["server_settings"]["lock_timeout"] = "0"  # a batch waits for its lock until the deadlock is there
        return connect(*arguments, **more)

    monkeypatch.setattr("service.database.pool.asyncpg.connect", patient)
    # The other one's patience in a deadlock outlasts the service's, so that the service is the one that is chosen.
    await other.execute("SET deadlock_timeout = '1min'")
    async with Ingest(database_url, 100, writers=1, **FOLDING) as ingest:
        transaction = await lock_server(other, "last")
        now = datetime.now(UTC)
        beats = [decode_heartbeat(_body(name), now=now, oldest=timedelta(days=1)) for name in ("first", "last")]
        # One writer commits "blocker" while both others arrive, so that these share a batch.
        blocker = decode_heartbeat(_body("blocker"), now=now, oldest=timedelta(days=1))
        tasks = [asyncio.create_task(ingest.store(beat, beat.timestamp or now)) for beat in (blocker, *beats)]
        await so_many_wait(database, 1)  # the batch has "first", and waits for "last"
        await other.execute("SELECT FROM servers WHERE server_id = 'first' FOR UPDATE")
        await transaction.rollback()
        outcomes = await asyncio.gather(*tasks)
        counts = dict(ingest.counts)

    assert counts["retry 40P01"] >= 1
    assert not any(one.duplicate for one in outcomes)
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == 5


async def test_a_heartbeat_is_judged_by_what_the_writer_before_it_committed(
    service: Client, database: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """Its statement begins while the heartbeat before it is not committed yet; that one's uptime tells of a reboot."""
    await service.post(heartbeat(at=T0, boot="1700000000", eth0=(1_000, 0)))
    writing = other.transaction()
    await writing.start()
    await _store(other, _beat(30, "1700000000", uptime=900, rx=2_000))
    later = asyncio.create_task(_store(database, _beat(60, "1700000970", uptime=20, rx=5_000)))
    await so_many_wait(other, 1)

    await writing.commit()
    await later

    rows = await database.fetch("SELECT rx_bytes_delta, delta_kind FROM network_interface_metrics ORDER BY time")
    assert [tuple(row) for row in rows] == [(0, "first"), (1_000, "normal"), (5_000, "reboot")]


def _beat(seconds: int, boot: str, *, uptime: float, rx: int) -> dict[str, Any]:
    body = heartbeat(at=T0 + timedelta(seconds=seconds), boot=boot, eth0=(rx, 0))
    return {**body, "metrics": {"cpu_percent": 1.0, "uptime_seconds": uptime}}


async def _store(connection: asyncpg.Connection, *bodies: dict[str, Any], may_register: bool = False) -> None:
    """Stores heartbeats of servers in the order of their names, in one batch."""
    now, loop = datetime.now(UTC), asyncio.get_running_loop()
    beats = [decode_heartbeat(json.dumps(body).encode(), now=now, oldest=timedelta(days=1)) for body in bodies]
    batch = [Pending(beat, beat.timestamp or now, 0.0, loop.create_future(), None) for beat in beats]
    await connection.fetchrow(CALL, *arguments(batch, may_register=may_register, series_budget=256, fold_seconds=3_600))


@pytest.mark.parametrize(
    ("seconds", "octets"), [(60, 9_000), (30, 1_000), (60, 10), (-30, 1_000)], ids=["newest", "again", "reset", "late"]
)
async def test_a_heartbeat_reads_no_rows_of_other_servers(
    database: asyncpg.Connection, other: asyncpg.Connection, seconds: int, octets: int
) -> None:
    """Else each would cost the more, the more servers there are."""
    names = [f"server-{n:03}" for n in range(400)]
    for step in (0, 30):
        at = T0 + timedelta(seconds=step)
        await _store(database, *(heartbeat(name, at=at, eth0=(step * 100, 0)) for name in names), may_register=True)
    await database.execute("ANALYZE servers")
    read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'servers'"

    async with other.transaction():
        before = await other.fetchval(read)
        at = T0 + timedelta(seconds=seconds)
        await _store(other, *(heartbeat(name, at=at, eth0=(octets, 0)) for name in names[7:10]))
        assert await other.fetchval(read) - before <= 20


def _body(server_id: str) -> bytes:
    at = (T0 + timedelta(seconds=30)).isoformat()
    return (
        f'{{"server_id": "{server_id}", "hostname": "h", "timestamp": "{at}", "network_interfaces": '
        '[{"name": "eth0", "rx_bytes": 2000, "tx_bytes": 3000, "rx_packets": 0, "tx_packets": 0, "is_up": true}]}'
    ).encode()


async def test_columns_added_under_load_fail_no_request(
    service: Client, database: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    stopping = False
    statuses: list[int] = []

    async def report(name: str) -> None:
        n = 0
        while not stopping:
            n += 1
            # Counters that shrink now and then: the path through repair_deltas sees the new columns too.
            body = heartbeat(name, at=T0 + timedelta(seconds=n), eth0=(1_000 * (n % 5), n))
            statuses.append((await service.http.post(PATH, json=body)).status_code)
            read = await service.http.get(f"/api/v1/servers/{name}")
            statuses.append(read.status_code)

    reporting = [asyncio.create_task(report(f"server-{n}")) for n in range(8)]
    await asyncio.sleep(0.5)
    for n, table in enumerate(["network_interface_metrics", "servers", "server_boots"] * 2):
        await other.execute(f"ALTER TABLE {table} ADD COLUMN added_{n} text")
        await asyncio.sleep(0.2)
    while len(statuses) <= 100:  # noqa: ASYNC110  # a busy machine takes longer; a request tells nobody
        await asyncio.sleep(0.05)
    stopping = True
    await asyncio.gather(*reporting)

    assert set(statuses) == {200}
    assert await database.fetchval("SELECT count(DISTINCT server_id) FROM network_interface_metrics") == 8


async def test_what_waits_at_the_end_is_stored_first(database_url: str, database: asyncpg.Connection) -> None:
    now = datetime.now(UTC)
    beats = [decode_heartbeat(_body(f"server-{n}"), now=now, oldest=timedelta(days=1)) for n in range(500)]

    async with Ingest(database_url, 1_000, **FOLDING) as ingest:
        tasks = [asyncio.create_task(ingest.store(beat, beat.timestamp or now)) for beat in beats]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks)

    assert all(one.registered for one in outcomes)
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == 500


async def test_after_the_end_nothing_is_taken_in(database_url: str) -> None:
    now = datetime.now(UTC)
    beat = decode_heartbeat(_body("late"), now=now, oldest=timedelta(days=1))

    async with Ingest(database_url, 1_000, **FOLDING) as ingest:
        pass

    with pytest.raises(Problem, match="database_unavailable"):
        await ingest.store(beat, now)


async def test_connections_that_the_database_ends_are_made_again(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat(at=T0, eth0=(0, 0)))

    for n in range(1, 11):
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'linkbeat%' AND pid <> pg_backend_pid()"
        )
        answers = await post_all(service, [f"server-{n}" for n in range(20)], T0 + timedelta(seconds=n))
        read = await service.http.get("/api/v1/servers")
        assert {answer.status_code for answer in (*answers, read)} <= {200, 503}
        deadline = time.monotonic() + 60
        while (await service.http.post(PATH, json=heartbeat(at=T0 + timedelta(seconds=n)))).status_code != 200:
            assert time.monotonic() < deadline


@pytest.fixture
def _short_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.database.pool.WRITE_SECONDS", 2.0)


@pytest.mark.usefixtures("_short_writes")  # before `service`
async def test_a_batch_that_takes_too_long_is_not_tried_again(service: Client, database: asyncpg.Connection) -> None:
    """Two heartbeats that the database is slow with would otherwise occupy both writers again and again."""
    await service.post(heartbeat("before"))
    await database.execute(
        "CREATE SEQUENCE attempts; GRANT USAGE ON SEQUENCE attempts TO PUBLIC;"
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM nextval('public.attempts'); PERFORM pg_sleep(60); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON servers FOR EACH ROW"
        " WHEN (NEW.server_id = 'slow') EXECUTE FUNCTION slow()"
    )

    slow = await service.http.post("/api/v1/agents/heartbeat", json=heartbeat("slow"))

    assert slow.status_code == 503
    assert slow.headers["retry-after"] == "2"
    await service.post(heartbeat("after"))
    assert await database.fetchval("SELECT last_value FROM attempts") == 1
    assert await database.fetchval("SELECT count(*) FROM servers") == 2
