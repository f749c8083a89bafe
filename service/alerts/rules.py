"""Rules: what each kind is told, as REST and the file have it; stored as they are (linkbeat.alert_rules.spec)."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from service.alerts.channels.kinds import Severity
from service.http.errors import FieldError, Problem

# As linkbeat.alert_rules and linkbeat.alert_channels check it.
NAME_PATTERN = r"^(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}\Z"
Name = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        description="1 to 100 letters, digits, '.', '_' and '-'; not '.' or '..'.",
        examples=["ops"],
    ),
]
Glob = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,100}\Z",
        description="A name, of which `*`, `?` and `[…]` stand for others.",
        examples=["web-*"],
    ),
]
Globs = Annotated[list[Glob], Meta(min_length=1, max_length=100)]
Word = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,32}\Z")]
Text = Annotated[str, Meta(max_length=4_000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*\Z")]
Window = Annotated[int, Meta(ge=60, le=3_600)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Kind = Literal["silent", "link", "rate", "quota", "filesystem", "errors", "account", "agent"]


class Scope(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a rule is for; null: all.

    servers     patterns of server ids
    interfaces  patterns of the names of interfaces; of a filesystem rule, of mount points
    kinds       of interfaces: physical, bridge and so on
    """

    servers: Globs | None = None
    interfaces: Globs | None = None
    kinds: Annotated[list[Word], Meta(min_length=1, max_length=50)] | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What rules of every kind have.

    for_seconds     how long the condition must hold
    keep_seconds    how long it must be over; true again before that, it is the same alert
    channels        by their names; null: every channel
    repeat_seconds  a message again after so long, until the alert is acknowledged or over; null: none
    note, runbook   go out with every message
    """

    scope: Scope = Scope()
    for_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 0
    keep_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 300
    severity: Severity = "warning"
    channels: Annotated[list[Name], Meta(max_length=100)] | None = None
    repeat_seconds: Annotated[int, Meta(ge=60, le=2_592_000)] | None = None
    enabled: bool = True
    note: Text = ""
    runbook: Annotated[str, Meta(max_length=2_000, pattern=r"^(https?:[/]{2}[!-~]+)?\Z")] = ""


class SilentRule(Rule, frozen=True, kw_only=True):
    """A server has not reported for longer than after_seconds, while the service could hear it.

    after_seconds   null: three intervals of the agent, at least 90 seconds
    """

    kind: Literal["silent"]
    after_seconds: Annotated[int, Meta(ge=30, le=2_592_000)] | None = None


class LinkRule(Rule, frozen=True, kw_only=True):
    """An interface is down for down_seconds, or changed `flaps` times within window_seconds."""

    kind: Literal["link"]
    down_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    flaps: Annotated[int, Meta(ge=2, le=10_000)] = 4
    window_seconds: Window = 600


class RateRule(Rule, frozen=True, kw_only=True):
    """An interface's mean rate over window_seconds. Exactly one of the four bounds is set.

    direction      received, sent, both together, or the greater of the two
    above_bps      bits per second; above_percent: of the line rate
    clear_percent  of the bound: where the alert is over; for a lower bound, the bound is that share of it
    """

    kind: Literal["rate"]
    direction: Literal["rx", "tx", "sum", "max"] = "max"
    above_bps: Annotated[float, Meta(gt=0, le=1e15)] | None = None
    below_bps: Annotated[float, Meta(gt=0, le=1e15)] | None = None
    above_percent: Percent | None = None
    below_percent: Percent | None = None
    window_seconds: Window = 300
    clear_percent: Percent = 90.0


class QuotaRule(Rule, frozen=True, kw_only=True):
    """A server's quota (docs/usage.md) is used to one of these shares, each told once in a billing month.

    percent    shares
    forecast   whether an expected 100 % is told, too, from the third day on
    """

    kind: Literal["quota"]
    percent: Annotated[list[Annotated[float, Meta(gt=0, le=1_000)]], Meta(min_length=1, max_length=10)] = msgspec.field(
        default_factory=lambda: [80.0, 100.0]
    )
    forecast: bool = True


class FilesystemRule(Rule, frozen=True, kw_only=True):
    """A filesystem is full to above_percent, has less than below_bytes available, will be full, or cannot be reached.

    Without any of the first three: 90 % and 24 hours.
    """

    kind: Literal["filesystem"]
    above_percent: Percent | None = None
    below_bytes: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    full_within_hours: Annotated[float, Meta(gt=0, le=720)] | None = None
    unreachable_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 600


class ErrorsRule(Rule, frozen=True, kw_only=True):
    """Errors and drops of an interface: `count` within window_seconds, and `percent` of its packets.

    packets   at least so many, below which a share says little
    """

    kind: Literal["errors"]
    count: Annotated[int, Meta(ge=1, le=2**53)] = 100
    percent: Annotated[float, Meta(ge=0, le=100)] = 0.1
    packets: Annotated[int, Meta(ge=0, le=2**53)] = 10_000
    window_seconds: Window = 600


class AccountRule(Rule, frozen=True, kw_only=True):
    """What endangers the exactness of counts: resets without a reboot, rejected readings, two machines under one id.

    resets   in a day
    """

    kind: Literal["account"]
    resets: Annotated[int, Meta(ge=1, le=100)] = 1


class AgentRule(Rule, frozen=True, kw_only=True):
    """An agent lost heartbeats, keeps them in memory only, is behind, or has a clock that is wrong."""

    kind: Literal["agent"]


AnyRule = SilentRule | LinkRule | RateRule | QuotaRule | FilesystemRule | ErrorsRule | AccountRule | AgentRule
KINDS: dict[str, type[AnyRule]] = {
    "silent": SilentRule, "link": LinkRule, "rate": RateRule, "quota": QuotaRule, "filesystem": FilesystemRule,
    "errors": ErrorsRule, "account": AccountRule, "agent": AgentRule,
}  # fmt: skip
_BOUNDS = ("above_bps", "below_bps", "above_percent", "below_percent")
_OF_INTERFACES = (LinkRule, RateRule, ErrorsRule)
_COLUMNS = ("kind", "severity", "enabled")  # of the table, beside its spec


def check(rule: AnyRule) -> None:
    """Raises Problem (422) for what the types do not say."""
    errors = []
    if isinstance(rule, RateRule):
        given = [name for name in _BOUNDS if getattr(rule, name) is not None]
        if len(given) != 1:
            path = given[1] if given else "above_bps"
            errors.append(FieldError(path, f"expected exactly one of {', '.join(_BOUNDS)}, got {len(given)}"))
    if not isinstance(rule, _OF_INTERFACES):
        if rule.scope.kinds is not None:
            errors.append(FieldError("scope.kinds", "is for rules about interfaces: link, rate and errors"))
        if rule.scope.interfaces is not None and not isinstance(rule, FilesystemRule):
            errors.append(FieldError("scope.interfaces", "is for the rules link, rate, errors and filesystem"))
    if errors:
        raise Problem("invalid", "; ".join(f"{one.path}: {one.reason}" for one in errors[:5]), errors)


def spec_of(rule: AnyRule) -> dict[str, Any]:
    """What is stored of a rule beside its columns: what differs from the defaults."""
    return {name: value for name, value in msgspec.to_builtins(rule).items() if name not in _COLUMNS}


def from_columns(kind: str, spec: dict[str, Any], severity: str, *, enabled: bool) -> AnyRule:
    """A stored rule."""
    rule: AnyRule = msgspec.convert(spec | {"kind": kind, "severity": severity, "enabled": enabled}, KINDS[kind])
    return rule


class AlertRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it is stored. Parameters that are null, its kind does not have, or they are not set.

    managed_by  api; file: the one that LINKBEAT_ALERTS_FILE names, and read-only; preset: the installation's, unchanged
    revision    counts its changes
    channels    null: every channel
    percent     of kind quota a list, of kind errors a number
    """

    id: str
    kind: Kind
    managed_by: Literal["api", "file", "preset"]
    revision: int
    scope: Scope
    for_seconds: int
    keep_seconds: int
    severity: Severity
    channels: list[str] | None
    repeat_seconds: int | None
    enabled: bool
    note: str
    runbook: str
    after_seconds: int | None = None
    down_seconds: int | None = None
    flaps: int | None = None
    window_seconds: int | None = None
    direction: Literal["rx", "tx", "sum", "max"] | None = None
    above_bps: float | None = None
    below_bps: float | None = None
    above_percent: float | None = None
    below_percent: float | None = None
    clear_percent: float | None = None
    percent: list[float] | float | None = None
    forecast: bool | None = None
    below_bytes: int | None = None
    full_within_hours: float | None = None
    unreachable_seconds: int | None = None
    count: int | None = None
    packets: int | None = None
    resets: int | None = None
