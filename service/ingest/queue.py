"""The queue of heartbeats that wait for the database: by server, in the order of their arrival."""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from service.ingest.batch import Pending

BATCH_HEARTBEATS = 200  # above it, a batch takes longer without a higher rate
BATCH_SAMPLES = 2_000  # hosts with hundreds of interfaces fill a batch sooner
# From here on a heartbeat is heavy: it is executed alone, concurrently with the others and not before them.
HEAVY_SAMPLES = 500
# A server's share of the queue: with the default size, it holds a replayed batch of 1,000, and four of them fill the
# queue.
SHARE = 4
# A part of the queue is reserved for servers with at most this many waiting heartbeats, so that they can report while
# others replay.
RESERVED = 5  # a fifth of it
LIVE_HEARTBEATS = 2


class Queue:
    """Hands out batches. A batch has at most one heartbeat of each server, and each server is in at most one batch at a
    time.

    So the heartbeats of a server are stored in the order of their arrival, and a machine that replays a day does not
    delay the others.

    A heavy heartbeat is a batch of its own, and only one writer executes one at a time, while the others continue with
    the rest. If both kinds wait, they alternate.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = max(limit // SHARE, 1)
        self._unreserved = limit - limit // RESERVED
        self._waiting: dict[str, deque[Pending]] = {}
        # The waiting servers in order, by the kind of their next heartbeat.
        self._light: dict[str, None] = {}
        self._heavy: dict[str, None] = {}
        self._busy: set[str] = set()  # servers of the batches being executed
        self._executing_heavy = ""  # the server whose heavy heartbeat is being executed
        self._is_heavys_turn = False
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def is_full_for(self, server_id: str) -> bool:
        """Whether no more heartbeats of this server may wait."""
        if self._count >= self._limit:
            return True
        own = len(self._waiting.get(server_id, ()))
        return own >= self._share or (self._count >= self._unreserved and own >= LIVE_HEARTBEATS)

    @property
    def is_heavy_executing(self) -> bool:
        """Whether a writer executes a heavy heartbeat: then a batch need not wait for more heartbeats."""
        return bool(self._executing_heavy)

    def put(self, pending: Pending) -> None:
        """Adds a heartbeat behind the others of its server."""
        server_id = pending.heartbeat.server_id
        waiting = self._waiting.get(server_id)
        if waiting is None:
            self._waiting[server_id] = deque((pending,))
            self._order_of(pending)[server_id] = None
        else:
            waiting.append(pending)
        self._count += 1

    def put_back(self, batch: Iterable[Pending]) -> None:
        """Returns heartbeats that were taken and not stored, before the others of their servers."""
        for pending in batch:
            server_id = pending.heartbeat.server_id
            self._light.pop(server_id, None)
            self._heavy.pop(server_id, None)
            self._waiting.setdefault(server_id, deque()).appendleft(pending)
            self._order_of(pending)[server_id] = None
            self._count += 1

    def take(self) -> list[Pending]:
        """A batch ordered by server_id: rows are locked in this order, so that two batches cannot deadlock.

        Its servers are busy until `release`. Empty if only busy servers have waiting heartbeats.
        """
        if self._is_heavys_turn and (batch := self._take_heavy()):
            return batch
        batch = self._take_light() or self._take_heavy()
        self._is_heavys_turn = bool(self._heavy) and not self._executing_heavy
        return batch

    def _take_light(self) -> list[Pending]:
        batch: dict[str, Pending] = {}
        samples = 0
        for server_id in list(islice(self._light, BATCH_HEARTBEATS + len(self._busy))):
            if len(batch) >= BATCH_HEARTBEATS or samples >= BATCH_SAMPLES:
                break
            if server_id not in self._busy and (pending := self._take_of(server_id, self._light)):
                batch[server_id] = pending
                samples += len(pending.heartbeat.network_interfaces or ())
        self._busy |= batch.keys()
        return [batch[server_id] for server_id in sorted(batch)]

    def _take_heavy(self) -> list[Pending]:
        if self._executing_heavy:
            return []
        for server_id in list(self._heavy):
            if server_id not in self._busy and (pending := self._take_of(server_id, self._heavy)):
                self._busy.add(server_id)
                self._executing_heavy = server_id
                self._is_heavys_turn = False
                return [pending]
        return []

    def _take_of(self, server_id: str, order: dict[str, None]) -> Pending | None:
        """The server's next heartbeat, if it is of this kind, without those whose clients have already got 503."""
        waiting = self._waiting[server_id]
        while waiting and waiting[0].answer.done():
            waiting.popleft()
            self._count -= 1
        del order[server_id]
        taken = None
        if waiting and self._order_of(waiting[0]) is order:
            taken = waiting.popleft()
            self._count -= 1
        if waiting:
            self._order_of(waiting[0])[server_id] = None  # behind the other servers
        else:
            del self._waiting[server_id]
        return taken

    def _order_of(self, pending: Pending) -> dict[str, None]:
        is_heavy = len(pending.heartbeat.network_interfaces or ()) >= HEAVY_SAMPLES
        return self._heavy if is_heavy else self._light

    def release(self, batch: Iterable[Pending]) -> None:
        """Ends what `take` began."""
        released = {pending.heartbeat.server_id for pending in batch}
        self._busy -= released
        if self._executing_heavy in released:
            self._executing_heavy = ""
