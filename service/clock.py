"""The clock that answers go by: one for the whole service, handed to whatever needs it."""

from datetime import UTC, datetime


class Clock:
    """The system's clock. A test that needs a fixed moment replaces `now`."""

    def now(self) -> datetime:
        """This moment, in UTC: where periods and ranges end that name no end."""
        return datetime.now(UTC)
