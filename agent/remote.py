"""The remote configuration in the response to a heartbeat, and its limits by the local settings."""

import fnmatch
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from .settings import Settings

MAX_INTERVAL_SECONDS = 366 * 86_400.0
MAX_PATTERNS = 100
MAX_PATTERN_CHARACTERS = 255
MAX_MOMENT_CHARACTERS = 64


class RemoteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `config` of a response. None and empty values are not set: the agent's own settings apply.

    interval_seconds                        interval between heartbeats.
    include_interfaces, exclude_interfaces  fnmatch patterns of interface names.
    paused                                  heartbeats continue, without metrics, interfaces and filesystems.
    report_at                               when somebody asked for a report: each new value causes one at once.

    Unknown fields are skipped, so that a newer service can talk to an older agent.
    """

    interval_seconds: float | None = None
    include_interfaces: tuple[str, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    paused: bool = False
    report_at: str | None = None

    def words(self) -> str:
        """The configuration in one line, for the log; "" if it is empty."""
        said = []
        if self.paused:
            said.append("a pause")
        if self.interval_seconds is not None:
            said.append(f"a heartbeat every {self.interval_seconds:g} s")
        if self.include_interfaces:
            said.append(f"only the interfaces {', '.join(self.include_interfaces)}")
        if self.exclude_interfaces:
            said.append(f"no interfaces {', '.join(self.exclude_interfaces)}")
        if self.report_at is not None:
            said.append(f"a report, asked for at {self.report_at}")
        return "; ".join(said)


class Parsed(NamedTuple):
    """The usable part of a response, and a line about the rest; "" if everything is usable."""

    config: RemoteConfig
    complaint: str


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """The effective configuration: the agent's own settings, and the allowed part of the remote configuration.

    settings    the agent's own, with the effective interval.
    remote      the effective part of the remote configuration.
    held_back   messages about the parts that are not applied.
    """

    settings: Settings
    remote: RemoteConfig
    held_back: tuple[str, ...] = ()

    @property
    def paused(self) -> bool:
        """Whether heartbeats are sent without metrics, interfaces and filesystems."""
        return self.remote.paused

    def reports(self, interface: str) -> bool:
        """Whether an interface with this name is reported: the service can leave interfaces out, but cannot add
        them."""
        local, remote = self.settings, self.remote
        return _is_wanted(interface, local.include_interfaces, local.exclude_interfaces) and _is_wanted(
            interface, remote.include_interfaces, remote.exclude_interfaces
        )


def parse(config: bytes) -> Parsed:
    """Parses the raw `config` of a response. Never raises: invalid fields count as missing."""
    try:
        fields = msgspec.json.decode(config)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return Parsed(RemoteConfig(), "ignored the remote configuration: it is not an object")
    usable: dict[str, Any] = {}
    unusable = []
    for name in RemoteConfig.__struct_fields__:
        value = fields.get(name)
        if value is None:
            continue
        read = _READERS[name](value)
        if read is None:
            unusable.append(name)
        else:
            usable[name] = read
    complaint = f"ignored invalid keys of the remote configuration: {', '.join(unusable)}" if unusable else ""
    return Parsed(RemoteConfig(**usable), complaint)


def apply(settings: Settings, remote: RemoteConfig) -> Effective:
    """Limits `remote` to the bounds in `settings`."""
    if not settings.remote_config:
        forbidden = ("ignored the remote configuration, because remote_config is false",)
        held_back = forbidden if remote != RemoteConfig() else ()
        return Effective(settings=settings, remote=RemoteConfig(), held_back=held_back)
    asked = remote.interval_seconds
    if asked is None:
        return Effective(settings=settings, remote=remote)
    interval = min(settings.max_interval_seconds, max(settings.min_interval_seconds, asked))
    held_back = ()
    if interval != asked:
        bound = "min_interval_seconds" if asked < interval else "max_interval_seconds"
        held_back = (f"the service sets an interval of {asked:g} s; {bound} makes it {interval:g} s",)
    found = msgspec.structs.replace(settings, interval_seconds=interval)
    return Effective(settings=found, remote=remote, held_back=held_back)


def _is_wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude):
        return False
    return not include or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)


def _interval(value: Any) -> float | None:
    # In Python a bool is an int; a number that is not finite (1e400) is a mistake, not a long interval.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= MAX_INTERVAL_SECONDS else None


def _patterns(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > MAX_PATTERNS:
        return None
    if not all(isinstance(each, str) and 0 < len(each) <= MAX_PATTERN_CHARACTERS for each in value):
        return None
    return tuple(value)


def _paused(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _moment(value: Any) -> str | None:
    """Only compared and logged."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_MOMENT_CHARACTERS and value.isprintable() else None


_READERS = {
    "interval_seconds": _interval,
    "include_interfaces": _patterns,
    "exclude_interfaces": _patterns,
    "paused": _paused,
    "report_at": _moment,
}
