"""Alerts on silence: only time in which the service could hear counts, and a fleet's silence is one message."""

from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.alerts import (
    MEGABIT,
    MINUTE,
    SECOND,
    TURN,
    arrive,
    backtest,
    begin,
    deliver,
    listen,
    recorded,
    samples,
    set_channel,
    set_rule,
    states,
    store,
    told,
    turn,
    turns,
)  # fmt: skip
from tests.helpers.support import hours_ago

T0 = hours_ago(6)
HOUR = timedelta(hours=1)
GRACE = 150 * SECOND


@pytest.fixture(autouse=True)
async def _begun(database: asyncpg.Connection) -> None:
    await begin(database, T0)
    await set_rule(database, "silent", "silent", severity="critical", keep_seconds=0)
    await set_channel(database)
    await listen(database, T0 - HOUR, T0)


async def arrivals(database: asyncpg.Connection, at: datetime, count: int, *, first: int = 0) -> None:
    """The last heartbeats of servers, spread over the interval before `at`."""
    for number in range(first, count):
        await arrive(database, f"s{number:03}", at - number % 30 * SECOND)


async def test_a_server_fires_after_three_intervals_and_its_return_ends_it(database: asyncpg.Connection) -> None:
    await arrive(database, "nas", T0)
    await listen(database, T0 - HOUR, T0 + HOUR)

    await turn(database, T0 + 90 * SECOND)
    assert await states(database) == {}
    await turn(database, T0 + 105 * SECOND)
    assert await states(database) == {("silent", "nas", ""): "firing"}
    (message,) = await deliver(database, T0 + 2 * MINUTE)
    assert (message["state"], message["server_id"], message["reason"]) == ("firing", "nas", "silent")
    assert datetime.fromisoformat(message["since"]) == T0

    await arrive(database, "nas", T0 + 5 * MINUTE)
    await turn(database, T0 + 5 * MINUTE + TURN)
    assert told(await deliver(database, T0 + 6 * MINUTE)) == [("resolved", "nas")]
    assert await states(database) == {}


@pytest.mark.parametrize(("interval_seconds", "after_seconds"), [(60, 180), (5, 90)])
async def test_rarer_heartbeats_are_waited_for_longer(
    database: asyncpg.Connection, interval_seconds: float, after_seconds: int
) -> None:
    await arrive(database, "nas", T0, interval_seconds)
    await listen(database, T0 - HOUR, T0 + HOUR)

    await turn(database, T0 + after_seconds * SECOND)
    assert await states(database) == {}
    await turn(database, T0 + after_seconds * SECOND + TURN)
    assert await states(database) == {("silent", "nas", ""): "firing"}


async def test_a_rule_can_name_the_silence_and_the_servers(database: asyncpg.Connection) -> None:
    await set_rule(database, "silent", "silent", after_seconds=600, scope={"servers": ["web-*"]})
    for server_id in ("web-1", "db"):
        await arrive(database, server_id, T0)
    await listen(database, T0 - HOUR, T0 + HOUR)

    await turn(database, T0 + 10 * MINUTE)
    assert await states(database) == {}
    await turn(database, T0 + 10 * MINUTE + TURN)
    assert await states(database) == {("silent", "web-1", ""): "firing"}


async def test_nobody_is_silent_because_the_service_was_away(database: asyncpg.Connection) -> None:
    """An hour's outage of the service, or of its database: all of a hundred servers are back within the grace."""
    await arrivals(database, T0, 100)
    await turn(database, T0)
    back = T0 + HOUR
    for number in range(100):
        until = back + number * 1.4 * SECOND
        await listen(database, back, until)
        await arrive(database, f"s{number:03}", until)
        if number % 10 == 0:
            await turn(database, until + TURN)

    await listen(database, back, back + GRACE + TURN)
    for number in range(100):
        await arrive(database, f"s{number:03}", back + GRACE)
    await turn(database, back + GRACE + TURN)

    assert await recorded(database) == []
    assert await deliver(database, back + HOUR) == []


async def test_a_server_that_died_meanwhile_is_one_message_that_names_the_absence(database: asyncpg.Connection) -> None:
    await arrivals(database, T0, 10)
    await arrive(database, "dead", T0 - 20 * SECOND)
    back = T0 + HOUR
    for number in range(10):
        await arrive(database, f"s{number:03}", back + 40 * SECOND)
    await listen(database, back, back + GRACE + 3 * TURN)
    for number in range(10):
        await arrive(database, f"s{number:03}", back + GRACE)

    await turns(database, back + TURN, back + GRACE - TURN)
    assert await recorded(database) == []
    await turns(database, back + GRACE, back + GRACE + 2 * TURN)

    (message,) = await deliver(database, back + GRACE + 2 * TURN)
    assert (message["server_id"], datetime.fromisoformat(message["since"])) == ("dead", T0 - 20 * SECOND)
    assert message["reason"] == f"silent; the service was away from {T0:%F %T} to {back:%F %T} UTC"


async def test_short_pauses_of_the_ledger_and_other_processes_leave_it_open(database: asyncpg.Connection) -> None:
    await arrive(database, "nas", T0)
    await listen(database, T0, T0 + 20 * SECOND)
    await listen(database, T0 + 30 * SECOND, T0 + 60 * SECOND, "other")
    await listen(database, T0 + 50 * SECOND, T0 + 100 * SECOND)

    await turn(database, T0 + 105 * SECOND)

    assert await states(database) == {("silent", "nas", ""): "firing"}


async def test_a_process_extends_its_entry_and_begins_another_after_a_pause(database: asyncpg.Connection) -> None:
    for seconds in (0, 5, 10, 40, 45):
        await database.execute("SELECT linkbeat.listen('p', $1)", T0 + seconds * SECOND)

    rows = await database.fetch("SELECT since, until FROM linkbeat.listening WHERE process = 'p' ORDER BY since")
    assert [tuple(row) for row in rows] == [(T0, T0 + 10 * SECOND), (T0 + 40 * SECOND, T0 + 45 * SECOND)]


async def test_most_of_a_fleet_is_one_message_and_the_others_follow_after_ten_minutes(
    database: asyncpg.Connection,
) -> None:
    await arrivals(database, T0, 52)
    await arrive(database, "long-gone", T0 - 2 * HOUR)
    await listen(database, T0 - HOUR, T0 + HOUR)
    await turn(database, T0)
    assert told(await deliver(database, T0 + 14 * SECOND)) == [("firing", "long-gone")]

    payloads = []
    for seconds in range(15, 10 * 60, 15):
        await turn(database, T0 + seconds * SECOND)
        payloads += await deliver(database, T0 + seconds * SECOND + 14 * SECOND)
    # The message is written as soon as it is clear; the last of them have reported 30 seconds later than the first.
    (fleet,) = payloads
    assert (fleet["state"], fleet["subject"]) == ("firing", "fleet")
    assert fleet["reason"].endswith(" UTC: network, proxy or certificate in front of the service?")
    assert 26 < fleet["value"] <= 52

    await turns(database, T0 + 10 * MINUTE, T0 + 13 * MINUTE, MINUTE)
    (singles,) = await deliver(database, T0 + 14 * MINUTE)
    assert singles["count"] == 52
    assert len(singles["alerts"]) == 20

    for number in range(52):
        await arrive(database, f"s{number:03}", T0 + 15 * MINUTE)
    await turn(database, T0 + 15 * MINUTE + TURN)
    states_told = {state for state, _ in told(await deliver(database, T0 + 16 * MINUTE))}
    assert states_told == {"resolved"}


async def test_servers_that_come_back_within_ten_minutes_are_told_together_alone(database: asyncpg.Connection) -> None:
    await arrivals(database, T0, 20)
    await listen(database, T0 - HOUR, T0 + HOUR)
    await turns(database, T0, T0 + 3 * MINUTE)
    for number in range(20):
        await arrive(database, f"s{number:03}", T0 + 4 * MINUTE)

    await turn(database, T0 + 4 * MINUTE + TURN)

    payloads = await deliver(database, T0 + 5 * MINUTE)
    assert [(payload["state"], payload["subject"]) for payload in payloads] == [
        ("firing", "fleet"),
        ("resolved", "fleet"),
    ]


async def test_five_of_many_are_told_one_by_one(database: asyncpg.Connection) -> None:
    await arrivals(database, T0, 5)
    await listen(database, T0 - HOUR, T0 + HOUR)
    for number in range(5, 20):
        await arrive(database, f"s{number:03}", T0 + 2 * MINUTE)

    await turn(database, T0 + 2 * MINUTE)

    (message,) = await deliver(database, T0 + 3 * MINUTE)
    assert message["count"] == 5


async def test_silence_holds_the_other_alerts_of_a_server_and_their_messages(database: asyncpg.Connection) -> None:
    """A17: held while the server is silent, and resolved once, after its return."""
    rule: dict[str, Any] = {"above_bps": 90 * MEGABIT, "window_seconds": 60, "keep_seconds": 60}
    await set_rule(database, "busy", "rate", **rule)
    await listen(database, T0 - HOUR, T0 + 3 * HOUR)
    await store(database, samples(T0, [95.0 * MEGABIT] * 10))
    dies = T0 + 9 * 30 * SECOND
    await turns(database, T0, dies + TURN)
    assert told(await deliver(database, dies + MINUTE)) == [("firing", "nas eth0")]

    await turns(database, dies + 2 * MINUTE, dies + 50 * MINUTE, 5 * MINUTE)
    assert await database.fetchval("SELECT held FROM public.alerts WHERE rule_id = 'busy'")
    assert told(await deliver(database, dies + 55 * MINUTE)) == [("firing", "nas")]

    quiet = samples(dies + HOUR, [5.0 * MEGABIT] * 10)
    quiet[0].elapsed_seconds, quiet[0].delta_kind = 3600, "gap"
    await store(database, quiet)
    await turns(database, dies + HOUR + TURN, dies + HOUR + 5 * MINUTE)

    ended = told(await deliver(database, dies + 2 * HOUR))
    assert sorted(ended) == [("resolved", "nas"), ("resolved", "nas eth0")]
    (episode,) = await recorded(database, "busy")
    assert episode.resolved_at == dies + HOUR + MINUTE
    assert await backtest(database, "rate", T0, dies + 2 * HOUR, **rule) == [episode]


async def test_what_fires_on_a_silent_server_is_told_when_it_is_back(database: asyncpg.Connection) -> None:
    await set_rule(database, "agent", "agent", keep_seconds=0)
    await arrive(database, "nas", T0, agent_report='{"spool": "memory"}')
    await listen(database, T0 - HOUR, T0 + HOUR)
    await set_rule(database, "agent", "agent", keep_seconds=0, for_seconds=120)
    await turns(database, T0 + TURN, T0 + 5 * MINUTE)
    assert await states(database) == {("agent", "nas", ""): "firing", ("silent", "nas", ""): "firing"}
    assert told(await deliver(database, T0 + 6 * MINUTE)) == [("firing", "nas")]

    await arrive(database, "nas", T0 + 7 * MINUTE)
    await turn(database, T0 + 7 * MINUTE + TURN)

    assert sorted(told(await deliver(database, T0 + 8 * MINUTE))) == [("firing", "nas"), ("resolved", "nas")]


async def test_the_backtest_of_silence_is_what_turns_recorded(database: asyncpg.Connection) -> None:
    """To a turn: rows tell when heartbeats were sent, and turns look every 15 seconds."""
    beats = [T0 + seconds * SECOND for seconds in (*range(0, 300, 30), *range(700, 900, 30), *range(1_500, 3_700, 30))]
    ledger = [(T0 - MINUTE, T0 + 1_000 * SECOND), (T0 + 1_300 * SECOND, T0 + 4_000 * SECOND)]
    for since, until in ledger:
        await database.execute("DELETE FROM linkbeat.listening WHERE process = 'service'")
        await listen(database, since, until, f"p{since}")
    at = T0
    while at < T0 + HOUR:
        for beat in [beat for beat in beats if at - TURN < beat <= at]:
            await store(database, samples(beat, [0.0]))
        await turn(database, at)
        at += TURN

    did, said = await recorded(database), await backtest(database, "silent", T0, at, keep_seconds=0)

    assert len(did) == len(said) == 2
    for one, other in zip(did, said, strict=True):
        assert one.active_at == other.active_at
        assert abs(one.fired_at - other.fired_at) <= TURN
        assert one.resolved_at is not None
        assert other.resolved_at is not None
        assert abs(one.resolved_at - other.resolved_at) <= TURN
