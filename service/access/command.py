"""`linkbeat token`: creates, lists and revokes tokens on a machine that knows the database's URL."""

import argparse
import asyncio
import math
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import asyncpg
import msgspec

from service.access.issue import Created, NewEnrolment, NewToken, create, create_enrolment
from service.access.keys import secret_key
from service.access.routes import LIST, REVOKE
from service.access.tokens import Hasher
from service.database import schema
from service.database.audit import by, commander
from service.database.hosts import connect
from service.embedded.choose import choose_database
from service.http.errors import Problem
from service.settings import Settings

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
T = TypeVar("T", NewToken, NewEnrolment)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of `token`."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="action")
    made = commands.add_parser("create", help="create a token and print it, once, on stdout")
    made.add_argument("--kind", required=True, choices=["server", "fleet", "read", "admin"])
    made.add_argument("--server", metavar="ID", help="server that a token of kind server reports for")
    made.add_argument("--name", default="", help="a description")
    made.add_argument("--expires-days", type=float, metavar="DAYS", help="lifetime (default: until it is revoked)")
    enrolment = commands.add_parser(
        "enrol", help="create an enrolment token, which agents exchange for tokens of their own"
    )
    enrolment.add_argument("--uses", type=int, default=1, help="number of agents (default 1)")
    enrolment.add_argument(
        "--expires-minutes", type=float, default=60.0, metavar="MINUTES", help="lifetime (default 60)"
    )
    enrolment.add_argument("--name", default="", help="a description")
    commands.add_parser("list", help="list all tokens")
    revoked = commands.add_parser("revoke", help="revoke a token: every service refuses it within seconds")
    revoked.add_argument("id", help="id of the token, as shown by list")


def run(settings: Settings, arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Runs the command. Only the token goes to stdout, so that it can be redirected into a file."""
    hasher = Hasher(secret_key(settings))
    with choose_database(settings, lambda _: None) as database:
        asyncio.run(schema.check(database.url, settings))
        try:
            return asyncio.run(_run(database.url, hasher, arguments, say))
        except Problem as problem:
            say(f"linkbeat: {problem.detail}")
            return 1


async def _run(url: str, hasher: Hasher, arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    connection = await connect(url, seconds=schema.CONNECT_SECONDS, command_timeout=schema.CONNECT_SECONDS)
    change = by(connection.fetch, commander())
    try:
        if arguments.action == "create":
            new = _checked(
                NewToken, kind=arguments.kind, server_id=arguments.server, name=arguments.name,
                expires_days=arguments.expires_days,
            )  # fmt: skip
            _show(await create(change, hasher, new), say)
        elif arguments.action == "enrol":
            wanted = _checked(
                NewEnrolment, uses=arguments.uses, expires_minutes=arguments.expires_minutes, name=arguments.name
            )
            _show(await create_enrolment(change, hasher, wanted), say)
        elif arguments.action == "list":
            _list(await connection.fetch(LIST, None, None, "", 2**31))
        else:
            (row,) = await change(REVOKE, arguments.id.replace("\0", ""))
            if not row["is_known"]:
                say(f"linkbeat: no token {arguments.id!r} exists")
                return 1
    finally:
        await connection.close(timeout=schema.CONNECT_SECONDS)
    return 0


def _checked(expected: type[T], **values: Any) -> T:
    try:
        if any(isinstance(value, float) and not math.isfinite(value) for value in values.values()):
            raise msgspec.ValidationError("a number is not finite")
        return msgspec.convert(values, expected)
    except msgspec.ValidationError as raised:
        raise Problem("invalid", str(raised).replace("`", "")) from None


def _show(new: Created, say: Callable[[str], None]) -> None:
    until = f", until {new.expires_at:%Y-%m-%d %H:%M} UTC" if new.expires_at else ""
    say(
        f"Token {new.id} ({new.kind}{f' {new.server_id}' if new.server_id else ''}{until}). It will not be shown again:"
    )
    print(new.token, flush=True)


def _list(rows: list[asyncpg.Record]) -> None:
    columns = ("id", "kind", "server_id", "name", "state", "created_at", "expires_at", "last_used_at", "uses_left")
    table = [columns, *(tuple(_written(row[name]) for name in columns) for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    for line in table:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")


def _written(value: Any) -> str:
    if value is None or value == "":
        return "-"
    # Names that are older than the check for control characters: a terminal would execute their escape sequences.
    return value.strftime("%Y-%m-%d %H:%M") if hasattr(value, "strftime") else _CONTROL.sub("\ufffd", str(value))
