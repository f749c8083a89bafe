"""REST routes of rules: list, read, set and remove them, and test them on the stored history."""

import logging
from datetime import datetime
from typing import Any, Literal

import asyncpg
import msgspec
from litestar import Request, Response, Router, delete, get, post, put

from service.access.identity import Caller
from service.alerts import rules, store
from service.alerts.names import AfterName, RuleId, check_name
from service.alerts.rules import KINDS, AlertRule
from service.clock import Clock
from service.database.audit import by
from service.database.names import storable
from service.database.pool import Database
from service.http.conditional import seen_version, version_header
from service.http.errors import Problem
from service.http.json_body import body_by_kind
from service.http.parameters import Limit
from service.http.problems import problems
from service.traffic.ranges import Since, Until, range_of

log = logging.getLogger("linkbeat")

MAX_EPISODES = 1_000
BACKTEST_SECONDS = 60.0
BODY = (400, 401, 408, 413, 415, 422, 503)
_LIST = """
SELECT rule_id, kind, spec::text, severity, managed_by, enabled, revision,
       linkbeat.version_of(linkbeat.rule_json(kind, spec, severity, managed_by, enabled)) AS version
FROM alert_rules
WHERE ($1::text IS NULL OR rule_id = $1) AND rule_id > $2 ORDER BY rule_id LIMIT $3
"""
_DELETE = "linkbeat.delete_alert_rule(of_rule => $1, seen => $2) AS is_known"
_EPISODES = f"""
SELECT server_id, subject, active_at, fired_at, cleared_at, resolved_at, value, peak, reason, basis
FROM linkbeat.alert_episodes(rule => $1::jsonb, since => $2, until => $3) LIMIT {MAX_EPISODES + 1}
"""


class AlertRules(msgspec.Struct, frozen=True):
    """Rules by id; `next` continues after the last of them, null at the end."""

    rules: list[AlertRule]
    next: str | None


class PastEpisode(msgspec.Struct, frozen=True):
    """An alert that the rule would have had.

    subject      interface, mount point or level of a quota; "": the server
    active_at    when the condition became true; fired_at: when it had held for for_seconds
    cleared_at   when it stopped holding; resolved_at: when it had not held for keep_seconds; null: not before `until`
    value, peak  the last value, and the value furthest beyond the bound
    """

    server_id: str
    subject: str
    active_at: datetime
    fired_at: datetime
    cleared_at: datetime | None
    resolved_at: datetime | None
    value: float | None
    peak: float | None
    reason: str | None


class Backtest(msgspec.Struct, frozen=True):
    """The alerts that a rule would have had in [since, until).

    basis         rows; minutes: the rows at the beginning of the range are no longer kept
    is_truncated  whether there are more episodes than these
    """

    since: datetime
    until: datetime
    basis: Literal["rows", "minutes"]
    is_truncated: bool
    episodes: list[PastEpisode]


def router(database: Database, testing: Database, writing: Database, clock: Clock) -> Router:
    """/alert-rules. `testing`: for backtests, which may take longer than other reads."""

    async def stored(rule_id: str) -> Response[AlertRule]:
        rows = await database.fetch(_LIST, storable(rule_id), "", 1)
        if not rows:
            raise unknown(rule_id)
        return Response(_stored(rows[0]), headers=version_header(rows[0]["version"]))

    @get("/", summary="List alert rules", responses=problems(401, 422, 503))
    async def list_rules(limit: Limit = 100, after: AfterName = "") -> AlertRules:
        rows = await database.fetch(_LIST, None, storable(after), limit + 1)
        found = [_stored(row) for row in rows[:limit]]
        return AlertRules(found, found[-1].id if len(rows) > limit else None)

    @get("/{rule_id:str}", summary="A rule", responses=problems(401, 404, 503))
    async def get_rule(rule_id: RuleId) -> Response[AlertRule]:
        """Its ETag is the version for If-Match."""
        return await stored(rule_id)

    @put("/{rule_id:str}", summary="Set a rule", responses=problems(*BODY, 409, 412))
    async def put_rule(rule_id: RuleId, request: Request[Any, Caller, Any]) -> Response[AlertRule]:
        """Creates or replaces the rule. Its pending and firing alerts keep their state. With If-Match, replaces only
        that version; with If-None-Match: *, only creates."""
        rule = await body_by_kind(request, KINDS)
        check_name(rule_id)
        if rule_id == "test":  # the path of POST /alert-rules/test
            raise Problem.invalid("rule_id", "is reserved: choose another name")
        rules.check(rule)
        await store.check_channels(database.fetch, rule)
        await check_writable(rule_id)
        await store.set_rule(by(writing.fetch, request.auth.actor), rule_id, rule, "api", seen_version(request))
        log.info("alert rule %s set by %s from %s", rule_id, request.auth.name, request.auth.peer)
        return await stored(rule_id)

    @delete("/{rule_id:str}", summary="Remove a rule", responses=problems(401, 404, 409, 412, 422, 503))
    async def delete_rule(rule_id: RuleId, request: Request[Any, Caller, Any]) -> None:
        """Closes its alerts within seconds, with the reason rule_removed."""
        await check_writable(rule_id)
        (row,) = await by(writing.fetch, request.auth.actor)(_DELETE, storable(rule_id), seen_version(request))
        if not row["is_known"]:
            raise unknown(rule_id)
        log.info("alert rule %s removed by %s from %s", storable(rule_id)[:100], request.auth.name, request.auth.peer)

    async def check_writable(rule_id: str) -> None:
        rows = await database.fetch(_LIST, storable(rule_id), "", 1)
        if rows:
            store.check_writable(rows[0]["managed_by"], rule_id)

    @post("/test", status_code=200, summary="Test a rule on the stored history", responses=problems(*BODY))
    async def test_rule(request: Request[Any, Any, Any], since: Since = None, until: Until = None) -> Backtest:
        """The alerts that the rule would have had, by the same code as real alerts. Nothing is stored or sent."""
        rule = await body_by_kind(request, KINDS)
        rules.check(rule)
        first, end = range_of(since, until, clock.now())
        tried = rules.spec_of(rule) | {"kind": rule.kind, "severity": rule.severity}
        try:
            rows = await testing.fetch(_EPISODES, store.json_of(tried), first, end)
        except asyncpg.InvalidRegularExpressionError:
            raise store.bad_pattern() from None
        return Backtest(
            since=first,
            until=end,
            basis=rows[0]["basis"] if rows else "rows",
            is_truncated=len(rows) > MAX_EPISODES,
            episodes=[_episode(row) for row in rows[:MAX_EPISODES]],
        )

    return Router(
        "/alert-rules", route_handlers=[list_rules, get_rule, put_rule, delete_rule, test_rule], tags=["alerts"]
    )


def unknown(rule_id: str) -> Problem:
    """404 for an unknown rule."""
    return Problem("not_found", f"there is no rule {rule_id!r}")


def _stored(row: asyncpg.Record) -> AlertRule:
    """A row of _LIST."""
    rule = rules.from_columns(row["kind"], msgspec.json.decode(row["spec"]), row["severity"], enabled=row["enabled"])
    more = {"id": row["rule_id"], "managed_by": row["managed_by"], "revision": row["revision"]}
    return AlertRule(**msgspec.structs.asdict(rule) | more)


def _episode(row: asyncpg.Record) -> PastEpisode:
    values = dict(row)
    del values["basis"]
    return PastEpisode(**values)
