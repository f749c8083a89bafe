"""The agent's settings, from LINKBEAT_* environment variables and a TOML file."""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from . import environment
from .environment import ConfigFile, Contradiction, SettingDescription, SettingsError
from .roots import Roots

__all__ = ["Reloaded", "Settings", "SettingsError", "described", "load", "reload", "warnings_about"]

DEFAULT_CONFIG = Path("/etc/linkbeat/agent.toml")
TOKEN_FILE = "token"  # noqa: S105 - a name, beside the configuration file
CREDENTIAL = "linkbeat-token"  # as the systemd unit names it (LoadCredential=)

# \Z and not $: msgspec searches, and $ would let a trailing newline through into an HTTP header.
_URL = r"^https?://(\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\x7f/?#@:\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?\Z"
_KEY = r"^[\x21-\x7e]*\Z"
_SERVER_ID = r"^[A-Za-z0-9._-]{1,100}\Z"
_ROOT = r"^/[^\x00]*\Z"
_A_PATH = {"allowed": "an absolute path", "fixed": True}
_PATTERNS = {"allowed": "a comma-separated list of patterns such as veth*,br-*"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent can be told; a bad value stops it at the start (SettingsError)."""

    config: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="TOML file of settings, whose keys are these names without LINKBEAT_, in small letters; "
            "variables go before it. Without it, /etc/linkbeat/agent.toml where that is there; --config goes before.",
            extra={"allowed": "an absolute path", "environment_only": True},
        ),
    ] = ""
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
            "the token. Without either, systemd's credential linkbeat-token, or the file token beside the "
            "configuration file.",
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
            description="Name of this server in Linkbeat; without it, the hostname in allowed characters. A reload "
            "does not change it.",
            extra={"allowed": "1 to 100 of letters, digits, '.', '_' and '-'", "fixed": True},
        ),
    ] = ""
    hostname: Annotated[str, Meta(max_length=255, description="Hostname to report; without it, the machine's.")] = ""
    interval_seconds: Annotated[
        float, Meta(ge=1, le=3600, description="From one heartbeat to the next.", extra={"unit": "seconds"})
    ] = 30.0
    remote_config: Annotated[
        bool,
        Meta(
            description="Whether the service may set the interval, name interfaces to leave out, and pause the agent.",
        ),
    ] = True
    # A slip at the service reaches the whole fleet within one interval. Six times the traffic and the load is the most
    # that it may cost, and an hour the longest for which a machine may be silent before it hears of the correction.
    min_interval_seconds: Annotated[
        float,
        Meta(ge=1, le=3600, description="Shortest interval that the service may set.", extra={"unit": "seconds"}),
    ] = 5.0
    max_interval_seconds: Annotated[
        float,
        Meta(ge=1, le=3600, description="Longest interval that the service may set.", extra={"unit": "seconds"}),
    ] = 3600.0
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
            "the oldest are dropped and counted. A reload does not change it.",
            extra={"unit": "heartbeats", "fixed": True},
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
            description="The kernel's /proc; in a container, where the host's is mounted. A reload does not change it.",
            extra=_A_PATH,
        ),
    ] = "/proc"
    sys: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="The kernel's /sys; in a container, where the host's is mounted. A reload does not change it.",
            extra=_A_PATH,
        ),
    ] = "/sys"
    root: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="The root of the file tree to measure; in a container, where the host's is mounted. A reload "
            "does not change it.",
            extra=_A_PATH,
        ),
    ] = "/"
    spool_dir: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="Directory in which heartbeats wait for the service's acknowledgement, of this agent alone. "
            "Without it, one named after the server id: in systemd's STATE_DIRECTORY; else, for root, in "
            "/var/lib/linkbeat-agent; else in linkbeat-agent under the user's XDG state directory. A reload does not "
            "change it.",
            extra=_A_PATH,
        ),
    ] = ""
    spool_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=65_536,
            description="Most that the spool takes of the disk; past it, the oldest heartbeats are dropped and "
            "counted. The default holds a day at one every 30 s of 20 KiB each, or six of 3 KiB. A reload "
            "does not change it.",
            extra={"unit": "MiB", "fixed": True},
        ),
    ] = 64
    spool_days: Annotated[
        float,
        Meta(
            ge=0.1,
            le=90,
            description="Heartbeats that have waited for longer are dropped and counted. The service refuses those "
            "that are older than its LINKBEAT_OLDEST_HEARTBEAT_DAYS, 7: more than that only fills the disk. "
            "A reload does not change it.",
            extra={"unit": "days", "allowed": "a number of days from 0.1 to 90", "fixed": True},
        ),
    ] = 6.5
    spool_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="A heartbeat is written to the disk only if it has waited for so long. With 0, each is there "
            "before it is sent. With more, an SD card is spared while the service answers, but where the power fails "
            "or the agent is killed, what is not acknowledged of that long is lost. A reload does not "
            "change it.",
            extra={"unit": "seconds", "fixed": True},
        ),
    ] = 0.0
    spool_keep_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Heartbeats are kept for this long after their acknowledgement, as far as the spool has room, "
            "and are sent again when the service's answers name another database, which may lack them: after a "
            "failover, or after a backup was restored. 0: none are kept. A reload does not change it.",
            extra={"unit": "seconds", "fixed": True},
        ),
    ] = 900.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe event to log, on stderr.")
    ] = "info"

    def __post_init__(self) -> None:
        try:
            _ = urlsplit(self.url).port
        except ValueError:
            raise Contradiction("url", f'"{self.url}" has a port that is not from 0 to 65535') from None
        if self.min_interval_seconds > self.max_interval_seconds:
            raise Contradiction(
                "min_interval_seconds",
                f"{self.min_interval_seconds:g} is above max_interval_seconds, which is {self.max_interval_seconds:g}",
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Without any file. Raises SettingsError, whose message names the variable and what is allowed."""
        return environment.load(cls, environ)

    @property
    def roots(self) -> Roots:
        return Roots(proc=self.proc, sys=self.sys, root=self.root)


class Reloaded(NamedTuple):
    """What holds after a reload, and what is to be logged of it."""

    settings: Settings
    complaints: list[str]


def load(environ: Mapping[str, str], config_path: str | None = None) -> Settings:
    """The settings from `environ` and from the file that `config_path`, LINKBEAT_CONFIG or the default names.

    `config` of the answer is the file that was read, "" for none. Raises SettingsError.
    """
    named = config_path or environ.get(environment.variable("config"), "").strip()
    path = Path(named).absolute() if named else DEFAULT_CONFIG
    file = None
    try:
        file = _without_token(environment.read_file(path), environ)
    except FileNotFoundError as error:
        if named:
            raise SettingsError(f"{path}: {error.strerror}") from None
    settings = environment.load(Settings, environ, file)
    token_file = settings.api_key_file
    if not settings.api_key and not token_file:
        token_file = str(_token_file(environ, path) or "")
    return msgspec.structs.replace(settings, config=str(path) if file else "", api_key_file=token_file)


def reload(running: Settings, environ: Mapping[str, str]) -> Reloaded:
    """Reads the settings again from their file. Never raises: where it is wrong now, those that run stay.

    What cannot change while the agent runs (`fixed`) keeps its value; the complaints say so.
    """
    try:
        found = load(environ, running.config or None)
    except SettingsError as error:
        return Reloaded(running, [f"{error}; the settings of before stay"])
    # Without a file at the start and with one now, that one counts: then found.config names it.
    kept = [name for name in environment.fixed(Settings) if getattr(found, name) != getattr(running, name)]
    found = msgspec.structs.replace(found, **{name: getattr(running, name) for name in kept})
    words = [f"{environment.variable(name)} does not change while the agent runs; restart it for that" for name in kept]
    return Reloaded(found, words + warnings_about(found))


def warnings_about(settings: Settings) -> list[str]:
    """A file that holds a token and that every user of the machine can read."""
    paths = [settings.api_key_file]
    with contextlib.suppress(OSError, SettingsError):  # whoever reads it next will say what is wrong
        if settings.config and "api_key" in environment.read_file(Path(settings.config)).values:
            paths.append(settings.config)
    return [f"{path} holds the token, and every user can read it; chmod 600 {path}" for path in paths if _is_open(path)]


def described() -> list[SettingDescription]:
    """Every setting of the agent, for --help and for the test that holds the documentation to it."""
    return environment.describe(Settings)


def _without_token(file: ConfigFile, environ: Mapping[str, str]) -> ConfigFile:
    """`file`, less its token where the environment has one: api_key_file of a file must not go before that."""
    names = ("api_key", "api_key_file")
    if not any(environ.get(environment.variable(name), "").strip() for name in names):
        return file
    return file._replace(values={key: value for key, value in file.values.items() if key not in names})


def _token_file(environ: Mapping[str, str], config: Path) -> Path | None:
    """Where a token is that no setting names. An empty file counts as none: `install` leaves one to be filled."""
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    for path in ([Path(directory, CREDENTIAL)] if directory else []) + [config.with_name(TOKEN_FILE)]:
        try:
            if path.stat().st_size and os.access(path, os.R_OK):
                return path
        except (OSError, ValueError):
            continue
    return None


def _is_open(path: str) -> bool:
    try:
        return bool(path) and bool(Path(path).stat().st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False
