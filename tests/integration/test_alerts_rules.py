"""Rules that change, turns that compete, restarts, mutes, and late data as ingest stores it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from service.database.roles import ANALYST, READ
from service.settings import Settings
from tests.helpers.alerts import (
    MEGABIT,
    MINUTE,
    SECOND,
    TURN,
    Row,
    arrive,
    backtest,
    begin,
    deliver,
    events,
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
)
from tests.helpers.support import KEY, Client, connected, heartbeat, hours_ago

pytestmark = pytest.mark.background

T0 = hours_ago(6)
HOUR = timedelta(hours=1)
ELSEWHERE = '{"scope": {"servers": ["web-*"]}}'
BUSY, QUIET = 95.0 * MEGABIT, 5.0 * MEGABIT
RULE: dict[str, Any] = {"above_bps": 90 * MEGABIT, "window_seconds": 30, "keep_seconds": 0}


async def test_the_presets_are_there_and_told_to_whatever_channel_comes(database: asyncpg.Connection) -> None:
    rows = await database.fetch("SELECT rule_id, kind, enabled, managed_by FROM public.alert_rules ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        (name, name, True, "preset") for name in ("account", "agent", "filesystem", "quota", "silent")
    ]
    await arrive(database, "nas", T0)
    await listen(database, T0 - HOUR, T0 + HOUR)
    await turn(database, T0 + 5 * MINUTE)
    await set_channel(database)

    await turn(database, T0 + 6 * MINUTE)

    assert told(await deliver(database, T0 + 7 * MINUTE)) == [("firing", "nas")]


class TestRules:
    @pytest.fixture(autouse=True)
    async def _begun(self, database: asyncpg.Connection) -> None:
        await begin(database, T0)
        await set_channel(database)

    async def firing(self, database: asyncpg.Connection) -> datetime:
        await set_rule(database, "busy", "rate", **RULE)
        await store(database, samples(T0, [BUSY] * 100))
        await turns(database, T0, T0 + 2 * MINUTE, MINUTE)
        assert told(await deliver(database, T0 + 3 * MINUTE)) == [("firing", "nas eth0")]
        return T0 + 2 * MINUTE

    async def test_a_rule_that_is_applied_again_changes_nothing(self, database: asyncpg.Connection) -> None:
        """A25"""
        at = await self.firing(database)
        before = await recorded(database)

        assert not await set_rule(database, "busy", "rate", **RULE)
        await turns(database, at + MINUTE, at + 5 * MINUTE, MINUTE)

        assert await recorded(database) == before
        assert await database.fetchval("SELECT revision FROM public.alert_rules") == 1
        assert await set_rule(database, "busy", "rate", **RULE, note="why")
        assert await database.fetchval("SELECT revision FROM public.alert_rules") == 2

    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            ("SELECT linkbeat.delete_alert_rule('busy')", "rule_removed"),
            (
                "SELECT linkbeat.set_alert_rule('busy', kind, spec, severity, false) FROM linkbeat.alert_rules",
                "rule_disabled",
            ),
            (
                f"SELECT linkbeat.set_alert_rule('busy', kind, spec || '{ELSEWHERE}') FROM linkbeat.alert_rules",
                "out_of_scope",
            ),
            ("WITH rows AS (DELETE FROM network_interface_metrics) DELETE FROM servers", "server_removed"),
        ],
    )
    async def test_an_alert_that_cannot_go_on_is_closed_with_the_reason(
        self, database: asyncpg.Connection, statement: str, reason: str
    ) -> None:
        at = await self.firing(database)

        await database.execute(statement)
        await turn(database, at + TURN)

        assert await states(database) == {}
        closed = await database.fetchrow("SELECT to_state, reason FROM public.alert_events ORDER BY event_id DESC")
        assert closed is not None
        assert tuple(closed) == ("closed", reason)
        (message,) = await deliver(database, at + MINUTE)
        assert (message["state"], message["reason"]) == ("closed", reason)

    @pytest.mark.parametrize(
        ("kind", "spec"), [("rate", {"above_bps": "fast"}), ("rate", {"scope": {"servers": "nas"}}), ("speed", {})]
    )
    async def test_a_rule_that_no_turn_could_read_is_refused(
        self, database: asyncpg.Connection, kind: str, spec: dict[str, Any]
    ) -> None:
        with pytest.raises(asyncpg.PostgresError):
            await set_rule(database, "bad", kind, **spec)

        assert await database.fetchval("SELECT count(*) FROM public.alert_rules") == 0

    async def test_one_of_many_processes_has_the_turn(self, database: asyncpg.Connection, database_url: str) -> None:
        """A3: and every transition is recorded once."""
        await set_rule(database, "busy", "rate", **RULE)
        await store(database, samples(T0, ([BUSY] * 4 + [QUIET] * 4) * 4))

        async def process(at: datetime) -> int:
            async with connected(database_url) as connection:
                return int(await turn(connection, at))

        taken = 0
        for number in range(20):
            at = T0 + MINUTE + number * 30 * SECOND
            taken += sum(await asyncio.gather(*(process(at) for _ in range(4))))

        assert taken == 20
        assert not await turn(database, at + 13 * SECOND)
        assert [to for _, to, _ in await events(database)] == ["firing", "resolved"] * (len(await recorded(database)))
        assert len({episode.active_at for episode in await recorded(database)}) == len(await recorded(database)) >= 2

    async def test_a_restart_tells_nobody_anything_and_delays_nothing(self, database: asyncpg.Connection) -> None:
        """A10: ten fire and ten pend; every process is away for four minutes of the five."""
        await set_rule(database, "busy", "rate", **RULE)
        await set_rule(database, "slow", "rate", **RULE | {"for_seconds": 300}, scope={"servers": ["p*"]})
        await set_rule(database, "busy", "rate", **RULE, scope={"servers": ["f*"]})
        await store(
            database,
            [row for n in range(10) for name in "fp" for row in samples(T0, [BUSY] * 60, server_id=f"{name}{n}")],
        )
        await turns(database, T0, T0 + MINUTE, 30 * SECOND)
        assert len(told(await deliver(database, T0 + 90 * SECOND))) == 10
        assert sorted(set((await states(database)).values())) == ["firing", "pending"]

        await turn(database, T0 + 5 * MINUTE)
        assert await deliver(database, T0 + 5 * MINUTE + 14 * SECOND) == []
        await turn(database, T0 + 5 * MINUTE + TURN)

        assert len(told(await deliver(database, T0 + 6 * MINUTE))) == 10
        assert {episode.fired_at for episode in await recorded(database, "slow")} == {T0 + 5 * MINUTE}


class TestMutes:
    """A22"""

    BERLIN = ZoneInfo("Europe/Berlin")

    @pytest.mark.parametrize(
        "day",
        [datetime(2026, 6, 10), datetime(2026, 3, 28), datetime(2026, 10, 24), datetime(2026, 12, 31)],  # noqa: DTZ001  # a date
    )
    async def test_a_weekly_mute_goes_by_the_clock_of_its_zone(
        self, database: asyncpg.Connection, day: datetime
    ) -> None:
        """Also in the nights in which it is set forward and back."""
        await database.execute(
            "SELECT linkbeat.set_alert_mute('night', '{}', NULL, NULL, $1, 'Europe/Berlin', 'anna', 'asleep')",
            json.dumps({"from": "22:00", "until": "06:00"}),
        )
        for hour in (*range(20, 24), *range(24, 32)):
            local = (day + timedelta(days=hour // 24)).replace(hour=hour % 24, minute=30, tzinfo=self.BERLIN)
            muted = await database.fetchval("SELECT linkbeat.is_muted('r', 's', $1)", local.astimezone(UTC))
            assert muted is (22 <= hour < 30), local

    @pytest.mark.parametrize(
        ("days", "muted"), [([3], True), ([4], False), ([2, 3, 7], True), (None, True), ([], False)]
    )
    async def test_a_night_belongs_to_the_day_on_which_it_begins(
        self, database: asyncpg.Connection, days: list[int] | None, muted: bool
    ) -> None:
        weekly: dict[str, Any] = {"from": "22:00", "until": "06:00"} | ({} if days is None else {"days": days})
        await database.execute(
            "SELECT linkbeat.set_alert_mute('night', '{}', NULL, NULL, $1, 'UTC', 'anna', '')", json.dumps(weekly)
        )
        wednesday = datetime(2026, 6, 10, tzinfo=UTC)

        for at in (wednesday + 23 * HOUR, wednesday + 27 * HOUR):
            assert await database.fetchval("SELECT linkbeat.is_muted('r', 's', $1)", at) is muted

    @pytest.mark.parametrize(
        ("matcher", "muted"),
        [
            ({}, True), ({"servers": ["n?s"]}, True), ({"servers": ["web-*"]}, False), ({"rules": ["busy"]}, True),
            ({"rules": ["s*"], "servers": ["nas"]}, False),
        ],
    )  # fmt: skip
    async def test_it_matches_servers_and_rules(
        self, database: asyncpg.Connection, matcher: dict[str, Any], muted: bool
    ) -> None:
        await database.execute(
            "SELECT linkbeat.set_alert_mute('m', $1, $2, $3, NULL, 'UTC', 'anna', '')",
            json.dumps(matcher),
            T0,
            T0 + HOUR,
        )

        for at, expected in ((T0, muted), (T0 + HOUR - SECOND, muted), (T0 - SECOND, False), (T0 + HOUR, False)):
            assert await database.fetchval("SELECT linkbeat.is_muted('busy', 'nas', $1)", at) is expected

    async def test_what_still_fires_at_the_end_is_told_then_and_what_is_over_is_not(
        self, database: asyncpg.Connection
    ) -> None:
        await begin(database, T0)
        await set_channel(database)
        await set_rule(database, "busy", "rate", **RULE)
        await database.execute(
            "SELECT linkbeat.set_alert_mute('m', '{}', $1, $2, NULL, 'UTC', 'anna', '')", T0, T0 + 10 * MINUTE
        )
        await store(database, [*samples(T0, [BUSY] * 4 + [QUIET] * 30), *samples(T0, [BUSY] * 60, server_id="pi")])

        await turns(database, T0, T0 + 9 * MINUTE, MINUTE)
        assert await deliver(database, T0 + 9 * MINUTE + 50 * SECOND) == []
        await turn(database, T0 + 10 * MINUTE)

        assert told(await deliver(database, T0 + 11 * MINUTE)) == [("firing", "pi eth0")]
        assert len(await recorded(database)) == 2

    @pytest.mark.parametrize("night", [datetime(2026, 3, 28), datetime(2026, 10, 24)])  # noqa: DTZ001  # a date
    async def test_what_fires_in_a_night_of_23_or_25_hours_is_told_at_its_end_by_the_clock(
        self, database: asyncpg.Connection, night: datetime
    ) -> None:
        begins = night.replace(hour=22, tzinfo=self.BERLIN).astimezone(UTC)
        ends = (night + timedelta(days=1)).replace(hour=6, tzinfo=self.BERLIN).astimezone(UTC)
        assert ends - begins in (7 * HOUR, 9 * HOUR)
        await begin(database, begins)
        await set_channel(database)
        await set_rule(database, "busy", "rate", **RULE)
        await database.execute(
            "SELECT linkbeat.set_alert_mute('night', '{}', NULL, NULL, $1, 'Europe/Berlin', 'anna', 'asleep')",
            json.dumps({"from": "22:00", "until": "06:00"}),
        )
        fires, over = begins + HOUR, ends - HOUR
        for server_id, until in (("lasts", ends + HOUR), ("ends", over)):
            count = int((until - fires) / (30 * SECOND))
            await store(database, samples(fires, [BUSY] * count, server_id=server_id))
        await store(database, samples(over, [QUIET] * 10, server_id="ends"))

        await turns(database, begins, ends - TURN, 30 * MINUTE)
        await turn(database, ends - SECOND)
        assert len(await recorded(database)) == 2
        assert await deliver(database, ends - SECOND) == []
        await turn(database, ends + TURN)

        assert told(await deliver(database, ends + MINUTE)) == [("firing", "lasts eth0")]


class TestLateData:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        """The service has one turn, at its start; the others are the test's, later than that."""
        return Settings(api_key=KEY, data_dir=str(tmp_path), alert_seconds=300)

    @pytest.fixture(autouse=True)
    async def _begun(self, database: asyncpg.Connection) -> None:
        await database.execute("DELETE FROM linkbeat.alert_rules")
        await set_channel(database)
        await set_channel(database, "history", sends_late=True)
        await set_rule(database, "busy", "rate", **RULE | {"window_seconds": 60, "keep_seconds": 60})

    async def test_a_days_replay_writes_history_and_pages_nobody(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """A14: it holds ten minutes above the bound; posted in any order, between live heartbeats."""
        now = hours_ago(0)
        await service.post(heartbeat(at=now, eth0=(0, 0)))
        start = now - 20 * HOUR
        counter, beats, busy = 0, [], (start + HOUR, start + HOUR + 10 * MINUTE)
        for number in range(240):
            at = start + number * 30 * SECOND
            counter += round((BUSY if busy[0] < at <= busy[1] else QUIET) * 30 / 8)
            beats.append(heartbeat(at=at, eth0=(counter, 0)))
        later = datetime.now(UTC) + MINUTE
        assert await turn(database, later)

        await service.post_batch(beats[120:])
        assert await turn(database, later + TURN)
        await service.post_batch(beats[:120])
        assert await turn(database, later + 2 * TURN)

        (episode,) = await recorded(database)
        assert (episode.active_at, episode.cleared_at) == (busy[0] + 60 * SECOND, busy[1] + 30 * SECOND)
        assert await backtest(database, "rate", start, now, **RULE | {"window_seconds": 60, "keep_seconds": 60}) == [
            episode
        ]
        assert await database.fetchval("SELECT bool_and(is_late) FROM public.alert_events")
        sent = await database.fetch("SELECT * FROM linkbeat.claim_messages(8, $1)", now + HOUR)
        assert [(row["channel_id"], json.loads(row["payload"])["is_late"]) for row in sent] == [("history", True)]

    async def test_a_backlog_in_order_is_late_too(self, service: Client, database: asyncpg.Connection) -> None:
        """Oldest first, without a live heartbeat: each is the newest when it comes, and old."""
        now = hours_ago(0)
        later = datetime.now(UTC) + MINUTE
        assert await turn(database, later)
        start, counter, beats = now - 3 * HOUR, 0, []
        for number in range(100):
            counter += round((BUSY if 40 <= number < 60 else QUIET) * 30 / 8)
            beats.append(heartbeat(at=start + number * 30 * SECOND, eth0=(counter, 0)))

        for first in range(0, 100, 20):
            await service.post_batch(beats[first : first + 20])
            assert await turn(database, later + (first + 20) * SECOND)

        (episode,) = await recorded(database)
        assert episode.active_at == start + 41 * 30 * SECOND
        assert await database.fetchval("SELECT count(*) FROM public.alert_events WHERE NOT is_told") == 2
        assert told(await deliver(database, now + HOUR)) == [("resolved", "nas eth0")]  # to those who ask for history

    async def test_live_heartbeats_are_not_noted_as_late(self, service: Client, database: asyncpg.Connection) -> None:
        """Their time is ahead of the service's clock: a machine that stalls makes none of them late."""
        start = datetime.now(UTC) + MINUTE
        for n in range(3):
            await service.post(heartbeat(at=start + n * SECOND, eth0=(1, 1)))

        assert await database.fetchval("SELECT count(*) FROM linkbeat.late_arrivals") == 0

    async def test_heartbeats_are_late_ten_seconds_after_their_time(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        start = hours_ago(1)
        await service.post(heartbeat(at=start, eth0=(1, 1)))
        await database.execute("DELETE FROM linkbeat.late_arrivals")

        async def noted(seconds: int, late: timedelta) -> list[datetime]:
            time = start + seconds * SECOND
            await database.execute("UPDATE servers SET last_seen = $1, received_at = $2", time, time + late)
            rows = await database.fetch("DELETE FROM linkbeat.late_arrivals RETURNING until")
            return [row["until"] for row in rows]

        assert await noted(30, 10 * SECOND) == []
        assert await noted(60, 10 * SECOND + timedelta(microseconds=1)) == [start + MINUTE]

    async def test_what_is_beyond_the_rows_works_on_minutes_and_says_so(self, database: asyncpg.Connection) -> None:
        start = hours_ago(24 * 20)
        rule = json.dumps({"kind": "rate", **RULE | {"window_seconds": 60, "keep_seconds": 60}})
        await store(database, [Row(start + n * 30 * SECOND, BUSY if 20 <= n < 40 else QUIET) for n in range(80)])

        async def found(since: datetime) -> list[Any]:
            return await database.fetch("SELECT * FROM linkbeat.alert_episodes($1, $2, $3)", rule, since, start + HOUR)

        (minutes,) = await found(start)
        await database.execute("UPDATE linkbeat.configuration SET days = 30 WHERE setting = 'retain_raw_days'")
        (rows,) = await found(start)

        assert (minutes["basis"], rows["basis"]) == ("minutes", "rows")
        assert abs(minutes["active_at"] - rows["active_at"]) <= MINUTE
        assert abs(minutes["cleared_at"] - rows["cleared_at"]) <= MINUTE


async def test_readers_see_no_channels_secret(database: asyncpg.Connection) -> None:
    """A25"""
    await set_channel(database, secret=b"s3cret")
    for role in (READ, ANALYST):
        await database.execute(f"SET ROLE {role}")
        for view in ("alerts", "alert_events", "alert_rules", "alert_messages"):
            await database.fetch(f"SELECT * FROM public.{view}")
        # The service reads spec, which shows a URL's host alone.
        for column in ("secret",) if role == READ else ("secret", "spec", "channel_id"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await database.fetch(f"SELECT {column} FROM linkbeat.alert_channels")
        await database.execute("RESET ROLE")
