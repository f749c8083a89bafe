"""The app: the only module that knows all the others."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, Send

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
from service.alerts.rule_routes import BACKTEST_SECONDS
from service.cache import Answers, Reader, Watch
from service.clock import Clock
from service.database import roles
from service.database.maintenance import Maintenance
from service.database.pool import READERS_SHARE, Database
from service.database.zones import Zones
from service.fleet import agents, interfaces, overview, removal, servers
from service.fleet.removal import Removals
from service.http.errors import EXCEPTION_HANDLERS, PRIVATE, on_http_exception
from service.http.numbers import with_plain_numbers
from service.http.reference import ReferencePlugin
from service.ingest import routes as ingest
from service.ingest.agent_config import Configurations
from service.ingest.commit import Ingest
from service.metrics import Metrics
from service.openapi import complete
from service.operations import definitions
from service.operations import routes as operations
from service.operations.collectors import Exposition
from service.pictures import routes as pictures
from service.pictures.links import Links
from service.settings import Settings
from service.traffic import events, export, gauges, history, sparkline, totals
from service.traffic.export import EXPORTS_AT_ONCE, PAGE_SECONDS
from service.usage import quotas
from service.usage import routes as usage
from service.web import agent_file, pages, sign_in


class Linkbeat(Litestar):
    """Litestar, and beside it the routes that are taken thousands of times a second.

    end_waits   answers those whose requests wait for something to happen; called when the service is about to end
    leave       told of the caller once a request has been answered
    """

    def __init__(
        self,
        *,
        beside: dict[str, ASGIApp],
        end_waits: Callable[[], None],
        leave: Callable[[Caller], None],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._beside = beside
        self._leave = leave
        self.end_waits = end_waits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # requests and the lifespan alike
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        handler = self._beside.get(scope["path"])
        if handler is not None:
            await handler(scope, receive, send)
            return
        try:
            await super().__call__(scope, receive, _private(send))
        finally:
            if caller := scope.get("auth"):
                self._leave(caller)


def _private(send: Send) -> Send:
    """Says of an answer that says nothing else of itself that it is kept nowhere, and is what its type says."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            named = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in PRIVATE if one[0] not in named)]
        await send(message)

    return sent


class Parts:
    """All that works behind the routes. Nothing is opened before `opened`, and each part before those that need it."""

    def __init__(self, settings: Settings, database_url: str, key: str, clock: Clock) -> None:
        secret = secret_key(settings)
        self.hasher = Hasher(secret)
        self.sessions = Sessions(secret, key)
        self.links = Links(secret, key)
        self.metrics = Metrics()
        self.answers = Answers()
        database = Database(database_url, share=READERS_SHARE)
        sparklines = Database(database_url, plans="generic", share=READERS_SHARE)
        self.reader = Reader(database, self.answers, clock)
        self.sparklines = Reader(sparklines, self.answers, clock)
        # Of their own: what exports wait for keeps nobody from a sparkline.
        self.exporting = Database(database_url, connections=EXPORTS_AT_ONCE, seconds=PAGE_SECONDS)
        self.ingest = Ingest(
            database_url,
            settings.queue_heartbeats,
            series_budget=settings.max_series,
            fold_seconds=round(settings.fold_minutes * 60),
            on_stored=self._on_stored,
        )
        self.writing = Database(database_url, connections=1, role=roles.INGEST)
        # Of their own: however many reads wait, a revoked token is refused in time. Each polls one at a time.
        following = Database(database_url, connections=3)
        self.configurations = Configurations(following, self._is_reachable)
        self.tokens = Tokens(following, self.writing, self._is_reachable, self.hasher)
        self.ended = EndedSessions(following, self.writing, self._is_reachable)
        self.identity = Identity(key, settings, self.tokens, self.sessions, self.ended)
        self.removals = Removals(database_url, database, self._is_reachable)
        self.live = overview.live(database)
        self.zones = Zones(database)
        self.network = Network(allows_private=settings.alert_private_addresses)
        self.delivering = Database(database_url, connections=2, role=roles.INGEST)
        self.testing = Database(database_url, connections=1, seconds=BACKTEST_SECONDS)
        delivery = Delivery(self.delivering, self.network, self._is_reachable)
        self.exposed = Exposition(self.metrics, self.ingest, self.answers, (database, sparklines, self.writing))
        self._opened: tuple[AbstractAsyncContextManager[object], ...] = (
            database, sparklines, self.exporting, self.ingest, self.writing, following, self.configurations,
            self.tokens, self.ended, self.removals, Watch(self.answers, database), self.live, Maintenance(database_url),
            self.delivering, self.testing, delivery,
        )  # fmt: skip

    @asynccontextmanager
    async def opened(self, _: Litestar) -> AsyncIterator[None]:
        """The app's lifespan."""
        async with AsyncExitStack() as stack:
            for part in self._opened:
                await stack.enter_async_context(part)
            yield

    def _is_reachable(self) -> bool:
        return self.ingest.is_connected

    def _on_stored(self, server_ids: Sequence[str]) -> None:
        self.answers.forget(server_ids)
        self.metrics.batch_heartbeats.observe(len(server_ids))


def create_app(settings: Settings, *, database_url: str, key: str) -> Linkbeat:
    """The service on the database at `database_url`, whose schema has been checked (service.database.schema.check)."""
    clock = Clock()
    parts = Parts(settings, database_url, key, clock)
    files = pages.Files()
    database, writing = parts.reader.database, parts.writing
    at_root, system = operations.routers(parts.reader, parts.ingest, parts.exposed, settings)
    app = Linkbeat(
        beside=ingest.routes(
            parts.ingest, parts.configurations, parts.identity, parts.metrics,
            timedelta(days=settings.oldest_heartbeat_days),
        ),
        end_waits=parts.live.end,
        leave=parts.identity.leave,
        route_handlers=[
            at_root,
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
                    interfaces.router(database, parts.zones, clock),
                    agents.router(database, writing, parts.configurations),
                    overview.router(parts.reader, parts.sparklines.database, parts.live),
                    access.router(database, writing, parts.tokens, parts.hasher),
                    removal.router(writing, parts.tokens, parts.removals, parts.answers),
                    sparkline.router(parts.sparklines),
                    gauges.router(parts.sparklines),
                    pictures.router(parts.sparklines, parts.tokens, parts.links),
                    history.router(database, clock),
                    events.router(database, clock),
                    totals.router(parts.reader),
                    usage.router(database, parts.zones, clock, settings),
                    export.router(parts.exporting),
                    quotas.router(database, writing, parts.zones, clock),
                    rule_routes.router(database, parts.testing, writing, clock),
                    channel_routes.router(database, writing, parts.zones, parts.network, clock),
                    mutes.router(database, writing, parts.zones, clock),
                    current.router(database, writing),
                    system,
                    definitions.router(parts.answers),
                ],
            ),
        ],
        guards=[parts.identity.guard],
        after_request=with_plain_numbers,
        lifespan=[parts.opened],
        cors_config=_cross_origin(settings.cors_origins),
        exception_handlers={**EXCEPTION_HANDLERS, NotFoundException: pages.unknown(files, on_http_exception)},
        openapi_config=_described(),
        logging_config=None,  # the one that __main__ set up stays
        debug=False,
    )  # fmt: skip
    complete(app.openapi_schema, scopes(app))
    return app


def _described() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Linkbeat",
        version=__version__,
        description="What crosses every network interface of a fleet, exact to the byte.",
        path="/schema",
        openapi_router=Router("/schema", route_handlers=[], opt={"scope": "open"}, include_in_schema=False),
        render_plugins=[ReferencePlugin(), JsonRenderPlugin(path="/openapi.json")],
        components=Components(
            security_schemes={
                "key": SecurityScheme(
                    type="http", scheme="bearer", description="The fleet key, or a token that may do what is named."
                ),
                "link": SecurityScheme(
                    type="apiKey",
                    name="link",
                    security_scheme_in="query",
                    description="What POST /api/v1/pictures has signed: for that picture alone.",
                ),
            }
        ),
    )


def _cross_origin(origins: Sequence[str]) -> CORSConfig | None:
    """Of pages elsewhere: no cookies are theirs to send, and the ingest routes, beside Litestar, do not answer them."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "PUT", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match"],
        expose_headers=["ETag", "Retry-After"],
        max_age=600,
    )
