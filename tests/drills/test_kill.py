"""Long drills, outside the default run: pytest tests/drills. The faults of tests/e2e/test_crash.py, over and over."""

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import httpx
import pytest

from service.embedded.accounts import server_account
from service.embedded.choose import choose_database
from service.embedded.cluster import Cluster
from service.embedded.places import reachable_directory
from service.embedded.postmaster import find_postmaster
from service.settings import Settings
from tests.helpers.faults import UNREACHED, Load, frozen, kill_server, own_cluster
from tests.helpers.processes import Run, free_port, killable_service
from tests.helpers.support import KEY, heartbeat

SERVICE_KILLS = 50
DATABASE_KILLS = 20
RUN_KILLS = 12
INTERRUPTIONS = 30
# The first start of all on a machine fetches 40 MB of packages.
START_SECONDS = 240.0
THIS_MACHINE = "this-machine"
REPORTING = re.compile("first heartbeat delivered")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server to kill: never one that others use."""
    with own_cluster() as cluster:
        yield cluster


async def check(load: Load, url: str) -> None:
    database = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    try:
        await load.check(database)
    finally:
        await database.close()
    print(f"statuses {dict(load.statuses())}, duplicates {load.duplicates}, heartbeats {len(load.ledger)}")


async def test_the_service_is_killed_again_and_again(database_url: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    starts = []
    async with killable_service(database_url, tmp_path) as service:
        async with Load([service.url]) as load:
            for _ in range(SERVICE_KILLS):
                await asyncio.sleep(rng.uniform(0.2, 3))
                service.kill()
                starts.append(await service.start())
                await load.until_acknowledged(1)
        load.check_answers(allowed=(200, 503, UNREACHED))
        await check(load, database_url)
    print(f"ready again after {sorted(starts)[len(starts) // 2]:.1f} s (median), {max(starts):.1f} s (worst)")


async def test_the_database_is_killed_again_and_again(cluster: Cluster, tmp_path: Path) -> None:
    rng = random.Random(2)
    recoveries = []
    async with killable_service(cluster.url, tmp_path) as service:
        async with Load([service.url]) as load:
            for _ in range(DATABASE_KILLS):
                await load.until_acknowledged(1)
                await asyncio.sleep(rng.uniform(0.2, 3))
                kill_server(cluster)
                await asyncio.sleep(rng.uniform(0, 2))
                await asyncio.to_thread(cluster.restart)
                recoveries.append(await load.until_acknowledged(1))
        assert service.is_running
        load.check_answers(allowed=(200, 503))
        await check(load, cluster.url)
    print(f"first 200 after {sorted(recoveries)[len(recoveries) // 2]:.2f} s (median), {max(recoveries):.2f} s (worst)")


def run_with(data_dir: Path, port: int) -> Run:
    """`run`, whose service takes what Load sends, and whose agent reports as THIS_MACHINE."""
    return Run(data_dir, port, LINKBEAT_API_KEY=KEY, LINKBEAT_SERVER_ID=THIS_MACHINE)


async def check_data(load: Load, data_dir: Path) -> None:
    """Against the database of a run, which is used if it runs, and started if it does not."""
    with choose_database(Settings(data_dir=str(data_dir)), print) as database:
        await check(load, database.url)


async def test_the_postmaster_is_killed_again_and_again_under_run() -> None:
    rng = random.Random(3)
    recoveries = []
    port = free_port()
    with reachable_directory() as directory:
        data_dir = directory / "data"
        run = run_with(data_dir, port)
        try:
            await asyncio.to_thread(run.wait_for, REPORTING, START_SECONDS)
            async with Load([f"http://127.0.0.1:{port}"], others=[THIS_MACHINE]) as load:
                for _ in range(DATABASE_KILLS):
                    await load.until_acknowledged(1)
                    await asyncio.sleep(rng.uniform(0.2, 3))
                    await asyncio.to_thread(kill_postmaster, data_dir)
                    recoveries.append(await load.until_acknowledged(1, within_seconds=60))
                load.check_answers(allowed=(200, 503))
                await load.stop()
                assert run.process.poll() is None, run.output
                await check_data(load, data_dir)
        finally:
            stop(run)
        assert run.left_behind() == []
        assert run.output.count("The database runs again") >= DATABASE_KILLS
        assert "Traceback" not in run.output
    print(f"first 200 after {sorted(recoveries)[len(recoveries) // 2]:.2f} s (median), {max(recoveries):.2f} s (worst)")


async def test_run_is_killed_again_and_again() -> None:
    rng = random.Random(4)
    port = free_port()
    ended, ready = [], []
    with reachable_directory() as directory:
        data_dir = directory / "data"
        run = run_with(data_dir, port)
        try:
            await asyncio.to_thread(run.wait_for, REPORTING, START_SECONDS)
            async with Load([f"http://127.0.0.1:{port}"], agents=4, others=[THIS_MACHINE]) as load:
                for number in range(RUN_KILLS):
                    if number % 4 != 3:  # every fourth is killed while it starts
                        await load.until_acknowledged(1, within_seconds=60)
                    await asyncio.sleep(rng.uniform(0.1, 3))
                    run.process.kill()
                    run.process.wait()
                    if number % 2:
                        ended.append(await asyncio.to_thread(seconds_until_nothing_is_left, run))
                    started = time.monotonic()
                    run = run_with(data_dir, port)
                    if number % 4 != 2:
                        await load.until_acknowledged(1, within_seconds=60)
                        if number % 2 == 0:
                            ready.append(time.monotonic() - started)
                await load.until_acknowledged(1, within_seconds=60)
                load.check_answers(allowed=(200, 503, UNREACHED))
                await load.stop()
                await check_data(load, data_dir)
        finally:
            stop(run)
        assert run.left_behind() == []
        assert "Traceback" not in run.output
    print(f"{RUN_KILLS} kills of run; all gone after {max(ended):.1f} s (worst of {len(ended)}); started at once, "
          f"the first 200 after {sorted(ready)[len(ready) // 2]:.1f} s (median), {max(ready):.1f} s (worst of "
          f"{len(ready)})")  # fmt: skip
    assert max(ended) <= 10


def kill_postmaster(data_dir: Path) -> None:
    found = find_postmaster(data_dir / "postgres", server_account(data_dir / "postgres"))
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)


def seconds_until_nothing_is_left(run: Run) -> float:
    started = time.monotonic()
    while left := run.left_behind():
        assert time.monotonic() < started + 30, left
        time.sleep(0.1)
    return time.monotonic() - started


def await_ready(port: int, serving: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False).status_code == 200:
                return
        assert serving.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stop(run: Run) -> None:
    if run.process.poll() is None:
        run.process.send_signal(signal.SIGTERM)
        run.process.wait(60)


async def test_sigterm_is_obeyed_while_the_database_is_frozen(cluster: Cluster, tmp_path: Path) -> None:
    async with (
        killable_service(cluster.url, tmp_path) as killable,
        httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=15) as http,
    ):
        with frozen(cluster):
            body = heartbeat(at=datetime.now(UTC), eth0=(1, 1))
            waiting = asyncio.create_task(http.post(f"{killable.url}/api/v1/agents/heartbeat", json=body))
            await asyncio.sleep(0.3)
            status = await killable.terminate(within_seconds=20)
            answer = await waiting

    assert (status, answer.status_code) == (0, 503)
    assert "Traceback" not in killable.log


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda sent: sent.name)
def test_run_leaves_nothing_behind_whenever_it_is_stopped(sent: signal.Signals) -> None:
    rng = random.Random(int(sent))
    port = free_port()
    with reachable_directory() as directory:
        for _ in range(INTERRUPTIONS // 3):
            run = Run(directory / "data", port)
            seconds = rng.uniform(0.3, 6)
            time.sleep(seconds)
            os.killpg(run.process.pid, sent)
            run.process.wait(60)
            assert run.left_behind() == [], f"after {seconds:.2f} s:\n{run.output}"
            assert "Traceback" not in run.output, run.output
        assert run.process.returncode in (0, 128 + sent, -sent)


def test_serve_leaves_no_database_behind() -> None:
    with reachable_directory() as directory:
        port = free_port()
        environment = os.environ | {"LINKBEAT_DATA_DIR": str(directory / "data"), "LINKBEAT_PORT": str(port)}
        environment.pop("LINKBEAT_DATABASE_URL", None)
        subprocess.run([sys.executable, "-m", "service", "migrate"], env=environment, check=True, timeout=300)
        for sent in (signal.SIGTERM, signal.SIGINT):
            serving = subprocess.Popen([sys.executable, "-m", "service", "serve"], env=environment)
            await_ready(port, serving)
            serving.send_signal(sent)
            assert serving.wait(60) == 0
            assert not (directory / "data" / "postgres" / "postmaster.pid").exists()
