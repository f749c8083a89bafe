"""Checks the path to the service step by step: name, connection, TLS, response, token, clock."""

import email.utils
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from . import __version__
from .answers import judge, one_line
from .enrolment import enrolment_id
from .findings import Finding
from .identity import ApiKey
from .sender import ANSWER_LIMIT_BYTES
from .settings import Settings, SettingsError

CLOCK_OFF_SECONDS = 5.0
CLOCK_REFUSED_SECONDS = 300.0  # the service rejects heartbeats that are further ahead of its clock
TOO_OLD_SECONDS = 7 * 86_400.0  # and those older than this, unless LINKBEAT_OLDEST_HEARTBEAT_DAYS is changed
EXPIRES_SOON_SECONDS = 14 * 86_400.0

_PATH = "/api/v1/agents/heartbeat"


class _Problem(msgspec.Struct):
    """Problem details with a code, which distinguish a response of the service from that of a proxy in front of it."""

    code: str


def service(settings: Settings, no_token: str) -> Iterator[Finding]:
    """One finding per step, until one fails. `no_token` says why no token is set, "" if one is.

    The last step sends a request without a heartbeat: the service checks the token before the body, so that its
    response shows whether it accepts the token, and nothing is stored.
    """
    parts = urlsplit(settings.url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port if parts.port is not None else (443 if is_tls else 80)
    try:
        key = ApiKey(settings).value
    except SettingsError as error:
        key = ""
        yield Finding("token", "problem", str(error), "The agent does not start until the file is fixed.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield Finding(
            "address", "problem", f"{host}: {reason}", "Check LINKBEAT_URL and the DNS resolver of this machine."
        )
        return
    yield Finding("address", "ok", f"{host} is {', '.join(dict.fromkeys(str(each[4][0]) for each in found))}")
    begin = time.monotonic()
    try:
        connection = socket.create_connection((host, port), settings.timeout_seconds)
    except OSError as error:
        waited = f"no answer within {settings.timeout_seconds:g} s" if isinstance(error, TimeoutError) else ""
        remedy = "Does the service run? Does it listen on that address (LINKBEAT_HOST)? Does a firewall block it?"
        yield Finding("connection", "problem", f"port {port}: {waited or error.strerror or error}", remedy)
        return
    with connection:
        yield Finding("connection", "ok", f"port {port} in {1000 * (time.monotonic() - begin):.1f} ms")
        if is_tls:
            wrapped, findings = _tls(connection, host, settings.ca_file)
            yield from findings
            if wrapped is None:
                return
            connection = wrapped
        elif key and not (host in ("localhost", "::1") or host.startswith("127.")):
            remedy = "Put a TLS proxy in front of the service, and set LINKBEAT_URL to https."
            yield Finding(
                "tls", "warning", f"none: anybody who can read the traffic to {host} can read the token", remedy
            )
        with connection:
            yield from _answer(connection, host, port, settings, key, no_token)


def _tls(connection: socket.socket, host: str, ca_file: str) -> tuple[ssl.SSLSocket | None, list[Finding]]:
    try:
        wrapped = ssl.create_default_context(cafile=ca_file or None).wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        remedy = (
            "For a private certificate authority, set LINKBEAT_CA_FILE. If it is expired or not yet valid, "
            "check both clocks."
        )
        return None, [Finding("tls", "problem", f"certificate not accepted: {error.verify_message}", remedy)]
    except OSError as error:
        remedy = "Does the service speak TLS on that port? Does LINKBEAT_CA_FILE name a PEM file?"
        return None, [Finding("tls", "problem", one_line(str(error)), remedy)]
    until = str((wrapped.getpeercert() or {}).get("notAfter", ""))
    text = f"{wrapped.version()}, certificate valid until {until}"
    if until and ssl.cert_time_to_seconds(until) - time.time() < EXPIRES_SOON_SECONDS:
        return wrapped, [Finding("tls", "warning", text, "Renew it: an agent that cannot verify it sends nothing.")]
    return wrapped, [Finding("tls", "ok", text)]


def _answer(
    connection: socket.socket, host: str, port: int, settings: Settings, key: str, no_token: str
) -> Iterator[Finding]:
    """Sends a request without a heartbeat and judges the response."""
    client = http.client.HTTPConnection(host, port, timeout=settings.timeout_seconds)
    client.sock = connection
    headers = {"Content-Type": "application/json", "User-Agent": f"linkbeat-agent/{__version__} doctor"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    sent = time.time()
    try:
        client.request("POST", urlsplit(settings.url).path.rstrip("/") + _PATH, b"{}", headers)
        response = client.getresponse()
        body = response.read(ANSWER_LIMIT_BYTES)
    except (OSError, http.client.HTTPException) as error:
        match error:
            case TimeoutError():
                said = "no response in time"
            case ConnectionError():
                said = "the connection was closed without a response"
            case http.client.BadStatusLine():
                said = f"the response is not HTTP: {error}"
            case _:
                said = f"{type(error).__name__}: {error}"
        remedy = "Does LINKBEAT_URL have the service's port, and https if the service uses TLS?"
        yield Finding("service", "problem", one_line(said), remedy)
        return
    middle = (sent + time.time()) / 2
    yield from judged(response.status, response.headers, body, key, no_token)
    yield from clock(response.headers.get("Date", ""), middle)


def judged(status: int, headers: http.client.HTTPMessage, body: bytes, key: str, no_token: str) -> Iterator[Finding]:
    """Whether the response is Linkbeat's, and whether it accepts the token: it checks the token before the body."""
    outcome = judge(status, headers, body)
    reason = getattr(outcome, "reason", "accepted an invalid heartbeat")
    if not _is_linkbeat(body):
        remedy = (
            "Check LINKBEAT_URL, including the path before /api if a proxy adds one, and proxies in front "
            "of the service."
        )
        text = reason if status == 200 else f"not a response of Linkbeat: {reason}"
        yield Finding("service", "problem", text, remedy)
    elif status in (401, 403):
        yield Finding("service", "ok", "Linkbeat answers")
        if enrolment_id(key):
            text = "an enrolment token, which a running agent exchanges once for this server's own token"
            yield Finding("token", "ok", text)
        elif key:
            remedy = "Ask the operator of the service for one; restart the agent after changing the installed token."
            yield Finding("token", "problem", f"the service rejects it: {reason}", remedy)
        else:
            yield Finding("token", "problem", "no token is set, and the service requires one", no_token)
    elif status in (400, 422):
        yield Finding("service", "ok", "Linkbeat answers")
        text = "the service accepts it" if key else "no token is set, and the service requires none"
        yield Finding("token", "ok", text)
    else:
        remedy = "Heartbeats are kept until then; the service's log and its /health/ready show the reason."
        yield Finding("service", "warning", f"Linkbeat answers, but accepts no heartbeats now: {reason}", remedy)


def clock(date: str, now: float) -> Iterator[Finding]:
    """Compares this clock with the Date of a response (RFC 9110, 6.6.1), which has full seconds; `now` is Unix time."""
    try:
        # On average half a second has passed since the second began.
        ahead = now - (email.utils.parsedate_to_datetime(date).timestamp() + 0.5)
    except (ValueError, OverflowError):
        return
    if abs(ahead) < CLOCK_OFF_SECONDS:
        yield Finding("clock", "ok", "agrees with the service's")
        return
    text = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the service's"
    remedy = "Let NTP set both clocks (timedatectl set-ntp true)."
    if ahead > CLOCK_REFUSED_SECONDS:
        kept = "The agent keeps them, and corrects and sends them once the clock is correct."
        yield Finding("clock", "problem", f"{text}: it rejects heartbeats that far ahead", f"{remedy} {kept}")
    elif ahead < -TOO_OLD_SECONDS:
        text += ": it rejects heartbeats older than its LINKBEAT_OLDEST_HEARTBEAT_DAYS (7 by default)"
        yield Finding("clock", "problem", text, remedy)
    else:
        yield Finding("clock", "warning", text, remedy)


def _is_linkbeat(body: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(body, type=_Problem).code)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
