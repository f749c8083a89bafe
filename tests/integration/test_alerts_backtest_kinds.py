"""What rules about filesystems, quotas and accounts do is what their backtest says (A15), in any order of arrival."""

import asyncio
import json
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.alerts import (
    MINUTE,
    SECOND,
    Episode,
    Row,
    arrive,
    backtest,
    begin,
    recorded,
    set_rule,
    store,
    store_late,
    turn,
)  # fmt: skip
from tests.helpers.support import hours_ago

HISTORIES = int(os.environ.get("LINKBEAT_ALERT_HISTORIES", "20"))
AT_ONCE = 5  # each of servers of its own: a turn over all of them costs little more than one over a single one
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GIB = 1 << 30
KEPT = (
    "network_interface_metrics", "filesystem_metrics", "servers", "linkbeat.alerts", "linkbeat.alert_events",
    "linkbeat.alert_marks", "linkbeat.late_arrivals", "linkbeat.quotas",
)  # fmt: skip

# The filesystem of 39827-pi does not answer, is not seen for 40 minutes, and the first rows after that come late: what
# had counted before is more than the reach of the rule ago.
GAP_WHILE_IT_PENDS = (27991, 10994, 3225, 262, 39827)

Hold = Callable[[asyncpg.Connection, Sequence[int]], Coroutine[Any, Any, object]]


def over_histories(hold: Hold, database_url: str, *known: Sequence[int]) -> None:
    """Holds for some seeds at a time, the known ones first; the database is one for all of them."""
    with asyncio.Runner() as runner:
        database = runner.run(asyncpg.connect(database_url, server_settings={"timezone": "UTC"}))

        @settings(
            max_examples=-(-HISTORIES // AT_ONCE),
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a seed that is smaller is no simpler history
            suppress_health_check=list(HealthCheck),
        )
        @given(seeds=st.lists(st.integers(0, 2**62), min_size=AT_ONCE, max_size=AT_ONCE, unique=True))
        def hold_some(seeds: list[int]) -> None:
            runner.run(hold(database, seeds))

        try:
            for seeds in known:
                runner.run(hold(database, seeds))
            hold_some()
        finally:
            runner.run(database.close())


async def fresh(database: asyncpg.Connection, at: datetime) -> None:
    for table in KEPT:
        await database.execute(f"DELETE FROM {table}")
    await begin(database, at)


def until_cleared(episode: Episode) -> Episode:
    """As turns record it: while it fires, nothing is recorded of an end that may come."""
    return episode if episode.resolved_at else replace(episode, cleared_at=None)


def overlap(one: Episode, other: Episode) -> bool:
    """`other` was recorded; without an end it still goes on."""
    if one.key != other.key or one.cleared_at is None:
        return False
    ends = (other.cleared_at or other.resolved_at) if other.resolved_at else datetime.max.replace(tzinfo=UTC)
    return one.active_at <= (ends or other.fired_at) and other.active_at <= one.cleared_at


@dataclass
class Filesystem:
    """A sample of a mount point of 100 GiB; `percent` null: it does not answer."""

    time: datetime
    server_id: str
    mount: str
    percent: float | None


class TestFilesystem:
    T0 = hours_ago(6)
    SPAN = 3 * HOUR
    INTERVAL = 120
    RULES: ClassVar[dict[str, dict[str, Any]]] = {
        "share": {"above_percent": 90, "for_seconds": 240, "keep_seconds": 360},
        "bytes": {"below_bytes": 12 * GIB, "keep_seconds": 0, "unreachable_seconds": 400},
        "trend": {"full_within_hours": 6, "keep_seconds": 120},
        "usual": {},
    }

    def history(self, seed: int) -> list[Filesystem]:
        """Some mount points: steady, filling, bursting and cleaned up, with gaps, and times without an answer.

        Those of one server are in the same heartbeats, as an agent sends them.
        """
        rng = random.Random(seed)
        rows = []
        for server_id, mounts in ((f"{seed}-nas", ("/", "/data")), (f"{seed}-pi", ("/",))):
            at = self.T0 + rng.randint(0, self.INTERVAL - 1) * SECOND
            percent = {mount: rng.uniform(40, 95) for mount in mounts}
            slope = dict.fromkeys(mounts, 0.0)
            answers = dict.fromkeys(mounts, True)
            while at < self.T0 + self.SPAN:
                for mount in mounts:
                    rows.append(Filesystem(at, server_id, mount, round(percent[mount], 3) if answers[mount] else None))
                    if rng.random() < 0.05:
                        slope[mount] = rng.choice([0, 0, 0.05, 0.3, 1, -0.5])  # percent each interval
                    if rng.random() < 0.03:
                        percent[mount] += rng.choice([-30, -5, 5, 20])
                    if rng.random() < (0.03 if answers[mount] else 0.15):
                        answers[mount] = not answers[mount]
                    percent[mount] = min(max(percent[mount] + slope[mount], 5), 100)
                at += (
                    rng.choices([self.INTERVAL, rng.randint(121, 400), rng.randint(401, 2_500)], [30, 1, 1])[0] * SECOND
                )
        return rows

    def histories(self, seeds: Sequence[int]) -> list[Filesystem]:
        return [row for seed in seeds for row in self.history(seed)]

    async def begin(self, database: asyncpg.Connection) -> None:
        await fresh(database, self.T0)
        for rule_id, spec in self.RULES.items():
            await set_rule(database, rule_id, "filesystem", **spec)

    async def store(self, database: asyncpg.Connection, rows: list[Filesystem], at: datetime | None = None) -> None:
        """They arrive at their times; or, in no order, at `at`, and what ingest would note of them is noted."""
        await database.copy_records_to_table(
            "filesystem_metrics",
            columns=(
                "time", "server_id", "mount_point", "device", "fs_type", "total_bytes", "used_bytes", "available_bytes",
                "percent", "state",
            ),
            records=[
                (row.time, row.server_id, row.mount, "sda", "ext4", *_sizes(row.percent), row.percent,
                 "unreachable" if row.percent is None else None)
                for row in rows
            ],
        )  # fmt: skip
        for server_id in sorted({row.server_id for row in rows}):
            of_server = [row for row in rows if row.server_id == server_id]
            last_seen = await database.fetchval("SELECT last_seen FROM servers WHERE server_id = $1", server_id)
            newest = max([row.time for row in of_server] + [last_seen] * (last_seen is not None))
            mounts = json.dumps([{"mount_point": "/"}, {"mount_point": "/data"}])
            await arrive(database, server_id, newest, self.INTERVAL, filesystems=mounts)
            late = [
                row.time for row in of_server if at and (at - row.time > 10 * SECOND or row.time <= (last_seen or at))
            ]
            await database.executemany(
                "INSERT INTO linkbeat.late_arrivals (server_id, since, until) VALUES ($1, $2, $2)",
                [(server_id, moment) for moment in late],
            )

    async def differences(self, database: asyncpg.Connection, until: datetime) -> dict[str, object]:
        found: dict[str, object] = {}
        for rule_id, spec in self.RULES.items():
            said = [
                until_cleared(one) for one in await backtest(database, "filesystem", self.T0 - MINUTE, until, **spec)
            ]
            did = await recorded(database, rule_id)
            if said != did:
                found[rule_id] = {"recorded": did, "backtest": said}
        return found

    def test_turns_record_what_the_backtest_says(self, database_url: str) -> None:
        async def hold(database: asyncpg.Connection, seeds: Sequence[int]) -> None:
            await self.begin(database)
            rng = random.Random(seeds[0])
            rows = sorted(self.histories(seeds), key=lambda row: row.time)
            at = self.T0
            while at < self.T0 + self.SPAN + 30 * MINUTE:
                arrived = [row for row in rows if row.time <= at - 2 * SECOND]
                rows = rows[len(arrived) :]
                await self.store(database, arrived)
                await turn(database, at)
                at += rng.choice([15, 120, 240, 900]) * SECOND

            assert await self.differences(database, at - 10 * MINUTE) == {}

        over_histories(hold, database_url)

    @pytest.mark.parametrize("interval", [120, 600, 900])
    async def test_rows_of_slow_agents_are_judged(
        self, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, interval: int
    ) -> None:
        """They wait for two of their intervals, and their filesystems are watched for as long."""
        monkeypatch.setattr(TestFilesystem, "INTERVAL", interval)
        await self.begin(database)
        rows = [
            Filesystem(self.T0 + MINUTE + n * interval * SECOND, "pi", "/", 95.0)
            for n in range(self.SPAN // (interval * SECOND))
        ]
        at = self.T0
        while at < self.T0 + self.SPAN:
            arrived = [row for row in rows if row.time <= at - 2 * SECOND]
            rows = rows[len(arrived) :]
            await self.store(database, arrived)
            await turn(database, at)
            at += MINUTE

        fired = {
            rule_id: [one.fired_at - self.T0 for one in await recorded(database, rule_id)] for rule_id in self.RULES
        }
        held = max(timedelta(seconds=240), interval * SECOND)
        assert fired == {"share": [MINUTE + held], "bytes": [MINUTE], "trend": [], "usual": [MINUTE]}
        assert await self.differences(database, at - HOUR) == {}

    async def test_a_trend_holds_from_the_next_quarter_of_an_hour_after_60_percent(
        self, database: asyncpg.Connection
    ) -> None:
        """Turns look at the first samples of each quarter alone, and so does the backtest."""
        await self.begin(database)
        times = [self.T0 + n * self.INTERVAL * SECOND for n in range(self.SPAN // (self.INTERVAL * SECOND))]
        moments = [await database.fetchval("SELECT linkbeat.trend_moment('pi', $1)", one) for one in times]
        last = next(n for n in range(60, len(times)) if moments[n] == moments[n - 6])  # of the samples of its quarter
        rows = [Filesystem(one, "pi", "/", 60.01 + 0.15 * (n - last)) for n, one in enumerate(times)]
        at = self.T0
        while at < self.T0 + self.SPAN + 30 * MINUTE:
            arrived = [row for row in rows if row.time <= at - 2 * SECOND]
            rows = rows[len(arrived) :]
            await self.store(database, arrived)
            await turn(database, at)
            at += MINUTE

        (episode,) = await recorded(database, "usual")
        assert episode.fired_at == next(one for n, one in enumerate(times) if moments[n] > moments[last])
        assert await self.differences(database, at - 10 * MINUTE) == {}

    async def test_what_pends_is_not_forgotten_after_a_gap(self, database: asyncpg.Connection) -> None:
        """Unreachable for 2 minutes of the 4 that the rule asks for, nothing for half an hour, and the other 2 then."""
        await self.begin(database)
        first, after = self.T0 + 10 * MINUTE, self.T0 + 53 * MINUTE
        rows = [Filesystem(first + n * self.INTERVAL * SECOND, "pi", "/", None) for n in range(7)]
        rows += [Filesystem(after + n * self.INTERVAL * SECOND, "pi", "/", None) for n in range(10)]
        for turn_at in (self.T0 + n * MINUTE for n in (*range(1, 40), *range(60, 90))):
            arrived = [row for row in rows if row.time <= turn_at - 2 * SECOND]
            rows = rows[len(arrived) :]
            await self.store(database, arrived)
            await turn(database, turn_at)

        (episode,) = await recorded(database, "share")
        assert (episode.active_at, episode.fired_at) == (first + 10 * MINUTE, after + 10 * MINUTE)
        assert await self.differences(database, self.T0 + 80 * MINUTE) == {}

    def test_what_comes_in_any_order_is_recorded_once_it_is_there(self, database_url: str) -> None:
        """Each row comes up to half an hour late. What an early turn saw and later rows change stays recorded."""

        async def hold(database: asyncpg.Connection, seeds: Sequence[int]) -> None:
            await self.begin(database)
            rng = random.Random(seeds[0])
            rows = sorted(
                ((row.time + rng.choice([1, 1, 1, 40, 400, 1_800]) * SECOND, row) for row in self.histories(seeds)),
                key=lambda arrival: arrival[0],
            )
            at = self.T0
            while at < self.T0 + self.SPAN + HOUR:
                arrived = [row for moment, row in rows if moment <= at]
                rows = rows[len(arrived) :]
                await self.store(database, arrived, at)
                await turn(database, at)
                at += rng.choice([60, 240, 900]) * SECOND

            for rule_id, spec in self.RULES.items():
                did = await recorded(database, rule_id)
                for episode in await backtest(database, "filesystem", self.T0 - MINUTE, at, **spec):
                    if episode.cleared_at is not None:
                        assert any(overlap(episode, other) for other in did), (rule_id, episode, did)

        over_histories(hold, database_url, GAP_WHILE_IT_PENDS)

    def test_rows_that_are_all_there_before_a_turn_give_the_same_in_any_order(self, database_url: str) -> None:
        async def hold(database: asyncpg.Connection, seeds: Sequence[int]) -> None:
            await self.begin(database)
            rows = self.histories(seeds)
            random.Random(seeds[0]).shuffle(rows)
            at = self.T0 + self.SPAN + HOUR
            for first in range(0, len(rows), 50):
                await self.store(database, rows[first : first + 50], at)

            await turn(database, at)

            assert await self.differences(database, at) == {}

        over_histories(hold, database_url)


def _sizes(percent: float | None) -> tuple[int, int, int | None]:
    if percent is None:
        return 100 * GIB, 0, None
    available = round((100 - percent) * GIB)
    return 100 * GIB, 100 * GIB - available, available


class TestAccount:
    """Resets and rejected readings count for a day. Of them a turn knows when it comes; rows know when they were."""

    T0 = hours_ago(58)
    SPAN = 44 * HOUR
    RULES: ClassVar[dict[str, dict[str, Any]]] = {
        "one": {"keep_seconds": 0},
        "three": {"resets": 3, "keep_seconds": 0},
    }

    def history(self, seed: int) -> list[Row]:
        """Some interfaces' rows, an hour apart, so that nothing begins or ends between two turns."""
        rng = random.Random(seed)
        odd = rng.choice([0.01, 0.05, 0.1])
        rows = []
        for server_id, name in ((f"{seed}-nas", "eth0"), (f"{seed}-nas", "eth1"), (f"{seed}-pi", "wlan0")):
            quiet = rng.randint(0, 16) * HOUR
            for number in range(int(self.SPAN / HOUR)):
                at = self.T0 + number * HOUR + (20 * MINUTE if name == "eth1" else timedelta())
                is_quiet = self.T0 + quiet < at < self.T0 + quiet + 26 * HOUR
                kind = (
                    "normal"
                    if is_quiet or rng.random() > odd
                    else rng.choice(["reset", "reset", "rejected", "reboot", "wrap", "dip"])
                )
                rows.append(Row(at, 0, 0, server_id, name, 3_600, 3_600, delta_kind=kind))
        return rows

    def histories(self, seeds: Sequence[int]) -> list[Row]:
        return [row for seed in seeds for row in self.history(seed)]

    async def begin(self, database: asyncpg.Connection) -> None:
        await fresh(database, self.T0 - MINUTE)
        for rule_id, spec in self.RULES.items():
            await set_rule(database, rule_id, "account", **spec)

    def test_turns_record_what_the_backtest_says(self, database_url: str) -> None:
        """To a turn, and the quarter of a minute that rows have to arrive."""

        async def hold(database: asyncpg.Connection, seeds: Sequence[int]) -> None:
            await self.begin(database)
            rng = random.Random(seeds[0])
            rows = sorted(self.histories(seeds), key=lambda row: row.time)
            at, longest = self.T0, 18 * MINUTE
            while at < self.T0 + self.SPAN:
                arrived = [row for row in rows if row.time <= at - 2 * SECOND]
                rows = rows[len(arrived) :]
                await store(database, arrived)
                await turn(database, at)
                at += rng.choice([11, 17, 18]) * MINUTE

            for rule_id, spec in self.RULES.items():
                did = await recorded(database, rule_id)
                said = await backtest(database, "account", self.T0 - HOUR, at - longest, **spec)
                assert [one.key for one in did] == [one.key for one in said], (rule_id, did, said)
                for one, other in zip(did, said, strict=True):
                    assert timedelta() <= one.fired_at - other.fired_at <= longest + 15 * SECOND
                    if other.resolved_at is not None:
                        assert one.resolved_at is not None
                        assert timedelta() <= one.resolved_at - other.resolved_at <= longest

        over_histories(hold, database_url)

    def test_what_comes_in_any_order_is_recorded_once_it_is_there(self, database_url: str) -> None:
        """Each row comes up to half a day late; what would have ended by then is history that nobody need be told."""

        async def hold(database: asyncpg.Connection, seeds: Sequence[int]) -> None:
            await self.begin(database)
            rng = random.Random(seeds[0])
            delays = [1 * SECOND, 1 * SECOND, 10 * MINUTE, 3 * HOUR, 12 * HOUR]
            rows = sorted(
                ((row.time + rng.choice(delays), row) for row in self.histories(seeds)), key=lambda arrival: arrival[0]
            )
            at = self.T0
            while at < self.T0 + self.SPAN + 12 * HOUR:
                arrived = [row for moment, row in rows if moment <= at]
                rows = rows[len(arrived) :]
                if arrived:
                    await store_late(database, arrived, at)
                await turn(database, at)
                at += rng.choice([30, 60, 60]) * MINUTE

            for rule_id, spec in self.RULES.items():
                did = await recorded(database, rule_id)
                said = await backtest(database, "account", self.T0 - HOUR, at, **spec)
                for episode in said:
                    lasts = (episode.cleared_at or at) - episode.fired_at
                    if lasts > 13 * HOUR:
                        assert any(
                            overlap(replace(episode, cleared_at=episode.cleared_at or at), one) for one in did
                        ), (rule_id, episode, did)
                for one in did:
                    assert any(
                        overlap(replace(other, cleared_at=(other.cleared_at or at) + HOUR), one) for other in said
                    ), (rule_id, one, said)

        over_histories(hold, database_url)


class TestQuota:
    """A turn knows what was used at its moment; rows, what each hour brought."""

    LIMIT = 1_000_000_000
    # The billing month ends at midnight three days after the history begins.
    ENDS = (datetime.now(UTC) - 5 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    T0 = ENDS - 3 * DAY
    SPAN = 6 * DAY
    LONGEST = 3 * HOUR
    SPEC: ClassVar[dict[str, Any]] = {"percent": [50, 80, 100], "forecast": False, "keep_seconds": 0}

    def history(self, seed: int) -> list[Row]:
        """A row an hour, of two servers; so much that levels are reached before the month ends, or after, or not."""
        rng = random.Random(seed)
        rows = []
        for server_id in self.servers(seed):
            of_hour = self.LIMIT / rng.choice([30, 60, 90, 150, 1_000])
            for number in range(int(self.SPAN / HOUR)):
                octets = of_hour * rng.choice([0, 0, 0.3, 1, 3])
                at = self.T0 + number * HOUR + 30 * MINUTE
                rows.append(Row(at, octets * 8 / 3_600, 0, server_id, "eth0", 3_600, 3_600))
        return rows

    def servers(self, seed: int) -> tuple[str, str]:
        return f"{seed}-nas", f"{seed}-pi"

    async def begin(self, database: asyncpg.Connection, seeds: Sequence[int]) -> None:
        await fresh(database, self.T0)
        await set_rule(database, "quota", "quota", **self.SPEC)
        for server_id in (one for seed in seeds for one in self.servers(seed)):
            await arrive(database, server_id, self.T0)
            await database.execute(
                "SELECT linkbeat.set_quota($1, $2, 'in', $3, 'UTC', NULL, 80)", server_id, self.LIMIT, self.ENDS.day
            )

    async def hold(self, database: asyncpg.Connection, seeds: Sequence[int], delays: list[timedelta]) -> None:
        await self.begin(database, seeds)
        rng = random.Random(seeds[0])
        rows = sorted(
            ((self.arrives(row, rng.choice(delays)), row) for seed in seeds for row in self.history(seed)),
            key=lambda arrival: arrival[0],
        )
        at = self.T0
        while at < self.T0 + self.SPAN:
            arrived = [row for moment, row in rows if moment <= at]
            rows = rows[len(arrived) :]
            if arrived:
                await store_late(database, arrived, at)
            await turn(database, at)
            at += rng.choice([60, 179, 180]) * MINUTE
        at = self.T0 + self.SPAN

        did = await recorded(database, "quota")
        said = await backtest(database, "quota", self.T0, at - self.LONGEST - max(delays), **self.SPEC)
        told = {(one.key, one.fired_at >= self.ENDS) for one in did}
        assert len(told) == len(did), ("once in a billing month", did)
        for one in said:
            month = (one.key, one.fired_at - HOUR >= self.ENDS)
            found = [other for other in did if (other.key, other.fired_at >= self.ENDS) == month]
            if not found and not month[1] and one.fired_at + self.LONGEST + max(delays) > self.ENDS:
                continue  # no turn saw it before the month was over
            (same,) = found
            assert -HOUR <= same.fired_at - one.fired_at <= self.LONGEST + max(delays), (one, same)
            if one.resolved_at is not None:
                assert same.resolved_at is not None, (one, same)
                assert timedelta() <= same.resolved_at - self.ENDS <= self.LONGEST
        known = {
            (one.key, one.fired_at - HOUR >= self.ENDS)
            for one in await backtest(database, "quota", self.T0, at + HOUR, **self.SPEC)
        }
        assert told <= known

    def arrives(self, row: Row, delay: timedelta) -> datetime:
        """Before the billing month ends, to which the row belongs: of the month before nobody is told."""
        moment = row.time + delay
        return min(moment, self.ENDS - 4 * MINUTE) if row.time < self.ENDS <= moment else moment

    @pytest.mark.parametrize("delays", [[SECOND], [SECOND, SECOND, HOUR, 12 * HOUR]], ids=["in order", "in any order"])
    def test_turns_record_what_the_backtest_says(self, database_url: str, delays: list[timedelta]) -> None:
        over_histories(lambda database, seeds: self.hold(database, seeds, delays), database_url)
