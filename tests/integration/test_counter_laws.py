"""The three laws of docs/counters.md, held against what truly crossed (tests/helpers/truth.py):

1. never invented: no more than crossed, but for what the busiest interval carried;
2. never lost: all that truthful readings showed;
3. order does not matter: the same rows, however they arrive.

LINKBEAT_LAW_HISTORIES sets how many histories are tried (make laws: 10,000).
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import asyncpg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.ingest.heartbeat import MAX_BATCH_HEARTBEATS
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.machines import body
from tests.helpers.oracle import Beat
from tests.helpers.support import KEY, Client, differing_rows, hours_ago
from tests.helpers.truth import BOOT_IDS, EVENTS, FAULTS, SPEEDS, History, history

HISTORIES = int(os.environ.get("LINKBEAT_LAW_HISTORIES", "240"))
AT_ONCE = 40
# In 258787, a row asks what was usual before something that has been in doubt for almost 15 minutes; in 355256,
# counters fall twice while a reset is in doubt; in 31080172, a burst of octets comes while packets cannot be read; in
# 1035239, octets that are wrong three times rise as if they had begun again, in 3287088226575586026 in larger packets,
# in 678949458758093709 at 195 Gbit/s; in 1715544933586731821, an interface is created again right after a clock was put
# forward by an hour, in 1281352540754150993 with a burst of what it sends; in 3346240881209251452, it has one 13
# minutes later as it passes its old level; in 1044139207239490217, it reads zeros then; in 1889219052102436491, octets
# are rejected twice while packets cannot be read; in 1538043884660764504, a wrap ends at 0; in 1665038578398352898,
# 3444744509074896417 and 1784902777861623413, boot ids flicker seldom.
KNOWN = (
    258787, 355256, 31080172, 1035239, 3287088226575586026, 678949458758093709, 1715544933586731821,
    1281352540754150993, 3346240881209251452, 1044139207239490217, 1889219052102436491, 1538043884660764504,
    1665038578398352898, 3444744509074896417, 1784902777861623413,
)  # fmt: skip
START = hours_ago(5)
ORDERS = ("in-order", "shuffled", "newest-first")

_ROWS = """
SELECT server_id, time, delta_kind, elapsed_ms, rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta,
       rx_errors_delta, tx_errors_delta, rx_dropped_delta, tx_dropped_delta
FROM network_interface_metrics WHERE server_id = ANY ($1) ORDER BY server_id, time
"""


def test_the_three_laws_hold_against_what_truly_crossed(database_url: str, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    tried: set[int] = set()

    with asyncio.Runner() as runner:
        app = in_process(create_app(Settings(api_key=KEY, data_dir=str(tmp_path)), database_url=database_url, key=KEY))
        client = runner.run(app.__aenter__())
        database = runner.run(asyncpg.connect(database_url))

        @settings(
            max_examples=HISTORIES // AT_ONCE,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a seed that is smaller is no simpler history
            suppress_health_check=list(HealthCheck),
        )
        @given(first=st.integers(0, 2**62))
        def hold(first: int) -> None:
            # Not drawn one by one: Hypothesis prefers small numbers, and would try many a history twice.
            draw = random.Random(first)
            seeds = [draw.getrandbits(62) for _ in range(AT_ONCE)]
            tried.update(seeds)
            seen.update(runner.run(_hold(client, database, seeds)))

        try:
            runner.run(_hold(client, database, KNOWN))
            hold()
            runner.run(database.execute("CALL linkbeat.refresh_aggregates(now())"))
            assert runner.run(differing_rows(database)) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
        finally:
            runner.run(database.close())
            runner.run(app.__aexit__(None, None, None))

    print(len(tried), "histories; those in which each occurred:", dict(sorted(seen.items())))
    assert len(tried) == HISTORIES // AT_ONCE * AT_ONCE
    kinds = {f"kind {kind}" for kind in ("first", "normal", "gap", "reboot", "reset", "wrap", "dip", "glitch")}
    sources = {
        *(f"boot ids: {kind}" for kind in BOOT_IDS),
        *(f"speed: {kind}" for kind in SPEEDS),
        "32 bits",
        "64 bits",
    }
    expected = {*FAULTS, *EVENTS, *sources, *kinds}
    assert expected - {what for what, count in seen.items() if count} == set()


async def _hold(client: Client, database: asyncpg.Connection, seeds: Sequence[int]) -> Counter[str]:
    """Sends each history in each order, and holds what is stored against the truth."""
    stories = {seed: history(random.Random(seed), START) for seed in seeds}
    await asyncio.gather(*(_send(client, stories, order) for order in ORDERS))

    seen: Counter[str] = Counter()
    rows: dict[str, list[tuple[object, ...]]] = {}
    for row in await database.fetch(_ROWS, [f"{seed}-{order}" for seed in seeds for order in ORDERS]):
        rows.setdefault(row["server_id"], []).append(tuple(row)[1:])
    for seed, story in stories.items():
        in_order = rows[f"{seed}-{ORDERS[0]}"]
        for order in ORDERS[1:]:
            assert rows[f"{seed}-{order}"] == in_order, f"law 3, seed {seed}, {order}"
        for n, name in enumerate(("received", "sent")):
            counted = sum(row[3 + n] for row in in_order)  # type: ignore[misc]
            told = f"seed {seed}, {name}: {counted} counted, {story.reported[n]} reported, {story.crossed[n]} crossed"
            assert counted <= story.crossed[n] + story.busiest[n], f"law 1, {told}, {story.faults}"
            assert counted >= story.reported[n], f"law 2, {told}, {story.faults}"
        seen.update({what for what, count in story.faults.items() if count} | {f"kind {row[1]}" for row in in_order})
    return seen


async def _send(client: Client, stories: Mapping[int, History], order: str) -> None:
    """Each post has some heartbeats of every history that is not over yet, of one in the order that is asked for.

    The service stores a server's heartbeats one by one: that others' stand beside them changes nothing but what they
    cost, in a transaction and a request of their own.
    """
    posts = [
        [[body(f"{seed}-{order}", beat) for beat in post] for post in _posts(random.Random(seed), story.beats, order)]
        for seed, story in stories.items()
    ]
    for some in zip_longest(*posts, fillvalue=()):
        bodies = [one for post in some for one in post]
        for first in range(0, len(bodies), MAX_BATCH_HEARTBEATS):
            answer = await client.post_batch(bodies[first : first + MAX_BATCH_HEARTBEATS])
            assert answer["rejected"] == []


def _posts(rng: random.Random, beats: Sequence[Beat], order: str) -> Iterator[list[Beat]]:
    """In one piece; or some at a time, newest first or in any order, and some of them twice."""
    if order == "in-order":
        yield list(beats)
        return
    arriving = list(reversed(beats))
    if order == "shuffled":
        rng.shuffle(arriving)
    arriving += rng.sample(arriving, min(3, len(arriving)))
    while arriving:
        size = rng.choice([1, 2, 5, 9])
        yield arriving[:size]
        del arriving[:size]
