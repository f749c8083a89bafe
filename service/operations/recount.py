"""`linkbeat recount`: recomputes the deltas of a server's stored samples with the current rules.

sql/function/recount.sql does the work; docs/counters.md has the rules."""

import argparse
import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg
import msgspec

from service.database import schema
from service.database.hosts import connect
from service.embedded.choose import choose_database
from service.settings import Settings

RETRY_SECONDS = 1.0

_RECOUNT = (
    "CALL linkbeat.recount_samples(of_server => $1, since => coalesce($2, '-infinity'::timestamptz), is_dry => $3, "
    "counted => NULL)"
)
_REFRESH = "CALL linkbeat.refresh_changed(of_server => $1, since => coalesce($2, '-infinity'::timestamptz))"


class Recounted(msgspec.Struct, frozen=True):
    """One interface: the samples examined, those whose deltas or kind changed, and the total octets."""

    interface_name: str
    samples: int
    changed: int
    rx_bytes_before: int
    rx_bytes_after: int
    tx_bytes_before: int
    tx_bytes_after: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `recount`."""
    parser.add_argument("server", metavar="SERVER", help="id of the server")
    parser.add_argument(
        "--since",
        type=time_argument,
        metavar="TIME",
        help="start, such as 2026-01-29T10:00Z (default: the oldest sample)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the changes without making them")


def run(settings: Settings, arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Recounts, and prints the changes to stdout, one interface per line."""
    with choose_database(settings, lambda _: None) as database:
        asyncio.run(schema.check(database.url, settings))
        try:
            changes = asyncio.run(recount(database.url, arguments.server, arguments.since, is_dry=arguments.dry_run))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as raised:
            say(f"linkbeat: {raised}")
            return 1
    for line in _table(changes):
        print(line)
    total = sum(one.changed for one in changes)
    say(f"{total} samples {'would change; nothing was written' if arguments.dry_run else 'changed'}.")
    return 0


async def recount(url: str, server_id: str, since: datetime | None, *, is_dry: bool) -> list[Recounted]:
    """Recomputes the deltas of a server's samples, from `since` on or all of them. Returns the interfaces by name.

    It uses many transactions, so that ingest continues, and has no time limit.

    Raises asyncpg.NoDataFoundError for an unknown server.
    """
    connection = await connect(url, seconds=schema.CONNECT_SECONDS)
    try:
        server_id = server_id.replace("\0", "")
        counted = await connection.fetchval(_RECOUNT, server_id, since, is_dry)
        while not is_dry:
            try:
                await connection.execute(_REFRESH, server_id, since)
                break
            except asyncpg.LockNotAvailableError:  # a policy refreshes the same buckets at this moment
                await asyncio.sleep(RETRY_SECONDS)
    finally:
        await connection.close(timeout=schema.CONNECT_SECONDS)
    return msgspec.json.decode(counted, type=list[Recounted])


def time_argument(text: str) -> datetime:
    """A time as it is typed, UTC where it names no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a time such as 2026-01-29T10:00Z, got {text!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _table(changes: list[Recounted]) -> list[str]:
    lines = [("interface", "samples", "changed", "received before", "after", "sent before", "after")]
    lines += [
        (
            one.interface_name, f"{one.samples:,}", f"{one.changed:,}", f"{one.rx_bytes_before:,}",
            f"{one.rx_bytes_after:,}", f"{one.tx_bytes_before:,}", f"{one.tx_bytes_after:,}",
        )
        for one in changes
    ]  # fmt: skip
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
