"""Where the reads of a request may be executed, and how old their results may be."""

import time
from collections.abc import Iterable
from contextvars import ContextVar


class Reading:
    """The reads of one request.

    may_lag   whether a replica may answer
    servers   named in the request: a replica must have everything that this process has stored of them
    as_of     the response contains everything acknowledged by this time (monotonic clock); None: nothing was read
    """

    __slots__ = ("as_of", "may_lag", "servers")

    def __init__(self, *, may_lag: bool, servers: Iterable[str] = ()) -> None:
        self.may_lag = may_lag
        self.servers = frozenset(servers)
        self.as_of: float | None = None

    def note(self, as_of: float) -> None:
        """Records that a read returned data as of this time."""
        self.as_of = as_of if self.as_of is None else min(self.as_of, as_of)

    def apart(self) -> "Reading":
        """A copy without as_of, for a response that several requests wait for."""
        return Reading(may_lag=self.may_lag, servers=self.servers)


# Set by service/access/identity.py if there are replicas; None: reads go to the primary and their age is not recorded.
reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


def may_lag() -> bool:
    """Whether a replica may answer the current reads."""
    now = reading.get()
    return now is not None and now.may_lag


def wall_time(as_of: float) -> float:
    """The time in seconds since 1970."""
    return time.time() - (time.monotonic() - as_of)
