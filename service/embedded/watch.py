"""Watches over a cluster's server while it is in use, and starts it again when it dies."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.embedded.cluster import Cluster
from service.embedded.problems import EmbeddedError
from service.embedded.progress import Say

SWEEP_SECONDS = 0.5
BACKOFF_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Before each attempt; when they are used up, the database cannot be started."""

FULL_DISK_SECONDS = 5.0
FULL_DISK_WORDS = ("No space left", "quota exceeded", "could not extend file")
REMINDER_SECONDS = 60.0


@contextmanager
def watched(cluster: Cluster, say: Say, give_up: Callable[[str], None]) -> Iterator[None]:
    """Within the block, a server that dies is started again, by whoever owns the cluster then.

    give_up     is called, once and from another thread, with the reason why it cannot be started. A full disk is no
                such reason: it is waited for until there is room.
    """
    ending = threading.Event()
    thread = threading.Thread(target=_watch, args=(cluster, say, give_up, ending), name="database watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        cluster.interrupt()
        thread.join()


def _watch(cluster: Cluster, say: Say, give_up: Callable[[str], None], ending: threading.Event) -> None:
    while not ending.wait(SWEEP_SECONDS):
        if cluster.is_alive:
            continue
        say("The database server ended by itself: starting it again")
        failure = _start_again(cluster, say, ending)
        if ending.is_set():
            return
        if failure is not None:
            give_up(failure)
            return
        say(f"The database runs again (pid {cluster.pid})")


def _start_again(cluster: Cluster, say: Say, ending: threading.Event) -> str | None:
    """None once it runs, or why it cannot be started."""
    attempts = 0
    reminded = -REMINDER_SECONDS
    delay_seconds = BACKOFF_SECONDS[0]
    while not ending.wait(delay_seconds):
        try:
            cluster.start()
        except (EmbeddedError, OSError) as error:
            if any(words in str(error) for words in FULL_DISK_WORDS):
                if time.monotonic() - reminded >= REMINDER_SECONDS:
                    reminded = time.monotonic()
                    say(f"The database cannot run: the disk of {cluster.data_dir} is full. Waiting for room on it")
                delay_seconds = FULL_DISK_SECONDS
                continue
            attempts += 1
            if attempts == len(BACKOFF_SECONDS):
                return f"The database cannot be started, {attempts} attempts failed. The last one: {error}"
            delay_seconds = BACKOFF_SECONDS[attempts]
            if not ending.is_set():
                say(f"The database did not start (attempt {attempts} of {len(BACKOFF_SECONDS)}): {error}")
        else:
            return None
    return None
