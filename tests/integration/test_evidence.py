"""What counters prove while they count on: dips, wraps, glitches, jumps and sources that are read too often.

Each in order and newest first. Resets, reboots and boot ids: test_restarts.py.
"""

from dataclasses import replace
from typing import Any

import asyncpg

from tests.helpers.evidence import COUNTERS, INTERVAL, PACKET, STEP, Reading, changed, check, lowered, restarted, steady
from tests.helpers.support import Client

RX = ("rx_bytes",)
FIRST = (0, "first")
NORMAL = (STEP, "normal")
DIP = (0, "dip")
GLITCH = (0, "glitch")
TWICE = (2 * STEP, "normal")


async def test_a_small_step_back_counts_nothing_and_growth_goes_on_from_the_highest_value(
    service: Client, database: asyncpg.Connection
) -> None:
    readings = steady(5)

    await check(
        service,
        database,
        {
            "one": (lowered(readings, 2, share=0.995, only=RX), [FIRST, NORMAL, DIP, TWICE, NORMAL]),
            "all": (lowered(readings, 2, share=0.9901), [FIRST, NORMAL, DIP, TWICE, NORMAL]),
            "twice": (lowered(readings, 1, 2, share=0.999), [FIRST, DIP, DIP, (3 * STEP, "normal"), NORMAL]),
            "packets": (
                lowered(readings, 2, share=0.999, only=["tx_packets"]),
                [FIRST, NORMAL, (STEP, "dip"), NORMAL, NORMAL],
            ),
        },
    )


async def test_a_fall_to_no_less_than_half_is_a_dip(service: Client, database: asyncpg.Connection) -> None:
    readings = steady(5)
    half = (readings[1].rx_bytes + 1) // 2

    await check(
        service,
        database,
        {
            "half": (changed(readings, 2, rx_bytes=half), [FIRST, NORMAL, DIP, TWICE, NORMAL]),
            "all": (lowered(readings, 2, share=0.6), [FIRST, NORMAL, DIP, TWICE, NORMAL]),
            "twice": (lowered(readings, 2, 3, share=0.75), [FIRST, NORMAL, DIP, DIP, (3 * STEP, "normal")]),
        },
    )


async def test_alternating_levels_are_counted_once(service: Client, database: asyncpg.Connection) -> None:
    """As of a source whose copies lag by a share, however large."""
    readings = steady(7)

    await check(
        service,
        database,
        {
            "close": (lowered(readings, 1, 3, 5, share=0.97), [FIRST, DIP, TWICE, DIP, TWICE, DIP, TWICE]),
            "far": (lowered(readings, 1, 3, 5, share=0.3), [FIRST, GLITCH, TWICE, GLITCH, TWICE, GLITCH, TWICE]),
        },
    )


def wrapping(at: int = 2) -> list[Reading]:
    """Octets received wrap at 2**32 between the reading before `at` and it; the other counters do not."""
    readings = steady(5, 2**32 - at * STEP + STEP // 2)
    return [replace(one, rx_bytes=one.rx_bytes % 2**32, tx_bytes=n * STEP // 5) for n, one in enumerate(readings)]


async def test_a_wrap_is_what_the_other_counter_of_its_direction_confirms(
    service: Client, database: asyncpg.Connection
) -> None:
    wraps = [FIRST, NORMAL, (STEP, "wrap"), NORMAL, NORMAL]
    both = [replace(one, tx_bytes=one.rx_bytes, tx_packets=one.rx_packets) for one in wrapping()]
    packets = [
        replace(one, rx_bytes=10**9 + n * STEP, rx_packets=(2**32 - 45_000 + n * STEP // PACKET) % 2**32)
        for n, one in enumerate(wrapping())
    ]

    await check(service, database, {"octets": (wrapping(), wraps), "both": (both, wraps), "packets": (packets, wraps)})

    for column, server_id in (("tx_bytes_delta", "both"), ("rx_packets_delta", "packets")):
        rows = await database.fetch(
            f"SELECT {column} FROM network_interface_metrics WHERE server_id = $1 || '-reversed' ORDER BY time",
            server_id,
        )
        assert [row[0] for row in rows][1:] == [STEP if server_id == "both" else STEP // PACKET] * 4, server_id


async def test_a_wrap_is_known_before_the_usual_size_of_packets_is(
    service: Client, database: asyncpg.Connection
) -> None:
    """The second reading of all wraps; packets of offloads are larger than a frame; the fall may be less than half."""
    step = 2_300_000_000
    fast = [
        replace(one, rx_bytes=one.rx_bytes % 2**32, tx_bytes=n * STEP // 5)
        for n, one in enumerate(steady(4, 4_200_000_000, step))
    ]
    offloaded = [replace(one, rx_packets=10_000 + n * STEP // 60_000) for n, one in enumerate(wrapping(1))]

    await check(
        service,
        database,
        {
            "frames": (wrapping(1), [FIRST, (STEP, "wrap"), NORMAL, NORMAL, NORMAL]),
            "offloaded": (offloaded, [FIRST, (STEP, "wrap"), NORMAL, NORMAL, NORMAL]),
            "less-than-half": (fast, [FIRST, (step, "wrap"), (step, "wrap"), (step, "normal")]),
        },
    )


async def test_a_wrap_that_packets_contradict_is_none(service: Client, database: asyncpg.Connection) -> None:
    """Ten packets carry neither the wrapped difference nor the value from 0; none at all carries no wrap."""
    few = wrapping()
    few = [*few[:2], *(replace(one, rx_packets=few[1].rx_packets + 10 + n * 30_000) for n, one in enumerate(few[2:]))]
    none = [replace(one, rx_packets=0, tx_packets=0) for one in wrapping()]

    await check(
        service,
        database,
        {
            "few": (few, [FIRST, NORMAL, DIP, NORMAL, NORMAL]),
            "none": (none, [FIRST, NORMAL, (STEP // 2, "reset"), NORMAL, NORMAL]),
        },
    )


async def test_what_falls_below_half_by_itself_counts_its_value_if_it_usually_gains_as_much(
    service: Client, database: asyncpg.Connection
) -> None:
    readings = steady(5)

    await check(
        service,
        database,
        {
            "usual": (restarted(readings, 2, RX, -STEP // 2), [FIRST, NORMAL, (STEP // 2, "reset"), NORMAL, NORMAL]),
            "too-much": (restarted(readings, 2, RX, 10**9), [FIRST, NORMAL, DIP, NORMAL, NORMAL]),
            "packets": (
                restarted(readings, 2, ["rx_packets"]),
                [FIRST, NORMAL, (STEP, "reset"), NORMAL, NORMAL],
            ),
        },
    )


async def test_a_few_readings_of_zeros_were_never_there(service: Client, database: asyncpg.Connection) -> None:
    readings = steady(6)

    await check(
        service,
        database,
        {
            "one": (lowered(readings, 2, share=0), [FIRST, NORMAL, GLITCH, TWICE, NORMAL, NORMAL]),
            "two": (lowered(readings, 2, 3, share=0), [FIRST, NORMAL, GLITCH, GLITCH, (3 * STEP, "normal"), NORMAL]),
            "three": (
                lowered(readings, 2, 3, 4, share=0),
                [FIRST, NORMAL, GLITCH, GLITCH, GLITCH, (4 * STEP, "normal")],
            ),
            "octets": (
                lowered(readings, 2, 3, share=0, only=RX),
                [FIRST, NORMAL, GLITCH, GLITCH, (3 * STEP, "normal"), NORMAL],
            ),
            "sent": (
                lowered(readings, 2, share=0, only=["tx_bytes"]),
                [FIRST, NORMAL, (STEP, "glitch"), NORMAL, NORMAL, NORMAL],
            ),
        },
    )


async def test_what_jumped_at_once_comes_back_counter_by_counter(service: Client, database: asyncpg.Connection) -> None:
    readings = steady(6)
    jumped = [replace(one, rx_bytes=one.rx_bytes + 2**55, tx_bytes=one.tx_bytes + 2**55) for one in readings]
    lone = [replace(one, rx_bytes=one.rx_bytes + 2**55) for one in readings]
    first, second = [*readings[:2], jumped[2], *readings[3:]], [*readings[:2], jumped[2], lone[3], *readings[4:]]

    await check(
        service,
        database,
        {
            "together": (first, [FIRST, NORMAL, GLITCH, TWICE, NORMAL, NORMAL]),
            "one-by-one": (second, [FIRST, NORMAL, GLITCH, GLITCH, (3 * STEP, "normal"), NORMAL]),
        },
    )
    sent = await database.fetchval(
        "SELECT sum(tx_bytes_delta) FROM network_interface_metrics WHERE server_id = 'one-by-one-in-order'"
    )
    assert sent == readings[-1].tx_bytes - readings[0].tx_bytes


async def test_readings_that_are_wrong_twice_do_not_end_the_first_doubt(
    service: Client, database: asyncpg.Connection
) -> None:
    """What grew between two wrong readings may look like traffic that packets confirm; then a third falls again."""
    readings = steady(7)

    await check(
        service,
        database,
        {
            f"wrong-{first}-{second}-{third}": (
                lowered(lowered(lowered(readings, 2, share=first), 3, share=second), 4, share=third),
                [FIRST, NORMAL, GLITCH, GLITCH, GLITCH, (4 * STEP, "normal"), NORMAL],
            )
            for first, second, third in [(0.3, 0.41, 0.1), (0.2, 0.45, 0.05), (0.01, 0.4, 0.12)]
        },
    )


async def test_octets_that_grow_by_more_than_their_packets_have_not_begun_again(
    service: Client, database: asyncpg.Connection
) -> None:
    """Wrong readings may rise at the rate of a counter that began again; 350 kB a packet show that it did not.

    So do six times as many octets in a packet as before.
    """
    cases = {}
    for size, (steps, step, low, higher, thirds) in {
        "too-large": (6_700, STEP, 0.1155, 0.1686, {"jumps": 0.44, "jumps-less": 0.34, "falls": 0.05}),
        "unusual": (2_600, 60 * STEP, 0.005, 0.0073, {"jumps": 0.44, "jumps-less": 0.34, "falls": 0.0013}),
    }.items():
        readings = steady(7, start=steps * step, step=step)
        wrong = lowered(lowered(readings, 2, share=low, only=RX), 3, share=higher, only=RX)
        for third, share in thirds.items():
            cases[f"{size}-{third}"] = (
                lowered(wrong, 4, share=share, only=RX),
                [FIRST, (step, "normal"), GLITCH, GLITCH, GLITCH, (4 * step, "normal"), (step, "normal")],
            )

    await check(service, database, cases)


async def test_what_crossed_since_a_reset_right_after_a_gap_is_counted(
    service: Client, database: asyncpg.Connection
) -> None:
    """The gap is a clock that was put forward: by its length, 5 Gbit/s would be 43 Mbit/s."""
    step = 2 * 10**10
    readings = restarted(steady(7, start=10**15, step=step), 4)
    forward = [replace(reading, seconds=reading.seconds + 3_600 * (n > 2)) for n, reading in enumerate(readings)]
    plain = (step, "normal")

    await check(
        service, database, {"forward": (forward, [FIRST, plain, plain, (step, "gap"), (step, "reset"), plain, plain])}
    )


async def test_octets_that_began_again_by_themselves_in_their_packets_end_the_doubt(
    service: Client, database: asyncpg.Connection
) -> None:
    """After little history: only the row before the next fall tells that they count on from where they are."""
    readings = [
        Reading(0, 9_000_000_000_000, 100_000_000, 100_000, 100_000),
        Reading(105, 4_000_000_000, 200_000_000, 5_600_000, 200_000),
        Reading(135, 5_400_000_000, 230_000_000, 7_200_000, 230_000),
        Reading(327, 420_000, 140_000, 420, 140),
        Reading(600, 12_200_000_000, 600_000_000, 13_500_000, 600_000),
    ]

    await check(
        service,
        database,
        {"again": (readings, [FIRST, DIP, (1_400_000_000, "normal"), GLITCH, (6_800_000_000, "gap")])},
    )


async def test_a_reading_from_two_to_the_63_on_is_undone_by_the_next(
    service: Client, database: asyncpg.Connection
) -> None:
    """As stored, such a counter is negative: its difference from the next one is out of bigint's range."""
    readings = steady(5)

    await check(
        service,
        database,
        {
            "octets": (changed(readings, 2, tx_bytes=2**63 + 5), [FIRST, NORMAL, (STEP, "glitch"), NORMAL, NORMAL]),
            "packets": (changed(readings, 2, tx_packets=2**63 + 5), [FIRST, NORMAL, (STEP, "glitch"), NORMAL, NORMAL]),
        },
    )


async def test_a_jump_that_packets_contradict_counts_nothing(service: Client, database: asyncpg.Connection) -> None:
    """Where it comes back, it never was; where it stays, growth goes on from there."""
    readings = steady(5)
    high = dict.fromkeys(COUNTERS, 2**64 - 1)
    jumped = [replace(one, rx_bytes=one.rx_bytes + 10**12 * (n > 1)) for n, one in enumerate(readings)]
    counts_on = [replace(one, rx_bytes=one.rx_bytes + 3 * 10**12 * (n in (2, 3))) for n, one in enumerate(readings)]
    counts_on_far = [replace(one, rx_bytes=one.rx_bytes + 2**63 * (n in (2, 3))) for n, one in enumerate(readings)]

    await check(
        service,
        database,
        {
            "octets": (changed(readings, 2, rx_bytes=2 * 10**12), [FIRST, NORMAL, GLITCH, TWICE, NORMAL]),
            "all": (changed(readings, 2, **high), [FIRST, NORMAL, GLITCH, TWICE, NORMAL]),
            "twice": (changed(readings, 2, 3, **high), [FIRST, NORMAL, GLITCH, GLITCH, (3 * STEP, "normal")]),
            "stays": (jumped, [FIRST, NORMAL, (0, "rejected"), NORMAL, NORMAL]),
            "counts-on": (counts_on, [FIRST, NORMAL, GLITCH, GLITCH, (3 * STEP, "normal")]),
            "counts-on-far": (counts_on_far, [FIRST, NORMAL, GLITCH, GLITCH, (3 * STEP, "normal")]),
        },
    )


async def test_octets_that_were_rejected_without_packets_count_once_these_carry_them(
    service: Client, database: asyncpg.Connection
) -> None:
    """For two readings the packet counter is lower than it was, so that it cannot confirm a burst."""

    def burst(octets: int, packets: int, *low: int) -> list[Reading]:
        later = [
            replace(one, rx_bytes=one.rx_bytes + octets * (n > 2), rx_packets=one.rx_packets + packets * (n > 2))
            for n, one in enumerate(steady(7))
        ]
        return [
            replace(one, rx_packets=int(later[low[0] - 1].rx_packets * 0.995)) if n in low else one
            for n, one in enumerate(later)
        ]

    many, more = 20 * 10**9, 200 * 10**9  # more than 1 MiB for each packet that steady traffic has
    rejected = [FIRST, NORMAL, NORMAL, (0, "rejected"), (STEP, "dip")]
    await check(
        service,
        database,
        {
            "carried": (burst(many, 20_000_000, 3, 4), [*rejected, (many + 2 * STEP, "normal"), NORMAL]),
            "carried-at-once": (
                burst(many, 20_000_000, 3), [*rejected[:4], (many + 2 * STEP, "normal"), NORMAL, NORMAL]
            ),
            "never-carried": (burst(more, 0, 3, 4), [*rejected, NORMAL, NORMAL]),
            # Packets contradicted it when it was read; what they gain later is of another time.
            "contradicted": (
                [
                    replace(one, rx_packets=one.rx_packets + 10**9 * (n > 4))
                    for n, one in enumerate(burst(more, 0, 4))
                ],
                [*rejected, NORMAL, NORMAL],
            ),
        },
    )  # fmt: skip


async def test_packets_decide_above_the_reported_speed(service: Client, database: asyncpg.Connection) -> None:
    """Emulated cards carry more than they say, and a bond may say what one member carries."""
    step = 3 * 125_000_000 * INTERVAL  # three times 1 Gbit/s
    cases = {}
    for name, speed, kind in (("emulated", 1_000, "physical"), ("slow", 100, "physical"), ("bond", 1_000, "bond")):
        more: dict[str, Any] = {"speed_mbps": speed, "kind": kind}
        cases[name] = (steady(4, step=step, **more), [FIRST, *[(step, "normal")] * 3])
    for name, packet, kind in (
        ("alone", None, "physical"),
        ("contradicted", 4 * 2**20, "physical"),
        ("contradicted-bond", 4 * 2**20, "bond"),
    ):
        more = {"speed_mbps": 1_000, "kind": kind}
        cases[name] = (steady(4, step=step, packet=packet, **more), [FIRST, *[(0, "rejected")] * 3])

    await check(service, database, cases)


async def test_a_source_that_is_read_more_often_than_it_counts_loses_nothing(
    service: Client, database: asyncpg.Connection
) -> None:
    """At 90 % of the line rate, with packets and without."""
    step = 9 * 12_500_000 * INTERVAL
    gigabit: dict[str, Any] = {"speed_mbps": 1_000, "kind": "physical"}
    cases = {}
    for every in (2, 3, 4):
        for packet in (PACKET, None):
            whole = steady(3 * every + 1, step=step, packet=packet, **gigabit)
            read = [replace(whole[n - n % every], seconds=one.seconds) for n, one in enumerate(whole)]
            refresh = [*[(0, "normal")] * (every - 1), (every * step, "normal")]
            cases[f"{every}-{packet}"] = (read, [FIRST, *refresh * 3])

    await check(service, database, cases)


async def test_a_counter_that_stood_still_is_judged_over_the_time_up_to_15_minutes(
    service: Client, database: asyncpg.Connection
) -> None:
    """Packets confirm any length. Without them, after 20 minutes, no more is counted than the line carries in 15."""
    gigabit: dict[str, Any] = {"speed_mbps": 1_000, "kind": "physical"}
    fast, slow = 9 * 12_500_000 * INTERVAL, 5 * 12_500_000 * INTERVAL  # 90 % and 50 % of the line rate
    cases = {}
    for minutes, packet, step, is_counted in (
        (5, PACKET, fast, True), (5, None, fast, True), (14, PACKET, fast, True), (14, None, fast, True),
        (20, PACKET, fast, True), (20, None, slow, True), (20, None, fast, False),
    ):  # fmt: skip
        frozen = minutes * 60 // INTERVAL
        whole = steady(3 + frozen, step=step, packet=packet, **gigabit)
        read = [*whole[:2], *(replace(whole[1], seconds=one.seconds) for one in whole[2:-1]), whole[-1]]
        released = ((frozen + 1) * step, "normal") if is_counted else (0, "rejected")
        cases[f"{minutes}-{packet}-{step}"] = (read, [FIRST, (step, "normal"), *[(0, "normal")] * frozen, released])

    await check(service, database, cases)


async def test_values_from_2_63_on_are_judged_as_any(service: Client, database: asyncpg.Connection) -> None:
    readings = steady(5, 2**63 - STEP - 10)
    highest = steady(5, 2**64 - 5 * STEP)

    await check(
        service,
        database,
        {
            "passes": (readings, [FIRST, NORMAL, NORMAL, NORMAL, NORMAL]),
            "dip": (lowered(highest, 2, share=0.995), [FIRST, NORMAL, DIP, TWICE, NORMAL]),
            "zeros": (lowered(readings, 2, share=0), [FIRST, NORMAL, GLITCH, TWICE, NORMAL]),
            "reset": (restarted(highest, 2), [FIRST, NORMAL, (STEP, "reset"), NORMAL, NORMAL]),
        },
    )
