"""Fleets of random histories, and the ways in which their heartbeats arrive: late, twice, in pieces, at once."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from tests.helpers.accounts import Sent
from tests.helpers.machines import body, history
from tests.helpers.oracle import Beat
from tests.helpers.support import Client

Post = list[tuple[str, Beat]]  # one is sent by itself, several as a batch


@dataclass
class Fleet:
    """Random histories, as the posts in which they are sent.

    posts    each heartbeat at least once, in any order; as many at a time as there are `writers`
    again    afterwards: heartbeats that are stored, as they were or with other values
    """

    seed: int
    posts: list[Post]
    again: list[Post]
    writers: int

    @property
    def arrivals(self) -> dict[str, list[Beat]]:
        """By server, what is sent, in order."""
        arrivals: dict[str, list[Beat]] = defaultdict(list)
        for post in (*self.posts, *self.again):
            for server_id, beat in post:
                arrivals[server_id].append(beat)
        return arrivals

    @cached_property
    def sent(self) -> dict[str, Sent]:
        return {server_id: Sent(arrived) for server_id, arrived in self.arrivals.items()}


def fleet(seed: int, servers: int, since: datetime, until: datetime) -> Fleet:
    """The same for the same arguments; server ids begin with the seed."""
    rng = random.Random(seed)
    queues: dict[str, list[Beat]] = {}
    again: list[Post] = []
    for number in range(servers):
        server_id = f"{seed}-{number}"
        start = since + timedelta(seconds=rng.randrange(round((until - since).total_seconds() * 0.8)))
        beats = history(rng, start, until)
        queues[server_id] = _arrival(rng, beats)
        for _ in range(rng.choice([0, 0, 1, 3])):
            at = rng.randrange(len(queues[server_id]))
            queues[server_id].insert(rng.randint(at, len(queues[server_id])), queues[server_id][at])
        again += [
            [(server_id, _other(rng, beat))] for beat in rng.sample(beats, min(len(beats), rng.choice([0, 1, 2])))
        ]
    return Fleet(seed, _posts(rng, queues), again, rng.choice([1, 4]))


def _arrival(rng: random.Random, beats: Sequence[Beat]) -> list[Beat]:
    """In order, newest first, in any order, or in order with a block that comes later."""
    arriving = list(beats)
    way = rng.choice(["in order", "reversed", "shuffled", "late block", "late block"])
    if way == "reversed":
        arriving.reverse()
    elif way == "shuffled":
        rng.shuffle(arriving)
    elif way == "late block":
        first = rng.randrange(len(arriving))
        block = arriving[first : first + rng.randint(1, 6)]
        del arriving[first : first + len(block)]
        if rng.random() < 0.3:
            block.reverse()
        at = rng.randint(first, len(arriving))
        arriving[at:at] = block
    return arriving


def _posts(rng: random.Random, queues: dict[str, list[Beat]]) -> list[Post]:
    """The servers' heartbeats taken in turns, one by one or some at a time, of one server or of several."""
    posts: list[Post] = []
    while queues:
        post: Post = []
        for server_id in rng.sample(sorted(queues), min(len(queues), rng.choice([1, 1, 1, 5]))):
            size = rng.choice([1, 1, 2, 5, 12])
            post += [(server_id, beat) for beat in queues[server_id][:size]]
            del queues[server_id][:size]
            if not queues[server_id]:
                del queues[server_id]
        posts.append(post)
    return posts


def _other(rng: random.Random, beat: Beat) -> Beat:
    """The same heartbeat, or one of the same moment with other values, perhaps from another boot."""
    if not beat.samples or rng.random() < 0.4:
        return beat
    name = rng.choice(sorted(beat.samples))
    sample = beat.samples[name]
    first = sample.counters[0]
    assert first is not None
    other = replace(sample, counters=((first + rng.randint(1, 10**6)) % 2**64, *sample.counters[1:]))
    boot = rng.choice([beat.boot, beat.boot, "b-0", "nobody"])
    return replace(beat, boot=boot, samples={**beat.samples, name: other})


async def send(services: Sequence[Client], fleet: Fleet) -> int:
    """Posts the whole fleet, each post to any of the services. Returns how many heartbeats were stored."""
    rng = random.Random(fleet.seed)
    stored = 0

    async def write(posts: Iterator[Post]) -> None:
        nonlocal stored
        for post in posts:
            as_batch = len(post) > 1 or rng.random() < 0.3
            more = await send_post(rng.choice(services), post, as_batch=as_batch)
            stored += more

    for posts in (iter(fleet.posts), iter(fleet.again)):
        await asyncio.gather(*(write(posts) for _ in range(fleet.writers)))
    return stored


async def send_post(service: Client, post: Post, *, as_batch: bool) -> int:
    """Returns how many heartbeats were stored; the others were there."""
    bodies = [body(server_id, beat) for server_id, beat in post]
    if as_batch:
        answer = await service.post_batch(bodies)
        assert answer["rejected"] == []
        assert answer["stored"] + answer["duplicate"] == len(bodies)
        return int(answer["stored"])
    return int(not (await service.post(bodies[0]))["duplicate"])
