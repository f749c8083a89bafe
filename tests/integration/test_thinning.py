"""Counters that are left out of old rows are told exactly, and nothing that is made of the deltas changes by it.

The Apache edition leaves none out; what is read is the same there.
"""

import random
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import NamedTuple

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.database.maintenance import maintain
from tests.helpers.support import Client, boot_id, differing_rows, heartbeat

MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
T0 = MIDNIGHT - timedelta(minutes=40)  # so that chunks and hours end within
BEATS = 600
RIGHT = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
COUNTERS = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
_series = count()


class Reading(NamedTuple):
    """One interface's counters at one moment, in the order of COUNTERS."""

    time: datetime
    boot: str
    counters: tuple[int, int, int, int]


steps = st.one_of(
    st.tuples(st.just("grow"), st.integers(0, 10**9)),
    st.tuples(st.just("grow"), st.integers(0, 2**20)),
    st.tuples(st.just("grow"), st.integers(0, 1)),
    st.tuples(st.just("grow"), st.integers(0, 2**20)),
    st.tuples(st.just("grow"), st.integers(0, 2**20)),
    st.tuples(st.just("reset"), st.integers(0, 2**33)),
    st.tuples(st.just("reboot"), st.integers(0, 2**33)),
    st.tuples(st.just("wrap"), st.integers(0, 2**32)),
    st.tuples(st.just("jump"), st.one_of(st.integers(0, 2**64 - 1), st.integers(2**63 - 2**20, 2**63 + 2**20))),
    st.tuples(st.just("missing"), st.just(0)),
    st.tuples(st.just("misread"), st.sampled_from((1, 1, 2, 3, 200))),
)
seconds = st.one_of(st.just(30), st.integers(1, 90), st.integers(1, 90), st.integers(91, 3_000))


@st.composite
def histories(draw: st.DrawFn) -> list[Reading]:
    """A series as one machine, or two with one id, might count it; "misread" is lower by a part, and not after it."""
    machines = draw(st.sampled_from((1, 1, 2)))
    is_uuid = draw(st.booleans())
    boots = [0, 0]
    counters = [[draw(st.integers(0, 2**34)), 2**63 - 2**20, 0, 0], [draw(st.integers(0, 2**34)), 0, 0, 0]]
    moment = T0
    readings = []
    for step, amount in draw(st.lists(steps, min_size=1, max_size=25)):
        moment += timedelta(seconds=draw(seconds))
        one = draw(st.integers(0, machines - 1))
        now = counters[one]
        if step == "missing":
            continue
        if step == "reboot":
            boots[one] += 1
        if step in ("reset", "reboot"):
            now = [amount, amount // 2, amount // 1000, 0]
        elif step == "wrap":
            now = [(counter + amount) % 2**32 for counter in now]
        elif step == "jump":
            now = [amount, *now[1:]]
        elif step == "grow":
            now = [(c + amount // part) % 2**64 for c, part in zip(now, (1, 3, 1500, 4500), strict=True)]
        counters[one] = now
        if step == "misread":
            now = [counter - counter // amount for counter in now]
        label = f"boot-{one}-{boots[one]}"
        boot = boot_id(label) if is_uuid else label
        readings.append(Reading(moment, boot, (now[0], now[1], now[2], now[3])))
    return readings


def beat(server_id: str, reading: Reading) -> dict[str, object]:
    body = heartbeat(server_id, at=reading.time, boot=reading.boot)
    body["network_interfaces"] = [{"name": "eth0", "is_up": True, **dict(zip(COUNTERS, reading.counters, strict=True))}]
    return body


async def compress(database: asyncpg.Connection, *, again: bool = False) -> bool:
    """Everything before yesterday; whether the edition can."""
    if await database.fetchval("SELECT edition FROM linkbeat.installation") == "apache":
        return False
    if again:
        await database.execute(
            "SELECT decompress_chunk(chunk, true) FROM show_chunks('network_interface_metrics') AS chunk"
        )
    await database.execute("CALL linkbeat.compress_samples(time_bucket('1 day', now()))")
    return True


async def told(
    database: asyncpg.Connection, server_id: str, since: datetime = T0
) -> list[tuple[datetime, tuple[int, ...]]]:
    rows = await database.fetch("SELECT * FROM network_counters($1, 'eth0', $2)", server_id, since)
    return [(row["time"], tuple(int(row[f"{name}_counter"]) for name in COUNTERS)) for row in rows]


async def accounted(database: asyncpg.Connection, server_id: str) -> list[asyncpg.Record]:
    """What is counted of a server: all but its counters."""
    return await database.fetch(
        "SELECT time, rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, delta_kind, elapsed_ms, "
        "counts_64bit, m.boot, duplicates, conflicts, shared_since IS NULL AS is_one "
        "FROM network_interface_metrics m JOIN servers USING (server_id) WHERE server_id = $1 ORDER BY time",
        server_id,
    )


@settings(
    max_examples=100,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=histories(), order=st.sampled_from(["in order", "late", "shuffled"]), rng=st.randoms())
async def test_counters_are_told_as_they_were_sent_whatever_comes_before_and_after_thinning(
    service: Client, database: asyncpg.Connection, history: list[Reading], order: str, rng: random.Random
) -> None:
    """A second server gets the same, all of it before: what is counted of the two is the same."""
    number = next(_series)
    arrival = list(history)
    if order == "shuffled":
        rng.shuffle(arrival)
    elif order == "late":
        late = rng.sample(arrival, len(arrival) // 3)
        arrival = [reading for reading in arrival if reading not in late] + late
    arrival += rng.sample(arrival, len(arrival) // 2)  # half of them twice
    first = rng.randint(0, len(arrival))

    if arrival:
        await service.post_batch([beat(f"whole-{number}", reading) for reading in arrival])
    if first:
        await service.post_batch([beat(f"split-{number}", reading) for reading in arrival[:first]])
    sent = [(reading.time, reading.counters) for reading in history]
    assert await told(database, f"whole-{number}") == sent
    await compress(database, again=True)
    if first < len(arrival):
        await service.post_batch([beat(f"split-{number}", reading) for reading in arrival[first:]])

    for server_id in (f"whole-{number}", f"split-{number}"):
        assert await told(database, server_id) == sent
        middle = T0 + timedelta(minutes=rng.uniform(0, 120))
        assert await told(database, server_id, middle) == [one for one in sent if one[0] >= middle]
    assert await accounted(database, f"split-{number}") == await accounted(database, f"whole-{number}")


async def a_day(service: Client, every: int = 1) -> list[dict[str, object]]:
    """A heartbeat each half minute into the next day; those whose number `every` divides are sent."""
    beats = [
        heartbeat(at=T0 + timedelta(seconds=30 * n), eth0=(n * 1_000_003, n * n), veth1=(n, n)) for n in range(BEATS)
    ]
    await service.post_batch(beats[::every])
    return beats


async def levels(database: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    return [
        await database.fetch(f"SELECT * FROM network_traffic_{level} ORDER BY server_id, interface_name, bucket")
        for level in RIGHT
    ]


async def test_the_counters_of_plain_rows_are_left_out_and_no_aggregate_changes(
    service: Client, database: asyncpg.Connection
) -> None:
    await a_day(service)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    before = await levels(database)

    is_thinned = await compress(database)

    kept = await database.fetchval("SELECT count(*) FROM network_samples WHERE rx_bytes_counter IS NOT NULL")
    assert kept == (2 * 6 if is_thinned else 2 * BEATS)  # of each series, one in each hour
    assert await levels(database) == before
    assert await differing_rows(database) == RIGHT
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    assert await levels(database) == before
    if is_thinned:  # all of it recomputed
        for level in RIGHT:
            await database.execute(
                f"CALL refresh_continuous_aggregate('network_traffic_{level}', NULL, now(), force => true)"
            )
        assert await levels(database) == before


@pytest.mark.parametrize("step", [1, -1])
async def test_a_replay_into_compressed_chunks_half_of_it_duplicates_changes_no_sum(
    service: Client, database: asyncpg.Connection, step: int
) -> None:
    """In the order of time each new row counts from one that has its counters again, backwards from a thinned one."""
    beats = await a_day(service, every=2)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    sums = "SELECT sum(rx_bytes), sum(tx_bytes) FROM network_traffic_1d WHERE interface_name = 'eth0'"
    before = await database.fetchrow(sums)
    await compress(database)

    # One by one: a batch is stored in the order of time. Up to the last one that was sent.
    answers = [
        await service.post_batch([one]) for one in beats[: BEATS - 1][::step]
    ]  # up to the last one that was sent

    assert sum(answer["stored"] for answer in answers) == BEATS // 2 - 1
    assert await database.fetchval("SELECT conflicts FROM servers") == 0
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    assert await database.fetchrow(sums) == before
    assert await differing_rows(database) == RIGHT
    assert [counters[:2] for _, counters in await told(database, "nas")] == [
        (n * 1_000_003, n * n) for n in range(BEATS - 1)
    ]


async def test_what_was_interrupted_is_told_and_goes_on_where_it_was(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    await a_day(service)
    sent = await told(database, "nas")
    if await database.fetchval("SELECT edition FROM linkbeat.installation") == "apache":
        await maintain(database_url)
        assert await database.fetchval("SELECT count(*) FROM network_interface_metrics WHERE rx_bytes IS NULL") == 0
        return
    await database.execute(
        "UPDATE linkbeat.configuration SET days = 1 WHERE setting = 'compress_after_days';"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON network_interface_metrics FOR EACH ROW "
        f"WHEN (NEW.time > '{MIDNIGHT + timedelta(hours=3)}') EXECUTE FUNCTION refuse();"
        "SELECT alter_job(job_id, scheduled => true, next_start => now() - INTERVAL '2 days') "
        "FROM timescaledb_information.jobs WHERE proc_name = 'columnstore_job';"
        "SELECT _timescaledb_functions.stop_background_workers()"
    )
    job = "SELECT * FROM linkbeat.jobs WHERE job = 'columnstore network_interface_metrics'"
    thinned = "SELECT max(time) FROM network_interface_metrics WHERE rx_bytes IS NULL"

    await maintain(database_url)

    failed = await database.fetchrow(job)
    assert failed is not None
    assert (failed["consecutive_failures"], failed["last_error"]) == (1, "no more")
    assert await database.fetchval(thinned) == MIDNIGHT + timedelta(hours=2, minutes=59, seconds=30)
    assert await told(database, "nas") == sent

    await database.execute(
        "DROP TRIGGER refuse ON network_interface_metrics; UPDATE linkbeat.maintenance SET last_start = NULL"
    )
    await maintain(database_url)

    done = await database.fetchrow(job)
    assert done is not None
    assert (done["state"], done["consecutive_failures"]) == ("taken over", 0)
    assert await database.fetchval(thinned) > MIDNIGHT + timedelta(hours=3)
    assert await told(database, "nas") == sent
