"""The pages of the dashboard and their files: served from memory, with headers that forbid loading from other hosts.

A page is the same for everybody and contains no data; its scripts fetch that from /api/v1 with the session of the user.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from service.http.conditional import accepts_gzip, has_tag, tag_of

STATIC = Path(__file__).with_name("static")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
# Revalidated each time, so that after an upgrade no page uses old scripts. It costs a round trip and no body.
_ASK = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
_ROOT = b"/static/"


@dataclass(frozen=True)
class File:
    """A file, plain and compressed, each with its ETag."""

    media_type: str
    body: bytes
    etag: str
    zipped: bytes
    zipped_etag: str


class Files:
    """The files of `directory`, read and compressed once.

    Pages refer to them by a path that changes with any of them (`/static/<version>/…`), so that browsers cache them
    permanently; scripts import each other by relative paths.
    """

    def __init__(self, directory: Path = STATIC) -> None:
        found = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.suffix in _TYPES
        }
        state = blake2b(digest_size=6)
        for name, body in found.items():
            state.update(name.encode() + b"\0" + body)
        self.version = state.hexdigest()
        self._files = {
            name: _file(name, body.replace(_ROOT, f"/static/{self.version}/".encode()) if _is_page(name) else body)
            for name, body in found.items()
        }

    def answer(self, request: Request[Any, Any, Any], name: str, cache: str = _ASK, status: int = 200) -> Response[Any]:
        """Raises NotFoundException for an unknown file."""
        file = self._files.get(name)
        if file is None:
            raise NotFoundException
        is_zipped = bool(file.zipped) and accepts_gzip(request.scope)
        etag = file.zipped_etag if is_zipped else file.etag
        headers = {**HEADERS, "ETag": etag, "Cache-Control": cache, "Vary": "Accept-Encoding"}
        if status == 200 and has_tag(request.headers.get("if-none-match", ""), etag):
            return Response(None, status_code=304, headers=headers)
        if is_zipped:
            headers["Content-Encoding"] = "gzip"
        body = file.zipped if is_zipped else file.body
        return Response(body, status_code=status, media_type=file.media_type, headers=headers)

    def static(self, request: Request[Any, Any, Any], path: str) -> Response[Any]:
        """The file below /static/, with or without the version."""
        version, _, name = path.partition("/")
        if version == self.version:
            return self.answer(request, name, _FOR_EVER)
        # Another process with another version may have served the page during a rolling upgrade: serve the current
        # file.
        if name and path not in self._files and len(version) == len(self.version):
            return self.answer(request, name)
        return self.answer(request, path)


def handlers(files: Files) -> list[Any]:
    """The pages and /static/; open to anyone, because they contain no data of the fleet."""
    pages: dict[str, Any] = {"scope": "open", "include_in_schema": False, "media_type": MediaType.HTML}

    @get("/", **pages)
    async def fleet(request: Request[Any, Any, Any]) -> Response[Any]:
        return files.answer(request, "fleet.html")

    @get("/servers/{server_id:str}", **pages)
    async def server(request: Request[Any, Any, Any]) -> Response[Any]:
        return files.answer(request, "server.html")

    @get("/alerts", **pages)
    async def alerts(request: Request[Any, Any, Any]) -> Response[Any]:
        return files.answer(request, "alerts.html")

    @get("/manage", **pages)
    async def manage(request: Request[Any, Any, Any]) -> Response[Any]:
        return files.answer(request, "manage.html")

    @get("/sign-in", **pages)
    async def sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
        return files.answer(request, "sign-in.html")

    @get("/static/{path:path}", **pages)
    async def static(request: Request[Any, Any, Any], path: FromPath[str]) -> Response[Any]:
        return files.static(request, path.removeprefix("/"))

    return [fleet, server, alerts, manage, sign_in, static]


def unknown(
    files: Files, otherwise: Callable[[Request[Any, Any, Any], Any], Response[Any]]
) -> Callable[[Request[Any, Any, Any], NotFoundException], Response[Any]]:
    """The handler of unknown paths: a page for browsers, and the usual error for programs."""

    def on_not_found(request: Request[Any, Any, Any], raised: NotFoundException) -> Response[Any]:
        is_page = not request.url.path.startswith(("/api/", "/static/"))
        if is_page and request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return files.answer(request, "unknown.html", status=404)
        return otherwise(request, raised)

    return on_not_found


def _is_page(name: str) -> bool:
    return name.endswith(".html")


def _file(name: str, body: bytes) -> File:
    zipped = gzip.compress(body, 9, mtime=0)  # without the time, so that every process has the same bytes and ETag
    if len(zipped) > len(body) * 0.9:
        zipped = b""
    return File(_TYPES[Path(name).suffix], body, tag_of(body), zipped, tag_of(zipped))
