"""What each kind of rule sees: link, errors, filesystem, quota, account, agent."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

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
from tests.helpers.support import Client, boot_id, heartbeat, hours_ago, interface

pytestmark = pytest.mark.background

T0 = hours_ago(6)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GIB = 1 << 30


@pytest.fixture(autouse=True)
async def _begun(database: asyncpg.Connection) -> None:
    await begin(database, T0)
    await set_channel(database)


def link(ups: str, **more: Any) -> list[Row]:
    """A row every 30 seconds: `u` up, `d` down."""
    rows = samples(T0, [0.0] * len(ups), **more)
    for row, up in zip(rows, ups, strict=True):
        row.is_up = up == "u"
    return rows


class TestLink:
    async def test_a_link_that_goes_down_fires_after_a_minute(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "link", "link", keep_seconds=0)
        await store(database, [*link("uudddduuuuuu"), *link("uuduuuuuuuuu", interface_name="eth1")])

        await turns(database, T0, T0 + 8 * MINUTE, MINUTE)

        (episode,) = await recorded(database)
        assert (episode.subject, episode.active_at) == ("eth0", T0 + MINUTE)
        assert (episode.fired_at, episode.resolved_at) == (T0 + 2 * MINUTE, T0 + 3 * MINUTE)

    async def test_a_port_that_was_never_up_is_no_alert(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "link", "link")
        await store(database, link("d" * 12))

        await turns(database, T0, T0 + 8 * MINUTE, MINUTE)

        assert await events(database) == []
        assert await backtest(database, "link", T0, T0 + HOUR) == []

    @pytest.mark.parametrize(("ups", "changes"), [("uuduuduuuu", 4), ("ududuuuuuu", 4), ("uuduuuuuuu", None)])
    async def test_a_link_that_changes_four_times_in_ten_minutes_flaps(
        self, database: asyncpg.Connection, ups: str, changes: int | None
    ) -> None:
        await set_rule(database, "link", "link")
        await store(database, link(ups))

        await turns(database, T0, T0 + 8 * MINUTE, MINUTE)

        reason = await database.fetchval("SELECT reason FROM public.alerts")
        assert reason == (f"flapping: {changes} changes" if changes else None)

    async def test_changes_between_two_heartbeats_count_as_the_kernel_counts_them(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """A19: six changes that no sample shows; a device that appears again counts from the beginning."""
        await set_rule(database, "link", "link", keep_seconds=0)
        start = datetime.now(UTC) - 5 * MINUTE
        for number, (name, changes) in enumerate(
            [("eth0", 2), ("eth1", 2), ("eth0", 8), ("eth1", 4), ("eth0", 8), ("eth1", 1)]
        ):
            beat = heartbeat(f"s-{name}", at=start + number * 15 * SECOND)
            counted = interface(name, 1_000, 1_000, carrier_changes=changes)
            await service.post(beat | {"interval_seconds": 30, "network_interfaces": [counted]})
        at = datetime.now(UTC)
        await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = $1", start - MINUTE)

        await turn(database, at)

        assert await states(database) == {("link", "s-eth0", "eth0"): "firing"}
        reason = await database.fetchval("SELECT reason FROM public.alerts")
        assert reason == "flapping: 6 changes"
        (said,) = await backtest(database, "link", start - MINUTE, at, keep_seconds=0)
        assert (said.subject, said.active_at) == ("eth0", (await recorded(database))[0].active_at)

    async def test_an_interface_that_is_gone_for_a_day_is_closed_and_not_resolved(
        self, database: asyncpg.Connection
    ) -> None:
        """A18"""
        await set_rule(database, "link", "link")
        await store(database, link("uudddd"))
        await turns(database, T0, T0 + 4 * MINUTE, MINUTE)
        assert told(await deliver(database, T0 + 5 * MINUTE)) == [("firing", "nas eth0")]

        await arrive(database, "nas", T0 + 24 * HOUR)
        await turn(database, T0 + 24 * HOUR)
        assert await states(database) == {("link", "nas", "eth0"): "firing"}
        await arrive(database, "nas", T0 + 25 * HOUR)
        await turn(database, T0 + 25 * HOUR)

        assert [to for _, to, _ in await events(database)] == ["firing", "closed"]
        assert await database.fetchval("SELECT reason FROM public.alert_events WHERE to_state = 'closed'") == "gone"
        assert told(await deliver(database, T0 + 26 * HOUR)) == [("closed", "nas eth0")]


class TestErrors:
    @pytest.mark.parametrize(
        ("faults", "packets", "fires"), [(10, 9_000, True), (4, 9_000, False), (10, 400, False), (10, 600_000, False)]
    )
    async def test_many_errors_and_a_share_of_many_packets(
        self, database: asyncpg.Connection, faults: int, packets: int, fires: bool
    ) -> None:
        """100 and 0.1 % of at least 10,000 packets, within 10 minutes: 20 samples."""
        await set_rule(database, "errors", "errors")
        await store(database, samples(T0, [0.0] * 24, faults=faults, packets=packets))

        await turns(database, T0, T0 + 13 * MINUTE, MINUTE)

        assert await states(database) == ({("errors", "nas", "eth0"): "firing"} if fires else {})


async def filesystem(
    database: asyncpg.Connection,
    rows: list[tuple[datetime, float, float]],
    mount: str = "/",
    total: int = 100 * GIB,
    fs_type: str = "ext4",
) -> None:
    """(time, percent, available bytes)"""
    await database.copy_records_to_table(
        "filesystem_metrics",
        columns=(
            "time", "server_id", "mount_point", "device", "fs_type", "total_bytes", "used_bytes",
            "available_bytes", "percent",
        ),
        records=[
            (at, "nas", mount, "sda", fs_type, total, total - round(available), round(available), percent)
            for at, percent, available in rows
        ],
    )  # fmt: skip
    every = (rows[1][0] - rows[0][0]).total_seconds()
    await arrive(database, "nas", rows[-1][0], every, filesystems=json.dumps([{"mount_point": mount}]))


def filling(
    since: datetime, until: datetime, used_percent: Callable[[timedelta], float], every: timedelta = 5 * MINUTE
) -> list[tuple[datetime, float, float]]:
    """A filesystem of 100 GiB whose used share follows from the time since `since`."""
    rows = []
    at = since
    while at < until:
        percent = used_percent(at - since)
        rows.append((at, percent, (100 - percent) * GIB))
        at += every
    return rows


class TestFilesystem:
    async def test_a_share_that_is_used(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "disk", "filesystem", above_percent=90, keep_seconds=0)
        await filesystem(
            database, filling(T0, T0 + 10 * MINUTE, lambda t: 91 if 2 * MINUTE <= t < 6 * MINUTE else 89, MINUTE)
        )

        await turns(database, T0, T0 + 12 * MINUTE, MINUTE)

        assert await events(database) == [
            ("nas /", "firing", T0 + 2 * MINUTE), ("nas /", "resolved", T0 + 6 * MINUTE),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("fs_type", "mount"),
        [
            ("squashfs", "/mnt/image"), ("iso9660", "/media/cd"), ("fuse.squashfuse_ll", "/opt/img"),
            ("fuse.Obsidian-1.5.AppImage", "/opt/app"), ("fuse", "/opt/.mount_ObsidiAbc123"),
        ],
    )  # fmt: skip
    async def test_an_image_that_is_always_full_is_no_alert(
        self, database: asyncpg.Connection, fs_type: str, mount: str
    ) -> None:
        rule: dict[str, Any] = {"above_percent": 90, "keep_seconds": 0}
        await set_rule(database, "disk", "filesystem", **rule)
        full = filling(T0, T0 + 5 * MINUTE, lambda _: 100, MINUTE)
        await filesystem(database, full)
        await filesystem(database, full, mount, fs_type=fs_type)
        await database.execute(
            "UPDATE servers SET filesystems = $1",
            json.dumps([{"mount_point": "/", "fs_type": "ext4"}, {"mount_point": mount, "fs_type": fs_type}]),
        )

        await turn(database, T0 + 6 * MINUTE)

        assert await states(database) == {("disk", "nas", "/"): "firing"}
        (said,) = await backtest(database, "filesystem", T0 - MINUTE, T0 + 6 * MINUTE, **rule)
        assert said.subject == "/"

    async def test_bytes_that_are_left(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "disk", "filesystem", below_bytes=5 * GIB)
        await filesystem(database, filling(T0, T0 + 3 * MINUTE, lambda _: 96, MINUTE))

        await turns(database, T0, T0 + 4 * MINUTE, MINUTE)

        assert await states(database) == {("disk", "nas", "/"): "firing"}

    async def test_a_mount_that_does_not_answer_for_ten_minutes(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "disk", "filesystem", keep_seconds=0)
        await filesystem(database, filling(T0, T0 + 16 * MINUTE, lambda _: 50, MINUTE), "/mnt/nfs")
        await database.execute(
            "UPDATE filesystem_metrics SET state = 'unreachable', percent = NULL, available_bytes = NULL "
            "WHERE time BETWEEN $1 AND $2",
            T0 + 2 * MINUTE,
            T0 + 13 * MINUTE,
        )

        await turns(database, T0, T0 + 18 * MINUTE, MINUTE)

        assert await events(database) == [
            ("nas /mnt/nfs", "firing", T0 + 12 * MINUTE), ("nas /mnt/nfs", "resolved", T0 + 14 * MINUTE),
        ]  # fmt: skip

    async def test_bursts_that_are_cleaned_up_are_no_trend(self, database: asyncpg.Connection) -> None:
        """A21: 40 GB more in 20 minutes, then log rotation, every day for a month."""
        since = hours_ago(24 * 31)

        def used(passed: timedelta) -> float:
            of_day = passed % DAY
            return 45 + min(max((of_day - 10 * HOUR) / (20 * MINUTE), 0), 1) * 40 if of_day < 14 * HOUR else 45.0

        await filesystem(database, filling(since, since + 30 * DAY, used))

        assert await backtest(database, "filesystem", since, since + 30 * DAY, full_within_hours=24) == []

    async def test_a_steady_leak_is_seen_within_two_hours(self, database: asyncpg.Connection) -> None:
        """A21: full in 20 hours."""
        since = hours_ago(24)
        await filesystem(database, filling(since, since + 10 * HOUR, lambda t: 60 + 40 * (t / (20 * HOUR))))

        (episode,) = await backtest(database, "filesystem", since, since + 10 * HOUR, full_within_hours=24)
        assert episode.fired_at <= since + 2 * HOUR

        await set_rule(database, "disk", "filesystem", full_within_hours=24)
        await begin_at(database, since)
        await turns(database, since + TURN, since + 2 * HOUR + 5 * MINUTE, 5 * MINUTE)
        (live,) = await recorded(database)
        assert live.fired_at == episode.fired_at


async def begin_at(database: asyncpg.Connection, at: datetime) -> None:
    await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = $1", at)


class TestQuota:
    async def test_each_level_is_told_once_a_month_and_closed_at_its_end_by_the_quotas_zone(
        self, database: asyncpg.Connection
    ) -> None:
        """A20"""
        march = datetime(2026, 3, 1, 5, tzinfo=UTC)  # midnight in New York
        april = datetime(2026, 4, 1, 4, tzinfo=UTC)
        await arrive(database, "nas", march)
        await database.execute("SELECT linkbeat.set_quota('nas', 1000000000, 'in', 1, 'America/New_York', NULL, 80)")
        await set_rule(database, "quota", "quota", percent=[80, 100], forecast=False, keep_seconds=0)
        per_day = 30_000_000 * 8 / 86_400  # bit/s
        rows = [
            Row(march + day * DAY, per_day, elapsed_seconds=86_400, interval_seconds=86_400) for day in range(1, 28)
        ] + [Row(april + DAY, per_day * 5 / 3, elapsed_seconds=86_400, interval_seconds=86_400)]
        await begin_at(database, march)

        await store(database, rows[:26])  # 780 MB
        await turn(database, march + 27 * DAY)
        assert await states(database) == {}
        await store(database, rows[26:27])  # 810 MB
        await turn(database, march + 28 * DAY)
        assert await states(database) == {("quota", "nas", "80%"): "firing"}
        assert told(await deliver(database, march + 29 * DAY)) == [("firing", "nas 80%")]
        await turn(database, april - MINUTE)
        await turn(database, april + MINUTE)
        assert await states(database) == {}
        await store(database, rows[27:])  # 5 %
        await turn(database, april + 2 * DAY)

        assert await states(database) == {}
        assert told(await deliver(database, april + 3 * DAY)) == [("closed", "nas 80%")]
        assert (
            await database.fetchval("SELECT reason FROM public.alert_events WHERE to_state = 'closed'") == "period_over"
        )
        (episode,) = await backtest(database, "quota", march, april, percent=[80, 100], forecast=False)
        assert (episode.subject, episode.fired_at) == ("80%", march + 27 * DAY + HOUR)

        much = Row(april + 4 * DAY, per_day * 28, elapsed_seconds=86_400, interval_seconds=86_400)
        await store(database, [much])
        await turn(database, april + 5 * DAY)
        assert told(await deliver(database, april + 6 * DAY)) == [("firing", "nas 80%")]

    async def test_what_a_month_is_expected_to_bring_counts_from_its_third_day_on(
        self, database: asyncpg.Connection
    ) -> None:
        march = datetime(2026, 3, 1, tzinfo=UTC)
        await arrive(database, "nas", march)
        await database.execute("SELECT linkbeat.set_quota('nas', 1000000000, 'in', 1, 'UTC', NULL, 80)")
        await set_rule(database, "quota", "quota")
        await store(
            database,
            [
                Row(march + n * HOUR, 50_000_000 * 8 / 86_400, elapsed_seconds=3_600, interval_seconds=3_600)
                for n in range(1, 49)
            ],
        )
        await begin_at(database, march)

        await turn(database, march + 47 * HOUR)
        assert await states(database) == {}
        await turn(database, march + 48 * HOUR)
        assert await states(database) == {("quota", "nas", "forecast"): "firing"}


class TestAccount:
    @pytest.mark.parametrize(
        ("kind", "fires"),
        [("reset", True), ("rejected", True), ("reboot", False), ("wrap", False), ("glitch", False), ("dip", False)],
    )
    async def test_resets_and_rejected_readings_and_no_reboots_or_wraps(
        self, database: asyncpg.Connection, kind: str, fires: bool
    ) -> None:
        """A16; and none of them is traffic that a rate would fire by."""
        await set_rule(database, "account", "account")
        await set_rule(database, "busy", "rate", above_bps=90 * MEGABIT, window_seconds=30)
        rows = samples(T0, [0.0] * 6)
        rows[2].delta_kind = kind
        rows[2].rx_bps = 10**12 if kind == "rejected" else 0.0
        await store(database, rows)

        await turns(database, T0, T0 + 4 * MINUTE, MINUTE)

        assert await states(database) == ({("account", "nas", ""): "firing"} if fires else {})

        await turn(database, T0 + 24 * HOUR + 2 * MINUTE)
        await turns(database, T0 + 24 * HOUR + 3 * MINUTE, T0 + 24 * HOUR + 9 * MINUTE, MINUTE)
        assert await states(database) == {}
        did, said = await recorded(database), await backtest(database, "account", T0, T0 + 25 * HOUR)
        assert len(did) == len(said) == fires

    async def test_what_ingest_judges_endangers_the_account_and_is_no_rate(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """A16: counters that fall without a reboot or with one, wrap at 32 bits, or rise faster than the line."""
        await set_rule(database, "account", "account")
        await set_rule(database, "busy", "rate", above_bps=90 * MEGABIT, window_seconds=30)
        start = datetime.now(UTC) - 5 * MINUTE
        readings: dict[str, list[tuple[str, int]]] = {
            "reset": [("a", 3 * 10**9), ("a", 3 * 10**9 + 10**6), ("a", 10**6), ("a", 2 * 10**6)],
            "wrap": [("a", 2**32 - 2 * 10**7), ("a", 2**32 - 10**7), ("a", 10**6), ("a", 11 * 10**6)],
            "reboot": [("a", 3 * 10**9), ("a", 3 * 10**9 + 10**6), ("b", 10**6), ("b", 2 * 10**6)],
            "rejected": [("a", 10**9), ("a", 10**9 + 10**6), ("a", 10**15), ("a", 10**15 + 10**6)],
        }
        for number in range(4):
            for server_id, told_of in readings.items():
                boot, rx = told_of[number]
                beat = heartbeat(server_id, at=start + number * 30 * SECOND, boot=boot_id(f"{server_id} {boot}"))
                # Packets of the 32-bit counter go on: that shows the wrap.
                packets = 4_000_000 + number * 11_000 if server_id == "wrap" else rx // 1_000
                counted = interface("eth0", rx, rx_packets=packets, kind="physical", speed_mbps=1_000)
                await service.post(beat | {"interval_seconds": 30, "network_interfaces": [counted]})
        kinds = await database.fetch(
            "SELECT server_id, array_agg(DISTINCT delta_kind) AS kinds FROM network_interface_metrics GROUP BY 1"
        )
        assert all(row["server_id"] in row["kinds"] for row in kinds), kinds
        await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = $1", start - MINUTE)

        await turn(database, datetime.now(UTC))

        assert await states(database) == {
            ("account", "rejected", ""): "firing",
            ("account", "reset", ""): "firing",
        }

    async def test_a_rule_can_ask_for_several_resets_a_day(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "account", "account", resets=2)
        rows = samples(T0, [0.0] * 12)
        rows[2].delta_kind = rows[8].delta_kind = "reset"
        await store(database, rows)

        await turns(database, T0, T0 + 4 * MINUTE, MINUTE)
        assert await states(database) == {}
        await turns(database, T0 + 5 * MINUTE, T0 + 6 * MINUTE, MINUTE)
        assert await states(database) == {("account", "nas", ""): "firing"}

    async def test_conflicts_that_rise_and_not_those_that_were_there(self, database: asyncpg.Connection) -> None:
        await arrive(database, "old", T0, conflicts=7)
        await arrive(database, "new", T0)
        await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = '-infinity'")
        await set_rule(database, "account", "account")
        await turn(database, T0)
        assert await states(database) == {}

        await arrive(database, "old", T0 + TURN, conflicts=8)
        await turn(database, T0 + TURN)
        assert await states(database) == {("account", "old", ""): "firing"}

    async def test_two_machines_under_one_id(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "account", "account")
        await arrive(database, "nas", T0, shared_since=T0 - MINUTE, shared_at=T0)

        await turn(database, T0)

        assert await database.fetchval("SELECT reason FROM public.alerts") == "two machines report under its id"


class TestAgent:
    @pytest.mark.parametrize(
        ("report", "reason"),
        [
            ({"spool": "memory"}, "its spool is in memory"),
            ({"truncated": True}, "interfaces are left out"),
            ({"spool": "disk", "queued": 7, "dropped": 0, "rejected": 0}, None),
            ({"rejected": 2}, "heartbeats were rejected"),
            ({"dropped": 3}, "3 heartbeats were dropped"),
        ],
    )
    async def test_what_an_agent_says_of_its_deliveries(
        self, database: asyncpg.Connection, report: dict[str, Any], reason: str | None
    ) -> None:
        await set_rule(database, "agent", "agent")
        await arrive(database, "nas", T0, agent_report=json.dumps(report))

        await turn(database, T0)

        assert await database.fetchval("SELECT reason FROM public.alerts") == reason

    async def test_a_counter_that_begins_again_counts_from_zero(self, database: asyncpg.Connection) -> None:
        """A24: 5, a restart, 2: never -3."""
        await set_rule(database, "agent", "agent")
        grown = []
        for number, dropped in enumerate((0, 5, 5, 2, 2, 3)):
            at = T0 + number * MINUTE
            await arrive(database, "nas", at, agent_report=json.dumps({"dropped": dropped}))
            await turn(database, at)
            grown.append(await database.fetchval("SELECT coalesce(sum(value), 0)::integer FROM public.alerts"))

        assert grown == [0, 5, 5, 7, 7, 8]

    async def test_a_clock_that_is_off_in_five_live_heartbeats(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "agent", "agent")
        for number, skew in enumerate((40_000, 40_000, 100, *[-31_000] * 5)):
            assert await states(database) == {}
            at = T0 + number * 30 * SECOND
            await arrive(database, "nas", at, clock_skew_ms=skew)
            await turn(database, at)
            await turn(database, at + TURN)  # the same heartbeat counts once

        assert await database.fetchval("SELECT reason FROM public.alerts") == "its clock is off by 31 seconds"

    async def test_heartbeats_that_arrive_and_are_old(self, database: asyncpg.Connection) -> None:
        await set_rule(database, "agent", "agent")
        await arrive(database, "nas", T0, last_seen=T0 - 20 * MINUTE)

        await turn(database, T0)

        assert await database.fetchval("SELECT reason FROM public.alerts") == "its newest heartbeat is 20 minutes old"
