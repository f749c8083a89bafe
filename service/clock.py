"""The clock of the service: one instance, passed to every part that needs it."""

from datetime import UTC, datetime


class Clock:
    """The system's clock. A test that needs a fixed moment replaces `now`."""

    def now(self) -> datetime:
        """The current time in UTC, at which periods, and ranges without an end, end."""
        return datetime.now(UTC)
