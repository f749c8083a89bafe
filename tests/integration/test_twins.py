"""Two machines under one id, as a cloned disk makes them: each is counted for itself, and it is said."""

from datetime import datetime, timedelta

import asyncpg

from tests.support import Client, deltas, heartbeat, hours_ago, interface

T0 = hours_ago(20)

Reading = tuple[float, str | None, int]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


async def report(service: Client, *readings: Reading, name: str = "eth0") -> None:
    """Posts heartbeats of one interface: seconds from T0, boot, rx_bytes."""
    for seconds, boot, rx in readings:
        await service.post({**heartbeat(at=at(seconds), boot=boot), "network_interfaces": [interface(name, rx)]})


async def is_shared(database: asyncpg.Connection) -> bool:
    return bool(await database.fetchval("SELECT shared_since IS NOT NULL FROM servers"))


ALTERNATING: list[Reading] = [
    (0, "a", 1_000), (10, "b", 700_000), (30, "a", 1_100), (40, "b", 700_005), (60, "a", 1_300), (70, "b", 700_010)
]  # fmt: skip
EACH_FOR_ITSELF = [(0, "first"), (0, "first"), (100, "normal"), (5, "normal"), (200, "normal"), (5, "normal")]


async def test_two_machines_are_no_reboots(service: Client, database: asyncpg.Connection) -> None:
    await report(service, *ALTERNATING)

    assert await deltas(database) == EACH_FOR_ITSELF
    assert await is_shared(database)
    elapsed = await database.fetch("SELECT elapsed_ms FROM network_interface_metrics ORDER BY time")
    assert [row[0] for row in elapsed] == [0, 0, 30_000, 30_000, 30_000, 30_000]


async def test_in_whatever_order_they_come(service: Client, database: asyncpg.Connection) -> None:
    await report(service, *ALTERNATING[::-1])

    assert await deltas(database) == EACH_FOR_ITSELF
    assert await is_shared(database)


async def test_a_backlog_tells_that_what_looked_like_a_reboot_was_another_machine(
    service: Client, database: asyncpg.Connection
) -> None:
    """The first machine came in order only: that it ran so long stands nowhere but in its server's row."""
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "a", 1_300), (90, "b", 700_010))
    assert (await deltas(database))[3] == (700_010, "reboot")
    assert not await is_shared(database)

    await report(service, (40, "b", 700_000))

    assert await deltas(database) == [
        (0, "first"), (100, "normal"), (0, "first"), (200, "normal"), (10, "normal")
    ]  # fmt: skip
    assert await is_shared(database)


async def test_the_newest_state_follows(service: Client, database: asyncpg.Connection) -> None:
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "a", 1_300), (90, "b", 700_010), (40, "b", 700_000))

    await report(service, (120, "b", 700_090), (130, "a", 1_400))

    assert (await deltas(database))[5:] == [(80, "normal"), (100, "normal")]


async def test_one_boot_after_the_other_is_one_machine(service: Client, database: asyncpg.Connection) -> None:
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "b", 70), (90, "b", 80), (120, "c", 5))

    assert await deltas(database) == [
        (0, "first"), (100, "normal"), (70, "reboot"), (10, "normal"), (5, "reboot")
    ]  # fmt: skip
    assert not await is_shared(database)


async def test_once_one_of_the_two_is_gone_the_other_reboots_as_any(
    service: Client, database: asyncpg.Connection
) -> None:
    await report(service, *ALTERNATING, (120, "c", 50), (150, "c", 60))

    assert (await deltas(database))[6:] == [(50, "reboot"), (10, "normal")]


async def test_a_reboot_of_one_while_the_other_runs_counts_from_its_first_sample(
    service: Client, database: asyncpg.Connection
) -> None:
    await report(service, *ALTERNATING, (90, "c", 50), (100, "b", 700_020), (120, "c", 75))

    assert (await deltas(database))[6:] == [(0, "first"), (10, "normal"), (25, "normal")]


async def test_an_interface_that_the_other_one_had_first_begins_at_zero(
    service: Client, database: asyncpg.Connection
) -> None:
    """Also where the other machine is the younger one."""
    await report(service, *ALTERNATING)
    await report(service, (80, "b", 10**6), (95, "a", 40_000), (110, "b", 10**6 + 9), (125, "a", 40_001), name="wlan0")

    assert await deltas(database, name="wlan0") == [(0, "first"), (0, "first"), (9, "normal"), (1, "normal")]


async def test_interfaces_that_a_backlog_does_not_name_are_counted_anew_too(
    service: Client, database: asyncpg.Connection
) -> None:
    """With it, it was the other machine that began while this one ran."""
    await report(service, (0, "old", 500), name="wlan0")
    await report(service, (60, "a", 1_000), name="eth0")
    await report(service, (70, "b", 2_000), name="eth0")
    await report(service, (90, "a", 900), name="wlan0")
    assert (await deltas(database, name="wlan0"))[1] == (900, "reboot")

    await report(service, (30, "b", 1_990), name="eth0")

    assert (await deltas(database, name="wlan0"))[1] == (0, "first")


async def test_a_replay_from_another_boot_is_no_machine(service: Client, database: asyncpg.Connection) -> None:
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "a", 1_300))

    answer = await service.post(heartbeat(at=at(30), boot="b", eth0=(9, 0)))

    assert answer["duplicate"]
    assert not await is_shared(database)
    assert await database.fetchval("SELECT conflicts FROM servers") == 1
    assert await deltas(database) == [(0, "first"), (100, "normal"), (200, "normal")]


async def test_a_heartbeat_without_a_boot_is_of_no_boot(service: Client, database: asyncpg.Connection) -> None:
    """It does not stretch the boot before it: another one within that time is then no other machine."""
    await report(service, (0, "a", 1_000), (90, None, 1_500), (30, "b", 40), (60, "b", 50))

    assert await deltas(database) == [(0, "first"), (40, "reboot"), (10, "normal"), (1_450, "normal")]
    assert not await is_shared(database)
