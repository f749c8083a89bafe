"""What spares a turn of alerts work does not change what it finds: servers are read by parts, windows as sums."""

import random
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from tests.helpers.alerts import MEGABIT, MINUTE, SECOND, Row, arrive, begin, listen, set_rule, states, store, turn
from tests.helpers.support import hours_ago

T0 = hours_ago(6)
SERVERS = 6000

WINDOWS = """
SELECT s.* FROM linkbeat.alert_plans p
CROSS JOIN LATERAL linkbeat.alert_points(
    p, array_fill('nas'::text, '{3}'), $2::text[], $3::timestamptz[], $4::timestamptz - p.lag, $4) s
WHERE p.rule_id = $1 ORDER BY s.place, s.at
"""
SUMS = """
SELECT s.* FROM linkbeat.alert_plans p
CROSS JOIN LATERAL linkbeat.traffic_points(
    ARRAY[p], '{1,1,1}', array_fill('nas'::text, '{3}'), $2::text[], $3::timestamptz[], $4::timestamptz) s
WHERE p.rule_id = $1 ORDER BY s.place, s.at
"""


async def test_every_server_is_silent_in_the_turn_in_which_it_is_due(database: asyncpg.Connection) -> None:
    """Of more servers than a turn reads, some are heard no more, each from another moment on."""
    rng = random.Random(seed := random.randrange(10**9))
    after = {"silent": 90, "early": 75}
    await begin(database, T0)
    await set_rule(database, "silent", "silent")
    await set_rule(database, "early", "silent", after_seconds=75, scope={"servers": ["s*7"]})
    await listen(database, T0 - timedelta(hours=1), T0 + timedelta(hours=1))
    await database.execute(
        "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at, live_at, reported_status) "
        "SELECT format('s%s', n), 'a', $1, $1, $1, $1, repeat('x', 1200) FROM generate_series(1, $2::integer) AS n",
        T0,
        SERVERS,
    )
    await turn(database, T0)
    blocks = await database.fetchval("SELECT pg_relation_size('servers') / current_setting('block_size')::integer")
    assert blocks > 1024, "a turn would read all of them"

    lost = {f"s{n}": T0 + rng.randint(0, 240) * SECOND for n in rng.sample(range(1, SERVERS + 1), 150)}
    arrivals = dict.fromkeys(lost, T0)
    expected: dict[tuple[str, str], datetime] = {}
    found: dict[tuple[str, str], datetime] = {}
    at = T0
    while at < T0 + 8 * MINUTE:
        at += rng.choice([15, 15, 15, 16, 20, 31]) * SECOND
        for server_id, last in lost.items():
            if at <= last:
                arrivals[server_id] = at - int(server_id[1:]) % 15 * SECOND
            for rule_id in ["silent", "early"] if server_id.endswith("7") else ["silent"]:
                if at - arrivals[server_id] > after[rule_id] * SECOND:
                    expected.setdefault((rule_id, server_id), at)
        await database.execute(
            "UPDATE servers SET last_seen = $1, live_at = $1::timestamptz - n * INTERVAL '1 second', "
            "received_at = $1::timestamptz - n * INTERVAL '1 second' "
            "FROM (SELECT server_id, substr(server_id, 2)::integer % 15 AS n FROM servers) o "
            "WHERE o.server_id = servers.server_id AND servers.server_id <> ALL ($2)",
            at,
            [server_id for server_id, last in lost.items() if at > last],
        )
        assert await turn(database, at)
        for rule_id, server_id, _ in await states(database):
            found.setdefault((rule_id, server_id), at)
    assert found == expected, f"seed {seed}"


async def test_a_changed_rule_and_a_new_tag_concern_those_that_are_silent_already(database: asyncpg.Connection) -> None:
    await begin(database, T0)
    await set_rule(database, "silent", "silent", after_seconds=3600)
    await set_rule(database, "tagged", "silent", scope={"tags": ["lab"]})
    await listen(database, T0 - timedelta(hours=1), T0 + timedelta(hours=1))
    await arrive(database, "nas", T0)
    await arrive(database, "pi", T0)
    for seconds in range(0, 315, 15):
        await turn(database, T0 + seconds * SECOND)
    assert await states(database) == {}

    await set_rule(database, "silent", "silent", scope={"servers": ["nas"]})
    await database.execute("INSERT INTO linkbeat.server_labels (server_id, tags) VALUES ('pi', '{lab}')")
    await turn(database, T0 + 315 * SECOND)
    assert await states(database) == {("silent", "nas", ""): "firing", ("tagged", "pi", ""): "firing"}


async def test_who_only_delivers_a_backlog_is_silent_and_is_forgotten_when_live_again(
    database: asyncpg.Connection,
) -> None:
    await begin(database, T0)
    await set_rule(database, "silent", "silent", keep_seconds=0)
    await listen(database, T0 - timedelta(hours=1), T0 + timedelta(hours=1))
    await arrive(database, "nas", T0)
    seen = []
    for seconds in range(15, 240, 15):
        at = T0 + seconds * SECOND
        if seconds >= 180:
            await arrive(database, "nas", at)
        else:
            await database.execute(
                "UPDATE servers SET received_at = $1, last_seen = $2", at, T0 + seconds / 100 * SECOND
            )
        await turn(database, at)
        seen.append((seconds, bool(await states(database))))
    assert [seconds for seconds, is_silent in seen if is_silent] == [105, 120, 135, 150, 165]
    assert await database.fetchval("SELECT count(*) FROM linkbeat.alert_marks") == 0


async def test_sums_are_those_of_windows(database: asyncpg.Connection) -> None:
    """Of random rules and rows, the points of a turn are those of a backtest."""
    rng = random.Random(seed := random.randrange(10**9))
    await begin(database, T0)
    names = ["eth0", "eth1", "wlan0"]
    rows = []
    for name in names:
        at = T0
        while at < T0 + 25 * MINUTE:
            elapsed = rng.choice([5, 10, 30, 30, 30, 61, 400])
            at += elapsed * SECOND
            kind = rng.choices(["normal", "rejected", "glitch", "reset", "first"], [20, 1, 1, 1, 1])[0]
            rows.append(
                Row(at, rng.uniform(0, 900) * MEGABIT, rng.uniform(0, 900) * MEGABIT, "nas", name,
                    0 if kind == "first" else elapsed, 30, True, kind, rng.choice([0, 0, 3, 90]),
                    rng.choice([10, 20_000]), rng.choice([None, 1000, 100]))
            )  # fmt: skip
    await store(database, rows)
    for number in range(12):
        window: dict[str, Any] = {"window_seconds": rng.choice([10, 60, 90, 300, 900])}
        if number % 3 == 2:
            await set_rule(
                database,
                f"errors-{number}",
                "errors",
                count=rng.randint(1, 200),
                packets=rng.choice([1, 50_000]),
                **window,
            )
        else:
            bound = rng.choice(["above_bps", "below_bps", "above_percent", "below_percent"])
            value = rng.randint(10, 90) * (1 if bound.endswith("percent") else 10 * MEGABIT)
            direction = rng.choice(["rx", "tx", "sum", "max"])
            await set_rule(database, f"rate-{number}", "rate", direction=direction, **(window | {bound: value}))

    compared = 0
    for seconds in rng.sample(range(25 * 60), 8):
        at, since = T0 + seconds * SECOND, T0 + rng.randint(0, seconds) * SECOND
        for rule_id in [row["rule_id"] for row in await database.fetch("SELECT rule_id FROM linkbeat.alert_rules")]:
            asked = (rule_id, names, [since] * len(names), at)
            windows = await database.fetch(WINDOWS, *asked)
            sums = await database.fetch(SUMS, *asked)
            assert windows == sums, f"seed {seed}, {rule_id} at {at}"
            compared += len(sums)
    assert compared > 0
