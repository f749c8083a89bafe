"""The app: the only module that knows all the others."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
from service.access.identity import Caller, Identity, scopes
from service.access.keys import secret_key
from service.access.sessions import Sessions
from service.access.tokens import Hasher, Tokens
from service.cache import Answers, Watch
from service.database import roles
from service.database.maintenance import Maintenance
from service.database.pool import Database, open_database
from service.database.zones import Zones
from service.fleet import agents, interfaces, removal, servers
from service.fleet import overview as fleet
from service.fleet.removal import Removals
from service.http.errors import EXCEPTION_HANDLERS, PRIVATE, on_http_exception
from service.http.numbers import with_plain_numbers
from service.http.reference import ReferencePlugin
from service.ingest import routes as heartbeats
from service.ingest.agent_config import Configurations
from service.ingest.commit import Ingest
from service.metrics import Metrics
from service.openapi import complete
from service.operations import routes as system
from service.operations.collectors import Exposition
from service.pictures import routes as pictures
from service.pictures.links import Links
from service.settings import Settings
from service.traffic import events, export, gauges, history, sparkline
from service.traffic import totals as traffic
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


def create_app(settings: Settings, *, database_url: str, key: str) -> Linkbeat:
    """The service on the database at `database_url`, whose schema has been checked (service.database.schema.check)."""
    secret = secret_key(settings)
    hasher = Hasher(secret)
    signed = Sessions(secret, key)
    files = pages.Files()
    opened: dict[str, Database | Ingest | Configurations | Tokens | Removals] = {}
    answers = Answers()
    metrics = Metrics()

    def database(name: str = "database") -> Database:
        found = opened[name]
        assert isinstance(found, Database)
        return found

    zones = Zones(database)
    live = fleet.live(database)

    def sparklines() -> Database:
        return database("sparklines")

    def exporting() -> Database:
        return database("exporting")

    def writing() -> Database:
        return database("writing")

    def configurations() -> Configurations:
        found = opened["configurations"]
        assert isinstance(found, Configurations)
        return found

    def ingest() -> Ingest:
        found = opened["ingest"]
        assert isinstance(found, Ingest)
        return found

    def tokens() -> Tokens:
        found = opened["tokens"]
        assert isinstance(found, Tokens)
        return found

    def removals() -> Removals:
        found = opened["removals"]
        assert isinstance(found, Removals)
        return found

    def is_reachable() -> bool:
        return ingest().is_connected

    identity = Identity(key, settings, tokens, signed)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with (
            open_database(database_url) as opened["database"],
            open_database(database_url, plans="generic") as opened["sparklines"],
            # Of their own: what exports wait for keeps nobody from a sparkline.
            open_database(database_url, connections=export.EXPORTS_AT_ONCE, seconds=export.PAGE_SECONDS) as opened[
                "exporting"
            ],
            Ingest(
                database_url,
                settings.queue_heartbeats,
                series_budget=settings.max_series,
                fold_seconds=round(settings.fold_minutes * 60),
                on_stored=stored,
            ) as opened["ingest"],
            open_database(database_url, connections=1, role=roles.INGEST) as opened["writing"],
            # Of their own: however many reads wait, a revoked token is refused in time. Each polls one at a time.
            open_database(database_url, connections=2) as opened["following"],
            Configurations(database("following"), is_reachable) as opened["configurations"],
            Tokens(database("following"), writing(), is_reachable, hasher) as opened["tokens"],
            Removals(database_url, database(), is_reachable) as opened["removals"],
            Watch(answers, database()),
            live,
            Maintenance(database_url),
        ):
            yield

    def stored(server_ids: Sequence[str]) -> None:
        answers.forget(server_ids)
        metrics.batch_heartbeats.observe(len(server_ids))

    exposed = Exposition(metrics, ingest, answers, lambda: (database(), sparklines(), writing()))
    at_root, system_routes = system.routers(database, ingest, answers, exposed, identity, settings)
    app = Linkbeat(
        beside=heartbeats.routes(
            ingest, configurations, identity, metrics, timedelta(days=settings.oldest_heartbeat_days)
        ),
        end_waits=live.end,
        leave=identity.leave,
        route_handlers=[
            at_root,
            Router(
                "/",
                route_handlers=[
                    *pages.handlers(files),
                    *sign_in.handlers(signed, identity),
                    *agent_file.handlers(),
                ],
            ),
            Router(
                "/api/v1",
                route_handlers=[
                    servers.router(database),
                    interfaces.router(database),
                    agents.router(database, writing, configurations),
                    fleet.router(database, sparklines, answers, live),
                    access.router(database, writing, tokens, hasher),
                    removal.router(writing, tokens, removals, answers),
                    sparkline.router(sparklines, answers),
                    gauges.router(sparklines, answers),
                    pictures.router(sparklines, answers, tokens, Links(secret, key)),
                    history.router(database),
                    events.router(database),
                    traffic.router(database, answers),
                    usage.router(database, zones, settings),
                    export.router(exporting),
                    quotas.router(database, writing, zones),
                    system_routes,
                ],
            ),
        ],
        guards=[identity.guard],
        after_request=with_plain_numbers,
        lifespan=[lifespan],
        cors_config=_cross_origin(settings.cors_origins),
        exception_handlers={**EXCEPTION_HANDLERS, NotFoundException: pages.unknown(files, on_http_exception)},
        openapi_config=OpenAPIConfig(
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
        ),
        logging_config=None,  # the one that __main__ set up stays
        debug=False,
    )
    complete(app.openapi_schema, scopes(app))
    return app


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
