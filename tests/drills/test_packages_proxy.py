"""deploy/proxy/nginx.conf in a running nginx, with a certificate made here: TLS in front of a real service."""

import asyncio
import contextlib
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.helpers.processes import free_port, killable_service
from tests.helpers.support import KEY, heartbeat

CONFIGURATION = Path(__file__).parents[2] / "deploy/proxy/nginx.conf"
NAME = "linkbeat.example.net"  # in it
PROXY, AGENT, ANOTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
WRONG_TOKENS = 3

pytestmark = [
    pytest.mark.skipif(
        shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="no nginx; apt install nginx-light"
    ),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl; apt install openssl"),
]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:{PROXY}"]
    files: list[str | Path] = ["-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem"]
    command: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        *names,
        *files,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "fullchain.pem"


@contextlib.contextmanager
def nginx(directory: Path, service_url: str) -> Iterator[tuple[str, str]]:
    """The configuration in a whole one; only ports and places are others. Its https and http addresses."""
    https, http = free_port(), free_port()
    text = CONFIGURATION.read_text(encoding="utf-8")
    for pattern, instead in (
        (r"listen \[::\].*\n", "\n"),
        (r"listen 443", f"listen {PROXY}:{https}"),
        (r"listen 80", f"listen {PROXY}:{http}"),
        (r"/etc/ssl/linkbeat", str(directory)),
        (r"server 127\.0\.0\.1:8000", f"server {service_url.removeprefix('http://')}"),
    ):
        text, count = re.subn(pattern, instead, text)
        assert count, pattern
    whole = f"daemon off; pid {directory}/pid; error_log stderr; events {{}} http {{ access_log off; {text} }}"
    (directory / "nginx.conf").write_text(whole)
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", directory / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        yield f"https://{PROXY}:{https}", f"http://{PROXY}:{http}"
    finally:
        process.terminate()
        process.wait(10)


@contextlib.asynccontextmanager
async def client(sender: str, certificate: Path) -> AsyncIterator[httpx.AsyncClient]:
    trusted = ssl.create_default_context(cafile=str(certificate))
    transport = httpx.AsyncHTTPTransport(verify=trusted, local_address=sender, retries=20)
    async with httpx.AsyncClient(transport=transport) as http:
        yield http


async def test_behind_it_a_sender_is_who_connects_to_the_proxy(
    certificate: Path, tmp_path: Path, database_url: str, database: asyncpg.Connection
) -> None:
    settings = {"LINKBEAT_TRUSTED_PROXIES": PROXY, "LINKBEAT_FAILED_TOKENS_PER_MINUTE": str(WRONG_TOKENS)}
    async with killable_service(database_url, tmp_path, **settings) as service:
        with nginx(tmp_path, service.url) as (https, http):
            async with client(AGENT, certificate) as agent, client(ANOTHER, certificate) as another:
                beat = heartbeat("nas", eth0=(1, 1))
                right, wrong = {"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer wrong"}
                path = f"{https}/api/v1/agents/heartbeat"
                stored = await agent.post(path, json=beat, headers=right)
                guesses = [await agent.post(path, json=beat, headers=wrong) for _ in range(WRONG_TOKENS + 1)]
                feigned = await agent.post(path, json=beat, headers=wrong | {"X-Forwarded-For": "203.0.113.9"})
                elsewhere = await another.post(path, json=beat, headers=wrong)
                plain = await another.get(f"{http}/api/v1/servers?limit=1")
            environ = {
                "LINKBEAT_URL": https,
                "LINKBEAT_API_KEY": KEY,
                "LINKBEAT_CA_FILE": str(certificate),
                "LINKBEAT_CONFIG": "/dev/null",
                "LINKBEAT_SPOOL_DIR": str(tmp_path / "spool"),
                "LINKBEAT_SERVER_ID": "behind-tls",
            }
            once = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-m", "agent", "once"], env=os.environ | environ, capture_output=True
            )

    assert stored.status_code == 200, stored.text
    assert [each.status_code for each in guesses] == [401] * WRONG_TOKENS + [429]
    assert feigned.status_code == 429
    assert elsewhere.status_code == 401
    assert (plain.status_code, plain.headers["Location"]) == (308, f"https://{NAME}/api/v1/servers?limit=1")
    assert once.returncode == 0, once.stderr
    assert await database.fetchval("SELECT count(*) FROM servers WHERE server_id IN ('nas', 'behind-tls')") == 2
