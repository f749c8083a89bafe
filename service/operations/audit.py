"""The audit log: every change, and who made it."""

from datetime import datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Router, get
from litestar.params import QueryParameter

from service.database.audit import ActorKind
from service.database.names import storable
from service.database.pool import Database
from service.http import cursor
from service.http.errors import Problem
from service.http.parameters import After, Limit, ServerFilter
from service.http.problems import problems
from service.traffic.ranges import moment, read_utc

# `action` matches whole words: token matches token.create, but not token-like.create.
_ENTRIES = """
SELECT entry, at, actor_kind, actor, token_id, address, action, server_id, subject, before::text, after::text
FROM audit_log
WHERE ($1::text IS NULL OR server_id = $1) AND ($2::text IS NULL OR action = $2 OR starts_with(action, $2 || '.'))
  AND ($3::text IS NULL OR strpos(lower(actor), lower($3)) > 0 OR token_id = $3)
  AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)
  AND ($6::bigint IS NULL OR entry < $6)
ORDER BY entry DESC LIMIT $7
"""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A change.

    actor_kind  token; key: the fleet key; session: a browser; proxy: a user that a proxy named; command; file;
                database: a login that changed a table itself
    actor       name of the token, the user or the login; token_id: the token that was used, also for a session
    address     of the client; null: the change did not come over the network
    action      what was done to which kind of object, such as token.create, quota.set or alert-rule.delete
    server_id   the server that was changed; null: no single server
    subject     id of the object
    before      the changed fields as they were; null: the object is new
    after       the changed fields as they are; null: the object is gone. Secrets are never included
    """

    entry: int
    at: datetime
    actor_kind: ActorKind
    actor: str
    token_id: str | None
    address: str | None
    action: str
    server_id: str | None
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(msgspec.Struct, frozen=True):
    """Entries, newest first; `next` continues after the last of them, null at the end."""

    entries: list[AuditEntry]
    next: str | None


def router(database: Database) -> Router:
    """GET /audit."""

    @get("/", scope="admin", summary="The audit log", responses=problems(401, 422, 503))
    async def list_entries(
        server: ServerFilter = None,
        action: Annotated[
            str | None,
            QueryParameter(description="Only this action, or all of its kind: token for token.create.", max_length=100),
        ] = None,
        actor: Annotated[
            str | None,
            QueryParameter(description="Only actors whose name contains this, or this token's id.", max_length=255),
        ] = None,
        since: Annotated[str | None, moment("Only changes from this time on, RFC 3339 with an offset.")] = None,
        until: Annotated[str | None, moment("Only changes before this time, RFC 3339 with an offset.")] = None,
        limit: Limit = 100,
        after: After = None,
    ) -> AuditPage:
        """Every change by API, page, command or file. Entries are kept for LINKBEAT_RETAIN_AUDIT_DAYS."""
        first = None if since is None else read_utc("since", since)
        end = None if until is None else read_utc("until", until)
        names = (None if text is None else storable(text) for text in (server, action, actor))
        rows = await database.fetch(_ENTRIES, *names, first, end, None if after is None else _place(after), limit + 1)
        found = [_entry(row) for row in rows[:limit]]
        return AuditPage(found, cursor.write(found[-1].entry) if len(rows) > limit else None)

    return Router("/audit", route_handlers=[list_entries], tags=["access"])


def _place(after: str) -> int:
    (entry,) = cursor.read(after, tuple[int])
    if not 0 <= entry < 2**63:
        raise Problem.invalid("after", "is not the `next` of a page of this list")
    return entry


def _entry(row: asyncpg.Record) -> AuditEntry:
    values = dict(row)
    # Returned as stored, without decoding them.
    for name in ("before", "after"):
        if values[name] is not None:
            values[name] = msgspec.Raw(values[name].encode())
    return AuditEntry(**values)
