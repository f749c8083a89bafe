"""A history that breaks the law, made as small as it can be and still break it."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import asyncpg

from tests.helpers.accounts import Sent, check_servers
from tests.helpers.arrivals import send_post
from tests.helpers.oracle import COUNTERS, Beat
from tests.helpers.support import Client

ATTEMPTS = 300

_numbers = count()


async def describe(service: Client, database: asyncpg.Connection, arrived: Sequence[Beat], budget: int) -> str:
    """The smallest part of what a server was sent, one heartbeat a request, that is stored otherwise than it should be.

    All of it, where one after another it is stored as it should: then the order of requests at the same time matters.
    """

    async def wrong(beats: Sequence[Beat]) -> list[str]:
        server_id = f"shrunk-{next(_numbers)}"
        for beat in beats:
            await send_post(service, [(server_id, beat)], as_batch=False)
        return (await check_servers(database, {server_id: Sent(beats)}, budget)).get(server_id, [])

    found = await wrong(arrived)
    if not found:
        return "sent one after another it is right; all of it:\n" + _text(arrived)
    smallest = await _shrink(arrived, wrong)
    return "\n".join([*await wrong(smallest), "of what was sent, in the order of arrival:", _text(smallest)])


async def _shrink(arrived: Sequence[Beat], wrong: Callable[[Sequence[Beat]], Awaitable[list[str]]]) -> list[Beat]:
    beats, attempts, is_smaller = list(arrived), 0, True
    while is_smaller and attempts < ATTEMPTS:
        is_smaller = False
        for candidate in _smaller(beats):
            attempts += 1
            if candidate and await wrong(candidate):
                beats, is_smaller = candidate, True
                break
            if attempts >= ATTEMPTS:
                break
    return beats


def _smaller(beats: list[Beat]) -> Iterator[list[Beat]]:
    """Without a half, without a few, without one; without one of the interfaces; without one interface in one."""
    size = len(beats) // 2
    while size:
        for first in range(0, len(beats), size):
            yield beats[:first] + beats[first + size :]
        size //= 2
    for name in {name for beat in beats for name in beat.samples}:
        if any(set(beat.samples) - {name} for beat in beats):
            yield [_without(beat, name) for beat in beats]
    for index, beat in enumerate(beats):
        for name in beat.samples:
            yield [*beats[:index], _without(beat, name), *beats[index + 1 :]]


def _without(beat: Beat, name: str) -> Beat:
    return replace(beat, samples={other: sample for other, sample in beat.samples.items() if other != name})


def _text(beats: Sequence[Beat]) -> str:
    start = min(beat.time for beat in beats)
    lines = []
    for beat in beats:
        lines.append(
            f"  {(beat.time - start).total_seconds():.6f} s  boot {beat.boot}  interval {beat.interval_seconds}"
            f"  uptime {beat.uptime_seconds}"
        )
        for name, sample in beat.samples.items():
            told = {key: value for key, value in zip(COUNTERS, sample.counters, strict=True) if value is not None}
            lines.append(
                f"      {name} {told} {sample.kind} {sample.speed_mbps} up={sample.is_up} ifindex={sample.ifindex} "
                f"on={sample.stacked_on}"
            )
    return "\n".join(lines)
