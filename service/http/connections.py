"""The connections of this process: how many there may be, of one address and in all, and what clients leave unread."""

import resource
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from service.http.limits import Peers

# Kept free for the database's connections, the log and files: a service that cannot reach its database is useless.
RESERVED_DESCRIPTORS = 128
MOST_CONNECTIONS = 16_384
CLOSED_AT_ONCE = 16

UNREAD_SECONDS = 30.0
UNREAD_LEAST_BYTES = 64 << 10  # that a client takes within them, or is gone
ALL_UNREAD_BYTES = 64 << 20


class Connection(Protocol):
    """What is asked of one."""

    @property
    def is_idle(self) -> bool:
        """No request of it is being worked on, and nothing of an answer waits to be sent."""

    def close_idle(self) -> None: ...

    def abort(self) -> None: ...


class Connections:
    """Who is connected.

    per_address  connections of one address; trusted proxies have no such bound
    most         all together
    """

    def __init__(self, per_address: int, peers: Peers, most: int) -> None:
        self._per_address = per_address
        self._peers = peers
        self._most = max(most, 1)
        self._count = 0
        # In the order of their beginning; an idle client that makes room is the oldest of its address.
        self._of: dict[str, dict[Connection, None]] = {}
        self._unread: dict[Connection, int] = {}
        self._unread_bytes = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Connection, host: str) -> bool:
        """Whether it may stay; an idle one of its address, or of the address that has the most, is closed for it."""
        address, is_proxy = self._peers.connected(host)
        own = self._of.setdefault(address, {})
        may_stay = True
        if len(own) >= self._per_address and not is_proxy:
            may_stay = _close_idle(own, 1)
        if may_stay and self._count >= self._most:
            most = max(self._of, key=lambda one: len(self._of[one]))
            may_stay = _close_idle(self._of[most], CLOSED_AT_ONCE)
        own[connection] = None
        self._count += 1
        return may_stay

    def remove(self, connection: Connection, host: str) -> None:
        address, _ = self._peers.connected(host)
        own = self._of.get(address, {})
        if connection in own:
            del own[connection]
            self._count -= 1
            if not own:
                del self._of[address]
        self.is_read(connection)

    def is_unread(self, connection: Connection, size_bytes: int) -> None:
        """So much of its answers waits to be sent. Past ALL_UNREAD_BYTES, whoever has waited the longest is dropped."""
        self._unread_bytes += size_bytes - self._unread.pop(connection, 0)
        self._unread[connection] = size_bytes
        while self._unread_bytes > ALL_UNREAD_BYTES and len(self._unread) > 1:
            oldest = next(iter(self._unread))
            self.is_read(oldest)
            oldest.abort()

    def is_read(self, connection: Connection) -> None:
        self._unread_bytes -= self._unread.pop(connection, 0)


def _close_idle(connections: Iterable[Connection], most: int) -> bool:
    """Closes so many of those that are idle; whether there were any."""
    idle: Iterator[Connection] = (one for one in list(connections) if one.is_idle)
    was_any = False
    for one in islice(idle, most):
        one.close_idle()
        was_any = True
    return was_any


def raise_descriptor_limit() -> int:
    """Takes all the descriptors that the process may have; how many connections fit into them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # a hard limit above what the kernel gives a process: what there was stays
    known = MOST_CONNECTIONS + RESERVED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return min(MOST_CONNECTIONS, max(known - RESERVED_DESCRIPTORS, known // 2))
