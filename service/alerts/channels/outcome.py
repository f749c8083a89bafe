"""The result of a delivery attempt."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 86_400.0


@dataclass(frozen=True)
class Outcome:
    """`error` is "" if the receiver accepted the message.

    status               HTTP status or SMTP reply code of the receiver; None: it did not respond
    error                what failed, without the secrets of the channel
    retry_after_seconds  the Retry-After of the receiver
    """

    status: int | None = None
    error: str = ""
    retry_after_seconds: float | None = None

    @property
    def is_delivered(self) -> bool:
        return not self.error


def retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header, a number or a date, at most a day; None for anything else."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), MAX_RETRY_AFTER_SECONDS)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max(0.0, (until - datetime.now(UTC)).total_seconds()), MAX_RETRY_AFTER_SECONDS)
