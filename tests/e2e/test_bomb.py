"""Bodies that unpack to far more than they are (E28): a real service has neither the memory nor the time of others."""

import contextlib
import json
import socket

import pytest

from tests.e2e.conftest import ServiceProcess
from tests.helpers.bombs import bomb
from tests.helpers.durations import fastest
from tests.helpers.support import KEY, heartbeat

ONE = "/api/v1/agents/heartbeat"
MANY = "/api/v1/agents/heartbeats"
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: linkbeat\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    "Content-Encoding: {encoding}\r\n{framing}\r\n\r\n"
)


def post(service: ServiceProcess, path: str, body: bytes, *, encoding: str = "gzip", chunked: bool = False) -> int:
    """The status of the answer, whether or not all of the body could be sent before it came."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = HEAD.format(path=path, key=KEY, encoding=encoding, framing=framing).encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head + (b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n" if chunked else body))
        return int(connection.recv(100).split(b" ", 2)[1])


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("path", "size"), [(ONE, 1 << 30), (MANY, 7 << 30), (MANY, 10 << 30)])
def test_what_would_unpack_to_gigabytes_is_refused_at_once(
    service_process: ServiceProcess, path: str, size: int, chunked: bool
) -> None:
    packed = bomb(size)
    beat = json.dumps(heartbeat()).encode()
    assert post(service_process, ONE, beat, encoding="identity") == 200
    before = service_process.resident_bytes

    def refuse() -> None:
        assert post(service_process, path, packed, chunked=chunked) == 413

    for _ in range(5):
        assert fastest(refuse, within=1.0) < 1.0

    assert service_process.resident_bytes < before + (40 << 20)
    assert post(service_process, ONE, beat, encoding="identity") == 200
