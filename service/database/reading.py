"""From where the reads of one request may be answered, and how old what they found may be."""

import time
from collections.abc import Iterable
from contextvars import ContextVar


class Reading:
    """One request's reads.

    may_lag   whether a replica will do
    servers   that the request names: what this process has just stored of them must be there
    as_of     all that was acknowledged by then is in the response, by the monotonic clock; None: nothing was read
    """

    __slots__ = ("as_of", "may_lag", "servers")

    def __init__(self, *, may_lag: bool, servers: Iterable[str] = ()) -> None:
        self.may_lag = may_lag
        self.servers = frozenset(servers)
        self.as_of: float | None = None

    def note(self, as_of: float) -> None:
        """Something was read that is as old as this."""
        self.as_of = as_of if self.as_of is None else min(self.as_of, as_of)

    def apart(self) -> "Reading":
        """The same, for a response that several requests wait for."""
        return Reading(may_lag=self.may_lag, servers=self.servers)


# Set by service/access/identity.py where there are replicas; None: the primary is read, and nobody asks how old it is.
reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


def may_lag() -> bool:
    """Whether a replica will do for what is read now."""
    now = reading.get()
    return now is not None and now.may_lag


def wall_time(as_of: float) -> float:
    """The moment in seconds since 1970."""
    return time.time() - (time.monotonic() - as_of)
