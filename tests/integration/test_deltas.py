"""What a sample adds to its interface's traffic, case by case, and how the row says that it came about."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.aggregates import LEVELS
from tests.helpers.evidence import T0, at, report
from tests.helpers.support import Client, boot_id, deltas, heartbeat


async def report_packets(service: Client, *readings: tuple[float, str, int, int]) -> None:
    """As `report`, with rx_packets last."""
    for seconds, boot, rx, packets in readings:
        await report(service, (seconds, boot, rx), rx_packets=packets)


class TestCase24:
    """32-bit wrap, reboot, replay, reversed order."""

    async def test_case_24_a_wrap_at_32_bits_that_packets_confirm(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        rate = 3 * 10**8
        first = 2**32 - rate - rate // 2

        await report_packets(
            service, (0, "b", first, 0), (30, "b", first + rate, 300_000), (60, "b", rate // 2, 600_000)
        )

        assert (await deltas(database))[1:] == [(rate, "normal"), (rate, "wrap")]

    async def test_case_24_without_packets_the_same_is_a_reset(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        rate = 3 * 10**8
        first = 2**32 - rate - rate // 2

        await report(service, (0, "b", first), (30, "b", first + rate), (60, "b", rate // 2))

        assert (await deltas(database))[1:] == [(rate, "normal"), (rate // 2, "reset")]

    async def test_case_24_a_shrink_without_evidence_is_a_reset(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "b", 3_900_000_000), (30, "b", 3_900_000_100), (60, "b", 1_000))

        assert (await deltas(database))[1:] == [(100, "normal"), (1_000, "reset")]

    async def test_case_24_a_counter_that_passed_32_bits_does_not_wrap_there(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """A small step back counts on from the highest value; what fell by itself counts on from where it is."""
        await report_packets(
            service, (0, "b", 2**32 + 5, 10), (30, "b", 2**32 - 10, 20), (60, "b", 5, 30), (90, "b", 9, 40)
        )

        assert (await deltas(database))[1:] == [(0, "dip"), (0, "dip"), (4, "normal")]

    async def test_case_24_in_the_next_boot_it_may(self, service: Client, database: asyncpg.Connection) -> None:
        await report_packets(
            service, (0, "a", 2**32 + 5, 10), (30, "b", 2**32 - 10, 4_000_000), (60, "b", 5, 4_000_001)
        )

        assert (await deltas(database))[1:] == [(2**32 - 10, "reboot"), (15, "wrap")]

    async def test_case_24_after_a_reboot_the_new_value_counts_from_zero(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "a", 10**10), (30, "b", 10**6), (60, "b", 10**6 + 50))

        assert (await deltas(database))[1:] == [(10**6, "reboot"), (50, "normal")]

    async def test_case_24_even_where_the_counter_is_larger_after_it(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "a", 1_000), (30, "b", 5_000))

        assert (await deltas(database))[1:] == [(5_000, "reboot")]

    @pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3, 2, 2]])
    async def test_case_24_replayed_and_reversed_the_sum_is_the_same(
        self, service: Client, database: asyncpg.Connection, order: list[int]
    ) -> None:
        readings = [(0, "a", 1_000), (30, "a", 1_600), (60, "b", 200), (90, "b", 900), (120, "b", 950)]

        await report(service, *(readings[n] for n in order))
        await database.execute("CALL linkbeat.refresh_aggregates(now())")

        assert [delta for delta, _ in await deltas(database)] == [0, 600, 200, 700, 50]
        for level in LEVELS:
            assert await database.fetchval(f"SELECT sum(rx_bytes) FROM network_traffic_{level}") == 1_550


class TestFirst:
    async def test_what_was_counted_before_the_first_sample_is_not_traffic(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "a", 10**12))

        assert await deltas(database) == [(0, "first")]

    async def test_an_interface_that_appears_later_begins_at_zero(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await service.post(heartbeat(at=at(0), eth0=(10, 0)))
        await service.post(heartbeat(at=at(30), eth0=(20, 0), wlan0=(10**9, 0)))
        await service.post(heartbeat(at=at(60), eth0=(30, 0), wlan0=(10**9 + 5, 0)))

        assert await deltas(database, name="wlan0") == [(0, "first"), (5, "normal")]
        assert await deltas(database) == [(0, "first"), (10, "normal"), (10, "normal")]

    async def test_an_interface_that_was_away_counts_on_from_its_last_sample(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await service.post(heartbeat(at=at(0), eth0=(10, 0), wlan0=(100, 0)))
        await service.post(heartbeat(at=at(30), eth0=(20, 0)))
        await service.post(heartbeat(at=at(60), eth0=(30, 0), wlan0=(170, 0)))

        assert await deltas(database, name="wlan0") == [(0, "first"), (70, "normal")]

    async def test_a_late_sample_of_an_interface_that_is_away_is_what_it_counts_on_from(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await service.post(heartbeat(at=at(0), eth0=(10, 0), wlan0=(100, 0)))
        await service.post(heartbeat(at=at(60), eth0=(30, 0)))
        await service.post(heartbeat(at=at(30), eth0=(20, 0), wlan0=(150, 0)))
        await service.post(heartbeat(at=at(90), eth0=(40, 0), wlan0=(170, 0)))

        assert await deltas(database, name="wlan0") == [(0, "first"), (50, "normal"), (20, "normal")]

    async def test_an_interface_that_is_made_again_is_reset(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await service.post(heartbeat(at=at(0), tun0=(5_000, 0)))
        await service.post(heartbeat(at=at(30)))
        await service.post(heartbeat(at=at(60), tun0=(70, 0)))

        assert await deltas(database, name="tun0") == [(0, "first"), (70, "reset")]

    async def test_an_empty_list_ends_what_is_current_and_keeps_the_history(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await service.post(heartbeat(at=at(0), eth0=(10, 0)))

        await service.post(heartbeat(at=at(30)))

        server = await service.get("/servers/nas")
        assert server["network_interfaces"] == []
        assert datetime.fromisoformat(server["last_seen"]) == at(30)
        assert await deltas(database) == [(0, "first")]


class TestGaps:
    async def test_more_than_three_intervals_are_a_gap(self, service: Client, database: asyncpg.Connection) -> None:
        cases = [
            (None, 90, "normal"),
            (None, 90.001, "gap"),
            (60, 180, "normal"),
            (60, 180.001, "gap"),
            (10, 31, "gap"),
        ]
        for interval, seconds, kind in cases:
            server_id = f"{interval}-{seconds}"
            for moment, rx in ((0, 100), (seconds, 300)):
                beat = heartbeat(server_id, at=at(moment), eth0=(rx, 0))
                await service.post({**beat, "interval_seconds": interval})

            assert await deltas(database, server_id) == [(0, "first"), (200, kind)], server_id
            elapsed = "SELECT max(elapsed_ms) FROM network_interface_metrics WHERE server_id = $1"
            assert await database.fetchval(elapsed, server_id) == seconds * 1000

    async def test_eight_hours_of_suspend_are_one_gap_with_its_length(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "a", 1_000), (8 * 3600, "a", 1_600), (8 * 3600 + 30, "a", 1_700))

        assert await deltas(database) == [(0, "first"), (600, "gap"), (100, "normal")]
        assert await database.fetchval("SELECT max(elapsed_ms) FROM network_interface_metrics") == 8 * 3_600_000
        assert await database.fetchval("SELECT max(rx_bps_max) FROM network_traffic_1m") == pytest.approx(100 * 8 / 30)

    async def test_a_late_heartbeat_closes_a_gap(self, service: Client, database: asyncpg.Connection) -> None:
        await report(service, (0, "a", 1_000), (120, "a", 1_600))
        assert (await deltas(database))[1:] == [(600, "gap")]

        await report(service, (60, "a", 1_200))

        assert (await deltas(database))[1:] == [(200, "normal"), (400, "normal")]

    async def test_a_clock_that_was_set_back_is_a_millisecond(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """Within a boot the agent stamps at least its last stamp and a millisecond."""
        await report(service, (100, "a", 1_000), (100.001, "a", 4_000_000), (100.002, "a", 5_000_000))

        assert (await deltas(database))[1:] == [(3_999_000, "normal"), (1_000_000, "normal")]


class TestCounters:
    async def test_all_64_bits_are_kept_and_counted_on(self, service: Client, database: asyncpg.Connection) -> None:
        await report(service, (0, "a", 2**63 - 10), (30, "a", 2**63 + 10), (60, "a", 2**64 - 1), (90, "a", 3))

        assert [delta for delta, _ in await deltas(database)] == [0, 20, 0, 3]
        stored = await database.fetch("SELECT linkbeat.unsigned(rx_bytes) FROM network_interface_metrics ORDER BY time")
        assert [int(row[0]) for row in stored] == [2**63 - 10, 2**63 + 10, 2**64 - 1, 3]

    async def test_errors_and_drops_are_counted_where_they_are_reported(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "a", 0), rx_errors=5)
        await report(service, (30, "a", 1), rx_errors=7, tx_dropped=100)
        await report(service, (60, "a", 2))
        await report(service, (90, "a", 3), rx_errors=9, tx_dropped=90)
        await report(service, (120, "a", 4), rx_errors=1, tx_dropped=91)

        rows = await database.fetch(
            "SELECT rx_errors_delta, tx_dropped_delta, delta_kind FROM network_interface_metrics ORDER BY time"
        )
        assert [tuple(row) for row in rows] == [
            (0, None, "first"), (2, 0, "normal"), (None, None, "normal"), (0, 0, "normal"), (1, 1, "normal")
        ]  # fmt: skip

    async def test_each_counter_is_judged_by_itself_and_the_row_by_its_worst(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """A counter that falls by itself counts its new value only if it usually gains as much."""
        readings = [(0, 0), (10**6, 5 * 10**6), (2 * 10**6, 70), (3 * 10**6, 90)]
        for n, (rx, tx) in enumerate(readings):
            await service.post(heartbeat(at=at(30 * n), eth0=(rx, tx)))
            await service.post(heartbeat("quiet", at=at(30 * n), eth0=(rx, tx if n else 5 * 10**6)))

        for server_id, sent in (("nas", [0, 5 * 10**6, 70, 20]), ("quiet", [0, 0, 0, 20])):
            rows = await database.fetch(
                "SELECT rx_bytes_delta, tx_bytes_delta, delta_kind FROM network_interface_metrics "
                "WHERE server_id = $1 ORDER BY time",
                server_id,
            )
            kinds = ["first", "normal", "reset" if sent[2] else "dip", "normal"]
            assert [tuple(row) for row in rows] == list(zip([0, 10**6, 10**6, 10**6], sent, kinds, strict=True))

    async def test_what_is_shown_as_current_follows_what_was_repaired(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "a", 5_000), (30, "b", 70))

        state = (await database.fetchval("SELECT interfaces FROM servers"))[0]
        assert (state["rx_bytes_delta"], state["elapsed_ms"], state["delta_kind"]) == (70, 30_000, "reboot")


async def test_a_backlog_of_a_day_newest_first_ends_as_if_it_had_come_in_order(
    service: Client, database: asyncpg.Connection
) -> None:
    """Resets, a reboot and a gap among it."""
    beats = []
    for n in [*range(200), *range(230, 288)]:
        boot, rx = ("a", n * 1_000) if n < 100 else ("b", n * 2_000 % 90_000)
        beats.append((T0 - timedelta(hours=4) + timedelta(minutes=5 * n), boot, rx))
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    for moment, boot, rx in beats:
        await service.post(heartbeat("in-order", at=moment, boot=boot, eth0=(rx, rx // 7)))
    while beats:
        batch, beats = beats[-20:], beats[:-20]
        batch.reverse()
        newest_first = [heartbeat("backlog", at=moment, boot=boot, eth0=(rx, rx // 7)) for moment, boot, rx in batch]
        assert (await service.post_batch(newest_first))["stored"] == len(batch)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    columns = "time, rx_bytes_delta, tx_bytes_delta, delta_kind, elapsed_ms, counts_64bit"
    queries = [f"SELECT {columns} FROM network_interface_metrics WHERE server_id = $1 ORDER BY time"]
    queries += [
        f"SELECT bucket, rx_bytes, tx_bytes, rx_bps_max, samples FROM network_traffic_{level} "
        "WHERE server_id = $1 ORDER BY bucket"
        for level in LEVELS
    ]
    for query in queries:
        assert await database.fetch(query, "backlog") == await database.fetch(query, "in-order"), query


# Seconds, eight counters, and the number of the device, which is made again at 233 s. Errors of sent packets dip at
# 203 s and are back at 477 s; dropped packets stay low for longer.
TWO_DIPS = [
    (10, 844133228, 101617915, 0, 0, 0, 7, 0, 2**63, 2),
    (40, 844133465, 101617931, 0, 0, 0, 7, 0, 2**63 + 4, 2),
    (70, 844133838, 101617972, 0, 0, 0, 7, 5, 2**63 + 4, 2),
    (113, 844134141, 101618015, 0, 0, 1, 7, 5, 2**63 + 13, 2),
    (203, 844135193, 101618274, 0, 0, 10, 0, 6, 2**63 + 13, 2),
    (233, 6492725820, 2164241940, 6492725, 2164241, 0, 0, 0, 0, 3),
    (263, 6492726151, 2164241959, 6492725, 2164241, 0, 0, 0, 0, 3),
    (413, 6492727955, 2164242079, 6492727, 2164241, 9, 0, 0, 0, 3),
    (477, 6492728559, 2164242199, 6492727, 2164241, 9, 8, 0, 7, 3),
    (507, 6492728797, 2164242210, 6492727, 2164241, 9, 8, 0, 10, 3),
    (537, 6492729089, 2164242356, 6492727, 2164241, 11, 8, 6, 10, 3),
]  # fmt: skip
COUNTERS = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")


@pytest.mark.parametrize(
    "order",
    [
        range(11),
        (3, 10, 2, 8, 7, 6, 1, 4, 0, 5, 9),
        (5, 8, 10, 4, 6, 3, 0, 2, 1, 7, 9),
        (10, 2, 0, 7, 1, 6, 8, 5, 4, 3, 9),
    ],
)  # fmt: skip
async def test_a_counter_that_came_back_stays_so_while_another_is_still_in_doubt(
    service: Client, database: asyncpg.Connection, order: Sequence[int]
) -> None:
    """The last to arrive, at 507 s, opens again what was concluded of the counter that is still low."""
    for seconds, *values, ifindex in (TWO_DIPS[place] for place in order):
        counters: dict[str, Any] = dict(zip(COUNTERS, values, strict=True))
        device = {"name": "eth0", "is_up": True, "kind": "physical", "speed_mbps": 800_000, "ifindex": ifindex}
        body = heartbeat("nas", at=at(seconds), boot=boot_id("a")) | {"network_interfaces": [device | counters]}
        await service.post(body)

    rows = await database.fetch("SELECT tx_errors_delta, delta_kind FROM network_interface_metrics ORDER BY time")
    assert [row["tx_errors_delta"] for row in rows] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert rows[8]["delta_kind"] == "glitch"
