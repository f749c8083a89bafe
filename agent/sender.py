"""One HTTP request to the service: kept alive, in time, compressed where that is understood."""

import contextlib
import http.client
import socket
import ssl
import threading
import zlib
from types import TracebackType
from urllib.parse import urlsplit

from . import __version__
from .answers import Delivered, Failed, Outcome, Refused, judge, one_line
from .enrolment import CannotKeep, Enrolment, enrolment_id
from .identity import ApiKey

__all__ = ["Delivered", "Sender", "one_line"]

ANSWER_LIMIT_BYTES = 1024 * 1024
COMPRESSED_FROM_BYTES = 1024  # a smaller body gains less than a packet


class _Peer:
    """What all connections to the service have in common."""

    def __init__(self, url: str, key: ApiKey, ca_file: str, enrolment: Enrolment | None) -> None:
        parts = urlsplit(url)
        self.path = parts.path.rstrip("/")
        self.key = key
        self.enrolment = enrolment
        self.host, self.port = parts.hostname or "", parts.port
        # One for all connections: the system's authorities take a megabyte.
        self.tls = ssl.create_default_context(cafile=ca_file or None) if parts.scheme == "https" else None
        self.takes_gzip = False

    @property
    def token(self) -> str:
        """The token that was configured, or the one that it was exchanged for."""
        return (self.enrolment.token(self.key.value) if self.enrolment else "") or self.key.value

    def connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_seconds, context=self.tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_seconds)


class Sender:
    """A keep-alive connection to the service. For one thread; TLS is verified; redirects are never followed."""

    def __init__(
        self, url: str, key: ApiKey, *, timeout_seconds: float, ca_file: str = "", enrolment: Enrolment | None = None
    ) -> None:
        """Raises OSError if `ca_file` cannot be used."""
        self._open(_Peer(url, key, ca_file, enrolment), timeout_seconds)

    def another(self, timeout_seconds: float) -> "Sender":
        """A connection of its own to the same service, for another thread."""
        sender = Sender.__new__(Sender)
        sender._open(self._peer, timeout_seconds)
        return sender

    def _open(self, peer: _Peer, timeout_seconds: float) -> None:
        self._peer = peer
        self._connection = peer.connection(timeout_seconds)
        self._is_plain = False  # on this connection, compressed bodies were refused

    def heartbeat(self, body: bytes) -> Outcome:
        """Sends one live heartbeat."""
        return self._post("/api/v1/agents/heartbeat", body)

    def heartbeats(self, bodies: list[bytes]) -> Outcome:
        """Sends a batch from the backlog, oldest first."""
        return self._post("/api/v1/agents/heartbeats", b"[" + b",".join(bodies) + b"]")

    def hurry(self, timeout_seconds: float) -> None:
        """Lowers the time limit of the requests to come."""
        self._connection.timeout = timeout_seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_seconds)

    def close(self) -> None:
        self._connection.close()

    def _post(self, path: str, body: bytes) -> Outcome:
        is_reused = self._connection.sock is not None
        try:
            try:
                return self._exchange(path, body)
            except ConnectionError:
                # The service may have closed an idle connection just now; on a new one it is a failure.
                if not is_reused:
                    raise
                self._connection.close()
                return self._exchange(path, body)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            # After a half-read answer the connection is out of step with its requests.
            self._connection.close()
            return Failed(type(error).__name__, _described(error, self._connection.timeout))

    def _enrol(self, enrolment: Enrolment) -> Outcome | None:
        """Exchanges the enrolment token, unless that is done. What keeps it from that, or None."""
        with enrolment.lock:
            if not enrolment_id(self._peer.token):
                return None
            try:
                body = enrolment.request()
                response, text = self._request("/api/v1/agents/enroll", body, is_compressed=False)
                if response.status == 201 and enrolment.keep(self._peer.key.value, text):
                    return None
            except CannotKeep as error:
                return Failed("enrolment", str(error))
        outcome = judge(response.status, response.headers, text)
        match outcome:
            case Delivered():
                return Failed("enrolment", "HTTP 200, but not a response to an enrolment")
            case Refused(cause, reason):  # it, and no heartbeat
                return Failed(cause, f"enrolment: {reason}")
        return outcome

    def _exchange(self, path: str, body: bytes) -> Outcome:
        enrolment = self._peer.enrolment
        if enrolment is not None and (failure := self._enrol(enrolment)) is not None:
            return failure
        if self._connection.sock is None:
            self._is_plain = False
        is_compressed = self._peer.takes_gzip and not self._is_plain and len(body) >= COMPRESSED_FROM_BYTES
        response, text = self._request(path, _gzipped(body) if is_compressed else body, is_compressed=is_compressed)
        if response.status == 415 and is_compressed:
            # Something between here and the service does not understand it; a later connection may go another way.
            self._peer.takes_gzip, self._is_plain = False, True
            response, text = self._request(path, body, is_compressed=False)
        elif not self._is_plain:
            self._peer.takes_gzip |= _accepts_gzip(response.headers)
        return judge(response.status, response.headers, text)

    def _request(self, path: str, body: bytes, *, is_compressed: bool) -> tuple[http.client.HTTPResponse, bytes]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"linkbeat-agent/{__version__}",
        }
        if is_compressed:
            headers["Content-Encoding"] = "gzip"
        if token := self._peer.token:
            headers["Authorization"] = f"Bearer {token}"
        # A service that refuses the size answers, and hangs up, before it has read everything: read that answer.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request("POST", self._peer.path + path, body, headers)
        with _AnswerDeadline(self._connection), self._connection.getresponse() as response:
            text = response.read(ANSWER_LIMIT_BYTES)
            if response.status == 200 and response.length:
                # http.client returns what came of a cut body as if it were all: what is there may look complete.
                raise http.client.IncompleteRead(text, response.length)
            if not response.isclosed():
                self._connection.close()
            return response, text


def _gzipped(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)
    return compressor.compress(body) + compressor.flush()


def _accepts_gzip(headers: http.client.HTTPMessage) -> bool:
    """Whether the answer says that requests may be compressed (RFC 9110, 12.5.3)."""
    for offer in headers.get("Accept-Encoding", "").split(","):
        coding, _, weight = offer.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


class _AnswerDeadline:
    """Hangs up on an answer that is not complete in time, and raises TimeoutError then.

    A socket's own timeout starts again with every byte: an answer of a byte a second would hold delivery for days.
    """

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._socket: socket.socket | None = connection.sock
        self._timer = threading.Timer(connection.timeout or 0.0, self._hang_up)
        self._timer.daemon = True
        self._has_passed = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Also without an error: http.client returns what came of a cut body as if it were all.
        if self._has_passed:
            raise TimeoutError from error

    def _hang_up(self) -> None:
        self._has_passed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _described(error: Exception, timeout: float | None) -> str:
    match error:
        case ConnectionRefusedError():
            text = "connection refused"
        case TimeoutError():
            text = f"no answer within {timeout:g} s"
        case socket.gaierror():
            text = f"host name cannot be resolved ({error.strerror})"
        case ssl.SSLCertVerificationError():
            text = f"certificate not accepted: {error.verify_message}"
        case http.client.RemoteDisconnected():
            text = "connection closed without a response"
        case _:
            text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return one_line(text)
