"""What a link can have carried: its speed, packets beyond it, and what it usually carries."""

from typing import Any

import asyncpg

from tests.helpers.aggregates import LEVELS
from tests.helpers.evidence import report
from tests.helpers.support import Client, deltas

GIGABIT: dict[str, Any] = {"kind": "physical", "speed_mbps": 1_000}
GBIT_SECOND = 125_000_000  # bytes in a second at 1 Gbit/s


class TestLinkSpeed:
    """A delta above the line rate and 2 %, with a second of grace, was never on the wire."""

    MOST = GBIT_SECOND * 31 * 102 // 100

    async def test_a_physical_link_carries_its_line_rate_at_the_most(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        for more, found in ((self.MOST, (self.MOST, "normal")), (self.MOST + 1, (0, "rejected"))):
            readings = [(0, "a", 10), (30, "a", 10 + more), (60, "a", 15 + more)]
            await report(service, *readings, server_id=str(more), **GIGABIT)

            assert (await deltas(database, str(more)))[1:] == [found, (5, "normal")]

    async def test_where_the_speed_is_not_known_400_gbits_are_the_most(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        for rx in (2**64 - 1, 2**63, 400 * GBIT_SECOND * 31 + 2):
            await report(service, (0, "a", 1), (30, "a", rx), server_id=str(rx))

            assert (await deltas(database, str(rx)))[1:] == [(0, "rejected")]

    async def test_what_a_virtual_link_says_of_its_speed_is_no_bound(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        for kind, speed in (("tunnel", 10), (None, 10), ("physical", -1), ("physical", 0)):
            server_id = f"{kind}{speed}"
            await report(service, (0, "a", 10), (30, "a", 10**10), server_id=server_id, kind=kind, speed_mbps=speed)

            assert (await deltas(database, server_id))[1:] == [(10**10 - 10, "normal")]

    async def test_of_a_link_that_changed_its_speed_the_greater_counts(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """Where it gains more than that, but no more than it usually does, it is believed."""
        await report(service, (0, "a", 0), kind="physical", speed_mbps=10_000)
        await report(service, (30, "a", 2 * self.MOST), (60, "a", 4 * self.MOST), kind="physical", speed_mbps=1_000)
        await report(service, (90, "a", 9 * self.MOST + 9), kind="physical", speed_mbps=10)
        await report(service, (120, "a", 30 * self.MOST), kind="physical", speed_mbps=10)

        assert (await deltas(database))[1:] == [
            (2 * self.MOST, "normal"), (2 * self.MOST, "normal"), (5 * self.MOST + 9, "normal"), (0, "rejected")
        ]  # fmt: skip

    async def test_a_link_whose_speed_is_no_longer_told_is_as_fast_as_it_was(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        await report(service, (0, "a", 0), kind="physical", speed_mbps=10)
        await report(service, (30, "a", 10**9), (60, "a", 2 * 10**9), kind="physical")

        assert (await deltas(database))[1:] == [(0, "rejected"), (10**9, "normal")]

    async def test_an_octet_counter_alone_restarts_with_no_more_than_its_line_carries(
        self, service: Client, database: asyncpg.Connection
    ) -> None:
        """In line with the rate before, which was too much for the link already."""
        rate = 10**8
        readings = [(0.0, "a", 2**32 - rate - rate // 2), (30.0, "a", 2**32 - rate // 2), (60.0, "a", rate // 2)]

        await report(service, *readings[:1], kind="physical", speed_mbps=1_000)
        await report(service, *readings[1:], kind="physical", speed_mbps=10)

        assert (await deltas(database))[1:] == [(rate, "normal"), (0, "rejected")]

    async def test_one_impossible_row_enters_no_level(self, service: Client, database: asyncpg.Connection) -> None:
        await report(service, (0, "a", 10), (30, "a", 2**62), (60, "a", 2**62 + 7))
        await database.execute("CALL linkbeat.refresh_aggregates(now())")

        for level in LEVELS:
            assert await database.fetchval(f"SELECT sum(rx_bytes) FROM network_traffic_{level}") == 7
