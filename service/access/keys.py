"""The secrets in the data directory: the fleet key, and the key that tokens are hashed with."""

import logging
import os
import re
import secrets
import stat
import tempfile
from hashlib import blake2b
from pathlib import Path

from service.embedded.accounts import account_name
from service.settings import API_KEY_ALLOWED, API_KEY_PATTERN, Settings, SettingsError

log = logging.getLogger("linkbeat")

KEY_FILE = "api_key"
SECRET_FILE = "secret_key"  # noqa: S105  # its name
_USABLE = re.compile(API_KEY_PATTERN)  # what a header carries
_SECRET = re.compile(r"[\x21-\x7e]{32,}")  # as LINKBEAT_SECRET_KEY


def fleet_key(settings: Settings) -> str:
    """LINKBEAT_API_KEY, or the key in the data directory, which the first start creates.

    Raises SettingsError if the directory cannot be used.
    """
    if settings.api_key:
        return settings.api_key
    path = key_path(settings)
    key = _kept(path)
    if not _USABLE.match(key):
        raise SettingsError(
            f"LINKBEAT_API_KEY: {path} does not contain {API_KEY_ALLOWED}; remove it, and the next start creates a key"
        )
    return key


def key_path(settings: Settings) -> Path:
    """The file of the generated fleet key."""
    return settings.data_path / KEY_FILE


def secret_key(settings: Settings) -> bytes:
    """64 bytes derived from LINKBEAT_SECRET_KEY, LINKBEAT_SECRET_KEY_FILE, or the key in the data directory.

    Raises SettingsError if the key cannot be read.
    """
    return blake2b(_secret_text(settings).encode(), person=b"linkbeat key").digest()


def _secret_text(settings: Settings) -> str:
    if settings.secret_key:
        return settings.secret_key
    if settings.secret_key_file:
        path, variable = Path(settings.secret_key_file), "LINKBEAT_SECRET_KEY_FILE"
        try:
            key = _read(path, variable, is_ours=False)
        except OSError as raised:
            raise SettingsError(f"{variable}: {path} cannot be read: {raised.strerror}") from raised
    else:
        path, variable = settings.data_path / SECRET_FILE, "LINKBEAT_SECRET_KEY"
        key = _kept(path)
    if not _SECRET.fullmatch(key):
        raise SettingsError(f"{variable}: {path} does not contain at least 32 visible ASCII characters")
    return key


def _kept(path: Path) -> str:
    """The contents of the file, which is created if it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path)
        return _read(path, "LINKBEAT_DATA_DIR", is_ours=True)
    except OSError as raised:
        raise SettingsError(f"LINKBEAT_DATA_DIR: {path} cannot be used: {raised.strerror}") from raised


def _read(path: Path, variable: str, *, is_ours: bool) -> str:
    """Reads a key from a file that no other account can have written.

    is_ours     created by `_create`: not a link, and readable by its owner only. Any other file may be mounted by an
                administrator or a container platform, and be readable by everybody in the container.

    Raises OSError, and SettingsError if the owner or mode of the file lets another account choose the key, or read
    ours.
    """
    # O_NONBLOCK: a named pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if is_ours else 0))
    with os.fdopen(descriptor, encoding="latin-1") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(f"{variable}: {path} is not a file")
        if found.st_uid not in (os.geteuid(), 0):
            owner = account_name(found.st_uid)
            if os.geteuid() != 0 or found.st_uid != path.parent.stat().st_uid:
                raise SettingsError(f"{variable}: {path} belongs to {owner}, who knows the key and can change it")
            log.warning("%s and its directory belong to %s: that account knows the key and can change it",
                        path, owner)  # fmt: skip
        if found.st_mode & (0o007 if is_ours else 0o002):
            raise SettingsError(f"{variable}: {path} is accessible to every user; run: chmod 600 {path}")
        if is_ours and found.st_mode & 0o070:
            log.warning("%s is accessible to its group, which gets every right of the key; run: chmod 600 on it", path)
        return file.read().strip()


def _create(path: Path) -> None:
    """Writes a new key, 0600 from the first byte; whole or not at all, and never over another process's."""
    if path.exists():
        return
    if os.geteuid() == 0 and (owner := path.parent.stat().st_uid) != 0:
        raise SettingsError(
            f"LINKBEAT_DATA_DIR: {path.parent} belongs to {account_name(owner)}, who could replace the keys that root "
            "creates there; start as that account, or set a directory that belongs to root"
        )
    # A unique name each time: in a container, a name derived from the process id would collide with the file that a
    # killed start has left behind.
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
