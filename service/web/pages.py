"""The dashboard's pages and their files: static, from memory, with headers that let them load nothing from elsewhere.

A page is the same for everybody and holds no data; its scripts fetch that from /api/v1, as whoever is signed in.
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
# Asked for each time: after an upgrade no page runs with the scripts of before. It costs a round trip and no body.
_ASK = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
_ROOT = b"/static/"


@dataclass(frozen=True)
class File:
    """What is sent, plain and through gzip, each with the tag of its bytes."""

    media_type: str
    body: bytes
    etag: str
    zipped: bytes
    zipped_etag: str


class Files:
    """All of `directory`, read and compressed once.

    Pages name the files by a path that changes with any of them (`/static/<version>/…`), so that a browser keeps them
    and asks for none again; scripts name each other relatively, and so do the same.
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
        """Raises NotFoundException for a file that there is not."""
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
        """Below /static/, with this version before it or without."""
        version, _, name = path.partition("/")
        if version == self.version:
            return self.answer(request, name, _FOR_EVER)
        # A page of another version, from another process while they are replaced one by one: the file as it is here.
        if name and path not in self._files and len(version) == len(self.version):
            return self.answer(request, name)
        return self.answer(request, path)


def handlers(files: Files) -> list[Any]:
    """The pages and /static/; open to anyone, since nothing of the fleet is in them."""
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

    @get("/sign-in", **pages)
    async def sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
        return files.answer(request, "sign-in.html")

    @get("/static/{path:path}", **pages)
    async def static(request: Request[Any, Any, Any], path: FromPath[str]) -> Response[Any]:
        return files.static(request, path.removeprefix("/"))

    return [fleet, server, alerts, sign_in, static]


def unknown(
    files: Files, otherwise: Callable[[Request[Any, Any, Any], Any], Response[Any]]
) -> Callable[[Request[Any, Any, Any], NotFoundException], Response[Any]]:
    """What answers an unknown path: a page to a person's browser, and to programs what they are told otherwise."""

    def on_not_found(request: Request[Any, Any, Any], raised: NotFoundException) -> Response[Any]:
        is_page = not request.url.path.startswith(("/api/", "/static/"))
        if is_page and request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return files.answer(request, "unknown.html", status=404)
        return otherwise(request, raised)

    return on_not_found


def _is_page(name: str) -> bool:
    return name.endswith(".html")


def _file(name: str, body: bytes) -> File:
    zipped = gzip.compress(body, 9, mtime=0)  # without the time, every process has the same bytes and tag
    if len(zipped) > len(body) * 0.9:
        zipped = b""
    return File(_TYPES[Path(name).suffix], body, tag_of(body), zipped, tag_of(zipped))
