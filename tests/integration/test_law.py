"""The law of spec section 3: over any history in any order of arrival, the deltas are what the counters prove, and
every level of the aggregates equals its recomputation from raw rows."""

import random
from datetime import datetime, timedelta
from itertools import count, pairwise

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.oracle import Reading, settle
from tests.support import Client, deltas, differing_rows, heartbeat, hours_ago, interface

T0 = hours_ago(20)
BOOTS = ["boot-a", "boot-b", "boot-c"]
_series = count()

steps = st.one_of(
    st.tuples(st.just("grow"), st.integers(0, 10**9)),
    st.tuples(st.just("grow"), st.integers(0, 2**20)),
    st.tuples(st.just("reset"), st.integers(0, 2**33)),
    st.tuples(st.just("reboot"), st.integers(0, 2**33)),
    st.tuples(st.just("wrap"), st.integers(0, 2**32)),
    st.tuples(st.just("jump"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("boot unknown"), st.integers(0, 2**20)),
)
seconds = st.one_of(st.just(30.0), st.floats(0.001, 120), st.integers(120, 5_000).map(float))


@st.composite
def histories(draw: st.DrawFn) -> list[Reading]:
    """A series as a kernel might count it: it grows, and now and then is reset, reboots, wraps or jumps."""
    boot: str | None = BOOTS[0]
    counters = [draw(st.integers(0, 2**33)), draw(st.integers(0, 2**32 - 1)), 0, 0]
    moment = T0
    readings = []
    for (step, amount), second in draw(st.lists(st.tuples(steps, seconds), min_size=1, max_size=12)):
        readings.append(Reading(moment, boot, (counters[0], counters[1], counters[2], counters[3])))
        moment += timedelta(milliseconds=round(second * 1000))
        if step == "reboot":
            boot = BOOTS[(BOOTS.index(boot) + 1) % len(BOOTS)] if boot else BOOTS[0]
        elif step == "boot unknown":
            boot = None
        if step in ("reset", "reboot"):
            counters = [amount, amount // 2, amount // 1000, 0]
        elif step == "wrap":
            counters = [(counter + amount) % 2**32 for counter in counters]
        elif step == "jump":
            counters = [amount, counters[1], counters[2], counters[3]]
        else:
            grown = (amount, amount // 3, amount // 1500, amount // 4500)
            counters = [(counter + more) % 2**64 for counter, more in zip(counters, grown, strict=True)]
    return readings


def beat(server_id: str, reading: Reading) -> dict[str, object]:
    body = heartbeat(server_id, at=reading.time, boot=reading.boot)
    names = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
    body["network_interfaces"] = [
        {"name": "eth0", "is_up": True, **dict(zip(names, reading.counters, strict=True))},
        interface("lan", 10, 10),
    ]
    return body


@settings(
    max_examples=100,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=histories(), order=st.sampled_from(["arrival", "reversed", "shuffled"]), rng=st.randoms())
async def test_deltas_and_aggregates_follow_the_counters_in_any_order(
    service: Client, database: asyncpg.Connection, history: list[Reading], order: str, rng: random.Random
) -> None:
    server_id = f"s{next(_series)}"
    sent = list(history)
    if order == "reversed":
        sent.reverse()
    elif order == "shuffled":
        rng.shuffle(sent)
    sent += rng.sample(sent, rng.randint(0, len(sent)))  # some of them twice

    stored = 0
    while sent:
        size = rng.choice((1, 2, 5, 20))
        note(f"batch {[history.index(reading) for reading in sent[:size]]}")
        answer = await service.post_batch([beat(server_id, reading) for reading in sent[:size]])
        stored += answer["stored"]
        sent = sent[size:]
        if rng.random() < 0.2:
            await database.execute(f"CALL linkbeat.refresh_aggregates('{T0 + timedelta(hours=rng.uniform(0, 19))}')")

    expected = settle(history)
    rows = await database.fetch(
        "SELECT rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, delta_kind, elapsed_ms, "
        "counts_64bit FROM network_interface_metrics WHERE server_id = $1 AND interface_name = 'eth0' ORDER BY time",
        server_id,
    )
    assert stored == len(history)
    assert [tuple(row) for row in rows] == [
        (*one.deltas, one.kind, one.elapsed_ms, one.counts_64bit) for one in expected
    ]
    if await database.fetchval("SELECT edition FROM linkbeat.installation") == "apache":
        assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}  # late data at once
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}


async def test_aggregates_follow_rows_that_are_changed_or_deleted_by_hand(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post_batch([heartbeat(at=T0 + timedelta(minutes=n), eth0=(n * 100, n)) for n in range(300)])
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    await database.execute("DELETE FROM network_interface_metrics WHERE time >= $1", T0 + timedelta(minutes=250))
    await database.execute("UPDATE network_interface_metrics SET rx_bytes_delta = 7 WHERE rx_bytes = 1000")
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
    assert await database.fetchval("SELECT sum(samples) FROM network_traffic_1d") == 250


class TestCase24:
    """32-bit wrap, reboot, replay, reversed order."""

    async def run(
        self, service: Client, database: asyncpg.Connection, *readings: tuple[int, str]
    ) -> list[tuple[int, str]]:
        for n, (rx, boot) in enumerate(readings):
            await service.post(heartbeat(at=T0 + timedelta(seconds=30 * n), boot=boot, eth0=(rx, 0)))
        return await deltas(database)

    async def test_case_24_a_wrap_at_32_bits_in_line_with_the_rate(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        rate = 3 * 10**8
        first = 2**32 - rate - rate // 2

        found = await self.run(service, database, (first, "b"), (first + rate, "b"), (rate // 2, "b"))

        assert found[1:] == [(rate, "normal"), (rate, "wrap")]

    async def test_case_24_a_shrink_without_evidence_is_a_reset(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        found = await self.run(service, database, (3_900_000_000, "b"), (3_900_000_100, "b"), (1_000, "b"))

        assert found[1:] == [(100, "normal"), (1_000, "reset")]

    async def test_case_24_a_counter_that_passed_32_bits_does_not_wrap_there(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        found = await self.run(service, database, (2**32 + 5, "b"), (2**32 - 10, "b"), (5, "b"))

        assert found[1:] == [(2**32 - 10, "reset"), (5, "reset")]

    async def test_case_24_after_a_reboot_the_new_value_counts_from_zero(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        found = await self.run(service, database, (10**10, "a"), (10**6, "b"), (10**6 + 50, "b"))

        assert found[1:] == [(10**6, "reboot"), (50, "normal")]

    async def test_case_24_even_where_the_counter_is_larger_after_it(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        found = await self.run(service, database, (1_000, "a"), (5_000, "b"))

        assert found[1:] == [(5_000, "reboot")]

    async def test_case_24_an_impossible_jump_enters_no_sum(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        found = await self.run(service, database, (1_000, "a"), (2**64 - 1, "a"))

        assert found[1:] == [(0, "rejected")]

    @pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3, 2, 2]])
    async def test_case_24_replayed_and_reversed_the_sum_is_the_same(
        self, service: Client, database: asyncpg.Connection, order: list[int]
    ) -> None:
        readings = [(1_000, "a"), (1_600, "a"), (200, "b"), (900, "b"), (950, "b")]

        for n in order:
            rx, boot = readings[n]
            await service.post(heartbeat(at=T0 + timedelta(seconds=30 * n), boot=boot, eth0=(rx, 0)))
        await database.execute("CALL linkbeat.refresh_aggregates(now())")

        assert [delta for delta, _ in await deltas(database)] == [0, 600, 200, 700, 50]
        for level in ("1m", "15m", "1h", "1d"):
            assert await database.fetchval(f"SELECT sum(rx_bytes) FROM network_traffic_{level}") == 1_550


async def test_late_data_reaches_buckets_that_were_refreshed(service: Client, database: asyncpg.Connection) -> None:
    beats: list[tuple[datetime, int]] = [(T0 + timedelta(minutes=n), n * 1_000) for n in range(120)]
    on_time = beats[:30] + beats[90:]
    await service.post_batch([heartbeat(at=at, eth0=(rx, 0)) for at, rx in on_time])
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    await service.post_batch([heartbeat(at=at, eth0=(rx, 0)) for at, rx in beats[30:90]])
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
    rows = await database.fetch("SELECT rx_bytes FROM network_traffic_1m ORDER BY bucket")
    assert [row["rx_bytes"] for row in rows] == [0] + [after - before for (_, before), (_, after) in pairwise(beats)]


async def test_the_work_in_the_background_hides_nothing(service: Client, database: asyncpg.Connection) -> None:
    """What the policies do on Community and the service on Apache, one after another over a week of data."""
    start = hours_ago(7 * 24 - 1)
    beats = [heartbeat(at=start + timedelta(minutes=10 * n), eth0=(n * 1_000, n)) for n in range(1_000)]
    for first in range(0, len(beats), 500):
        await service.post_batch(beats[first : first + 500])

    jobs = await database.fetch(
        "SELECT job_id FROM timescaledb_information.jobs "
        "WHERE hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat' ORDER BY job_id"
    )
    maintenance = await database.fetch("SELECT statement FROM linkbeat.maintenance ORDER BY every")
    for statement in [f"CALL run_job({job['job_id']})" for job in jobs] + [job["statement"] for job in maintenance]:
        await database.execute(statement)
        assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}, statement
