"""One HTTP request to the service, and what its answer means for the heartbeats in it."""

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from agent import __version__
from agent.identity import ApiKey

ANSWER_LIMIT_BYTES = 1024 * 1024
RETRY_AFTER_SECONDS = (1.0, 300.0)  # a service's slip must neither make us spin nor silence us for a day


class RejectedHeartbeat(NamedTuple):
    """A heartbeat of a batch that the service will never take, by its place in the batch."""

    position: int
    reason: str


class Delivered(NamedTuple):
    """The service has committed every heartbeat of the request, except `rejected`. `answer` is its text."""

    rejected: list[RejectedHeartbeat]
    answer: str


class Refused(NamedTuple):
    """422 or 413: the same request will never be taken; a part of it may be."""

    cause: str
    reason: str


class Unauthorized(NamedTuple):
    """401 or 403: nothing is wrong with the heartbeats; the token has to change."""

    cause: str
    reason: str


class Failed(NamedTuple):
    """Anything else: unknown whether it arrived, to be sent again.

    cause           what to compare: the same as long as the failure is the same.
    retry_after     seconds that the service asked for, 1 .. 300, or None.
    """

    cause: str
    reason: str
    retry_after: float | None = None


Outcome = Delivered | Refused | Unauthorized | Failed


class _Rejection(msgspec.Struct):
    index: int
    code: str = ""
    errors: list[msgspec.Raw] = []


class _Acknowledgement(msgspec.Struct):
    status: str
    rejected: list[_Rejection] = []


class _FieldError(msgspec.Struct):
    path: str = ""
    reason: str = ""


class _Problem(msgspec.Struct):
    """application/problem+json (RFC 9457) with the service's field errors."""

    title: str = ""
    detail: str = ""
    code: str = ""
    errors: list[msgspec.Raw] = []


class Sender:
    """A keep-alive connection to the service. For one thread; TLS is verified; redirects are never followed."""

    def __init__(self, url: str, key: ApiKey, *, timeout_seconds: float, ca_file: str = "") -> None:
        """Raises OSError if `ca_file` cannot be used."""
        parts = urlsplit(url)
        self._path = parts.path.rstrip("/")
        self._key = key
        self._connection: http.client.HTTPConnection
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file or None)
            self._connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_seconds, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_seconds)

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

    def _exchange(self, path: str, body: bytes) -> Outcome:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"linkbeat-agent/{__version__}",
        }
        if self._key.value:
            headers["Authorization"] = f"Bearer {self._key.value}"
        # A service that refuses the size answers, and hangs up, before it has read everything: read that answer.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request("POST", self._path + path, body, headers)
        with _AnswerDeadline(self._connection), self._connection.getresponse() as response:
            text = response.read(ANSWER_LIMIT_BYTES)
            if not response.isclosed():
                self._connection.close()
            return judge(response.status, response.headers, text)


class _AnswerDeadline:
    """Hangs up on an answer that is not complete in time, and raises TimeoutError then.

    A socket's own timeout starts anew with every byte: an answer of a byte a second would hold delivery for days.
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


def judge(status: int, headers: http.client.HTTPMessage, body: bytes) -> Outcome:
    """What an answer means. Only 200 with the service's own acknowledgement is a delivery.

    A captive portal or a proxy answers 200 with HTML: heartbeats that were forgotten on that would be lost.
    """
    if status == 200:
        return _acknowledged(body)
    cause = f"HTTP {status}"
    phrase = http.client.responses.get(status, "")
    reason = f"{cause} {phrase}".rstrip()
    if 300 <= status < 400:
        # Following it would hand the token to whoever the answer names.
        target = one_line(headers.get("Location", "nowhere"))
        return Failed(
            cause, f"{reason}: redirected to {target}, which is not followed; set LINKBEAT_URL to the service"
        )
    said = _problem_text(body)
    reason = f"{reason}: {said}" if said else reason
    if status in (413, 422):
        return Refused(cause, reason)
    if status in (401, 403):
        return Unauthorized(cause, reason)
    return Failed(cause, reason, _retry_after(headers))


def one_line(text: str, limit: int = 300) -> str:
    """`text` fit for one line of a log, whatever a stranger put into it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _acknowledged(body: bytes) -> Outcome:
    try:
        acknowledgement = msgspec.json.decode(body, type=_Acknowledgement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        acknowledgement = None
    if acknowledgement is None or acknowledgement.status != "ok":
        said = one_line(body.decode("utf-8", "replace"), 80)
        return Failed("no acknowledgement", f"HTTP 200, but not an answer of Linkbeat: {said or '(empty)'}")
    rejected = [
        RejectedHeartbeat(each.index, one_line(_errors_text(each.errors) or each.code or "no reason given"))
        for each in acknowledgement.rejected
    ]
    return Delivered(rejected, body.decode("utf-8", "replace"))


def _problem_text(body: bytes) -> str:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return one_line(body.decode("utf-8", "replace"), 80)
    return one_line(_errors_text(problem.errors) or problem.detail or problem.title or problem.code)


def _errors_text(errors: list[msgspec.Raw]) -> str:
    """`path: reason` of each; an entry of another shape as it came."""
    texts = []
    for raw in errors:
        try:
            error = msgspec.json.decode(raw, type=_FieldError)
            texts.append(f"{error.path}: {error.reason}" if error.path else error.reason)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            texts.append(bytes(raw).decode("utf-8", "replace"))
    return "; ".join(texts)


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds from Retry-After, which is a number or a date (RFC 9110, 10.2.3), within RETRY_AFTER_SECONDS."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    lowest, highest = RETRY_AFTER_SECONDS
    return min(highest, max(lowest, seconds))


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
            text = "connection closed without an answer"
        case _:
            text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return one_line(text)
