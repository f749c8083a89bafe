"""linkbeat.settled against the oracle, at the edges of the rules, where random histories seldom come."""

import random
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec

from tests.oracle import COUNTERS, MIB, ROW_COUNTERS, WRAP, Beat, Sample, account
from tests.support import hours_ago

T0 = hours_ago(20)
TRIPLES = 2_000

# Three readings of one series, each settled from the one before it.
_SETTLED = """
SELECT array_agg(ARRAY[s.rx_bytes_delta, s.tx_bytes_delta, s.rx_packets_delta, s.tx_packets_delta, s.rx_errors_delta,
                       s.tx_errors_delta, s.rx_dropped_delta, s.tx_dropped_delta] ORDER BY s.place) AS deltas,
       array_agg(s.delta_kind ORDER BY s.place) AS kinds, array_agg(s.elapsed_ms ORDER BY s.place) AS elapsed,
       array_agg(s.counts_64bit ORDER BY s.place) AS counts_64bit
FROM unnest($1::text[]) WITH ORDINALITY AS t(rows, triple)
CROSS JOIN LATERAL (
    SELECT array_agg(jsonb_populate_record(NULL::network_interface_metrics, value) ORDER BY ordinality) AS r
    FROM jsonb_array_elements(rows::jsonb) WITH ORDINALITY) AS r
CROSS JOIN LATERAL (SELECT linkbeat.settled(NULL, r[1]) AS settled OFFSET 0) AS a
CROSS JOIN LATERAL (SELECT linkbeat.settled(a.settled, r[2]) AS settled OFFSET 0) AS b
CROSS JOIN LATERAL (SELECT linkbeat.settled(b.settled, r[3]) AS settled OFFSET 0) AS c
CROSS JOIN LATERAL (SELECT (a.settled).*, 1 AS place UNION ALL SELECT (b.settled).*, 2
                    UNION ALL SELECT (c.settled).*, 3) AS s
GROUP BY triple ORDER BY triple
"""


async def test_three_readings_are_settled_as_the_oracle_says(database: asyncpg.Connection) -> None:
    seed = random.randrange(10**9)
    rng = random.Random(seed)
    triples = [_triple(rng) for _ in range(TRIPLES)]

    found = await database.fetch(
        _SETTLED, [msgspec.json.encode([_row(beat) for beat in one]).decode() for one in triples]
    )

    kinds = set()
    for beats, row in zip(triples, found, strict=True):
        gains = [account(beats).gains["eth0", beat.time] for beat in beats]
        kinds |= {gain.kind for gain in gains}
        assert [tuple(one) for one in row["deltas"]] == [gain.deltas for gain in gains], (seed, beats)
        assert row["kinds"] == [gain.kind for gain in gains], (seed, beats)
        assert row["elapsed"] == [gain.elapsed_ms for gain in gains], (seed, beats)
        assert row["counts_64bit"] == [gain.counts_64bit for gain in gains], (seed, beats)
    assert kinds == {"first", "normal", "gap", "reboot", "reset", "wrap", "rejected"}


def _triple(rng: random.Random) -> list[Beat]:
    """Readings of which each counter is at an edge of what the one before it allows."""
    speeds = [rng.choice([None, 10, 1_000, 800_000]) for _ in range(3)]
    times = [T0]
    for _ in range(2):
        seconds = rng.choice([0.001, 1, 10, 29.9995, 30, 90, 90.001, 90.0005, 600, 86_400 * 3, 86_400 * 26])
        times.append(times[-1] + timedelta(seconds=seconds))
    extremes = [0, 5, WRAP - 1, WRAP, WRAP - MIB, 2**63 - 1, 2**64 - 1]
    counters: list[list[int | None]] = [[rng.choice(extremes) for _ in COUNTERS]]
    for place in (1, 2):
        milliseconds = (times[place] - times[place - 1]) // timedelta(milliseconds=1)
        speed = max(speeds[place] or 0, speeds[place - 1] or 0)
        most = (speed * 127_500 if speed else 50 * 10**9) * (milliseconds + 1_000) // 1_000
        reached = [_next(rng, counters[0][index], counters[-1][index], most) for index in range(len(COUNTERS))]
        counters.append([0 if value is None and index < ROW_COUNTERS else value for index, value in enumerate(reached)])
    boots = [rng.choice("aab"), rng.choice("aaaab")]
    return [
        Beat(time, boot, {"eth0": Sample(tuple(values), "physical", speed)}, rng.choice([None, 30, 200]))
        for time, boot, values, speed in zip(times, [*boots, boots[-1]], counters, speeds, strict=True)
    ]


def _next(rng: random.Random, first: int | None, before: int | None, most: int) -> int | None:
    """A counter after `before`: grown up to the limit, wrapped by about what it gained last or 1 MiB, or anything."""
    if before is None:
        return rng.choice([None, 7])
    off = rng.choice([-1, 0, 1])
    gained = before - (first or 0)
    value = rng.choice(
        [
            before, before + most + off, before + 3, before + gained + off, rng.randint(0, WRAP),
            (before + gained * 2 + off) % WRAP, (before + gained // 2 + off) % WRAP, (before + MIB + off) % WRAP,
            (before + most + off) % WRAP, WRAP + off, most + off, 0, None,
        ]
    )  # fmt: skip
    return None if value is None else max(0, min(value, 2**64 - 1))


def _row(beat: Beat) -> dict[str, Any]:
    sample = beat.samples["eth0"]
    return {
        "time": beat.time.isoformat(),
        "boot": ord(beat.boot) if beat.boot else None,
        "speed_mbps": sample.speed_mbps,
        "interval_ms": round((beat.interval_seconds or 30) * 1000),
        **{
            name: None if value is None else value - 2**64 * (value >= 2**63)
            for name, value in zip(COUNTERS, sample.counters, strict=True)
        },
    }
