"""Two machines under one id, as a cloned disk makes them: each is counted for itself, and it is said."""

from datetime import datetime, timedelta

import asyncpg

from tests.helpers.accounts import Sent, check_servers
from tests.helpers.machines import body
from tests.helpers.oracle import Beat, Sample
from tests.helpers.support import Client, boot_id, deltas, heartbeat, hours_ago, interface

T0 = hours_ago(20)

Reading = tuple[float, str | None, int]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


async def report(service: Client, *readings: Reading, name: str = "eth0") -> None:
    """Posts heartbeats of one interface, live: seconds from T0, a label of the boot, rx_bytes."""
    for seconds, label, rx in readings:
        boot = None if label is None else boot_id(label)
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


async def test_boots_that_overlap_in_time_alone_are_one_machine_whose_clock_was_wrong(
    service: Client, database: asyncpg.Connection
) -> None:
    """Nothing of the first one arrives after the second; each row counts from its own boot's."""
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "a", 1_300), (40, "b", 700_000), (90, "b", 700_010))

    assert await deltas(database) == [
        (0, "first"), (100, "normal"), (700_000, "reboot"), (200, "normal"), (10, "normal")
    ]  # fmt: skip
    assert not await is_shared(database)


async def test_an_arrival_tells_that_what_looked_like_a_reboot_was_another_machine(
    service: Client, database: asyncpg.Connection
) -> None:
    """The first machine came in order only: that it ran so long stands nowhere but in its server's row."""
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "a", 1_300), (90, "b", 700_010), (40, "b", 700_000))
    assert (await deltas(database))[2] == (700_000, "reboot")
    assert not await is_shared(database)

    await report(service, (100, "a", 1_310))

    assert await deltas(database) == [
        (0, "first"), (100, "normal"), (0, "first"), (200, "normal"), (10, "normal"), (10, "normal")
    ]  # fmt: skip
    assert await is_shared(database)
    assert await database.fetchval("SELECT count(*) FROM server_boots WHERE alternates") == 2


async def test_a_batch_of_what_was_stored_up_is_no_alternation(service: Client, database: asyncpg.Connection) -> None:
    """The first boot's last hours arrive after its reboot: a replay is no sign of life."""
    await report(service, (0, "a", 1_000), (90, "b", 70), (30, "b", 50))

    late = [heartbeat(at=at(seconds), boot=boot_id("a"), eth0=(rx, 0)) for seconds, rx in ((20, 1_010), (60, 1_300))]
    assert (await service.post_batch(late))["stored"] == 2

    assert not await is_shared(database)
    assert await database.fetchval("SELECT count(*) FROM server_boots WHERE alternates") == 0


async def test_the_newest_state_follows(service: Client, database: asyncpg.Connection) -> None:
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "a", 1_300), (90, "b", 700_010), (40, "b", 700_000))

    await report(service, (120, "b", 700_090), (130, "a", 1_400))

    assert (await deltas(database))[5:] == [(80, "normal"), (100, "normal")]


async def age_alternation(database: asyncpg.Connection, hours: float) -> datetime:
    """Moves the last alternation into the past; returns since when the id is shared, as the row says."""
    await database.execute(
        "UPDATE servers SET shared_since = shared_since - $1::interval, shared_at = now() - $1::interval",
        timedelta(hours=hours),
    )
    since = await database.fetchval("SELECT shared_since FROM servers")
    assert isinstance(since, datetime)
    return since


async def shown_shared_since(service: Client, database: asyncpg.Connection) -> datetime | None:
    """As the API and the analysts' view say, which must agree."""
    told = (await service.get("/servers/nas"))["shared_since"]
    view = await database.fetchval("SELECT shared_since FROM server_overview")
    assert view == (None if told is None else datetime.fromisoformat(told))
    assert [one["shared_since"] for one in (await service.get("/servers"))["servers"]] == [told]
    return view if isinstance(view, datetime) else None


async def test_what_is_shared_ends_a_day_after_the_last_alternation(
    service: Client, database: asyncpg.Connection
) -> None:
    await report(service, *ALTERNATING)
    for hours in (0, 23.9):
        since = await age_alternation(database, hours)
        assert await shown_shared_since(service, database) == since

    await age_alternation(database, 24.1)

    assert await shown_shared_since(service, database) is None
    assert await deltas(database) == EACH_FOR_ITSELF  # what was concluded of these rows stands


async def test_another_alternation_begins_again(service: Client, database: asyncpg.Connection) -> None:
    await report(service, *ALTERNATING)
    since = await age_alternation(database, 23.9)
    await report(service, (90, "a", 1_400), (100, "b", 700_020))
    assert await shown_shared_since(service, database) == since  # it went on within the day

    ended = await age_alternation(database, 30)
    await report(service, (120, "a", 1_500))

    began = await shown_shared_since(service, database)
    assert began is not None
    assert began > ended
    row = await database.fetchrow("SELECT shared_since, shared_at, statement_timestamp() AS now FROM servers")
    assert row is not None
    assert row["shared_since"] == row["shared_at"]
    assert row["now"] - row["shared_at"] < timedelta(minutes=10)


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


async def test_interfaces_that_a_backlog_does_not_name_are_counted_again_too(
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


async def test_an_interface_that_one_machine_did_not_have_at_first_is_the_other_ones_until_then(
    service: Client, database: asyncpg.Connection
) -> None:
    """Its boot is older than all samples of the interface: nothing that it could have been counted from was dropped."""
    await report(service, (120, "a", 900), (90, "b", 2_000), name="wlan0")
    assert (await deltas(database, name="wlan0"))[1] == (900, "reboot")

    await report(service, (0, "a", 1_000), name="eth0")

    assert await is_shared(database)
    assert await deltas(database, name="wlan0") == [(0, "first"), (0, "first")]


async def test_a_late_sample_counts_wherever_ids_that_may_flicker_are_told_apart(
    service: Client, database: asyncpg.Connection
) -> None:
    """The last 20 samples decide. With one more, the fall from the first to the second is no longer among them."""
    counters = [100_000, 5_000, *(10_000 + 1_000 * n for n in range(18))]
    readings = [(100 * n, "two" if n == 1 else "one", rx) for n, rx in enumerate(counters)]
    readings += [(2_000, "two", 40_000)]
    await service.post_batch([heartbeat(at=at(seconds), boot=boot, eth0=(rx, 0)) for seconds, boot, rx in readings])
    assert (await deltas(database))[-1] == (35_000, "gap")  # each counts for itself

    await service.post(heartbeat(at=at(350), boot="one", eth0=(11_500, 0)))

    assert (await deltas(database))[-1] == (13_000, "gap")  # one machine, whose id flickers


async def test_what_a_later_sample_showed_to_be_wrong_is_open_again_as_far_back_as_it_was(
    service: Client, database: asyncpg.Connection
) -> None:
    """The fourth sample shows two before it to be wrong, one of them by way of the other."""
    sent = [
        Beat(at(seconds), boot, {"eth0": Sample((*counters, None, None, None, None))})
        for seconds, boot, counters in [
            (0.0, "a-129", (9_035_117_108, 3_184_722_232, 9_150_460, 3_963_295)),
            (9.8, "b-129", (3_813_859_797, 182_591_554, 362_973, 4_294_966_493)),
            (59.6, "b-130", (0, 0, 0, 0)),
            (64.0, "a-130", (11_013_725_570, 0, 11_348_913, 4_669_940)),
            (89.6, None, (0, 0, 0, 0)),
            (209.6, "b-131", (3_813_859_797, 182_591_554, 362_973, 4_294_966_493)),
            (3_715.4, "a-130", (3_175_218_846_927, 1_500_555_394, 5_315_608, 1_577_395)),
        ]
    ]

    for beat in sent:
        await service.post(body("nas", beat))

    assert await is_shared(database)  # since the last of them; the samples before it were judged again
    assert await check_servers(database, {"nas": Sent(sent)}, budget=100) == {}
    assert [kind for _, kind in await deltas(database)] == [
        "first", "glitch", "glitch", "glitch", "glitch", "gap", "rejected"
    ]  # fmt: skip


async def test_a_late_sample_of_one_leaves_what_the_other_one_showed_to_be_wrong(
    service: Client, database: asyncpg.Connection
) -> None:
    """Seed 483845782: the second of two low readings was judged again by itself, and became a dip."""

    def sample(second: int, boot: str, rx_packets: int | None = None) -> Beat:
        counters = (second * 1_000, second * 800, second if rx_packets is None else rx_packets, second, 0, 0, 0, 0)
        return Beat(at(second), boot_id(boot), {"eth0": Sample(counters)}, uptime_seconds=1_000.0 + second)

    one = [sample(second, "a", {330: 0, 390: 170}.get(second)) for second in range(30, 600, 60)]
    other = [sample(second, "b") for second in (60, 120, 350, 360, 420)]
    late = other.pop(3)
    beats = [*sorted([*one, *other], key=lambda beat: beat.time), late]

    for beat in beats:
        await service.post(body("srv-1", beat))

    assert await check_servers(database, {"srv-1": Sent(beats)}, 100) == {}
    rows = await database.fetch("SELECT time FROM network_interface_metrics WHERE delta_kind = 'glitch' ORDER BY time")
    assert [row["time"] for row in rows] == [at(330), at(390)]


async def test_a_replay_from_another_boot_is_no_machine(service: Client, database: asyncpg.Connection) -> None:
    await report(service, (0, "a", 1_000), (30, "a", 1_100), (60, "a", 1_300))

    answer = await service.post(heartbeat(at=at(30), boot=boot_id("b"), eth0=(9, 0)))

    assert answer["duplicate"]
    assert not await is_shared(database)
    assert await database.fetchval("SELECT conflicts FROM servers") == 1
    assert await deltas(database) == [(0, "first"), (100, "normal"), (200, "normal")]


async def test_a_heartbeat_without_a_boot_is_of_no_boot(service: Client, database: asyncpg.Connection) -> None:
    """It does not stretch the boot before it: another one within that time is then no other machine."""
    await report(service, (0, "a", 1_000), (90, None, 1_500), (30, "b", 40), (60, "b", 50))

    assert await deltas(database) == [(0, "first"), (40, "reboot"), (10, "normal"), (1_450, "normal")]
    assert not await is_shared(database)
