"""What is stored, held against the oracle: every row, the newest state, the folded sums and all four levels."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from tests.helpers.aggregates import LEVELS
from tests.helpers.oracle import COUNTERS, Account, Beat, account


class Sent:
    """What a server was sent, in the order of arrival: of a moment, the first heartbeat counts.

    beats       each moment's first
    duplicates  heartbeats of a moment that there was
    conflicts   those of them whose samples differ
    is_all      nothing else arrived: nothing was sent again because an answer was lost
    """

    def __init__(self, arrived: Iterable[Beat], *, is_all: bool = True) -> None:
        self.is_all = is_all
        stored: dict[datetime, Beat] = {}
        self.duplicates = self.conflicts = 0
        for beat in arrived:
            self.duplicates += beat.time in stored
            self.conflicts += stored.setdefault(beat.time, beat).samples != beat.samples
        self.beats = list(stored.values())
        self._accounts: dict[tuple[str, ...], Account] = {}

    def account(self, alternating: Sequence[str]) -> Account:
        """What the oracle counts, if the heartbeats of these boots arrived by turns. Counted once."""
        key = tuple(alternating)
        if key not in self._accounts:
            self._accounts[key] = account(self.beats, alternating)
        return self._accounts[key]


@dataclass
class Differences:
    """What is not as it should be, by server."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def expect(self, server_id: str, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.found[server_id].append(f"{what}: found {found}, expected {expected}")


async def check_servers(database: asyncpg.Connection, sent: Mapping[str, Sent], budget: int) -> dict[str, list[str]]:
    """Every row of these servers, their newest state and counts, and the sums over their folded interfaces."""
    differences = Differences()
    rows: dict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in await database.fetch(_ROWS, list(sent)):
        rows[row["server_id"]].append(row)
    servers = {row["server_id"]: row for row in await database.fetch(_SERVERS, list(sent))}
    for server_id, one in sent.items():
        _check_rows(differences, server_id, rows[server_id], one, servers[server_id]["alternating"])
        _check_folding(differences, server_id, rows[server_id], one.beats, budget)
        _check_server(differences, server_id, servers[server_id], rows[server_id], one)
    return dict(differences.found)


def _check_rows(
    differences: Differences,
    server_id: str,
    rows: Sequence[asyncpg.Record],
    one: Sent,
    alternating: Sequence[str],
) -> None:
    gains = one.account(alternating).gains
    sent = {(name, beat.time): (beat, sample) for beat in one.beats for name, sample in beat.samples.items()}
    found = {(row["interface_name"], row["time"]): row for row in rows if row["delta_kind"] != "folded"}
    differences.expect(server_id, "rows", sorted(found.keys() - sent.keys()), [])
    differences.expect(server_id, "missing rows", sorted(sent.keys() - found.keys()), [])
    for key in sorted(found.keys() & sent.keys()):
        row, (beat, sample), gain = found[key], sent[key], gains[key]
        what = f"{key[0]} {key[1]:%d %H:%M:%S.%f} {beat.boot}"
        differences.expect(
            server_id, f"{what} counters", (*_counters(row), row["is_up"]), (*sample.counters, sample.is_up)
        )
        differences.expect(
            server_id,
            f"{what} gain",
            (_deltas(row), row["delta_kind"], row["elapsed_ms"], row["counts_64bit"]),
            (gain.deltas, gain.kind, gain.elapsed_ms, gain.counts_64bit),
        )


def _never_fold(beats: Sequence[Beat]) -> set[str]:
    """Interfaces whose kind is told, and that no other is below, in every heartbeat that names them."""
    samples = [(name, sample, beat.samples) for beat in beats for name, sample in beat.samples.items()]
    others = {name for name, one, beside in samples if one.kind is None or not beside.keys().isdisjoint(one.stacked_on)}
    return {name for name, _, _ in samples} - others


def _check_folding(
    differences: Differences, server_id: str, rows: Sequence[asyncpg.Record], beats: Sequence[Beat], budget: int
) -> None:
    folded: dict[Any, list[asyncpg.Record]] = defaultdict(list)
    sums: dict[Any, list[asyncpg.Record]] = defaultdict(list)
    own: Counter[Any] = Counter()
    for row in rows:
        if row["delta_kind"] == "folded":
            sums[row["time"]].append(row)
        elif row["is_folded"]:
            folded[row["time"]].append(row)
        else:
            own[row["time"]] += 1
    for time in folded.keys() | sums.keys():
        differences.expect(server_id, f"{time} folded", _total(sums[time]), _total(folded[time]))
    for time, count in own.items():
        differences.expect(server_id, f"{time} has {count} series, past the budget", count > budget, False)
    if len({name for beat in beats for name in beat.samples}) <= budget:
        names = {row["interface_name"] for each in folded.values() for row in each}
        differences.expect(server_id, "folded, but no other is below", sorted(names & _never_fold(beats)), [])


def _check_server(
    differences: Differences, server_id: str, server: asyncpg.Record, rows: Sequence[asyncpg.Record], sent: Sent
) -> None:
    times = [beat.time for beat in sent.beats]
    differences.expect(
        server_id,
        "first_seen, last_seen, conflicts, is shared",
        tuple(server[name] for name in ("first_seen", "last_seen", "conflicts", "is_shared")),
        (min(times), max(times), sent.conflicts, bool(server["alternating"])),
    )
    if sent.is_all:
        differences.expect(server_id, "duplicates", server["duplicates"], sent.duplicates)
    newest = {row["interface_name"]: row for row in rows if row["delta_kind"] != "folded"}  # rows stand by time
    states = {state["interface_name"]: state for state in server["interfaces"]}
    differences.expect(server_id, "names of states", list(server["interface_names"]), list(states))
    forgotten = newest.keys() - states.keys()
    differences.expect(server_id, "forgotten", [name for name in forgotten if not newest[name]["is_folded"]], [])
    for name, state in states.items():
        columns = [column for column in state.keys() if column in newest[name].keys()]  # noqa: SIM118  # of a Record
        differences.expect(
            server_id,
            f"state of {name}",
            {column: state[column] for column in columns},
            {column: newest[name][column] for column in columns},
        )


async def check_levels(database: asyncpg.Connection, sent: Mapping[str, Sent]) -> list[str]:
    """At every level the sums are the oracle's, byte for byte: of each interface that was never folded, and of all of
    each server's together, with the kinds' series that the others are folded into."""
    folded = {tuple(row) for row in await database.fetch(_FOLDED_SERIES)}
    servers = {row["server_id"]: row for row in await database.fetch(_SERVERS, list(sent))}
    series = {
        (server, name): total
        for server, one in sent.items()
        for name, total in one.account(servers[server]["alternating"]).totals().items()
    }
    expected = {key: total for key, total in series.items() if key not in folded} | _by_server(series)
    differences = []
    for level in LEVELS:
        sums = ", ".join(f"sum({name})::numeric" for name in COUNTERS)
        rows = await database.fetch(
            f"SELECT server_id, interface_name, {sums} FROM network_traffic_{level} "
            "WHERE server_id = ANY ($1) GROUP BY 1, 2",
            list(sent),
        )
        stored = {(row[0], row[1]): tuple(map(int, row[2:])) for row in rows}
        found = stored | _by_server(stored)
        differences += [
            f"{level} {key}: found {found.get(key)}, expected {total}"
            for key, total in expected.items()
            if found.get(key) != total
        ]
    return differences


def _by_server(series: Mapping[tuple[str, str], tuple[int, ...]]) -> dict[tuple[str, str], tuple[int, ...]]:
    """The sum over all of a server's series, under a name that none of them has."""
    totals: dict[tuple[str, str], tuple[int, ...]] = {}
    for (server_id, _), total in series.items():
        before = totals.get((server_id, ""), (0,) * len(COUNTERS))
        totals[server_id, ""] = tuple(map(sum, zip(before, total, strict=True)))
    return totals


_ROWS = """
SELECT * FROM network_interface_metrics WHERE server_id = ANY ($1) ORDER BY server_id, interface_name, time
"""
_SERVERS = """
SELECT server_id, first_seen, last_seen, duplicates, conflicts, shared_since IS NOT NULL AS is_shared, interface_names,
       interfaces,
       -- Which boots arrived by turns is known where they arrived; test_twins.py has the rule.
       ARRAY(SELECT b.boot_id FROM server_boots b WHERE b.server_id = s.server_id AND b.alternates) AS alternating
FROM servers s WHERE server_id = ANY ($1)
"""
_FOLDED_SERIES = "SELECT DISTINCT server_id, interface_name FROM network_interface_metrics WHERE is_folded"


def _counters(row: asyncpg.Record) -> tuple[int | None, ...]:
    return tuple(None if row[name] is None else row[name] % 2**64 for name in COUNTERS)


def _deltas(row: asyncpg.Record) -> tuple[int | None, ...]:
    return tuple(row[f"{name}_delta"] for name in COUNTERS)


def _total(rows: Sequence[asyncpg.Record]) -> tuple[int, ...]:
    return tuple(sum(row[f"{name}_delta"] or 0 for row in rows) for name in COUNTERS)
