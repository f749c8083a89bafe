"""The law of spec section 3: over any history in any order of arrival, the deltas are what the counters prove, and
every level of the aggregates equals its recomputation from raw rows."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.accounts import Sent, check_levels, check_servers
from tests.helpers.arrivals import Fleet, fleet, send
from tests.helpers.shrinking import describe
from tests.helpers.support import KEY, Client, differing_rows, heartbeat, hours_ago

T0 = hours_ago(20)
EQUAL = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}

ROUNDS = 2
FLEETS = 25  # of a round
AT_A_TIME = 3  # fleets that are sent
SERVERS = 21  # of a fleet, each with a history of its own
SERIES_BUDGET = 3
SINCE = timedelta(hours=26)  # over a midnight
REFRESHES = 2  # of a round, while heartbeats arrive


class TestRandomHistories:
    """A failure names its seed: with LINKBEAT_LAW_SEED set to it, the same fleet is sent again, as the first."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(api_key=KEY, data_dir=str(tmp_path), max_series=SERIES_BUDGET, fold_minutes=5)

    @pytest.fixture
    async def other_service(self, database_url: str, settings: Settings) -> AsyncIterator[Client]:
        """Another process, as far as the database can tell: writers of one server meet there alone."""
        async with in_process(create_app(settings, database_url=database_url, key=KEY)) as client:
            yield client

    async def test_every_row_and_every_level_is_what_the_counters_prove(
        self, service: Client, other_service: Client, database: asyncpg.Connection
    ) -> None:
        seed = int(os.environ.get("LINKBEAT_LAW_SEED") or random.randrange(10**9))
        until = hours_ago(0)
        is_apache = await database.fetchval("SELECT edition FROM linkbeat.installation") == "apache"
        for first in range(seed, seed + ROUNDS * FLEETS, FLEETS):
            fleets = [fleet(number, SERVERS, until - SINCE, until) for number in range(first, first + FLEETS)]

            await self.send([service, other_service], database, fleets, until)

            sent = {server_id: one for each in fleets for server_id, one in each.sent.items()}
            for refreshed in (False, True):
                if refreshed:
                    await database.execute("CALL linkbeat.refresh_aggregates(now())")
                if refreshed or is_apache:  # where late data shows at once
                    assert await check_levels(database, sent) == [], f"LINKBEAT_LAW_SEED={first}"
                    assert await differing_rows(database) == EQUAL, f"LINKBEAT_LAW_SEED={seed}"

    async def send(
        self, services: list[Client], database: asyncpg.Connection, fleets: list[Fleet], until: datetime
    ) -> None:
        """Sends the fleets, some at a time, with refreshes in between, and looks at each one's rows afterwards."""
        turns, alone = asyncio.Semaphore(AT_A_TIME), asyncio.Lock()

        async def one(each: Fleet) -> None:
            async with turns:
                stored = await send(services, each)
            every = each.sent
            if any(service.posted_again for service in services):
                for sent in every.values():
                    sent.is_all = False  # what was posted again counts as duplicates
            else:
                assert stored == sum(len(sent.beats) for sent in every.values()), f"LINKBEAT_LAW_SEED={each.seed}"
            async with alone:
                await self.check(services[0], database, each, every)
                if each.seed % (FLEETS // REFRESHES) == 0:
                    moment = until - SINCE * random.Random(each.seed).random()
                    await database.execute(f"CALL linkbeat.refresh_aggregates('{moment}')")

        await asyncio.gather(*(one(each) for each in fleets))

    async def check(self, service: Client, database: asyncpg.Connection, each: Fleet, every: dict[str, Sent]) -> None:
        wrong = await check_servers(database, every, SERIES_BUDGET)
        for server_id in wrong:
            smallest = await describe(service, database, each.arrivals[server_id], SERIES_BUDGET)
            smallest = "\n".join(wrong[server_id][:5]) + "\n" + smallest
            pytest.fail(f"LINKBEAT_LAW_SEED={each.seed}, {len(wrong)} servers, the first: {server_id}\n{smallest}")


async def test_aggregates_follow_rows_that_are_changed_or_deleted_by_hand(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post_batch([heartbeat(at=T0 + timedelta(minutes=n), eth0=(n * 100, n)) for n in range(300)])
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    await database.execute("DELETE FROM network_interface_metrics WHERE time >= $1", T0 + timedelta(minutes=250))
    await database.execute("UPDATE network_interface_metrics SET rx_bytes_delta = 7 WHERE rx_bytes = 1000")
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    assert await differing_rows(database) == EQUAL
    assert await database.fetchval("SELECT sum(samples) FROM network_traffic_1d") == 250


async def test_late_data_reaches_buckets_that_were_refreshed(service: Client, database: asyncpg.Connection) -> None:
    beats: list[tuple[datetime, int]] = [(T0 + timedelta(minutes=n), n * 1_000) for n in range(120)]
    on_time = beats[:30] + beats[90:]
    await service.post_batch([heartbeat(at=at, eth0=(rx, 0)) for at, rx in on_time])
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    await service.post_batch([heartbeat(at=at, eth0=(rx, 0)) for at, rx in beats[30:90]])
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    assert await differing_rows(database) == EQUAL
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
        assert await differing_rows(database) == EQUAL, statement
