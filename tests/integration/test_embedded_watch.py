"""A server that dies while it is watched: started again, by whoever owns it then, or given up with the reason."""

import os
import queue
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from service.directories import default_cache_dir
from service.embedded import packages, watch
from service.embedded.cluster import Cluster
from service.embedded.installation import Installation
from service.embedded.places import reachable_directory
from service.embedded.problems import MirrorError, NoSpaceError, UnsupportedHostError
from service.embedded.watch import watched
from tests.helpers.clusters import Copy, original_cluster
from tests.integration.test_embedded_cluster import query

SECONDS = 60.0


@pytest.fixture(scope="module")
def installation() -> Installation:
    try:
        return packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def original(installation: Installation) -> Iterator[Copy]:
    with original_cluster(installation) as copy:
        yield copy


@pytest.fixture
def cluster(original: Copy) -> Iterator[Cluster]:
    with reachable_directory() as directory, original(directory / "postgres") as cluster:
        yield cluster


@pytest.fixture
def said() -> "queue.Queue[str]":
    return queue.Queue()


def hear(said: "queue.Queue[str]", words: str) -> str:
    """The next line with these words; those before it are passed over."""
    deadline = time.monotonic() + SECONDS
    while words not in (line := said.get(timeout=max(0.1, deadline - time.monotonic()))):
        pass
    return line


def kill(cluster: Cluster) -> None:
    assert cluster.pid is not None
    os.kill(cluster.pid, signal.SIGKILL)


def test_a_killed_server_is_started_again_every_time(cluster: Cluster, said: "queue.Queue[str]") -> None:
    query(cluster, "CREATE TABLE kept AS SELECT 42 AS answer")
    pids = {cluster.pid}
    with watched(cluster, said.put, pytest.fail):
        for _ in range(3):
            kill(cluster)
            hear(said, "ended by itself")
            hear(said, "runs again")
            pids.add(cluster.pid)
            assert query(cluster, "SELECT answer FROM kept") == "42"

    assert len(pids) == 4


def test_who_only_used_a_server_becomes_its_owner_when_the_owner_stops_it(
    installation: Installation, cluster: Cluster, said: "queue.Queue[str]"
) -> None:
    with Cluster(installation, cluster.data_dir, print, durable=False) as second:
        owned = [second.owned]
        with watched(second, said.put, pytest.fail):
            cluster.stop()
            hear(said, "runs again")
            owned.append(second.owned)

            assert query(second, "SELECT 1") == "1"

    assert owned == [False, True]
    assert cluster.pid is None


def test_a_server_that_cannot_be_started_is_given_up_with_the_reason(
    cluster: Cluster, said: "queue.Queue[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BACKOFF_SECONDS", (0.0, 0.1, 0.1))
    given_up: queue.Queue[str] = queue.Queue()
    with watched(cluster, said.put, given_up.put):
        (cluster.data_dir / "global" / "pg_control").rename(cluster.data_dir / "global" / "pg_control.away")
        kill(cluster)

        reason = given_up.get(timeout=SECONDS)

    assert "cannot be started, 3 attempts failed" in reason
    assert "pg_control" in reason
    assert "attempt 2 of 3" in hear(said, "attempt 2")


def test_a_full_disk_is_waited_for_and_never_given_up(
    cluster: Cluster, said: "queue.Queue[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real thing, on a small file system, is a drill: tests/drills/test_full_disk.py.
    monkeypatch.setattr(watch, "BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(watch, "FULL_DISK_SECONDS", 0.05)
    start, tries = cluster.start, []

    def no_room() -> None:
        tries.append(1)
        if len(tries) <= 5:
            raise NoSpaceError("postgres: could not write: No space left on device", "Free space")
        start()

    monkeypatch.setattr(cluster, "start", no_room)
    with watched(cluster, said.put, pytest.fail):
        kill(cluster)
        hear(said, "Waiting for room")
        hear(said, "runs again")

    assert len(tries) == 6
    assert said.empty(), "a reminder a minute is enough"


def test_the_end_of_the_block_does_not_wait_for_a_start_that_takes_long(
    cluster: Cluster, said: "queue.Queue[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "_is_ready", lambda *_: False)
    with watched(cluster, said.put, pytest.fail):
        kill(cluster)
        hear(said, "ended by itself")
        started = time.monotonic()

    assert time.monotonic() < started + 30
    assert not any(thread.name == "database watch" for thread in threading.enumerate())
    monkeypatch.undo()


def test_a_cluster_that_is_gone_is_given_up_and_not_made_again(
    cluster: Cluster, said: "queue.Queue[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BACKOFF_SECONDS", (0.0,))
    given_up: queue.Queue[str] = queue.Queue()
    with watched(cluster, said.put, given_up.put):
        cluster.data_dir.rename(cluster.data_dir.with_name("away"))
        cluster_pid = int((cluster.data_dir.with_name("away") / "postmaster.pid").read_text().split()[0])
        os.kill(cluster_pid, signal.SIGKILL)

        assert "is gone. Bring it back" in given_up.get(timeout=SECONDS)

    assert not cluster.data_dir.exists()
