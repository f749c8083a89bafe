"""Who waits for what changes does not keep the service from its end."""

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.e2e.conftest import serving
from tests.helpers.durations import ATTEMPTS
from tests.helpers.support import KEY

HEADERS = {"Authorization": f"Bearer {KEY}"}


class End(NamedTuple):
    """early: clients that were answered before it; seconds: from the signal on."""

    early: int
    status: int
    seconds: float
    answers: list[httpx.Response]


def end_while_three_wait(database_url: str, directory: Path) -> End:
    answers: list[httpx.Response] = []
    with serving(database_url, directory) as service:
        url = f"{service.url}/api/v1/fleet"
        at = httpx.get(url, headers=HEADERS, trust_env=False, timeout=60).json()["at"]

        def wait() -> None:
            with contextlib.suppress(httpx.TransportError):  # too late for the service that ends
                answers.append(httpx.get(url, params={"since": at}, headers=HEADERS, trust_env=False, timeout=60))

        waiting = [threading.Thread(target=wait) for _ in range(3)]
        for one in waiting:
            one.start()
        time.sleep(1.0)
        early = len(answers)

        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        status = service.process.wait(60)
        seconds = time.monotonic() - started
        for one in waiting:
            one.join()
    return End(early, status, seconds, answers)


def test_the_service_ends_at_once_and_answers_who_waits(database_url: str, tmp_path: Path) -> None:
    ends: list[End] = []
    for _ in range(ATTEMPTS):  # a busy machine is late with one or the other
        ends.append(end_while_three_wait(database_url, tmp_path))
        assert ends[-1].status == 0
        if not ends[-1].early and ends[-1].seconds < 3.0 and len(ends[-1].answers) == 3:
            break

    assert ends[-1].early == 0
    assert ends[-1].seconds < 3.0, ends
    assert [(one.status_code, one.json()["servers"]) for one in ends[-1].answers] == [(200, [])] * 3
