"""The fields of rules of each kind, in REST and in the file; stored in linkbeat.alert_rules.spec."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from service.alerts.channels.kinds import Severity
from service.http.errors import FieldError, Problem

# The same as the checks of linkbeat.alert_rules and linkbeat.alert_channels.
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
        description="A name, or a pattern with `*`, `?` and `[…]`.",
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
    """The servers and interfaces that a rule applies to; null: all.

    servers     patterns of server ids
    interfaces  patterns of interface names; for a filesystem rule, of mount points
    kinds       kinds of interfaces: physical, bridge and so on
    tags        patterns of tags, or of their keys: servers that have at least one such tag
    """

    servers: Globs | None = None
    interfaces: Globs | None = None
    kinds: Annotated[list[Word], Meta(min_length=1, max_length=50)] | None = None
    tags: Globs | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Fields of rules of every kind.

    for_seconds     how long the condition must hold
    keep_seconds    how long it must not hold before the alert ends; if it holds again earlier, the alert continues
    channels        names of channels; null: every channel
    repeat_seconds  interval of repeated messages, until the alert is acknowledged or ends; null: none
    note, runbook   included in every message
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
    """A server has not reported for longer than after_seconds, while the service could receive heartbeats.

    after_seconds   null: three intervals of the agent, at least 90 seconds
    """

    kind: Literal["silent"]
    after_seconds: Annotated[int, Meta(ge=30, le=2_592_000)] | None = None


class LinkRule(Rule, frozen=True, kw_only=True):
    """An interface has been down for down_seconds, or changed its state `flaps` times within window_seconds."""

    kind: Literal["link"]
    down_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    flaps: Annotated[int, Meta(ge=2, le=10_000)] = 4
    window_seconds: Window = 600


class RateRule(Rule, frozen=True, kw_only=True):
    """An interface's mean rate over window_seconds. Exactly one of the four bounds is set.

    direction      received, sent, their sum, or the greater of the two
    above_bps      bits per second; above_percent: of the line rate
    clear_percent  the alert ends at this share of the bound; for a lower bound, at the bound divided by the share
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
    """The use of a server's quota (docs/usage.md) reaches one of these shares, each reported once per billing month.

    percent    shares
    forecast   whether to alert also if 100 % is expected, from the third day on
    """

    kind: Literal["quota"]
    percent: Annotated[list[Annotated[float, Meta(gt=0, le=1_000)]], Meta(min_length=1, max_length=10)] = msgspec.field(
        default_factory=lambda: [80.0, 100.0]
    )
    forecast: bool = True


class FilesystemRule(Rule, frozen=True, kw_only=True):
    """A filesystem is used to above_percent, has less than below_bytes available, will be full, or is unreachable.

    If none of the first three is set: 90 % and 24 hours.
    """

    kind: Literal["filesystem"]
    above_percent: Percent | None = None
    below_bytes: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    full_within_hours: Annotated[float, Meta(gt=0, le=720)] | None = None
    unreachable_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 600


class ErrorsRule(Rule, frozen=True, kw_only=True):
    """Errors and drops of an interface: `count` within window_seconds, and `percent` of its packets.

    packets   minimum number of packets: with fewer, the share means little
    """

    kind: Literal["errors"]
    count: Annotated[int, Meta(ge=1, le=2**53)] = 100
    percent: Annotated[float, Meta(ge=0, le=100)] = 0.1
    packets: Annotated[int, Meta(ge=0, le=2**53)] = 10_000
    window_seconds: Window = 600


class AccountRule(Rule, frozen=True, kw_only=True):
    """Threats to exact counts: resets without a reboot, rejected readings, two machines with one id.

    resets   per day
    """

    kind: Literal["account"]
    resets: Annotated[int, Meta(ge=1, le=100)] = 1


class AgentRule(Rule, frozen=True, kw_only=True):
    """An agent lost heartbeats, keeps them only in memory, is behind, or has a wrong clock."""

    kind: Literal["agent"]


AnyRule = SilentRule | LinkRule | RateRule | QuotaRule | FilesystemRule | ErrorsRule | AccountRule | AgentRule
KINDS: dict[str, type[AnyRule]] = {
    "silent": SilentRule, "link": LinkRule, "rate": RateRule, "quota": QuotaRule, "filesystem": FilesystemRule,
    "errors": ErrorsRule, "account": AccountRule, "agent": AgentRule,
}  # fmt: skip
_BOUNDS = ("above_bps", "below_bps", "above_percent", "below_percent")
_OF_INTERFACES = (LinkRule, RateRule, ErrorsRule)
_COLUMNS = ("kind", "severity", "enabled")  # columns of the table; the other fields are its spec


def check(rule: AnyRule) -> None:
    """Checks that the types do not cover. Raises Problem (422)."""
    errors = []
    if isinstance(rule, RateRule):
        given = [name for name in _BOUNDS if getattr(rule, name) is not None]
        if len(given) != 1:
            path = given[1] if given else "above_bps"
            errors.append(FieldError(path, f"expected exactly one of {', '.join(_BOUNDS)}, got {len(given)}"))
    if not isinstance(rule, _OF_INTERFACES):
        if rule.scope.kinds is not None:
            errors.append(FieldError("scope.kinds", "is only allowed for rules of kind link, rate and errors"))
        if rule.scope.interfaces is not None and not isinstance(rule, FilesystemRule):
            errors.append(
                FieldError("scope.interfaces", "is only allowed for rules of kind link, rate, errors and filesystem")
            )
    if errors:
        raise Problem("invalid", "; ".join(f"{one.path}: {one.reason}" for one in errors[:5]), errors)


def spec_of(rule: AnyRule) -> dict[str, Any]:
    """The fields of a rule that differ from the defaults and have no column of their own."""
    return {name: value for name, value in msgspec.to_builtins(rule).items() if name not in _COLUMNS}


def from_columns(kind: str, spec: dict[str, Any], severity: str, *, enabled: bool) -> AnyRule:
    """A stored rule."""
    rule: AnyRule = msgspec.convert(spec | {"kind": kind, "severity": severity, "enabled": enabled}, KINDS[kind])
    return rule


class AlertRule(msgspec.Struct, frozen=True, kw_only=True):
    """A stored rule. Parameters that its kind does not have, or that are not set, are null.

    managed_by  api; file: set by the file in LINKBEAT_ALERTS_FILE, and read-only; preset: installed and unchanged
    revision    number of changes
    channels    null: every channel
    percent     a list for kind quota, a number for kind errors
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
