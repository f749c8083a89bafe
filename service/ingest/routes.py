"""The two ingest routes: body → wire → ingest → response. Most heartbeats take a shorter way: service/ingest/direct.py.

They are plain ASGI, outside Litestar: a typed handler costs three times as much as everything here, its routing alone a
tenth, and Litestar answers 500 to bodies that are nested too deeply or are not UTF-8.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from time import perf_counter

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from service.access.identity import Caller, Identity
from service.database.pool import RETRY_AFTER_SECONDS
from service.database.series_links import SeriesLinks
from service.http.body import JSON_TYPES, content, read
from service.http.budget import SMALL_BYTES, Budget, Held
from service.http.errors import FieldError, Problem
from service.ingest.agent_config import Configurations
from service.ingest.answers import HEADERS, encoded, refusal, reported, skew_ms
from service.ingest.commit import Ingest
from service.ingest.heartbeat import split_batch
from service.metrics import Metrics
from service.wire import Heartbeat

MAX_HEARTBEAT_BYTES = 1 << 20
MAX_BATCH_BYTES = 8 << 20
DECODED_AT_ONCE = 256 << 10  # a few milliseconds' work, after which other tasks get a turn

_LINES_TYPES = {b"application/x-ndjson", b"application/jsonl", b"application/ndjson"}


class Rejected(msgspec.Struct, frozen=True):
    """A permanently rejected record of a batch, by its position in the batch."""

    index: int
    code: str
    errors: list[FieldError]


class BatchAnswer(msgspec.Struct, frozen=True):
    """stored + duplicate + the rejected = the records sent; `conflict` of the duplicates differ from what is stored.
    `epoch` is what it is in HeartbeatAnswer, of all that are stored.
    """

    stored: int
    duplicate: int
    conflict: int
    rejected: list[Rejected]
    server_time: datetime
    epoch: str
    status: str = "ok"


_encode = msgspec.json.Encoder().encode


def routes(
    ingest: Ingest,
    configurations: Configurations,
    identity: Identity,
    metrics: Metrics,
    oldest: timedelta,
    links: SeriesLinks,
    budget: Budget,
) -> dict[str, ASGIApp]:
    """POST /api/v1/agents/heartbeat and /heartbeats."""

    async def one(scope: Scope, receive: Receive, caller: Caller, held: Held) -> bytes:
        started = perf_counter()
        _, is_gzip = content(scope, JSON_TYPES)
        body = await read(scope, receive, MAX_HEARTBEAT_BYTES, is_gzip=is_gzip, held=held)
        if not (configurations.are_known and links.are_known):
            await configurations.refresh()
            await links.refresh()
        now = datetime.now(UTC)
        heartbeat = reported(body, caller, now=now, oldest=oldest, aliases=links.aliases)
        time = heartbeat.timestamp
        stored = await ingest.store(heartbeat, time or now, skew_ms=skew_ms(time, now))
        metrics.ingest_seconds.observe(perf_counter() - started)
        return encoded(stored, configurations.of(heartbeat.server_id))

    async def many(scope: Scope, receive: Receive, caller: Caller, held: Held) -> bytes:
        media_type, is_gzip = content(scope, JSON_TYPES | _LINES_TYPES)
        body = await read(scope, receive, MAX_BATCH_BYTES, is_gzip=is_gzip, held=held)
        records = split_batch(body, lines=media_type in _LINES_TYPES)
        if not links.are_known:
            await links.refresh()
        answer = await _store_batch(ingest, records, oldest, caller, links.aliases)
        metrics.rejected.update(record.code for record in answer.rejected)
        return _encode(answer)

    async def heartbeat(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(scope, receive, send, identity, budget, metrics, one)

    async def heartbeats(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(scope, receive, send, identity, budget, metrics, many)

    return {"/api/v1/agents/heartbeat": heartbeat, "/api/v1/agents/heartbeats": heartbeats}


async def _store_batch(
    ingest: Ingest, records: list[bytes | msgspec.Raw], oldest: timedelta, caller: Caller, aliases: Mapping[str, str]
) -> BatchAnswer:
    """Stores the valid records; an invalid record does not affect the others.

    Raises Problem (503) if any record's fate is not known, or not all are in the same database: the whole batch may be
    sent again.
    """
    now = datetime.now(UTC)
    rejected: list[Rejected] = []
    accepted: list[tuple[int, Heartbeat]] = []
    decoded = 0
    for index, record in enumerate(records):
        try:
            heartbeat = reported(bytes(record), caller, now=now, oldest=oldest, aliases=aliases)
            accepted.append((index, heartbeat))
            decoded += len(record)
            if decoded >= DECODED_AT_ONCE:
                decoded = 0
                await asyncio.sleep(0)
        except Problem as problem:
            rejected.append(Rejected(index, problem.code, problem.errors or [FieldError("", problem.detail)]))
            await asyncio.sleep(0)  # describing errors takes long: other tasks get a turn
    # In order, the predecessor of a sample is in the server's row; newest first, each would have to be read from
    # history.
    accepted.sort(key=lambda one: one[1].timestamp or now)
    for server_id in {heartbeat.server_id for _, heartbeat in accepted}:
        ingest.check_room(server_id)
    outcomes = await asyncio.gather(
        *(
            # If the service's clock is used, the times differ by a microsecond: otherwise the second would be a
            # duplicate.
            ingest.store(heartbeat, heartbeat.timestamp or now + timedelta(microseconds=index))
            for index, heartbeat in accepted
        ),
        return_exceptions=True,
    )
    duplicates = conflicts = 0
    epochs = set()
    for (index, _), outcome in zip(accepted, outcomes, strict=True):
        if isinstance(outcome, Problem) and outcome.status < 500:
            rejected.append(Rejected(index, outcome.code, outcome.errors))
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            duplicates += outcome.duplicate
            conflicts += outcome.conflict
            epochs.add(outcome.epoch)
    if len(epochs) > 1:
        # One epoch for all would tell the agent that the newer database has what only the older one is known to have.
        raise Problem.retry("database_unavailable", "the database was replaced meanwhile", RETRY_AFTER_SECONDS)
    rejected.sort(key=lambda one: one.index)
    stored = len(records) - len(rejected) - duplicates
    epoch = epochs.pop() if epochs else ingest.epoch
    return BatchAnswer(stored, duplicates, conflicts, rejected, datetime.now(UTC), epoch)


async def _answer(
    scope: Scope,
    receive: Receive,
    send: Send,
    identity: Identity,
    budget: Budget,
    metrics: Metrics,
    handle: Callable[[Scope, Receive, Caller, Held], Awaitable[bytes]],
) -> None:
    status, headers = 200, HEADERS
    caller = None
    try:
        if scope.get("method") != "POST":
            raise Problem("method_not_allowed", headers={"Allow": "POST"})
        caller = await identity.admit(scope, "ingest")  # before the body is read
        held = Held(budget, caller.machine, is_limited=caller.kind == "server")
        try:
            body = await handle(scope, receive, caller, held)
        finally:
            held.release()
            if caller.is_counted:
                identity.leave(caller)
    except Exception as raised:  # noqa: BLE001 - the last resort: the log has the traceback
        status, headers, body = refusal(raised, scope["path"], metrics)
        if caller is None and _is_large(scope):
            headers += ((b"connection", b"close"),)  # closing saves reading megabytes of the rejected body
    content_length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, content_length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_large(scope: Scope) -> bool:
    """Whether a large body is announced, or one of unknown length."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return len(value) > 7 or not value.isdigit() or int(value) > SMALL_BYTES
        if name == b"transfer-encoding":
            return True
    return False
