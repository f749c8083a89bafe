"""A machine that is given nothing but an enrolment token: the agent and the service as processes."""

import stat
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.conftest import ServiceProcess
from tests.helpers.agents import AgentProcess
from tests.helpers.support import KEY


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_agent_turns_an_enrolment_token_into_one_of_its_own_and_keeps_it(
    service_process: ServiceProcess, tmp_path: Path
) -> None:
    # A service that stood still takes a connection for idle, although it has been asked meanwhile: each is of its own.
    headers = {"Authorization": f"Bearer {KEY}", "Connection": "close"}
    with httpx.Client(base_url=f"{service_process.url}/api/v1", headers=headers, timeout=60) as admin:

        def queued(server_id: str) -> int | None:
            found = admin.get("/agents", params={"search": server_id}).json()["agents"]
            return found[0]["queued"] if found else None

        made = admin.post("/enrolments", json={"uses": 1, "expires_minutes": 5})
        assert made.status_code == 201, made.text
        enrolment = made.json()["token"]
        agent = AgentProcess(service_process.url, tmp_path / "one", server_id="enrolled-one", API_KEY=enrolment)
        until(lambda: queued("enrolled-one") is not None)
        agent.stop()

        kept = tmp_path / "one" / "token"
        (token,) = admin.get("/tokens", params={"server_id": "enrolled-one"}).json()["tokens"]
        assert token["kind"] == "server"
        assert token["id"] in kept.read_text()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert enrolment not in kept.read_text()

        # The token was good for one machine: this one goes on, another one is told.
        before = admin.get("/servers/enrolled-one").json()["last_seen"]
        again = AgentProcess(service_process.url, tmp_path / "one", server_id="enrolled-one", API_KEY=enrolment)
        until(lambda: admin.get("/servers/enrolled-one").json()["last_seen"] > before)
        again.stop()
        other = AgentProcess(service_process.url, tmp_path / "two", server_id="enrolled-two", API_KEY=enrolment)
        until(lambda: "heartbeats are kept" in other.log)
        other.stop()
        assert queued("enrolled-two") is None
        assert list((tmp_path / "two").glob("*.seg"))
        for log in (agent.log, again.log, other.log):
            assert enrolment not in log
            assert "Traceback" not in log
        # What waited is delivered once there is a token for it.
        more = admin.post("/enrolments", json={"uses": 1, "expires_minutes": 5}).json()["token"]
        late = AgentProcess(service_process.url, tmp_path / "two", server_id="enrolled-two", API_KEY=more)
        until(lambda: queued("enrolled-two") is not None)
        late.stop()
