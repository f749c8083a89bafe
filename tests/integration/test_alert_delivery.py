"""Delivery: messages of the outbox reach real receivers at least once, in order, with an id and bytes that stay."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from service.alerts import deliver
from service.alerts.channels.network import Network
from service.alerts.deliver import Delivery
from service.alerts.pulse import Pulse
from service.app import create_app
from service.database import roles
from service.database.pool import Database
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.alert_messages import ALL_DELIVERED, retry_now, until, write
from tests.helpers.receivers import HttpReceiver, http_receiver, smtp_receiver
from tests.helpers.support import KEY, Client

pytestmark = pytest.mark.background

INSIDE = Network(allows_private=True)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """No turn comes by itself but the first."""
    values = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return Settings(**values | {"alert_private_addresses": True, "alert_seconds": 300})


@pytest.fixture
async def service(service: Client, database: asyncpg.Connection) -> Client:
    """After the turn with which it begins: that would ping too."""
    async with asyncio.timeout(60):
        has_begun = "SELECT isfinite(evaluated_at) FROM linkbeat.alert_clock"
        while not await database.fetchval(has_begun):  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.05)
    return service


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with http_receiver() as started:
        yield started


@pytest.fixture
async def writing(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, connections=2, role=roles.INGEST) as opened:
        yield opened


async def add_channel(service: Client, channel_id: str, **channel: Any) -> None:
    answer = await service.http.put(f"/api/v1/alert-channels/{channel_id}", json=channel)
    assert answer.status_code == 200, answer.text


async def test_a_message_reaches_its_channel_once_and_is_listed_as_delivered(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver
) -> None:
    await add_channel(service, "ops", kind="webhook", url=receiver.url, secret="k")
    episode = uuid4()

    await write(database, "ops", episode)
    await until(database, ALL_DELIVERED)

    (sent,) = receiver.received
    body = json.loads(sent.body)
    assert (body["id"], body["state"], body["rule"]) == (f"{episode}.1", "firing", "busy")
    assert sent.headers["idempotency-key"] == f"{episode}.1"
    (listed,) = (await service.get("/alert-messages"))["messages"]
    assert (listed["channel"], listed["state"], listed["attempts"], listed["alerts"]) == ("ops", "delivered", 1, 1)
    assert (await service.get("/alert-messages", state="waiting"))["messages"] == []


async def test_what_fails_is_tried_again_with_the_same_bytes_in_order_and_not_before_retry_after(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver
) -> None:
    """A4: the receiver answers 500, and then 200."""
    await add_channel(service, "ops", kind="webhook", url=receiver.url)
    receiver.status, receiver.headers = 503, {"Retry-After": "600"}
    first, second = uuid4(), uuid4()

    await write(database, "ops", first, seconds_ago=31)
    await write(database, "ops", second)
    await until(database, "count(*) = 2 FROM linkbeat.outbox WHERE last_status = 503")

    waits = await database.fetchval("SELECT min(next_attempt_at) - clock_timestamp() FROM linkbeat.outbox")
    assert waits > timedelta(seconds=500)
    (listed, _) = (await service.get("/alert-messages"))["messages"]
    assert (listed["state"], listed["status"], listed["error"]) == ("retrying", 503, "responded with 503")
    receiver.status = 200
    await retry_now(database)
    await until(database, ALL_DELIVERED)
    sent = [(one.headers["idempotency-key"], one.body) for one in receiver.received]
    assert sorted(sent[:2]) == sorted(sent[2:])
    assert {key for key, _ in sent} == {f"{first}.1", f"{second}.1"}


async def test_an_alert_that_ended_while_its_receiver_was_away_is_one_message_with_both_times(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver
) -> None:
    """A5."""
    await add_channel(service, "ops", kind="webhook", url=receiver.url)
    receiver.status = 500
    episode = uuid4()
    await write(database, "ops", episode)
    await until(database, "count(*) = 1 FROM linkbeat.outbox WHERE last_status = 500 AND lease_until IS NULL")
    await database.execute("UPDATE linkbeat.outbox SET next_attempt_at = 'infinity'")
    await write(database, "ops", episode, transition="resolved", sequence=2)
    receiver.received.clear()
    receiver.status = 200
    await retry_now(database)
    await until(database, ALL_DELIVERED)

    (sent,) = receiver.received
    body = json.loads(sent.body)
    assert (body["id"], body["state"], body["was_untold"]) == (f"{episode}.2", "resolved", True)
    assert body["since"] < body["until"]


async def test_ten_thousand_alerts_of_a_turn_are_one_message_of_16_kib_at_most(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver
) -> None:
    """A23."""
    await add_channel(service, "ops", kind="webhook", url=receiver.url)

    await write(database, "ops", *[uuid4() for _ in range(10_000)], reason="r" * 300)
    await until(database, ALL_DELIVERED)

    (sent,) = receiver.received
    body = json.loads(sent.body)
    assert len(sent.body) <= 16 << 10
    assert (body["count"], body["counts"]) == (10_000, {"firing": 10_000})
    assert 1 <= len(body["alerts"]) <= 20
    assert body["id"] == sent.headers["idempotency-key"]


async def test_several_processes_deliver_each_message_once(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver, writing: Database
) -> None:
    await add_channel(service, "ops", kind="webhook", url=receiver.url)
    episodes = [uuid4() for _ in range(40)]
    for place, episode in enumerate(episodes):
        await write(database, "ops", episode, seconds_ago=1_000 - 20 * place)
        assert await database.fetchval("SELECT count(*) FROM linkbeat.outbox") == place + 1

    async with (
        Delivery(writing, INSIDE, lambda: True),
        Delivery(writing, INSIDE, lambda: True),
        Delivery(writing, INSIDE, lambda: True),
    ):
        await until(database, ALL_DELIVERED)

    keys = sorted(one.headers["idempotency-key"] for one in receiver.received)
    assert keys == sorted(f"{one}.1" for one in episodes)


async def test_the_end_of_the_service_waits_for_what_is_being_sent(
    database_url: str,
    settings: Settings,
    database: asyncpg.Connection,
    receiver: HttpReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert deliver.DRAIN_SECONDS > 0.5
    monkeypatch.setattr(deliver, "DRAIN_SECONDS", 60.0)  # a machine that stands still meanwhile does not use it up
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as service:
        await add_channel(service, "ops", kind="webhook", url=receiver.url)
        receiver.hold.clear()
        await write(database, "ops", uuid4())
        await receiver.until(1)
        asyncio.get_running_loop().call_later(0.5, receiver.hold.set)

    assert len(receiver.received) == 1
    assert await database.fetchval(f"SELECT {ALL_DELIVERED}")


async def test_what_cannot_end_in_time_is_left_to_the_next_process(
    database_url: str,
    settings: Settings,
    database: asyncpg.Connection,
    receiver: HttpReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliver, "DRAIN_SECONDS", 0.2)
    receiver.hold.clear()
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as service:
        await add_channel(service, "ops", kind="webhook", url=receiver.url)
        await write(database, "ops", uuid4())
        await receiver.until(1)
    assert not await database.fetchval(f"SELECT {ALL_DELIVERED}")
    receiver.hold.set()
    await database.execute("UPDATE linkbeat.outbox SET lease_until = clock_timestamp()")  # a minute passes

    async with in_process(create_app(settings, database_url=database_url, key=KEY)):
        await until(database, ALL_DELIVERED)

    first, second = receiver.received
    assert first == second


async def test_a_channel_whose_receiver_hangs_keeps_no_other_from_being_told(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver
) -> None:
    async with http_receiver() as hanging:
        hanging.hold.clear()
        await add_channel(service, "a", kind="webhook", url=hanging.url)
        await add_channel(service, "b", kind="webhook", url=receiver.url)

        await write(database, "a", uuid4())
        await hanging.until(1)
        await write(database, "b", uuid4())

        await until(database, "delivered_at IS NOT NULL FROM linkbeat.outbox WHERE channel_id = 'b'")
        assert not await database.fetchval("SELECT delivered_at FROM linkbeat.outbox WHERE channel_id = 'a'")


async def test_mail_is_delivered_with_an_id_that_stays(service: Client, database: asyncpg.Connection) -> None:
    async with smtp_receiver() as smtp:
        smtp.replies = {"DATA": "451 later"}
        await add_channel(
            service, "mail", kind="email", host="127.0.0.1", port=smtp.port, security="none",
            sender="linkbeat@example.net", recipients=["ops@example.net"],
        )  # fmt: skip
        episode = uuid4()
        await write(database, "mail", episode)
        for _ in range(4):  # "later" is no reason to give up, as three of HTTP's 4xx are
            await until(database, "last_error IS NOT NULL AND lease_until IS NULL FROM linkbeat.outbox")
            await database.execute("UPDATE linkbeat.outbox SET last_error = NULL")
            await retry_now(database)
        smtp.replies = {}
        await until(database, ALL_DELIVERED)

    (mail,) = smtp.mails
    assert mail.message["Message-ID"] == f"<{episode}.1.linkbeat@example.net>"


async def test_three_answers_that_refuse_are_enough_and_another_channel_is_told(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver
) -> None:
    async with http_receiver() as refusing:
        refusing.status = 404
        await add_channel(service, "a", kind="webhook", url=f"{refusing.url}/s3cret")
        await add_channel(service, "b", kind="webhook", url=receiver.url)
        await write(database, "a", uuid4())
        for attempt in (1, 2, 3):
            await until(database, "attempts >= $1 AND lease_until IS NULL FROM linkbeat.outbox "
                        "WHERE channel_id = 'a'", attempt)  # fmt: skip
            await retry_now(database)
        await receiver.until(1)

    body = json.loads(receiver.received[0].body)
    assert (body["state"], len(refusing.received)) == ("undelivered", 3)
    assert "responded with 404" in body["reason"]
    assert b"s3cret" not in receiver.received[0].body
    dead = await service.get("/alert-messages", channel="a", state="dead")
    assert [one["status"] for one in dead["messages"]] == [404]


async def test_a_test_message_is_sent_at_once_and_says_what_came_of_it(service: Client, receiver: HttpReceiver) -> None:
    await add_channel(service, "ops", kind="webhook", url=f"{receiver.url}/s3cret")

    taken = (await service.http.post("/api/v1/alert-channels/ops/test")).json()
    receiver.status = 403
    refused = (await service.http.post("/api/v1/alert-channels/ops/test")).json()

    assert taken == {"is_delivered": True, "status": 200, "error": None}
    assert refused == {"is_delivered": False, "status": 403, "error": "responded with 403"}
    body = json.loads(receiver.received[0].body)
    assert (body["rule"], body["state"], body["is_test"]) == ("test", "resolved", True)


async def test_a_ping_follows_every_turn_and_stops_while_messages_are_not_delivered(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver, writing: Database
) -> None:
    await add_channel(service, "hc", kind="ping", url=receiver.url)
    await add_channel(service, "away", kind="webhook", url="http://127.0.0.1:1/")
    async with Pulse(writing, INSIDE) as pulse:
        await pulse.beat()
        await receiver.until(1)
        await write(database, "away", uuid4())
        await until(database, "last_error IS NOT NULL AND lease_until IS NULL FROM linkbeat.outbox")
        await pulse.beat()
        await receiver.until(2)
        await database.execute("UPDATE linkbeat.outbox SET created_at = created_at - INTERVAL '10 minutes'")
        await pulse.beat()
        await database.execute("UPDATE linkbeat.outbox SET created_at = created_at + INTERVAL '10 minutes'")
        await pulse.beat()
        await receiver.until(3)

    assert [one.method for one in receiver.received] == ["GET", "GET", "GET"]


async def test_every_alertmanager_is_told_of_what_fires_again_and_for_a_while_of_what_ended(
    service: Client, database: asyncpg.Connection, receiver: HttpReceiver, writing: Database
) -> None:
    async with http_receiver() as second:
        await add_channel(service, "am", kind="alertmanager", urls=[receiver.url, second.url])
        fires, ended, old = uuid4(), uuid4(), uuid4()
        await database.execute(
            "INSERT INTO linkbeat.alerts (rule_id, server_id, state, seen_at, active_at, fired_at, episode, sequence, "
            "severity, told_at) VALUES ('silent', 'nas', 'firing', now(), now(), now(), $1, 1, 'critical', now())",
            fires,
        )
        for episode, minutes in ((ended, 14), (old, 16)):
            await database.execute(
                "INSERT INTO linkbeat.alert_events (episode, sequence, rule_id, server_id, subject, severity, "
                "from_state, to_state, at, recorded_at, active_at, cleared_at, is_late, is_told) "
                "SELECT $1, 2, 'silent', 'pi', '', 'critical', 'firing', 'resolved', t, t, t, t, false, true "
                "FROM (SELECT now() - $2 * INTERVAL '1 minute' AS t) x",
                episode, float(minutes),
            )  # fmt: skip

        async with Pulse(writing, INSIDE) as pulse:
            await pulse.beat()
            await receiver.until(1)
            await second.until(1)
            await pulse.beat()  # not again within the minute

        assert len(receiver.received) == len(second.received) == 1
    told = {one["labels"]["episode"]: one for one in json.loads(receiver.received[0].body)}
    assert told.keys() == {str(fires), str(ended)}
    now = datetime.now(UTC)
    assert datetime.fromisoformat(told[str(fires)]["endsAt"]) > now + timedelta(minutes=2)
    assert datetime.fromisoformat(told[str(ended)]["endsAt"]) < now
