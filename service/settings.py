"""The service's settings, all from LINKBEAT_* environment variables."""

import ipaddress
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent import environment
from agent.environment import SettingDescription, SettingsError
from service.directories import default_data_dir

__all__ = ["Settings", "SettingsError", "described", "variable"]

_DAYS = {"unit": "days"}
_NETWORKS = "a comma-separated list of networks such as 10.0.0.0/8,192.0.2.7,2001:db8::/32"
# A key of its own random characters passes; "changeme-changeme-1" and twenty times x do not.
API_KEY_PATTERN = r"^(?=(?:.*?(.)(?!.*\1)){10})[\x21-\x7e]{20,}\Z"
API_KEY_ALLOWED = "at least 20 visible ASCII characters, 10 of them different"
# What the database works by (linkbeat.configure), in the order in which the ages of a row pass by.
_AGES = (
    "oldest_heartbeat_days",
    "compress_after_days",
    "retain_raw_days",
    "retain_1m_days",
    "retain_15m_days",
    "retain_1h_days",
    "retain_1d_days",
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the service can be told; a bad value stops it at the start (SettingsError)."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9.:_-]+\Z",
            description="Address to listen on. 0.0.0.0 or :: lets other machines in.",
            extra={"allowed": "an address or host name of this machine"},
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port to listen on.")] = 8000
    data_dir: Annotated[
        str,
        Meta(
            pattern=r"^/[^\x00]*\Z",
            description="What the service keeps: the fleet key, the secret key, and the embedded database. "
            "Without it, linkbeat under the user's XDG data directory; for root, /var/lib/linkbeat.",
            extra={"allowed": "an absolute path"},
        ),
    ] = ""
    database_url: Annotated[
        str,
        Meta(
            pattern=r"^postgres(ql)?://\S+\Z",
            description="TimescaleDB to use. Without it: the one that LINKBEAT_DATABASE says.",
            extra={"allowed": "a URL such as postgresql://user:password@host:5432/database", "secret": True},
        ),
    ] = ""
    database: Annotated[
        Literal["", "embedded", "docker", "host"],
        Meta(
            description="TimescaleDB to use without LINKBEAT_DATABASE_URL; changes over if the data directory used "
            "another one. Without it: the one that has the data of LINKBEAT_DATA_DIR, and at the first start of all "
            "one in Docker, one installed on this host, or the embedded one.",
            extra={"allowed": "one of embedded, docker, host"},
        ),
    ] = ""
    database_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="TCP port of 127.0.0.1 for tools on which the database that Linkbeat brings along listens. "
            "With 0, it is reached by a Unix socket alone, in a directory that is closed to other users.",
        ),
    ] = 0
    api_key: Annotated[
        str,
        Meta(
            pattern=API_KEY_PATTERN,
            description="The fleet key, which may do everything. Without it, one is made at the first start and "
            "kept in LINKBEAT_DATA_DIR as api_key, readable by its owner alone.",
            extra={"allowed": API_KEY_ALLOWED, "secret": True},
        ),
    ] = ""
    secret_key: Annotated[
        str,
        Meta(
            pattern=r"^[\x21-\x7e]{32,}\Z",
            description="What tokens are hashed with; with another one they are refused. Without it, one is made at "
            "the first start and kept in LINKBEAT_DATA_DIR as secret_key. Services on one database need the same.",
            extra={"allowed": "at least 32 visible ASCII characters", "secret": True},
        ),
    ] = ""
    secret_key_file: Annotated[
        str,
        Meta(
            pattern=r"^/[^\x00]*\Z",
            description="File that holds the secret key, in the place of LINKBEAT_SECRET_KEY.",
            extra={"allowed": "an absolute path"},
        ),
    ] = ""
    accept_x_api_key: Annotated[
        bool, Meta(description="Whether a token may come as X-API-Key, as agents in the field send it.")
    ] = True
    accept_x_agent_token: Annotated[
        bool,
        Meta(
            description="Whether a token may come as X-Agent-Token with X-Server-GUID, as others in the field send it."
        ),
    ] = True
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Proxies whose X-Forwarded-For is believed: the sender is then the right-most address in it "
            "that is none of these. Without it, whoever connects is the sender.",
            extra={"allowed": _NETWORKS},
        ),
    ] = ()
    connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Connections of one address (of IPv6, one /64) at once. Past it, its oldest idle one is closed "
            "for a new one; where none is idle, the new one gets 503. LINKBEAT_TRUSTED_PROXIES have no such bound.",
        ),
    ] = 2_000
    failed_tokens_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Wrong tokens from one address (of IPv6, one /64); past it, 429. What was right from there "
            "goes on being accepted.",
        ),
    ] = 100
    server_requests_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Requests with one server's token; past it, 429. Fleet tokens have none.",
        ),
    ] = 600
    read_requests_per_minute: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Requests with one read or admin token; past it, 429.")
    ] = 6_000
    oldest_heartbeat_days: Annotated[
        float,
        Meta(
            ge=1,
            le=90,
            description="A heartbeat whose timestamp is older is refused. The aggregates take late ones in for a day "
            "longer, and by then nothing may have been compressed: LINKBEAT_COMPRESS_AFTER_DAYS is more.",
            extra=_DAYS,
        ),
    ] = 7.0
    compress_after_days: Annotated[
        float,
        Meta(
            ge=2,
            le=3_650,
            description="Rows and buckets that are older are compressed, where TimescaleDB's edition can. "
            "LINKBEAT_RETAIN_RAW_DAYS is more.",
            extra=_DAYS,
        ),
    ] = 9.0
    retain_raw_days: Annotated[
        float,
        Meta(
            ge=2,
            le=36_500,
            description="How long the rows themselves are kept. The buckets that are made of them are kept at least as "
            "long, the wider the longer.",
            extra=_DAYS,
        ),
    ] = 14.0
    retain_1m_days: Annotated[
        float,
        Meta(
            ge=2,
            le=36_500,
            description="How long buckets of a minute are kept. The 95th percentile of a billing month is made of "
            "them: 35 days are its 31 and four in which the bill can be asked for.",
            extra=_DAYS,
        ),
    ] = 35.0
    retain_15m_days: Annotated[
        float, Meta(ge=2, le=36_500, description="How long buckets of a quarter of an hour are kept.", extra=_DAYS)
    ] = 400.0
    retain_1h_days: Annotated[
        float, Meta(ge=2, le=36_500, description="How long buckets of an hour are kept.", extra=_DAYS)
    ] = 1_826.0
    retain_1d_days: Annotated[
        float, Meta(ge=2, le=36_500, description="How long buckets of a day are kept.", extra=_DAYS)
    ] = 1_826.0
    queue_heartbeats: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Heartbeats that may wait for the database in one process; past it, 503 at once.",
            extra={"unit": "heartbeats"},
        ),
    ] = 5_000
    max_series: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Interfaces of one server that have a series of their own; the youngest beyond it are folded "
            "into one series per kind.",
            extra={"unit": "series"},
        ),
    ] = 256
    fold_minutes: Annotated[
        float,
        Meta(
            ge=0,
            le=10_080,
            description="How long an interface of the kinds that come and go (veth and others) is folded into one "
            "series per kind before it has a series of its own.",
            extra={"unit": "minutes"},
        ),
    ] = 60.0
    alert_seconds: Annotated[
        float,
        Meta(
            ge=5,
            le=300,
            description="How often alerts are evaluated, by one process of all on a database. A turn that takes "
            "longer is said in /health/ready.",
            extra={"unit": "seconds"},
        ),
    ] = 15.0
    cors_origins: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(\*|https?://[^/\s,]+)\Z")], ...],
        Meta(
            description="Origins whose pages may call the API from a browser, with a token of their own: reading, not "
            "reporting. Without it, none may; * is every origin.",
            extra={"allowed": "a comma-separated list of origins such as https://dash.example.net"},
        ),
    ] = ()
    metrics_public: Annotated[
        bool,
        Meta(description="Whether /metrics answers without a key. It names no server; it tells how busy the fleet is."),
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe event to log, on stderr.")
    ] = "info"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Raises SettingsError, whose message names the variable, or the variables, and what is allowed."""
        settings = environment.load(cls, environ)
        settings._check_ages()
        settings._check_networks()
        return settings

    def __repr__(self) -> str:
        """Without the secrets: what is shown is logged."""
        secrets = {one.variable for one in described() if one.secret}
        shown = (
            f"{name}={'…' if variable(name) in secrets and value else repr(value)}"
            for name, value in zip(self.__struct_fields__, msgspec.structs.astuple(self), strict=True)
        )
        return f"Settings({', '.join(shown)})"

    def database_configuration(self) -> dict[str, float]:
        """What the database itself works by: linkbeat.configuration, as `migrate` sets it."""
        return {name: getattr(self, name) for name in _AGES}

    def _check_ages(self) -> None:
        """A refresh must find all that it takes in: nothing within its reach may be compressed yet, or dropped."""
        for younger, older in itertools.pairwise(_AGES):
            # A refresh reaches a day beyond the oldest heartbeat (linkbeat.apply_configuration).
            least = getattr(self, younger) + (younger == "oldest_heartbeat_days")
            found = getattr(self, older)
            is_strict = younger in ("oldest_heartbeat_days", "compress_after_days")
            if found < least or (is_strict and found == least):
                raise SettingsError(
                    f"{variable(older)}: {found:g} days is not {'above' if is_strict else 'at least'} {least:g}, "
                    f"which {variable(younger)} asks for"
                )

    def _check_networks(self) -> None:
        for one in self.trusted_proxies:
            try:
                ipaddress.ip_network(one, strict=False)
            except ValueError:
                raise SettingsError(f'{variable("trusted_proxies")}: "{one}" is not {_NETWORKS}') from None

    @property
    def data_path(self) -> Path:
        """The data directory, whether it was named or not."""
        return Path(self.data_dir) if self.data_dir else default_data_dir()


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return environment.PREFIX + name.upper()


def described() -> list[SettingDescription]:
    """Every setting of the service, for the test that holds the documentation to it."""
    return environment.describe(Settings)
