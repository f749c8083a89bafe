"""The secrets that the service keeps beside its data: the fleet key, and the key that tokens are hashed with."""

import os
import re
import secrets
import tempfile
from hashlib import blake2b
from pathlib import Path

from service.settings import API_KEY_ALLOWED, API_KEY_PATTERN, Settings, SettingsError

KEY_FILE = "api_key"
SECRET_FILE = "secret_key"  # noqa: S105  # its name
_USABLE = re.compile(API_KEY_PATTERN)  # what a header carries
_SECRET = re.compile(r"[\x21-\x7e]{32,}")  # as LINKBEAT_SECRET_KEY


def fleet_key(settings: Settings) -> str:
    """LINKBEAT_API_KEY, or the key kept in the data directory, made there at the first start.

    Raises SettingsError where the directory cannot be used.
    """
    if settings.api_key:
        return settings.api_key
    path = key_path(settings)
    key = _kept(path)
    if not _USABLE.match(key):
        raise SettingsError(f"LINKBEAT_API_KEY: {path} does not hold {API_KEY_ALLOWED}; remove it to have a key made")
    return key


def key_path(settings: Settings) -> Path:
    """Where the key is kept that nobody chose."""
    return settings.data_path / KEY_FILE


def secret_key(settings: Settings) -> bytes:
    """64 bytes made of LINKBEAT_SECRET_KEY, of LINKBEAT_SECRET_KEY_FILE, or of the key kept in the data directory.

    Raises SettingsError where it cannot be read.
    """
    return blake2b(_secret_text(settings).encode(), person=b"linkbeat key").digest()


def _secret_text(settings: Settings) -> str:
    if settings.secret_key:
        return settings.secret_key
    if settings.secret_key_file:
        path, variable = Path(settings.secret_key_file), "LINKBEAT_SECRET_KEY_FILE"
        try:
            key = path.read_text(encoding="latin-1").strip()
        except OSError as raised:
            raise SettingsError(f"{variable}: {path} cannot be read: {raised.strerror}") from raised
    else:
        path, variable = settings.data_path / SECRET_FILE, "LINKBEAT_SECRET_KEY"
        key = _kept(path)
    if not _SECRET.fullmatch(key):
        raise SettingsError(f"{variable}: {path} does not hold at least 32 visible ASCII characters")
    return key


def _kept(path: Path) -> str:
    """What the file holds, which is made where it is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path)
        return path.read_text(encoding="latin-1").strip()
    except OSError as raised:
        raise SettingsError(f"LINKBEAT_DATA_DIR: {path} cannot be used: {raised.strerror}") from raised


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
