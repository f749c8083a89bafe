"""`python -m service recount`: what was stored by the rules of an earlier version is counted by today's."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.operations import recount
from service.operations.recount import Recounted
from tests.helpers.support import Client, boot_id, connected, deltas, differing_rows, heartbeat, hours_ago, interface

EQUAL = {"1m": 0, "15m": 0, "1h": 0, "1d": 0}
T0 = hours_ago(20)
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
STEP = timedelta(seconds=30)
REPOSITORY = Path(__file__).resolve().parents[2]
PACKET = 1_000

# Received octets, and the deltas and kinds that the rules before these gave them.
STEPS_BACK = [
    (10_000_000_000, 0, "first"),
    (10_001_000_000, 1_000_000, "normal"),
    (10_000_990_000, 10_000_990_000, "reset"),
    (10_003_000_000, 2_010_000, "normal"),
]
ZEROS = [
    (5_000_000_000_000, 0, "first"),
    (5_000_010_000_000, 10_000_000, "normal"),
    (0, 0, "reset"),
    (5_000_030_000_000, 5_000_030_000_000, "normal"),
    (5_000_040_000_000, 10_000_000, "normal"),
]


async def store(
    service: Client, database: asyncpg.Connection, history: list[tuple[int, int, str]], *, start: datetime = T0,
    server_id: str = "nas", name: str = "eth0",
) -> None:  # fmt: skip
    """Stores a history as an earlier version did: posted without the steps back, which a batch takes fast."""
    highest = 0
    beats = []
    for n, (rx, _, _) in enumerate(history):
        highest = max(highest, rx)
        body = heartbeat(server_id, at=start + n * STEP, boot=boot_id("a"))
        body["network_interfaces"] = [interface(name, highest, rx_packets=highest // PACKET)]
        beats.append(body)
    for first in range(0, len(beats), 50):
        await service.post_batch(beats[first : first + 50])
    readings, gains, kinds = zip(*history, strict=True)
    await database.execute(
        "UPDATE network_interface_metrics SET rx_bytes = reading, rx_packets = reading / $7, rx_bytes_delta = gain, "
        "rx_packets_delta = gain / $7, delta_kind = kind, levels = NULL, old_levels = NULL, doubted_since = NULL "
        "FROM unnest($3::timestamptz[], $4::bigint[], $5::bigint[], $6::text[]) AS h(moment, reading, gain, kind) "
        "WHERE server_id = $1 AND interface_name = $2 AND time = moment",
        server_id, name, [start + n * STEP for n in range(len(history))], readings, gains, kinds, PACKET,
    )  # fmt: skip


async def counted(url: str, server_id: str = "nas", since: datetime | None = None, **more: Any) -> list[Recounted]:
    return await recount.recount(url, server_id, since, is_dry=more.get("is_dry", False))


async def everything(database: asyncpg.Connection, server_id: str) -> list[list[tuple[Any, ...]]]:
    relations = ("network_interface_metrics", *(f"network_traffic_{level}" for level in EQUAL))
    return [
        sorted(
            map(tuple, await database.fetch(f"SELECT r::text FROM {relation} r WHERE server_id = $1", server_id))
        )
        for relation in relations
    ]  # fmt: skip


def command(database_url: str, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`python -m service recount …`, as an administrator runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    ours = {"LINKBEAT_DATABASE_URL": database_url, "LINKBEAT_DATA_DIR": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "service", "recount", *arguments],
        cwd=REPOSITORY,
        env=kept | ours,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
async def stored_zeros(service: Client, database: asyncpg.Connection) -> None:
    await store(service, database, ZEROS)


async def until(database: asyncpg.Connection, condition: str, *arguments: Any) -> None:
    while not await database.fetchval(condition, *arguments):  # noqa: ASYNC110 (the database has no event for it)
        await asyncio.sleep(0.01)


async def is_community(database: asyncpg.Connection) -> bool:
    return bool(await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"))


def saw(rows: int, every: int) -> list[tuple[int, int, str]]:
    """A counter that grows by 1,000,000 a row and steps back by 10,000 in some, as the old rules counted it."""
    history = [(10**10, 0, "first")]
    for n in range(1, rows):
        back = 10_000 if n % every == 0 else 0
        rx = 10**10 + n * 10**6 - back * 101
        gain = rx - history[-1][0]
        history.append((rx, gain, "normal") if gain >= 0 else (rx, rx, "reset"))
    return history


@pytest.mark.parametrize(
    ("history", "before", "after", "kinds"),
    [
        (STEPS_BACK, 10_004_000_000, 3_000_000, ["first", "normal", "dip", "normal"]),
        (ZEROS, 5_000_050_000_000, 40_000_000, ["first", "normal", "glitch", "normal", "normal"]),
    ],
    ids=["a small step back", "one reading of zeros"],
)
async def test_what_the_old_rules_invented_is_gone_from_all_levels(
    history: list[tuple[int, int, str]], before: int, after: int, kinds: list[str], service: Client,
    database: asyncpg.Connection, database_url: str,
) -> None:  # fmt: skip
    await store(service, database, history)
    await store(service, database, history, server_id="other")
    await database.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '1 hour')")
    other = await everything(database, "other")
    state = await database.fetchval("SELECT s::text FROM servers s WHERE server_id = 'other'")

    [one] = await counted(database_url)

    assert (one.interface_name, one.samples) == ("eth0", len(history))
    assert (one.rx_bytes_before, one.rx_bytes_after) == (before, after)
    stored = await deltas(database)
    assert sum(delta for delta, _ in stored) == after
    assert [kind for _, kind in stored] == kinds
    assert await differing_rows(database) == EQUAL
    for level in EQUAL:
        sums = f"SELECT sum(rx_bytes) FROM network_traffic_{level} WHERE server_id = 'nas'"
        assert await database.fetchval(sums) == after
    assert await everything(database, "other") == other
    assert await database.fetchval("SELECT s::text FROM servers s WHERE server_id = 'other'") == state


async def test_a_second_run_changes_nothing(service: Client, database: asyncpg.Connection, database_url: str) -> None:
    await store(service, database, ZEROS)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    await counted(database_url)
    first = await everything(database, "nas")

    [one] = await counted(database_url)

    assert (one.changed, one.rx_bytes_before, one.rx_bytes_after) == (0, 40_000_000, 40_000_000)
    assert await everything(database, "nas") == first


async def test_a_dry_run_says_the_same_and_writes_nothing(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    await store(service, database, ZEROS)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    before = await everything(database, "nas")

    would = await counted(database_url, is_dry=True)

    assert await everything(database, "nas") == before
    assert would == await counted(database_url)
    assert would[0].changed > 0


async def test_a_long_history_is_judged_in_transactions_of_bounded_size(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    history = saw(1_500, 3)
    await store(service, database, history)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    would = await counted(database_url, is_dry=True)
    done = await counted(database_url)

    assert would == done
    assert done[0].rx_bytes_after == history[-1][0] - history[0][0]
    writers = "SELECT count(DISTINCT xmin::text) FROM network_interface_metrics WHERE delta_kind = 'dip'"
    assert await database.fetchval(writers) > 2
    assert await differing_rows(database) == EQUAL


async def test_heartbeats_that_come_meanwhile_are_counted(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    """New ones and late ones, among them the reading that lies between two that are counted again."""
    history = saw(600, 3)
    await store(service, database, history)
    await database.execute("CALL linkbeat.refresh_aggregates(now() - INTERVAL '1 hour')")

    def beat(at: datetime, rx: int) -> dict[str, Any]:
        body = heartbeat(at=at, boot=boot_id("a"))
        return body | {"network_interfaces": [interface("eth0", rx, rx_packets=rx // PACKET)]}

    async def report() -> None:
        for n in range(40):
            place = n * 14
            await service.post(beat(T0 + place * STEP + STEP / 2, history[place][0] + 7))
            await service.post(beat(T0 + (600 + n) * STEP, 10**10 + (600 + n) * 10**6))

    await asyncio.gather(counted(database_url), report())

    stored = await deltas(database)
    assert len(stored) == 680
    assert sum(delta for delta, _ in stored) == 639 * 10**6
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    assert await differing_rows(database) == EQUAL
    [one] = await counted(database_url)
    assert one.changed == 0


async def test_while_a_policy_refreshes_the_same_buckets_it_waits(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    """TimescaleDB refuses a refresh then. A lock on the buckets keeps the policy at its work."""
    if not await is_community(database):
        pytest.skip("the Apache edition has no policies; set TEST_DATABASE_URL to a Community server")
    await store(service, database, ZEROS)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    await database.execute("UPDATE network_interface_metrics SET tx_bytes_delta = 1")
    kept = await database.fetchval("SELECT kept::text FROM linkbeat.kept WHERE relation = 'network_traffic_1m'")
    async with connected(database_url) as policy, connected(database_url) as other:
        locked = other.transaction()
        await locked.start()
        await other.execute(f"LOCK TABLE {kept} IN SHARE MODE")
        refresh = "CALL refresh_continuous_aggregate('network_traffic_1m', NULL, now())"
        refreshing = asyncio.create_task(policy.execute(refresh))
        # Not within the other's transaction: that would be shown the activity as it was at its first look.
        await until(
            database, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = $1", refresh
        )
        with pytest.raises(asyncpg.LockNotAvailableError):
            await database.execute("CALL linkbeat.refresh_changed('nas', '-infinity')")
        recounting = asyncio.create_task(counted(database_url))
        await until(database, "SELECT sum(rx_bytes_delta) = 40000000 FROM network_interface_metrics")
        await locked.rollback()
        await asyncio.gather(refreshing, recounting)

    assert await differing_rows(database) == EQUAL


async def test_what_was_interrupted_before_its_aggregates_were_made_is_done_by_the_next_run(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    await store(service, database, ZEROS)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    await database.execute(f"SELECT linkbeat.recount_piece('nas', 'eth0', '{T0}', '{{}}')")
    assert sum(delta for delta, _ in await deltas(database)) == 40_000_000

    [one] = await counted(database_url)

    assert one.changed == 0
    assert await differing_rows(database) == EQUAL


async def test_thinned_rows_and_buckets_in_the_columnstore_are_counted_too(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    history = saw(120, 50)
    await store(service, database, history, start=MIDNIGHT - 60 * STEP)
    await store(service, database, history, start=MIDNIGHT - 60 * STEP, server_id="other")
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    if await is_community(database):
        await database.execute("CALL linkbeat.compress_samples(time_bucket('1 day', now()))")
        for level in EQUAL:
            await database.execute(f"SELECT compress_chunk(chunk) FROM show_chunks('network_traffic_{level}') AS chunk")
    other = await everything(database, "other")

    [one] = await counted(database_url)

    assert one.rx_bytes_after == history[-1][0] - history[0][0] < one.rx_bytes_before
    assert await differing_rows(database) == EQUAL
    readings = await database.fetch("SELECT rx_bytes_counter FROM network_counters('nas', 'eth0', '-infinity')")
    assert [int(row[0]) for row in readings] == [rx for rx, _, _ in history]
    assert await everything(database, "other") == other
    chunks = await database.fetch(
        "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks "
        "WHERE hypertable_name = 'network_interface_metrics' AND is_compressed"
    )
    assert bool(chunks) is await is_community(database)
    for (chunk,) in chunks:
        taken_out = await database.fetch(f"SELECT DISTINCT server_id FROM ONLY {chunk}")
        assert {row[0] for row in taken_out} == {"nas"}


async def drop_before(database: asyncpg.Connection, moment: datetime) -> None:
    """As retention does on either edition."""
    if not await is_community(database):
        await database.execute(
            f"UPDATE linkbeat.watermarks SET floor = '{moment}' WHERE relation = 'network_traffic_1m'"
        )
    await database.execute(f"SELECT drop_chunks('network_interface_metrics', older_than => '{moment}'::timestamptz)")


async def test_rows_whose_predecessors_retention_has_dropped_stay_as_they_are(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    history = saw(200, 75)  # steps back at 75 and 150: before midnight and after
    await store(service, database, history, start=MIDNIGHT - 100 * STEP)
    await database.execute("CALL linkbeat.refresh_aggregates(now())")
    sums = {level: f"SELECT sum(rx_bytes) FROM network_traffic_{level}" for level in EQUAL}
    before = {level: await database.fetchval(sum_) for level, sum_ in sums.items()}
    await drop_before(database, MIDNIGHT)

    [one] = await counted(database_url)

    stored = await deltas(database)
    assert len(stored) == 100
    assert stored[0] == (10**6, "normal")
    assert sum(delta for delta, _ in stored) == 100 * 10**6
    invented = one.rx_bytes_before - one.rx_bytes_after
    assert {level: before[level] - await database.fetchval(sum_) for level, sum_ in sums.items()} == dict.fromkeys(
        EQUAL, invented
    )
    assert one.samples == 100 - 31  # 15 minutes' rows, and the one that they began with


async def test_of_two_machines_under_one_id_neither_loses_what_it_counted_at_the_edge(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    for n in range(200):
        body = heartbeat(
            at=MIDNIGHT + (n - 100) * STEP, boot=boot_id("ab"[n % 2]), eth0=(10**9 * (n % 2) + n * 1_000, 0)
        )
        # The second machine is silent for an hour and a half around midnight.
        if n % 2 == 0 or not 60 < n < 190:
            await service.post(body)
    await drop_before(database, MIDNIGHT)
    before = await deltas(database)

    [one] = await counted(database_url)

    assert one.changed == 0
    assert await deltas(database) == before
    assert (132_000, "gap") in before


async def test_an_alternation_that_shows_after_retention_costs_the_oldest_row_nothing(
    service: Client, database: asyncpg.Connection
) -> None:
    """Not recount but repair judges the rows: the first machine is heard again, and the second was no reboot of it."""
    for n in range(200):
        boot, octets = ("a", n * 1_000) if n < 50 else ("b", n * 7_000)
        await service.post(heartbeat(at=MIDNIGHT + (n - 100) * STEP, boot=boot_id(boot), eth0=(octets, 0)))
    await drop_before(database, MIDNIGHT)
    assert (await deltas(database))[0] == (7_000, "normal")

    await service.post(heartbeat(at=MIDNIGHT + 50.5 * STEP, boot=boot_id("a"), eth0=(150_500, 0)))

    assert await database.fetchval("SELECT shared_since IS NOT NULL FROM servers")
    stored = await deltas(database)
    assert stored[0] == (7_000, "normal")
    assert sum(delta for delta, _ in stored) == 100 * 7_000


async def test_interfaces_that_are_folded_are_counted_in_their_kind(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    await store(service, database, STEPS_BACK, name="veth12")
    await database.execute(f"SELECT linkbeat.sum_folded(ARRAY['nas'], ARRAY['{T0 + 2 * STEP}'::timestamptz])")
    await database.execute("CALL linkbeat.refresh_aggregates(now())")

    done = await counted(database_url)

    assert [one.interface_name for one in done] == ["veth12"]
    assert sum(delta for delta, _ in await deltas(database, name="veth/*")) == 3_000_000
    assert await database.fetchval("SELECT sum(rx_bytes) FROM network_traffic_1d") == 3_000_000
    assert await differing_rows(database) == EQUAL


async def test_rows_before_a_moment_are_left_alone(
    service: Client, database: asyncpg.Connection, database_url: str
) -> None:
    await store(service, database, STEPS_BACK)
    await store(service, database, STEPS_BACK, start=T0 + 10 * STEP, name="eth1")

    done = await counted(database_url, since=T0 + 5 * STEP)

    assert [one.interface_name for one in done] == ["eth1"]
    assert (10_000_990_000, "reset") in await deltas(database)
    assert sum(delta for delta, _ in await deltas(database, name="eth1")) == 3_000_000


def test_the_command_prints_what_changes_by_interface(database_url: str, tmp_path: Path, stored_zeros: None) -> None:
    """Of the samples of the case, those after the zeros that the old rules counted twice."""
    dry = command(database_url, tmp_path, "nas", "--dry-run")
    done = command(database_url, tmp_path, "nas", "--since", T0.isoformat())
    again = command(database_url, tmp_path, "nas")

    lines = [line.split() for line in dry.stdout.splitlines()]
    assert lines[1] == ["eth0", "5", "2", "5,000,050,000,000", "40,000,000", "0", "0"]
    assert (dry.returncode, dry.stderr) == (0, "2 samples would change; nothing was written.\n")
    assert (done.stdout, done.stderr) == (dry.stdout, "2 samples changed.\n")
    assert again.stderr == "0 samples changed.\n"


def test_the_command_says_what_is_wrong_with_its_arguments(database_url: str, tmp_path: Path) -> None:
    unknown = command(database_url, tmp_path, "nobody")
    time = command(database_url, tmp_path, "nas", "--since", "yesterday")

    assert (unknown.returncode, unknown.stderr) == (1, "linkbeat: server nobody is not known\n")
    assert time.returncode == 2
    assert "expected a time such as 2026-01-29T10:00Z, got 'yesterday'" in time.stderr
