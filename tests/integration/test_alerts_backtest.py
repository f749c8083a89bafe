"""What a rule does is what its backtest says (A15), over random histories in any order of arrival."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import asyncpg

from tests.helpers.alerts import (
    MEGABIT,
    MINUTE,
    SECOND,
    Episode,
    Row,
    backtest,
    begin,
    recorded,
    set_rule,
    store,
    store_late,
    turn,
)  # fmt: skip
from tests.helpers.support import hours_ago

T0 = hours_ago(5)
SPAN = 40 * MINUTE
RULES: dict[str, dict[str, Any]] = {
    "rate": {"above_bps": 50 * MEGABIT, "window_seconds": 120, "for_seconds": 90, "keep_seconds": 120},
    "low": {"below_bps": 50 * MEGABIT, "window_seconds": 90, "for_seconds": 60, "keep_seconds": 60, "direction": "sum"},
    "errors": {"count": 60, "percent": 0.1, "window_seconds": 120, "packets": 100, "keep_seconds": 60},
    "link": {"down_seconds": 60, "flaps": 4, "window_seconds": 300, "keep_seconds": 60},
}  # fmt: skip
KINDS = {"low": "rate"}


def history(seed: int) -> list[Row]:
    """Some interfaces' rows over SPAN: phases of load, faults and outages, with gaps, resets and rejected readings."""
    rng = random.Random(seed)
    rows = []
    for server_id, name in (("nas", "eth0"), ("nas", "eth1"), ("pi", "wlan0")):
        at, ends = T0 + rng.randint(0, 29) * SECOND, T0 + SPAN
        load, faults, is_up, elapsed, kind = 0.0, 0, True, 0.0, "first"
        while at < ends:
            received, sent = load * rng.uniform(0.9, 1.1), load * rng.uniform(0, 1)
            packets = rng.choice([50, 10_000])
            rows.append(Row(at, received, sent, server_id, name, elapsed, 30, is_up, kind, faults, packets))
            if rng.random() < 0.2:
                load = rng.choice([0, 10, 45, 55, 300]) * MEGABIT
                faults = rng.choice([0, 0, 5, 20, 200])
            if rng.random() < 0.25:
                is_up = not is_up
            elapsed = rng.choices([30, rng.randint(91, 900), rng.randint(31, 90)], [30, 1, 1])[0]
            kind = rng.choices(["normal", "reset", "rejected", "glitch", "dip"], [30, 1, 1, 1, 1])[0]
            if elapsed > 90 and kind == "normal":
                kind = "gap"
            at += timedelta(seconds=elapsed)
    return rows


async def _fresh(database: asyncpg.Connection) -> None:
    for table in (
        "network_interface_metrics",
        "servers",
        "linkbeat.alerts",
        "linkbeat.alert_events",
        "linkbeat.late_arrivals",
    ):
        await database.execute(f"DELETE FROM {table}")
    await begin(database, T0)
    for rule_id, spec in RULES.items():
        await set_rule(database, rule_id, KINDS.get(rule_id, rule_id), **spec)


async def _differences(database: asyncpg.Connection, until: datetime) -> dict[str, object]:
    """For each rule, what turns recorded and what the backtest says, where they differ."""
    found: dict[str, object] = {}
    for rule_id, spec in RULES.items():
        said = await backtest(database, KINDS.get(rule_id, rule_id), T0 - MINUTE, until, **spec)
        did = await recorded(database, rule_id)
        said = [episode if episode.resolved_at else replace(episode, cleared_at=None) for episode in said]
        if said != did:
            found[rule_id] = {"recorded": did, "backtest": said}
    return found


async def test_turns_record_what_the_backtest_says(database: asyncpg.Connection) -> None:
    seeds = random.sample(range(10**9), 3)
    for seed in seeds:
        await _fresh(database)
        rng = random.Random(seed)
        rows = sorted(history(seed), key=lambda row: row.time)
        at = T0
        # Turns of any distance, long pauses among them; rows arrive within two seconds of their time.
        while at < T0 + SPAN + 20 * MINUTE:
            arrived = [row for row in rows if row.time <= at - 2 * SECOND]
            rows = rows[len(arrived) :]
            await store(database, arrived)
            await turn(database, at)
            at += rng.choice([15, 31, 60, 60, 120, 240]) * SECOND

        assert await _differences(database, at - 5 * MINUTE) == {}, f"seed {seed}"


async def test_what_comes_in_any_order_is_recorded_once_it_is_there(database: asyncpg.Connection) -> None:
    """Each row comes up to half an hour late. What an early turn saw and later rows change stays recorded, because
    somebody may have been told; what the whole history shows is recorded too, and no time twice. In 819057521, a link
    was down for longer than was recorded at first."""
    seeds = [819057521, *random.sample(range(10**9), 3)]
    for seed in seeds:
        await _fresh(database)
        rng = random.Random(seed)
        rows = sorted(
            ((row.time + rng.choice([1, 1, 1, 40, 400, 1_800]) * SECOND, row) for row in history(seed)),
            key=lambda arrival: arrival[0],
        )
        at = T0
        while at < T0 + SPAN + 60 * MINUTE:
            arrived = [row for moment, row in rows if moment <= at]
            rows = rows[len(arrived) :]
            await store_late(database, arrived, at)
            await turn(database, at)
            at += rng.choice([15, 60, 120, 240]) * SECOND

        for rule_id, spec in RULES.items():
            did = await recorded(database, rule_id)
            for episode in await backtest(database, KINDS.get(rule_id, rule_id), T0 - MINUTE, at, **spec):
                if episode.cleared_at is not None:
                    assert any(_overlap(episode, other) for other in did), (seed, rule_id, episode, did)
            for one, other in combinations(did, 2):
                assert not _overlap(one, other) or one.cleared_at == other.active_at, (seed, rule_id, one, other)


def _overlap(one: Episode, other: Episode) -> bool:
    """`other` was recorded; without an end it still goes on."""
    if one.key != other.key or one.cleared_at is None:
        return False
    ends = (other.cleared_at or other.resolved_at) if other.resolved_at else datetime.max.replace(tzinfo=UTC)
    return one.active_at <= (ends or other.fired_at) and other.active_at <= one.cleared_at


async def test_rows_that_are_all_there_before_a_turn_give_the_same_in_any_order(database: asyncpg.Connection) -> None:
    seed = random.randrange(10**9)
    await _fresh(database)
    rows = history(seed)
    random.Random(seed).shuffle(rows)
    for row in rows:
        await store_late(database, [row], T0 + SPAN + 60 * MINUTE)

    await turn(database, T0 + SPAN + 60 * MINUTE)

    assert await _differences(database, T0 + SPAN + 60 * MINUTE) == {}, f"seed {seed}"
