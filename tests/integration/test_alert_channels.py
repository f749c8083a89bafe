"""Channels of alerts, each against a real server: what is sent, what its answers mean, and where none may lead."""

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.alerts.channels import alertmanager, http, mail, ping, text, webhook
from service.alerts.channels.kinds import AlertmanagerChannel, EmailChannel, PingChannel, WebhookChannel
from service.alerts.channels.message import Alert, Message
from service.alerts.channels.message import message as parsed
from service.alerts.channels.network import Network, Unreachable, is_public, literal, tls_context
from service.alerts.channels.outcome import retry_after
from tests.helpers.durations import fastest_of
from tests.helpers.receivers import HttpReceiver, certificate, http_receiver, smtp_receiver

AT = datetime(2026, 1, 29, 10, 0, tzinfo=UTC)
INSIDE = Network(allows_private=True)
OUTSIDE = Network(allows_private=False)
EPISODE = "6f1c9a52-7d2e-4c7e-9a55-3f3a0a1f9b10"


def alert(**values: Any) -> dict[str, Any]:
    """As linkbeat.alert_json writes it."""
    return {
        "id": f"{EPISODE}.1", "episode": EPISODE, "state": "firing", "rule": "busy", "severity": "critical",
        "server_id": "nas", "subject": "eth0", "value": 9e8, "peak": 9.5e8, "since": "2026-01-29T10:00:00+00:00",
        "until": None, "reason": None,
    } | values  # fmt: skip


def message(*alerts: dict[str, Any], total: int = 1, key: str = "") -> Message:
    """As linkbeat.message_payload puts it together."""
    payload = (alerts or (alert(),))[0] | {"count": total, "message_id": EPISODE}
    if total > 1:
        payload |= {"id": key, "alerts": list(alerts)}
    return parsed(json.dumps(payload), AT)


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with http_receiver() as started:
        yield started


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server's context whose certificate is trusted here, for the name localhost."""
    cert, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    tls_context.cache_clear()
    yield context
    tls_context.cache_clear()


async def test_a_webhook_is_sent_the_alert_signed_and_byte_for_byte_the_same_again(receiver: HttpReceiver) -> None:
    channel = WebhookChannel(kind="webhook", url=f"{receiver.url}?to=ops", secret="key of the signature")

    outcomes = [await webhook.send(INSIDE, channel, message()) for _ in range(2)]

    assert [(one.status, one.error) for one in outcomes] == [(200, ""), (200, "")]
    first, second = receiver.received
    assert first == second
    assert (first.method, first.target) == ("POST", "/hook?to=ops")
    body = json.loads(first.body)
    assert body["id"] == first.headers["idempotency-key"] == f"{EPISODE}.1"
    assert (body["state"], body["rule"], body["server_id"], body["subject"]) == ("firing", "busy", "nas", "eth0")
    assert (body["value"], body["since"]) == (9e8, "2026-01-29T10:00:00+00:00")
    expected = hmac.new(b"key of the signature", first.body, sha256).hexdigest()
    assert first.headers["x-linkbeat-signature"] == f"sha256={expected}"


async def test_a_webhook_without_a_secret_is_not_signed_and_a_login_in_its_url_is_basic(receiver: HttpReceiver) -> None:
    url = receiver.url.replace("http://", "http://ops:p%40ss@")

    await webhook.send(INSIDE, WebhookChannel(kind="webhook", url=url), message())

    (sent,) = receiver.received
    assert "x-linkbeat-signature" not in sent.headers
    assert sent.headers["authorization"] == "Basic b3BzOnBAc3M="
    assert sent.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (204, {}, (204, "", None)),
        (400, {}, (400, "responded with 400", None)),
        (429, {"Retry-After": "120"}, (429, "responded with 429", 120.0)),
        (503, {"Retry-After": "9999999999999"}, (503, "responded with 503", 86_400.0)),
        (500, {"Retry-After": "soon"}, (500, "responded with 500", None)),
    ],
)
async def test_an_answer_that_is_not_2xx_is_a_failure_with_its_status(
    receiver: HttpReceiver, status: int, headers: dict[str, str], expected: tuple[int, str, float | None]
) -> None:
    receiver.status, receiver.headers = status, headers

    outcome = await webhook.send(INSIDE, WebhookChannel(kind="webhook", url=receiver.url), message())

    assert (outcome.status, outcome.error, outcome.retry_after_seconds) == expected


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert retry_after("Thu, 29 Jan 2125 10:00:00 GMT") == 86_400
    assert [retry_after(one) for one in ("", "-1", "1.5", "٣", "1e9")] == [None] * 5
    assert retry_after(" 7 ") == 7


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(receiver: HttpReceiver, status: int) -> None:
    async with http_receiver() as inside:
        receiver.status, receiver.headers = status, {"Location": inside.url}

        outcome = await webhook.send(INSIDE, WebhookChannel(kind="webhook", url=receiver.url), message())

        assert inside.received == []
    assert outcome.status == status
    assert "redirects are not followed" in outcome.error
    assert inside.url not in outcome.error


async def test_a_receiver_that_never_answers_ends_at_the_deadline(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "DEADLINE_SECONDS", 0.3)
    receiver.hold.clear()

    outcome = await webhook.send(INSIDE, WebhookChannel(kind="webhook", url=receiver.url), message())

    assert (outcome.status, outcome.error) == (None, "no response within 0.3 seconds")


@pytest.mark.parametrize(
    "answer", [b"", b"220 mail ESMTP\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300,
               b"HTTP/1.1 200 " + b"x" * 100_000, b"HTTP/1.1 100 Continue\r\n\r\n" * 9],
)  # fmt: skip
async def test_an_answer_that_is_not_http_is_a_failure(answer: bytes) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        outcome = await webhook.send(INSIDE, WebhookChannel(kind="webhook", url=url), message())

    assert outcome.status is None
    assert outcome.error


async def test_https_checks_the_certificate_by_the_channels_host(trusted: Any) -> None:
    async with http_receiver(context=trusted) as receiver:
        by_name = await webhook.send(INSIDE, WebhookChannel(kind="webhook", url=receiver.url), message())
        other = receiver.url.replace("localhost", "127.0.0.1")
        by_address = await webhook.send(INSIDE, WebhookChannel(kind="webhook", url=other), message())

    assert (by_name.status, by_name.error) == (200, "")
    assert "certificate is not valid" in by_address.error
    assert len(receiver.received) == 1


# What leads to this machine or into the network, however it is written.
INWARDS = [
    "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "[::1]", "[::]",  # noqa: S104 - nothing listens there
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "10.0.0.1",
    "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fc00::1]", "[fec0::1]", "224.0.0.1",
    "255.255.255.255", "[ff02::1]", "[64:ff9b::a00:1]",
]  # fmt: skip


@pytest.mark.parametrize("host", INWARDS)
async def test_an_address_inside_the_network_is_not_connected_to(
    host: str, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    monkeypatch.setattr(asyncio, "open_connection", lambda *arguments, **_: connected.append(arguments))

    outcome = await webhook.send(
        OUTSIDE, WebhookChannel(kind="webhook", url=f"http://{host}:{receiver.port}/"), message()
    )

    assert "LINKBEAT_ALERT_PRIVATE_ADDRESSES=true" in outcome.error or "cannot be resolved" in outcome.error
    assert (connected, receiver.received) == ([], [])
    assert literal(host) is None or not is_public(literal(host))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(host: str) -> None:
    address = literal(host)

    assert address is not None
    assert is_public(address)


async def test_a_name_is_resolved_once_and_its_public_addresses_alone_are_connected_to(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS that answers with a public address first and with a private one the next time (rebinding), or with both."""
    asked: list[str] = []
    connected: list[str] = []

    async def resolve(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        asked.append(host)
        found = ["127.0.0.1", "203.0.114.7"] if len(asked) == 1 else ["127.0.0.1"]
        return [(2, 1, 6, "", (one, port)) for one in found]

    async def connect(host: str, _: int, **__: Any) -> Any:
        connected.append(host)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", resolve)
    monkeypatch.setattr(asyncio, "open_connection", connect)
    channel = WebhookChannel(kind="webhook", url=f"http://rebinding.example:{receiver.port}/")

    outcomes = [await webhook.send(OUTSIDE, channel, message()) for _ in range(2)]

    assert connected == ["203.0.114.7"]
    assert asked == ["rebinding.example"] * 2
    assert "Connection refused" in outcomes[0].error
    assert "inside the network" in outcomes[1].error


async def test_mail_and_pings_keep_out_of_the_network_as_webhooks_do(receiver: HttpReceiver) -> None:
    async with smtp_receiver() as smtp:
        mailed = await mail.send(OUTSIDE, email(smtp.port), message())
        pinged = await ping.send(OUTSIDE, PingChannel(kind="ping", url=receiver.url))
        managed = await alertmanager.send(
            OUTSIDE, AlertmanagerChannel(kind="alertmanager", urls=[receiver.url]), [posted()], AT
        )

        assert all("inside the network" in one.error for one in (mailed, pinged, managed))
        assert (smtp.mails, receiver.received) == ([], [])


async def test_a_ping_is_a_get(receiver: HttpReceiver) -> None:
    outcome = await ping.send(INSIDE, PingChannel(kind="ping", url=receiver.url))

    assert outcome.is_delivered
    assert [(one.method, one.body) for one in receiver.received] == [("GET", b"")]


def email(port: int, **values: Any) -> EmailChannel:
    given: dict[str, Any] = {
        "kind": "email",
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "linkbeat@example.net",
    }
    return EmailChannel(**given | {"recipients": ["ops@example.net", "Boss.Two@example.org"]} | values)


async def test_a_mail_says_what_happened_and_has_the_same_bytes_and_id_again() -> None:
    async with smtp_receiver() as smtp:
        outcomes = [
            await mail.send(
                INSIDE, email(smtp.port, time_zone="Europe/Berlin"), message(alert(reason="Ärger am Switch"))
            )
            for _ in range(2)
        ]

    assert [(one.status, one.error) for one in outcomes] == [(250, "")] * 2
    first, second = smtp.mails
    assert first.data == second.data
    assert (first.sender, first.recipients) == ("linkbeat@example.net", ["ops@example.net", "Boss.Two@example.org"])
    assert first.message["Message-ID"] == f"<{EPISODE}.1.linkbeat@example.net>"
    assert first.message["Subject"] == "[firing, critical] busy on nas eth0"
    body = first.message.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert "from 2026-01-29 11:00:00 CET" in body.decode()
    assert "value 900,000,000, peak 950,000,000" in body.decode()
    assert "Ärger am Switch" in body.decode()


def test_the_text_has_the_note_and_the_runbook_of_a_rule_once() -> None:
    busy = alert(note="Call the network team.", runbook="https://wiki.example.net/busy")
    other = alert(rule="down", note="Pull the plug.", runbook=None)

    body = text.text(message(busy, busy, other, total=3), "UTC")

    assert body.count("Call the network team.\nhttps://wiki.example.net/busy\n") == 1
    assert body.endswith("UTC\nPull the plug.\n")


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_is_encrypted_and_logs_in(trusted: Any, security: str) -> None:
    async with smtp_receiver(trusted, is_tls=security == "tls") as smtp:
        smtp.password = "the password of mail"
        channel = email(smtp.port, host="localhost", security=security, username="ops", password=smtp.password)

        outcome = await mail.send(INSIDE, channel, message())

        assert (outcome.status, outcome.error) == (250, "")
        assert [(one.login, one.is_encrypted) for one in smtp.mails] == [("ops", True)]


async def test_mail_is_not_sent_in_clear_where_starttls_is_asked_for() -> None:
    async with smtp_receiver() as smtp:
        outcome = await mail.send(INSIDE, email(smtp.port, security="starttls"), message())

    assert outcome.error == "127.0.0.1 does not offer STARTTLS"
    assert smtp.mails == []


async def test_a_refused_login_is_told_without_the_password(trusted: Any) -> None:
    """The server's own words repeat it."""
    async with smtp_receiver(trusted) as smtp:
        smtp.password = "another one"
        channel = email(smtp.port, host="localhost", security="starttls", username="ops", password="wrong-s3cret")

        outcome = await mail.send(INSIDE, channel, message())

    assert (outcome.status, outcome.error) == (535, "localhost refused the login")


@pytest.mark.parametrize(
    ("replies", "status"),
    [
        ({"CONNECT": "421 busy"}, 421),
        ({"MAIL": "451 later"}, 451),
        ({"RCPT": "550 nobody"}, 550),
        ({"DATA": "554 no"}, 554),
    ],
)
async def test_what_a_mail_server_refuses_is_told_with_its_code(replies: dict[str, str], status: int) -> None:
    async with smtp_receiver() as smtp:
        smtp.replies = replies

        outcome = await mail.send(INSIDE, email(smtp.port), message())

    assert outcome.status == status
    assert str(status) in outcome.error


async def test_a_mail_server_that_hangs_ends_at_the_deadline_and_its_thread_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mail, "DEADLINE_SECONDS", 1.0)
    ended = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(200):  # one byte now and then, which a limit of each read alone would let go on
            writer.write(b"2")
            await asyncio.sleep(0.05)
            if reader.at_eof():
                break
        ended.set()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        outcomes = []

        async def send() -> None:
            outcomes.append(await mail.send(INSIDE, email(server.sockets[0].getsockname()[1]), message()))

        assert await fastest_of(send, within=5) < 5
        assert {outcome.error for outcome in outcomes} == {"no response within 1 seconds"}
        await asyncio.wait_for(ended.wait(), 60)


def posted(**values: Any) -> Alert:
    return msgspec.convert(alert(**values), Alert)


async def test_every_alertmanager_is_told_and_one_that_is_away_keeps_nobody(receiver: HttpReceiver) -> None:
    async with http_receiver() as second:
        away = "http://127.0.0.1:1"
        channel = AlertmanagerChannel(kind="alertmanager", urls=[away, receiver.url, f"{second.url}/"])
        over = posted(id=f"{EPISODE}.2", state="resolved", until=AT.isoformat(), subject="")
        explained = posted(note="Call the network team.", runbook="https://wiki.example.net/busy")

        outcome = await alertmanager.send(INSIDE, channel, [explained, over], AT)

        assert outcome.is_delivered
        assert receiver.received[0].body == second.received[0].body
    (sent,) = receiver.received
    assert sent.target == "/hook/api/v2/alerts"
    firing, resolved = json.loads(sent.body)
    assert firing["labels"] == {
        "alertname": "busy", "severity": "critical", "server_id": "nas", "subject": "eth0",
        "episode": EPISODE,
    }  # fmt: skip
    assert firing["annotations"] == {
        "value": "900000000",
        "description": "Call the network team.",
        "runbook_url": "https://wiki.example.net/busy",
    }
    assert resolved["annotations"] == {"value": "900000000"}
    assert (firing["startsAt"], firing["endsAt"]) == ("2026-01-29T10:00:00Z", "2026-01-29T10:04:00Z")
    assert (resolved["endsAt"], resolved["labels"]["episode"]) == ("2026-01-29T10:00:00Z", EPISODE)


async def test_no_alertmanager_that_takes_it_is_a_failure() -> None:
    channel = AlertmanagerChannel(kind="alertmanager", urls=["http://127.0.0.1:1", "http://127.0.0.1:2"])

    outcome = await alertmanager.send(INSIDE, channel, [posted()], AT)

    assert "Connection refused" in outcome.error or "Connect call failed" in outcome.error


async def test_a_name_that_is_not_known_is_told() -> None:
    with pytest.raises(Unreachable, match=r"^nowhere\.invalid cannot be resolved"):
        await Network(allows_private=False).addresses("nowhere.invalid", 80)
