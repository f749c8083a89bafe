"""Sparklines as pictures, for pages that can show an image but not call an API; and signed links to them.

A picture is drawn from the bytes of the JSON response and cached with them (service/cache.py): it costs no additional
query.
"""

import logging
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from service.access.identity import Caller
from service.access.tokens import Tokens
from service.cache import Form, Reader
from service.database.names import check_known
from service.http.conditional import NOT_MODIFIED
from service.http.errors import Problem
from service.http.json_body import body
from service.http.parameters import InterfaceFilter
from service.http.problems import problems
from service.pictures import charts
from service.pictures.drawing import STYLE, Look, Theme, draw
from service.pictures.links import DAY_SECONDS, DEFAULT_DAYS, Links, Metric, NewPicture, Picture
from service.traffic import gauges, sparkline
from service.traffic.gauges import MountPoint
from service.traffic.periods import Grid, PeriodName, grid

log = logging.getLogger("linkbeat")

MEDIA_TYPE = "image/svg+xml; charset=utf-8"
# The maximum age of a picture in caches: one bucket, and never more than this.
LONGEST_AGE_SECONDS = 300
_STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()

Width = Annotated[int, QueryParameter(ge=40, le=2000, description="In pixels.")]
Height = Annotated[int, QueryParameter(ge=16, le=1000, description="In pixels.")]
Colours = Annotated[
    Theme, QueryParameter(description="`auto` follows the preference of the browser or the page around the picture.")
]
Label = Annotated[Literal["on", "off"], QueryParameter(description="`on`: name and figures as text, if there is room.")]


class PictureLink(msgspec.Struct, frozen=True):
    """The path of the picture on this service. `period`, `width`, `height`, `theme` and `label` may be added."""

    path: str
    expires_at: datetime


class Asked(NamedTuple):
    """The parameters of pictures of all metrics."""

    buckets: Grid
    look: Look


Wanted = NamedDependency[Asked]


def router(reader: Reader, tokens: Tokens, links: Links) -> Router:
    """POST /pictures, and GET /metrics/sparkline/{server_id}/….svg."""

    def asked_for(
        period: PeriodName = "24h",
        width: Width = 160,
        height: Height = 32,
        theme: Colours = "auto",
        label: Label = "on",
    ) -> Asked:
        return Asked(grid(period, None, reader.clock.now()), Look(width, height, theme, label == "on"))

    def picture(metric: Metric) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
        async def maker(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
            return await links.maker(_asked_for(connection, metric), connection.query_params["link"], tokens)

        return get(
            f"/metrics/sparkline/{{server_id:str}}/{metric}.svg",
            link=maker,
            summary=f"Picture of a server's {metric}",
            operation_id=f"Picture{metric.title()}",
            media_type=MEDIA_TYPE,
            dependencies={"asked": Provide(asked_for, sync_to_thread=False)},
            responses=problems(401, 404, 422, 503) | NOT_MODIFIED,
            tags=["pictures"],
        )

    @picture("network")
    async def network(
        request: Request[Any, Caller, Any],
        server_id: FromPath[str],
        asked: Wanted,
        interface: InterfaceFilter = None,
    ) -> Response[bytes]:
        """Received traffic above the axis, sent traffic below it; without `interface`, all traffic of the server."""
        form = _form(request, asked, charts.of_traffic)
        return await sparkline.of_server(request, reader, server_id, interface, asked.buckets, form=form)

    def host(metric: charts.Pictured) -> HTTPRouteHandler:
        @picture(metric)
        async def read_host(
            request: Request[Any, Caller, Any], server_id: FromPath[str], asked: Wanted
        ) -> Response[bytes]:
            """The mean of each bucket, on a scale up to 100 percent; for the temperature, from 0 °C on."""
            form = _form(request, asked, charts.of_gauge)
            return await gauges.of_host(request, reader, metric, server_id, asked.buckets, form=form)

        return read_host

    @picture("filesystem")
    async def filesystem(
        request: Request[Any, Caller, Any],
        server_id: FromPath[str],
        asked: Wanted,
        mount_point: MountPoint,
    ) -> Response[bytes]:
        """Use of the filesystem, on a scale up to 100 percent."""
        form = _form(request, asked, charts.of_filesystem)
        return await gauges.of_filesystem(request, reader, server_id, mount_point, asked.buckets, form=form)

    @post(
        "/pictures",
        scope="read",
        summary="Create a link to a picture",
        responses=problems(400, 404, 408, 413, 415, 422, 503),
        tags=["pictures"],
    )
    async def create_link(request: Request[Any, Caller, Any]) -> Response[PictureLink]:
        """The link shows only that picture, without a token, until it expires or the token that made it is revoked."""
        if request.auth.user:
            # A link ends with the token that made it, and a proxy's user has none.
            raise Problem("forbidden", "a link is made with a token, and you are signed in by a proxy")
        new = await body(request, NewPicture)
        if new.interface is not None and new.metric != "network":
            raise Problem.invalid("interface", "is only allowed for metric network")
        if (new.mount_point is not None) != (new.metric == "filesystem"):
            raise Problem.invalid("mount_point", "is required for metric filesystem, and not allowed for any other")
        await check_known(reader.database, new.server_id)
        expires = int(time.time() + (new.expires_in_days or DEFAULT_DAYS) * DAY_SECONDS)
        wanted = Picture(new.server_id, new.metric, new.mount_point or new.interface)
        query = {
            name: value
            for name, value in (
                ("interface", new.interface),
                ("mount_point", new.mount_point),
                ("link", links.sign(wanted, request.auth.token_id, expires)),
            )
            if value is not None
        }
        caller = request.auth
        log.info("link to %s's %s made by %s from %s", new.server_id, new.metric, caller.name, caller.peer)
        path = f"/api/v1/metrics/sparkline/{quote(new.server_id, safe='')}/{new.metric}.svg?{urlencode(query)}"
        made = PictureLink(path, datetime.fromtimestamp(expires, UTC))
        return Response(made, status_code=201, headers={"Cache-Control": "no-store"})

    return Router("/", route_handlers=[network, *map(host, charts.GAUGES), filesystem, create_link])


def max_age_seconds(bucket_seconds: int) -> int:
    """How long caches may show a picture before they revalidate it."""
    return min(bucket_seconds, LONGEST_AGE_SECONDS)


def _asked_for(connection: ASGIConnection[Any, Any, Any, Any], metric: Metric) -> Picture:
    """The picture that a link must be valid for."""
    for name in ("interface", "mount_point", "link"):
        if len(connection.query_params.getall(name, [])) > 1:  # one could be checked, and another one shown
            raise Problem("forbidden", f"a link must have exactly one {name}")
    of = {"network": "interface", "filesystem": "mount_point"}.get(metric)
    return Picture(connection.path_params["server_id"], metric, connection.query_params.get(of) if of else None)


def _form(request: Request[Any, Caller, Any], asked: Asked, charting: charts.Charting) -> Form:
    buckets, look = asked
    is_linked = request.auth.kind == "link"
    # With a link, anybody with the address may see it, so shared caches may store it; with a token, only its bearer.
    cached_by = "public" if is_linked else "private"
    style = f"; style-src 'sha256-{_STYLE_HASH}'" if look.theme == "auto" else ""
    return Form(
        ("picture", look),
        lambda json: draw(charting(json, buckets), look),
        MEDIA_TYPE,
        {
            "Cache-Control": f"{cached_by}, max-age={max_age_seconds(buckets.bucket_seconds)}",
            **({} if is_linked else {"Vary": "Authorization, Cookie"}),
            "Content-Security-Policy": f"default-src 'none'{style}",
            "X-Content-Type-Options": "nosniff",
            # Any page may show it in an <img>, also pages with cross-origin isolation (COEP).
            "Cross-Origin-Resource-Policy": "cross-origin",
        },
        # Only a token may force a refresh: with a link, anybody could cause a query for each request.
        may_renew=not is_linked,
    )
