"""One request and what its answer means, against a real HTTP server in a thread."""

import email.message
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.answers import Delivered, Failed, Outcome, Refused, RejectedHeartbeat, Unauthorized, judge, one_line
from agent.enrolment import Enrolment
from agent.identity import ApiKey, Identity
from agent.sender import Sender
from agent.settings import Settings
from tests.helpers.durations import fastest

ACK = b'{"status":"ok","server_registered":true,"duplicate":false}'
Respond = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers with `respond`; remembers requests and how many connections were opened."""

    daemon_threads = True

    def __init__(self, respond: Respond) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.respond = respond
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: that the agent hangs up is what some tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers.items()), body))
        self.server.respond(self)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], Server]]:
    servers = []

    def start(respond: Respond) -> Server:
        server = Server(respond)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(url: str, body: bytes = b"{}", *, key: str = "secret", timeout: float = 60.0, ca_file: str = "") -> Outcome:
    sender = Sender(url, ApiKey(Settings(api_key=key)), timeout_seconds=timeout, ca_file=ca_file)
    try:
        return sender.heartbeat(body)
    finally:
        sender.close()


def test_a_heartbeat_is_posted_with_its_token(serve: Callable[[Respond], Server]) -> None:
    server = serve(lambda handler: handler.answer(200, ACK))

    outcome = send(server.url + "/base/", b'{"a":1}')

    assert isinstance(outcome, Delivered)
    assert outcome[:3] == ([], ACK.decode(), b"{}")
    assert abs((outcome.service_ms or 0) / 1000 - time.time()) < 60
    [(path, headers, body)] = server.seen
    assert (path, body) == ("/base/api/v1/agents/heartbeat", b'{"a":1}')
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"] == "application/json"


ENROLMENT = "lb_e_abcdefghijkl_" + "S" * 43


def enrolling(path: Path, url: str) -> Sender:
    enrolment = Enrolment(Identity("nas", "guid", "nas.local"), path)
    return Sender(url, ApiKey(Settings(api_key=ENROLMENT)), timeout_seconds=60, enrolment=enrolment)


def test_an_enrolment_token_is_exchanged_once(serve: Callable[[Respond], Server], tmp_path: Path) -> None:
    server = serve(
        lambda handler: handler.answer(
            *((201, b'{"token":"lb_s_own"}') if handler.path.endswith("/enroll") else (200, ACK))
        )
    )
    kept = tmp_path / "spool" / "token"
    for _ in range(2):
        sender = enrolling(kept, server.url)
        for one in (sender, sender.another(5)):
            assert one.heartbeat(b"{}")[:2] == ([], ACK.decode())
            one.close()

    paths = [path.rsplit("/", 1)[-1] for path, *_ in server.seen]
    assert paths == ["enroll", "heartbeat", "heartbeat", "heartbeat", "heartbeat"]
    assert json.loads(server.seen[0][2]) == {"server_id": "nas", "server_guid": "guid", "hostname": "nas.local"}
    tokens = [headers["Authorization"] for _, headers, _ in server.seen]
    assert tokens == [f"Bearer {ENROLMENT}", *["Bearer lb_s_own"] * 4]
    assert "S" * 43 not in kept.read_text()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (201, b"<html>", Failed), (201, b'{"token":7}', Failed), (200, ACK, Failed), (401, b"", Unauthorized),
        (403, b"", Unauthorized), (409, b"", Failed), (422, b"", Failed), (413, b"", Failed), (503, b"", Failed),
    ],
)  # fmt: skip
def test_without_its_own_token_nothing_is_sent_and_nothing_counts_as_refused(
    serve: Callable[[Respond], Server], tmp_path: Path, status: int, body: bytes, expected: type[Outcome]
) -> None:
    server = serve(lambda handler: handler.answer(status, body))

    sender = enrolling(tmp_path / "token", server.url)
    outcome = sender.heartbeat(b"{}")
    sender.close()

    assert isinstance(outcome, expected)
    assert [path.rsplit("/", 1)[-1] for path, *_ in server.seen] == ["enroll"]


def test_where_no_token_can_be_kept_none_is_asked_for(serve: Callable[[Respond], Server], tmp_path: Path) -> None:
    server = serve(lambda handler: handler.answer(200, ACK))
    (tmp_path / "file").write_text("")

    outcome = enrolling(tmp_path / "file" / "token", server.url).heartbeat(b"{}")

    assert isinstance(outcome, Failed)
    assert "could not be saved" in outcome.reason
    assert server.seen == []


def test_without_a_token_no_authorization_is_sent(serve: Callable[[Respond], Server]) -> None:
    server = serve(lambda handler: handler.answer(200, ACK))

    send(server.url, key="")

    assert "Authorization" not in server.seen[0][1]


def test_a_batch_is_a_json_array_on_the_kept_connection(serve: Callable[[Respond], Server]) -> None:
    server = serve(lambda handler: handler.answer(200, ACK))
    sender = Sender(server.url, ApiKey(Settings()), timeout_seconds=60)

    sender.heartbeat(b"{}")
    outcome = sender.heartbeats([b'{"a":1}', b'{"a":2}'])
    sender.close()

    assert isinstance(outcome, Delivered)
    assert server.seen[1][::2] == ("/api/v1/agents/heartbeats", b'[{"a":1},{"a":2}]')
    assert server.connections == 1


LONG = b'{"a":"' + b"x" * 5_000 + b'"}'


def content(request: tuple[str, dict[str, str], bytes]) -> tuple[str, bytes]:
    """How a body was encoded, and what it says."""
    _, headers, body = request
    coding = headers.get("Content-Encoding", "")
    return coding, zlib.decompress(body, wbits=31) if coding == "gzip" else body


def test_bodies_are_compressed_once_the_service_has_said_that_it_takes_that(serve: Callable[[Respond], Server]) -> None:
    server = serve(lambda handler: handler.answer(200, ACK, Accept_Encoding="br;q=0.5, GZIP"))
    sender = Sender(server.url, ApiKey(Settings()), timeout_seconds=60)
    other = sender.another(5)

    sender.heartbeat(LONG)
    sender.heartbeat(LONG)
    sender.heartbeat(b"{}")
    other.heartbeats([LONG, LONG])
    sender.close()
    other.close()

    assert [content(each) for each in server.seen] == [
        ("", LONG),
        ("gzip", LONG),
        ("", b"{}"),
        ("gzip", b"[" + LONG + b"," + LONG + b"]"),
    ]
    assert len(server.seen[1][2]) < 200
    assert server.connections == 2


@pytest.mark.parametrize("offer", ["", "identity", "gzip;q=0", "gzip; q=0.0"])
def test_without_that_offer_bodies_go_plain(serve: Callable[[Respond], Server], offer: str) -> None:
    server = serve(lambda handler: handler.answer(200, ACK, Accept_Encoding=offer))
    sender = Sender(server.url, ApiKey(Settings()), timeout_seconds=60)

    for _ in range(2):
        sender.heartbeat(LONG)
    sender.close()

    assert [content(each) for each in server.seen] == [("", LONG)] * 2


def test_a_compressed_body_that_is_refused_goes_plain_and_so_do_all_on_that_connection(
    serve: Callable[[Respond], Server],
) -> None:
    def respond(handler: Handler) -> None:
        refused = "Content-Encoding" in handler.headers
        handler.answer(415 if refused else 200, b"" if refused else ACK, Accept_Encoding="gzip")

    server = serve(respond)
    sender = Sender(server.url, ApiKey(Settings()), timeout_seconds=60)

    outcomes = [sender.heartbeat(LONG) for _ in range(4)]
    sender.close()

    assert all(isinstance(each, Delivered) for each in outcomes)
    assert [content(each) for each in server.seen] == [("", LONG), ("gzip", LONG), *[("", LONG)] * 3]
    assert server.connections == 1


def test_an_idle_connection_that_the_service_closed_costs_nothing(serve: Callable[[Respond], Server]) -> None:
    def answer_and_hang_up(handler: Handler) -> None:
        handler.answer(200, ACK)
        handler.close_connection = True  # without saying Connection: close

    server = serve(answer_and_hang_up)
    sender = Sender(server.url, ApiKey(Settings()), timeout_seconds=60)

    outcomes = [sender.heartbeat(b"{}") for _ in range(3)]
    sender.close()

    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert server.connections == 3


def test_connection_refused_is_a_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = send(f"http://127.0.0.1:{unused.getsockname()[1]}")

    assert outcome == Failed("ConnectionRefusedError", "connection refused")


@pytest.mark.parametrize("host", ["does-not-exist.invalid", "a..b", "x" * 70])
def test_a_name_that_cannot_be_resolved_is_a_failure(host: str) -> None:
    assert isinstance(send(f"http://{host}:1"), Failed)


def test_a_service_that_does_not_answer_is_given_up(serve: Callable[[Respond], Server]) -> None:
    released = threading.Event()

    def hang(handler: Handler) -> None:
        released.wait(120)
        handler.answer(200, ACK)

    server = serve(hang)

    outcome = send(server.url, timeout=0.2)
    released.set()

    assert outcome == Failed("TimeoutError", "no answer within 0.2 s")


@pytest.mark.parametrize("prelude", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_an_answer_that_drips_is_given_up(serve: Callable[[Respond], Server], prelude: bytes) -> None:
    def drip(handler: Handler) -> None:
        handler.wfile.write(prelude)
        try:
            for _ in range(2_400):  # two minutes
                handler.wfile.write(b"H")
                time.sleep(0.05)
        except OSError:
            handler.close_connection = True

    server = serve(drip)
    outcomes: list[Outcome] = []

    assert fastest(lambda: outcomes.append(send(server.url, timeout=0.3)), within=2) < 2
    assert outcomes == [Failed("TimeoutError", "no answer within 0.3 s")] * len(outcomes)


def test_an_acknowledgement_that_is_cut_is_none(serve: Callable[[Respond], Server]) -> None:
    def hang_up_half_way(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + ACK)
        handler.close_connection = True

    outcome = send(serve(hang_up_half_way).url)

    assert isinstance(outcome, Failed)
    assert outcome.cause == "IncompleteRead"


def test_an_endless_answer_is_not_read_to_its_end(serve: Callable[[Respond], Server]) -> None:
    server = serve(lambda handler: handler.answer(200, b" " * 3_000_000 + ACK))

    assert isinstance(send(server.url), Failed)


def test_a_redirect_is_not_followed(serve: Callable[[Respond], Server]) -> None:
    other = serve(lambda handler: handler.answer(200, ACK))
    server = serve(lambda handler: handler.answer(307, b"", Location=other.url + "/api/v1/agents/heartbeat"))

    outcome = send(server.url)

    assert isinstance(outcome, Failed)
    assert "not followed" in outcome.reason
    assert other.seen == []


def test_a_service_that_refuses_the_size_before_it_has_read_it_is_heard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                # Closing with unread data resets the connection: the client's sending fails half-way.

        thread = threading.Thread(target=refuse)
        thread.start()
        outcome = send(f"http://127.0.0.1:{listener.getsockname()[1]}", b"x" * 20_000_000)
        thread.join()

    assert isinstance(outcome, Refused)


def headers(**values: str) -> http.client.HTTPMessage:
    message = http.client.HTTPMessage()
    for name, value in values.items():
        message[name.replace("_", "-")] = value
    assert isinstance(message, email.message.Message)
    return message


@pytest.mark.parametrize(
    "body",
    [
        b"<html>login</html>",
        b"",
        b"{}",
        b"[]",
        b'"ok"',
        b'{"status":"error"}',
        b'{"status":1}',
        b'{"status":"ok"',
        b"\xff",
        b"[" * 100_000,
        b'{"status":"ok","rejected":7}',
    ],
)
def test_a_200_that_is_no_acknowledgement_delivers_nothing(body: bytes) -> None:
    assert isinstance(judge(200, headers(), body), Failed)


@pytest.mark.parametrize(
    ("config", "expected"),
    [(b'{"paused": true}', b'{"paused": true}'), (b"{}", b"{}"), (b"null", b"{}"), (b"[1]", b"{}"), (b'"x"', b"{}")],
)
def test_the_configuration_of_a_live_answer_is_kept_as_it_came(config: bytes, expected: bytes) -> None:
    outcome = judge(200, headers(), b'{"status":"ok","config":' + config + b"}")

    assert isinstance(outcome, Delivered)
    assert outcome.config == expected


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_only_200_acknowledges(status: int) -> None:
    assert isinstance(judge(status, headers(), ACK), Failed)


@pytest.mark.parametrize("status", [400, 404, 408, 429, 500, 502, 503])
def test_other_answers_are_failures_to_be_tried_again(status: int) -> None:
    outcome = judge(status, headers(), b"<html>\n<b>nginx</b>")

    assert isinstance(outcome, Failed)
    assert outcome.cause == f"HTTP {status}"
    assert outcome.reason.endswith(": <html> <b>nginx</b>")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_its_own_outcome(status: int) -> None:
    outcome = judge(status, headers(), b'{"title":"Unauthorized","detail":"token unknown","code":"bad_token"}')

    assert isinstance(outcome, Unauthorized)
    assert outcome.reason.endswith(": token unknown")


def test_a_422_says_the_services_errors() -> None:
    body = b'{"title":"x","errors":[{"path":"network_interfaces[0].rx_bytes","reason":"expected int, got str"}]}'

    outcome = judge(422, headers(), body)

    assert outcome == Refused(
        "HTTP 422",
        f"HTTP 422 {http.client.responses[422]}: network_interfaces[0].rx_bytes: expected int, got str",
    )


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Thu, 29 Jan 2026 10:00:00 GMT", 1_769_680_800_000),
        ("Thu, 29 Jan 2026 10:00:00 +0100", 1_769_677_200_000),
        ("yesterday", None),
        ("Thu, 99 Jan 2026 10:00:00 GMT", None),
        ("", None),
    ],
)
def test_a_refusal_says_its_code_and_the_services_clock(date: str, expected: int | None) -> None:
    body = b'{"code":"clock_future","errors":[{"path":"timestamp","reason":"lies ahead"}]}'

    outcome = judge(422, headers(Date=date), body)

    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.service_ms) == ("clock_future", expected)
    delivered = judge(200, headers(Date=date), ACK)
    assert isinstance(delivered, Delivered)
    assert delivered.service_ms == expected


@pytest.mark.parametrize(
    ("said", "epoch"),
    [
        (b"", ""),
        (b',"epoch":"7123456789012345678.3"', "7123456789012345678.3"),
        (b',"epoch":null', ""),
        (b',"epoch":5', ""),
        (b',"epoch":["a"]', ""),
        (b',"epoch":"\xc3\xa4\\n"', "\u00e4\n"),
        (b',"epoch":"' + b"x" * 200 + b'"', "x" * 200),
        (b',"epoch":"' + b"x" * 201 + b'"', ""),
    ],
)
def test_an_acknowledgement_names_its_database_or_not(said: bytes, epoch: str) -> None:
    outcome = judge(200, headers(), b'{"status":"ok"' + said + b"}")

    assert isinstance(outcome, Delivered)
    assert outcome.epoch == epoch


def test_the_rejected_of_a_batch_are_read_with_their_reasons() -> None:
    body = (
        b'{"status":"ok","stored":1,"duplicate":0,"conflict":0,"rejected":['
        b'{"index":1,"code":"invalid_heartbeat","errors":[{"path":"hostname","reason":"missing"}]},'
        b'{"index":2,"code":"clock_future"},{"index":3,"errors":["plain text"]}]}'
    )

    outcome = judge(200, headers(), body)

    assert isinstance(outcome, Delivered)
    assert outcome.rejected == [
        RejectedHeartbeat(1, "hostname: missing", "invalid_heartbeat"),
        RejectedHeartbeat(2, "clock_future", "clock_future"),
        RejectedHeartbeat(3, '"plain text"'),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7), ("0", 1), ("86400", 300), ("9" * 400, 300), ("-5", None), ("soon", None), ("", None), ("1.5", None)],
)
def test_retry_after_in_seconds_is_clamped(value: str, expected: float | None) -> None:
    outcome = judge(503, headers(Retry_After=value), b"")

    assert isinstance(outcome, Failed)
    assert outcome.retry_after == expected


def test_retry_after_may_be_a_date() -> None:
    outcome = judge(429, headers(Retry_After=formatdate(time.time() + 100, usegmt=True)), b"")

    assert isinstance(outcome, Failed)
    assert outcome.retry_after is not None
    assert 95 <= outcome.retry_after <= 100


@given(st.integers(100, 599), st.binary(), st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])))
def test_no_answer_makes_it_raise(status: int, body: bytes, text: str) -> None:
    outcome = judge(status, headers(Retry_After=text, Location=text), body)

    assert isinstance(outcome, Delivered | Refused | Unauthorized | Failed)


@given(st.text())
def test_a_log_line_is_one_line(text: str) -> None:
    assert len(one_line(text)) <= 300
    assert one_line(text).isprintable()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for `localhost`, signed by itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command here to make a certificate with")
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [openssl, *request.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", pem],
        check=True,
        capture_output=True,
    )
    return pem, key


def test_tls_takes_a_trusted_certificate_and_refuses_others(
    serve: Callable[[Respond], Server], certificate: tuple[Path, Path]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = serve(lambda handler: handler.answer(200, ACK))
    # Handshake in the handler's thread; a refused one ends there and not in the accepting thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    trusted = str(certificate[0])

    taken = send(f"https://localhost:{server.server_port}", ca_file=trusted)
    unknown = send(f"https://localhost:{server.server_port}")
    wrong_host = send(f"https://127.0.0.1:{server.server_port}", ca_file=trusted)

    assert isinstance(taken, Delivered)
    assert isinstance(unknown, Failed)
    assert "certificate not accepted: self-signed certificate" in unknown.reason
    assert isinstance(wrong_host, Failed)
    assert "certificate not accepted: IP address mismatch" in wrong_host.reason
    assert len(server.seen) == 1
