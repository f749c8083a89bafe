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
_TAG = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}(=[A-Za-z0-9._:/@+-]{1,63})?\Z"
MAX_TAGS = 32
_A_PATH = {"allowed": "an absolute path", "fixed": True}
_PATTERNS = {"allowed": "a comma-separated list of patterns such as veth*,br-*"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the agent. An invalid value prevents the start (SettingsError)."""

    config: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="TOML file with settings: its keys are these names without LINKBEAT_, in lower case. "
            "Environment variables take precedence over it, and --config takes precedence over this variable. "
            "Default: /etc/linkbeat/agent.toml, if it exists.",
            extra={"allowed": "an absolute path", "environment_only": True},
        ),
    ] = ""
    url: Annotated[
        str,
        Meta(
            pattern=_URL,
            description="URL of the service. Redirects are not followed.",
            extra={"allowed": "a URL such as https://linkbeat.example.net or http://127.0.0.1:8000"},
        ),
    ] = "http://127.0.0.1:8000"
    api_key: Annotated[
        str,
        Meta(
            pattern=_KEY,
            description="The token of this server, or a fleet token.",
            extra={"secret": True, "allowed": "a token of visible ASCII characters"},
        ),
    ] = ""
    api_key_file: Annotated[
        str,
        Meta(
            description="File that contains the token; takes precedence over LINKBEAT_API_KEY. Read again when the "
            "service rejects the token. Without either: systemd's credential linkbeat-token, or the file token next "
            "to the configuration file.",
            extra={"allowed": "a path"},
        ),
    ] = ""
    ca_file: Annotated[
        str,
        Meta(
            description="PEM file of the certificate authorities to trust for https, instead of the system's.",
            extra={"allowed": "a path"},
        ),
    ] = ""
    server_id: Annotated[
        str,
        Meta(
            pattern=_SERVER_ID,
            description="Name of this server in Linkbeat. Default: the hostname, reduced to the allowed characters. A "
            "reload does not change it.",
            extra={"allowed": "1 to 100 of letters, digits, '.', '_' and '-'", "fixed": True},
        ),
    ] = ""
    hostname: Annotated[str, Meta(max_length=255, description="Hostname to report. Default: the machine's.")] = ""
    interval_seconds: Annotated[
        float, Meta(ge=1, le=3600, description="Time between heartbeats.", extra={"unit": "seconds"})
    ] = 30.0
    remote_config: Annotated[
        bool,
        Meta(
            description="Whether the service may set the interval, select interfaces, and pause the agent.",
        ),
    ] = True
    # A mistake at the service reaches the whole fleet within one interval. With these bounds it costs at most six times
    # the traffic and load, and a machine is silent for at most an hour before it receives the correction.
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
            description="The first heartbeat is sent after a random delay of up to this time, and at most one "
            "interval, so that a fleet that starts at the same time does not report at the same time.",
            extra={"unit": "seconds"},
        ),
    ] = 30.0
    timeout_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=300,
            description="Timeout for connecting to the service, and for its response.",
            extra={"unit": "seconds"},
        ),
    ] = 10.0
    backlog_heartbeats: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Heartbeats kept in memory while the spool cannot be written, at most 4 MiB; above it, the "
            "oldest are dropped and counted. A reload does not change it.",
            extra={"unit": "heartbeats", "fixed": True},
        ),
    ] = 120
    include_interfaces: Annotated[
        tuple[str, ...], Meta(description="Interfaces to report. Default: all except lo.", extra=_PATTERNS)
    ] = ()
    exclude_interfaces: Annotated[
        tuple[str, ...],
        Meta(
            description="Interfaces to leave out; takes precedence over LINKBEAT_INCLUDE_INTERFACES.", extra=_PATTERNS
        ),
    ] = ()
    tags: Annotated[
        tuple[Annotated[str, Meta(pattern=_TAG)], ...],
        Meta(
            description="Tags of this machine, to filter, group and alert by. Of two with the same key, the one that "
            "an administrator sets at the service takes precedence.",
            extra={"allowed": "a comma-separated list of words and key=value pairs such as web,site=home"},
        ),
    ] = ()
    proc: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="The kernel's /proc; in a container, the mount point of the host's. A reload does not change "
            "it.",
            extra=_A_PATH,
        ),
    ] = "/proc"
    sys: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="The kernel's /sys; in a container, the mount point of the host's. A reload does not change "
            "it.",
            extra=_A_PATH,
        ),
    ] = "/sys"
    root: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="Root of the file tree to measure; in a container, the mount point of the host's. A reload "
            "does not change it.",
            extra=_A_PATH,
        ),
    ] = "/"
    spool_dir: Annotated[
        str,
        Meta(
            pattern=_ROOT,
            description="Directory in which heartbeats wait for the service's acknowledgement; each agent needs its "
            "own. Default: a directory named after the server id in systemd's STATE_DIRECTORY; otherwise in "
            "/var/lib/linkbeat-agent for root, and in linkbeat-agent in the user's XDG state directory. A reload does "
            "not change it.",
            extra=_A_PATH,
        ),
    ] = ""
    spool_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=65_536,
            description="Maximum size of the spool; above it, the oldest heartbeats are dropped and counted. The "
            "default holds one day of heartbeats of 20 KiB every 30 s, or six days of 3 KiB. A reload does not change "
            "it.",
            extra={"unit": "MiB", "fixed": True},
        ),
    ] = 64
    spool_days: Annotated[
        float,
        Meta(
            ge=0.1,
            le=90,
            description="Heartbeats that have waited longer are dropped and counted. The service rejects heartbeats "
            "older than its LINKBEAT_OLDEST_HEARTBEAT_DAYS, 7 by default: keeping them longer only fills the disk. A "
            "reload does not change it.",
            extra={"unit": "days", "allowed": "a number of days from 0.1 to 90", "fixed": True},
        ),
    ] = 6.5
    spool_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="A heartbeat is written to disk only after it has waited this long. With 0, every heartbeat "
            "is on disk before it is sent. A longer delay spares an SD card while the service answers; if the power "
            "fails or the agent is killed, unacknowledged heartbeats of that time are lost. A reload does not change "
            "it.",
            extra={"unit": "seconds", "fixed": True},
        ),
    ] = 0.0
    spool_keep_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Heartbeats are kept for this long after their acknowledgement, while the spool has room, and "
            "are sent again when the service's responses name another database, which may lack them: after a failover "
            "or the restore of a backup. With 0, none are kept. A reload does not change it.",
            extra={"unit": "seconds", "fixed": True},
        ),
    ] = 900.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Minimum severity of messages to log to stderr.")
    ] = "info"

    def __post_init__(self) -> None:
        try:
            _ = urlsplit(self.url).port
        except ValueError:
            raise Contradiction("url", f'"{self.url}" has a port that is not between 0 and 65535') from None
        keys = [tag.partition("=")[0] for tag in self.tags]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise Contradiction("tags", f'"{self.tags[place]}" has the same key as "{self.tags[keys.index(key)]}"')
        if len(keys) > MAX_TAGS:
            raise Contradiction("tags", f"at most {MAX_TAGS} tags are allowed, got {len(keys)}")
        if self.min_interval_seconds > self.max_interval_seconds:
            raise Contradiction(
                "min_interval_seconds",
                f"{self.min_interval_seconds:g} is above max_interval_seconds, which is {self.max_interval_seconds:g}",
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Reads no file. Raises SettingsError, whose message names the variable and the allowed values."""
        return environment.load(cls, environ)

    @property
    def roots(self) -> Roots:
        return Roots(proc=self.proc, sys=self.sys, root=self.root)


class Reloaded(NamedTuple):
    """The settings after a reload, and the warnings to log."""

    settings: Settings
    complaints: list[str]


def load(environ: Mapping[str, str], config_path: str | None = None) -> Settings:
    """The settings from `environ` and from the file that `config_path`, LINKBEAT_CONFIG or the default names.

    `config` of the result is the file that was read, "" for none. Raises SettingsError.
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
    """Reads the settings again from their file. Never raises: if the file is invalid, the running settings stay.

    Settings that cannot change while the agent runs (`fixed`) keep their values; `complaints` names them.
    """
    try:
        found = load(environ, running.config or None)
    except SettingsError as error:
        return Reloaded(running, [f"{error}; the previous settings stay in effect"])
    # A file that did not exist at the start is used from now on: found.config names it.
    kept = [name for name in environment.fixed(Settings) if getattr(found, name) != getattr(running, name)]
    found = msgspec.structs.replace(found, **{name: getattr(running, name) for name in kept})
    words = [
        f"{environment.variable(name)} cannot change while the agent runs; restart it to apply the change"
        for name in kept
    ]
    return Reloaded(found, words + warnings_about(found))


def warnings_about(settings: Settings) -> list[str]:
    """A warning for each file that contains the token and that every user of the machine can read."""
    paths = [settings.api_key_file]
    with contextlib.suppress(OSError, SettingsError):  # the next reload reports the error
        if settings.config and "api_key" in environment.read_file(Path(settings.config)).values:
            paths.append(settings.config)
    return [
        f"{path} contains the token and is readable by every user; run: chmod 600 {path}"
        for path in paths
        if _is_open(path)
    ]


def described() -> list[SettingDescription]:
    """Every setting of the agent, for --help and for the test that compares the documentation."""
    return environment.describe(Settings)


def _without_token(file: ConfigFile, environ: Mapping[str, str]) -> ConfigFile:
    """`file` without its token if the environment has one: api_key_file of the file must not take precedence over
    it."""
    names = ("api_key", "api_key_file")
    if not any(environ.get(environment.variable(name), "").strip() for name in names):
        return file
    return file._replace(values={key: value for key, value in file.values.items() if key not in names})


def _token_file(environ: Mapping[str, str], config: Path) -> Path | None:
    """The default file of the token. An empty file counts as missing: `install` creates one to be filled in."""
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
