"""`doctor` as a process: against the service, against what is not the service, and against silence."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import ServiceProcess
from tests.helpers.durations import ATTEMPTS
from tests.helpers.processes import free_port
from tests.helpers.support import KEY

REPOSITORY = Path(__file__).parents[2]


def doctor(url: str, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    chosen = {"URL": url, "CONFIG": "/dev/null", "TIMEOUT_SECONDS": "0.5"} | settings
    done = subprocess.run(
        [sys.executable, "-m", "agent", "doctor", *arguments],
        cwd=REPOSITORY,
        env=inherited | {f"LINKBEAT_{name}": value for name, value in chosen.items()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done


def findings(url: str, **settings: str) -> tuple[int, dict[str, Any]]:
    """Exit status, and what is not ok of each finding's name: state and text."""
    done = doctor(url, "--json", **settings)
    report = json.loads(done.stdout)
    assert report["well"] is (done.returncode == 0)
    return done.returncode, {each["name"]: each for each in report["findings"]}


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does to each connection what `answer` does."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        accepting.join()


def said(text: str) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        received = b""
        while not received.endswith(b"{}") and not received.startswith(b"\x16"):  # the whole request, or TLS's hello
            received += connection.recv(65536)
        connection.sendall(text.encode())

    return answer


async def test_the_service_is_recognized_and_nothing_is_stored(service_process: ServiceProcess) -> None:
    status, found = findings(service_process.url, API_KEY=KEY, TIMEOUT_SECONDS="10")

    assert status == 0
    for name in ("address", "connection", "service", "token", "clock"):
        assert found[name]["state"] == "ok", found[name]
    connection = await asyncpg.connect(service_process.database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM servers") == 0
    finally:
        await connection.close()
    assert "WARNING" not in service_process.log


def test_a_wrong_token_and_none_are_told_apart(service_process: ServiceProcess, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.touch()

    wrong_status, wrong = findings(service_process.url, API_KEY="wrong-wrong-wrong", TIMEOUT_SECONDS="10")
    none_status, none = findings(service_process.url, CONFIG=str(config), TIMEOUT_SECONDS="10")

    assert (wrong_status, none_status) == (1, 1)
    assert wrong["service"]["state"] == none["service"]["state"] == "ok"
    assert "rejects it: HTTP 401" in wrong["token"]["text"]
    assert "wrong-wrong-wrong" not in str(wrong)
    assert "no token is set" in none["token"]["text"]
    assert str(tmp_path / "token") in none["token"]["remedy"]


def test_it_reads_as_a_person_reads(service_process: ServiceProcess) -> None:
    done = doctor(service_process.url, API_KEY=KEY, SERVER_ID="nas", TIMEOUT_SECONDS="10")

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.split() == ["ok", "token", "the", "service", "accepts", "it"] for line in lines)
    assert any(line.startswith("ok ") and "reports as nas" in line for line in lines)
    assert KEY not in done.stdout


def test_nobody_listens() -> None:
    status, found = findings(f"http://127.0.0.1:{free_port()}")

    assert status == 1
    assert "Connection refused" in found["connection"]["text"]
    assert found["connection"]["remedy"]
    assert found["interfaces"]["state"] == "ok", "the machine is looked at all the same"


def test_a_name_that_does_not_resolve() -> None:
    status, found = findings("http://no-such-host.invalid", TIMEOUT_SECONDS="5")

    assert status == 1
    assert found["address"]["state"] == "problem"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "not a response of Linkbeat"),
        ("HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", "http://elsewhere/"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "is not HTTP: SSH-2.0"),
        ("", "closed without a response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", "HTTP 200, but not a response of Linkbeat: cut"),
    ],
)
def test_what_answers_is_not_the_service(text: str, words: str) -> None:
    with listening(said(text)) as url:
        status, found = findings(url, API_KEY="the-token")

    assert status == 1
    assert found["service"]["state"] == "problem"
    assert words in found["service"]["text"]


def test_silence_and_a_byte_at_a_time_end_in_time() -> None:
    released = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not released.wait(0.2):
            connection.sendall(b"x")

    def hang(_: socket.socket) -> None:
        released.wait(300)

    ends = []
    with listening(hang) as silent, listening(drip) as dripping:
        for _ in range(ATTEMPTS):  # a busy machine delays one or the other, or is silent where it should drip
            began = time.monotonic()
            of_silence, of_drops = findings(silent), findings(dripping)
            assert of_silence[0] == of_drops[0] == 1
            assert of_silence[1]["service"]["text"] == "no response in time"
            ends.append((time.monotonic() - began, of_drops[1]["service"]["text"]))
            if ends[-1][0] < 15 and ends[-1][1].startswith("no result within"):
                break
        released.set()

    assert ends[-1][0] < 15, ends
    assert ends[-1][1].startswith("no result within"), ends


def test_a_service_without_tls_is_told_from_one_with_a_wrong_certificate() -> None:
    with listening(said("HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        status, found = findings(url.replace("http:", "https:"))

    assert status == 1
    assert found["tls"]["state"] == "problem"
    assert "WRONG_VERSION_NUMBER" in found["tls"]["text"]
