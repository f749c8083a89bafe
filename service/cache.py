"""Answers that many ask for at once are made once, and kept for as long as they are right.

A hundred widgets that poll one sparkline cost one query, until a heartbeat of its server is stored in this process, or
`keep_seconds` pass: within them, what another process stored is not seen. While one look at all the servers in question
(`Watch`) shows that none of them received a heartbeat, the answer stays for as long again, up to MOST_SECONDS. Whoever
asks between finds the same bytes, and where they have them already, 304. Who may ask is settled before anything here is
looked at (Litestar's guards).
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
from service.http.conditional import accepts_gzip, has_tag, tag_of
from service.http.errors import Problem
from service.http.numbers import plain_json

T = TypeVar("T")

KEPT_BYTES = 64 << 20
KEPT_ANSWERS = 10_000
LONGEST_SECONDS = 10.0
MOST_SECONDS = 60.0  # what changes without a heartbeat, such as a late one that a refresh takes in, shows by then
LOOK_SECONDS = 0.6  # before what is kept for a second goes
LOOKED_FOR = 10_000
KEPT_FORMS = 20  # of one answer: who asks for every size there is has no more kept

RECEIVED = "SELECT server_id, received_at FROM servers WHERE server_id = ANY ($1)"


# The client may keep it and must ask each time: that costs no query, and no body. A shared cache may not have it: the
# next one who asks may have no right to it.
_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
_OVERHEAD_BYTES = 1_000
_NAME_BYTES = 300
LARGE_BYTES = 1 << 20  # from here on, a millisecond's work is done beside the event loop
# One: the interpreter does one thing at a time anyway, and each thread's freed memory is kept for that thread.
_worker = ThreadPoolExecutor(1, "answers")
# Smaller ones fit into a packet or three, and compressing them would cost more than it saves.
ZIPPED_FROM_BYTES = 4_096


async def beside(work: Callable[..., T], *arguments: Any) -> T:
    """Does what takes long in a thread: the event loop has its turn every few milliseconds."""
    return await asyncio.get_running_loop().run_in_executor(_worker, work, *arguments)


def keep_seconds(bucket_seconds: int) -> float:
    """How long an answer in such buckets is kept: of one minute a second, of a quarter of an hour 10 seconds."""
    return min(max(bucket_seconds / 60, 1.0), LONGEST_SECONDS)


class Form(NamedTuple):
    """Another form of an answer, such as a picture: made of its bytes, without a query, and kept as long as they are.

    key        all that the form depends on but the answer
    headers    beside the ETag
    may_renew  whether the client may have the answer made again
    """

    key: Hashable
    make: Callable[[bytes], bytes]
    media_type: str
    headers: dict[str, str]
    may_renew: bool


class _Answer:
    """One answer, while it is made and after; `forms` by their keys, each as bytes and ETag."""

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
        self.confirmed_by = -1  # the look that last found that nothing had come
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
        """What it takes here, about."""
        drawn = sum(len(body) + _OVERHEAD_BYTES for body, _ in self.forms.values())
        # The names stand in the key, in the index of servers, and here.
        named = 3 * sum(map(len, self.servers)) + _NAME_BYTES * len(self.servers)
        return len(self.body) + len(self.zipped) + drawn + named + _OVERHEAD_BYTES


class Answers:
    """The answers of one process, by what was asked; the ones asked for least lately go first."""

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
        """The answer to `key`, kept or made now; 304 where the client says that it has it.

        key      all that the answer depends on but what is stored
        make     the answer, or its bytes where making them is work for a thread (`beside`)
        servers  whose new heartbeats change it
        form     what it is answered as; None: as JSON

        Raises what `make` raises, to all who wait for it; a failure is not kept.
        """
        asked = key
        if may_lag():  # who must see what was just written has a response of another key
            key = (asked, "may lag")
        answer = self._kept.get(key)
        now = asyncio.get_running_loop().time()
        # What a client says by no-cache, as browsers do where a page is reloaded (RFC 9111, 5.2.1.4).
        is_new = "no-cache" in request.headers.get("cache-control", "") and (form is None or form.may_renew)
        is_shared = answer is not None and answer.until >= now and not is_new
        if answer is None or not is_shared:
            self.counts["misses"] += 1
            answer = self._start(key, make, keep_seconds, tuple(servers))
        else:
            self.counts["hits"] += 1
            self._kept.move_to_end(key)
        # Shielded: one who goes away does not take the answer from the others.
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
            # Other bytes have another tag (RFC 9110, 8.8.3.3).
            headers |= {"ETag": f'{answer.etag[:-1]}-gzip"', "Content-Encoding": "gzip"}
        if has_tag(request.headers.get("if-none-match", ""), headers["ETag"]):
            self.counts["not_modified"] += 1
            headers.pop("Content-Encoding", None)
            # Said, because a route of pictures would have its own type for nothing.
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
        """Its body through gzip: once for all who ask, and beside the event loop."""
        if not answer.zipped:
            zipped = await beside(partial(gzip.compress, answer.body, 5, mtime=0))
            if not answer.zipped:  # nobody else was faster
                answer.zipped = zipped
                if self._kept.get(key) is answer:
                    self._bytes += len(zipped)
        return answer.zipped

    def forget(self, servers: Iterable[str]) -> None:
        """Heartbeats of these servers were stored.

        An answer that is being made may lack them: it serves those who asked before, and nobody after.
        """
        for server_id in servers:
            for key in tuple(self._of_server.get(server_id, ())):
                self._drop(key)

    def servers(self) -> list[str]:
        """Whose answers are kept."""
        return list(islice(self._of_server, LOOKED_FOR))

    def confirm(self, servers: set[str], look: int, *, since: float, until: float) -> None:
        """None of these servers received a heartbeat between the look before and this one.

        since, until   when that was over and this one began, by the event loop's clock
        """
        for key in {key for server_id in servers for key in self._of_server.get(server_id, ())}:
            answer = self._kept[key]
            # What it read, it read after the look before, or that one found it right.
            read_at = answer.started if answer.as_of is None else answer.as_of
            was_right = since <= read_at or answer.confirmed_by == look - 1
            if answer.etag and was_right and servers.issuperset(answer.servers):
                answer.confirmed_by = look
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
        # A task of its own: it belongs to all who wait.
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
            # A cancelled task at the service's end cancels those who wait; anything else is theirs to see.
            if isinstance(raised, asyncio.CancelledError):
                answer.made.cancel()
                raise
            answer.made.set_exception(raised)
            answer.made.exception()  # seen, even if all who waited have gone
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
    """What a route answers from: the database, the answers that are kept, and the clock that says where periods end."""

    database: Database
    answers: Answers
    clock: Clock


class Watch(BackgroundTask):
    """Looks again and again whether the servers whose answers are kept have received heartbeats, from whatever process.

    One statement for all of them, and none while nothing is kept. Where it fails, answers are as short-lived as before.
    """

    def __init__(self, answers: Answers, database: Database) -> None:
        super().__init__("answers")
        self._answers = answers
        self._database = database
        self._received: dict[str, datetime] = {}
        self._looks = 0
        self._looked = 0.0  # when the last look was over, by the event loop's clock

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(Problem, asyncpg.PostgresError):
                await self.look()

    async def look(self) -> None:
        """Confirms what has not changed since the last look."""
        loop = asyncio.get_running_loop()
        servers = self._answers.servers()
        if not servers:
            self._received = {}
            return
        asked = loop.time()
        rows = await self._database.fetch(RECEIVED, servers)
        received = {row["server_id"]: row["received_at"] for row in rows}
        unchanged = {server_id for server_id, at in received.items() if self._received.get(server_id) == at}
        self._looks += 1
        self._answers.confirm(unchanged, self._looks, since=self._looked, until=asked)
        self._received, self._looked = received, loop.time()
