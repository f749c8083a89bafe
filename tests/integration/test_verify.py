"""`linkbeat verify`: what it calls wrong, and what it does not, whatever works beside it."""

import asyncio
import json
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.operations import verify as verify_module
from service.operations.verify import SHOWN, Compared, verify
from tests.helpers.aggregates import RELATIONS
from tests.helpers.history import write_rows
from tests.helpers.processes import linkbeat
from tests.helpers.support import connected, differing_rows, hours_ago

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def command(database_url: str, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`linkbeat verify …`, as an administrator runs it."""
    return linkbeat(database_url, directory, "verify", *arguments)


async def refresh(database: asyncpg.Connection, until: datetime | None = None) -> None:
    await database.execute(f"CALL linkbeat.refresh_aggregates('{until or datetime.now().astimezone()}')")


async def kept_of(database: asyncpg.Connection, relation: str) -> str:
    """What keeps the finished buckets of an aggregate, as it stands in SQL."""
    return str(await database.fetchval("SELECT kept::text FROM linkbeat.kept WHERE relation = $1", relation))


async def is_community(database: asyncpg.Connection) -> bool:
    return bool(await database.fetchval("SELECT edition = 'community' FROM linkbeat.installation"))


def result(found: Compared) -> tuple[int, int]:
    return found.wrong, found.waiting


@pytest.fixture
async def history(database: asyncpg.Connection) -> datetime:
    """Fifty hours of rows, finished up to now; returns a moment with a row of each series, thirty hours ago."""
    await write_rows(database, hours_ago(50), hours_ago(0), timedelta(minutes=10))
    await refresh(database)
    moment = hours_ago(30).replace(minute=0)
    await write_rows(database, moment, moment + MINUTE)
    await refresh(database)
    return moment


def test_what_is_right_differs_in_no_row(database_url: str, tmp_path: Path, history: datetime) -> None:
    done = command(database_url, tmp_path)

    assert (done.returncode, done.stdout) == (0, "0 rows differ\n"), done.stderr
    assert "rows of 12 aggregates were compared with what they are made of" in done.stderr
    assert int(done.stderr.split(" rows of")[0].replace(",", "")) > 5_000


async def test_an_empty_database_has_nothing_to_compare(database_url: str) -> None:
    assert await verify(database_url) == Compared()


async def test_a_wrong_column_is_named_with_both_values(
    database: asyncpg.Connection, database_url: str, tmp_path: Path, history: datetime
) -> None:
    kept = await kept_of(database, "network_traffic_1d")
    day = history.replace(hour=0)
    was = await database.fetchval(
        f"UPDATE {kept} SET rx_bytes = rx_bytes + 1 "
        "WHERE bucket = $1 AND server_id = 'nas' AND interface_name = 'eth0' RETURNING rx_bytes - 1",
        day,
    )

    done = command(database_url, tmp_path)

    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"network_traffic_1d nas eth0 {day:%Y-%m-%dT%H:%M:%SZ} rx_bytes: stored {was + 1}, computed {was}",
        "1 rows differ",
    ]


async def test_a_missing_and_an_invented_bucket_are_found_at_every_level(
    database: asyncpg.Connection, database_url: str, history: datetime, subtests: pytest.Subtests
) -> None:
    widths = {"1d": "1 day", "1h": "1 hour", "15m": "15 minutes", "1m": "1 minute"}
    # The coarsest first: a change to a level is logged as one that those above it have to take in, and they wait then.
    for relation in sorted(RELATIONS, key=lambda name: list(widths).index(name.rpartition("_")[2])):
        with subtests.test(relation):
            kept = await kept_of(database, relation)
            width = widths[relation.rpartition("_")[2]]
            bucket = await database.fetchval("SELECT time_bucket($1::text::interval, $2::timestamptz)", width, history)
            row = await database.fetchval(
                f"SELECT to_jsonb(k)::text FROM {kept} k WHERE bucket = $1 AND server_id = 'nas' LIMIT 1", bucket
            )
            series = {
                name: value for name, value in json.loads(row).items() if name in ("interface_name", "mount_point")
            }
            ours = " AND ".join(["bucket = $1", *(f"{name} = '{value}'" for name, value in series.items())])
            insert = f"INSERT INTO {kept} SELECT (jsonb_populate_record(NULL::{kept}, $1::jsonb)).*"

            await database.execute(f"DELETE FROM {kept} WHERE {ours} AND server_id = 'nas'", bucket)
            await database.execute(insert, json.dumps(json.loads(row) | {"server_id": "nobody"}))
            found = await verify(database_url)
            await database.execute(f"DELETE FROM {kept} WHERE {ours} AND server_id = 'nobody'", bucket)
            await database.execute(insert, row)

            assert found.wrong == 2
            assert {(one.relation, one.bucket, one.series[0], one.stored is None) for one in found.differences} == {
                (relation, bucket, "nas", True),
                (relation, bucket, "nobody", False),
            }
            lines = sorted(line.rpartition(": ")[2] for one in found.differences for line in one.lines())
            assert lines[0].startswith("not stored, computed from ")
            assert lines[1] == "stored, computed from 0 rows"


async def test_of_many_differences_the_first_are_shown_and_all_are_counted(
    database: asyncpg.Connection, database_url: str, tmp_path: Path, history: datetime
) -> None:
    kept = await kept_of(database, "server_metrics_1h")
    status = await database.execute(f"UPDATE {kept} SET samples = samples + 1 WHERE bucket < $1", history)
    changed = int(status.split()[1])

    done = command(database_url, tmp_path)

    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert changed > SHOWN
    # What is made of the changed buckets is right as it is: it was made before.
    assert lines[-2:] == [f"… and {changed - SHOWN} more", f"{changed} rows differ"]
    assert [line.split(" ")[0] for line in lines[:-2]] == ["server_metrics_1h"] * SHOWN


async def test_since_leaves_out_what_is_older(
    database: asyncpg.Connection, database_url: str, tmp_path: Path, history: datetime
) -> None:
    kept = await kept_of(database, "server_metrics_15m")
    await database.execute(
        f"UPDATE {kept} SET samples = 7 WHERE bucket = time_bucket('15 minutes', $1::timestamptz)", history
    )

    assert command(database_url, tmp_path, "--since", (history + DAY).isoformat()).returncode == 0
    assert command(database_url, tmp_path, "--since", history.isoformat()).returncode == 1
    wrong = command(database_url, tmp_path, "--since", "yesterday")
    assert (wrong.returncode, "expected a time such as 2026-01-29T10:00Z, got 'yesterday'" in wrong.stderr) == (2, True)


async def test_late_rows_that_wait_for_a_refresh_are_not_called_wrong(
    database: asyncpg.Connection, database_url: str, tmp_path: Path, history: datetime
) -> None:
    await write_rows(database, history + 7 * MINUTE, history + 8 * MINUTE)
    before = await verify(database_url)

    assert before.wrong == 0
    if await is_community(database):
        # Both servers' 7 series at four levels, but of a series that is folded then.
        assert before.waiting == sum((await differing_rows(database)).values()) > 30
        done = command(database_url, tmp_path)
        assert (done.returncode, f"{before.waiting} of them wait for a refresh" in done.stderr) == (0, True)
    else:
        assert before.waiting == 0
    await refresh(database)
    assert result(await verify(database_url)) == (0, 0)


async def test_late_rows_beyond_the_newest_bucket_of_a_finer_level_wait(
    database: asyncpg.Connection, database_url: str
) -> None:
    """The quarter of an hour up to :15 is finished, and the newest finished minute is that of :10."""
    last = hours_ago(10).replace(minute=10, second=0, microsecond=0)
    await write_rows(database, last - 20 * HOUR, last + MINUTE, timedelta(minutes=10))
    await refresh(database, last + 17 * MINUTE)
    late = last + timedelta(minutes=2, seconds=7)
    await write_rows(database, late, late + MINUTE)
    await refresh(database, last - 10 * HOUR)  # on the Community edition, changes are noted for each level, and wait

    found = await verify(database_url)

    assert found.wrong == 0, found.differences
    assert (found.waiting > 0) == await is_community(database)
    await refresh(database, last + 17 * MINUTE)
    assert result(await verify(database_url)) == (0, 0)


async def test_an_error_outside_of_what_waits_is_wrong_all_the_same(
    database: asyncpg.Connection, database_url: str, history: datetime
) -> None:
    kept = await kept_of(database, "network_traffic_1m")
    await database.execute(
        f"UPDATE {kept} SET tx_bytes = 1 WHERE bucket = $1 AND server_id = 'pi' AND interface_name = 'br0'", history
    )
    await write_rows(database, history + 7 * HOUR + 7 * MINUTE, history + 7 * HOUR + 8 * MINUTE)

    found = await verify(database_url)

    assert found.wrong == 1
    assert (found.differences[0].relation, found.differences[0].series) == ("network_traffic_1m", ["pi", "br0"])


async def test_buckets_that_outlive_their_rows_are_left_out(database: asyncpg.Connection, database_url: str) -> None:
    await write_rows(database, hours_ago(5 * 24), hours_ago(0), timedelta(minutes=30))
    await refresh(database)
    compared = (await verify(database_url)).compared
    for table in ("network_interface_metrics", "server_metrics", "filesystem_metrics"):
        await database.execute(f"SELECT drop_chunks('{table}', older_than => $1::timestamptz)", hours_ago(2.5 * 24))

    found = await verify(database_url)

    assert await database.fetchval("SELECT min(bucket) FROM network_traffic_1m") < hours_ago(4 * 24)
    assert result(found) == (0, 0)
    assert compared / 3 < found.compared < compared * 0.7


async def test_rows_that_retention_drops_meanwhile_are_left_out(
    database: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_rows(database, hours_ago(5 * 24), hours_ago(0), timedelta(minutes=30))
    await refresh(database)
    compare = verify_module.compare
    dropped: list[str] = []

    async def after_retention(*arguments: Any) -> Compared:
        if not dropped:
            dropped.append("chunks")
            for table in ("network_interface_metrics", "server_metrics", "filesystem_metrics"):
                await database.execute(f"SELECT drop_chunks('{table}', $1::timestamptz)", hours_ago(2.5 * 24))
        return await compare(*arguments)

    monkeypatch.setattr(verify_module, "compare", after_retention)
    found = await verify(database_url)

    assert dropped
    assert result(found) == (0, 0)
    assert found.compared > 1_000


async def test_nothing_is_called_wrong_while_late_rows_and_refreshes_come(
    database: asyncpg.Connection, database_url: str
) -> None:
    since = hours_ago(40)
    await write_rows(database, since, hours_ago(0), timedelta(minutes=10))
    await refresh(database, since + 5 * HOUR)
    done = asyncio.Event()

    async def write() -> None:
        async with connected(database_url, timezone="UTC") as connection:
            number = 0
            while not done.is_set():
                moment = since + (number * 577) % (39 * 60) * MINUTE + timedelta(seconds=7)
                await write_rows(connection, moment, moment + MINUTE, servers=("nas", "new"))
                number += 1

    async def refresh_again() -> None:
        async with connected(database_url) as connection:
            hours = 5.0
            while not done.is_set():
                hours = min(hours + 1.7, 39.5)
                await refresh(connection, since + hours * HOUR)

    beside = [asyncio.create_task(write()), asyncio.create_task(refresh_again())]
    try:
        for _ in range(5):
            found = await verify(database_url)
            assert found.wrong == 0, [line for one in found.differences for line in one.lines()]
            assert found.compared > 4_000
    finally:
        done.set()
        await asyncio.gather(*beside)
    await refresh(database)
    assert result(await verify(database_url)) == (0, 0)
