"""What only a raw socket can send: lengths that lie, bodies that stop, two messages in one; and never a 5xx for it."""

import asyncio
import json
import os
import random
import select
import socket
import statistics
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import asyncpg
import pytest

from service.http.body import BODY_SECONDS
from service.http.protocol import HEAD_BYTES, HEAD_SECONDS
from tests.conftest import with_database
from tests.e2e.conftest import ServiceProcess, serving
from tests.helpers.durations import ATTEMPTS, fastest
from tests.helpers.support import KEY, heartbeat

ONE = "/api/v1/agents/heartbeat"
MANY = "/api/v1/agents/heartbeats"
BEAT = json.dumps(heartbeat("raw", eth0=(1, 2))).encode()
ANSWER_SECONDS = 0.1


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        problem: dict[str, Any] = json.loads(self.body)
        return problem


class Wire:
    """One connection, byte by byte."""

    def __init__(self, service: ServiceProcess, *, timeout: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=timeout)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """False where the other side has gone."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def has_answer(self, seconds: float = 0.0) -> bool:
        """Whether there is something to receive, be it the end."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def answer(self) -> Answer | None:
        """The next answer; None where the connection ended without one."""
        while b"\r\n\r\n" not in self._received:
            if not self._more():
                return None
        head, _, rest = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(rest) < length:
            if not self._more():
                return None
            rest = self._received.partition(b"\r\n\r\n")[2]
        self._received = rest[length:]
        return Answer(int(first.split()[1]), headers, rest[:length])

    def has_ended(self) -> bool:
        """Whether the other side ends the connection, without another answer."""
        return not self._received and not self._more()

    def reset(self) -> None:
        """Goes away without a word (RST), as a machine does that loses power."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _more(self) -> bool:
        try:
            received = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._received += received
        return bool(received)


def request(path: str, *headers: str, body: bytes = b"", method: str = "POST", key: str | None = KEY) -> bytes:
    """A request of exactly these headers, and the key."""
    lines = [f"{method} {path} HTTP/1.1", "Host: linkbeat", *headers]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(body: bytes, path: str = ONE) -> bytes:
    return request(path, f"Content-Length: {len(body)}", body=body)


def beat(service: ServiceProcess) -> float:
    """Posts a valid heartbeat; returns the seconds to its answer."""
    with Wire(service) as wire:
        began = time.monotonic()
        wire.send(post(BEAT))
        answer = wire.answer()
        took = time.monotonic() - began
    assert answer is not None
    assert answer.status == 200, answer
    return took


def assert_prompt(service: ServiceProcess, beats: int = 5) -> None:
    """Others are answered as if nothing were: most of some in a row, on a busy machine in one of some rounds."""
    rounds = []
    for _ in range(ATTEMPTS):
        rounds.append(statistics.median(beat(service) for _ in range(beats)))
        if rounds[-1] < ANSWER_SECONDS:
            return
    raise AssertionError(rounds)


def query(service: ServiceProcess, sql: str) -> Any:
    async def fetch() -> Any:
        connection = await asyncpg.connect(service.database_url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(fetch())


@pytest.fixture(scope="module")
def service(database_server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One process for all of this file: whatever it was sent before, it must answer the next."""
    name = f"linkbeat_test_{uuid.uuid4().hex[:8]}"
    url = with_database(database_server, name)
    directory: Path = tmp_path_factory.mktemp("service")
    asyncio.run(_execute(database_server, f"CREATE DATABASE {name} TEMPLATE {template}"))
    with serving(url, directory) as started:
        beat(started)
        yield started
    asyncio.run(_execute(database_server, f"DROP DATABASE {name} WITH (FORCE)"))


class Stalled(threading.Thread):
    """Bodies that stop half-way: one says no more, one a byte now and then, one has its next chunk still to come.

    They wait while the other tests run, because they wait long.

    ended  by name: seconds from before they were sent to their end, the answer, and whether the connection ended
    """

    def __init__(self, service: ServiceProcess) -> None:
        super().__init__(daemon=True)
        begin = b'{"server_id": '
        self._began = time.monotonic()
        self._wires = {name: Wire(service) for name in ("silent", "trickling", "chunked")}
        self._wires["silent"].send(request(ONE, "Content-Length: 100000", body=begin))
        self._wires["trickling"].send(request(ONE, "Content-Length: 100000", body=begin))
        self._wires["chunked"].send(request(ONE, "Transfer-Encoding: chunked", body=b"%x\r\n" % len(begin) + begin))
        self.ended: dict[str, tuple[float, Answer | None, bool]] = {}
        self.start()

    def run(self) -> None:
        while not self._wires["trickling"].has_answer(0.5) and time.monotonic() - self._began < BODY_SECONDS + 60:
            self._wires["trickling"].send(b" ")
        for name, wire in self._wires.items():
            with wire:
                answer = wire.answer()
                self.ended[name] = time.monotonic() - self._began, answer, wire.has_ended()

    @property
    def is_in_time(self) -> bool:
        """A quarter later at most: service/http/deadlines.py."""
        return all(seconds < BODY_SECONDS * 1.25 + 1 for seconds, _, _ in self.ended.values())


class SlowHeads(threading.Thread):
    """Heads that never end, and a body that trickles after its answer.

    A head is not begun, or stops, or trickles, is nothing but empty lines, or is that of a second request.

    They wait while the other tests run, because they wait long.
    """

    def __init__(self, service: ServiceProcess) -> None:
        super().__init__(daemon=True)
        begin = f"POST {ONE} HTTP/1.1\r\nHost: linkbeat\r\nX-Slow: ".encode()
        sent = {
            "none": b"", "stopped": begin, "trickling": begin, "empty lines": b"\r\n", "second": post(BEAT) + begin,
            "body": request(ONE, "Content-Length: 60000", key="wrong"),
        }  # fmt: skip
        self._trickles = {"trickling": b"x", "empty lines": b"\r\n", "second": b"x", "body": b" "}
        self._began = time.monotonic()
        self._wires = {name: Wire(service) for name in sent}
        for name, data in sent.items():
            self._wires[name].send(data)
        self.ended: dict[str, tuple[float, int | None]] = {}
        self.start()

    def run(self) -> None:
        statuses: dict[str, int | None] = dict.fromkeys(self._wires)
        for name in ("second", "body"):
            answer = self._wires[name].answer()
            assert answer is not None
            assert answer.status in (200, 401)
        while len(self.ended) < len(self._wires) and time.monotonic() - self._began < HEAD_SECONDS + 60:
            for name in self._wires.keys() - self.ended.keys():
                if self._wires[name].has_answer():
                    answer = self._wires[name].answer()
                    statuses[name] = answer and answer.status
                    self.ended[name] = time.monotonic() - self._began, statuses[name]
                    self._wires[name].socket.close()
                elif name in self._trickles:
                    self._wires[name].send(self._trickles[name])
            time.sleep(0.3)

    @property
    def is_in_time(self) -> bool:
        return all(seconds < HEAD_SECONDS + 2 for seconds, _ in self.ended.values())


@pytest.fixture(scope="module", autouse=True)
def slow_heads(service: ServiceProcess) -> SlowHeads:
    return SlowHeads(service)


@pytest.fixture(scope="module", autouse=True)
def stalled(service: ServiceProcess) -> Stalled:
    return Stalled(service)


@pytest.fixture(autouse=True)
def quiet(service: ServiceProcess) -> Iterator[None]:
    """Nothing that a client sends is an error in the log, and the process lives on."""
    before = len(service.log)
    yield
    said = service.log[before:]
    assert "ERROR" not in said, said
    assert "Traceback" not in said, said
    assert service.process.poll() is None


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


def test_the_fixture_of_a_test_of_its_own_serves(service_process: ServiceProcess) -> None:
    assert fastest(lambda: beat(service_process), within=5) < 5
    assert query(service_process, "SELECT count(*) FROM servers") == 1


@pytest.mark.parametrize("path", [ONE, MANY])
def test_a_chunked_body_is_read_no_further_than_its_limit(service: ServiceProcess, path: str) -> None:
    limit, size, sent = (1 << 20 if path == ONE else 8 << 20), 256 << 10, 0
    chunk = b"%x\r\n" % size + b" " * size + b"\r\n"

    with Wire(service) as wire:
        wire.send(request(path, "Transfer-Encoding: chunked"))
        while sent <= limit and wire.send(chunk):
            sent += size
        # It does not read on: now it says so, or has hung up. What it has not read yet is on its way to it.
        assert wire.has_answer(60)
        answer = wire.answer()

        assert answer is None or (answer.status, answer.problem["code"]) == (413, "too_large")
        assert wire.has_ended()
    assert_prompt(service)


@pytest.mark.parametrize("length", [str(10**11), str(10 << 20), str((1 << 20) + 1), str(2**63)])
@pytest.mark.parametrize("more", [[], ["Expect: 100-continue"]])
def test_a_length_past_the_limit_is_refused_at_once(service: ServiceProcess, length: str, more: list[str]) -> None:
    def ask() -> None:
        with Wire(service) as wire:
            wire.send(request(ONE, f"Content-Length: {length}", *more))
            answer = wire.answer()

            assert answer is not None
            assert (answer.status, answer.problem["code"]) == (413, "too_large")
            assert wire.has_ended()

    assert fastest(ask, within=1) < 1


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: -5"],
        ["Content-Length: abc"],
        ["Content-Length: 0x10"],
        ["Content-Length: 1e3"],
        ["Content-Length: +5"],
        ["Content-Length: "],
        ["Content-Length: 5, 6"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: " + "9" * 30],
        ["Content-Length: " + "9" * 5_000],
        ["Content-Length: 2\0"],
    ],
)
def test_a_length_that_is_none_is_refused(service: ServiceProcess, headers: list[str]) -> None:
    with Wire(service) as wire:
        wire.send(request(ONE, *headers, body=b"{}{}{}"))
        answer = wire.answer()

        assert answer is None or answer.status in (400, 413)
        assert wire.has_ended()


SMUGGLED = post(json.dumps(heartbeat("smuggled", eth0=(1, 2))).encode())


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: {all}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: {all}"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Transfer-Encoding: identity"],
        ["Content-Length: 5", "Transfer-Encoding : chunked"],
        ["Content-Length: 5", "Transfer-Encoding:\x0bchunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked"],
        ["Content-Length: 5", "Content-Length: {all}"],
    ],
)
def test_a_body_of_two_lengths_smuggles_no_request(service: ServiceProcess, headers: list[str]) -> None:
    body = b"0\r\n\r\n" + SMUGGLED

    with Wire(service) as wire:
        wire.send(request(ONE, *(header.format(all=len(body)) for header in headers), body=body))
        answer = wire.answer()

        assert answer is None or 400 <= answer.status < 500
        assert wire.has_ended()
    assert query(service, "SELECT count(*) FROM servers WHERE server_id = 'smuggled'") == 0


def test_chunks_that_are_none_are_refused(service: ServiceProcess) -> None:
    for chunks in (b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"f" * 17 + b"\r\n{}", b"2\r\n{}XX0\r\n\r\n"):
        with Wire(service) as wire:
            wire.send(request(ONE, "Transfer-Encoding: chunked", body=chunks))
            answer = wire.answer()
            assert answer is None or 400 <= answer.status < 500, chunks
    assert_prompt(service)


def test_a_chunked_heartbeat_is_taken(service: ServiceProcess) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BEAT) + b"0\r\n\r\n"

    with Wire(service) as wire:
        wire.send(request(ONE, "Transfer-Encoding: chunked", body=chunks))
        answer = wire.answer()

    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
        request("/api/v1/servers/\xff\xfe", method="GET"),
        request("/api/v1/servers/%", method="GET"),
        request("/api/v1/servers/%zz%f", method="GET"),
        request("/api/v1/servers?search=\xff&limit=%", method="GET"),
        request("/api/v1/servers?" + "&" * 10_000 + "=" * 10_000, method="GET"),
        request("http://elsewhere/api/v1/agents/heartbeat", method="GET"),
        request("*", method="OPTIONS"),
        request("elsewhere:443", method="CONNECT"),
        request("/api/v1/servers\0", method="GET"),
        request("/" + "a" * 100_000, method="GET"),
        request(ONE, "Upgrade: websocket", "Connection: Upgrade", "Content-Length: 2", body=b"[]"),
        request(ONE, "Content-Type: \xff\xfe", "Content-Length: 2", body=b"{}"),
        request(ONE, "Content-Encoding: \xff", "Content-Length: 2", body=b"{}"),
        request(ONE, "Authorization: Bearer \xff\xfe", "Content-Length: 2", body=b"{}", key=None),
        request(ONE, "X-API-Key: \xff", "Content-Length: 2", body=b"{}", key=None),
        request(ONE, "Bad Header: x", "Content-Length: 2", body=b"{}"),
        request(ONE, "X: a\r\n folded", "Content-Length: 2", body=b"{}"),
    ],
)
def test_what_is_hardly_http_is_refused(service: ServiceProcess, data: bytes) -> None:
    with Wire(service) as wire:
        wire.send(data)
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.answer()

    assert answer is None or answer.status < 500
    assert answer is None or data.startswith(b"GET /\r\n") or answer.status >= 400 or b"search=" in data


def test_without_a_key_the_answer_does_not_wait_for_the_body(service: ServiceProcess) -> None:
    with Wire(service) as wire:
        wire.send(request(ONE, "Content-Length: 1000000", "Expect: 100-continue", key="wrong"))
        answer = wire.answer()

    assert answer is not None
    assert (answer.status, answer.problem["code"]) == (401, "unauthorized")


def test_clients_that_go_away_in_the_middle_leave_nothing_behind(service: ServiceProcess) -> None:
    stored = "SELECT count(*) FROM servers"
    before = query(service, stored)
    half = post(json.dumps(heartbeat("half", eth0=(1, 2))).encode())[:-10]
    few = sockets(service) + 20  # of pools that may open meanwhile

    for number in range(60):
        wire = Wire(service)
        wire.send(half if number % 3 else request(ONE, "Transfer-Encoding: chunked", body=b"a\r\n{"))
        wire.reset() if number % 2 else wire.socket.close()

    assert_prompt(service)
    assert query(service, stored) == before
    deadline = time.monotonic() + 60
    while sockets(service) > few:  # until it has noticed those that are gone
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sockets(service: ServiceProcess) -> int:
    return sum(_links_to_socket(file) for file in Path(f"/proc/{service.process.pid}/fd").iterdir())


def processor_seconds(service: ServiceProcess) -> float:
    """That the process has had of the machine's processors."""
    words = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _links_to_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except OSError:
        return False


@pytest.mark.parametrize(
    "path_and_body",
    [
        (ONE, b'{"network_interfaces": [' + b"{}," * 340_000 + b"{}]}"),
        (MANY, b"[" + b",".join([b'{"network_interfaces": [' + b"{}," * 2_600 + b"{}]}"] * 1_000) + b"]"),
        (MANY, b"[" + b"1," * 4_000_000 + b"1]"),
    ],
    ids=["a heartbeat of errors", "a batch of errors", "millions of records"],
)
def test_others_do_not_wait_while_errors_are_listed(service: ServiceProcess, path_and_body: tuple[str, bytes]) -> None:
    path, body = path_and_body
    answers: list[Answer | None] = []

    def send() -> None:
        with Wire(service) as wire:
            for _ in range(3):
                wire.send(post(body, path))
                answers.append(wire.answer())

    sender = threading.Thread(target=send)
    sender.start()
    waited: list[float] = []
    worked: list[float] = []
    while not waited or sender.is_alive():
        before = processor_seconds(service)
        waited.append(beat(service))
        worked.append(processor_seconds(service) - before)
    sender.join()

    assert len(answers) == 3
    for answer in answers:
        assert answer is not None
        assert answer.status in (200, 413, 422)
        assert len(answer.body) < 10 << 20
    assert statistics.median(waited) < ANSWER_SECONDS
    assert max(worked) < 1, "what the service did before it answered; on a busy machine it took longer, and was no more"


def _cut(body: bytes, dice: random.Random) -> bytes:
    return body[: dice.randrange(len(body))]


def _flip(body: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(body))
    return body[:place] + bytes([dice.randrange(256)]) + body[place + 1 :]


def _swap(body: bytes, dice: random.Random) -> bytes:
    value = dice.choice([b"null", b"-1", b"1.5", b'"x"', b"[]", b"{}", b"1" * 30, b"NaN", b'"\\u0000"', b'"\\ud800"'])
    return body.replace(dice.choice([b"1", b"2", b"true", b'"eth0"', b'"raw"', b"[", b"0"]), value, 1)


def _deepen(body: bytes, dice: random.Random) -> bytes:
    levels = dice.choice([50, 150, 700, 930, 1_000, 20_000])
    return b'{"os_info":{"a":' + b"[" * levels + b"]" * levels + b"}," + body[1:]


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [_cut, _flip, _flip, _swap, _swap, _deepen]


def test_ten_thousand_malformed_bodies_are_refused_one_by_one(service: ServiceProcess) -> None:
    dice = random.Random(20260129)
    statuses: dict[int, int] = {}
    waited = []

    def send(wire: Wire, count: int) -> None:
        for _ in range(count // 10):
            bodies = [dice.choice(MUTATIONS)(BEAT, dice) for _ in range(10)]
            wire.send(b"".join(post(body) for body in bodies))
            for body in bodies:
                answer = wire.answer()
                assert answer is not None, body[:500]
                assert answer.status in (200, 400, 422), (answer, body[:500])
                statuses[answer.status] = statuses.get(answer.status, 0) + 1

    with Wire(service) as wire:
        send(wire, 1_000)
        before = service.resident_bytes
        for _ in range(9):
            send(wire, 1_000)
            # Those right after it may stand in for it: machines stall for a moment too.
            waited.append(fastest(lambda: beat(service), within=ANSWER_SECONDS))

    assert statuses[400] > 2_000
    assert statuses[422] > 2_000
    assert service.resident_bytes - before < 20 << 20
    assert max(waited) < ANSWER_SECONDS


Clients = TypeVar("Clients", Stalled, SlowHeads)


def one_in_time(clients: Clients, service: ServiceProcess) -> Clients:
    """The clients, or others like them, whose connections all ended in time: a busy machine delays one or the other."""
    for left in reversed(range(ATTEMPTS)):
        clients.join()
        if clients.is_in_time:
            break
        if left:
            clients = type(clients)(service)
    assert clients.is_in_time, clients.ended
    return clients


def test_a_body_that_stops_half_way_is_given_up_in_time(service: ServiceProcess, stalled: Stalled) -> None:
    stalled = one_in_time(stalled, service)

    assert stalled.ended.keys() == {"silent", "trickling", "chunked"}
    for name, (seconds, answer, has_ended) in stalled.ended.items():
        assert seconds > BODY_SECONDS - 0.5, name
        # What trickled into the closing connection may have reset it, and the answer with it.
        assert answer is not None or name == "trickling"
        assert answer is None or (answer.status, answer.problem["code"]) == (408, "request_timeout")
        assert has_ended, name
    assert_prompt(service)


def test_a_head_that_does_not_end_is_given_up_in_time(service: ServiceProcess, slow_heads: SlowHeads) -> None:
    slow_heads = one_in_time(slow_heads, service)

    assert slow_heads.ended.keys() == {"none", "stopped", "trickling", "empty lines", "second", "body"}
    for name, (seconds, status) in slow_heads.ended.items():
        assert seconds > HEAD_SECONDS - 0.5, (name, seconds)
        assert status in (None, 408), (name, status)
    assert slow_heads.ended["stopped"][1] == slow_heads.ended["trickling"][1] == 408
    assert_prompt(service)


@pytest.mark.parametrize("name", [b"X-Long: ", b""], ids=["one header", "many headers"])
def test_a_head_without_end_is_read_no_further_than_its_limit(service: ServiceProcess, name: bytes) -> None:
    line = b"x" * 4_000 if name else b"X-Many: " + b"x" * 3_990 + b"\r\n"
    before = service.resident_bytes

    with Wire(service) as wire:
        wire.send(b"GET /health HTTP/1.1\r\nHost: linkbeat\r\n" + name)
        sent = 0
        while not wire.has_answer() and sent < 64 << 20 and wire.send(line):
            sent += len(line)
        answer = wire.answer()

    assert sent < 16 << 20
    assert answer is None or (answer.status, answer.problem["code"]) == (431, "bad_request")
    assert service.resident_bytes - before < 20 << 20
    assert_prompt(service)


def test_a_head_of_the_usual_size_and_more_is_taken(service: ServiceProcess) -> None:
    with Wire(service) as wire:
        for size in (8_000, HEAD_BYTES // 2):
            wire.send(request(ONE, f"Content-Length: {len(BEAT)}", f"X-Long: {'x' * size}", body=BEAT))
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 200


def test_a_large_body_of_a_request_that_is_refused_is_not_read(service: ServiceProcess) -> None:
    for framing in ("Content-Length: 900000", "Transfer-Encoding: chunked"):
        with Wire(service) as wire:
            wire.send(request(ONE, framing, key="wrong"))
            answer = wire.answer()

            assert answer is not None
            assert (answer.status, answer.headers["connection"]) == (401, "close")
            assert wire.has_ended()
