"""`linkbeat alerts`: applies a file of rules and channels, or writes one."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg

from service.alerts import file
from service.database import schema
from service.database.audit import commander
from service.embedded.choose import choose_database
from service.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands of `alerts`."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="action")
    words = "replace the rules and channels managed by a file with those of this file"
    applied = commands.add_parser("apply", help=words, description=words)
    applied.add_argument("--dry-run", action="store_true", help="print the changes without making them")
    applied.add_argument("file", metavar="FILE", type=Path, help="TOML file, as described in docs/alerts.md")
    commands.add_parser("export", help="write all rules and channels to stdout as such a file, without secrets")


def run(settings: Settings, arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Runs the subcommand. Raises SettingsError for a file that cannot be applied."""
    wanted = None
    if arguments.action == "apply":
        wanted = file.read(arguments.file, allows_private=settings.alert_private_addresses)
    with choose_database(settings, lambda _: None) as database:
        asyncio.run(schema.check(database.url, settings))
        asyncio.run(_run(database.url, wanted, say, is_dry=wanted is not None and arguments.dry_run))
    return 0


async def _run(url: str, wanted: file.AlertsFile | None, say: Callable[[str], None], *, is_dry: bool) -> None:
    connection = await asyncpg.connect(url, timeout=schema.CONNECT_SECONDS, command_timeout=schema.CONNECT_SECONDS)
    try:
        if wanted is None:
            sys.stdout.write(await file.export(connection))
            return
        if is_dry:
            made = await file.changes(connection, wanted)
        else:
            made = await file.apply(connection, wanted, commander())
    finally:
        await connection.close(timeout=schema.CONNECT_SECONDS)
    for change in made:
        say(f"{'would ' if is_dry else ''}{change}")
    if not made:
        say("nothing to change")
