"""Clients that have a token and misbehave, and one that has none: make drill-abuse. Nobody else may notice.

Each does what took the service away from everybody before it was bounded; beside it the canary
(tests/helpers/canary.py) reports and reads. All of it goes to a service of its own on loopback, for some seconds each.
"""

import contextlib
import gzip
import http.client
import json
import resource
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.http.connections import UNREAD_SECONDS
from service.http.protocol import MAX_PIPELINED
from tests.e2e.conftest import ServiceProcess, serving
from tests.helpers.bombs import bomb
from tests.helpers.canary import Canary
from tests.helpers.support import KEY, interface

ONE, MANY = "/api/v1/agents/heartbeat", "/api/v1/agents/heartbeats"
ATTACKER = "127.0.0.66"
SECONDS = 15.0
PAUSE_SECONDS = 0.02
CANARY_P99_MS = 250.0
RESIDENT_BYTES = 400 << 20
GUESSES_PER_MINUTE = 20


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[ServiceProcess]:
    with serving(database_url, tmp_path) as started:
        yield started


class Watch(threading.Thread):
    """The most that the service has held."""

    def __init__(self, service: ServiceProcess) -> None:
        super().__init__(daemon=True)
        self._service = service
        self._ended = threading.Event()
        self.most_bytes = 0
        self.most_descriptors = 0

    def run(self) -> None:
        descriptors = Path(f"/proc/{self._service.process.pid}/fd")
        while not self._ended.wait(0.1):
            self.most_bytes = max(self.most_bytes, self._service.resident_bytes)
            self.most_descriptors = max(self.most_descriptors, sum(1 for _ in descriptors.iterdir()))

    def end(self) -> None:
        self._ended.set()
        self.join()


@contextlib.contextmanager
def unnoticed(service: ServiceProcess, what: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    """Fails where the canary or the memory noticed what is done meanwhile."""
    watch = Watch(service)
    watch.start()
    quiet, canary = Canary(service.port, KEY), Canary(service.port, KEY)
    with quiet:
        time.sleep(3)
    with canary:
        time.sleep(0.5)
        yield watch
    watch.end()
    with capsys.disabled():
        print(
            f"\n{what}: {canary} (before: p50 {quiet.at(0.5):.0f}, p99 {quiet.at(0.99):.0f} ms); "
            f"{watch.most_bytes >> 20} MiB, {watch.most_descriptors} descriptors"
        )
    assert set(canary.statuses) == {"post 200", "get 200"}, canary
    assert canary.at(0.99) < CANARY_P99_MS, canary
    assert watch.most_bytes < RESIDENT_BYTES
    assert service.process.poll() is None


def call(service: ServiceProcess, method: str, path: str, body: Any = None, key: str = KEY, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60, source_address=(ATTACKER, 0))
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"} | headers
    with contextlib.closing(connection):
        connection.request(method, path, data, named)
        answer = connection.getresponse()
        return answer.status, answer.read()


def token(service: ServiceProcess, kind: str, server_id: str | None = None) -> str:
    status, body = call(
        service, "POST", "/api/v1/tokens", {"kind": kind} | ({"server_id": server_id} if server_id else {})
    )
    assert status == 201, body
    return str(json.loads(body)["token"])


def together(work: Callable[[int], None], clients: int) -> None:
    """Does it with so many clients at once, again and again for SECONDS."""
    ends = time.monotonic() + SECONDS

    def run(number: int) -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(OSError, http.client.HTTPException):
                work(number)
            time.sleep(PAUSE_SECONDS)  # this process is not to take the processor from the one that is watched

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(SECONDS + 90)


def connect(service: ServiceProcess) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.bind((ATTACKER, 0))
    client.connect(("127.0.0.1", service.port))
    return client


def named(server_id: str, **more: Any) -> dict[str, Any]:
    return {"server_id": server_id, "hostname": "x", **more}


def test_one_servers_token_with_deep_and_wide_os_info(
    service: ServiceProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    own = token(service, "server", "bad")
    deep = "[" + ",".join(["[" * 99 + "]" * 99] * 5_200) + "]"
    wide = "[" + "[]," * 340_000 + '"\\u0000"]'
    repeated = json.dumps([interface("eth0", 1)] * 8_900)
    template = json.dumps(named("bad", os_info="@@", network_interfaces=[]))
    bodies = [gzip.compress(template.replace('"@@"', f'{{"a":{one}}}').encode()) for one in (deep, wide)]
    bodies.append(gzip.compress(template.replace('"@@"', "{}").replace("[]", repeated).encode()))
    statuses: Counter[int] = Counter()

    with unnoticed(service, "os_info", capsys):

        def send(number: int) -> None:
            status, _ = call(service, "POST", ONE, bodies[number % 3], own, **{"Content-Encoding": "gzip"})
            statuses[status] += 1

        together(send, 4)

    assert set(statuses) <= {422, 429, 503}
    assert statuses[422]


@pytest.mark.parametrize("is_gzip", [True, False])
def test_one_servers_token_with_bodies_that_do_not_end(
    service: ServiceProcess, capsys: pytest.CaptureFixture[str], is_gzip: bool
) -> None:
    own = token(service, "server", "bad")
    body = bomb(16 << 20)[:8_173] if is_gzip else bytes(8 << 20)[:-1]
    encoding = "Content-Encoding: gzip\r\n" if is_gzip else ""
    framing = "Transfer-Encoding: chunked\r\n" if is_gzip else f"Content-Length: {len(body) + 1}\r\n"
    head = (
        f"POST {MANY} HTTP/1.1\r\nHost: linkbeat\r\nAuthorization: Bearer {own}\r\n"
        f"Content-Type: application/json\r\n{encoding}{framing}\r\n"
    ).encode()
    sent = head + (b"%x\r\n" % len(body) + body + b"\r\n" if is_gzip else body)

    with unnoticed(service, f"unfinished {'gzip' if is_gzip else 'plain'} bodies", capsys):

        def send(_: int) -> None:
            with contextlib.closing(connect(service)) as client:
                client.sendall(sent)
                client.recv(1)

        together(send, 120 if is_gzip else 40)


def test_servers_tokens_with_thousands_of_new_interfaces(
    service: ServiceProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = [token(service, "server", f"bad-{n}") for n in range(3)]
    statuses: Counter[int] = Counter()

    def packed(number: int, times: int, many: int) -> bytes:
        names = [interface(f"v{times}-{n}", n) for n in range(many)]
        return gzip.compress(json.dumps(named(f"bad-{number}", network_interfaces=names)).encode())

    bodies = [[packed(number, times, 2_000) for times in range(20)] for number in range(3)]
    too_many = packed(0, 0, 8_000)
    turns = [0, 0, 0]

    with unnoticed(service, "2,000 and 8,000 new interfaces", capsys):

        def send(number: int) -> None:
            turns[number] += 1
            body = bodies[number].pop() if turns[number] % 3 and bodies[number] else too_many
            status, _ = call(service, "POST", ONE, body, tokens[number], **{"Content-Encoding": "gzip"})
            statuses[status] += 1

        together(send, 3)

    with capsys.disabled():
        print(f"  answered {dict(statuses)}")
    assert set(statuses) <= {200, 422, 429, 503}
    assert statuses[422]


def test_one_servers_token_that_replays_without_end(
    service: ServiceProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    own = token(service, "server", "bad")
    record = json.dumps(named("bad")).encode()
    body = gzip.compress(b"[" + b",".join([record] * 1_000) + b"]")
    foreign = gzip.compress(b"[" + b",".join([json.dumps(named("other")).encode()] * 1_000) + b"]")
    before = len(service.log)

    with unnoticed(service, "batches of 1,000", capsys):

        def send(number: int) -> None:
            call(service, "POST", MANY, body if number else foreign, own, **{"Content-Encoding": "gzip"})

        together(send, 12)

    said = service.log[before:]
    with capsys.disabled():
        print(f"  {len(said)} bytes of log")
    assert len(said) < 20_000, said[:2_000]


def fleet_of(service: ServiceProcess, servers: int, interfaces: int) -> None:
    for n in range(servers):
        for step in range(2):
            names = [interface(f"eth{i}", (step + 1) * 10**12 + i, 10**11) for i in range(interfaces)]
            status, body = call(service, "POST", ONE, named(f"server-{n:03}", network_interfaces=names))
            assert status == 200, body


def test_one_read_token_with_the_largest_answers(service: ServiceProcess, capsys: pytest.CaptureFixture[str]) -> None:
    fleet_of(service, 60, 200)
    own = token(service, "read")
    names = "&".join(f"server=server-{n:04}-of-some-length" for n in range(501))
    paths = [
        "/api/v1/metrics/sparkline/network?period=1y&bucket=1d&fill=null", "/api/v1/servers?limit=500",
        "/api/v1/metrics/sparkline/network?fill=null", f"/api/v1/metrics/sparkline/network?{names}",
    ]  # fmt: skip
    statuses: Counter[int] = Counter()
    largest = 0

    with unnoticed(service, "the largest answers", capsys):

        def get(number: int) -> None:
            nonlocal largest
            status, body = call(service, "GET", paths[number % 4], key=own, **{"Cache-Control": "no-cache"})
            statuses[status] += 1
            largest = max(largest, len(body))

        together(get, 8)

    with capsys.disabled():
        print(f"  answered {dict(statuses)}, the largest {largest >> 20} MiB")
    assert set(statuses) <= {200, 422, 429, 503}
    assert statuses[200]
    assert statuses[422]
    assert largest < 12 << 20


def test_clients_that_do_not_read(service: ServiceProcess, capsys: pytest.CaptureFixture[str]) -> None:
    fleet_of(service, 30, 100)
    own = token(service, "read")
    open_to_all = b"GET /linkbeat-agent.pyz HTTP/1.1\r\nHost: linkbeat\r\n\r\n" * (MAX_PIPELINED - 1)
    servers = f"GET /api/v1/servers?limit=500 HTTP/1.1\r\nHost: l\r\nAuthorization: Bearer {own}\r\n\r\n".encode()

    with unnoticed(service, "clients that do not read", capsys):
        clients = []
        for n in range(700):
            clients.append(connect(service))
            clients[-1].sendall(servers if n < 20 else open_to_all)
        began = time.monotonic()
        time.sleep(UNREAD_SECONDS + 15)
        # What the kernel has not sent yet is nobody's descriptor any more.
        still_held = sum(1 for _ in Path(f"/proc/{service.process.pid}/fd").iterdir())
        for one in clients:
            one.close()

    with capsys.disabled():
        print(f"  {still_held} descriptors held after {time.monotonic() - began:.0f} s")
    assert still_held < 60


def test_one_address_with_more_connections_than_descriptors(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start: Any = subprocess.Popen

    def limited(*arguments: Any, **more: Any) -> Any:
        return start(*arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (600, 1_024)), **more)

    monkeypatch.setattr(subprocess, "Popen", limited)
    with serving(database_url, tmp_path) as service:
        monkeypatch.undo()
        with unnoticed(service, "1,500 idle connections", capsys), contextlib.ExitStack() as stack:
            ends = time.monotonic() + SECONDS
            held: list[socket.socket] = []
            while time.monotonic() < ends:
                if len(held) < 1_500:
                    held.append(stack.enter_context(contextlib.closing(connect(service))))
                else:
                    held.pop(0).close()
                time.sleep(0.001)
        assert "Too many open files" not in service.log


def test_guesses_in_a_second_header_and_no_http(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # So few that a busy machine guesses more often: it uses up the limit, and not before a guess is allowed again.
    with serving(database_url, tmp_path, FAILED_TOKENS_PER_MINUTE=str(GUESSES_PER_MINUTE)) as service:
        _guess(service, capsys)


def _guess(service: ServiceProcess, capsys: pytest.CaptureFixture[str]) -> None:
    own = token(service, "fleet")
    before = len(service.log)
    statuses: Counter[int] = Counter()

    with unnoticed(service, "guesses, and what is no HTTP", capsys):

        def guess(number: int) -> None:
            if number < 2:
                key = f"guess-{time.monotonic_ns():020}"
                statuses[call(service, "GET", "/api/v1/servers", key=key, **{"X-API-Key": own})[0]] += 1
            elif number == 2:
                with contextlib.closing(connect(service)) as client:
                    client.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
                    client.recv(1_000)
            else:
                call(service, "GET", "/", Upgrade="websocket", Connection="Upgrade")

        together(guess, 4)
        after = [call(service, "GET", "/api/v1/servers", key="another-guess-of-the-key")[0] for _ in range(5)]

    said = service.log[before:]
    with capsys.disabled():
        print(f"  {sum(statuses.values())} guesses answered {dict(statuses)}; {len(said)} bytes of log")
    assert set(statuses) == {403}
    assert statuses[403] > 2 * GUESSES_PER_MINUTE
    # The address may guess again every three seconds: of five guesses in a row, the first may find that it can.
    assert after.count(429) >= 3, after
    assert len(said) < 5_000, said[:2_000]
