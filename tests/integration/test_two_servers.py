"""A primary, its standby and a service: what was answered 200 survives the primary; and several hosts in one URL.

Of the Apache edition always (tests/helpers/two_servers.py).
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from service.app import create_app
from service.database import hosts, schema
from service.embedded.data_directory import DATABASE
from service.http.errors import Problem
from service.ingest import commit, sealing
from service.ingest.commit import Ingest
from service.ingest.durability import Durability
from service.ingest.heartbeat import decode_heartbeat
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.faults import Load
from tests.helpers.processes import free_port, killable_service
from tests.helpers.support import KEY, Client, as_login, connected, heartbeat
from tests.helpers.two_servers import Pair, Server, Switch, silent_host, two_servers, until

pytestmark = pytest.mark.background

PATH = "/api/v1/agents/heartbeat"
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'linkbeat ingest'"


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with two_servers() as pair:
        yield pair


@pytest.fixture
def pair(servers: Pair) -> Pair:
    """Both run, the standby is synchronous, and nothing is stored."""
    servers.restore()
    servers.primary.query("TRUNCATE servers, server_boots, network_interface_metrics CASCADE")
    return servers


@asynccontextmanager
async def served(url: str, directory: Path, durability: Durability = "local") -> AsyncIterator[Client]:
    """The service on this URL, in this process."""
    settings = Settings(api_key=KEY, data_dir=str(directory), durability=durability)
    async with in_process(create_app(settings, database_url=url, key=KEY)) as client:
        yield client


async def wait(holds: Callable[[], object], what: str) -> None:
    """until(), with the service at work meanwhile."""
    await asyncio.to_thread(until, holds, what)


async def posted(service: Client, server_id: str) -> httpx.Response:
    return await service.http.post(PATH, json=heartbeat(server_id, eth0=(1, 1)))


async def failures(service: Client) -> dict[str, int]:
    """linkbeat_ingest_failures_total by kind."""
    text = (await service.http.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("linkbeat_ingest_failures_total{")]
    return {line.split('"')[1]: int(float(line.rpartition(" ")[2])) for line in lines}


def stored(server: Server, server_id: str) -> bool:
    return server.query(f"SELECT count(*) FROM network_interface_metrics WHERE server_id = '{server_id}'") == ["1"]


async def store(ingest: Ingest, server_id: str) -> None:
    now = datetime.now(UTC)
    body = msgspec.json.encode(heartbeat(server_id, at=now, eth0=(1, 1)))
    await ingest.store(decode_heartbeat(body, now=now, oldest=timedelta(days=1)), now)


async def waiting_sealer(server: Server, but: str = "") -> str:
    """The process of a commit that waits for the standby; another one than `but`."""
    found: list[str] = []

    def is_there() -> bool:
        found[:] = [pid for pid in server.query(WAITING) if pid != but]
        return bool(found)

    await wait(is_there, "a commit waits for the standby")
    return found[0]


async def test_a_primary_that_dies_takes_nothing_with_it_that_was_acknowledged(pair: Pair, tmp_path: Path) -> None:
    async with killable_service(pair.url, tmp_path) as service:
        async with Load([service.url]) as load:
            await load.until_acknowledged(150)
            pair.primary.kill()
            died = time.monotonic()
            await asyncio.to_thread(pair.fail_over)
            await load.until_acknowledged(150)

        assert service.is_running
        load.check_answers(allowed=(200, 503))
        assert load.statuses(died)[200] > 0
        async with connected(pair.primary.url, timezone="UTC") as database:
            await load.check(database)
        assert "Traceback" not in service.log


async def test_a_commit_on_another_server_does_not_vouch_for_what_only_the_old_one_has(
    pair: Pair, tmp_path: Path
) -> None:
    """The writers' server lives on alone, and the sealer's next connection is to the one that took over."""
    async with Switch(pair) as switch, served(switch.url, tmp_path) as service:
        assert (await posted(service, "before")).status_code == 200
        old = pair.primary
        await asyncio.to_thread(pair.fail_over)
        answer = asyncio.create_task(posted(service, "during"))
        sealer = await waiting_sealer(old)
        await wait(lambda: stored(old, "during"), "a writer has executed it")
        switch.target = pair.primary
        old.query(f"SELECT pg_terminate_backend({sealer})")

        assert (await answer).status_code == 200

        assert await asyncio.to_thread(stored, pair.primary, "during")
        assert (await posted(service, "after")).status_code == 200
        assert await asyncio.to_thread(stored, pair.primary, "after")


async def test_a_writer_that_comes_to_another_server_than_the_sealer_writes_nothing(pair: Pair) -> None:
    """A name that stands for two servers, each of which takes itself for the primary."""
    old = pair.primary
    async with Switch(pair) as switch, Ingest(switch.url, 100, series_budget=256, fold_seconds=3_600) as ingest:
        before = ingest.epoch
        await asyncio.to_thread(old.set_system, "synchronous_standby_names", "")
        await asyncio.to_thread(pair.fail_over)
        switch.target = pair.primary
        old.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'linkbeat ingest' AND query NOT LIKE '%synchronous_standby_names%'"
        )

        with pytest.raises(Problem) as raised:
            await store(ingest, "alone")

        assert raised.value.status == 503
        assert ingest.counts["other_server"] > 0
        assert ingest.epoch == before
        assert not await asyncio.to_thread(stored, pair.primary, "alone")


async def name_standbys(pair: Pair, names: str) -> None:
    await asyncio.to_thread(pair.primary.set_system, "synchronous_standby_names", names)


async def until_ready(service: Client, status: int) -> httpx.Response:
    """/health/ready, once it has this status. Within 2 seconds, on a machine of its own."""
    async with asyncio.timeout(20):
        while True:
            answer = await service.http.get("/health/ready")
            if answer.status_code == status:
                return answer
            await asyncio.sleep(0.05)


@pytest.fixture
def unpolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sealer commits for heartbeats alone: the commit that waits is theirs."""
    monkeypatch.setattr(sealing, "POLL_SECONDS", float("inf"))


@pytest.mark.usefixtures("unpolled")
@pytest.mark.parametrize("durability", ["local", "replicated"])
async def test_a_wait_that_is_cancelled_acknowledges_nothing(
    pair: Pair, tmp_path: Path, durability: Durability
) -> None:
    async with served(pair.url, tmp_path, durability) as service:
        assert (await posted(service, "before")).status_code == 200
        with pair.standby.frozen():
            answer = asyncio.create_task(posted(service, "during"))
            await wait(lambda: stored(pair.primary, "during"), "a writer has executed it")
            waiting = await waiting_sealer(pair.primary)
            pair.primary.query(f"SELECT pg_cancel_backend({waiting})")
            await waiting_sealer(pair.primary, but=waiting)
            assert not answer.done()

        assert (await answer).status_code in (200, 503)
        assert (await failures(service))["seal_cancelled"] == 1
        assert (await posted(service, "after")).status_code == 200


async def test_an_emptied_list_of_standbys_acknowledges_nothing_that_is_to_be_replicated(
    pair: Pair, tmp_path: Path
) -> None:
    async with served(pair.url, tmp_path, "replicated") as service:
        with pair.standby.frozen():
            answer = asyncio.create_task(posted(service, "during"))
            await wait(lambda: stored(pair.primary, "during"), "a writer has executed it")
            await waiting_sealer(pair.primary)
            await name_standbys(pair, "")

            assert (await answer).status_code == 503

            reason = "synchronous_standby_names is empty"
            ready = await until_ready(service, 503)
            assert ready.json()["durability"] == reason
            assert (ready.json()["ingest"], ready.json()["database"]) == ("ok", "ok")
            assert (ready.json()["durability_asked"], ready.json()["durability_in_force"]) == ("replicated", "local")
            refused = await posted(service, "refused")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
            assert reason in refused.json()["detail"]
            assert (await failures(service))["not_replicated"] > 0
            metrics = (await service.http.get("/metrics")).text
            assert 'linkbeat_durability_info{asked="replicated",in_force="local"} 1.0' in metrics
            assert "linkbeat_durability_in_force 0.0" in metrics
            assert (await service.get("/servers"))["servers"][0]["id"] == "during"  # what is there can be read
        await name_standbys(pair, pair.standby.name)

        ready = await until_ready(service, 200)
        assert (ready.json()["durability"], ready.json()["durability_in_force"]) == ("ok", "replicated")
        assert (await posted(service, "refused")).status_code == 200
        assert (await service.get("/system/info"))["durability_in_force"] == "replicated"
        await wait(lambda: stored(pair.standby, "refused"), "the standby has replayed it")


@pytest.mark.usefixtures("unpolled")
@pytest.mark.parametrize("may_see_standbys", [True, False])
async def test_a_list_that_is_emptied_and_filled_while_nobody_looks_acknowledges_nothing(
    pair: Pair, may_see_standbys: bool
) -> None:
    """The session sees the same list before and after."""
    pair.primary.query("DROP ROLE IF EXISTS plain")
    pair.primary.query("CREATE ROLE plain LOGIN PASSWORD 'plain' IN ROLE linkbeat_ingest")
    if may_see_standbys:
        pair.primary.query("GRANT pg_read_all_stats TO plain")

    def begun(pid: int) -> str:
        """When the statement of that process began; text, of one format."""
        return "".join(pair.primary.query(f"SELECT query_start FROM pg_stat_activity WHERE pid = {pid}"))

    async with Ingest(
        as_login(pair.url, "plain"), 100, series_budget=256, fold_seconds=3_600, durability="replicated"
    ) as ingest:
        await store(ingest, "before")
        with pair.standby.frozen():
            answer = asyncio.create_task(store(ingest, "during"))
            await wait(lambda: stored(pair.primary, "during"), "a writer has executed it")
            waiting = int(await waiting_sealer(pair.primary))
            since = begun(waiting)
            os.kill(waiting, signal.SIGSTOP)
            await name_standbys(pair, "")
            # Returns once the checkpointer has taken the empty list up, and so released the sealer.
            await asyncio.to_thread(pair.primary.query, "SELECT pg_logical_emit_message(true, 'test', '')")
            await name_standbys(pair, pair.standby.name)
            os.kill(waiting, signal.SIGCONT)
            await wait(lambda: begun(waiting) > since, "the sealer commits once more")
            await waiting_sealer(pair.primary)
            assert not answer.done()

        with contextlib.suppress(Problem):  # 503, where the machine was busy for longer than a client waits
            await answer
        await store(ingest, "after")


async def test_a_demoted_server_is_a_reconnect_and_no_error_of_the_batch(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(pair.url, tmp_path) as service:
        assert (await posted(service, "before")).status_code == 200
        await asyncio.to_thread(pair.primary.set_system, "default_transaction_read_only", "on")
        found: dict[str, int] = {}

        with monkeypatch.context() as patch:
            patch.setattr(commit, "ANSWER_SECONDS", 1.0)  # that a client waits for
            async with asyncio.timeout(60):
                while not found.get("reconnect_25006"):  # a machine that stands still may refuse the first untried
                    refused = await posted(service, "during")
                    assert refused.status_code == 503
                    found = await failures(service)

        assert not [kind for kind in found if kind.startswith("refused")]
        await asyncio.to_thread(pair.primary.set_system, "default_transaction_read_only", "off")
        assert (await service.post(heartbeat("during", eth0=(1, 1))))["status"] == "ok"


async def test_a_host_that_accepts_and_says_nothing_holds_nobody_up(pair: Pair, tmp_path: Path) -> None:
    login, _, _ = pair.primary.url.rpartition("@")
    with silent_host() as silent:
        url = f"{login}@{silent},{pair.standby.address},127.0.0.1:{free_port()},{pair.primary.address}/{DATABASE}"
        started = time.monotonic()
        connection = await hosts.connect(url, seconds=60.0)
        assert await connection.fetchval("SELECT inet_server_port()") == pair.primary.port
        assert time.monotonic() - started < 30  # asyncpg's own way ends here, after all of its time
        await connection.close()

        async with served(url, tmp_path) as service:
            assert (await posted(service, "nas")).status_code == 200

        for seconds in (1.0, 10.0, 30.0):  # in which the standby has time to answer
            with pytest.raises(hosts.NoHostError) as raised:
                await hosts.connect(f"{login}@{pair.standby.address},{silent}/{DATABASE}", seconds=seconds)
            if "it is a standby" in str(raised.value):
                break
        assert f"{pair.standby.address}: it is a standby; {silent}: no response in time" in str(raised.value)


async def test_a_schema_is_migrated_and_checked_on_whichever_host_is_the_primary(pair: Pair) -> None:
    pair.primary.query("CREATE DATABASE other TEMPLATE template0")
    login, _, _ = pair.primary.url.rpartition("@")
    url = f"{login}@{pair.standby.address},{pair.primary.address}/other"

    await schema.migrate(url, lambda _: None)

    assert await schema.check(url) == "apache"
    pair.primary.query("DROP DATABASE other WITH (FORCE)")
