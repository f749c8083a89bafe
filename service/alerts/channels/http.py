"""One HTTP request to a receiver, with a deadline. Uses the status and Retry-After of the response, not its body."""

import asyncio
import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from agent import __version__
from service.alerts.channels.network import Network, Unreachable
from service.alerts.channels.outcome import Outcome, retry_after

DEADLINE_SECONDS = 15.0
MAX_LINES = 200  # of the head of a response
_MAX_INTERIM = 5
_PORTS = {"http": 80, "https": 443}


class UrlError(ValueError):
    """The text is not a usable URL; the message does not repeat it."""


@dataclass(frozen=True)
class Url:
    """The parts of a URL. `authorization` is the value of the header for user:password@, or ""."""

    is_tls: bool
    host: str
    port: int
    target: str
    authorization: str

    @property
    def netloc(self) -> str:
        """host, or host:port if the port is not the default of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.is_tls else "http"] else f"{host}:{self.port}"


def parse(url: str) -> Url:
    """Raises UrlError."""
    parts = _split(url)
    host = parts.hostname
    if parts.scheme not in _PORTS or not host:
        raise UrlError("expected a URL such as https://alerts.example.net/hook")
    if not all("!" <= letter <= "~" for letter in url) or len(url) > 2_000:
        raise UrlError("expected visible ASCII characters, at most 2,000")
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        raise UrlError("its port is not a number from 1 to 65535") from None
    authorization = ""
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(login.encode()).decode()}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme == "https", host, port, target, authorization)


def shown(url: str) -> str:
    """The URL without its secrets: scheme, host and port. A path or a query may be a secret of the receiver."""
    parts = _split(url)
    url_parts = parse(url)
    is_bare = parts.path in ("", "/") and not parts.query and parts.username is None
    return f"{parts.scheme}://{url_parts.netloc}" + ("" if is_bare else "/…")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise UrlError("expected a URL such as https://alerts.example.net/hook") from None


async def request(
    network: Network, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Outcome:
    """Sends the request once. 2xx counts as delivered. Redirects are not followed: they could lead into the network."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await _request(network, method, parse(url), body, headers or {})
    except TimeoutError:
        return Outcome(error=f"no response within {DEADLINE_SECONDS:g} seconds")
    except (Unreachable, UrlError) as raised:
        return Outcome(error=str(raised))
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as raised:
        return Outcome(error=f"the connection failed: {type(raised).__name__}")


async def _request(network: Network, method: str, url: Url, body: bytes, headers: Mapping[str, str]) -> Outcome:
    sent = {
        "Host": url.netloc,
        "User-Agent": f"linkbeat/{__version__}",
        "Accept": "*/*",
        "Connection": "close",
        **({"Authorization": url.authorization} if url.authorization else {}),
        **({"Content-Length": str(len(body))} if body or method != "GET" else {}),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    reader, writer = await network.connect(url.host, url.port, is_tls=url.is_tls)
    try:
        writer.write(f"{method} {url.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        # At the same time: a receiver may respond before it has read the whole body, and then stop reading.
        draining = asyncio.ensure_future(_drained(writer))
        try:
            return await _answer(reader)
        finally:
            draining.cancel()
    finally:
        writer.transport.abort()


async def _drained(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # reading the response fails too
        await writer.drain()


async def _answer(reader: asyncio.StreamReader) -> Outcome:
    for _ in range(_MAX_INTERIM):
        status, named = await _head(reader)
        if status >= 200:
            break
    else:
        return Outcome(error="the response is not HTTP")
    if 200 <= status < 300:
        return Outcome(status)
    if 300 <= status < 400:
        return Outcome(status, f"responded with {status}: redirects are not followed; set the channel to the new URL")
    return Outcome(status, f"responded with {status}", retry_after(named.get("retry-after", "")))


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and headers of a response. Raises ValueError if it is not HTTP."""
    line = (await reader.readuntil(b"\n")).decode("latin-1")
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
        raise ValueError("not HTTP")
    named: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = (await reader.readuntil(b"\n")).decode("latin-1").strip()
        if not line:
            return int(code), named
        name, _, value = line.partition(":")
        named[name.strip().lower()] = value.strip()
    raise ValueError("too many headers")
