"""Long drills, outside the default run: pytest tests/drills. The faults of tests/e2e/test_crash.py, over and over."""

import asyncio
import os
import random
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

from service.embedded.cluster import Cluster
from service.embedded.places import reachable_directory
from tests.faults import UNREACHED, Load, frozen, kill_server, own_cluster
from tests.processes import Run, free_port, killable_service
from tests.support import KEY, heartbeat

SERVICE_KILLS = 50
DATABASE_KILLS = 20
INTERRUPTIONS = 30


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
        environment = os.environ | {"LINKBEAT_DATA_DIR": str(directory / "data"), "LINKBEAT_PORT": str(free_port())}
        environment.pop("LINKBEAT_DATABASE_URL", None)
        subprocess.run([sys.executable, "-m", "service", "migrate"], env=environment, check=True, timeout=300)
        for sent in (signal.SIGTERM, signal.SIGINT):
            serving = subprocess.Popen([sys.executable, "-m", "service", "serve"], env=environment)
            time.sleep(6)
            serving.send_signal(sent)
            assert serving.wait(60) == 0
            assert not (directory / "data" / "postgres" / "postmaster.pid").exists()
