"""Alerts of machines whose cards change their names, in any order of arrival: none is lost, doubled or left behind."""

import os
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from service.app import create_app
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.alerts import MEGABIT, MINUTE, SECOND, TURN, Episode, backtest, begin, set_channel, set_rule, turn
from tests.helpers.machines import body
from tests.helpers.oracle import Beat
from tests.helpers.renaming import INTERVAL, story
from tests.helpers.support import KEY, Client, hours_ago

STORIES = int(os.environ.get("LINKBEAT_NAME_STORIES", "40"))
ORDERS = ("in-order", "shuffled", "newest-first", "live-first")
END = hours_ago(2)
RULE: dict[str, Any] = {"above_bps": 15 * MEGABIT, "window_seconds": 30, "keep_seconds": 60, "direction": "rx"}
QUIET = 8  # heartbeats in which nothing crosses, at the end
_EPISODES = """
SELECT f.episode, f.server_id, f.subject, f.active_at, f.at AS fired_at, e.cleared_at, e.at AS resolved_at, e.reason
FROM public.alert_events f
LEFT JOIN public.alert_events e ON e.episode = f.episode AND e.to_state <> 'firing'
WHERE f.to_state = 'firing'
"""
_TOLD = """
SELECT episode, alert ->> 'subject' AS subject, array_agg(transition ORDER BY sequence) AS transitions
FROM linkbeat.outbox_items GROUP BY 1, 2
"""


async def test_alerts_follow_the_cards_in_any_order(
    database: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    settings = Settings(api_key=KEY, data_dir=str(tmp_path))
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as client:
        await begin(database, END)
        await set_channel(database)
        await set_rule(database, "busy", "rate", **RULE)
        moved = await _send(client, database, {seed: _beats(seed) for seed in range(STORIES)})

        at = END + (QUIET + 3) * INTERVAL * SECOND + MINUTE
        for _ in range(3):
            at += TURN
            assert await turn(database, at)

    await _hold(database, at)
    assert moved > 0
    print(f"{STORIES} stories in {len(ORDERS)} orders: {moved} moves of rows")


def _beats(seed: int) -> list[Beat]:
    """A story that ends at END, and then a while in which nothing crosses: what is present and fires ends."""
    length = story(random.Random(seed), END).sent[-1].time - END
    beats = story(random.Random(seed), END - length).sent
    return [*beats, *(replace(beats[-1], time=END + n * INTERVAL * SECOND) for n in range(1, QUIET + 1))]


async def _send(client: Client, database: asyncpg.Connection, beats: dict[int, list[Beat]]) -> int:
    """Some heartbeats of each, and a turn; the last ones, in which nothing crosses, in their order."""
    waiting: dict[str, list[Beat]] = {}
    for seed, told in beats.items():
        rng = random.Random(seed)
        for order in ORDERS:
            arriving = told[:-QUIET]
            if order == "shuffled":
                rng.shuffle(arriving)
            elif order == "newest-first":
                arriving.reverse()
            elif order == "live-first":
                middle = rng.randint(1, len(arriving) - 1)
                arriving = [*arriving[: middle // 2], *arriving[middle:], *arriving[middle // 2 : middle]]
            waiting[f"{seed}-{order}"] = arriving
    moved, rounds, at = 0, random.Random(STORIES), END
    while any(waiting.values()):
        size = rounds.choice([1, 2, 5, 9])
        moved += await _post(client, database, {name: some[:size] for name, some in waiting.items()})
        waiting = {name: some[size:] for name, some in waiting.items()}
        at += 16 * SECOND
        assert await turn(database, at)
    for n in range(-QUIET, 0):
        one_of_each = {f"{seed}-{order}": [told[n]] for seed, told in beats.items() for order in ORDERS}
        moved += await _post(client, database, one_of_each)
        at = max(at + 16 * SECOND, END + (QUIET + n + 1) * INTERVAL * SECOND + MINUTE)
        assert await turn(database, at)
    return moved


async def _post(client: Client, database: asyncpg.Connection, some: dict[str, list[Beat]]) -> int:
    bodies = [body(name, beat) for name, beats in some.items() for beat in beats]
    for first in range(0, len(bodies), 400):
        assert (await client.post_batch(bodies[first : first + 400]))["rejected"] == []
    return int(await database.fetchval("SELECT count(*) FROM linkbeat.moved_series"))


async def _hold(database: asyncpg.Connection, at: Any) -> None:
    rows = await database.fetch(_EPISODES)
    did = [Episode(*list(row.values())[1:-1]) for row in rows if row["reason"] != "moved"]
    said = await backtest(database, "rate", END - timedelta(hours=2), at, **RULE)

    # Nothing is lost: what the whole history shows is recorded, of the series that has it.
    for episode in said:
        of_server = [other for other in did if other.server_id == episode.server_id]
        assert any(_overlap(episode, other) for other in of_server), (episode, of_server)
    # Nothing is left behind: what still fires is what the whole history says, under the series that has the rows.
    states = await database.fetch("SELECT server_id, subject FROM public.alerts WHERE state = 'firing'")
    firing = {tuple(row) for row in states}
    assert firing == {episode.key for episode in said if episode.resolved_at is None}
    assert firing == {episode.key for episode in did if episode.resolved_at is None}
    # Nothing is told twice, and every end is told of what was told to fire, under the same name.
    told = await database.fetch(_TOLD)
    assert max(Counter(row["episode"] for row in told).values()) == 1, "one episode, two names"
    open_episodes = {row["episode"] for row in rows if row["resolved_at"] is None}
    for row in told:
        ends = [one for one in row["transitions"] if one in ("resolved", "closed")]
        assert len(ends) == (row["episode"] not in open_episodes), row
        assert len(row["transitions"]) - len(ends) <= 1, row


def _overlap(one: Episode, other: Episode) -> bool:
    if one.key != other.key:
        return False
    ends = [episode.cleared_at or episode.resolved_at for episode in (one, other)]
    return (ends[1] is None or one.active_at <= ends[1]) and (ends[0] is None or other.active_at <= ends[0])
