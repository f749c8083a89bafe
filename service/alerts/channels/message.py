"""What a channel sends: a message of the outbox (linkbeat.message_payload), whose bytes stay the same once claimed."""

from datetime import datetime

import msgspec


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a message.

    id         episode.sequence: the same whenever this is delivered again
    state      firing; resolved; closed: ended for another reason, given in `reason`; undelivered: a message to another
               channel could not be delivered
    subject    interface, mount point or level of a quota; "": the server as a whole
    value      measured by the rule, in the unit of its bound (docs/alerts.md); peak: the value furthest beyond it
    since      when the condition became true; until: when it ended
    note       of its rule, cut to 500 characters; runbook: of its rule, a URL
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
    note: str | None = None
    runbook: str | None = None
    is_flapping: bool = False
    is_repeated: bool = False
    is_late: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message.

    key         sent as Idempotency-Key: the id of the alert, or of the message if it has several alerts
    body        JSON, as sent to webhooks
    created_at  when the first alert was added
    alerts      most severe first, at most 20; total: the number of all alerts
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
    """The message for a payload of the outbox (jsonb as text)."""
    whole = _decode(payload)
    return Message(
        key=whole.id, body=payload.encode(), created_at=created_at, alerts=whole.alerts or [whole], total=whole.count
    )
