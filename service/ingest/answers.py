"""The responses of the ingest routes, and what both forms of the heartbeat's route share (service/ingest/direct.py)."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from service.access.identity import Caller
from service.http.body import ACCEPTED
from service.http.errors import MEDIA_TYPE, PRIVATE, Problem
from service.http.log_limit import limited
from service.ingest.batch import Stored
from service.ingest.heartbeat import decode_heartbeat
from service.metrics import Metrics
from service.wire import AgentConfig, Heartbeat


class HeartbeatAnswer(msgspec.Struct, frozen=True):
    """The heartbeat is on the database's disk.

    server_registered  this heartbeat made the server known
    duplicate          it had been stored before
    epoch              of the database: after another one, what was acknowledged before may have to be sent again
    config             what is set for the server, whole: what is missing in it, the agent's own settings say
    """

    server_registered: bool
    duplicate: bool
    server_time: datetime
    epoch: str
    status: str = "ok"
    pending_commands: list[str] = []
    results_acknowledged: list[str] = []
    config: AgentConfig = AgentConfig()


Headers = tuple[tuple[bytes, bytes], ...]

HEADERS: Headers = ((b"content-type", b"application/json"), ACCEPTED, *PRIVATE)
"""Of a response with a result; Content-Length is not among them."""

_MILLISECOND = timedelta(milliseconds=1)
_encode = msgspec.json.Encoder().encode


class Refusal(NamedTuple):
    """An error response."""

    status: int
    headers: Headers
    body: bytes


def encoded(stored: Stored, config: AgentConfig) -> bytes:
    """The body for a heartbeat that is stored."""
    return _encode(HeartbeatAnswer(stored.registered, stored.duplicate, datetime.now(UTC), stored.epoch, config=config))


def refusal(raised: BaseException, path: str, metrics: Metrics) -> Refusal:
    """The response for an exception: a Problem, or else a bug, which is logged."""
    if not isinstance(raised, Problem):
        limited(logging.ERROR, ("bug", type(raised).__name__), "%s failed", path, exc_info=raised)
        raised = Problem("internal", "the error is in the log")
    metrics.rejected[raised.code] += 1
    named = tuple((name.lower().encode(), value.encode()) for name, value in raised.headers.items())
    return Refusal(raised.status, ((b"content-type", MEDIA_TYPE.encode()), ACCEPTED, *PRIVATE, *named), raised.body())


def reported(body: bytes, caller: Caller, *, now: datetime, oldest: timedelta, aliases: Mapping[str, str]) -> Heartbeat:
    """The heartbeat in a body, as the server's whose alias it has. Raises Problem: invalid, or 403 to this caller."""
    heartbeat = decode_heartbeat(body, now=now, oldest=oldest)
    if own := aliases.get(heartbeat.server_id):
        heartbeat = msgspec.structs.replace(heartbeat, server_id=own)
    caller.check_report(heartbeat, aliases)
    return heartbeat


def skew_ms(time: datetime | None, now: datetime) -> int | None:
    """For Ingest: how far the service's clock is ahead of a heartbeat's time."""
    return None if time is None else (now - time) // _MILLISECOND
