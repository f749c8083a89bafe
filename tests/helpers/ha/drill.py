"""What the drills of high availability have in common."""

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.helpers.faults import Load
from tests.helpers.ha.cluster import HaCluster, Node

# The expected times are those of an idle machine; on a busy one, a multiple of them is allowed.
SLACK = float(os.environ.get("LINKBEAT_DRILL_SLACK", "1"))
AGENTS = 6


@asynccontextmanager
async def connected(node: Node, database: str = "linkbeat", **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to one node, whatever its role."""
    connection = await asyncpg.connect(node.url(database), server_settings={"timezone": "UTC", **settings}, timeout=10)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def emptied(cluster: HaCluster) -> AsyncIterator[Node]:
    """Each drill begins with a healthy cluster without rows: its ledger says what is stored. Yields the primary."""
    primary = await cluster.healthy()
    async with connected(primary) as database:
        await database.execute(
            "TRUNCATE network_interface_metrics, server_metrics, filesystem_metrics; DELETE FROM servers"
        )
        if await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"):
            # A truncation is late data, of all times; what the first drill's rows made is gone then.
            await database.execute("CALL linkbeat.refresh_aggregates(now())")
    yield primary


async def check(load: Load, cluster: HaCluster) -> None:
    """Everything acknowledged is found exactly once in the primary, nothing else, and all sums are equal."""
    async with connected(await cluster.healthy()) as database:
        await load.check(database, is_late=True)  # emptied() has refreshed up to now


async def check_acknowledged(load: Load, node: Node) -> int:
    """What has been acknowledged up to now is found exactly once on this node; how much that is."""
    acknowledged = load.acknowledged
    async with connected(node) as database:
        await load.check_stored(database, acknowledged)
    return len(acknowledged)


def longest_gap(load: Load, since: float = 0.0) -> float:
    """The longest time between two acknowledgements, in seconds."""
    times = sorted(one.at + one.seconds for one in load.answers if one.status == 200 and one.at >= since)
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def percentile(load: Load, since: float, until: float, percent: float = 99) -> float:
    """The seconds within which so many percent of the acknowledgements of that time came."""
    times = sorted(one.seconds for one in load.answers if one.status == 200 and since <= one.at < until)
    assert len(times) >= 50, f"{len(times)} acknowledgements are too few for a percentile"
    return times[min(len(times) - 1, int(len(times) * percent / 100))]


def answered(load: Load, status: int, since: float, until: float = float("inf")) -> int:
    """How many requests were answered so, by the time of the answer."""
    return sum(one.status == status and since <= one.at + one.seconds < until for one in load.answers)


def shown(seconds: list[float]) -> str:
    """`5.8, 6.8, 7.7 s`."""
    return f"{', '.join(f'{one:.1f}' for one in seconds)} s"
