"""Agents as the second copy: a database that lacks what was acknowledged gets it back from them.

A real agent, service and servers; an acknowledgement counts when the old server has the rows.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from agent.keeping import read_epochs
from tests.helpers.agents import AgentProcess
from tests.helpers.processes import KillableService, killable_service
from tests.helpers.support import KEY, differing_rows
from tests.helpers.two_servers import Pair, Server, Switch, two_servers

SERVER = "second-line"
# What an agent says of a moment; where nothing of it is missing, the deltas are the same too.
ROWS = """
SELECT time, interface_name, rx_bytes, tx_bytes, rx_packets, tx_packets, is_up, rx_bytes_delta, tx_bytes_delta,
       delta_kind, elapsed_ms
FROM network_interface_metrics WHERE server_id = 'second-line' ORDER BY time, interface_name
"""
MOMENTS = "SELECT count(DISTINCT time) FROM network_interface_metrics WHERE server_id = 'second-line'"
MOMENTS_UNTIL = f"{MOMENTS} AND time <= $1"
DUPLICATES = "SELECT duplicates FROM public.agent_overview WHERE server_id = 'second-line'"


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with two_servers() as pair:
        yield pair


@pytest.fixture
def pair(servers: Pair) -> Pair:
    """A primary without rows, and a standby that no commit waits for."""
    servers.restore()
    servers.primary.set_system("synchronous_standby_names", "")
    for table in ("servers", "server_boots", "network_interface_metrics", "server_metrics", "filesystem_metrics"):
        servers.primary.query(f"TRUNCATE {table} CASCADE")
    return servers


@dataclass
class Site:
    """An agent that reports every second to a service, whose database is `switch.target`."""

    pair: Pair
    switch: Switch
    service: KillableService
    spool: Path
    agent: AgentProcess

    def restart_agent(self) -> None:
        self.agent.kill()
        self.agent = start_agent(self.service.url, self.spool)


def start_agent(url: str, spool: Path) -> AgentProcess:
    return AgentProcess(url, spool, SERVER, API_KEY=KEY, SPOOL_KEEP_SECONDS="86400", INCLUDE_INTERFACES="*")


@pytest.fixture
async def site(pair: Pair, tmp_path: Path) -> AsyncIterator[Site]:
    async with Switch(pair) as switch, killable_service(switch.url, tmp_path) as service:
        spool = tmp_path / "spool"
        site = Site(pair, switch, service, spool, start_agent(service.url, spool))
        try:
            yield site
        finally:
            site.agent.kill()


async def until(holds: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    """The database and the agent tell nobody how far they are."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.2)


def moments(server: Server) -> int:
    return int(server.query(MOMENTS)[0])


async def arrivals(server: Server, count: int) -> None:
    enough = moments(server) + count
    await until(lambda: moments(server) >= enough, f"{count} heartbeats more arrive")


def epoch(server: Server) -> str:
    return server.query(
        "SELECT system_identifier || '.' || ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int "
        "FROM pg_control_system()"
    )[0]


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[asyncpg.Connection]:
    database = await asyncpg.connect(server.url, server_settings={"timezone": "UTC"})
    try:
        yield database
    finally:
        await database.close()


async def check_all_is_there(site: Site, acknowledged: list[asyncpg.Record], known: int) -> None:
    """The new database has every row of the old one, the same, and its sums are right on every level; of `known`
    moments it had the rows before.
    """
    server = site.switch.target
    last = acknowledged[-1]["time"]
    async with connected(server) as database:
        async with asyncio.timeout(120):
            while (  # noqa: ASYNC110  # the database tells nobody
                await database.fetchval(MOMENTS_UNTIL, last) < len({row["time"] for row in acknowledged})
                or await database.fetchval(DUPLICATES) < known
            ):
                await asyncio.sleep(0.2)
        assert [row for row in await database.fetch(ROWS) if row["time"] <= last] == acknowledged
        assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
        await database.execute("CALL linkbeat.refresh_aggregates(now())")
        assert await differing_rows(database) == {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
        after = await database.fetch(
            "SELECT interface_name, sum(rx_bytes_delta)::bigint AS moved, max(rx_bytes) - min(rx_bytes) AS counted "
            "FROM network_interface_metrics WHERE server_id = 'second-line' GROUP BY 1"
        )
        assert after
        assert [row["moved"] for row in after] == [row["counted"] for row in after]
        overview = await database.fetchrow("SELECT duplicates, conflicts, dropped, rejected FROM public.agent_overview")
        assert overview is not None
        assert (overview["conflicts"], overview["dropped"], overview["rejected"]) == (0, 0, 0)
        assert overview["duplicates"] >= known
    assert "Traceback" not in site.agent.log + site.service.log


async def test_what_a_lagging_standby_lacks_when_it_takes_over_comes_back(site: Site) -> None:
    old, new = site.pair.primary, site.pair.standby
    await until(lambda: moments(new) >= 4, "the standby has heartbeats")
    new.stop()
    await arrivals(old, 5)
    was = epoch(old)
    old.kill()
    new.start()
    known = moments(new)

    site.pair.fail_over()
    site.switch.target = new
    await until(lambda: "has another database now" in site.agent.log, "the agent learns of it")

    acknowledged = await rows_of_dead(old)
    assert known < len({row["time"] for row in acknowledged})
    await check_all_is_there(site, acknowledged, known)
    now = epoch(new)
    assert was != now
    assert read_epochs(site.spool / "epoch").current == now
    assert f"has another database now ({now}, was {was}); " in site.agent.log
    await until(lambda: "all kept heartbeats have been sent again" in site.agent.log, "it ends")


async def test_what_a_restored_backup_lacks_comes_back_although_the_agent_is_killed_in_between(site: Site) -> None:
    old, new = site.pair.primary, site.pair.standby
    await arrivals(old, 4)
    backup(old, new)
    await arrivals(old, 20)
    site.restart_agent()
    await arrivals(old, 3)
    was = epoch(old)
    old.kill()

    new.start_restored()
    known = moments(new)
    site.pair.primary, site.pair.standby = new, old
    site.switch.target = new
    for _ in range(3):
        await arrivals(new, 4)
        site.restart_agent()

    acknowledged = await rows_of_dead(old)
    assert known + 20 <= len({row["time"] for row in acknowledged})
    await check_all_is_there(site, acknowledged, known)
    assert was != epoch(new) == read_epochs(site.spool / "epoch").current
    assert f"has another database now ({epoch(new)}, was {was}); " in site.agent.log


async def rows_of_dead(server: Server) -> list[asyncpg.Record]:
    """All that it had: it runs again for that, and nobody writes to it."""
    server.start()
    async with connected(server) as database:
        rows = await database.fetch(ROWS)
    server.stop()
    return rows


def backup(server: Server, place: Server) -> None:
    """Copies `server` to the directory of `place`, which does not run afterwards."""
    place.stop()
    place.follow(server)
    place.stop()
