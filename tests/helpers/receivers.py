"""Receivers of alerts on the loopback interface: an HTTP server and an SMTP server that say what they were sent."""

import asyncio
import base64
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpReceiver:
    """Answers every request with `status` and `headers`; `hold` keeps answers back while it is not set."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    url: str = ""
    port: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    on_request: Callable[[Received], None] = lambda _: None

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Received(method, target, headers, body)
            self.received.append(request)
            self.on_request(request)
            await self.hold.wait()
            more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            writer.write(f"HTTP/1.1 {self.status} Whatever\r\n{more}Content-Length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    async def until(self, count: int, seconds: float = 60.0) -> list[Received]:
        """All requests, once there are so many."""
        async with asyncio.timeout(seconds):
            while len(self.received) < count:  # noqa: ASYNC110 - the server adds to the list and tells nobody
                await asyncio.sleep(0.02)
        return self.received


@contextlib.asynccontextmanager
async def http_receiver(host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> AsyncIterator[HttpReceiver]:
    """A receiver that answers at once."""
    receiver = HttpReceiver()
    receiver.hold.set()
    server = await asyncio.start_server(receiver.take, host, 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    scheme = "https" if context else "http"
    receiver.url = f"{scheme}://{'localhost' if context else host}:{receiver.port}/hook"
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.close()


@dataclass
class Mail:
    """A mail as it was handed over."""

    sender: str
    recipients: list[str]
    data: bytes
    login: str | None
    is_encrypted: bool

    @property
    def message(self) -> Message:
        return message_from_bytes(self.data)


@dataclass
class SmtpReceiver:
    """A small SMTP server (RFC 5321) with STARTTLS and AUTH PLAIN. `replies` replaces the reply to a command."""

    context: ssl.SSLContext | None = None
    is_tls: bool = False
    password: str = ""
    replies: dict[str, str] = field(default_factory=dict)
    mails: list[Mail] = field(default_factory=list)
    port: int = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(*lines: str) -> None:
            text = "".join(
                f"{line[:3]}{'-' if n < len(lines) - 1 else ' '}{line[4:]}\r\n" for n, line in enumerate(lines)
            )
            writer.write(text.encode())
            await writer.drain()

        encrypted, login, sender = self.is_tls, None, ""
        recipients: list[str] = []
        await say(self.replies.get("CONNECT", "220 test ESMTP"))
        while True:
            line = (await reader.readuntil(b"\r\n")).decode().strip()
            command = line.split(" ")[0].upper()
            if command in self.replies:
                await say(self.replies[command])
            elif command in ("EHLO", "HELO"):
                offered = [] if encrypted or not self.context else ["250 STARTTLS"]
                await say("250 test", *offered, "250 AUTH PLAIN", "250 8BITMIME")
            elif command == "STARTTLS":
                await say("220 go on")
                assert self.context is not None
                await writer.start_tls(self.context)
                encrypted = True
            elif command == "AUTH":
                name, secret = base64.b64decode(line.split(" ")[2]).decode().split("\0")[1:]
                login = name if secret == self.password else None
                await say("235 welcome" if login else f"535 5.7.8 wrong password {secret}")
            elif command == "MAIL":
                sender, recipients = line.partition("<")[2].partition(">")[0], []
                await say("250 ok")
            elif command == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
                await say("250 ok")
            elif command == "DATA":
                await say("354 go on")
                data = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                self.mails.append(Mail(sender, recipients, data, login, encrypted))
                await say("250 taken")
            elif command == "QUIT":
                await say("221 bye")
                return
            else:
                await say("250 ok")


@contextlib.asynccontextmanager
async def smtp_receiver(context: ssl.SSLContext | None = None, *, is_tls: bool = False) -> AsyncIterator[SmtpReceiver]:
    """With a context it offers STARTTLS, or is encrypted from the first byte."""
    receiver = SmtpReceiver(None if is_tls else context, is_tls)
    server = await asyncio.start_server(receiver.take, "127.0.0.1", 0, ssl=context if is_tls else None)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


def certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for localhost, and a server's context with it."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context
