"""Current alerts, their history, and their messages."""

import logging
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
import msgspec
from litestar import Request, Router, get, post
from litestar.params import PathParameter, QueryParameter

from service.access.identity import Caller
from service.alerts.channels.kinds import Severity
from service.database.audit import by
from service.database.names import storable
from service.database.pool import Database
from service.http import cursor
from service.http.errors import Problem
from service.http.parameters import After, Limit, ServerFilter
from service.http.problems import problems

log = logging.getLogger("linkbeat")

# docs/sql.md describes the columns of the views.
_ALERTS = """
SELECT a.rule_id AS rule, r.kind, a.severity, a.server_id, a.subject, a.state, a.active_at AS since, a.fired_at,
       a.cleared_at, a.value, a.peak, a.reason, a.held, a.episode::text, a.told_at,
       linkbeat.is_muted(a.rule_id, a.server_id, now()) AS is_muted, a.acknowledged_at, a.acknowledged_by
FROM alerts a LEFT JOIN alert_rules r USING (rule_id)
WHERE ($1::text IS NULL OR a.server_id = $1) AND ($2::text IS NULL OR a.rule_id = $2)
  AND ($3::text IS NULL OR a.state = $3) AND ($4::text IS NULL OR a.severity = $4)
  AND ($5::text IS NULL OR a.episode = $5::text::uuid)
  AND ($6::text IS NULL OR (a.server_id, a.rule_id, a.subject) > ($6, $7, $8))
ORDER BY a.server_id, a.rule_id, a.subject LIMIT $9
"""
_EVENTS = """
SELECT event_id, episode::text, sequence, rule_id AS rule, server_id, subject, severity, from_state AS "from",
       to_state AS "to", at, recorded_at, active_at AS since, cleared_at, value, peak, reason, is_late
FROM alert_events
WHERE ($1::text IS NULL OR server_id = $1) AND ($2::text IS NULL OR rule_id = $2)
  AND ($3::text IS NULL OR episode = $3::text::uuid) AND ($4::bigint IS NULL OR event_id < $4)
ORDER BY event_id DESC LIMIT $5
"""
_MESSAGES = """
SELECT message_id::text AS id, channel_id AS channel, kind, state, created_at, next_attempt_at, attempts, delivered_at,
       dead_at, last_status AS status, last_error AS error, alerts
FROM alert_messages
WHERE ($1::text IS NULL OR channel_id = $1) AND ($2::text IS NULL OR state = $2)
  AND ($3::timestamptz IS NULL OR (created_at, message_id) < ($3, $4::text::uuid))
ORDER BY created_at DESC, message_id DESC LIMIT $5
"""
_ACKNOWLEDGE = "linkbeat.acknowledge_alert(of_episode => $1::text::uuid, by_name => $2) AS is_firing"

RuleFilter = Annotated[str | None, QueryParameter(description="Only this rule.", max_length=100)]
EpisodeFilter = Annotated[str | None, QueryParameter(description="Only this episode.", max_length=36)]
Cursor = Annotated[
    str | None,
    QueryParameter(description="`next` of the previous page; all other parameters must be unchanged.", max_length=400),
]


# Litestar reserves the name `state`.
AlertStateFilter = Annotated[
    Literal["pending", "firing"] | None, QueryParameter(description="Only of this state.", name="state")
]
MessageState = Literal["waiting", "retrying", "delivered", "dead"]
MessageStateFilter = Annotated[MessageState | None, QueryParameter(description="Only of this state.", name="state")]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A subject for which the condition of a rule holds.

    subject    interface, mount point or level of a quota; "": the server
    state      pending: it has held for less than for_seconds; firing
    since      when it became true, by the time of the data; fired_at: when it had held for for_seconds
    cleared_at when it stopped holding, if that was less than keep_seconds ago
    value      the newest, in the unit of the bound of the rule; peak: the value furthest beyond it
    held       whether the state is frozen because data is missing
    told_at    when the last message about it was written
    is_muted   whether a mute currently suppresses its messages
    """

    rule: str
    kind: str | None
    severity: Severity | None
    server_id: str
    subject: str
    state: Literal["pending", "firing"]
    since: datetime | None
    fired_at: datetime | None
    cleared_at: datetime | None
    value: float | None
    peak: float | None
    reason: str | None
    held: bool
    episode: str | None
    told_at: datetime | None
    is_muted: bool
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class Alerts(msgspec.Struct, frozen=True):
    """Alerts by server, rule and subject; `next` continues after the last of them, null at the end."""

    alerts: list[Alert]
    next: str | None


class AlertEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that fired or ended.

    from, to     states: ok, pending, firing; firing, resolved, closed (ended for the given reason)
    at           when it happened, by the time of the data; recorded_at: when an evaluation detected it
    since        when the condition became true; cleared_at: when it stopped holding, if the alert ended
    is_late      detected in replayed data, long after it happened
    """

    id: int
    episode: str
    sequence: int
    rule: str
    server_id: str
    subject: str
    severity: Severity | None
    from_: str = msgspec.field(name="from")
    to: str
    at: datetime
    recorded_at: datetime
    since: datetime
    cleared_at: datetime | None
    value: float | None
    peak: float | None
    reason: str | None
    is_late: bool


class AlertEvents(msgspec.Struct, frozen=True):
    """Events, newest first; `next` is the `cursor` of the next page, null at the end."""

    events: list[AlertEvent]
    next: str | None


class AlertMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to a channel.

    kind             alerts; fleet: most servers are silent; dead_letter: a message to another channel was abandoned
    state            waiting for its first attempt; retrying; delivered; dead: abandoned
    next_attempt_at  earliest time of the next attempt
    attempts         attempts that were started
    status, error    of the last failed attempt
    alerts           number of alerts in it
    """

    id: str
    channel: str
    kind: str
    state: MessageState
    created_at: datetime
    next_attempt_at: datetime
    attempts: int
    delivered_at: datetime | None
    dead_at: datetime | None
    status: int | None
    error: str | None
    alerts: int


class AlertMessages(msgspec.Struct, frozen=True):
    """Messages, newest first; `next` continues after the last of them, null at the end."""

    messages: list[AlertMessage]
    next: str | None


def router(database: Database, writing: Database) -> Router:
    """/alerts, /alerts/events, /alerts/{episode}/acknowledge and /alert-messages."""

    @get("/alerts", summary="Current alerts", responses=problems(401, 422, 503))
    async def list_alerts(
        server: ServerFilter = None,
        rule: RuleFilter = None,
        of_state: AlertStateFilter = None,
        severity: Annotated[Severity | None, QueryParameter(description="Only this severity.")] = None,
        limit: Limit = 100,
        after: After = None,
    ) -> Alerts:
        last = (None, None, None) if after is None else cursor.read(after, tuple[str, str, str])
        rows = await database.fetch(
            _ALERTS, _name(server), _name(rule), of_state, severity, None, *map(_name, last), limit + 1
        )
        found = [_alert(row) for row in rows[:limit]]
        following = cursor.write(found[-1].server_id, found[-1].rule, found[-1].subject) if len(rows) > limit else None
        return Alerts(found, following)

    @get("/alerts/events", summary="History of alerts", responses=problems(401, 422, 503))
    async def list_events(
        server: ServerFilter = None,
        rule: RuleFilter = None,
        episode: EpisodeFilter = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> AlertEvents:
        last = None if cursor is None else _read_cursor(cursor)
        if episode is not None and _uuid(episode) is None:
            return AlertEvents([], None)
        rows = await database.fetch(_EVENTS, _name(server), _name(rule), episode and _uuid(episode), last, limit + 1)
        found = [_event(row) for row in rows[:limit]]
        return AlertEvents(found, _write_cursor(found[-1].id) if len(rows) > limit else None)

    @post(
        "/alerts/{episode:str}/acknowledge",
        status_code=200,
        summary="Acknowledge an alert",
        responses=problems(401, 404, 503),
    )
    async def acknowledge(
        episode: Annotated[str, PathParameter(description="The episode of the alert, as in the list and in messages.")],
        request: Request[Any, Caller, Any],
    ) -> Alert:
        """Stops repeated messages; a message about its end is still sent. Only the first acknowledgement is stored."""
        known = _uuid(episode)
        if known is None:
            raise _unknown(episode)
        (row,) = await by(writing.fetch, request.auth.actor)(_ACKNOWLEDGE, known, request.auth.name)
        rows = await database.fetch(_ALERTS, *[None] * 4, known, None, None, None, 1) if row["is_firing"] else []
        if not rows:
            raise _unknown(episode)
        log.info("alert %s acknowledged by %s from %s", known, request.auth.name, request.auth.peer)
        return _alert(rows[0])

    @get("/alert-messages", summary="Messages and their delivery", responses=problems(401, 422, 503))
    async def list_messages(
        channel: Annotated[
            str | None, QueryParameter(description="Only messages to this channel.", max_length=100)
        ] = None,
        of_state: MessageStateFilter = None,
        limit: Limit = 100,
        after: After = None,
    ) -> AlertMessages:
        at, message_id = (None, None) if after is None else _read_message(after)
        rows = await database.fetch(_MESSAGES, _name(channel), of_state, at, message_id, limit + 1)
        found = [AlertMessage(**dict(row)) for row in rows[:limit]]
        following = cursor.write(found[-1].created_at, found[-1].id) if len(rows) > limit else None
        return AlertMessages(found, following)

    return Router("/", route_handlers=[list_alerts, list_events, acknowledge, list_messages], tags=["alerts"])


def _read_cursor(text: str) -> int:
    (last,) = cursor.read(text, tuple[int], "cursor")
    if not -(2**63) <= last < 2**63:
        raise Problem.invalid("cursor", "is not a `next` of this list")
    return last


def _write_cursor(event_id: int) -> str:
    return cursor.write(event_id)


def _read_message(after: str) -> tuple[datetime, str]:
    at, message_id = cursor.read(after, tuple[datetime, UUID])
    if at.tzinfo is None:
        raise Problem.invalid("after", "is not a `next` of this list")
    return at, str(message_id)


def _name(name: str | None) -> str | None:
    return None if name is None else storable(name)


def _uuid(text: str) -> str | None:
    """The UUID in the form that PostgreSQL accepts; None if the text is not a UUID."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _unknown(episode: str) -> Problem:
    return Problem("not_found", f"no alert with episode {episode!r} is firing")


def _alert(row: asyncpg.Record) -> Alert:
    return Alert(**dict(row))


def _event(row: asyncpg.Record) -> AlertEvent:
    values = dict(row)
    return AlertEvent(id=values.pop("event_id"), from_=values.pop("from"), **values)
