"""`serve --workers N`: processes that share a port, and one that looks after them."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import httpx

from tests.helpers.faults import UNREACHED, Load
from tests.helpers.processes import ROOT, START_SECONDS, KillableService, free_port, killable_service
from tests.helpers.support import KEY

TOTAL = re.compile(r'^linkbeat_heartbeats_total{result="stored"} (\S+)$', re.MULTILINE)


def workers_of(service: KillableService) -> dict[str, int]:
    """Process ids by the numbers of the workers."""
    assert service.process is not None
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    found = {}
    for pid in children:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if "--worker" in words:
                found[words[words.index("--worker") + 1].partition(":")[0]] = int(pid)
    return found


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until_replaced(service: KillableService, before: dict[str, int], count: int) -> dict[str, int]:
    deadline = time.monotonic() + 2 * START_SECONDS
    while True:
        found = workers_of(service)
        if len(found) == count and not set(found.values()) & set(before.values()):
            return found
        assert time.monotonic() < deadline, service.log
        assert service.is_running, service.log
        await asyncio.sleep(0.05)


async def stored(http: httpx.AsyncClient) -> float:
    found = TOTAL.search((await http.get("/metrics")).text)
    assert found is not None
    return float(found[1])


async def test_processes_share_a_port_are_replaced_and_end_together(database_url: str, tmp_path: Path) -> None:
    async with (
        killable_service(database_url, tmp_path, ["--workers", "2"]) as service,
        httpx.AsyncClient(
            base_url=service.url,
            headers={"Authorization": f"Bearer {KEY}", "Connection": "close"},
            timeout=20,
            trust_env=False,
        ) as http,
    ):
        while "with 2 processes" not in service.log:  # noqa: ASYNC110  # each answers by itself before that
            await asyncio.sleep(0.05)
        first = workers_of(service)
        assert sorted(first) == ["0", "1"]
        counts = [await stored(http)]
        async with Load([service.url]) as load:
            await load.until_acknowledged(100)
            # What a process says of another one is some time old: both can store by now, and say so soon.
            both = (await http.get("/metrics")).text
            async with asyncio.timeout(START_SECONDS):
                while any(f'linkbeat_ingest_up{{worker="{number}"}} 1.0' not in both for number in first):
                    await asyncio.sleep(0.05)
                    both = (await http.get("/metrics")).text
            counts.append(await stored(http))

            os.kill(first["0"], signal.SIGKILL)
            second = await until_replaced(service, {"0": first["0"]}, 2)
            await load.until_acknowledged(50)
            counts.append(await stored(http))
            load.check_answers(allowed=(200, 503, UNREACHED))
            await load.until_acknowledged(200)  # whoever was cut off by the kill has come again
            killed = time.monotonic()

            assert service.process is not None
            service.process.send_signal(signal.SIGHUP)
            third = await until_replaced(service, second, 2)
            while "All processes have been replaced" not in service.log:  # noqa: ASYNC110  # it is told nobody else
                await asyncio.sleep(0.05)
            await load.until_acknowledged(50)
            counts.append(await stored(http))
            assert set(load.statuses(killed)) <= {200, 503}, [one for one in load.answers if one.status == UNREACHED]

        assert await service.terminate(within_seconds=30) == 0
        left = [pid for pid in (*first.values(), *second.values(), *third.values()) if is_alive(pid)]
        database = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
        await load.check_stored(database, load.acknowledged)
        await load._http.aclose()
        rows = await database.fetchval("SELECT count(DISTINCT (server_id, time)) FROM network_interface_metrics")
        await database.close()

    assert left == []
    assert counts == sorted(counts), "a sum that falls is a restart to Prometheus"
    assert 0 < counts[-1] <= rows
    for number in first:
        assert f'process_resident_memory_bytes{{worker="{number}"}}' in both
    assert "\nlinkbeat_workers 2.0" in both
    assert "worker 0 ended unexpectedly with status -9; restarting" in service.log
    assert service.log.count("Listening on") == 1
    assert "Traceback" not in service.log


def serve(port: int, directory: Path, database_url: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"DATABASE_URL": database_url, "PORT": str(port), "DATA_DIR": str(directory), "API_KEY": KEY} | more
    return subprocess.run(
        [sys.executable, "-m", "service", "serve", "--workers", "2"],
        cwd=ROOT,
        env=os.environ | {f"LINKBEAT_{name}": value for name, value in environment.items()},
        timeout=2 * START_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_port_that_another_service_has_is_not_shared(database_url: str, tmp_path: Path) -> None:
    """The kernel would let any process of the same user listen there too."""
    async with killable_service(database_url, tmp_path, ["--workers", "2"]) as service:
        port = int(service.url.rpartition(":")[2])
        second = await asyncio.to_thread(serve, port, tmp_path, database_url)
        assert service.is_running

    taken = f"linkbeat: LINKBEAT_PORT: {port} is already in use on 127.0.0.1; "
    assert (second.returncode, second.stderr) == (1, f"{taken}stop the program that uses it, or set another port\n")


async def test_processes_that_cannot_start_end_the_command_with_the_reason(database_url: str, tmp_path: Path) -> None:
    ended = await asyncio.to_thread(serve, free_port(), tmp_path, database_url, SECRET_KEY_FILE="/nowhere/key")

    assert ended.returncode == 1
    assert "LINKBEAT_SECRET_KEY_FILE: /nowhere/key cannot be read: No such file or directory" in ended.stderr
    assert re.search(r"worker [01] ended with status 1; the reason is above\n\Z", ended.stderr)
