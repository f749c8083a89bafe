"""Hosts with thousands of interfaces: what they cost grows linearly, and what is remembered of them has a bound."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from service.ingest.batch import CALL, Pending, arguments
from service.ingest.heartbeat import decode_heartbeat
from service.wire import MAX_INTERFACES
from tests.helpers.support import boot_id, connected, deltas, differing_rows, heartbeat, hours_ago, interface

T0 = hours_ago(2)
MAX_REMEMBERED = 2 * MAX_INTERFACES
FEW, MANY = 250, 2_000
# Of eight times the interfaces, linear work takes eight times as long, quadratic work 64 times.
MOST_TIMES_AS_LONG = 20
_SPENT = re.compile(r"([\d.]+) s (?:user|system)")  # of log_statement_stats


def beat(minutes: float, names: list[str], octets: int, server_id: str = "nas") -> dict[str, Any]:
    body = heartbeat(server_id, at=T0 + timedelta(minutes=minutes), boot=boot_id("a"))
    body["network_interfaces"] = [interface(name, octets, octets // 2) for name in names]
    return body


def named(prefix: str, count: int = MAX_INTERFACES) -> list[str]:
    return [f"{prefix}-{n}" for n in range(count)]


async def stored(connection: asyncpg.Connection, body: dict[str, Any]) -> None:
    """Stores the heartbeat as the service does, in whatever time a busy machine takes."""
    heard = decode_heartbeat(msgspec.json.encode(body), now=datetime.now(UTC), oldest=timedelta(days=7))
    assert heard.timestamp is not None
    pending = Pending(heard, heard.timestamp, 0.0, asyncio.get_running_loop().create_future())
    await connection.fetchrow(CALL, *arguments([pending], may_register=True, series_budget=200, fold_seconds=3600))


async def remembered(database: asyncpg.Connection) -> list[str]:
    row = await database.fetchrow(
        "SELECT interface_names, ARRAY(SELECT (i).interface_name FROM unnest(interfaces) AS i) AS of_states "
        "FROM servers"
    )
    assert row is not None
    assert row["interface_names"] == row["of_states"]
    return list(row["interface_names"])


async def test_of_names_that_change_with_every_heartbeat_the_newest_are_remembered(
    database: asyncpg.Connection,
) -> None:
    assert await database.fetchval("SELECT linkbeat.max_remembered()") == MAX_REMEMBERED
    for minute in range(4):
        await stored(database, beat(minute, named(f"if{minute}"), 1_000))
        assert len(await remembered(database)) <= MAX_REMEMBERED

    assert set(await remembered(database)) == {*named("if3"), *named("if2")}
    samples = "SELECT count(*) FROM network_interface_metrics WHERE delta_kind <> 'folded'"
    assert await database.fetchval(samples) == 4 * MAX_INTERFACES


async def test_an_interface_that_was_forgotten_counts_on_from_its_history(database: asyncpg.Connection) -> None:
    await stored(database, beat(0, ["eth0", "eth1"], 1_000))
    for minute in range(1, 4):
        await stored(database, beat(minute, named(f"if{minute}"), 1_000))
    assert "eth0" not in await remembered(database)

    await stored(database, beat(4, ["eth0", *named("if3", 10)], 1_700))

    assert await deltas(database, name="eth0") == [(0, "first"), (700, "gap")]
    assert await deltas(database, name="if3-0") == [(0, "first"), (700, "normal")]
    assert (await remembered(database))[:2] == ["eth0", "if3-0"]
    assert await differing_rows(database) == dict.fromkeys(await differing_rows(database), 0)


async def test_late_heartbeats_of_other_names_do_not_grow_what_is_remembered(database: asyncpg.Connection) -> None:
    await stored(database, beat(60, ["eth0", "eth1"], 1_000))
    for minute in range(3):
        await stored(database, beat(minute, [*named(f"late{minute}", MAX_INTERFACES - 1), "eth0"], 400 + minute))

    names = await remembered(database)
    assert len(names) == MAX_REMEMBERED
    assert {"eth0", "eth1", *named("late2", MAX_INTERFACES - 1)} < set(names)
    assert await deltas(database) == [(0, "first"), (1, "normal"), (1, "normal"), (598, "gap")]


async def test_thousands_of_late_samples_are_counted_and_their_kinds_summed(database: asyncpg.Connection) -> None:
    """Past the budget of series they are folded: their rows change, and the sum over them is written once."""
    names = named("if", 1_000)
    await stored(database, beat(0, names, 1_000))
    await stored(database, beat(2, names, 3_000))
    await stored(database, beat(1, names, 1_500))

    rows = await database.fetch(
        "SELECT time, count(*) AS samples, sum(rx_bytes_delta) AS rx FROM network_interface_metrics "
        "WHERE delta_kind <> 'folded' GROUP BY 1 ORDER BY 1"
    )
    assert [(row["samples"], row["rx"]) for row in rows] == [(1_000, 0), (1_000, 500_000), (1_000, 1_500_000)]
    sums = await database.fetch(
        "SELECT s.rx_bytes_delta, (SELECT sum(rx_bytes_delta) FROM network_interface_metrics m "
        "WHERE m.time = s.time AND m.is_folded) AS rx FROM network_interface_metrics s WHERE delta_kind = 'folded'"
    )
    assert len(sums) == 3
    assert all(row["rx_bytes_delta"] == row["rx"] for row in sums)
    assert sum(row["rx"] for row in sums) > 0


def _new_names(server_id: str, count: int, round_: int) -> dict[str, Any]:
    return beat(round_, named(f"if{round_}", count), 1_000, server_id)


def _same_names(server_id: str, count: int, round_: int) -> dict[str, Any]:
    return beat(round_, named("if", count), 1_000 * (round_ + 1), server_id)


def _late(server_id: str, count: int, round_: int) -> dict[str, Any]:
    """The first is in order; each of the others is older than what is stored."""
    return beat(60 - round_, named("if", count), 100_000 - 1_000 * round_, server_id)


def _late_new_names(server_id: str, count: int, round_: int) -> dict[str, Any]:
    return beat(60 - round_, named(f"if{round_}", count), 1_000, server_id)


@pytest.mark.parametrize("rounds", [_new_names, _same_names, _late, _late_new_names])
async def test_time_grows_linearly_with_the_interfaces_of_a_heartbeat(
    database_url: str, rounds: Callable[[str, int, int], dict[str, Any]]
) -> None:
    """By the processor's time, which a busy machine changes little, and the best of several rounds."""
    best: dict[int, float] = {}
    told: list[str] = []
    async with connected(database_url, log_statement_stats="on", client_min_messages="log") as connection:
        connection.add_log_listener(lambda _, message: told.append(message.detail or ""))
        for count in (FEW, MANY):
            spent = []
            for round_ in range(5):
                told.clear()
                await stored(connection, rounds(f"host-{count}", count, round_))
                spent.append(
                    sum(float(found) for detail in told for found in _SPENT.findall(detail.split("\n!\t[")[0]))
                )
            best[count] = min(spent[1:])

    assert 0 < best[MANY] < MOST_TIMES_AS_LONG * best[FEW], best
