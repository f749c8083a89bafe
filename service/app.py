"""The application: the only module that imports all the others."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil
from typing import Any

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, Scope, Send

from agent import __version__
from service.access import routes as access
from service.access.ended_sessions import EndedSessions
from service.access.identity import Caller, Identity, scopes
from service.access.keys import secret_key
from service.access.sessions import Sessions
from service.access.tokens import Hasher, Tokens
from service.alerts import channel_routes, current, mutes, rule_routes
from service.alerts.channels.network import Network
from service.alerts.deliver import Delivery
from service.alerts.evaluate import Alerts
from service.alerts.follow_file import FollowedFile
from service.alerts.pulse import Pulse
from service.alerts.rule_routes import BACKTEST_SECONDS
from service.cache import Answers, Reader, Watch
from service.clock import Clock
from service.database import roles
from service.database.maintenance import Maintenance
from service.database.pool import LEAST_READERS, READERS, Database
from service.database.reading import reading, wall_time
from service.database.replicas import Replicas, ReplicatedDatabase
from service.database.series_links import SeriesLinks
from service.database.zones import Zones
from service.fleet import (
    agents,
    aliases,
    exposition,
    interface_labels,
    interfaces,
    labels,
    linking,
    naming,
    overview,
    removal,
    servers,
    succession,
)
from service.fleet.aliases import by_own_id
from service.fleet.removal import Removals
from service.http.budget import Budget
from service.http.errors import EXCEPTION_HANDLERS, PRIVATE, on_http_exception
from service.http.numbers import with_plain_numbers
from service.http.protocol import Direct
from service.http.reference import ReferencePlugin
from service.ingest import routes as ingest
from service.ingest.agent_config import Configurations
from service.ingest.commit import Ingest
from service.ingest.direct import DirectHeartbeats
from service.metrics import Metrics
from service.openapi import AS_OF, complete
from service.operations import audit, definitions
from service.operations import routes as operations
from service.operations.collectors import Exposition, Sharing
from service.operations.shared_numbers import SharedNumbers
from service.pictures import routes as pictures
from service.pictures.links import Links
from service.settings import Settings
from service.traffic import events, export, gauges, history, sparkline, totals
from service.traffic.export import EXPORTS_AT_ONCE, PAGE_SECONDS
from service.usage import quotas
from service.usage import routes as usage
from service.web import agent_file, pages, sign_in


class Linkbeat(Litestar):
    """Litestar, and the routes outside it that are requested thousands of times per second.

    direct      those without a task, for the protocol
    end_waits   answers those whose requests wait for something to happen; called when the service is about to end
    leave       told of the caller once a request has been answered
    aliases     other ids of servers, which requests may name
    wrote       the Set-Cookie header for a browser that has changed something, where there are replicas
    """

    def __init__(
        self,
        *,
        beside: dict[str, ASGIApp],
        direct: dict[bytes, Direct],
        end_waits: Callable[[], None],
        leave: Callable[[Caller], None],
        aliases: Callable[[], Mapping[str, str]],
        wrote: Callable[[Scope], str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._wrote = wrote
        self._beside = beside
        self.direct = direct
        self._leave = leave
        self._aliases = aliases
        self.end_waits = end_waits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # requests and the lifespan alike
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        handler = self._beside.get(scope["path"])
        if handler is not None:
            await handler(scope, receive, send)
            return
        if known := self._aliases():
            by_own_id(scope, known)
        try:
            await super().__call__(scope, receive, _private(send, scope, self._wrote))
        finally:
            if caller := scope.get("auth"):
                self._leave(caller)


def _private(send: Send, scope: Scope, wrote: Callable[[Scope], str] | None) -> Send:
    """Says of an answer that says nothing else of itself that it is kept nowhere, and is what its type says.

    Where there are replicas, also how old what was read may be; and to a browser, that it has written something.
    """

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            named = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in PRIVATE if one[0] not in named)]
            if (found := reading.get()) and found.as_of is not None:
                as_of = datetime.fromtimestamp(wall_time(found.as_of), UTC)
                text = as_of.isoformat(timespec="milliseconds").replace("+00:00", "Z")
                message["headers"].append((AS_OF.lower().encode(), text.encode()))
            caller = scope.get("auth")
            if (
                wrote
                and isinstance(caller, Caller)
                and caller.is_session
                and scope.get("method") not in ("GET", "HEAD")
            ):
                message["headers"].append((b"set-cookie", wrote(scope).encode()))
        await send(message)

    return sent


class Parts:
    """The parts of the service behind the routes. `opened` opens them, each before those that need it."""

    def __init__(
        self,
        settings: Settings,
        database_url: str,
        key: str,
        clock: Clock,
        shared: SharedNumbers | None,
        processes: int,
    ) -> None:
        readers = max(LEAST_READERS, min(READERS, 2 * READERS // processes))
        share = readers // 2  # the slow queries of one reader leave half of them to the others
        secret = secret_key(settings)
        self.hasher = Hasher(secret)
        self.sessions = Sessions(secret, key)
        self.links = Links(secret, key)
        self.metrics = Metrics()
        self.answers = Answers()
        self.replicas = (
            Replicas(settings.read_database_url, database_url, settings.read_lag_seconds)
            if settings.read_database_url
            else None
        )
        reads = partial(ReplicatedDatabase, replicas=self.replicas) if self.replicas else Database
        database = reads(database_url, connections=readers, share=share)
        sparklines = reads(database_url, connections=readers, plans="generic", share=share)
        # A separate pool: a revoked token is refused in time, however many reads wait. Each cache polls with one
        # connection.
        following = Database(database_url, connections=4)
        self.series_links = SeriesLinks(following, self._is_reachable)
        self.reader = Reader(database, self.answers, clock, self.series_links)
        self.sparklines = Reader(sparklines, self.answers, clock, self.series_links)
        # Of their own: what exports wait for keeps nobody from a sparkline.
        self.exporting = reads(database_url, connections=EXPORTS_AT_ONCE, seconds=PAGE_SECONDS)
        self.ingest = Ingest(
            database_url,
            settings.queue_heartbeats,
            series_budget=settings.max_series,
            fold_seconds=round(settings.fold_minutes * 60),
            durability=settings.durability,
            on_stored=self._on_stored,
            on_server=self._on_server,
        )
        self.writing = Database(database_url, connections=1, role=roles.INGEST)
        self.configurations = Configurations(following, self._is_reachable)
        self.tokens = Tokens(following, self.writing, self._is_reachable, self.hasher)
        self.ended = EndedSessions(following, self.writing, self._is_reachable)
        self.identity = Identity(key, settings, self.tokens, self.sessions, self.ended)
        is_maintained = settings.maintenance == "on"
        self.removals = Removals(database_url, database, lambda: is_maintained and self._is_reachable())
        self.live = overview.live(database)
        self.zones = Zones(database)
        self.exposed = Exposition(
            self.metrics, self.ingest, self.answers, (database, sparklines, self.writing), shared, self.replicas
        )
        self.network = Network(allows_private=settings.alert_private_addresses)
        self.delivering = Database(database_url, connections=2, role=roles.INGEST)
        self.testing = Database(database_url, connections=1, seconds=BACKTEST_SECONDS)
        delivery = Delivery(self.delivering, self.network, self._is_reachable)
        pulse = Pulse(self.delivering, self.network)
        self.databases = (
            database, sparklines, self.exporting, self.writing, following, self.delivering, self.testing,
        )  # fmt: skip
        self._opened: tuple[AbstractAsyncContextManager[object], ...] = (
            Sharing(self.exposed), *([self.replicas] if self.replicas else []), *self.databases, self.ingest,
            self.configurations, self.tokens, self.ended, self.series_links,
            self.removals, Watch(self.answers, database), self.live,
            Maintenance(database_url) if is_maintained else nullcontext(),
            delivery, pulse, FollowedFile(database_url, settings),
            Alerts(database_url, settings.alert_seconds, self._is_reachable, pulse.beat),
        )  # fmt: skip

    @asynccontextmanager
    async def opened(self, _: Litestar) -> AsyncIterator[None]:
        """The lifespan of the application."""
        async with AsyncExitStack() as stack:
            for part in self._opened:
                await stack.enter_async_context(part)
            yield

    def _is_reachable(self) -> bool:
        return self.ingest.is_reached

    def _on_server(self) -> None:
        for database in self.databases:
            database.disconnect()

    def _on_stored(self, server_ids: Sequence[str]) -> None:
        if self.replicas:
            self.replicas.note_stored(server_ids)
        self.answers.forget(server_ids)
        self.metrics.batch_heartbeats.observe(len(server_ids))


def create_app(
    settings: Settings, *, database_url: str, key: str, shared: SharedNumbers | None = None, processes: int = 1
) -> Linkbeat:
    """The service on the database at `database_url`, whose schema has been checked (service.database.schema.check).

    shared     the numbers for Prometheus, where several processes serve on one port
    processes  how many do
    """
    clock = Clock()
    parts = Parts(settings, database_url, key, clock, shared, processes)
    # Within the bound, every replica in use has what the browser wrote; a cookie's age is in whole seconds.
    wrote = partial(parts.sessions.set_written, seconds=ceil(settings.read_lag_seconds) + 1)
    files = pages.Files()
    database, writing = parts.reader.database, parts.writing
    at_root, system = operations.routers(parts.reader, parts.ingest, parts.exposed, settings)
    heartbeats = (
        parts.ingest, parts.configurations, parts.identity, parts.metrics,
        timedelta(days=settings.oldest_heartbeat_days), parts.series_links, Budget(),
    )  # fmt: skip
    app = Linkbeat(
        beside=ingest.routes(*heartbeats),
        direct={b"/api/v1/agents/heartbeat": DirectHeartbeats(*heartbeats)},
        end_waits=parts.live.end,
        leave=parts.identity.leave,
        aliases=lambda: parts.series_links.aliases,
        wrote=wrote if parts.replicas else None,
        route_handlers=[
            at_root,
            exposition.router(database),
            Router(
                "/",
                route_handlers=[
                    *pages.handlers(files),
                    *sign_in.handlers(parts.sessions, parts.ended, parts.identity),
                    *agent_file.handlers(),
                ],
            ),
            Router(
                "/api/v1",
                route_handlers=[
                    servers.router(database),
                    interfaces.router(database, parts.zones, clock, parts.series_links),
                    labels.router(database, writing, parts.answers),
                    interface_labels.router(database, writing, parts.answers),
                    naming.router(database),
                    linking.router(database, writing, parts.answers, parts.series_links),
                    aliases.router(database, writing, parts.series_links),
                    succession.router(database, writing, parts.answers, parts.series_links),
                    agents.router(database, writing, parts.configurations),
                    overview.router(parts.reader, parts.sparklines.database, parts.live),
                    access.router(database, writing, parts.tokens, parts.hasher),
                    removal.router(writing, parts.tokens, parts.removals, parts.answers),
                    sparkline.router(parts.sparklines),
                    gauges.router(parts.sparklines),
                    pictures.router(parts.sparklines, parts.tokens, parts.links),
                    history.router(database, clock, parts.series_links),
                    events.router(database, clock, parts.series_links),
                    totals.router(parts.reader),
                    usage.router(database, parts.zones, clock, settings, parts.series_links),
                    export.router(parts.exporting, parts.series_links),
                    quotas.router(database, writing, parts.zones, clock, parts.series_links),
                    rule_routes.router(database, parts.testing, writing, clock),
                    channel_routes.router(database, writing, parts.zones, parts.network, clock),
                    mutes.router(database, writing, parts.zones, clock),
                    current.router(database, writing),
                    system,
                    definitions.router(parts.answers),
                    audit.router(database),
                ],
            ),
        ],
        guards=[parts.identity.guard],
        after_request=with_plain_numbers,
        lifespan=[parts.opened],
        cors_config=_cross_origin(settings.cors_origins),
        exception_handlers={**EXCEPTION_HANDLERS, NotFoundException: pages.unknown(files, on_http_exception)},
        openapi_config=_described(),
        logging_config=None,  # keep the configuration of __main__
        debug=False,
    )  # fmt: skip
    complete(app.openapi_schema, scopes(app))
    return app


def _described() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Linkbeat",
        version=__version__,
        description="Traffic of every network interface of a fleet, exact to the byte.",
        path="/schema",
        openapi_router=Router("/schema", route_handlers=[], opt={"scope": "open"}, include_in_schema=False),
        render_plugins=[ReferencePlugin(), JsonRenderPlugin(path="/openapi.json")],
        components=Components(
            security_schemes={
                "key": SecurityScheme(
                    type="http", scheme="bearer", description="The fleet key, or a token with the listed permission."
                ),
                "link": SecurityScheme(
                    type="apiKey",
                    name="link",
                    security_scheme_in="query",
                    description="The signature from POST /api/v1/pictures, valid for one picture.",
                ),
            }
        ),
    )


def _cross_origin(origins: Sequence[str]) -> CORSConfig | None:
    """For pages on other origins: cookies are not allowed, and the ingest routes, outside Litestar, do not support
    CORS."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "PUT", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match"],
        expose_headers=["ETag", "Retry-After", AS_OF],
        max_age=600,
    )
