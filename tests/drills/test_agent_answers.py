"""E36, E41: a service that answers anything but an acknowledgement, and one that cannot prove who it is.

    make drill-agent

Each fault has an agent process of its own, all at once. While it lasts nothing may leave the spool, no token may reach
another host, and where the certificate is not accepted no heartbeat may be sent at all; afterwards all of it arrives.
"""

import shutil
import ssl
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.helpers.agents import TAKEN, AgentProcess, Ledger, LedgerHandler, Respond, on_disk, take

FAULT_SECONDS = 12.0
SECONDS_TO_CATCH_UP = 90.0


@pytest.fixture
def ledgers() -> Iterator[list[Ledger]]:
    made: list[Ledger] = []
    yield made
    for ledger in made:
        ledger.shutdown()
        ledger.server_close()


def html(handler: LedgerHandler) -> None:
    handler.answer(200, b"<html><title>Welcome to the hotel</title></html>", Content_Type="text/html")


def status(code: int, **headers: str) -> Respond:
    return lambda handler: handler.answer(code, b"<html>proxy</html>", **headers)


def text(body: bytes, **headers: str) -> Respond:
    return lambda handler: handler.answer(200, body, **headers)


def bytes_at_random(handler: LedgerHandler) -> None:
    handler.wfile.write(bytes(range(256)) * 4)
    handler.close_connection = True


def hang_up(handler: LedgerHandler) -> None:
    handler.close_connection = True


def hang_up_half_way(handler: LedgerHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + TAKEN)
    handler.close_connection = True


def drip(handler: LedgerHandler) -> None:
    handler.close_connection = True
    with suppress(OSError):
        for letter in b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + TAKEN:
            handler.wfile.write(bytes([letter]))
            time.sleep(0.5)


def test_no_answer_but_an_acknowledgement_empties_the_spool(ledgers: list[Ledger], tmp_path: Path) -> None:
    def ledger() -> Ledger:
        ledgers.append(Ledger())
        return ledgers[-1]

    elsewhere = ledger()
    location = f"{elsewhere.url}/api/v1/agents/heartbeat"
    faults: dict[str, Respond] = {
        "html": html,
        "redirect-302": status(302, Location=location),
        "redirect-307": status(307, Location=location),
        "redirect-308": status(308, Location="//127.0.0.1:1/"),
        "status-204": lambda handler: handler.answer(204, b""),
        "status-401": status(401, WWW_Authenticate="Bearer"),
        "status-403": status(403),
        "status-404": status(404),
        "status-500": status(500),
        "status-502": status(502),
        "status-503": status(503, Retry_After="soon"),
        "other-json": text(b'{"status":"error"}'),
        "empty": text(b""),
        "cut-json": text(b'{"status":"ok"'),
        "compressed": text(zlib.compress(TAKEN), Content_Encoding="deflate"),
        "random-bytes": bytes_at_random,
        "hang-up": hang_up,
        "hang-up-half-way": hang_up_half_way,
        "drip": drip,
    }
    with ExitStack() as running:
        agents: dict[str, tuple[Ledger, AgentProcess]] = {}
        for name, respond in faults.items():
            service = ledger()
            service.respond = respond
            agent = AgentProcess(service.url, tmp_path / name, name, TIMEOUT_SECONDS="2")
            agents[name] = service, running.enter_context(agent)
        for name, (service, agent) in agents.items():
            assert service.wait_for(lambda service=service: len(service.live) >= 2, 60), (name, agent.log)  # type: ignore[misc]
        time.sleep(FAULT_SECONDS)
        kept = {name: {each.body for each in on_disk(tmp_path / name).values()} for name in faults}
        acknowledged = [path for path in tmp_path.glob("*/*.ack") if path.stat().st_size]
        assert acknowledged == []
        for name, (service, agent) in agents.items():
            assert service.all_payloads(name) <= kept[name]
            assert agent.log.count("heartbeats are kept") == 1, agent.log
            service.respond = take
        for name, (service, agent) in agents.items():
            arrived = service.wait_for(
                lambda name=name, service=service: kept[name] <= service.all_payloads(name),  # type: ignore[misc]
                SECONDS_TO_CATCH_UP,
            )
            assert arrived, (name, agent.log)
            assert service.conflicts() == []
            assert "Traceback" not in agent.log
    assert elsewhere.live == []
    print(f"\n{len(faults)} kinds of answers, {sum(map(len, kept.values()))} heartbeats kept meanwhile, all arrived")


class Authority:
    """A certificate authority of one's own, by the openssl command."""

    def __init__(self, directory: Path, openssl: str) -> None:
        self.directory, self._openssl = directory, openssl
        self._run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca "
                  "-keyout ca.key -out ca.pem")  # fmt: skip
        self.pem = directory / "ca.pem"
        (directory / "ca.conf").write_text(
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
            "policy=any\nunique_subject=no\ncopy_extensions=copy\n[any]\ncommonName=supplied\n"
        )
        (directory / "index").touch()
        (directory / "serial").write_text("01")

    def issue(self, name: str, host: str, since: str, until: str) -> tuple[Path, Path]:
        """A certificate and its key; times as in 20260101000000Z."""
        self._run(f"req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={host} "
                  f"-addext subjectAltName=DNS:{host} -keyout {name}.key -out {name}.csr")  # fmt: skip
        self._run(f"ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem "
                  f"-startdate {since} -enddate {until}")  # fmt: skip
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def _run(self, arguments: str) -> None:
        done = subprocess.run(
            [self._openssl, *arguments.split()], cwd=self.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def serve_tls(ledger: Ledger, certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    # Handshake in the handler's thread; a refused one ends there and not in the accepting thread.
    ledger.socket = context.wrap_socket(ledger.socket, server_side=True, do_handshake_on_connect=False)
    return context


def test_a_certificate_that_is_not_accepted_gets_nothing_and_nothing_is_lost(
    ledgers: list[Ledger], tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command here to make certificates with; apt-get install openssl")
    (tmp_path / "ca").mkdir()
    (tmp_path / "strangers").mkdir()
    ours, strangers = Authority(tmp_path / "ca", openssl), Authority(tmp_path / "strangers", openssl)
    long_ago, yesterday, far = "20200101000000Z", "20200102000000Z", "20491231000000Z"
    good = ours.issue("good", "localhost", long_ago, far)
    faults = {
        "expired": (ours.issue("expired", "localhost", long_ago, yesterday), "certificate has expired"),
        "not-yet": (ours.issue("not-yet", "localhost", "20490101000000Z", far), "certificate is not yet valid"),
        "other-host": (ours.issue("other", "example.net", long_ago, far), "Hostname mismatch"),
        "stranger": (strangers.issue("stranger", "localhost", long_ago, far), "unable to get local issuer"),
        "self-signed": ((strangers.pem, tmp_path / "strangers/ca.key"), "self-signed certificate"),
    }
    with ExitStack() as running:
        agents: dict[str, tuple[Ledger, ssl.SSLContext, AgentProcess]] = {}
        for name, (certificate, _) in faults.items():
            ledgers.append(Ledger())
            context = serve_tls(ledgers[-1], certificate)
            url = f"https://localhost:{ledgers[-1].server_port}"
            agent = AgentProcess(url, tmp_path / name, name, CA_FILE=str(ours.pem))
            agents[name] = ledgers[-1], context, running.enter_context(agent)
        deadline = time.monotonic() + 30
        for name, (_, _, agent) in agents.items():
            while len(on_disk(tmp_path / name)) < 4:
                assert time.monotonic() < deadline, agent.log
                time.sleep(0.2)
        kept = {name: {each.body for each in on_disk(tmp_path / name).values()} for name in faults}
        for name, (service, context, agent) in agents.items():
            assert service.live == []
            assert f"certificate not accepted: {faults[name][1]}" in agent.log, agent.log
            assert "the-token" not in agent.log
            context.load_cert_chain(*good)  # as when it is renewed
        for name, (service, _, agent) in agents.items():
            arrived = service.wait_for(
                lambda name=name, service=service: kept[name] <= service.all_payloads(name),  # type: ignore[misc]
                SECONDS_TO_CATCH_UP,
            )
            assert arrived, (name, agent.log)
    print(f"\n{', '.join(faults)}: {sum(map(len, kept.values()))} heartbeats kept meanwhile, all arrived")
