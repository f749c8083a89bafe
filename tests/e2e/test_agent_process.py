"""The agent as a process, against a real HTTP server that answers as the test says."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.durations import ATTEMPTS, fastest

REPOSITORY = Path(__file__).parents[2]
ACK = {"status": "ok", "server_registered": True, "duplicate": False}
BATCH_ACK = {"status": "ok", "stored": 1, "duplicate": 0, "conflict": 0, "rejected": []}

Answer = tuple[int, bytes, dict[str, str]]


class Service(ThreadingHTTPServer):
    """Answers each request with `answer(path)`, by default with an acknowledgement; keeps what arrived."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[str], Answer] = acknowledge
        self.requests: list[tuple[float, str, dict[str, str], Any]] = []
        self.arrived = threading.Condition()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: an agent that is told to stop hangs up on an answer that does not come."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def wait_for(self, count: int) -> None:
        self.wait_until(lambda: len(self.requests) >= count)

    def wait_until(self, holds: Callable[[], object]) -> None:
        """Looks whenever a request has arrived."""
        with self.arrived:
            assert self.arrived.wait_for(holds, 60), "too few requests arrived"

    @property
    def live(self) -> list[Any]:
        return [body for _, path, _, body in self.requests if path.endswith("/heartbeat")]

    @property
    def batches(self) -> list[Any]:
        return [body for _, path, _, body in self.requests if path.endswith("/heartbeats")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, text, headers = self.server.answer(self.path)
        with self.server.arrived:
            self.server.requests.append((time.monotonic(), self.path, dict(self.headers.items()), body))
            self.server.arrived.notify_all()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


def acknowledge(path: str) -> Answer:
    ack = BATCH_ACK if path.endswith("/heartbeats") else ACK
    return 200, json.dumps(ack).encode(), {"Content-Type": "application/json"}


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    yield service
    service.shutdown()
    service.server_close()


class Agent:
    """A running `python -m agent run`, one heartbeat a second, the first at once."""

    def __init__(self, service_url: str, log: Path, **settings: str) -> None:
        self._log, self.spool = log, log.parent / "spool"
        often = {"INTERVAL_SECONDS": "1", "START_JITTER_SECONDS": "0", "SPOOL_DIR": str(self.spool)}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run"],
                cwd=REPOSITORY,
                env=environment(service_url, **often | settings),
                stderr=stderr,
                stdout=subprocess.DEVNULL,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Ends it with this signal; returns the seconds that it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(60) == 0, self.log
        return time.monotonic() - begin

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


Start = Callable[..., Agent]


@pytest.fixture
def start(service: Service, tmp_path: Path) -> Iterator[Start]:
    started: list[Agent] = []

    def begin(**settings: str) -> Agent:
        started.append(Agent(service.url, tmp_path / "agent.log", **settings))
        return started[-1]

    yield begin
    for agent in started:
        agent.kill()


def environment(service_url: str, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    chosen = {"URL": service_url, "API_KEY": "the-token", "SERVER_ID": "test-server", "CONFIG": os.devnull} | settings
    return inherited | {f"LINKBEAT_{name}": value for name, value in chosen.items()}


def command(
    *arguments: str, service_url: str = "http://127.0.0.1:9", **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        cwd=REPOSITORY,
        env=environment(service_url, **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_running_agent_reports_every_interval_and_stops_in_time(
    service: Service, start: Start, tmp_path: Path
) -> None:
    kept_time = []
    for attempt in range(ATTEMPTS):  # a busy machine delays one heartbeat or the other, and what is late is kept
        service.requests.clear()
        agent = start(SPOOL_DIR=str(tmp_path / f"spool-{attempt}"))
        service.wait_for(3)
        duration = agent.stop()
        moments = [moment for moment, *_ in service.requests]
        kept_time.append((duration < 2, 1.7 < moments[2] - moments[0] < 3.5, service.batches == []))
        if all(kept_time[-1]):
            break

    assert all(kept_time[-1]), kept_time
    beat = service.live[0]
    assert beat["server_id"] == "test-server"
    assert beat["status"] == "online"
    assert all(each["name"] != "lo" for each in beat["network_interfaces"])
    stamps = [each["timestamp"] for each in service.live]
    assert stamps == sorted(set(stamps))
    assert service.requests[0][2]["Authorization"] == "Bearer the-token"
    assert "the-token" not in agent.log
    # Quiet when all is well: what it does, and that it works.
    assert len(agent.log.splitlines()) == 2, agent.log


def test_retry_after_is_obeyed_and_nothing_is_lost(service: Service, start: Start) -> None:
    service.answer = lambda _: (503, b"", {"Retry-After": "2"})
    agent = start()
    service.wait_for(1)
    service.answer = acknowledge
    service.wait_for(3)
    agent.stop()

    refused, first_after = service.requests[0][0], service.requests[1][0]
    assert first_after - refused >= 1.9
    # The live heartbeat first, then those that waited, in order.
    first_live, second_live = service.live[:2]
    waited = [beat["timestamp"] for batch in service.batches for beat in batch]
    assert first_live["timestamp"] == waited[0]
    assert waited == sorted(waited)
    assert second_live["timestamp"] > waited[0]
    assert "HTTP 503" in agent.log
    assert "delivering again" in agent.log


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (401, b'{"detail":"token unknown"}', {}, "refuses the token"),
        (403, b"", {}, "refuses the token"),
        (200, b"<html>Please log in</html>", {}, "not a response of Linkbeat"),
        (302, b"", {"Location": "/elsewhere"}, "not followed"),
        (404, b"", {}, "HTTP 404"),
    ],
)
def test_an_answer_that_is_no_acknowledgement_keeps_the_heartbeats(
    service: Service, start: Start, status: int, body: bytes, headers: dict[str, str], said: str
) -> None:
    service.answer = lambda _: (status, body, headers)
    agent = start()
    service.wait_for(1)
    service.answer = acknowledge
    service.wait_for(2)
    agent.stop()

    refused = service.requests[0][3]["timestamp"]
    later = [*service.live[1:], *(beat for batch in service.batches for beat in batch)]
    assert refused in [beat["timestamp"] for beat in later]
    assert all("/elsewhere" not in path for _, path, *_ in service.requests)
    assert agent.log.count(said) == 1, agent.log


def test_a_heartbeat_that_the_service_will_never_take_is_dropped_and_reported(service: Service, start: Start) -> None:
    problem = {"title": "Invalid", "errors": [{"path": "hostname", "reason": "too long"}]}
    service.answer = lambda _: (422, json.dumps(problem).encode(), {})
    agent = start()
    service.wait_for(1)
    service.answer = acknowledge
    service.wait_for(2)
    agent.stop()

    assert service.batches == []
    assert service.live[1]["timestamp"] > service.live[0]["timestamp"]
    assert service.live[1]["delivery"]["rejected"] == 1
    assert "hostname: too long" in agent.log


def test_a_token_file_that_is_replaced_is_read_again(service: Service, start: Start, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    def refuse_and_replace(_: str) -> Answer:
        token.write_text("new\n")
        return 401, b"", {}

    service.answer = refuse_and_replace
    agent = start(API_KEY_FILE=str(token))
    service.wait_for(1)
    service.answer = acknowledge
    service.wait_for(2)
    agent.stop()

    assert [headers["Authorization"] for _, _, headers, _ in service.requests[:2]] == ["Bearer old", "Bearer new"]
    assert service.live[0]["timestamp"] == service.live[1]["timestamp"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_does_not_wait_for_a_service_that_hangs(
    service: Service, start: Start, tmp_path: Path, number: int
) -> None:
    released = threading.Event()

    def hang(path: str) -> Answer:
        asked.set()
        released.wait(300)
        return acknowledge(path)

    asked = threading.Event()
    service.answer = hang
    durations = []
    for attempt in range(ATTEMPTS):  # a busy machine delays one end or the other
        asked.clear()
        agent = start(SPOOL_DIR=str(tmp_path / f"spool-{attempt}"))
        assert asked.wait(60)
        durations.append(agent.stop(number))
        if durations[-1] < 2:
            break
    released.set()

    assert durations[-1] < 2, durations
    assert re.search(r"\b[1-9][0-9]* heartbeats not delivered", agent.log)
    assert "Traceback" not in agent.log


def test_a_killed_agent_delivers_what_it_had_kept(service: Service, start: Start) -> None:
    service.answer = lambda _: (503, b"", {})
    agent = start()
    service.wait_for(2)
    agent.process.kill()
    agent.process.wait()
    refused = {body["timestamp"] for _, _, _, body in service.requests}
    service.requests.clear()
    service.answer = acknowledge

    again = start()
    service.wait_for(1)
    with service.arrived:
        assert service.arrived.wait_for(lambda: service.batches, 60)
    again.stop()

    assert "heartbeats from an earlier run wait in" in again.log
    assert {beat["timestamp"] for batch in service.batches for beat in batch} >= refused
    assert service.live[0]["timestamp"] > max(refused)
    assert service.live[0]["delivery"]["queued"] >= len(refused)
    assert service.live[0]["delivery"]["spool"] == "disk"


def databases(*epochs: str) -> Callable[[str], Answer]:
    """Acknowledgements by the last of these; the others have been."""

    def answer(path: str) -> Answer:
        ack = (BATCH_ACK if path.endswith("/heartbeats") else ACK) | {"epoch": epochs[-1]}
        return 200, json.dumps(ack).encode(), {}

    return answer


def sent_in_batches(service: Service) -> list[str]:
    return [beat["timestamp"] for batch in service.batches for beat in batch]


@pytest.mark.parametrize("delay", ["0", "60"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_was_restarted_sends_another_database_what_an_earlier_process_had_delivered(
    service: Service, start: Start, number: signal.Signals, delay: str
) -> None:
    service.answer = databases("a.1")
    agent = start(SPOOL_DELAY_SECONDS=delay)
    service.wait_for(3)
    agent.process.send_signal(number)
    agent.process.wait(60)
    delivered = [beat["timestamp"] for beat in service.live[:-1]]
    service.requests.clear()
    service.answer = databases("a.1", "a.2")

    again = start(SPOOL_DELAY_SECONDS=delay)
    if delay != "0" and number == signal.SIGKILL:
        service.wait_for(len(service.requests) + 12)  # what never was on the disk has gone with the process
        again.stop()
        assert not set(delivered) & set(sent_in_batches(service))
        return
    with service.arrived:
        assert service.arrived.wait_for(lambda: set(delivered) <= set(sent_in_batches(service)), 120)
    again.process.kill()
    again.process.wait()
    log = again.log
    third = start()
    service.wait_for(len(service.requests) + 12)
    third.stop()

    sent = sent_in_batches(service)
    assert [each for each in sent if each in delivered][: len(delivered)] == delivered
    assert max(map(sent.count, delivered)) <= 2  # again, where the kill has cost the answer, and no more
    assert "has another database now (a.2, was a.1)" in log
    doctor = json.loads(command("doctor", "--json", SPOOL_DIR=str(third.spool)).stdout)
    (kept,) = [each for each in doctor["findings"] if each["name"] == "kept"]
    assert kept["text"].endswith("the service's database is a.2")


def test_an_agent_that_keeps_nothing_sends_nothing_again(service: Service, start: Start) -> None:
    service.answer = databases("a.1")
    agent = start(SPOOL_KEEP_SECONDS="0")
    service.wait_for(3)
    service.answer = databases("a.2")
    service.wait_for(15)
    agent.stop()

    # What came late, as on a machine that stood still, came for the first time.
    sent = [each["timestamp"] for each in service.live] + sent_in_batches(service)
    assert len(sent) == len(set(sent))


def test_a_second_agent_in_the_same_directory_is_told_who_has_it(
    service: Service, start: Start, tmp_path: Path
) -> None:
    agent = start()
    service.wait_for(1)

    second = command("run", service_url=service.url, SPOOL_DIR=str(tmp_path / "spool"))

    assert second.returncode == 2
    assert second.stderr.splitlines()[-1] == (
        f'LINKBEAT_SPOOL_DIR: "{tmp_path}/spool" is in use by process {agent.process.pid}; '
        "each agent needs its own directory"
    )


def test_an_agent_without_a_disk_reports_from_memory(service: Service, start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    agent = start(SPOOL_DIR=str(tmp_path / "file" / "spool"))
    service.wait_for(2)
    agent.stop()

    assert [beat["delivery"]["spool"] for beat in service.live] == ["memory"] * len(service.live)
    assert agent.log.count("cannot be written (Not a directory)") == 1


def test_sighup_reads_the_settings_again_and_a_mistake_in_them_changes_nothing(
    service: Service, start: Start, tmp_path: Path
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("")
    agent = start(CONFIG=str(config))
    service.wait_for(1)
    assert service.live[0]["network_interfaces"]

    config.write_text('exclude_interfaces = ["*"]\nspool_mib = 1\n')
    agent.process.send_signal(signal.SIGHUP)
    service.wait_for(len(service.requests) + 3)

    assert service.live[-1]["network_interfaces"] == []
    assert "LINKBEAT_SPOOL_MIB cannot change while the agent runs" in agent.log
    config.write_text("interval_second = 1")
    agent.process.send_signal(signal.SIGHUP)
    service.wait_for(len(service.requests) + 3)
    service.wait_until(lambda: service.live[-1]["delivery"]["queued"] == 0)
    agent.stop()
    assert service.live[-1]["network_interfaces"] == []
    assert f'{config}: "interval_second" is not a setting' in agent.log
    assert agent.log.count("settings reloaded") == 1
    assert "Traceback" not in agent.log
    assert service.live[-1]["delivery"]["queued"] == 0
    stamps = [each["timestamp"] for each in service.live]
    assert stamps == sorted(set(stamps))


def test_an_agent_that_is_told_to_report_elsewhere_does_so_with_what_it_kept(
    service: Service, start: Start, tmp_path: Path
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('url = "http://127.0.0.1:9"')
    agent = start(CONFIG=str(config), URL="")
    while "heartbeats are kept and sent later" not in agent.log:
        time.sleep(0.05)
    time.sleep(2.5)  # two more are kept

    config.write_text(f'url = "{service.url}"')
    agent.process.send_signal(signal.SIGHUP)
    service.wait_for(2)
    while not service.batches:
        time.sleep(0.05)
    agent.stop()

    kept = [each["timestamp"] for batch in service.batches for each in batch]
    assert kept[0] < service.live[0]["timestamp"]


def test_the_service_sets_interval_and_pause_within_the_settings_bounds(
    service: Service, start: Start, tmp_path: Path
) -> None:
    config: dict[str, Any] = {"interval_seconds": 0.1, "exclude_interfaces": ["*"]}
    service.answer = lambda path: (200, json.dumps(ACK | {"config": config}).encode(), {})
    agents: list[Agent] = []

    def hear() -> None:
        for earlier in agents:
            earlier.kill()
        service.requests.clear()
        spool = str(tmp_path / f"spool-{len(agents)}")
        agents.append(start(INTERVAL_SECONDS="3600", MIN_INTERVAL_SECONDS="1", SPOOL_DIR=spool))
        service.wait_for(3)

    # It hears of it in the answer to the first, an hour before the second would have come.
    assert fastest(hear, within=6) < 6
    agent = agents[-1]
    assert [each["interval_seconds"] for each in service.live[:3]] == [3600.0, 1.0, 1.0]
    assert service.live[0]["network_interfaces"]
    assert service.live[1]["network_interfaces"] == []
    config = {"paused": True, "interval_seconds": 1}
    service.wait_until(lambda: service.live[-1]["status"] == "paused")
    paused = service.live[-1]
    assert paused["status"] == "paused"
    assert not {"metrics", "network_interfaces", "filesystems"} & paused.keys()
    config = {}
    service.wait_until(lambda: service.live[-1]["status"] != "paused")
    back = service.live[-1]
    agent.stop()

    # One more at the pace that the service counts by, and it says which pace comes next.
    assert (back["status"], back["interval_seconds"]) == ("online", 3600.0)
    assert back["network_interfaces"]
    assert "the service sets an interval of 0.1 s; min_interval_seconds makes it 1 s" in agent.log
    assert "remote configuration: a pause; a heartbeat every 1 s" in agent.log
    assert "remote configuration: none" in agent.log


def test_a_report_that_the_service_asks_for_comes_at_once_and_once(
    service: Service, start: Start, tmp_path: Path
) -> None:
    config = {"report_at": "2026-01-29T10:00:00Z"}
    service.answer = lambda path: (200, json.dumps(ACK | {"config": config}).encode(), {})
    agents: list[Agent] = []

    def hear() -> None:
        for earlier in agents:
            earlier.kill()
        service.requests.clear()
        agents.append(start(INTERVAL_SECONDS="3600", SPOOL_DIR=str(tmp_path / f"spool-{len(agents)}")))
        service.wait_for(2)

    # It hears of it in the answer to the first, and makes one: the answer to that asks for no other.
    assert fastest(hear, within=6) < 6
    agent = agents[-1]
    time.sleep(1.5)
    assert len(service.live) == 2
    agent.stop()
    assert "remote configuration: a report, asked for at 2026-01-29T10:00:00Z" in agent.log


def test_once_sends_one_heartbeat_and_prints_the_answer(service: Service) -> None:
    done = command("once", service_url=service.url)

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == ACK
    assert len(done.stdout.splitlines()) == 1
    assert len(service.live) == 1
    assert 0 <= service.live[0]["metrics"]["cpu_percent"] <= 100


def test_once_says_why_it_failed(service: Service) -> None:
    refused = command("once")
    service.answer = lambda _: (401, b'{"detail":"token unknown"}', {})
    unauthorized = command("once", service_url=service.url)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "http://127.0.0.1:9: connection refused\n"
    assert (unauthorized.returncode, unauthorized.stdout) == (1, "")
    assert unauthorized.stderr == f"{service.url}: HTTP 401 Unauthorized: token unknown\n"


def test_print_shows_the_heartbeat_and_sends_nothing(service: Service) -> None:
    done = command("print", service_url=service.url)

    assert (done.returncode, done.stderr) == (0, "")
    beat = json.loads(done.stdout)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", beat["server_id"])
    assert beat["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert service.requests == []


def test_a_bad_setting_is_named(service: Service) -> None:
    done = command("run", INTERVAL_SECONDS="abc")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'LINKBEAT_INTERVAL_SECONDS: "abc" is not a number of seconds from 1 to 3600\n'


def test_without_a_command_help_is_printed() -> None:
    done = command()

    assert done.returncode == 0
    assert "run | once | print" in done.stdout
    assert "LINKBEAT_INTERVAL_SECONDS" in done.stdout


def test_the_agent_imports_nothing_of_the_service_and_little_else() -> None:
    probe = "import sys, agent.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=20
    )

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"service", "asyncio", "psutil", "litestar", "asyncpg", "httpx"})
