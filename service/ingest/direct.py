"""POST /api/v1/agents/heartbeat without a task: what a request of a known sender needs, once it has arrived whole.

A task, and the events and futures that it waits for, cost more than the heartbeat. Whatever is rare (a body in pieces
or compressed, a token that is not cached, the first requests after the start) is left to service/ingest/routes.py.
"""

import logging
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from litestar.types import Scope

from service.access.identity import Caller, Identity
from service.database.series_links import SeriesLinks
from service.http.body import JSON_TYPES, content
from service.http.budget import SMALL_BYTES, Budget, Held
from service.http.errors import Problem
from service.http.log_limit import limited
from service.http.protocol import Exchange
from service.ingest.agent_config import Configurations
from service.ingest.answers import HEADERS, Refusal, encoded, refusal, reported, skew_ms
from service.ingest.batch import Pending, Stored
from service.ingest.commit import Ingest
from service.metrics import Metrics


class DirectHeartbeats:
    """The route. Its requests count against the same limits as those that have a task."""

    def __init__(
        self,
        ingest: Ingest,
        configurations: Configurations,
        identity: Identity,
        metrics: Metrics,
        oldest: timedelta,
        links: SeriesLinks,
        budget: Budget,
    ) -> None:
        self._ingest = ingest
        self._configurations = configurations
        self._identity = identity
        self._metrics = metrics
        self._oldest = oldest
        self._links = links
        self._budget = budget
        # Heartbeats of a batch have the same answer, unless their servers have a configuration.
        self._shared: tuple[Stored | None, Any, Any] = (None, None, None)
        self._response = b""

    def begin(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """Whether the request is taken on: `exchange` will then be answered."""
        started = perf_counter()
        if len(body) > SMALL_BYTES or not (self._configurations.are_known and self._links.are_known):
            return False
        held = Held(self._budget, None, is_limited=False)  # a small body counts toward no sender
        try:
            _, is_gzip = content(scope, JSON_TYPES)
            if is_gzip:
                return False
            held.grow(len(body))
        except Problem:
            return False
        caller = self._identity.admit_cached(scope, "ingest")
        if caller is None:
            held.release()
            return False
        reply = _Reply(self, exchange, caller, held, started)
        try:
            now = datetime.now(UTC)
            heartbeat = reported(body, caller, now=now, oldest=self._oldest, aliases=self._links.aliases)
            time = heartbeat.timestamp
            reply.server_id = heartbeat.server_id
            reply.pending = self._ingest.put(heartbeat, time or now, reply, skew_ms=skew_ms(time, now))
        except Exception as raised:  # noqa: BLE001 - the last resort, as of the route with a task
            reply.set_exception(raised)
        return True

    def end(self, reply: "_Reply", stored: Stored) -> bytes:
        """The response to a heartbeat that is stored."""
        self._metrics.ingest_seconds.observe(perf_counter() - reply.started)
        config = self._configurations.of(reply.server_id)
        defaults = reply.exchange.default_headers
        shared = self._shared
        if shared[0] is not stored or shared[1] is not config or shared[2] is not defaults:
            self._response = reply.exchange.rendered(200, HEADERS, encoded(stored, config))
            self._shared = (stored, config, defaults)
        return self._response

    def release(self, reply: "_Reply") -> None:
        """Gives back what the request held."""
        reply.held.release()
        if reply.caller.is_counted:
            self._identity.leave(reply.caller)
        if reply.pending is not None:
            self._ingest.answered(reply.pending)
            reply.pending = None  # they refer to each other: the garbage collector would have to find every heartbeat

    def refuse(self, raised: BaseException) -> Refusal:
        return refusal(raised, "/api/v1/agents/heartbeat", self._metrics)


class _Reply:
    """What Pending waits with: the place of a future, but the response is written as soon as the result is there."""

    __slots__ = ("_is_done", "_route", "caller", "exchange", "held", "pending", "server_id", "started")

    def __init__(self, route: DirectHeartbeats, exchange: Exchange, caller: Caller, held: Held, started: float) -> None:
        self._route = route
        self._is_done = False
        self.exchange = exchange
        self.caller = caller
        self.held = held
        self.started = started
        self.server_id = ""
        self.pending: Pending | None = None

    def done(self) -> bool:
        return self._is_done

    def set_result(self, stored: Stored) -> None:
        self._is_done = True
        try:
            self._route.release(self)
            self.exchange.send(self._route.end(self, stored))
        except Exception as raised:  # noqa: BLE001 - other heartbeats of the batch must have their answers
            limited(logging.ERROR, ("bug", type(raised).__name__), "a response failed", exc_info=raised)
            self.exchange.abort()

    def set_exception(self, raised: BaseException) -> None:
        self._is_done = True
        try:
            self._route.release(self)
            status, headers, body = self._route.refuse(raised)
            self.exchange.send(self.exchange.rendered(status, headers, body))
        except Exception as bug:  # noqa: BLE001 - as above
            limited(logging.ERROR, ("bug", type(bug).__name__), "a response failed", exc_info=bug)
            self.exchange.abort()
