"""Limits the connections of this process: for each address, in total, and by the bytes that clients leave unread."""

import resource
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from service.http.limits import ClientAddress

# Reserved for connections to the database, the log and files: a service that cannot reach its database is useless.
RESERVED_DESCRIPTORS = 128
MOST_CONNECTIONS = 16_384
CLOSED_AT_ONCE = 16

UNREAD_SECONDS = 30.0
UNREAD_LEAST_BYTES = 64 << 10  # a client that reads less than this within UNREAD_SECONDS is disconnected
ALL_UNREAD_BYTES = 64 << 20


class Connection(Protocol):
    """The methods of a connection that Connections needs."""

    @property
    def is_idle(self) -> bool:
        """No request is being processed, and no part of a response waits to be sent."""

    def close_idle(self) -> None: ...

    def abort(self) -> None: ...


class Connections:
    """The open connections.

    per_address  limit for one address; trusted proxies have no limit
    most         limit in total
    """

    def __init__(self, per_address: int, peers: ClientAddress, most: int) -> None:
        self._per_address = per_address
        self._peers = peers
        self._most = max(most, 1)
        self._count = 0
        # In the order in which they were opened: the oldest idle connection of an address is closed first.
        self._of: dict[str, dict[Connection, None]] = {}
        self._unread: dict[Connection, int] = {}
        self._unread_bytes = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Connection, host: str) -> bool:
        """Whether the connection may stay. At a limit, an idle connection of its address, or of the address that has
        the most, is closed for it."""
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
        """Records that `size_bytes` of responses wait to be sent. Above ALL_UNREAD_BYTES, the connection that has
        waited longest is aborted."""
        self._unread_bytes += size_bytes - self._unread.pop(connection, 0)
        self._unread[connection] = size_bytes
        while self._unread_bytes > ALL_UNREAD_BYTES and len(self._unread) > 1:
            oldest = next(iter(self._unread))
            self.is_read(oldest)
            oldest.abort()

    def is_read(self, connection: Connection) -> None:
        self._unread_bytes -= self._unread.pop(connection, 0)


def _close_idle(connections: Iterable[Connection], most: int) -> bool:
    """Closes up to `most` idle connections. Returns whether there were any."""
    idle: Iterator[Connection] = (one for one in list(connections) if one.is_idle)
    was_any = False
    for one in islice(idle, most):
        one.close_idle()
        was_any = True
    return was_any


def raise_descriptor_limit() -> int:
    """Raises the soft limit of descriptors to the hard limit. Returns the number of connections that fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # the hard limit exceeds what the kernel allows a process: the soft limit stays
    known = MOST_CONNECTIONS + RESERVED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return min(MOST_CONNECTIONS, max(known - RESERVED_DESCRIPTORS, known // 2))
