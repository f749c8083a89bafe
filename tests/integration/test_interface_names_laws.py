"""I4 at random: whatever cards are called, and in whatever order heartbeats arrive, each keeps a series of its own."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.machines import body
from tests.helpers.oracle import Beat, account
from tests.helpers.renaming import EVENTS, EVIDENCE, Story, story
from tests.helpers.support import KEY, Client, differing_rows, hours_ago

STORIES = int(os.environ.get("LINKBEAT_NAME_STORIES", "60"))
POSTS_AT_ONCE = 12
START = hours_ago(3)
ORDERS = ("in-order", "shuffled", "newest-first", "live-first")
_ROWS = """
SELECT interface_name, time, delta_kind, rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta,
       rx_errors_delta, tx_errors_delta, rx_dropped_delta, tx_dropped_delta
FROM network_interface_metrics WHERE server_id = $1 ORDER BY interface_name, time
"""
_NAMES = "SELECT series, os_name, since, until FROM linkbeat.interface_names WHERE server_id = $1 ORDER BY 1, 3"
_NEWEST = """
SELECT interface_name, time, coalesce(os_name, interface_name) FROM servers, unnest(interfaces)
WHERE server_id = $1 AND time = last_seen ORDER BY 1
"""


async def test_every_card_keeps_its_series_in_any_order(database_url: str, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    app = create_app(Settings(api_key=KEY, data_dir=str(tmp_path)), database_url=database_url, key=KEY)
    database = await asyncpg.connect(database_url)
    async with in_process(app) as client:
        turns = asyncio.Semaphore(POSTS_AT_ONCE)
        told = {seed: story(random.Random(seed), START) for seed in range(STORIES)}
        await asyncio.gather(
            *(
                _send(turns, client, f"{seed}-{order}", one.sent, order, seed)
                for seed, one in told.items()
                for order in ORDERS
            )
        )
        for seed, one in told.items():
            seen.update(one.events)
            await _hold(database, seed, one)
        await database.execute("CALL linkbeat.refresh_aggregates(now())")
        assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
    await database.close()

    print("stories in which each occurred:", dict(sorted(seen.items())))
    assert {*EVENTS, *(f"evidence: {kind}" for kind in EVIDENCE)} - set(seen) == set()


async def _hold(database: asyncpg.Connection, seed: int, told: Story) -> None:
    in_order = await database.fetch(_ROWS, f"{seed}-{ORDERS[0]}")
    names = await database.fetch(_NAMES, f"{seed}-{ORDERS[0]}")
    newest = await database.fetch(_NEWEST, f"{seed}-{ORDERS[0]}")
    for order in ORDERS[1:]:
        assert await database.fetch(_ROWS, f"{seed}-{order}") == in_order, (seed, order)
        assert await database.fetch(_NAMES, f"{seed}-{order}") == names, (seed, order)
        assert await database.fetch(_NEWEST, f"{seed}-{order}") == newest, (seed, order)

    # A card's series is what it was called first, unless another card had that name before.
    series: dict[int, str] = {}
    for called in told.names:
        for name in sorted(called):
            if called[name] not in series:
                taken = set(series.values())
                series[called[name]] = next(
                    one for one in (name, *(f"{name}/{n}" for n in range(2, 9))) if one not in taken
                )
    gains = account(told.by_card).gains
    expected = sorted((series[int(card)], time, gain.kind, *gain.deltas) for (card, time), gain in gains.items())
    assert [tuple(row) for row in in_order] == expected, seed
    now = told.names[-1]
    assert [(row[0], row[2]) for row in newest] == sorted((series[card], name) for name, card in now.items()), seed
    open_names = {(row["series"], row["os_name"]) for row in names if row["until"] is None}
    assert {(series[card], name) for name, card in now.items()} <= open_names, seed


async def _send(
    turns: asyncio.Semaphore, client: Client, server_id: str, beats: Sequence[Beat], order: str, seed: int
) -> None:
    rng = random.Random(seed)
    arriving = list(beats)
    if order == "newest-first":
        arriving.reverse()
    elif order == "shuffled":
        rng.shuffle(arriving)
        arriving += rng.sample(arriving, min(3, len(arriving)))
    elif order == "live-first":
        middle = rng.randint(1, len(arriving) - 1)  # after an outage: the newest, and then the backlog
        arriving = [*arriving[: middle // 2], *arriving[middle:], *arriving[middle // 2 : middle]]
    while arriving:
        size = rng.choice([1, 2, 5, 9])
        async with turns:
            answer = await client.post_batch([body(server_id, beat) for beat in arriving[:size]])
        assert answer["rejected"] == []
        del arriving[:size]
