"""Who this machine is, and how it proves it."""

import logging
import re
import socket
import uuid
from pathlib import Path

import msgspec

from .roots import Roots, read_text, wire_text
from .settings import Settings, SettingsError

log = logging.getLogger(__name__)

# machine-id(5): the id is confidential and must not leave the machine; what is derived from it within a namespace
# of the application's own may.
_NAMESPACE = uuid.UUID("0b7a5d0e-5f0c-4c1e-9a39-6d1f2f1c7c55")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}\Z")
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")


class Identity(msgspec.Struct, frozen=True):
    """The names under which the service knows this machine."""

    server_id: str
    server_guid: str | None
    hostname: str


def identify(settings: Settings) -> Identity:
    """From the settings where they say, else from the machine.

    Raises SettingsError if neither gives a server_id.
    """
    hostname = (settings.hostname or machine_hostname(settings.roots))[:255]
    guid = server_guid(settings.roots)
    server_id = settings.server_id or server_id_from(hostname)
    if not server_id:
        raise SettingsError(
            f'LINKBEAT_SERVER_ID: is required, because no server id can be derived from the hostname "{hostname}"'
        )
    return Identity(server_id=server_id, server_guid=guid, hostname=hostname)


def machine_hostname(roots: Roots) -> str:
    """The machine's hostname; the host's, where a container's agent can read it. "localhost" where there is none."""
    # A container's own hostname is a random id that changes with every start.
    if roots.is_foreign:
        try:
            named = wire_text(read_text(roots.tree / "etc/hostname").strip())
        except OSError:
            named = ""
        if named:
            return named
    return wire_text(socket.gethostname()) or "localhost"


def server_id_from(hostname: str) -> str:
    """`hostname` in the characters of a server id (1-100 of letters, digits, '.', '_', '-'); "" if none is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", hostname).strip("-")[:100]


def server_guid(roots: Roots) -> str | None:
    """A stable id of this installation, derived from the machine id; None where there is none."""
    try:
        machine_id = read_text(roots.tree / "etc/machine-id").strip()
    except OSError:
        return None
    return str(uuid.uuid5(_NAMESPACE, machine_id)) if _MACHINE_ID.match(machine_id) else None


class ApiKey:
    """The bearer token, from the environment or from a file that may be replaced while the agent runs."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError if the token's file cannot be used."""
        self._path = Path(settings.api_key_file) if settings.api_key_file else None
        self.value = settings.api_key
        if self._path:
            try:
                self.value = _read_token(self._path)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise SettingsError(f'LINKBEAT_API_KEY_FILE: "{self._path}": {reason}') from None

    def read_again(self) -> bool:
        """Whether the file holds another token than before, which is used from now on."""
        if self._path is None:
            return False
        try:
            value = _read_token(self._path)
        except (OSError, ValueError) as error:
            log.warning("LINKBEAT_API_KEY_FILE: %s: %s; still using the token read before", self._path, error)
            return False
        changed, self.value = value != self.value, value
        return changed


def _read_token(path: Path) -> str:
    token = read_text(path).strip()
    # A line break or a non-ASCII letter cannot stand in an HTTP header.
    if not _TOKEN.match(token):
        raise ValueError("does not contain exactly one token of visible ASCII characters")
    return token
