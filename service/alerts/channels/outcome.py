"""How an attempt to deliver ended."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 86_400.0


@dataclass(frozen=True)
class Outcome:
    """`error` is "" where the receiver took the message.

    status               the receiver's: of HTTP, or SMTP's reply code; None: it did not answer
    error                what went wrong, without the channel's secrets
    retry_after_seconds  how long the receiver asks to be left alone
    """

    status: int | None = None
    error: str = ""
    retry_after_seconds: float | None = None

    @property
    def is_delivered(self) -> bool:
        return not self.error


def retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date, at most a day; None for anything else."""
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
