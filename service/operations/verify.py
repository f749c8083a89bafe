"""`linkbeat verify`: compares every level of every aggregate with its recomputation from the rows (recomputed.py).

It goes through time in steps, each a REPEATABLE READ transaction: memory stays bounded, nothing is locked, and ingest
and maintenance go on. One snapshot has rows and buckets as they belong together. On the Community edition a bucket
differs, and rightly so, while late rows in it wait for a refresh; TimescaleDB's log of them, read in the same snapshot,
says which these are (linkbeat.waiting_ranges); they are counted apart. Nothing is written: a standby can be verified.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from service.database import schema
from service.database.hosts import connect
from service.embedded.choose import choose_database
from service.operations.recomputed import COLUMNS, LEVELS, SERIES, comparison
from service.operations.recount import time_argument
from service.settings import Settings

SHOWN = 20
QUICK_SECONDS, SLOW_SECONDS = 0.3, 3.0
# The shortest step is a bucket, or an hour; steps double while they are quick.
_STEPS = {
    "1m": timedelta(hours=1),
    "15m": timedelta(hours=1),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}
_LONGEST_STEP = timedelta(days=64)
_RANGE = """
SELECT linkbeat.verifiable_since($1) AS since, (
    SELECT time_bucket('1 day', max(c.range_end) + INTERVAL '1 day' - INTERVAL '1 microsecond')
    FROM timescaledb_information.chunks c JOIN linkbeat.aggregates a ON a.source = c.hypertable_name
    WHERE a.relation = $1 AND c.hypertable_schema = 'public') AS until
"""


class Difference(msgspec.Struct, frozen=True):
    """One bucket that is not what its rows come to.

    series    server_id, and interface_name or mount_point
    stored    its columns as the aggregate has them; None where it has no such bucket
    computed  its columns as the rows make them; None where no row is in it
    """

    relation: str
    bucket: datetime
    series: list[str]
    stored: dict[str, Any] | None
    computed: dict[str, Any] | None

    def lines(self) -> list[str]:
        """A line for each column that differs, or one where a whole row is missing."""
        who = f"{self.relation} {' '.join(self.series)} {self.bucket.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if self.stored is None or self.computed is None:
            return [f"{who}: {'not stored' if self.stored is None else 'stored'}, {self._rows()}"]
        return [
            f"{who} {name}: stored {self.stored[name]}, computed {self.computed[name]}"
            for name in self.stored
            if self.stored[name] != self.computed[name]
        ]

    def _rows(self) -> str:
        samples = 0 if self.computed is None else self.computed["samples"]
        return f"computed from {samples} row{'' if samples == 1 else 's'}"


class Compared(msgspec.Struct):
    """What a comparison came to, in buckets; `differences` has the first of those that are wrong."""

    compared: int = 0
    wrong: int = 0
    waiting: int = 0
    differences: list[Difference] = msgspec.field(default_factory=list)

    def add(self, other: "Compared") -> None:
        """Takes in the result of another range or aggregate."""
        self.compared += other.compared
        self.wrong += other.wrong
        self.waiting += other.waiting
        self.differences += other.differences[: SHOWN - len(self.differences)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `verify`."""
    parser.add_argument(
        "--since",
        type=time_argument,
        metavar="TIME",
        help="from this time on, such as 2026-01-29T10:00Z; without it, from the oldest rows that are kept",
    )


def run(settings: Settings, arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Prints what differs on stdout, and how much; 1 where anything does."""
    with choose_database(settings, lambda _: None) as database:
        asyncio.run(schema.check(database.url, settings, target="any"))
        try:
            found = asyncio.run(verify(database.url, arguments.since))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as raised:
            say(f"linkbeat: {raised}")
            return 1
    for difference in found.differences:
        for line in difference.lines():
            print(line)
    if found.wrong > len(found.differences):
        print(f"… and {found.wrong - len(found.differences):,} more")
    print(f"{found.wrong:,} rows differ")
    say(f"{found.compared:,} rows of {len(COLUMNS) * len(LEVELS)} aggregates were compared with what they are made of.")
    if found.waiting:
        say(f"{found.waiting:,} of them wait for a refresh that takes in late rows, and do not count.")
    return 1 if found.wrong else 0


async def verify(url: str, since: datetime | None = None) -> Compared:
    """Compares all aggregates from `since`, or from where rows and buckets are kept. It has no time limit."""
    connection = await connect(
        url,
        seconds=schema.CONNECT_SECONDS,
        target="any",
        # Ranges are arguments: only a plan made for them leaves out the chunks outside.
        server_settings={
            "application_name": "linkbeat verify", "timezone": "UTC", "plan_cache_mode": "force_custom_plan",
            "statement_timeout": "0",
        },
    )  # fmt: skip
    try:
        found = Compared()
        for family in COLUMNS:
            for level in LEVELS:
                found.add(await _level(connection, family, level, since))
        return found
    finally:
        await connection.close(timeout=schema.CONNECT_SECONDS)


async def _level(connection: asyncpg.Connection, family: str, level: str, since: datetime | None) -> Compared:
    found = Compared()
    row = await connection.fetchrow(_RANGE, f"{family}_{level}")
    assert row is not None
    if row["since"] is None or row["until"] is None:
        return found  # no rows
    start, until = row["since"], row["until"]
    if since is not None and since > start:
        start = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    shortest = step = _STEPS[level]
    while start < until:
        end = min(start + step, until)
        started = time.monotonic()
        step_found = await compare(connection, family, level, start, end)
        seconds = time.monotonic() - started
        if step_found.wrong or step_found.waiting:
            # Retention may have dropped the rows since the start of verify: then there is nothing to compare with. On
            # the Community edition TimescaleDB logs that as a change of them, and the buckets would seem to wait.
            kept_since = await connection.fetchval(_RANGE, f"{family}_{level}")  # its first column
            if kept_since is None or kept_since > start:
                start = kept_since or until
                continue
        found.add(step_found)
        start = end
        if seconds < QUICK_SECONDS:
            step = min(step * 2, _LONGEST_STEP)
        elif seconds > SLOW_SECONDS:
            step = max(step // 2, shortest)
    return found


async def compare(
    connection: asyncpg.Connection, family: str, level: str, since: datetime | None, until: datetime | None
) -> Compared:
    """Compares the buckets from `since` up to `until`, both multiples of the level's width; None: of all times."""
    relation = f"{family}_{level}"
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch(comparison(family, level), since, until, SHOWN)
    differences = [
        Difference(
            relation,
            row["bucket"],
            row["series"],
            _columns(family, row["stored"]),
            _columns(family, row["computed"]),
        )
        for row in rows
        if row["is_waiting"] is False
    ]
    return Compared(rows[0]["compared"], rows[0]["wrong"], rows[0]["waiting"], differences)


def _columns(family: str, row: str | None) -> dict[str, Any] | None:
    if row is None:
        return None
    # As text: sums beyond the precision of a double must not look equal.
    columns: dict[str, Any] = json.loads(row, parse_float=str)
    return {name: value for name, value in columns.items() if name not in ("bucket", *SERIES[family])}
