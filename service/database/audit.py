"""Makes changes with their actor, for the audit log (sql/function/audit.sql)."""

import getpass
from collections.abc import Awaitable, Callable
from typing import Literal

import asyncpg
import msgspec

from service.http.errors import Problem

Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]
STALE = "LB412"  # linkbeat.check_version
ActorKind = Literal["token", "key", "session", "proxy", "command", "file", "database"]


class Actor(msgspec.Struct, frozen=True):
    """The author of a change.

    name      for people; no secret
    token_id  of the token that was used; "": none
    address   of the client; "": the change did not come over the network
    """

    kind: ActorKind
    name: str
    token_id: str = ""
    address: str = ""


def by(fetch: Fetch, actor: Actor) -> Fetch:
    """A function like `fetch` for calls of SQL functions that change something: `await change("linkbeat.f($1)", one)`.

    The call is an expression, without SELECT. The actor is set in the same statement, and thus in the transaction
    of the change.

    Raises Problem (412) where the object is not the one that the caller has seen (linkbeat.check_version).
    """
    text = text_of(actor)

    async def change(call: str, *arguments: object) -> list[asyncpg.Record]:
        # The row comes from the CTE, so the actor is set before the function is called.
        try:
            return await fetch(
                f"WITH actor AS MATERIALIZED (SELECT linkbeat.act_as(${len(arguments) + 1}::jsonb)) "
                f"SELECT {call} FROM actor",
                *arguments, text,
            )  # fmt: skip
        except asyncpg.PostgresError as raised:
            if raised.sqlstate != STALE:
                raise
            raise Problem(
                "changed", "it has changed since you read it: get the current version and repeat your change"
            ) from None

    return change


def commander() -> Actor:
    """The account that runs a command on this machine."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        name = "a user without a name"
    return Actor("command", name)


ACT_AS = "SELECT linkbeat.act_as($1::jsonb)"


def text_of(actor: Actor) -> str:
    """The argument of ACT_AS, which sets the actor of the transaction in progress."""
    return msgspec.json.encode(actor).decode()
