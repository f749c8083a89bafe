"""The agent's settings, all from LINKBEAT_* environment variables."""

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from agent import environment
from agent.environment import SettingDescription, SettingsError
from agent.roots import Roots

__all__ = ["Settings", "SettingsError", "described"]

# \Z and not $: msgspec searches, and $ would let a trailing newline through into an HTTP header.
_URL = r"^https?://(\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\x7f/?#@:\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?\Z"
_KEY = r"^[\x21-\x7e]*\Z"
_SERVER_ID = r"^[A-Za-z0-9._-]{1,100}\Z"
_ROOT = r"^/[^\x00]*\Z"
_A_PATH = {"allowed": "an absolute path"}
_PATTERNS = {"allowed": "a comma-separated list of patterns such as veth*,br-*"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent can be told; a bad value stops it at the start (SettingsError)."""

    url: Annotated[
        str,
        Meta(
            pattern=_URL,
            description="Where the service listens. Redirects are not followed.",
            extra={"allowed": "a URL such as https://linkbeat.example.net or http://127.0.0.1:8000"},
        ),
    ] = "http://127.0.0.1:8000"
    api_key: Annotated[
        str,
        Meta(
            pattern=_KEY,
            description="Token that the service gave this server, or a fleet token.",
            extra={"secret": True, "allowed": "a token of visible ASCII characters"},
        ),
    ] = ""
    api_key_file: Annotated[
        str,
        Meta(
            description="File that holds the token; goes before LINKBEAT_API_KEY. Read again when the service refuses "
            "the token.",
            extra={"allowed": "a path"},
        ),
    ] = ""
    ca_file: Annotated[
        str,
        Meta(
            description="PEM file of the authorities to trust for https, instead of the system's.",
            extra={"allowed": "a path"},
        ),
    ] = ""
    server_id: Annotated[
        str,
        Meta(
            pattern=_SERVER_ID,
            description="Name of this server in Linkbeat; without it, the hostname in allowed characters.",
            extra={"allowed": "1 to 100 of letters, digits, '.', '_' and '-'"},
        ),
    ] = ""
    hostname: Annotated[str, Meta(max_length=255, description="Hostname to report; without it, the machine's.")] = ""
    interval_seconds: Annotated[
        float, Meta(ge=1, le=3600, description="From one heartbeat to the next.", extra={"unit": "seconds"})
    ] = 30.0
    start_jitter_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="The first heartbeat comes after a random wait of up to this and at most one interval, "
            "so that a fleet that starts together does not report together.",
            extra={"unit": "seconds"},
        ),
    ] = 30.0
    timeout_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=300,
            description="Longest wait for the service to connect or to answer.",
            extra={"unit": "seconds"},
        ),
    ] = 10.0
    backlog_heartbeats: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Heartbeats kept in memory while the spool's disk cannot be written, 4 MiB at most; past that, "
            "the oldest are dropped and counted.",
            extra={"unit": "heartbeats"},
        ),
    ] = 120
    include_interfaces: Annotated[
        tuple[str, ...], Meta(description="Interfaces to report; without it, all but lo.", extra=_PATTERNS)
    ] = ()
    exclude_interfaces: Annotated[
        tuple[str, ...],
        Meta(description="Interfaces to leave out; goes before LINKBEAT_INCLUDE_INTERFACES.", extra=_PATTERNS),
    ] = ()
    proc: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="The kernel's /proc; in a container, where the host's is mounted.",
            extra=_A_PATH,
        ),
    ] = "/proc"
    sys: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="The kernel's /sys; in a container, where the host's is mounted.",
            extra=_A_PATH,
        ),
    ] = "/sys"
    root: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="The root of the file tree to measure; in a container, where the host's is mounted.",
            extra=_A_PATH,
        ),
    ] = "/"
    spool_dir: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="Directory in which heartbeats wait for the service's acknowledgement, of this agent alone. "
            "Without it, one named after the server id: in systemd's STATE_DIRECTORY; else, for root, in "
            "/var/lib/linkbeat-agent; else in linkbeat-agent under the user's XDG state directory.",
            extra=_A_PATH,
        ),
    ] = ""
    spool_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=65_536,
            description="Most that the spool takes of the disk; past it, the oldest heartbeats are dropped and "
            "counted. The default holds a day at one every 30 s of 20 KiB each, or six of 3 KiB.",
            extra={"unit": "MiB"},
        ),
    ] = 64
    spool_days: Annotated[
        float,
        Meta(
            ge=0.1,
            le=90,
            description="Heartbeats that have waited for longer are dropped and counted. The service refuses those "
            "that are older than its LINKBEAT_OLDEST_HEARTBEAT_DAYS, 7: more than that only fills the disk.",
            extra={"unit": "days", "allowed": "a number of days from 0.1 to 90"},
        ),
    ] = 6.5
    spool_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="A heartbeat is written to the disk only if it has waited for so long. With 0, each is there "
            "before it is sent. With more, an SD card is spared while the service answers, but where the power fails "
            "or the agent is killed, what is not acknowledged of that long is lost.",
            extra={"unit": "seconds"},
        ),
    ] = 0.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe event to log, on stderr.")
    ] = "info"

    def __post_init__(self) -> None:
        try:
            _ = urlsplit(self.url).port
        except ValueError:
            raise SettingsError(f'LINKBEAT_URL: "{self.url}" has a port that is not from 0 to 65535') from None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Raises SettingsError, whose message names the variable and what is allowed."""
        return environment.load(cls, environ)

    @property
    def roots(self) -> Roots:
        return Roots(proc=self.proc, sys=self.sys, root=self.root)


def described() -> list[SettingDescription]:
    """Every setting of the agent, for --help and for the test that holds the documentation to it."""
    return environment.describe(Settings)
