"""The response cache: responses to concurrent and repeated requests are computed once, and cached while they are valid.

A hundred widgets that poll one sparkline cost one query, until a heartbeat of its server is stored in this process, or
`keep_seconds` pass: within them, heartbeats that another process stored are not seen. While a poll of all servers with
cached responses (`Watch`) shows that none of them received a heartbeat, a response is kept for that time again, up to
MOST_SECONDS. Requests in the meantime get the same bytes, or 304 if they have them. Permissions are checked before the
cache (Litestar's guards).
"""

import asyncio
import gzip
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import asyncpg
import msgspec
from litestar import MediaType, Request, Response

from service.background import BackgroundTask
from service.clock import Clock
from service.database.pool import Database
from service.database.reading import may_lag, reading
from service.database.series_links import SeriesLinks
from service.http.conditional import accepts_gzip, has_tag, tag_of
from service.http.errors import Problem
from service.http.numbers import plain_json

T = TypeVar("T")

KEPT_BYTES = 64 << 20
KEPT_ANSWERS = 10_000
LONGEST_SECONDS = 10.0
MOST_SECONDS = 60.0  # changes without a heartbeat, such as the refresh of an aggregate, are visible after this time
POLL_SECONDS = 0.6  # shorter than the shortest time that a response is kept
POLLED_SERVERS = 10_000
KEPT_FORMS = 20  # per response: a client cannot fill the cache by requesting every size

RECEIVED = "SELECT server_id, received_at FROM servers WHERE server_id = ANY ($1)"


# The client may store it and must revalidate it each time, which costs no query and no body. A shared cache may not
# store it, because its next client may not have the permission.
_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
_OVERHEAD_BYTES = 1_000
_NAME_BYTES = 300
LARGE_BYTES = 1 << 20  # from this size on, hashing takes a millisecond and runs in a thread
# One thread: the interpreter runs one at a time anyway, and malloc keeps freed memory for each thread.
_worker = ThreadPoolExecutor(1, "answers")
# Smaller responses fit into at most three packets, and compressing them would cost more than it saves.
ZIPPED_FROM_BYTES = 4_096


async def beside(work: Callable[..., T], *arguments: Any) -> T:
    """Runs long work in a thread, so that the event loop is not blocked for more than a few milliseconds."""
    return await asyncio.get_running_loop().run_in_executor(_worker, work, *arguments)


def keep_seconds(bucket_seconds: int) -> float:
    """How long a response with such buckets is cached: with 1-minute buckets 1 second, with 15-minute buckets 10
    seconds."""
    return min(max(bucket_seconds / 60, 1.0), LONGEST_SECONDS)


class Form(NamedTuple):
    """Another form of a response, such as a picture: made from its bytes without a query, and cached with them.

    key        everything that the form depends on, except the response
    headers    in addition to the ETag
    may_renew  whether the client may force a refresh
    """

    key: Hashable
    make: Callable[[bytes], bytes]
    media_type: str
    headers: dict[str, str]
    may_renew: bool


class _Answer:
    """A response, while it is computed and after; `forms` by their keys, each as bytes and ETag."""

    __slots__ = (
        "as_of",
        "body",
        "confirmed_by",
        "etag",
        "forms",
        "keep_seconds",
        "made",
        "servers",
        "started",
        "until",
        "zipped",
    )

    def __init__(
        self, servers: tuple[str, ...], made: "asyncio.Future[None]", started: float, keep_seconds: float
    ) -> None:
        self.servers = servers
        self.made = made
        self.confirmed_by = -1  # the last poll that found no new heartbeat
        self.started = started
        self.as_of: float | None = None  # of what was read, where that may be older than `started`
        self.keep_seconds = keep_seconds
        self.until = float("inf")
        self.body = b""
        self.zipped = b""
        self.etag = ""
        self.forms: dict[Hashable, tuple[bytes, str]] = {}

    @property
    def size_bytes(self) -> int:
        """The approximate memory that it uses."""
        drawn = sum(len(body) + _OVERHEAD_BYTES for body, _ in self.forms.values())
        # The names are in the key, in the index by server, and here.
        named = 3 * sum(map(len, self.servers)) + _NAME_BYTES * len(self.servers)
        return len(self.body) + len(self.zipped) + drawn + named + _OVERHEAD_BYTES


class Answers:
    """The cached responses of one process, by request; the least recently used are dropped first."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # hits, misses, not_modified
        self._kept: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._of_server: dict[str, set[Hashable]] = {}
        self._bytes = 0
        self._making: set[asyncio.Task[None]] = set()

    async def get(
        self,
        request: Request[Any, Any, Any],
        key: Hashable,
        make: Callable[[], Awaitable[msgspec.Struct | bytes]],
        *,
        keep_seconds: float,
        servers: Iterable[str] = (),
        form: Form | None = None,
    ) -> Response[Any]:
        """The response for `key`, cached or computed now; 304 if the client has it.

        key      everything that the response depends on, except the stored data
        make     computes the response, or its bytes if encoding them needs a thread (`beside`)
        servers  servers whose new heartbeats invalidate it
        form     the form of the response; None: JSON

        Raises the exceptions of `make`, to all requests that wait for it; a failure is not cached.
        """
        asked = key
        if may_lag():  # who must see what was just written has a response of another key
            key = (asked, "may lag")
        answer = self._kept.get(key)
        now = asyncio.get_running_loop().time()
        # Browsers send no-cache when a page is reloaded (RFC 9111, 5.2.1.4).
        is_new = "no-cache" in request.headers.get("cache-control", "") and (form is None or form.may_renew)
        is_shared = answer is not None and answer.until >= now and not is_new
        if answer is None or not is_shared:
            self.counts["misses"] += 1
            answer = self._start(key, make, keep_seconds, tuple(servers))
        else:
            self.counts["hits"] += 1
            self._kept.move_to_end(key)
        # Shielded: a client that disconnects must not cancel the response of the others.
        try:
            await asyncio.shield(answer.made)
        except Problem as refused:
            if not is_shared or refused.code != "too_many_requests":
                raise
            # Another token's share of the database was used up, and not the one of this request.
            return await self.get(request, asked, make, keep_seconds=keep_seconds, servers=servers, form=form)
        if (wanted := reading.get()) and answer.as_of is not None:
            wanted.note(answer.as_of)
        if form is None:
            body, headers = answer.body, {"ETag": answer.etag, **_HEADERS}
        else:
            body, etag = self._form(key, answer, form)
            headers = {"ETag": etag, **form.headers}
        is_large = form is None and len(body) >= ZIPPED_FROM_BYTES
        if is_large and accepts_gzip(request.scope):
            # Different bytes need a different tag (RFC 9110, 8.8.3.3).
            headers |= {"ETag": f'{answer.etag[:-1]}-gzip"', "Content-Encoding": "gzip"}
        if has_tag(request.headers.get("if-none-match", ""), headers["ETag"]):
            self.counts["not_modified"] += 1
            headers.pop("Content-Encoding", None)
            # Explicit, because a route of pictures would set its own type on an empty body.
            return Response(None, status_code=304, media_type=MediaType.JSON, headers=headers)
        if "Content-Encoding" in headers:
            body = await self._zipped(key, answer)
        return Response(body, media_type=form.media_type if form else "application/json", headers=headers)

    def _form(self, key: Hashable, answer: _Answer, form: Form) -> tuple[bytes, str]:
        found = answer.forms.get(form.key)
        if found is None:
            body = form.make(answer.body)
            found = body, tag_of(body)
            if self._kept.get(key) is answer and len(answer.forms) < KEPT_FORMS:
                self._bytes -= answer.size_bytes
                answer.forms[form.key] = found
                self._bytes += answer.size_bytes
                self._make_room(answer.started)
        return found

    async def _zipped(self, key: Hashable, answer: _Answer) -> bytes:
        """The compressed body: compressed once for all requests, in a thread."""
        if not answer.zipped:
            zipped = await beside(partial(gzip.compress, answer.body, 5, mtime=0))
            if not answer.zipped:  # no other request was faster
                answer.zipped = zipped
                if self._kept.get(key) is answer:
                    self._bytes += len(zipped)
        return answer.zipped

    def forget(self, servers: Iterable[str]) -> None:
        """Invalidates the responses of these servers, because heartbeats of them were stored.

        A response in progress may lack them: it serves the requests that wait for it, and no later ones.
        """
        for server_id in servers:
            for key in tuple(self._of_server.get(server_id, ())):
                self._drop(key)

    def servers(self) -> list[str]:
        """The servers with cached responses."""
        return list(islice(self._of_server, POLLED_SERVERS))

    def confirm(self, servers: set[str], poll: int, *, since: float, until: float) -> None:
        """None of these servers received a heartbeat between the previous poll and this one.

        since, until   end of the previous poll and start of this one, by the event loop's clock
        """
        for key in {key for server_id in servers for key in self._of_server.get(server_id, ())}:
            answer = self._kept[key]
            # It was read after the previous poll, or that poll confirmed it.
            read_at = answer.started if answer.as_of is None else answer.as_of
            was_right = since <= read_at or answer.confirmed_by == poll - 1
            if answer.etag and was_right and servers.issuperset(answer.servers):
                answer.confirmed_by = poll
                answer.until = min(until + answer.keep_seconds, answer.started + MOST_SECONDS)

    def _start(
        self,
        key: Hashable,
        make: Callable[[], Awaitable[msgspec.Struct | bytes]],
        keep_seconds: float,
        servers: tuple[str, ...],
    ) -> _Answer:
        self._drop(key)
        loop = asyncio.get_running_loop()
        answer = _Answer(servers, loop.create_future(), loop.time(), keep_seconds)
        self._kept[key] = answer
        for server_id in servers:
            self._of_server.setdefault(server_id, set()).add(key)
        # A separate task, shared by all requests that wait.
        task = loop.create_task(self._make(key, answer, make), name="linkbeat answer")
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return answer

    async def _make(
        self, key: Hashable, answer: _Answer, make: Callable[[], Awaitable[msgspec.Struct | bytes]]
    ) -> None:
        wanted = reading.get()
        mine = wanted.apart() if wanted else None
        reading.set(mine)  # of this task alone: whoever asked first is one of many
        try:
            made = await make()
            body = made if isinstance(made, bytes) else plain_json(made)
            etag = tag_of(body) if len(body) < LARGE_BYTES else await beside(tag_of, body)
        except BaseException as raised:
            if self._kept.get(key) is answer:
                self._drop(key)
            # When the service stops, the cancelled task cancels the waiting requests; they receive any other exception.
            if isinstance(raised, asyncio.CancelledError):
                answer.made.cancel()
                raise
            answer.made.set_exception(raised)
            answer.made.exception()  # retrieved, even if no request waits any more
            return
        answer.body = body
        answer.etag = etag
        answer.as_of = mine.as_of if mine else None
        answer.until = answer.started + answer.keep_seconds  # from when it was asked for: what came since may lack
        answer.made.set_result(None)
        if self._kept.get(key) is answer:
            self._bytes += answer.size_bytes
            self._make_room(answer.started)

    def _make_room(self, now: float) -> None:
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if self._bytes <= KEPT_BYTES and len(self._kept) <= KEPT_ANSWERS and oldest.until >= now:
                return
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        answer = self._kept.pop(key, None)
        if answer is None:
            return
        if answer.etag:
            self._bytes -= answer.size_bytes
        for server_id in answer.servers:
            keys = self._of_server[server_id]
            keys.discard(key)
            if not keys:
                del self._of_server[server_id]


class Reader(NamedTuple):
    """What a route reads from: the database, the response cache, the clock that defines the end of periods, and the
    links that reads of traffic follow."""

    database: Database
    answers: Answers
    clock: Clock
    links: SeriesLinks


class Watch(BackgroundTask):
    """Polls whether the servers with cached responses have received heartbeats, in any process.

    One statement for all of them, and none while the cache is empty. If it fails, responses expire after
    `keep_seconds`.
    """

    def __init__(self, answers: Answers, database: Database) -> None:
        super().__init__("answers")
        self._answers = answers
        self._database = database
        self._received: dict[str, datetime] = {}
        self._polls = 0
        self._polled = 0.0  # end of the last poll, by the event loop's clock

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            with suppress(Problem, asyncpg.PostgresError):
                await self.look()

    async def look(self) -> None:
        """Extends the responses whose servers have not received heartbeats since the last poll."""
        loop = asyncio.get_running_loop()
        servers = self._answers.servers()
        if not servers:
            self._received = {}
            return
        asked = loop.time()
        rows = await self._database.fetch(RECEIVED, servers)
        received = {row["server_id"]: row["received_at"] for row in rows}
        unchanged = {server_id for server_id, at in received.items() if self._received.get(server_id) == at}
        self._polls += 1
        self._answers.confirm(unchanged, self._polls, since=self._polled, until=asked)
        self._received, self._polled = received, loop.time()
