"""Who waits for what changes does not keep the service from its end."""

import signal
import threading
import time
from typing import Any

import httpx

from tests.e2e.conftest import ServiceProcess
from tests.helpers.support import KEY

HEADERS = {"Authorization": f"Bearer {KEY}"}


def test_the_service_ends_at_once_and_answers_who_waits(service_process: ServiceProcess) -> None:
    url = f"{service_process.url}/api/v1/fleet"
    at = httpx.get(url, headers=HEADERS, trust_env=False).json()["at"]
    answers: list[Any] = []

    def wait() -> None:
        answers.append(httpx.get(url, params={"since": at}, headers=HEADERS, trust_env=False, timeout=20))

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for one in waiting:
        one.start()
    time.sleep(1.0)
    assert answers == []

    started = time.monotonic()
    service_process.process.send_signal(signal.SIGTERM)
    status = service_process.process.wait(15)
    seconds = time.monotonic() - started
    for one in waiting:
        one.join()

    assert status == 0
    assert seconds < 3.0
    assert [(one.status_code, one.json()["servers"]) for one in answers] == [(200, [])] * 3
