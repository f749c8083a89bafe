"""REST routes of channels: list, read, set, remove and test them. Secrets are write-only."""

import logging
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

import asyncpg
import msgspec
from litestar import Request, Router, delete, get, post, put

from service.access.identity import Caller
from service.alerts import store
from service.alerts.channels import kinds
from service.alerts.channels.kinds import KINDS, Severity
from service.alerts.channels.message import message
from service.alerts.channels.network import Network
from service.alerts.channels.send import send
from service.alerts.names import AfterName, ChannelId, check_name
from service.clock import Clock
from service.database.audit import by
from service.database.names import storable
from service.database.pool import Database
from service.database.zones import Zones
from service.http.errors import Problem
from service.http.json_body import body_by_kind
from service.http.parameters import Limit
from service.http.problems import problems

log = logging.getLogger("linkbeat")

MAX_BODY_BYTES = 64 << 10
_LIST = """
SELECT channel_id AS id, kind, spec::text, min_severity, sends_resolved, sends_late,
       coalesce(extract(epoch FROM digest)::integer, 10) AS digest_seconds, time_zone, enabled, managed_by
FROM linkbeat.alert_channels
WHERE ($1::text IS NULL OR channel_id = $1) AND channel_id > $2 ORDER BY channel_id LIMIT $3
"""
_TESTED = "linkbeat.audit('alert-channel.test', NULL, $1)"
_DELETE = "linkbeat.delete_alert_channel($1) AS is_known"


class AlertChannel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel without its secrets. Fields that its kind does not have are null.

    managed_by  api; file: set by the file in LINKBEAT_ALERTS_FILE, and read-only
    url, urls   scheme, host and port; … stands for the rest. A PUT with it keeps the stored URL
    has_secret  whether messages are signed; has_password: whether a password is stored
    """

    id: str
    kind: Literal["webhook", "email", "alertmanager", "ping", "apprise"]
    managed_by: Literal["api", "file"]
    min_severity: Severity
    sends_resolved: bool
    sends_late: bool
    digest_seconds: int
    time_zone: str
    enabled: bool
    url: str | None = None
    urls: list[str] | None = None
    has_secret: bool | None = None
    host: str | None = None
    port: int | None = None
    security: Literal["starttls", "tls", "none"] | None = None
    sender: str | None = None
    recipients: list[str] | None = None
    username: str | None = None
    has_password: bool | None = None


class AlertChannels(msgspec.Struct, frozen=True):
    """Channels by id; `next` continues after the last of them, null at the end."""

    channels: list[AlertChannel]
    next: str | None


class ChannelTest(msgspec.Struct, frozen=True):
    """The result of a test message.

    status   HTTP status or SMTP reply code of the receiver; null: it did not respond
    error    why the message was not delivered; null: it was
    """

    is_delivered: bool
    status: int | None
    error: str | None


def router(database: Database, writing: Database, zones: Zones, network: Network, clock: Clock) -> Router:
    """/alert-channels."""

    async def stored(channel_id: str) -> AlertChannel:
        rows = await database.fetch(_LIST, storable(channel_id), "", 1)
        if not rows:
            raise unknown(channel_id)
        return _channel(rows[0])

    @get("/", summary="List alert channels", responses=problems(401, 422, 503))
    async def list_channels(limit: Limit = 100, after: AfterName = "") -> AlertChannels:
        rows = await database.fetch(_LIST, None, storable(after), limit + 1)
        found = [_channel(row) for row in rows[:limit]]
        return AlertChannels(found, found[-1].id if len(rows) > limit else None)

    @get("/{channel_id:str}", summary="A channel", responses=problems(401, 404, 503))
    async def get_channel(channel_id: ChannelId) -> AlertChannel:
        return await stored(channel_id)

    @put("/{channel_id:str}", summary="Set a channel", responses=problems(400, 401, 408, 409, 413, 415, 422, 503))
    async def put_channel(channel_id: ChannelId, request: Request[Any, Caller, Any]) -> AlertChannel:
        """Creates or replaces the channel. A secret that is omitted or null keeps its stored value."""
        channel = await body_by_kind(request, KINDS, MAX_BODY_BYTES)
        check_name(channel_id)
        await zones.check(channel.time_zone)
        before, managed_by = await store.stored_channel(writing.fetch, channel_id)
        store.check_writable(managed_by, channel_id)
        channel = kinds.completed(channel, before)
        kinds.check(channel, allows_private=network.allows_private)
        await store.set_channel(by(writing.fetch, request.auth.actor), channel_id, channel, "api")
        log.info("alert channel %s set by %s from %s", channel_id, request.auth.name, request.auth.peer)
        return await stored(channel_id)

    @delete("/{channel_id:str}", summary="Remove a channel", responses=problems(401, 404, 409, 503))
    async def delete_channel(channel_id: ChannelId, request: Request[Any, Caller, Any]) -> None:
        """Also deletes its undelivered messages."""
        known = storable(channel_id)
        _, managed_by = await store.stored_channel(writing.fetch, known)
        store.check_writable(managed_by, channel_id)
        (row,) = await by(writing.fetch, request.auth.actor)(_DELETE, known)
        if not row["is_known"]:
            raise unknown(channel_id)
        log.info("alert channel %s removed by %s from %s", known[:100], request.auth.name, request.auth.peer)

    @post("/{channel_id:str}/test", status_code=200, summary="Send a test message", responses=problems(401, 404, 503))
    async def test_channel(channel_id: ChannelId, request: Request[Any, Caller, Any]) -> ChannelTest:
        """Sends one message immediately, whatever the channel's severity. Returns 200 even if it is not delivered."""
        channel, _ = await store.stored_channel(writing.fetch, storable(channel_id))
        if channel is None:
            raise unknown(channel_id)
        # First: a message that is sent while the database fails would be missing in the log.
        await by(writing.fetch, request.auth.actor)(_TESTED, channel_id)
        now = clock.now()
        outcome = await send(network, channel, message(_test_payload(now), now), now)
        return ChannelTest(outcome.is_delivered, outcome.status, outcome.error or None)

    handlers = [list_channels, get_channel, put_channel, delete_channel, test_channel]
    return Router("/alert-channels", route_handlers=handlers, tags=["alerts"])


def unknown(channel_id: str) -> Problem:
    """404 for an unknown channel."""
    return Problem("not_found", f"there is no channel {channel_id!r}")


def _channel(row: asyncpg.Record) -> AlertChannel:
    """A row of _LIST."""
    values = dict(row)
    values |= msgspec.json.decode(values.pop("spec"))
    if values["kind"] == "email":
        values["port"] = values.get("port") or kinds.DEFAULT_PORTS[values["security"]]
    channel: AlertChannel = msgspec.convert(values, AlertChannel)
    return channel


def _test_payload(now: datetime) -> str:
    """A payload as in the outbox. Its alert is already resolved, so that no receiver waits for its end."""
    episode = str(uuid4())
    return store.json_of({
        "id": f"{episode}.1", "episode": episode, "state": "resolved", "rule": "test", "severity": "info",
        "server_id": None, "subject": "", "value": None, "peak": None, "since": now, "until": now,
        "reason": "a test of this channel", "is_test": True, "count": 1,
    })  # fmt: skip
