"""Alerts on rates: when they fire and end, and that a backtest says the same."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.alerts import (
    MEGABIT,
    MINUTE,
    SECOND,
    TURN,
    Row,
    backtest,
    begin,
    events,
    recorded,
    samples,
    set_rule,
    states,
    store,
    turn,
    turns,
)  # fmt: skip
from tests.helpers.support import hours_ago

T0 = hours_ago(5)


@pytest.fixture(autouse=True)
async def _begun(database: asyncpg.Connection) -> None:
    await begin(database, T0)


BUSY, QUIET = 95 * MEGABIT, 5 * MEGABIT
RULE: dict[str, Any] = {
    "above_bps": 90 * MEGABIT,
    "window_seconds": 60,
    "for_seconds": 300,
    "direction": "rx",
    "keep_seconds": 60,
}


@pytest.mark.parametrize(("busy", "fires"), [(10, False), (11, True)])
async def test_it_fires_once_the_condition_has_held_for_as_long_as_the_rule_asks(
    database: asyncpg.Connection, busy: int, fires: bool
) -> None:
    """`busy` samples every 30 s hold for busy - 1 intervals: 4 min 30 s, and 5 min."""
    await set_rule(database, "busy", "rate", **RULE | {"window_seconds": 30})
    await store(database, samples(T0, [QUIET] * 4 + [BUSY] * busy + [QUIET] * 10))

    await turns(database, T0, T0 + 14 * MINUTE, MINUTE)

    fired = T0 + (4 + 10) * 30 * SECOND
    cleared = fired + 30 * SECOND
    expected = [("nas eth0", "firing", fired), ("nas eth0", "resolved", cleared + 60 * SECOND)]
    assert await events(database) == (expected if fires else [])
    assert await states(database) == {}


@pytest.mark.parametrize(("held", "fires"), [(299, False), (300, True)])
async def test_a_second_less_than_the_rule_asks_for_is_not_enough(
    database: asyncpg.Connection, held: int, fires: bool
) -> None:
    """A12"""
    await set_rule(database, "busy", "rate", **RULE | {"window_seconds": 30})
    since = T0 + 2 * MINUTE
    busy = [
        *samples(since, [BUSY] * 10),
        Row(since + held * SECOND, BUSY, elapsed_seconds=held - 270),
        Row(since + (held + 30) * SECOND, QUIET),
    ]
    await store(database, [*samples(T0, [QUIET] * 4), *busy])

    await turns(database, T0, T0 + 9 * MINUTE, MINUTE)

    assert await events(database) == ([("nas eth0", "firing", since + 5 * MINUTE)] if fires else [])


async def test_before_that_it_is_pending_and_a_value_below_ends_it(database: asyncpg.Connection) -> None:
    await set_rule(database, "busy", "rate", **RULE)
    await store(database, samples(T0, [QUIET] * 4 + [BUSY] * 4 + [QUIET] * 4))

    await turn(database, T0 + 4 * MINUTE)
    assert await states(database) == {("busy", "nas", "eth0"): "pending"}

    await turn(database, T0 + 6 * MINUTE)
    assert await states(database) == {}
    assert await events(database) == []


async def test_a_rate_around_the_bound_is_one_episode(database: asyncpg.Connection) -> None:
    """It ends below 90 % of the bound, not at the bound."""
    await set_rule(database, "busy", "rate", **RULE | {"for_seconds": 60, "keep_seconds": 0})
    around = [90 * MEGABIT * factor for factor in (1.05, 0.95) * 20]
    await store(database, samples(T0, [QUIET] * 4 + [BUSY] * 4 + around + [QUIET] * 4))

    await turns(database, T0, T0 + 30 * MINUTE, MINUTE)

    assert [to for _, to, _ in await events(database)] == ["firing", "resolved"]


async def test_the_mean_is_of_bytes_over_time_and_not_of_rates(database: asyncpg.Connection) -> None:
    """After a gap, what crossed in 20 minutes counts over 20 minutes."""
    await set_rule(database, "busy", "rate", **RULE | {"for_seconds": 0, "window_seconds": 300})
    gap = Row(T0 + 30 * MINUTE, 80 * MEGABIT, elapsed_seconds=1_200, delta_kind="gap")
    bursts = samples(T0 + 30 * MINUTE + 30 * SECOND, [99 * MEGABIT] * 8)
    await store(database, [*samples(T0, [QUIET] * 21), gap, *bursts])

    await turns(database, T0, T0 + 40 * MINUTE, MINUTE)

    assert await events(database) == []


@pytest.mark.parametrize("kind", ["rejected", "glitch", "first"])
async def test_a_reading_that_does_not_count_is_no_traffic_and_no_time(database: asyncpg.Connection, kind: str) -> None:
    await set_rule(database, "busy", "rate", **RULE | {"for_seconds": 0, "window_seconds": 60})
    rows = samples(T0, [QUIET] * 10 + [BUSY] * 8)
    for row in rows[4:8]:
        row.rx_bps, row.delta_kind = 10**12, kind
    await store(database, rows)

    await turn(database, T0 + 4 * MINUTE + 15 * SECOND)
    assert await states(database) == {}

    await turns(database, T0 + 5 * MINUTE, T0 + 9 * MINUTE, MINUTE)
    assert await states(database) == {("busy", "nas", "eth0"): "firing"}


async def test_a_window_that_was_hardly_observed_neither_fires_nor_ends(database: asyncpg.Connection) -> None:
    """Less than 80 % of it."""
    await set_rule(database, "busy", "rate", **RULE | {"for_seconds": 0, "window_seconds": 600})
    await store(database, samples(T0, [BUSY] * 15))

    await turns(database, T0, T0 + 8 * MINUTE - TURN, MINUTE)

    assert await events(database) == []


@pytest.mark.parametrize(
    ("direction", "rx", "tx", "fires"),
    [
        ("rx", 95, 5, True), ("rx", 5, 95, False), ("tx", 5, 95, True), ("tx", 95, 5, False), ("max", 5, 95, True),
        ("max", 60, 60, False), ("sum", 60, 60, True), ("sum", 40, 40, False),
    ],
)  # fmt: skip
async def test_the_direction_says_what_is_counted(
    database: asyncpg.Connection, direction: str, rx: int, tx: int, fires: bool
) -> None:
    await set_rule(database, "busy", "rate", **RULE | {"for_seconds": 0, "direction": direction})
    await store(database, samples(T0, [rx * MEGABIT] * 8, tx_bps=tx * MEGABIT))

    await turn(database, T0 + 4 * MINUTE)

    assert (await states(database) == {("busy", "nas", "eth0"): "firing"}) is fires


async def test_a_bound_can_be_a_share_of_the_line_rate(database: asyncpg.Connection) -> None:
    """Interfaces without a known line rate are not judged."""
    await set_rule(database, "full", "rate", above_percent=90, window_seconds=60)
    rows = [
        *samples(T0, [95 * MEGABIT] * 8, speed_mbps=100),
        *samples(T0, [95 * MEGABIT] * 8, speed_mbps=1000, interface_name="eth1"),
        *samples(T0, [95 * MEGABIT] * 8, interface_name="eth2"),
    ]
    await store(database, rows)

    await turn(database, T0 + 4 * MINUTE)

    assert await states(database) == {("full", "nas", "eth0"): "firing"}
    assert await database.fetchval("SELECT value FROM public.alerts") == pytest.approx(95)


async def test_a_bound_below_waits_for_rows_that_are_under_way(database: asyncpg.Connection) -> None:
    """Two intervals, and a minute at least."""
    await set_rule(database, "idle", "rate", below_bps=MEGABIT, window_seconds=60, direction="rx")
    await store(database, samples(T0, [QUIET] * 4 + [0.0] * 6))
    quiet_since = T0 + (4 + 1) * 30 * SECOND  # the first window without traffic

    await turn(database, quiet_since + 45 * SECOND)
    assert await states(database) == {}

    await turn(database, quiet_since + 60 * SECOND)
    assert await states(database) == {("idle", "nas", "eth0"): "firing"}


async def test_the_scope_names_servers_interfaces_and_kinds(database: asyncpg.Connection) -> None:
    scope = {"servers": ["web-*", "db"], "interfaces": ["eth?", "[!e]*0"], "kinds": ["physical"]}
    await set_rule(database, "busy", "rate", **RULE | {"for_seconds": 0}, scope=scope)
    await store(
        database,
        [
            row
            for server in ("web-1", "web.1", "db", "db2")
            for name in ("eth0", "eth10", "wan0", "lan1")
            for row in samples(T0, [BUSY] * 8, server_id=server, interface_name=name)
        ],
    )
    await database.execute("UPDATE servers SET interfaces[1].kind = 'bridge' WHERE server_id = 'db'")  # eth0

    await turn(database, T0 + 4 * MINUTE)

    assert {(server, name) for _, server, name in await states(database)} == {
        ("web-1", "eth0"), ("web-1", "wan0"), ("db", "wan0"),
    }  # fmt: skip


async def test_turns_that_come_late_find_the_same_moments(database: asyncpg.Connection) -> None:
    """Whoever is away for twenty minutes fires and ends by the data's time, not by the turn's."""
    await set_rule(database, "busy", "rate", **RULE)
    rows = samples(T0, [QUIET] * 4 + [BUSY] * 14 + [QUIET] * 30)
    await store(database, rows)
    await turn(database, T0 + MINUTE)

    await turn(database, T0 + 30 * MINUTE)

    assert await recorded(database) == await backtest(database, "rate", T0, T0 + 30 * MINUTE, **RULE)
    assert len(await recorded(database)) == 1


async def test_a_bound_that_is_passed_again_within_keep_is_the_same_episode(database: asyncpg.Connection) -> None:
    await set_rule(database, "busy", "rate", **RULE | {"for_seconds": 0, "keep_seconds": 300, "window_seconds": 30})
    await store(database, samples(T0, [BUSY] * 4 + [QUIET] * 9 + [BUSY] * 4 + [QUIET] * 14))

    await turns(database, T0, T0 + 18 * MINUTE, MINUTE)

    (episode,) = await recorded(database)
    assert episode.cleared_at == T0 + 17 * 30 * SECOND
    assert episode.resolved_at == episode.cleared_at + timedelta(minutes=5)
