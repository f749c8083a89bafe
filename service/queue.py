"""Heartbeats that wait for the database: by server, in the order of their arrival."""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from service.batch import Pending

BATCH_HEARTBEATS = 200  # past it a batch's time grows and its rate hardly does
BATCH_SAMPLES = 2_000  # hosts with hundreds of interfaces fill a batch sooner


class Queue:
    """Gives out batches. A batch holds one heartbeat of a server, and a server is in one batch at a time.

    So a server's heartbeats are stored in the order of their arrival, and a machine that replays a day does not keep
    the others waiting.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[str, deque[Pending]] = {}  # whose turn is next stands first
        self._busy: set[str] = set()  # servers of the batches that are given out
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        return self._count >= self._limit

    def put(self, pending: Pending) -> None:
        """Behind the others of its server."""
        waiting = self._waiting.get(pending.heartbeat.server_id)
        if waiting is None:
            self._waiting[pending.heartbeat.server_id] = deque((pending,))
        else:
            waiting.append(pending)
        self._count += 1

    def put_back(self, batch: Iterable[Pending]) -> None:
        """What was taken and not stored: before the others of its server."""
        for pending in batch:
            self._waiting.setdefault(pending.heartbeat.server_id, deque()).appendleft(pending)
            self._count += 1

    def take(self) -> list[Pending]:
        """A batch by server_id: rows are locked in this order, so that two batches cannot wait for each other.

        Its servers are busy until `release`. Empty where nobody waits but for them.
        """
        batch: dict[str, Pending] = {}
        samples = 0
        for server_id in list(islice(self._waiting, BATCH_HEARTBEATS + len(self._busy))):
            if len(batch) >= BATCH_HEARTBEATS or samples >= BATCH_SAMPLES:
                break
            if server_id in self._busy:
                continue
            waiting = self._waiting.pop(server_id)
            while waiting:
                pending = waiting.popleft()
                self._count -= 1
                if not pending.answer.done():  # else its client was told to come again
                    batch[server_id] = pending
                    samples += len(pending.heartbeat.network_interfaces or ())
                    break
            if waiting:
                self._waiting[server_id] = waiting  # behind the other servers
        self._busy |= batch.keys()
        return [batch[server_id] for server_id in sorted(batch)]

    def release(self, batch: Iterable[Pending]) -> None:
        """Ends what `take` began."""
        self._busy.difference_update(pending.heartbeat.server_id for pending in batch)
