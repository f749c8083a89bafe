"""Who may speak to the service: for now the fleet key, which may report and read everything."""

import hmac
import os
import re
import secrets
import tempfile
from pathlib import Path

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from service.errors import Problem
from service.settings import Settings, SettingsError

KEY_FILE = "api_key"
_USABLE = re.compile(r"[\x21-\x7e]{16,}")  # as LINKBEAT_API_KEY: what a header carries


def fleet_key(settings: Settings) -> str:
    """LINKBEAT_API_KEY, or the key kept in the data directory, made there at the first start.

    Raises SettingsError where the directory cannot be used.
    """
    if settings.api_key:
        return settings.api_key
    path = key_path(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path)
        key = path.read_text(encoding="latin-1").strip()
    except OSError as raised:
        raise SettingsError(f"LINKBEAT_DATA_DIR: {path} cannot be used: {raised.strerror}") from raised
    if not _USABLE.fullmatch(key):
        raise SettingsError(
            f"LINKBEAT_API_KEY: {path} does not hold at least 16 visible ASCII characters; remove it to have a key made"
        )
    return key


def key_path(settings: Settings) -> Path:
    """Where the key is kept that nobody chose."""
    return settings.data_path / KEY_FILE


def _create(path: Path) -> None:
    """Writes a new key, 0600 from the first byte; whole or not at all, and never over another process's."""
    if path.exists():
        return
    # A name of its own each time: one made of the process id would meet, in a container, what a start that was
    # killed has left behind.
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, path)
        except FileExistsError:
            return
    finally:
        new.unlink()


class Identity:
    """Checks what a request carries: `Authorization: Bearer <key>`, or `X-API-Key: <key>` from agents in the field."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def check(self, scope: Scope) -> None:
        """Raises Problem (401) without a valid key."""
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, token = value.partition(b" ")
                if scheme.lower() == b"bearer" and self._is_key(token.strip()):
                    return
            elif name == b"x-api-key" and self._is_key(value):
                return
        raise Problem(
            "unauthorized",
            "send the fleet key as 'Authorization: Bearer <key>'",
            headers={"WWW-Authenticate": 'Bearer realm="linkbeat"'},
        )

    def guard(self, connection: ASGIConnection, _: BaseRouteHandler) -> None:  # type: ignore[type-arg]  # any app state
        """`check` as Litestar's guard."""
        self.check(connection.scope)

    def _is_key(self, token: bytes) -> bool:
        return hmac.compare_digest(token, self._key)  # in constant time: a comparison tells nothing of the key
