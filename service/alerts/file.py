"""The TOML file of rules and channels (LINKBEAT_ALERTS_FILE), for configuration that is kept in git.

    [channels.ops]
    kind = "webhook"
    url_file = "/run/secrets/ops-url"    # a secret may be in a separate file

    [rules.web-silent]
    kind = "silent"
    scope.servers = ["web-*"]
    channels = ["ops"]

Names are ids, so applying a file again keeps the states of alerts. Rules and channels in the file are read-only over
REST; those that are removed from the file are deleted.
"""

import tomllib
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import msgspec

from service.alerts import rules, store
from service.alerts.channels import kinds
from service.alerts.channels.kinds import Channel
from service.alerts.names import check_name
from service.alerts.rules import AnyRule
from service.database.audit import ACT_AS, Actor, text_of
from service.http.decode import decode_by_kind
from service.http.errors import Problem
from service.settings import SettingsError

MAX_BYTES = 4 << 20
_SECRET_BYTES = 64 << 10
_RULES = "SELECT rule_id, kind, spec::text, severity, enabled, managed_by FROM linkbeat.alert_rules ORDER BY rule_id"
_CHANNELS = """
SELECT channel_id, kind, spec::text, secret, min_severity, sends_resolved, sends_late, digest, time_zone, enabled,
       managed_by
FROM linkbeat.alert_channels ORDER BY channel_id
"""
_ZONES = "SELECT name FROM pg_timezone_names"
_APPLY = "SELECT linkbeat.apply_alert_file($1::jsonb, $2::jsonb)"


class AlertsFile(NamedTuple):
    """The rules and channels of a file, by id. Each is valid by itself."""

    path: Path
    rules: dict[str, AnyRule]
    channels: dict[str, Channel]


class Change(NamedTuple):
    """A change made by applying a file. `action`: add, change, take over (it was set over REST) or delete."""

    action: str
    what: str
    name: str

    def __str__(self) -> str:
        return f"{self.action} {self.what} {self.name}"


def read(path: Path, *, allows_private: bool) -> AlertsFile:
    """Raises SettingsError, which names the file, the rule or channel, and the field."""
    try:
        text = path.read_bytes()
        if len(text) > MAX_BYTES:
            raise SettingsError(f"{path}: is larger than {MAX_BYTES >> 20} MiB")
        values = tomllib.loads(text.decode())
    except OSError as raised:
        raise SettingsError(f"{path}: {raised.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    except (ValueError, RecursionError) as raised:
        raise SettingsError(f"{path}: {raised}") from None
    if unknown := values.keys() - {"rules", "channels"}:
        raise SettingsError(f"{path}: {min(unknown)}: unknown table; expected the tables rules and channels")
    channels = _tables(path, values, "channels", lambda one: _channel(one, allows_private=allows_private))
    known = _tables(path, values, "rules", _rule)
    return AlertsFile(path, known, channels)


def _tables(path: Path, values: Mapping[str, Any], what: str, one: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    tables = values.get(what, {})
    if not isinstance(tables, dict):
        raise SettingsError(f"{path}: {what}: expected tables such as [{what}.name]")
    found = {}
    for name, table in tables.items():
        where = f"{path}: {what}.{name}"
        if not isinstance(table, dict):
            raise SettingsError(f"{where}: expected a table")
        try:
            check_name(name, "name")
            if what == "rules" and name == "test":
                raise Problem.invalid("name", "is reserved: choose another name")
            found[name] = one(table)
        except Problem as problem:
            raise SettingsError(f"{where}: {problem.detail}") from None
    return found


def _rule(table: dict[str, Any]) -> AnyRule:
    rule: AnyRule = decode_by_kind(_json(table), rules.KINDS)
    rules.check(rule)
    return rule


def _channel(table: dict[str, Any], *, allows_private: bool) -> Channel:
    values = dict(table)
    for name in kinds.SECRETS:
        path = values.pop(f"{name}_file", None)
        if path is None:
            continue
        if name in values:
            raise Problem.invalid(f"{name}_file", f"cannot be combined with {name}: set only one of them")
        text = _secret(path, f"{name}_file")
        values[name] = text.split() if name == "urls" else text.strip()
    channel = kinds.completed(decode_by_kind(_json(values), kinds.KINDS), None)
    kinds.check(channel, allows_private=allows_private)
    return channel


def _secret(path: Any, field: str) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise Problem.invalid(field, "expected an absolute path")
    try:
        with Path(path).open("rb") as file:
            return file.read(_SECRET_BYTES).decode()
    except OSError as raised:
        raise Problem.invalid(field, f"{path}: {raised.strerror}") from None
    except (UnicodeDecodeError, ValueError):
        raise Problem.invalid(field, f"{path}: is not UTF-8 text") from None


def _json(table: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(table)
    except (TypeError, ValueError, OverflowError) as raised:
        raise Problem("invalid", f"cannot be read: {raised}") from None


async def changes(connection: asyncpg.Connection, file: AlertsFile) -> list[Change]:
    """The changes that applying the file would make. Raises SettingsError for an unknown channel or time zone."""
    stored_rules = {row["rule_id"]: row for row in await connection.fetch(_RULES)}
    stored_channels = {row["channel_id"]: row for row in await connection.fetch(_CHANNELS)}
    zones = {row["name"] for row in await connection.fetch(_ZONES)}
    known = {
        **{name: row["kind"] for name, row in stored_channels.items() if row["managed_by"] != "file"},
        **{name: channel.kind for name, channel in file.channels.items()},
    }
    for name, rule in file.rules.items():
        for error in store.wrong_channels(rule, known):
            raise SettingsError(f"{file.path}: rules.{name}: {error.path}: {error.reason}")
    for name, channel in file.channels.items():
        if channel.time_zone not in zones:
            raise SettingsError(f"{file.path}: channels.{name}: time_zone: expected an IANA time zone")
    return [
        *_changes("channel", file.channels, stored_channels, _same_channel),
        *_changes("rule", file.rules, stored_rules, _same_rule),
    ]


def _changes(
    what: str,
    wanted: Mapping[str, Any],
    stored: Mapping[str, asyncpg.Record],
    is_same: Callable[[Any, asyncpg.Record], bool],
) -> list[Change]:
    found = []
    for name, one in sorted(wanted.items()):
        if name not in stored:
            found.append(Change("add", what, name))
        elif stored[name]["managed_by"] != "file":
            found.append(Change("take over", what, name))
        elif not is_same(one, stored[name]):
            found.append(Change("change", what, name))
    gone = sorted(name for name, row in stored.items() if row["managed_by"] == "file" and name not in wanted)
    return found + [Change("delete", what, name) for name in gone]


def _same_rule(rule: AnyRule, row: asyncpg.Record) -> bool:
    return (rule.kind, rules.spec_of(rule), rule.severity, rule.enabled) == (
        row["kind"], msgspec.json.decode(row["spec"]), row["severity"], row["enabled"],
    )  # fmt: skip


def _same_channel(channel: Channel, row: asyncpg.Record) -> bool:
    public, secret = kinds.split(channel)
    spec = {name: value for name, value in public.items() if name not in store.CHANNEL_COLUMNS}
    is_same = all(public[name] == row[name] for name in store.CHANNEL_COLUMNS if name != "digest_seconds")
    digest = row["digest"].total_seconds() if row["digest"] else None
    return is_same and (digest, spec, _secret_bytes(secret)) == (
        channel.digest_seconds, msgspec.json.decode(row["spec"]), row["secret"],
    )  # fmt: skip


async def apply(connection: asyncpg.Connection, file: AlertsFile, actor: Actor | None = None) -> list[Change]:
    """Replaces the file-managed rules and channels in one transaction. Returns the changes. Raises SettingsError."""
    async with connection.transaction():
        await connection.execute(ACT_AS, text_of(actor or Actor("file", str(file.path))))
        # Processes that start at the same time apply the file one after the other.
        await connection.execute("LOCK TABLE linkbeat.alert_rules IN SHARE ROW EXCLUSIVE MODE")
        made = await changes(connection, file)
        if made:
            new_rules = [
                {"id": name, "kind": rule.kind, "spec": rules.spec_of(rule), "severity": rule.severity,
                 "enabled": rule.enabled}
                for name, rule in file.rules.items()
            ]  # fmt: skip
            try:
                await connection.execute(
                    _APPLY, store.json_of(new_rules), store.json_of([_row(*one) for one in file.channels.items()])
                )
            except asyncpg.InvalidRegularExpressionError:
                raise SettingsError(f"{file.path}: a pattern in the scope of a rule has an invalid [range]") from None
        return made


def _row(name: str, channel: Channel) -> dict[str, Any]:
    public, secret = kinds.split(channel)
    columns = {column: public.pop(column) for column in store.CHANNEL_COLUMNS}
    return columns | {"id": name, "spec": public, "secret": b64encode(_secret_bytes(secret)).decode()}


def _secret_bytes(secret: dict[str, Any]) -> bytes:
    return msgspec.json.encode(secret, order="deterministic")


async def export(connection: asyncpg.Connection) -> str:
    """All rules and channels as a file. Secrets of channels are left out; an empty *_file key marks each of them."""
    blocks = []
    for row in await connection.fetch(_CHANNELS):
        channel = store.channel_of(row)
        public, _ = kinds.split(channel)
        columns = {name: row[name] for name in ("kind", "min_severity", "sends_resolved", "sends_late", "enabled")}
        digest = round(row["digest"].total_seconds()) if row["digest"] else 10
        values = public | columns | {"time_zone": row["time_zone"], "digest_seconds": digest}
        lines = [f"[channels.{_key(row['channel_id'])}]"]
        for name, value in values.items():
            if name in ("url", "urls"):
                lines.append(f'{name}_file = ""  # {value if name == "url" else ", ".join(value)}')
            elif name.startswith("has_"):
                lines += [f'{name.removeprefix("has_")}_file = ""'] if value else []
            elif value is not None:
                lines.append(f"{name} = {_toml(value)}")
        blocks.append("\n".join(lines))
    for row in await connection.fetch(_RULES):
        rule = rules.from_columns(
            row["kind"], msgspec.json.decode(row["spec"]), row["severity"], enabled=row["enabled"]
        )
        lines = [f"[rules.{_key(row['rule_id'])}]"]
        lines += [f"{name} = {_toml(value)}" for name, value in msgspec.to_builtins(rule).items()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML. Strings are encoded as in JSON, which is valid TOML except for DEL."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if "." not in name else f'"{name}"'
