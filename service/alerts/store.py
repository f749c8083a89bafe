"""Stores rules, channels and mutes, for the REST routes and the file. `change`: service.database.audit.by."""

from datetime import timedelta
from typing import Any, Literal

import asyncpg
import msgspec

from service.alerts import rules
from service.alerts.channels import kinds
from service.alerts.channels.kinds import Channel
from service.alerts.rules import AnyRule
from service.database.audit import Fetch
from service.http.errors import FieldError, Problem

ManagedBy = Literal["api", "file"]

_SET_RULE = (
    "linkbeat.set_alert_rule(of_rule => $1, new_kind => $2, new_spec => $3::jsonb, new_severity => $4, "
    "new_enabled => $5, new_managed_by => $6, seen => $7)"
)
_SET_CHANNEL = (
    "linkbeat.set_alert_channel(of_channel => $1, new_kind => $2, new_spec => $3::jsonb, new_secret => $4, "
    "new_min_severity => $5, new_sends_resolved => $6, new_sends_late => $7, new_digest => $8, new_time_zone => $9, "
    "new_enabled => $10, new_managed_by => $11)"
)
# Columns of the table of channels; the other fields of a channel are its spec.
CHANNEL_COLUMNS = ("kind", "min_severity", "sends_resolved", "sends_late", "digest_seconds", "time_zone", "enabled")
SECRETS = "SELECT * FROM linkbeat.alert_channel_secrets($1)"


def json_of(value: Any) -> str:
    """JSON for a jsonb parameter."""
    return msgspec.json.encode(value).decode()


async def set_rule(change: Fetch, rule_id: str, rule: AnyRule, managed_by: ManagedBy, seen: str | None = None) -> None:
    """Stores a checked rule (rules.check). Raises Problem (422) for an invalid pattern, and (412) where `seen` is the
    version of another one."""
    try:
        await change(
            _SET_RULE, rule_id, rule.kind, json_of(rules.spec_of(rule)), rule.severity, rule.enabled, managed_by, seen
        )
    except asyncpg.InvalidRegularExpressionError:
        raise bad_pattern() from None


def bad_pattern() -> Problem:
    """422 for a pattern that the database rejects."""
    return Problem.invalid("scope", "a pattern has an invalid [range]")


async def set_channel(change: Fetch, channel_id: str, channel: Channel, managed_by: ManagedBy) -> None:
    """Stores a completed and checked channel (kinds.completed, kinds.check)."""
    public, secret = kinds.split(channel)
    spec = {name: value for name, value in public.items() if name not in CHANNEL_COLUMNS}
    await change(
        _SET_CHANNEL, channel_id, channel.kind, json_of(spec), msgspec.json.encode(secret, order="deterministic"),
        channel.min_severity, channel.sends_resolved, channel.sends_late, timedelta(seconds=channel.digest_seconds),
        channel.time_zone, channel.enabled, managed_by,
    )  # fmt: skip


def channel_of(row: asyncpg.Record) -> Channel:
    """The channel in a row of SECRETS, with its secrets."""
    public = msgspec.json.decode(row["spec"]) | {"kind": row["kind"], "time_zone": row["time_zone"]}
    return kinds.joined(public, msgspec.json.decode(row["secret"]) if row["secret"] else {})


async def stored_channel(fetch: Fetch, channel_id: str) -> tuple[Channel | None, str]:
    """A channel with its secrets, and its managed_by; None and "" if it does not exist."""
    rows = await fetch(SECRETS, channel_id)
    return (channel_of(rows[0]), rows[0]["managed_by"]) if rows else (None, "")


async def check_channels(fetch: Fetch, rule: AnyRule) -> None:
    """Raises Problem (422) if the rule names an unknown channel or a ping channel."""
    rows = await fetch("SELECT channel_id, kind FROM linkbeat.alert_channels WHERE channel_id = ANY ($1)",
                       rule.channels or [])  # fmt: skip
    errors = wrong_channels(rule, {row["channel_id"]: row["kind"] for row in rows})
    if errors:
        raise Problem("invalid", "; ".join(f"{one.path}: {one.reason}" for one in errors[:5]), errors)


def wrong_channels(rule: AnyRule, known: dict[str, str]) -> list[FieldError]:
    """Errors in the channels of a rule; `known` has the kind of each existing channel."""
    errors = []
    for place, name in enumerate(rule.channels or ()):
        if name not in known:
            errors.append(FieldError(f"channels[{place}]", f"there is no channel {name!r}"))
        elif known[name] == "ping":
            errors.append(FieldError(f"channels[{place}]", f"{name!r} is a ping channel, which gets no messages"))
    return errors


def check_writable(managed_by: str, name: str) -> None:
    """Raises Problem (409) for a rule or channel that is managed by a file."""
    if managed_by == "file":
        raise Problem("managed_by_file", f"{name!r} is set by the file in LINKBEAT_ALERTS_FILE: change it there")
