"""The outbox: one message for many alerts, at least once, in order, and what is told instead of what never arrived."""

import asyncio
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.helpers.alerts import (
    MEGABIT,
    MINUTE,
    SECOND,
    TURN,
    arrive,
    begin,
    claim,
    deliver,
    recorded,
    samples,
    set_channel,
    set_rule,
    store,
    told,
    turn,
    turns,
)
from tests.helpers.support import connected, hours_ago

T0 = hours_ago(6)
HOUR = timedelta(hours=1)
BUSY, QUIET = 95.0 * MEGABIT, 5.0 * MEGABIT
RULE: dict[str, Any] = {"above_bps": 90 * MEGABIT, "window_seconds": 30, "keep_seconds": 0}


@pytest.fixture(autouse=True)
async def _begun(database: asyncpg.Connection) -> None:
    await begin(database, T0)
    await set_rule(database, "busy", "rate", **RULE)
    await set_channel(database)


async def failed(
    database: asyncpg.Connection, message_id: UUID, at: Any, status: int | None = 500, retry_after: float | None = None
) -> Any:
    return await database.fetchval(
        "SELECT linkbeat.message_failed($1, $2, 'refused', $3, $4)", message_id, status, retry_after, at
    )


async def fire(database: asyncpg.Connection, **more: Any) -> Any:
    """An alert that fires in this turn, whose moment is returned."""
    await store(database, samples(T0, [BUSY] * 4, **more))
    at = T0 + 2 * MINUTE
    await turn(database, at)
    return at


async def end(database: asyncpg.Connection, **more: Any) -> Any:
    """And ends in this one."""
    await store(database, samples(T0 + 2 * MINUTE, [QUIET] * 4, **more))
    at = T0 + 4 * MINUTE
    await turn(database, at)
    return at


async def test_a_message_has_what_a_receiver_needs(database: asyncpg.Connection) -> None:
    at = await fire(database)

    (payload,) = await deliver(database, at + 10 * SECOND)

    (episode,) = await recorded(database)
    assert payload | {"message_id": ""} == {
        "id": f"{payload['episode']}.1", "episode": payload["episode"], "message_id": "", "state": "firing",
        "rule": "busy",
        "severity": "warning", "server_id": "nas", "subject": "eth0", "value": pytest.approx(BUSY, rel=1e-6),
        "peak": pytest.approx(BUSY, rel=1e-6), "since": episode.active_at.isoformat(), "until": None,
        "reason": None, "count": 1, "note": None, "runbook": None,
    }  # fmt: skip


async def test_a_message_has_the_note_and_the_runbook_of_its_rule(database: asyncpg.Connection) -> None:
    await set_rule(database, "busy", "rate", **RULE, note="Call Ä" + "x" * 600, runbook="https://wiki.example.net/busy")
    at = await fire(database)
    (payload,) = await deliver(database, at + 10 * SECOND)
    assert (payload["note"], payload["runbook"]) == ("Call Ä" + "x" * 494, "https://wiki.example.net/busy")
    (standing,) = await database.fetch("SELECT * FROM linkbeat.standing_alerts('ops', '15 minutes', $1) AS shown", at)
    assert json.loads(standing["shown"])["runbook"] == "https://wiki.example.net/busy"

    await database.execute("SELECT linkbeat.delete_alert_rule('busy')")
    await turn(database, at + MINUTE)
    (payload,) = await deliver(database, at + 2 * MINUTE)
    assert (payload["state"], payload["note"], payload["runbook"]) == ("closed", None, None)


async def test_a_long_note_leaves_a_message_bounded(database: asyncpg.Connection) -> None:
    note, runbook = '"\\' * 2_000, "https://wiki.example.net/" + "x" * 1_900
    await set_rule(database, "busy", "rate", **RULE, note=note, runbook=runbook)
    await store(database, [row for n in range(30) for row in samples(T0, [BUSY] * 4, server_id=f"s{n:02}")])
    await turn(database, T0 + 2 * MINUTE)

    (message,) = await claim(database, T0 + 3 * MINUTE)

    assert message["payload"]["count"] == 30
    assert {alert["runbook"] for alert in message["payload"]["alerts"]} == {runbook}
    assert len(json.dumps(message["payload"], ensure_ascii=False).encode()) <= 16 << 10


async def test_a_second_turn_joins_within_ten_seconds_and_not_after(database: asyncpg.Connection) -> None:
    await store(database, [row for n in range(3) for row in samples(T0 + n * 15 * SECOND, [BUSY], server_id=f"s{n}")])
    await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = $1", T0)

    every = timedelta(seconds=8)
    for seconds in (16, 24, 32, 48):
        await database.execute("SELECT linkbeat.evaluate_alerts($1, $2)", T0 + seconds * SECOND, every)

    counts = await database.fetch("SELECT alerts FROM public.alert_messages ORDER BY created_at")
    assert [row["alerts"] for row in counts] == [1, 1, 1]

    await database.execute("DELETE FROM linkbeat.outbox")
    await store(database, samples(T0 + 50 * SECOND, [BUSY], server_id="s8"))
    await store(database, samples(T0 + 60 * SECOND, [BUSY], server_id="s9"))
    for seconds in (66, 75):
        await database.execute("SELECT linkbeat.evaluate_alerts($1, $2)", T0 + seconds * SECOND, every)
    assert await database.fetchval("SELECT array_agg(alerts) FROM public.alert_messages") == [2]


async def test_many_alerts_of_a_turn_are_one_message_of_a_bounded_size(database: asyncpg.Connection) -> None:
    """1,000 of them, with names as long as they can be."""
    long = "é" * 250
    await database.execute(
        "INSERT INTO linkbeat.alerts (rule_id, server_id, subject, state, active_at, fired_at, seen_at, episode, "
        "severity, sequence, reason) SELECT 'busy', 'server-' || n, $2 || n, 'firing', $1, $1, $1, gen_random_uuid(), "
        "'warning', 1, "
        "repeat($2, 3) FROM generate_series(1, 1000) AS n",
        T0,
        long,
    )
    await database.execute("SELECT linkbeat.tell_alerts($1)", T0)

    (message,) = await claim(database, T0 + 10 * SECOND)

    payload = message["payload"]
    assert payload["count"] == 1_000
    assert payload["counts"] == {"firing": 1_000}
    assert 1 <= len(payload["alerts"]) <= 20
    assert len(json.dumps(payload, ensure_ascii=False).encode()) <= 16 << 10


async def test_the_most_severe_stand_first(database: asyncpg.Connection) -> None:
    await set_rule(database, "grave", "rate", severity="critical", **RULE, scope={"servers": ["s29"]})
    await store(database, [row for n in range(30) for row in samples(T0, [BUSY] * 4, server_id=f"s{n:02}")])
    await turn(database, T0 + 2 * MINUTE)

    (payload,) = await deliver(database, T0 + 3 * MINUTE)

    assert (payload["rule"], payload["server_id"], payload["count"]) == ("grave", "s29", 31)
    assert [(alert["rule"], alert["server_id"]) for alert in payload["alerts"][:2]] == [
        ("grave", "s29"),
        ("busy", "s00"),
    ]
    assert len(payload["alerts"]) == 20


async def test_a_lease_that_runs_out_has_the_same_message_sent_again(database: asyncpg.Connection) -> None:
    at = await fire(database) + 10 * SECOND

    (first,) = await claim(database, at)
    assert await claim(database, at + 59 * SECOND) == []
    (second,) = await claim(database, at + 60 * SECOND)

    assert second == first | {"attempts": 2}
    assert await database.fetchval("SELECT linkbeat.message_delivered($1, 200)", first["message_id"])
    assert not await database.fetchval("SELECT linkbeat.message_delivered($1, 200)", first["message_id"])
    assert await claim(database, at + HOUR) == []


async def test_processes_that_claim_at_once_never_get_the_same_message(
    database: asyncpg.Connection, database_url: str
) -> None:
    for number in range(6):
        await set_channel(database, f"c{number}")
    at = await fire(database) + 10 * SECOND

    async def one() -> list[UUID]:
        async with connected(database_url) as connection:
            return [
                row["message_id"] for row in await connection.fetch("SELECT * FROM linkbeat.claim_messages(8, $1)", at)
            ]

    claimed = [message for messages in await asyncio.gather(*(one() for _ in range(4))) for message in messages]
    claimed += [row["message_id"] for row in await database.fetch("SELECT * FROM linkbeat.claim_messages(8, $1)", at)]

    assert len(claimed) == len(set(claimed)) == 7


async def test_the_end_waits_for_a_firing_that_is_being_sent(database: asyncpg.Connection) -> None:
    at = await fire(database) + 10 * SECOND
    (firing,) = await claim(database, at)
    at = await end(database) + 10 * SECOND
    await database.execute(
        "UPDATE linkbeat.outbox SET lease_until = $1 WHERE message_id = $2", at + HOUR, firing["message_id"]
    )

    assert await claim(database, at) == []

    await database.execute("SELECT linkbeat.message_delivered($1, 200, $2)", firing["message_id"], at)
    assert told(await deliver(database, at)) == [("resolved", "nas eth0")]


async def test_what_is_over_before_anybody_could_be_told_is_one_message(database: asyncpg.Connection) -> None:
    """The receiver was away meanwhile: both times, and no end of what it never heard of."""
    at = await fire(database) + 10 * SECOND
    (attempted,) = await claim(database, at)
    await failed(database, attempted["message_id"], at)
    at = await end(database) + 10 * SECOND

    (payload,) = await deliver(database, at + HOUR)

    (episode,) = await recorded(database)
    assert (payload["state"], payload["was_untold"], payload["count"]) == ("resolved", True, 1)
    assert (payload["since"], payload["until"]) == (episode.active_at.isoformat(), episode.cleared_at.isoformat())  # type: ignore[union-attr]
    # It says something else than what may have been received: it has another id.
    assert payload["message_id"] != str(attempted["message_id"])
    assert payload["id"] != attempted["payload"]["id"]


async def test_of_a_message_of_many_only_what_is_over_changes(database: asyncpg.Connection) -> None:
    await store(database, samples(T0, [BUSY] * 4, server_id="pi"))
    at = await fire(database) + 10 * SECOND
    (attempted,) = await claim(database, at)
    await failed(database, attempted["message_id"], at)
    at = await end(database) + 10 * SECOND

    (payload,) = await deliver(database, at + HOUR)

    assert sorted(told([payload])) == [("firing", "pi eth0"), ("resolved", "nas eth0")]
    assert payload["counts"] == {"firing": 1, "resolved": 1}


async def test_what_is_refused_for_an_hour_is_tried_less_and_less_often(database: asyncpg.Connection) -> None:
    """At most 15 times, and delivered at most 15 minutes after the receiver is back."""
    for number in range(5):
        await set_channel(database, f"c{number}")
    began = await fire(database) + 10 * SECOND
    attempts: dict[str, list[Any]] = {}
    at = began
    while len(attempts) < 6 or any(times[-1] < began + HOUR for times in attempts.values()):
        for message in await claim(database, at):
            times = attempts.setdefault(message["channel_id"], [])
            times.append(at)
            if at >= began + HOUR:
                await database.execute("SELECT linkbeat.message_delivered($1, 200, $2)", message["message_id"], at)
            else:
                await failed(database, message["message_id"], at)
        at = max(
            at,
            await database.fetchval("SELECT min(next_attempt_at) FROM linkbeat.outbox WHERE delivered_at IS NULL")
            or at,
        )

    for times in attempts.values():
        assert len(times) <= 16  # the last one is the delivery
        assert times[-1] <= began + HOUR + 15 * MINUTE
        for number, (one, other) in enumerate(pairwise(times)):
            longest = min(5 * 2**number, 900)
            assert longest / 2 <= (other - one).total_seconds() <= longest


async def test_a_receiver_says_when_to_come_again(database: asyncpg.Connection) -> None:
    at = await fire(database) + 10 * SECOND
    (message,) = await claim(database, at)

    due = await failed(database, message["message_id"], at, 429, retry_after=1_800)

    assert due == at + 1_800 * SECOND


@pytest.mark.parametrize(("status", "attempts"), [(404, 3), (410, 3), (400, 3)])
async def test_a_request_that_is_wrong_is_tried_three_times_and_another_channel_is_told(
    database: asyncpg.Connection, status: int, attempts: int
) -> None:
    at = await fire(database) + 10 * SECOND
    await set_channel(database, "mail")
    for _ in range(attempts):
        (message,) = await claim(database, at)
        assert message["channel_id"] == "ops"
        await failed(database, message["message_id"], at, status)
        at += HOUR

    row = await database.fetchrow(
        "SELECT state, last_status, attempts FROM public.alert_messages WHERE channel_id = 'ops'"
    )
    assert row is not None
    assert tuple(row) == ("dead", status, attempts)
    (letter,) = await claim(database, at)
    assert (letter["channel_id"], letter["kind"], letter["payload"]["state"]) == ("mail", "dead_letter", "undelivered")
    assert letter["payload"]["undelivered"]["server_id"] == "nas"


@pytest.mark.parametrize("status", [500, 502, 408, 425, 429, None])
async def test_what_may_pass_is_tried_for_72_hours(database: asyncpg.Connection, status: int | None) -> None:
    at = await fire(database)
    await set_channel(database, "mail")

    for hours in (1, 20, 40, 60, 71, 73):
        (message,) = await claim(database, at + hours * HOUR)
        due = await failed(database, message["message_id"], at + hours * HOUR, status)
        assert (due is None) is (hours == 73)

    (letter,) = await claim(database, at + 74 * HOUR)
    assert letter["channel_id"] == "mail"
    # Its own failure is told nobody.
    await database.execute("UPDATE linkbeat.outbox SET attempts = 3 WHERE message_id = $1", letter["message_id"])
    assert await failed(database, letter["message_id"], at + 75 * HOUR, 404) is None
    assert await claim(database, at + 80 * HOUR) == []


async def test_channels_choose_by_severity_and_by_rule(database: asyncpg.Connection) -> None:
    await set_channel(database, "grave", min_severity="critical")
    await set_channel(database, "off", enabled=False)
    await set_channel(database, "firing-only", sends_resolved=False)
    await set_channel(database, "other")
    await set_rule(database, "busy", "rate", **RULE, channels=["ops", "grave", "firing-only", "off"])
    await fire(database)
    await end(database)

    messages = await database.fetch(
        "SELECT channel_id FROM linkbeat.outbox JOIN linkbeat.outbox_items USING (message_id)"
    )

    assert sorted(row["channel_id"] for row in messages) == ["firing-only", "ops", "ops"]


async def test_a_digest_gathers_for_as_long_as_the_channel_says(database: asyncpg.Connection) -> None:
    await set_channel(database, digest=HOUR)
    await fire(database)
    await store(database, samples(T0 + 20 * MINUTE, [BUSY] * 4, server_id="pi"))
    await turns(database, T0 + 20 * MINUTE, T0 + 22 * MINUTE, MINUTE)

    assert await claim(database, T0 + HOUR) == []
    (payload,) = await deliver(database, T0 + HOUR + 2 * MINUTE)
    assert payload["count"] == 2


async def test_without_a_channel_nobody_is_told_until_there_is_one(database: asyncpg.Connection) -> None:
    await database.execute("SELECT linkbeat.delete_alert_channel('ops')")
    at = await fire(database)
    assert await database.fetchval("SELECT told_at IS NULL FROM public.alerts")

    await set_channel(database, "new")
    await turn(database, at + TURN)

    assert told(await deliver(database, at + MINUTE)) == [("firing", "nas eth0")]


async def test_an_alert_is_repeated_until_it_is_acknowledged(database: asyncpg.Connection) -> None:
    await set_rule(database, "busy", "rate", **RULE, repeat_seconds=600)
    await store(database, samples(T0, [BUSY] * 120))
    await turns(database, T0, T0 + 25 * MINUTE, MINUTE)

    payloads = await deliver(database, T0 + 26 * MINUTE)
    assert [payload.get("is_repeated", False) for payload in payloads] == [False, True, True]
    assert [payload["id"].partition(".")[2] for payload in payloads] == ["1", "2", "3"]

    assert await database.fetchval("SELECT linkbeat.acknowledge_alert($1, 'anna')", UUID(payloads[0]["episode"]))
    await turns(database, T0 + 26 * MINUTE, T0 + 45 * MINUTE, MINUTE)
    assert await deliver(database, T0 + 46 * MINUTE) == []


async def test_a_third_episode_within_an_hour_is_flapping_and_the_next_are_told_by_their_ends(
    database: asyncpg.Connection,
) -> None:
    await store(database, samples(T0, ([BUSY] * 4 + [QUIET] * 4) * 5))

    payloads = []
    for minutes in range(22):
        await turn(database, T0 + minutes * MINUTE)
        payloads += await deliver(database, T0 + minutes * MINUTE + 50 * SECOND)

    assert len(await recorded(database)) == 5
    assert [(payload["state"], payload.get("is_flapping", False)) for payload in payloads] == [
        ("firing", False), ("resolved", False), ("firing", False), ("resolved", False), ("firing", True),
        ("resolved", False),
        ("resolved", False), ("resolved", False),
    ]  # fmt: skip


async def test_ten_thousand_interfaces_are_one_message(database: asyncpg.Connection) -> None:
    """A23; how long a turn takes, benchmarks/alerts.py measures."""
    await database.execute(
        "INSERT INTO network_interface_metrics (time, server_id, interface_name, rx_bytes, tx_bytes, rx_packets, "
        "tx_packets, rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, elapsed_ms, is_up, "
        "counts_64bit, delta_kind) "
        "SELECT $1::timestamptz + n * INTERVAL '30 s', 's' || s, 'eth' || i, 0, 0, 0, 0, 375000000, 0, 0, 0, 30000, "
        "true, true, 'normal' "
        "FROM generate_series(0, 2) AS n, generate_series(1, 100) AS s, generate_series(1, 100) AS i",
        T0,
    )
    for number in range(1, 101):
        await arrive(database, f"s{number}", T0 + MINUTE)

    await turn(database, T0 + MINUTE + TURN)

    assert await database.fetchval("SELECT count(*) FROM public.alerts WHERE state = 'firing'") == 10_000
    (payload,) = await deliver(database, T0 + 2 * MINUTE)
    assert payload["count"] == 10_000
    assert len(json.dumps(payload).encode()) <= 16 << 10
