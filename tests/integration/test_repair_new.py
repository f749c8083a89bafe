"""linkbeat.repair_new: late rows and glitches, settled by one statement for a batch."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from service.ingest.batch import CALL, Pending, arguments
from service.ingest.heartbeat import decode_heartbeat
from tests.helpers.evidence import COUNTERS, Reading, changed, lowered, restarted, steady
from tests.helpers.support import boot_id, deltas, differing_rows

SERIES = 400
YEAR = timedelta(days=365)


async def test_late_heartbeats_and_glitches_are_not_judged_row_by_row(database: asyncpg.Connection) -> None:
    readings = steady(12)
    cases = {
        "late": [*readings[:4], readings[6], readings[4], readings[5], *readings[7:]],
        "glitch": lowered(readings, 5, share=0.0),
        "half": lowered(readings, 5, share=0.2, only=("rx_bytes", "rx_packets")),
        "faults": lowered(_with_faults(readings), 5, share=0.0),
        "two": lowered(readings, 5, 9, share=0.1),
    }
    await database.execute("SET track_functions = 'pl'")

    await _ingest(database, cases)

    assert await _calls(database, "repair_series") == 0
    steady_rows = [(0, "first"), *[(readings[1].rx_bytes - readings[0].rx_bytes, "normal")] * 11]
    assert await deltas(database, "late") == steady_rows
    for name, wrong in (("glitch", (5,)), ("half", (5,)), ("faults", (5,)), ("two", (5, 9))):
        assert await deltas(database, name) == _around(steady_rows, *wrong), name
    assert await _as_judged_row_by_row(database) == []
    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}


async def test_what_is_not_beyond_doubt_is_judged_row_by_row(database: asyncpg.Connection) -> None:
    readings = steady(12)
    late = [*range(6), 7, 6, *range(8, 12)]
    cases = {
        "began-again-late": [restarted(readings, 6)[n] for n in late],
        "late-dip": [lowered(readings, 6, share=0.995)[n] for n in late],
        "late-of-another-boot": [changed(restarted(readings, 7), *range(7, 12), boot=boot_id("b"))[n] for n in late],
        "late-with-more-than-the-next": [changed(readings, 6, rx_bytes=readings[9].rx_bytes)[n] for n in late],
        "slid": [changed(readings, *range(6, 12), boot="1764500000")[n] for n in late],
        "two-low-readings": lowered(readings, 5, 6, share=0.0),
        "passed-by": [*readings[:5], *restarted(steady(12, start=1_000), 5)[5:]],
        "back-with-a-burst": changed(lowered(readings, 5, share=0.0), 6, rx_bytes=3 * readings[6].rx_bytes),
        "one-stays": changed(lowered(readings, 5, share=0.0), *range(6, 12), tx_packets=7),
    }

    await _ingest(database, cases)

    assert await _as_judged_row_by_row(database) == []
    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}


async def test_of_many_interfaces_and_of_some_that_are_gone_the_newest_states_are_those_of_their_rows(
    database: asyncpg.Connection,
) -> None:
    """A late row changes the state of the newest; a glitch is marked whatever the number of its siblings."""
    readings = steady(8)
    late = [*readings[:4], readings[5], readings[4], *readings[6:]]
    cases = {"few": 3, "many": 70}
    bodies = {
        server_id: [_with_interfaces(reading.body(server_id), count) for reading in lowered(late, 6, share=0.0)]
        for server_id, count in cases.items()
    }
    for server_id in cases:
        # The newest two heartbeats before the late one name an interface less, which the late one has.
        for body in bodies[server_id][3:5]:
            del body["network_interfaces"][1]
    await database.execute("SET track_functions = 'pl'")

    await _store(database, bodies)

    kinds = await database.fetch(
        """SELECT server_id, interface_name, array_agg(delta_kind ORDER BY time) AS kinds
           FROM network_interface_metrics GROUP BY 1, 2"""
    )
    assert {tuple(row["kinds"]) for row in kinds if row["interface_name"] != "eth1"} == {
        ("first", *["normal"] * 5, "glitch", "normal")
    }
    assert len(kinds) == sum(cases.values())
    assert await _as_judged_row_by_row(database) == []
    assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}


async def test_in_any_order_rows_are_as_judged_row_by_row(database: asyncpg.Connection) -> None:
    """Histories whose events are next to each other, so that each condition of the statements is met by some."""
    seed = random.randrange(10**9)
    rng = random.Random(seed)

    await _ingest(database, {f"s{number:03}": _arrived(rng) for number in range(SERIES)})

    assert await _as_judged_row_by_row(database) == [], f"seed {seed}"
    kinds = {row[0] for row in await database.fetch("SELECT DISTINCT delta_kind FROM network_interface_metrics")}
    assert {"normal", "gap", "glitch", "reset", "dip"} <= kinds


def _arrived(rng: random.Random) -> list[Reading]:
    readings = steady(10, start=rng.choice([10**6, 3 * 10**9, 10**12]), packet=rng.choice([1_000, 1_000, None]))
    if rng.random() < 0.3:
        readings = _with_faults(readings)
    for _ in range(rng.randint(0, 3)):
        readings = _with_an_event(rng, readings, rng.randrange(1, 10))
        # Of two restarts, the second one counted from a reading before the first.
        readings = [replace(one, **{name: max(0, getattr(one, name)) for name in COUNTERS}) for one in readings]
    order = list(range(10))
    if rng.random() < 0.3:
        rng.shuffle(order)
    for _ in range(rng.randint(0, 3)):
        place = rng.randrange(9)
        order[place], order[place + 1] = order[place + 1], order[place]
    return [readings[n] for n in order]


def _with_an_event(rng: random.Random, readings: list[Reading], place: int) -> list[Reading]:
    rest = range(place, len(readings))
    match rng.choice(["glitch", "glitch", "part", "restart", "restart", "burst", "gap", "speed"]):
        case "glitch":
            return lowered(readings, place, share=rng.choice([0, 0, 0.3, 0.6, 0.995]))
        case "part":
            return lowered(readings, place, share=0, only=rng.choice([("rx_bytes",), ("rx_bytes", "rx_packets")]))
        case "restart":
            boot = rng.choice([boot_id("a"), boot_id("a"), boot_id("b"), "1764500000"])
            return changed(restarted(readings, place), *rest, boot=boot)
        case "burst":
            more = rng.choice([10**6, 10**9, 10**11])
            return [replace(one, rx_bytes=one.rx_bytes + more * (n in rest)) for n, one in enumerate(readings)]
        case "gap":
            return [replace(one, seconds=one.seconds + 200 * (n in rest)) for n, one in enumerate(readings)]
        case _:
            return changed(readings, *range(10), kind="physical", speed_mbps=rng.choice([10, 1_000]))


def _with_faults(readings: Sequence[Reading]) -> list[Reading]:
    result = list(readings)
    for n in range(len(result)):
        result = changed(result, n, rx_errors=7 + n, tx_errors=0, rx_dropped=10**6 + 3 * n, tx_dropped=None)
    return result


def _around(rows: Sequence[tuple[int, str]], *wrong: int) -> list[tuple[int, str]]:
    """What steady rows are if the readings at these places are glitches: the next one gained for both."""
    result = list(rows)
    for place in wrong:
        result[place] = (0, "glitch")
        result[place + 1] = (2 * rows[place + 1][0], "normal")
    return result


def _with_interfaces(body: dict[str, Any], count: int) -> dict[str, Any]:
    """The heartbeat with as many interfaces, eth0 and others with the same counters."""
    (first,) = body["network_interfaces"]
    return body | {"network_interfaces": [first | {"name": f"eth{n}"} for n in range(count)]}


async def _ingest(database: asyncpg.Connection, arrivals: dict[str, list[Reading]]) -> None:
    """The readings of all servers, one of each in a batch."""
    await _store(
        database,
        {server_id: [reading.body(server_id) for reading in readings] for server_id, readings in arrivals.items()},
    )


async def _store(database: asyncpg.Connection, bodies: dict[str, list[dict[str, Any]]]) -> None:
    """The heartbeats of all servers, one of each in a batch."""
    loop = asyncio.get_running_loop()
    for turn in range(max(map(len, bodies.values()))):
        batch = []
        for server_id in sorted(bodies):
            if turn < len(bodies[server_id]):
                body = json.dumps(bodies[server_id][turn]).encode()
                heartbeat = decode_heartbeat(body, now=datetime.now(UTC), oldest=YEAR)
                assert heartbeat.timestamp is not None
                batch.append(Pending(heartbeat, heartbeat.timestamp, 0.0, loop.create_future()))
        await database.fetchrow(CALL, *arguments(batch, may_register=turn == 0, series_budget=200, fold_seconds=3_600))


async def _calls(database: asyncpg.Connection, function: str) -> int:
    await database.execute("SELECT pg_stat_force_next_flush()")
    calls = await database.fetchval(
        "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = $1", function
    )
    return int(calls)


async def _as_judged_row_by_row(database: asyncpg.Connection) -> list[Any]:
    """Judges all rows again; those that differ then, and servers whose newest state does."""
    rows = "SELECT to_jsonb(m) FROM network_interface_metrics m ORDER BY server_id, interface_name, time"
    states = "SELECT to_jsonb(s) -> 'interfaces' FROM servers s ORDER BY server_id"
    before = await database.fetch(rows), await database.fetch(states)
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") > 0
    await database.execute(
        """SELECT linkbeat.repair_deltas(
               server_id, array_agg(interface_name), array_agg('-infinity'::timestamptz), true)
           FROM (SELECT DISTINCT server_id, interface_name FROM network_interface_metrics) AS series
           GROUP BY server_id ORDER BY server_id"""
    )
    after = await database.fetch(rows), await database.fetch(states)
    return [
        (found[0], judged[0])
        for old, new in zip(before, after, strict=True)
        for found, judged in zip(old, new, strict=True)
        if found != judged
    ]
