"""What a channel sends: a message of the outbox (linkbeat.message_payload), whose bytes stay the same once claimed."""

from datetime import datetime

import msgspec


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a message.

    id         episode.sequence: the same whenever this is delivered again
    state      firing; resolved; closed: it ended for the reason that `reason` gives; undelivered: of another channel's
               message
    subject    interface, mount point or level of a quota; "": the server as a whole
    value      measured by the rule, in the unit of its bound (docs/alerts.md); peak: furthest beyond it
    since      when the condition became true; until: when it ended
    """

    id: str
    state: str
    rule: str | None = None
    episode: str = ""
    severity: str = "warning"
    server_id: str | None = None
    subject: str | None = None
    value: float | None = None
    peak: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    reason: str | None = None
    is_flapping: bool = False
    is_repeated: bool = False
    is_late: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message.

    key         sent as Idempotency-Key: of one alert, its id; of several, the message's own
    body        JSON, as webhooks are sent it
    created_at  when it was begun
    alerts      the most severe first, 20 at most; total: how many there are
    """

    key: str
    body: bytes
    created_at: datetime
    alerts: list[Alert]
    total: int


class _Payload(Alert, frozen=True, kw_only=True):
    count: int = 1
    alerts: list[Alert] = []


_decode = msgspec.json.Decoder(_Payload).decode


def message(payload: str, created_at: datetime) -> Message:
    """A payload of the outbox, as jsonb writes it."""
    whole = _decode(payload)
    return Message(
        key=whole.id, body=payload.encode(), created_at=created_at, alerts=whole.alerts or [whole], total=whole.count
    )
