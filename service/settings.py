"""The settings of the service, from LINKBEAT_* environment variables."""

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
_HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z"
_NETWORKS = "a comma-separated list of networks such as 10.0.0.0/8,192.0.2.7,2001:db8::/32"
# A key of its own random characters passes; "changeme-changeme-1" and twenty times x do not.
API_KEY_PATTERN = r"^(?=(?:.*?(.)(?!.*\1)){10})[\x21-\x7e]{20,}\Z"
API_KEY_ALLOWED = "at least 20 visible ASCII characters, 10 of them different"
# The settings that the database uses (linkbeat.configure), in the order of a row's age.
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
    """The settings of the service. An invalid value prevents the start (SettingsError)."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9.:_-]+\Z",
            description="Address to listen on. 0.0.0.0 or :: accepts connections from other machines.",
            extra={"allowed": "an address or host name of this machine"},
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port to listen on.")] = 8000
    data_dir: Annotated[
        str,
        Meta(
            pattern=r"^/[^\x00]*\Z",
            description="Directory of the fleet key, the secret key and the embedded database. Default: linkbeat in "
            "the user's XDG data directory; for root, /var/lib/linkbeat.",
            extra={"allowed": "an absolute path"},
        ),
    ] = ""
    database_url: Annotated[
        str,
        Meta(
            pattern=r"^postgres(ql)?://\S+\Z",
            description="TimescaleDB to use; of several hosts, separated by commas, the primary. "
            "Without it: the one that LINKBEAT_DATABASE selects.",
            extra={"allowed": "a URL such as postgresql://user:password@host:5432,host2:5432/database", "secret": True},
        ),
    ] = ""
    database: Annotated[
        Literal["", "embedded", "docker", "host"],
        Meta(
            description="Kind of TimescaleDB to use without LINKBEAT_DATABASE_URL; another kind than before starts "
            "with an empty database. Default: the kind that holds the data of LINKBEAT_DATA_DIR; at the first start, "
            "Docker, an installation on this host, or the embedded one, whichever is available first.",
            extra={"allowed": "one of embedded, docker, host"},
        ),
    ] = ""
    database_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="TCP port on 127.0.0.1, for tools, of the database that Linkbeat starts. With 0 it listens "
            "only on a Unix socket, in a directory that other users cannot access.",
        ),
    ] = 0
    read_database_url: Annotated[
        str,
        Meta(
            pattern=r"^postgres(ql)?://\S+\Z",
            description="Streaming replicas of the same database for reads; several hosts are separated by commas "
            "(docs/many-services.md). Without it, the primary answers everything.",
            extra={"allowed": "a URL such as postgresql://user:password@host:5432,host2:5432/database", "secret": True},
        ),
    ] = ""
    read_lag_seconds: Annotated[
        float,
        Meta(
            ge=0.5,
            le=3_600,
            description="A replica that may be further behind the primary is not read.",
            extra={"unit": "seconds"},
        ),
    ] = 2.0
    durability: Annotated[
        Literal["local", "replicated"],
        Meta(
            description="What 200 means for a heartbeat: that it is on the disk of the database's primary, or on that "
            "of a synchronous standby too. With replicated, 503 while the database does not replicate (durability.md).",
        ),
    ] = "local"
    api_key: Annotated[
        str,
        Meta(
            pattern=API_KEY_PATTERN,
            description="The fleet key, which has every permission. Without it, the first start creates one in "
            "LINKBEAT_DATA_DIR as api_key, readable only by its owner.",
            extra={"allowed": API_KEY_ALLOWED, "secret": True},
        ),
    ] = ""
    secret_key: Annotated[
        str,
        Meta(
            pattern=r"^[\x21-\x7e]{32,}\Z",
            description="Key for the hashes of tokens; after a change, all tokens are rejected. Without it, the first "
            "start creates one in LINKBEAT_DATA_DIR as secret_key. All services on one database need the same key.",
            extra={"allowed": "at least 32 visible ASCII characters", "secret": True},
        ),
    ] = ""
    secret_key_file: Annotated[
        str,
        Meta(
            pattern=r"^/[^\x00]*\Z",
            description="File that contains the secret key, instead of LINKBEAT_SECRET_KEY.",
            extra={"allowed": "an absolute path"},
        ),
    ] = ""
    accept_x_api_key: Annotated[
        bool, Meta(description="Whether to accept tokens in X-API-Key, which some agents in the field send.")
    ] = True
    accept_x_agent_token: Annotated[
        bool,
        Meta(
            description="Whether to accept tokens in X-Agent-Token with X-Server-GUID, which other agents in the "
            "field send."
        ),
    ] = True
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Proxies whose X-Forwarded-For is trusted: the client is the right-most address in it that is "
            "not one of these. Without it, the client is the address that connects.",
            extra={"allowed": _NETWORKS},
        ),
    ] = ()
    trusted_user_header: Annotated[
        str,
        Meta(
            pattern=_HEADER,
            description="Header in which a proxy of LINKBEAT_TRUSTED_PROXIES names the signed-in user, "
            "such as X-Forwarded-Email (docs/managing.md). From other addresses it is ignored. Without it, nobody is "
            "signed in by a header.",
            extra={"allowed": "the name of a header"},
        ),
    ] = ""
    trusted_groups_header: Annotated[
        str,
        Meta(
            pattern=_HEADER,
            description="Header with the groups of that user, separated by commas, such as X-Forwarded-Groups.",
            extra={"allowed": "the name of a header"},
        ),
    ] = ""
    trusted_admins: Annotated[
        # A group without a name would be that of every user without groups.
        tuple[Annotated[str, Meta(pattern=r"^(?!group:\Z)[^\x00-\x1f\x7f-\x9f]{1,255}\Z")], ...],
        Meta(
            description="Users, and groups with `group:` before their name, as the proxy names them, that may change "
            "things; all other users may only read.",
            extra={"allowed": "a comma-separated list of users and groups such as ada@example.net,group:noc"},
        ),
    ] = ()
    connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Concurrent connections from one address (for IPv6, one /64). Above it, the oldest idle "
            "connection of that address is closed; if none is idle, the new one gets 503. LINKBEAT_TRUSTED_PROXIES "
            "have no such limit.",
        ),
    ] = 2_000
    failed_tokens_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Wrong tokens from one address (for IPv6, one /64); above it, 429. Tokens that were valid "
            "from that address before are still accepted.",
        ),
    ] = 100
    server_requests_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Requests with the token of one server; above it, 429. Fleet tokens have no limit.",
        ),
    ] = 600
    read_requests_per_minute: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Requests with one read or admin token; above it, 429.")
    ] = 6_000
    oldest_heartbeat_days: Annotated[
        float,
        Meta(
            ge=1,
            le=90,
            description="Heartbeats with an older timestamp are rejected. Refreshes of the aggregates reach one day "
            "further back, and must not find compressed rows: LINKBEAT_COMPRESS_AFTER_DAYS must be greater.",
            extra=_DAYS,
        ),
    ] = 7.0
    compress_after_days: Annotated[
        float,
        Meta(
            ge=2,
            le=3_650,
            description="Age at which rows and buckets are compressed, on TimescaleDB's Community edition. "
            "LINKBEAT_RETAIN_RAW_DAYS must be greater.",
            extra=_DAYS,
        ),
    ] = 9.0
    retain_raw_days: Annotated[
        float,
        Meta(
            ge=2,
            le=36_500,
            description="Retention of the samples. Buckets are retained at least as long; wider buckets at least as "
            "long as narrower ones.",
            extra=_DAYS,
        ),
    ] = 14.0
    retain_1m_days: Annotated[
        float,
        Meta(
            ge=2,
            le=36_500,
            description="Retention of 1-minute buckets. The 95th percentile of a billing month needs them: 35 days "
            "are the month's 31, and four days to read the bill.",
            extra=_DAYS,
        ),
    ] = 35.0
    retain_15m_days: Annotated[
        float, Meta(ge=2, le=36_500, description="Retention of 15-minute buckets.", extra=_DAYS)
    ] = 400.0
    retain_1h_days: Annotated[float, Meta(ge=2, le=36_500, description="Retention of 1-hour buckets.", extra=_DAYS)] = (
        1_826.0
    )
    retain_1d_days: Annotated[float, Meta(ge=2, le=36_500, description="Retention of 1-day buckets.", extra=_DAYS)] = (
        1_826.0
    )
    retain_audit_days: Annotated[
        float, Meta(ge=1, le=36_500, description="Retention of the audit log.", extra=_DAYS)
    ] = 365.0
    queue_heartbeats: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Heartbeats that may wait for the database in one process; above it, 503 at once.",
            extra={"unit": "heartbeats"},
        ),
    ] = 5_000
    maintenance: Annotated[
        Literal["on", "off"],
        Meta(
            description="off: this process refreshes, compresses, drops and erases nothing, for a copy of the database "
            "that was restored from a backup (docs/backup.md). TimescaleDB's own jobs are switched off in its server.",
            extra={"allowed": "on or off"},
        ),
    ] = "on"
    max_series: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Interfaces of one server that have a series of their own; the youngest above this number are "
            "folded into one series per kind.",
            extra={"unit": "series"},
        ),
    ] = 256
    fold_minutes: Annotated[
        float,
        Meta(
            ge=0,
            le=10_080,
            description="Age below which short-lived kinds of interfaces (veth and others) are folded into one series "
            "per kind.",
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
            description="Origins whose pages may call the API from a browser, with a token of their own, to read but "
            "not to report. * allows every origin; without it, no origin is allowed.",
            extra={"allowed": "a comma-separated list of origins such as https://dash.example.net"},
        ),
    ] = ()
    alerts_file: Annotated[
        str,
        Meta(
            pattern=r"^/[^\x00]*\Z",
            description="TOML file with rules and channels of alerts (docs/alerts.md), applied at the start and at "
            "SIGHUP. Over REST they are read-only; those that leave the file are deleted.",
            extra={"allowed": "an absolute path"},
        ),
    ] = ""
    alert_private_addresses: Annotated[
        bool,
        Meta(
            description="Whether channels of alerts may reach addresses inside the network: private, loopback and "
            "link-local ones."
        ),
    ] = False
    metrics_public: Annotated[
        bool,
        Meta(description="Whether /metrics needs no token. It names no server, but shows how busy the fleet is."),
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Minimum severity of messages to log to stderr.")
    ] = "info"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Raises SettingsError, whose message names the variables and the allowed values."""
        settings = environment.load(cls, environ)
        settings._check_ages()
        settings._check_networks()
        settings._check_proxy()
        return settings

    def __repr__(self) -> str:
        """Omits the secrets, because the text may be logged."""
        secrets = {one.variable for one in described() if one.secret}
        shown = (
            f"{name}={'…' if variable(name) in secrets and value else repr(value)}"
            for name, value in zip(self.__struct_fields__, msgspec.structs.astuple(self), strict=True)
        )
        return f"Settings({', '.join(shown)})"

    def database_configuration(self) -> dict[str, float]:
        """The settings that the database uses: the rows of linkbeat.configuration, which `migrate` writes."""
        return {name: getattr(self, name) for name in (*_AGES, "retain_audit_days")}

    def _check_ages(self) -> None:
        """A refresh needs all rows of its range: none of them may be compressed or dropped yet."""
        for younger, older in itertools.pairwise(_AGES):
            # A refresh reaches a day beyond the oldest heartbeat (linkbeat.apply_configuration).
            least = getattr(self, younger) + (younger == "oldest_heartbeat_days")
            found = getattr(self, older)
            is_strict = younger in ("oldest_heartbeat_days", "compress_after_days")
            if found < least or (is_strict and found == least):
                raise SettingsError(
                    f"{variable(older)}: {found:g} days is not {'above' if is_strict else 'at least'} {least:g}, "
                    f"which {variable(younger)} requires"
                )

    def _check_networks(self) -> None:
        for one in self.trusted_proxies:
            try:
                ipaddress.ip_network(one, strict=False)
            except ValueError:
                raise SettingsError(f'{variable("trusted_proxies")}: "{one}" is not {_NETWORKS}') from None

    def _check_proxy(self) -> None:
        """A header that anybody can send names nobody."""
        if self.trusted_user_header and not self.trusted_proxies:
            raise SettingsError(f"{variable('trusted_user_header')}: needs {variable('trusted_proxies')}")
        if self.trusted_user_header.lower() in ("authorization", "cookie", "x-api-key", "x-agent-token"):
            raise SettingsError(f"{variable('trusted_user_header')}: {self.trusted_user_header} carries tokens")
        for name in ("trusted_groups_header", "trusted_admins"):
            if getattr(self, name) and not self.trusted_user_header:
                raise SettingsError(f"{variable(name)}: needs {variable('trusted_user_header')}")

    @property
    def data_path(self) -> Path:
        """The data directory: the setting or its default."""
        return Path(self.data_dir) if self.data_dir else default_data_dir()


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return environment.PREFIX + name.upper()


def described() -> list[SettingDescription]:
    """Every setting of the service, for the test that compares the documentation."""
    return environment.describe(Settings)
