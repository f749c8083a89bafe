"""Interprets responses of the service: what happens to the heartbeats of the request."""

import email.utils
import http.client
import time
from typing import Any, NamedTuple

import msgspec

RETRY_AFTER_SECONDS = (1.0, 300.0)  # bounds a faulty Retry-After: neither a busy loop nor a day of silence


LONGEST_EPOCH = 200  # characters; it is written to a file and to the log
CLOCK_FUTURE = "clock_future"  # the service's code for a timestamp too far ahead of its clock


class RejectedHeartbeat(NamedTuple):
    """A heartbeat of a batch that the service rejects permanently, by its position in the batch.

    code            the service's code of the error, "" if it sent none.
    """

    position: int
    reason: str
    code: str = ""


class Delivered(NamedTuple):
    """The service has committed every heartbeat of the request, except `rejected`. `answer` is the response text.

    config          what the service asks this agent to do differently: a JSON object, b"{}" if nothing.
    service_ms      the service's clock, in milliseconds since 1970, to the second; None where the answer has no date.
    epoch           identifies the database that has them, "" if not given; compared for equality only.
    """

    rejected: list[RejectedHeartbeat]
    answer: str
    config: bytes = b"{}"
    service_ms: int | None = None
    epoch: str = ""


class Refused(NamedTuple):
    """422 or 413: the same request will always be rejected; parts of it may be accepted.

    code            the service's code of the error, "" if it sent none.
    service_ms      as in Delivered.
    """

    cause: str
    reason: str
    code: str = ""
    service_ms: int | None = None


class Unauthorized(NamedTuple):
    """401 or 403: the heartbeats are valid, but the token must change."""

    cause: str
    reason: str


class Failed(NamedTuple):
    """Anything else: the heartbeats may not have arrived, and are sent again.

    cause           equal for as long as the failure is the same.
    retry_after     seconds from Retry-After, 1 .. 300, or None.
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
    config: msgspec.Raw = msgspec.Raw(b"{}")
    epoch: Any = None


class _FieldError(msgspec.Struct):
    path: str = ""
    reason: str = ""


class _Problem(msgspec.Struct):
    """application/problem+json (RFC 9457) with the service's field errors."""

    title: str = ""
    detail: str = ""
    code: str = ""
    errors: list[msgspec.Raw] = []


def judge(status: int, headers: http.client.HTTPMessage, body: bytes) -> Outcome:
    """Interprets a response. Only 200 with the service's own acknowledgement is a delivery.

    A captive portal or a proxy may answer 200 with HTML: heartbeats deleted after that would be lost.
    """
    if status == 200:
        return _acknowledged(body, _date_ms(headers))
    cause = f"HTTP {status}"
    phrase = http.client.responses.get(status, "")
    reason = f"{cause} {phrase}".rstrip()
    if 300 <= status < 400:
        # Following it would send the token to the host that the response names.
        target = one_line(headers.get("Location", "nowhere"))
        return Failed(
            cause, f"{reason}: redirected to {target}, which is not followed; set LINKBEAT_URL to the service"
        )
    problem = _problem(body)
    said = one_line(body.decode("utf-8", "replace"), 80) if problem is None else _problem_text(problem)
    reason = f"{reason}: {said}" if said else reason
    if status in (413, 422):
        return Refused(cause, reason, problem.code if problem else "", _date_ms(headers))
    if status in (401, 403):
        return Unauthorized(cause, reason)
    return Failed(cause, reason, _retry_after(headers))


def one_line(text: str, limit: int = 300) -> str:
    """`text` made safe for one line of a log."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _acknowledged(body: bytes, service_ms: int | None) -> Outcome:
    try:
        acknowledgement = msgspec.json.decode(body, type=_Acknowledgement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        acknowledgement = None
    if acknowledgement is None or acknowledgement.status != "ok":
        said = one_line(body.decode("utf-8", "replace"), 80)
        return Failed("no acknowledgement", f"HTTP 200, but not a response of Linkbeat: {said or '(empty)'}")
    rejected = [
        RejectedHeartbeat(each.index, one_line(_errors_text(each.errors) or each.code or "no reason given"), each.code)
        for each in acknowledgement.rejected
    ]
    # Anything but an object, such as null, is an empty configuration; the heartbeat is committed in any case.
    config = bytes(acknowledgement.config)
    asked = config if config.startswith(b"{") else b"{}"
    epoch = acknowledgement.epoch
    named = epoch if isinstance(epoch, str) and len(epoch) <= LONGEST_EPOCH else ""
    return Delivered(rejected, body.decode("utf-8", "replace"), asked, service_ms, named)


def _problem(body: bytes) -> _Problem | None:
    try:
        return msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _problem_text(problem: _Problem) -> str:
    return one_line(_errors_text(problem.errors) or problem.detail or problem.title or problem.code)


def _errors_text(errors: list[msgspec.Raw]) -> str:
    """`path: reason` of each error; entries of another shape unchanged."""
    texts = []
    for raw in errors:
        try:
            error = msgspec.json.decode(raw, type=_FieldError)
            texts.append(f"{error.path}: {error.reason}" if error.path else error.reason)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            texts.append(bytes(raw).decode("utf-8", "replace"))
    return "; ".join(texts)


def _date_ms(headers: http.client.HTTPMessage) -> int | None:
    """The Date of the response (RFC 9110, 6.6.1), in milliseconds since 1970."""
    try:
        return int(email.utils.parsedate_to_datetime(headers.get("Date", "")).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


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
