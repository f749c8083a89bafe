"""GET /linkbeat-agent.pyz: the agent as one file, so that a new machine can download it from the service."""

import asyncio
import io
import logging
import zipfile
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from litestar import Request, Response, get

from agent.install import program
from service.http.conditional import has_tag, tag_of

# The output of `make agent`, for every supported Python and platform.
BUILT = Path(__file__).parents[2] / "dist/linkbeat-agent.pyz"
log = logging.getLogger("linkbeat")

_SHEBANG = b"#!/usr/bin/env python3\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive


def packed(files: Mapping[str, bytes]) -> bytes:
    """An executable archive of the agent and msgspec; it starts with agent/archive_main.py."""
    main = files["agent/archive_main.py"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in sorted({**files, "__main__.py": main}.items()):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            zipped.writestr(entry, content)
    return _SHEBANG + archive.getvalue()


def _is_of(built: Path, ours: Mapping[str, bytes]) -> bool:
    """Whether the archive contains this version of the agent: after an upgrade, an older one might not work with this
    service."""
    with zipfile.ZipFile(built) as zipped:
        theirs = {name: zipped.read(name) for name in zipped.namelist() if _is_source(name)}
    return theirs == {name: content for name, content in ours.items() if _is_source(name)}


def _is_source(name: str) -> bool:
    return name.startswith("agent/") and name.endswith(".py")


def handlers() -> list[Any]:
    """Open to anyone: it contains no secret."""
    making = asyncio.Lock()
    made: list[tuple[bytes, str, str]] = []  # the archive, its ETag and its digest

    def archive() -> bytes:
        """The output of `make agent`; otherwise an archive of the running code, for this platform and Python."""
        ours = program()
        if BUILT.exists():
            if _is_of(BUILT, ours):
                return BUILT.read_bytes()
            log.warning("%s has another version and is not served; run: make agent", BUILT)
        return packed(ours)

    def archive_with_digests() -> tuple[bytes, str, str]:
        body = archive()
        return body, tag_of(body), b64encode(sha256(body).digest()).decode()

    @get("/linkbeat-agent.pyz", scope="open", include_in_schema=False)
    async def agent_file(request: Request[Any, Any, Any]) -> Response[Any]:
        async with making:  # once, also for concurrent requests
            if not made:
                made.append(await asyncio.to_thread(archive_with_digests))
        body, etag, digest = made[0]
        # The dashboard puts the digest (RFC 9530) into the command that adds a machine.
        headers = {
            "ETag": etag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
            "Repr-Digest": f"sha-256=:{digest}:",
        }  # fmt: skip
        if has_tag(request.headers.get("if-none-match", ""), etag):
            return Response(None, status_code=304, headers=headers)
        return Response(body, media_type="application/octet-stream", headers=headers)

    return [agent_file]
