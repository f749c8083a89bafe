"""The rules of docs/counters.md by themselves: what the oracle counts of histories whose true traffic is known.

The database is held against the oracle (test_law.py), and against the truth (test_counter_laws.py), where a history
takes a hundred times as long. LINKBEAT_LAW_STORIES sets how many are tried instead of the same 2,000 (make laws:
100,000). Readings that are wrong several times may look like anything: one in 20,000 histories may break a law then.
"""

import os
import random
from dataclasses import replace
from datetime import UTC, datetime

from tests.helpers.oracle import account
from tests.helpers.truth import history

START = datetime(2026, 1, 1, tzinfo=UTC)
SAME = 2_000
ONE_IN = 20_000


def test_what_is_counted_is_neither_invented_nor_lost() -> None:
    tried = int(os.environ.get("LINKBEAT_LAW_STORIES", "0"))
    draw = random.Random() if tried else random.Random(20261201)

    broken = [told for _ in range(tried or SAME) if (told := _broken(draw.getrandbits(62)))]

    print(f"{len(broken)} of {tried or SAME} histories break a law", *broken, sep="\n")
    assert len(broken) <= tried // ONE_IN


def _broken(seed: int) -> str | None:
    """What was counted against laws 1 and 2; None: nothing."""
    story = history(random.Random(seed), START)
    # Under whatever name its one interface is reported, the database keeps one series.
    beats = [replace(beat, samples=dict(zip(("eth0",), beat.samples.values(), strict=True))) for beat in story.beats]
    counted = account(beats).totals()["eth0"]
    for direction, name in enumerate(("received", "sent")):
        total, reported, most = counted[direction], story.reported[direction], story.crossed[direction]
        if not reported <= total <= most + story.busiest[direction]:
            return f"seed {seed}, {name}: {total} counted, {reported} reported, {most} crossed, {story.faults}"
    return None
