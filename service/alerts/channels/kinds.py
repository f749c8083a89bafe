"""The kinds of channels, as set over REST and in a file.

Fields named in SECRETS are write-only: they are stored separately, and no response, log or view contains them.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from service.alerts.channels import http
from service.alerts.channels.http import UrlError
from service.alerts.channels.network import is_public, literal, refusal
from service.http.errors import Problem

MAX_INSTANCES = 16
MAX_RECIPIENTS = 50
SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")

Severity = Literal["info", "warning", "critical"]
Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2_000,
        pattern=r"^https?:[/]{2}[!-~]+…?\Z",
        description="An http or https URL, with user:password@ if the receiver requires Basic authentication.",
    ),
]
Secret = Annotated[str, Meta(max_length=1_000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Mailbox = Annotated[
    str,
    Meta(
        max_length=254,
        pattern=r"^[!#-'*+\--9=?A-Z^-~]+(\.[!#-'*+\--9=?A-Z^-~]+)*@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z",
        description="An address such as ops@example.net.",
        examples=["ops@example.net"],
    ),
]
TimeZone = Annotated[str, Meta(max_length=100, examples=["Europe/Berlin"])]
Host = Annotated[
    str,
    Meta(
        max_length=253,
        pattern=r"^[A-Za-z0-9:._-]+\Z",
        description="A name or an address.",
        examples=["smtp.example.net"],
    ),
]


class ChannelOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of every kind of channel.

    min_severity    less severe alerts are not sent
    sends_resolved  whether the end of an alert is sent
    sends_late      whether alerts found in replayed data are sent
    digest_seconds  for how long alerts are collected into one message
    time_zone       IANA name; the zone of times in texts for people
    enabled         whether the channel gets new messages
    """

    min_severity: Severity = "info"
    sends_resolved: bool = True
    sends_late: bool = False
    digest_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 10
    time_zone: TimeZone = "UTC"
    enabled: bool = True


class WebhookChannel(ChannelOptions, frozen=True, kw_only=True):
    """POST with JSON.

    url     write-only except scheme, host and port: the path is often a secret of the receiver
    secret  write-only: key of the signature in X-Linkbeat-Signature; "": none; null: the stored one
    """

    kind: Literal["webhook"]
    url: Url
    secret: Secret | None = None


class EmailChannel(ChannelOptions, frozen=True, kw_only=True):
    """Mail by SMTP.

    security  `starttls` (never without it), `tls` from the first byte, or `none`
    port      null: 587 for starttls, 465 for tls, 25 for none
    password  write-only; "": none; null: the stored one
    """

    kind: Literal["email"]
    host: Host
    recipients: Annotated[list[Mailbox], Meta(min_length=1, max_length=MAX_RECIPIENTS)]
    sender: Mailbox
    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: Annotated[str, Meta(max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")] = ""
    password: Secret | None = None


class AlertmanagerChannel(ChannelOptions, frozen=True, kw_only=True):
    """Prometheus Alertmanager (API v2), which does its own grouping, silencing and sending.

    urls  every instance of a cluster, because they do not forward alerts; write-only except scheme, host and port
    """

    kind: Literal["alertmanager"]
    urls: Annotated[list[Url], Meta(min_length=1, max_length=MAX_INSTANCES)]


class PingChannel(ChannelOptions, frozen=True, kw_only=True):
    """A dead man's switch: GET after every evaluation, while messages are delivered. No rule can name it.

    url  write-only except scheme, host and port
    """

    kind: Literal["ping"]
    url: Url


class AppriseChannel(ChannelOptions, frozen=True, kw_only=True):
    """A service that Apprise supports (`pip install 'linkbeat[apprise]'`).

    urls  write-only except the scheme
    """

    kind: Literal["apprise"]
    urls: Annotated[
        list[
            Annotated[str, Meta(max_length=2_000, pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:[/]{2}[^\x00-\x1f\x7f-\x9f]+\Z")]
        ],
        Meta(min_length=1, max_length=MAX_INSTANCES),
    ]


Channel = WebhookChannel | EmailChannel | AlertmanagerChannel | PingChannel | AppriseChannel
KINDS: dict[str, type[Channel]] = {
    "webhook": WebhookChannel, "email": EmailChannel, "alertmanager": AlertmanagerChannel, "ping": PingChannel,
    "apprise": AppriseChannel,
}  # fmt: skip
SECRETS = ("url", "urls", "secret", "password")
DEFAULT_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def smtp_port(channel: EmailChannel) -> int:
    """The port of the SMTP server."""
    return channel.port or DEFAULT_PORTS[channel.security]


def shown_url(url: str) -> str:
    """A URL without its secrets; only the scheme of an Apprise URL."""
    return http.shown(url) if url.startswith(("http://", "https://")) else f"{SCHEME.match(url)[0]}…"  # type: ignore[index]  # checked by the type


def check(channel: Channel, *, allows_private: bool) -> None:
    """Checks that the types do not cover. Raises Problem (422) for an unusable URL or an address inside the network."""
    if isinstance(channel, WebhookChannel | PingChannel):
        _check_url(channel.url, "url", allows_private=allows_private)
    elif isinstance(channel, AlertmanagerChannel):
        for place, url in enumerate(channel.urls):
            _check_url(url, f"urls[{place}]", allows_private=allows_private)
    elif isinstance(channel, EmailChannel):
        _check_host(channel.host, "host", allows_private=allows_private)


def _check_url(url: str, path: str, *, allows_private: bool) -> None:
    try:
        host = http.parse(url).host
    except UrlError as raised:
        raise Problem.invalid(path, str(raised)) from None
    _check_host(host, path, allows_private=allows_private)


def _check_host(host: str, path: str, *, allows_private: bool) -> None:
    """Checks a literal address; a name is checked whenever it is resolved (service/alerts/channels/network.py)."""
    address = literal(host)
    if address is not None and not allows_private and not is_public(address):
        raise Problem.invalid(path, refusal(host))


def completed(channel: Channel, before: Channel | None) -> Channel:
    """The channel with omitted secrets taken from `before`, the stored channel.

    Raises Problem (422) for a shortened URL (…) that matches none of the stored ones.
    """
    old = before if type(before) is type(channel) else None
    if isinstance(channel, WebhookChannel | PingChannel):
        (url,) = _kept([channel.url], [getattr(old, "url", "")], "url")
        channel = msgspec.structs.replace(channel, url=url)
    elif isinstance(channel, AlertmanagerChannel | AppriseChannel):
        channel = msgspec.structs.replace(channel, urls=_kept(channel.urls, getattr(old, "urls", []), "urls"))
    if isinstance(channel, WebhookChannel) and channel.secret is None:
        channel = msgspec.structs.replace(channel, secret=getattr(old, "secret", None))
    if isinstance(channel, EmailChannel) and channel.password is None and _is_same_account(channel, old):
        channel = msgspec.structs.replace(channel, password=getattr(old, "password", None))
    return channel


def split(channel: Channel) -> tuple[dict[str, Any], dict[str, Any]]:
    """The public fields of a channel, and its secrets."""
    public: dict[str, Any] = {}
    secret: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(channel).items():
        if name not in SECRETS:
            public[name] = value
            continue
        secret[name] = value
        if name == "url":
            public[name] = shown_url(value)
        elif name == "urls":
            public[name] = [shown_url(one) for one in value]
        else:
            public[f"has_{name}"] = bool(value)
    return public, secret


def _kept(urls: list[str], old: list[str], field: str) -> list[str]:
    """The URLs, with each shortened one (…) replaced by the stored URL that it stands for."""
    waiting, kept = list(old), []
    for place, url in enumerate(urls):
        if not url.endswith("…"):
            kept.append(url)
            continue
        stored = next((one for one in waiting if one and shown_url(one) == url), None)
        if stored is None:
            path = field if field == "url" else f"{field}[{place}]"
            raise Problem.invalid(path, "ends in …, which stands for a stored URL, but no stored URL matches")
        waiting.remove(stored)
        kept.append(stored)
    return kept


def _is_same_account(channel: EmailChannel, before: Channel | None) -> bool:
    """Whether the stored password may be reused: never for another host, which would receive it."""
    if isinstance(before, EmailChannel):
        return (channel.host, smtp_port(channel), channel.security, channel.username) == (
            before.host, smtp_port(before), before.security, before.username,
        )  # fmt: skip
    return False


def joined(public: dict[str, Any], secret: dict[str, Any]) -> Channel:
    """A stored channel with its secrets."""
    values = {name: value for name, value in public.items() if not name.startswith("has_")} | secret
    channel: Channel = msgspec.convert(values, KINDS[values["kind"]])
    return channel
