"""What tells that counters began again: boot ids, uptime, another device under the same name; and what does not.

Each in order and newest first. Two machines under one id: test_twins.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import asyncpg

from tests.helpers.evidence import INTERVAL, STEP, Reading, changed, check, lowered, restarted, steady
from tests.helpers.support import Client, boot_id

FIRST = (0, "first")
NORMAL = (STEP, "normal")
AFTER_BOOT = STEP // 3


def booted(readings: Sequence[Reading], boot: Callable[[int], str | None], uptime: int | None = None) -> list[Reading]:
    """The same with the boot ids that `boot` gives by place; `uptime` seconds at the first, if it is told."""
    return [
        replace(one, boot=boot(n), uptime_seconds=None if uptime is None else uptime + n * INTERVAL)
        for n, one in enumerate(readings)
    ]


def uuid_after(place: int) -> Callable[[int], str]:
    return lambda n: boot_id("after" if n >= place else "before")


def sliding(n: int) -> str:
    """As an agent makes it that takes the uptime from the clock."""
    return f"boot-{1_700_000_000 + n}"


def flickering(n: int) -> str:
    return f"boot-{1_700_000_000 + n % 2}"


def at_levels(*octets: int) -> list[Reading]:
    return [Reading(n * INTERVAL, rx, rx // 5, rx // 1_000, rx // 5_000) for n, rx in enumerate(octets)]


async def test_another_uuid_is_a_reboot_wherever_the_counters_are(
    service: Client, database: asyncpg.Connection
) -> None:
    young = steady(5, start=10 * STEP)

    await check(
        service,
        database,
        {
            "fell": (
                booted(restarted(steady(5), 2, at=AFTER_BOOT), uuid_after(2)),
                [FIRST, NORMAL, (STEP + AFTER_BOOT, "reboot"), NORMAL, NORMAL],
            ),
            "grew": (booted(young, uuid_after(2)), [FIRST, NORMAL, (12 * STEP, "reboot"), NORMAL, NORMAL]),
            "stood": (
                booted([young[0], *(replace(young[1], seconds=one.seconds) for one in young[1:3])], uuid_after(2)),
                [FIRST, NORMAL, (11 * STEP, "reboot")],
            ),
        },
    )


async def test_another_id_that_is_no_uuid_is_none_while_all_counters_go_on(
    service: Client, database: asyncpg.Connection
) -> None:
    goes_on = [FIRST, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL]
    readings = steady(6)

    await check(
        service,
        database,
        {
            "once": (booted(readings, lambda n: "after" if n > 2 else "before"), goes_on),
            "slides": (booted(readings, sliding), goes_on),
            "slides-with-uptime": (booted(readings, sliding, uptime=5_000), goes_on),
            "flickers": (booted(readings, flickering), goes_on),
            "comes-and-goes": (booted(readings, lambda n: None if n % 2 else "label"), goes_on),
            "steps-back": (
                booted(lowered(readings, 3, share=0.995), sliding),
                [FIRST, NORMAL, NORMAL, (0, "dip"), (2 * STEP, "normal"), NORMAL],
            ),
        },
    )
    assert await database.fetchval("SELECT count(*) FROM server_boots WHERE alternates") == 0


async def test_it_is_a_reboot_where_the_counters_or_the_uptime_fell(
    service: Client, database: asyncpg.Connection
) -> None:
    fell = restarted(steady(5), 2, at=AFTER_BOOT)
    reboot = [FIRST, NORMAL, (STEP + AFTER_BOOT, "reboot"), NORMAL, NORMAL]
    # More crosses until the first heartbeat after the boot than was counted before it.
    grew = booted(steady(5, start=10 * STEP), lambda n: "after" if n >= 2 else "before")
    uptimes = (900, 930, 20, 50, 80)
    grew = [replace(one, uptime_seconds=uptime) for one, uptime in zip(grew, uptimes, strict=True)]

    await check(
        service,
        database,
        {
            "counters": (booted(fell, lambda n: "after" if n >= 2 else "before"), reboot),
            "counters-while-it-slides": (booted(fell, sliding), reboot),
            "uptime": (grew, [FIRST, NORMAL, (12 * STEP, "reboot"), NORMAL, NORMAL]),
        },
    )


async def test_counters_that_all_fell_in_one_boot_began_again(service: Client, database: asyncpg.Connection) -> None:
    """More than 1 Gbit/s carries, and more than four times what is usual, may as well be a wrong reading."""
    reset = [FIRST, NORMAL, (STEP + AFTER_BOOT, "reset"), NORMAL, NORMAL]
    too_much = 10 * 10**9
    fast = steady(5, step=too_much)

    await check(
        service,
        database,
        {
            "same-boot": (restarted(steady(5), 2, at=AFTER_BOOT), reset),
            "no-boot": (booted(restarted(steady(5), 2, at=AFTER_BOOT), lambda _: None), reset),
            "from-0": (restarted(steady(5), 2), [FIRST, NORMAL, (STEP, "reset"), NORMAL, NORMAL]),
            "too-much": (
                at_levels(10**12, 10**12 + STEP, too_much, too_much + STEP),
                [FIRST, NORMAL, (0, "rejected"), NORMAL],
            ),
            "usual": (
                restarted(fast, 2),
                [FIRST, *[(too_much, kind) for kind in ("normal", "reset", "normal", "normal")]],
            ),
        },
    )


async def test_another_ifindex_and_a_fall_are_another_device_for_certain(
    service: Client, database: asyncpg.Connection
) -> None:
    """One that is soon where the old one was looks like a wrong reading of it, without the number."""
    again = restarted(steady(5), 2, at=AFTER_BOOT)
    recreated = [FIRST, NORMAL, (STEP + AFTER_BOOT, "reset"), NORMAL, NORMAL]
    soon = at_levels(STEP, 2 * STEP, STEP // 2, 5 * STEP // 2)
    above = [FIRST, NORMAL, (0, "glitch"), (STEP // 2, "normal")]
    one_fell = changed(steady(4, start=STEP), 2, rx_bytes=2 * STEP - 1)

    def renumbered(readings: Sequence[Reading]) -> list[Reading]:
        return [*changed(readings, 0, 1, ifindex=3)[:2], *changed(readings, *range(2, len(readings)), ifindex=9)[2:]]

    await check(
        service,
        database,
        {
            "unknown": (again, recreated),
            "same": (changed(again, *range(5), ifindex=3), recreated),
            "other": (renumbered(again), recreated),
            "soon-unknown": (soon, above),
            "soon-same": (changed(soon, *range(4), ifindex=3), above),
            "soon-other": (renumbered(soon), [FIRST, NORMAL, (STEP // 2, "reset"), (2 * STEP, "normal")]),
            "one-fell": (renumbered(one_fell), [FIRST, NORMAL, (2 * STEP - 1, "reset"), (2 * STEP + 1, "normal")]),
            "none-fell": (renumbered(steady(4)), [FIRST, NORMAL, NORMAL, NORMAL]),
        },
    )


async def test_errors_and_drops_are_judged_by_themselves(service: Client, database: asyncpg.Connection) -> None:
    """Their falls and jumps leave octets alone."""
    readings = steady(6)
    counted: dict[str, tuple[list[int], list[int], str]] = {
        # readings of rx_errors, their deltas, the kind of the third row
        "grows": ([5, 5, 7, 7, 12, 12], [0, 0, 2, 0, 5, 0], "normal"),
        "dips": ([1_000, 1_001, 995, 1_002, 1_003, 1_003], [0, 1, 0, 1, 1, 0], "normal"),
        "zeros": ([1_000, 1_001, 0, 1_002, 1_003, 1_003], [0, 1, 0, 1, 1, 0], "glitch"),
        "jumps": ([3, 4, 2**63, 5, 6, 6], [0, 1, 0, 1, 1, 0], "glitch"),
        "restarts": ([1_000, 1_010, 4, 4, 9, 9], [0, 10, 4, 0, 5, 0], "normal"),
    }
    cases = {
        name: (
            [
                changed([one], 0, rx_errors=errors, tx_dropped=errors)[0]
                for one, errors in zip(readings, told, strict=True)
            ],
            [FIRST, NORMAL, (STEP, kind), NORMAL, NORMAL, NORMAL],
        )
        for name, (told, _, kind) in counted.items()
    }

    await check(service, database, cases)

    for name, (_, expected, _) in counted.items():
        for order in ("in-order", "reversed"):
            rows = await database.fetch(
                "SELECT rx_errors_delta, tx_dropped_delta FROM network_interface_metrics "
                "WHERE server_id = $1 ORDER BY time",
                f"{name}-{order}",
            )
            assert [tuple(row) for row in rows] == [(delta, delta) for delta in expected], name
