"""E31: the service is away for 24 hours and comes back; on a real service and a real TimescaleDB.

    make drill-agent

The day passes by a simulated clock, heartbeat after heartbeat into a real spool while real connections are refused.
Then a second agent process's worth of objects opens that spool and delivers in real threads, thirty times as fast as
in life: an interval is a second. A second server with the same readings, of which nothing was ever late, is beside it.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from agent.answers import Delivered, Outcome
from agent.deadletter import DeadLetters
from agent.delivery import Delivery
from agent.identity import ApiKey
from agent.loop import next_tick
from agent.sender import Sender
from agent.settings import Settings
from agent.spool import Spool
from tests.helpers.machines import STAYING, Link, Machine, body
from tests.helpers.oracle import Beat
from tests.helpers.processes import KillableService, free_port
from tests.helpers.support import KEY, differing_rows

DAY = 2_880  # heartbeats, one every 30 s
INTERVAL_MS = 30_000
CATCHING_UP = 120  # seconds at most
LEVELS = ("1m", "15m", "1h", "1d")


def beats(since: datetime) -> Iterator[Beat]:
    """A machine of three interfaces, one of them of 32 bits that wraps; it is rebooted and reset during the outage."""
    rng = random.Random(31)
    machine = Machine("m", rng, since, unrest=0, regularity=1.0)
    for (name, kind), bits in zip(STAYING[:3], (64, 32, 64), strict=True):
        machine.links.append(Link(name, kind, 10_000, bits, 5e6, [rng.randrange(2**31) for _ in range(4)] + [0] * 4))
    for number, beat in enumerate(machine.live(), 1):
        yield beat
        if number in (700, 2_000):
            machine.reboot()
        if number == 1_300:
            machine.reset()


class Watched:
    """A Sender that notes when each live heartbeat was taken, and how large the batches were."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.taken: dict[bytes, float] = {}
        self.batches: list[tuple[int, float]] = []

    def heartbeat(self, body: bytes) -> Outcome:
        outcome = self._sender.heartbeat(body)
        if isinstance(outcome, Delivered):
            self.taken[body] = time.monotonic()
        return outcome

    def heartbeats(self, bodies: list[bytes]) -> Outcome:
        begin = time.monotonic()
        outcome = self._sender.heartbeats(bodies)
        assert isinstance(outcome, Delivered), outcome
        self.batches.append((len(bodies), time.monotonic() - begin))
        return outcome

    def hurry(self, timeout_seconds: float) -> None:
        self._sender.hurry(timeout_seconds)

    def close(self) -> None:
        self._sender.close()


def spool_in(directory: Path, now_ms: Any) -> Spool:
    settings = Settings()
    return Spool(
        directory,
        max_bytes=settings.spool_mib << 20,
        max_age_seconds=settings.spool_days * 86_400,
        memory_heartbeats=settings.backlog_heartbeats,
        now_ms=now_ms,
    )


def pass_a_day(spool_directory: Path, made: list[tuple[Beat, bytes]]) -> int:
    """Every heartbeat of the outage into the spool, and the live lane's tries as its backoff says; how many."""
    seconds = 0.0
    key = ApiKey(Settings(api_key=KEY))
    spool = spool_in(spool_directory, lambda: stamp_ms(made[0][0]) + int(seconds * 1000))
    sender = Sender(f"http://127.0.0.1:{free_port()}", key, timeout_seconds=1)
    letters = DeadLetters(spool_directory / "refused.ndjson")
    delivery = Delivery(sender, sender, key, spool, letters, "nowhere", monotonic=lambda: seconds)
    tries, next_try = 0, 0.0
    for beat, encoded in made:
        tick = (stamp_ms(beat) - stamp_ms(made[0][0])) / 1000
        while next_try <= tick and len(spool):
            seconds = next_try
            wait = delivery.step_live()
            assert wait, "nobody is there to take it"
            assert delivery.step_backlog() is None
            tries, next_try = tries + 1, seconds + wait
        seconds = tick
        spool.append(encoded, stamp_ms(beat))
    assert len(spool) == len(made)
    spool.close()
    return tries


def stamp_ms(beat: Beat) -> int:
    return round(beat.time.timestamp() * 1000)


def catch_up(
    url: str, directory: Path, coming: Iterator[tuple[Beat, bytes]]
) -> tuple[list[Beat], Watched, list[float]]:
    """One heartbeat a second until nothing waits. Returns those, what was sent, and how long each live one took."""
    key = ApiKey(Settings(api_key=KEY))
    live, batches = (Watched(Sender(url, key, timeout_seconds=10)) for _ in range(2))
    spool = spool_in(directory, lambda: time.time_ns() // 1_000_000)
    letters = DeadLetters(directory / "refused.ndjson")
    # Batches follow each other four times as closely as they may: the harder for what is live.
    delivery = Delivery(live, batches, key, spool, letters, url, interval_seconds=1, uniform=lambda low, high: low / 4)
    delivery.start()
    collected: list[Beat] = []
    appended: dict[bytes, float] = {}
    tick = time.monotonic()
    slowest_append = 0.0
    while len(spool) or len(collected) < 5:
        assert len(collected) < CATCHING_UP, f"{len(spool)} heartbeats still wait after {batches.batches}"
        beat, encoded = next(coming)
        collected.append(beat)
        appended[encoded] = time.monotonic()
        spool.append(encoded, stamp_ms(beat))
        delivery.wake()
        slowest_append = max(slowest_append, time.monotonic() - appended[encoded])
        tick = next_tick(tick, 1.0, time.monotonic())
        time.sleep(max(0.0, tick - time.monotonic()))
    delivery.stop(5)
    assert len(spool) == delivery.rejected == spool.dropped == 0
    spool.close()
    live.batches = batches.batches
    print(f"the slowest append took {slowest_append * 1000:.0f} ms")
    return collected, live, [live.taken.get(encoded, 1e9) - moment for encoded, moment in appended.items()]


def as_sent(server_id: str, beat: Beat) -> bytes:
    return msgspec.json.encode(body(server_id, beat))


async def rows(database: asyncpg.Connection, relation: str, server_id: str) -> list[dict[str, Any]]:
    order = "bucket" if relation.startswith("network_traffic") else "time"
    found = await database.fetch(
        f"SELECT * FROM {relation} WHERE server_id = $1 ORDER BY interface_name, {order}", server_id
    )
    return [{name: value for name, value in row.items() if name != "server_id"} for row in found]


async def test_a_day_without_the_service_is_caught_up_on_without_delaying_the_present(
    database_url: str, database: asyncpg.Connection, tmp_path: Path
) -> None:
    since = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=24, seconds=30 * CATCHING_UP + 600)
    coming = ((beat, as_sent("outage", beat)) for beat in beats(since))
    made = list(islice(coming, DAY))
    begin = time.monotonic()
    tries = await asyncio.to_thread(pass_a_day, tmp_path / "spool", made)
    print(f"\n24 h without a service, {tries} tries, {DAY} heartbeats in the spool, {time.monotonic() - begin:.0f} s")

    service = KillableService(database_url, tmp_path)
    await service.start()
    try:
        begin = time.monotonic()
        collected, sent, waits = await asyncio.to_thread(catch_up, service.url, tmp_path / "spool", coming)
        print(
            f"caught up within {time.monotonic() - begin:.0f} intervals, by {len(sent.batches)} batches of up to "
            f"{max(count for count, _ in sent.batches)} heartbeats and {max(took for _, took in sent.batches):.2f} s; "
            f"{len(waits)} live ones meanwhile, taken after {statistics.median(waits) * 1000:.0f} ms, "
            f"{max(waits) * 1000:.0f} ms at most"
        )
        everything = [beat for beat, _ in made] + collected
        calm = Sender(service.url, ApiKey(Settings(api_key=KEY)), timeout_seconds=10)
        for beat in everything:
            assert isinstance(await asyncio.to_thread(calm.heartbeat, as_sent("calm", beat)), Delivered)
        calm.close()
    finally:
        service.kill()

    assert max(waits) < 1.0  # an interval
    assert sum(count for count, _ in sent.batches) >= DAY
    if await database.fetchval("SELECT edition FROM linkbeat.installation") != "apache":
        await database.execute("CALL linkbeat.refresh_aggregates(now())")  # late data shows after the next refresh
    stored = await rows(database, "network_interface_metrics", "outage")
    assert len(stored) == 3 * len(everything)
    for relation in ("network_interface_metrics", *(f"network_traffic_{level}" for level in LEVELS)):
        assert await rows(database, relation, "outage") == await rows(database, relation, "calm"), relation
    assert await differing_rows(database) == dict.fromkeys(LEVELS, 0)
