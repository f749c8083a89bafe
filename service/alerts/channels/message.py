"""What a channel sends: alerts that changed state, as the outbox holds them.

The same row gives the same bytes whenever it is sent: a receiver recognizes a repeated delivery by its id.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

MAX_BYTES = 16 << 10
MAX_NAMED = 20

_encode = msgspec.json.Encoder(order="deterministic").encode


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert.

    id         episode.sequence: the same whenever this is delivered again
    state      firing; resolved; closed: it ended for another reason, which `reason` names
    subject    interface or mount point; null: the server as a whole
    value      what the rule measured, in the unit of its kind (docs/alerts.md)
    since      when the condition became true; until: when it ended
    """

    id: str
    state: Literal["firing", "resolved", "closed", "flapping"]
    rule: str
    kind: str = ""
    severity: str = "warning"
    server_id: str | None = None
    subject: str | None = None
    value: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    reason: str | None = None
    note: str | None = None
    runbook: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the outbox.

    key         of one alert, its id; of several, the message's own
    created_at  when the turn that wrote it ended
    alerts      the first MAX_NAMED; total: how many there are
    """

    key: str
    created_at: datetime
    alerts: list[Alert]
    total: int

    def body(self) -> bytes:
        """JSON, at most MAX_BYTES: of one alert that alert, of several a list of them."""
        if self.total == 1 and len(self.alerts) == 1:
            return _bounded(self.alerts[0])
        named = self.alerts[:MAX_NAMED]
        while True:
            whole: dict[str, Any] = {"id": self.key, "total": self.total, "alerts": named}
            body = _encode(whole)
            if len(body) <= MAX_BYTES or not named:
                return body
            named = named[:-1]


def _bounded(alert: Alert) -> bytes:
    """A note may be longer than a message: it is left out then."""
    body = _encode(alert)
    return body if len(body) <= MAX_BYTES else _encode(msgspec.structs.replace(alert, note=None, runbook=None))
