"""The secrets that the service keeps beside its data: the fleet key, and the key that tokens are hashed with."""

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
            key = _read(path, variable, is_ours=False)
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
        return _read(path, "LINKBEAT_DATA_DIR", is_ours=True)
    except OSError as raised:
        raise SettingsError(f"LINKBEAT_DATA_DIR: {path} cannot be used: {raised.strerror}") from raised


def _read(path: Path, variable: str, *, is_ours: bool) -> str:
    """A key that nobody else can have put there.

    is_ours     made by us: not a link, and for its owner alone. Another file may be one that an administrator or a
                container's platform mounts, which everybody inside may read.

    Raises OSError, and SettingsError where the file's owner or mode let another account choose the key, or read ours.
    """
    # Not to wait for a writer where somebody put a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if is_ours else 0))
    with os.fdopen(descriptor, encoding="latin-1") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(f"{variable}: {path} is not a file")
        if found.st_uid not in (os.geteuid(), 0):
            owner = account_name(found.st_uid)
            if os.geteuid() != 0 or found.st_uid != path.parent.stat().st_uid:
                raise SettingsError(f"{variable}: {path} belongs to {owner}, who knows that key and can change it")
            log.warning("%s belongs to %s, as does its directory: that account knows the key, and can change it",
                        path, owner)  # fmt: skip
        if found.st_mode & (0o007 if is_ours else 0o002):
            raise SettingsError(f"{variable}: {path} is open to every user; run: chmod 600 {path}")
        if is_ours and found.st_mode & 0o070:
            log.warning("%s is open to its group, who then has every right of the key; chmod 600 closes it", path)
        return file.read().strip()


def _create(path: Path) -> None:
    """Writes a new key, 0600 from the first byte; whole or not at all, and never over another process's."""
    if path.exists():
        return
    if os.geteuid() == 0 and (owner := path.parent.stat().st_uid) != 0:
        raise SettingsError(
            f"LINKBEAT_DATA_DIR: {path.parent} belongs to {account_name(owner)}, who could replace the keys that root "
            "makes there; start as that account, or take a directory of root's"
        )
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
