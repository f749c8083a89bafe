"""Alerts of an interface whose rows move to another series, because a late heartbeat shows that it had another name."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.alerts import (
    MEGABIT,
    MINUTE,
    SECOND,
    TURN,
    backtest,
    begin,
    deliver,
    recorded,
    set_channel,
    set_rule,
    states,
    told,
    turn,
)
from tests.helpers.support import Client, boot_id, connected, hours_ago, interface

T0 = hours_ago(3)
STEP = 30 * SECOND
BUSY, QUIET = 95 * MEGABIT, 5 * MEGABIT
RULE: dict[str, Any] = {"above_bps": 90 * MEGABIT, "window_seconds": 30, "keep_seconds": 60, "direction": "rx"}


@pytest.fixture(autouse=True)
async def _begun(database: asyncpg.Connection) -> None:
    await begin(database, T0)
    await set_channel(database)


class Machine:
    """Cards that count, whatever the system calls them. `send` posts heartbeats and moves the test's time on."""

    def __init__(self, service: Client, database: asyncpg.Connection) -> None:
        self.service, self.database = service, database
        self.counters: dict[int, int] = {}
        self.begins = 10**9
        self.at = T0
        self.messages: list[dict[str, Any]] = []

    def beat(self, boot: str, cards: Sequence[tuple[str, int, float]]) -> dict[str, Any]:
        """The next heartbeat: the name, the kernel's number and the receive rate of each card."""
        self.at += STEP
        described = []
        for name, ifindex, bps in cards:
            self.counters[ifindex] = self.counters.get(ifindex, self.begins) + round(bps * 30 / 8)
            rx = self.counters[ifindex]
            described.append(interface(name, rx, kind="physical", ifindex=ifindex, rx_packets=rx // 1000))
        return {
            "server_id": "nas",
            "hostname": "nas",
            "timestamp": self.at.isoformat(),
            "boot_id": boot_id(boot),
            "network_interfaces": described,
        }

    def reboot(self) -> None:
        self.counters.clear()
        self.begins = 0

    async def send(self, count: int, boot: str, *cards: tuple[str, int, float]) -> None:
        await self.service.post_batch([self.beat(boot, cards) for _ in range(count)])
        await self.turn()

    async def turn(self, after: timedelta = MINUTE) -> None:
        """The next turn, and what it tells."""
        at = max(
            self.at + after,
            await self.database.fetchval("SELECT evaluated_at FROM linkbeat.alert_clock") + TURN,
        )
        assert await turn(self.database, at)
        self.messages += await deliver(self.database, at + 10 * SECOND)

    def told(self) -> list[tuple[str, str]]:
        """What was told since this was last asked."""
        messages, self.messages = self.messages, []
        return told(messages)


@pytest.fixture
def nas(service: Client, database: asyncpg.Connection) -> Machine:
    return Machine(service, database)


async def interfaces(database: asyncpg.Connection) -> set[str]:
    return {row[0] for row in await database.fetch("SELECT DISTINCT interface_name FROM network_interface_metrics")}


async def fires_as_lan0(nas: Machine, database: asyncpg.Connection) -> dict[str, Any]:
    """After a reboot, the card ens3 is busy as lan0, and somebody is told. Returns the late heartbeat that says so."""
    await set_rule(database, "busy", "rate", **RULE)
    await nas.send(4, "a", ("ens3", 2, QUIET))
    nas.reboot()
    late = nas.beat("b", [("ens3", 3, QUIET)])
    await nas.send(8, "b", ("lan0", 3, BUSY))
    assert nas.told() == [("firing", "nas lan0")]
    return late


async def test_what_fires_goes_on_under_the_series_and_ends_once(nas: Machine, database: asyncpg.Connection) -> None:
    """Its end is told under the name under which it was told to fire: a receiver may know it by that."""
    late = await fires_as_lan0(nas, database)
    (before,) = await recorded(database)
    episode = await database.fetchval("SELECT episode FROM public.alerts")

    await nas.service.post(late)
    await nas.turn()

    assert await interfaces(database) == {"ens3"}
    assert await states(database) == {("busy", "nas", "ens3"): "firing"}
    assert await database.fetchval("SELECT episode FROM public.alerts") == episode
    (after,) = await recorded(database)
    assert (after.subject, after.active_at) == ("ens3", before.active_at)
    assert nas.told() == []

    await nas.send(2, "b", ("lan0", 3, BUSY))
    assert nas.told() == []
    await nas.send(6, "b", ("lan0", 3, QUIET))
    assert nas.told() == [("resolved", "nas lan0")]
    assert len(await recorded(database)) == 1
    assert await states(database) == {}


async def test_two_alerts_that_turn_out_to_be_one_leave_the_older_one(
    nas: Machine, database: asyncpg.Connection
) -> None:
    """`ens3` fires, and is held when the machine boots with another name, under which it fires again."""
    await set_rule(database, "busy", "rate", **RULE)
    await nas.send(6, "a", ("ens3", 2, BUSY))
    (first,) = await recorded(database)
    nas.reboot()
    late = nas.beat("b", [("ens3", 3, BUSY)])
    await nas.send(6, "b", ("lan0", 3, BUSY))
    assert nas.told() == [("firing", "nas ens3"), ("firing", "nas lan0")]

    await nas.service.post(late)
    await nas.turn()

    assert await states(database) == {("busy", "nas", "ens3"): "firing"}
    assert nas.told() == [("closed", "nas lan0")]
    reason = await database.fetchval("SELECT reason FROM public.alert_events WHERE to_state = 'closed'")
    assert reason == "moved"

    await nas.send(6, "b", ("lan0", 3, QUIET))
    assert nas.told() == [("resolved", "nas ens3")]
    assert await states(database) == {}
    ((_, said),) = [(e.subject, e) for e in await backtest(database, "rate", T0, nas.at, **RULE)]
    assert said in await recorded(database)
    assert said.active_at == first.active_at


async def test_what_pends_fires_at_the_moment_at_which_it_would_have(
    nas: Machine, database: asyncpg.Connection
) -> None:
    await set_rule(database, "slow", "rate", **RULE | {"for_seconds": 300})
    await nas.send(4, "a", ("ens3", 2, QUIET))
    nas.reboot()
    late = nas.beat("b", [("ens3", 3, QUIET)])
    await nas.send(5, "b", ("lan0", 3, BUSY))
    pends = await database.fetchval("SELECT active_at FROM public.alerts WHERE state = 'pending'")

    await nas.service.post(late)
    await nas.turn()
    # What crossed between the late heartbeat and the first one of the new name is known by now.
    assert await states(database) == {("slow", "nas", "ens3"): "pending"}
    assert await database.fetchval("SELECT active_at FROM public.alerts") == pends - STEP
    await nas.send(10, "b", ("lan0", 3, BUSY))

    (episode,) = await recorded(database)
    assert (episode.subject, episode.fired_at) == ("ens3", pends - STEP + 5 * MINUTE)
    assert nas.told() == [("firing", "nas ens3")]


async def test_an_alert_that_is_over_is_history_of_the_series_once(nas: Machine, database: asyncpg.Connection) -> None:
    await set_channel(database, sends_late=True)
    await set_rule(database, "busy", "rate", **RULE)
    await nas.send(4, "a", ("ens3", 2, QUIET))
    nas.reboot()
    late = nas.beat("b", [("ens3", 3, QUIET)])
    await nas.send(1, "b", ("lan0", 3, QUIET))
    await nas.send(8, "b", ("lan0", 3, BUSY))
    await nas.send(50, "b", ("lan0", 3, QUIET))
    assert nas.told() == [("firing", "nas lan0"), ("resolved", "nas lan0")]
    (before,) = await recorded(database)

    await nas.service.post(late)
    for _ in range(3):
        await nas.turn()

    (after,) = await recorded(database)
    assert await backtest(database, "rate", T0, nas.at, **RULE) == [after]
    assert (after.subject, after.active_at, after.resolved_at) == ("ens3", before.active_at, before.resolved_at)
    assert nas.told() == []


async def test_alerts_change_places_with_the_rows(nas: Machine, database: asyncpg.Connection) -> None:
    """Two cards swap their names while what was sent before waits in the spool."""
    await set_rule(database, "busy", "rate", **RULE)
    await set_rule(database, "idle", "rate", below_bps=10 * MEGABIT, window_seconds=30, direction="rx")
    await nas.send(4, "a", ("eth0", 2, 50 * MEGABIT), ("eth1", 3, 50 * MEGABIT))
    nas.reboot()
    late = nas.beat("b", [("eth0", 2, 50 * MEGABIT), ("eth1", 3, 50 * MEGABIT)])
    await nas.send(8, "b", ("eth1", 2, QUIET), ("eth0", 3, BUSY))
    was = {("busy", "nas", "eth0"): "firing", ("idle", "nas", "eth1"): "firing"}
    assert await states(database) == was
    assert sorted(nas.told()) == [("firing", "nas eth0"), ("firing", "nas eth1")]

    await nas.service.post(late)
    await nas.turn()

    assert await states(database) == {("busy", "nas", "eth1"): "firing", ("idle", "nas", "eth0"): "firing"}
    assert nas.told() == []
    await nas.send(12, "b", ("eth1", 2, 50 * MEGABIT), ("eth0", 3, 50 * MEGABIT))
    await nas.send(2, "b", ("eth1", 2, 50 * MEGABIT), ("eth0", 3, 50 * MEGABIT))
    assert sorted(nas.told()) == [("resolved", "nas eth0"), ("resolved", "nas eth1")]


async def test_a_move_in_the_middle_of_a_turn_doubles_nothing(
    nas: Machine, database: asyncpg.Connection, database_url: str
) -> None:
    late = await fires_as_lan0(nas, database)
    await nas.service.post_batch([nas.beat("b", [("lan0", 3, BUSY)]) for _ in range(2)])

    async with connected(database_url) as other, connected(database_url) as blocker:
        # The turn has taken in what was moved before, and waits for the late heartbeats.
        holding = blocker.transaction()
        await holding.start()
        await blocker.execute("SELECT FROM linkbeat.late_arrivals FOR UPDATE")
        taking = asyncio.create_task(turn(other, nas.at + MINUTE))
        while not await database.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        await nas.service.post(late)
        await holding.rollback()
        assert await taking

    assert await states(database) == {("busy", "nas", "ens3"): "firing"}
    await nas.turn(2 * MINUTE)
    assert await states(database) == {("busy", "nas", "ens3"): "firing"}
    assert nas.told() == []
    assert len(await recorded(database)) == 1


async def test_a_reset_that_late_data_explains_endangers_the_account_no_longer(
    nas: Machine, database: asyncpg.Connection
) -> None:
    """Another card came under the name, and its counters are lower; the heartbeat that shows both comes late."""
    await set_rule(database, "account", "account", keep_seconds=0)
    await nas.send(4, "a", ("eth0", 2, QUIET))
    nas.counters[4] = 1_000
    late = nas.beat("a", [("eth0", 2, QUIET), ("lan0", 4, QUIET)])
    await nas.send(4, "a", ("eth0", 4, QUIET))
    assert nas.told() == [("firing", "nas")]

    await nas.service.post(late)
    await nas.turn()
    await nas.turn()

    assert await interfaces(database) == {"eth0", "lan0"}
    assert nas.told() == [("resolved", "nas")]
    assert await states(database) == {}
