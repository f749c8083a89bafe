"""`python -m service`, installed as `linkbeat`: serve, migrate, run, psql, token, recount, verify, agent."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

import asyncpg

from agent import __version__
from service.access import command as token_command
from service.alerts import command as alerts_command
from service.alerts import follow_file
from service.command import COMMAND, python_module
from service.database import schema
from service.database.roles import analyst_session
from service.database.schema import SchemaError
from service.embedded.choose import choose_database
from service.embedded.problems import EmbeddedError
from service.http.listen import listen
from service.http.log_limit import LimitedFilter
from service.operations import recount, verify
from service.run import run_all
from service.serving.process import Place, serve_on
from service.serving.workers import MOST_WORKERS, run_workers
from service.settings import Settings, SettingsError

log = logging.getLogger("linkbeat")
_WITH_ARGUMENTS = {
    "alerts": alerts_command.run,
    "recount": recount.run,
    "token": token_command.run,
    "verify": verify.run,
}


def main() -> int:
    """Runs a command; an error is one line on stderr, and exit status 1."""
    if sys.argv[1:2] == ["agent"]:
        # Replaces this process, which uses several times the memory of an agent.
        agent = python_module("agent", *sys.argv[2:])
        os.execv(agent[0], agent)  # noqa: S606 - no shell
    arguments = argument_parser().parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        settings = Settings.from_environment(os.environ)
        _log_to_stderr(settings.log_level, getattr(arguments, "worker", ""))
        if arguments.command in _WITH_ARGUMENTS:
            return _WITH_ARGUMENTS[arguments.command](settings, arguments, say)
        if arguments.command == "serve":
            return serve(settings, arguments)
        return {"migrate": migrate, "run": run_all, "psql": psql}[arguments.command](settings)
    except (SettingsError, SchemaError, EmbeddedError) as raised:
        print(f"linkbeat: {raised}", file=sys.stderr)
        return 1


def argument_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Linkbeat's service.")
    parser.add_argument("--version", action="version", version=f"linkbeat {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, words in (
        ("serve", "serve the API on LINKBEAT_HOST:LINKBEAT_PORT"),
        ("migrate", "bring the database's schema up to date"),
        ("run", "run database, schema, service and an agent on this machine, until Ctrl-C"),
        ("psql", "open psql on the database, as analyst"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        if name == "serve":
            command.add_argument(
                "--workers",
                type=_worker_count,
                default=1,
                metavar="N",
                help="processes that share the port (docs/many-services.md); 1 unless given",
            )
            command.add_argument(
                "--worker", default="", help=argparse.SUPPRESS
            )  # one of them: service/serving/workers.py
    words = "make, list and revoke tokens (docs/identity.md)"
    token_command.add_arguments(commands.add_parser("token", help=words, description=words))
    words = "apply or export a file of alert rules and channels (docs/alerts.md)"
    alerts_command.add_arguments(commands.add_parser("alerts", help=words, description=words))
    words = "recompute the deltas of a server's stored samples (docs/counters.md)"
    recount.add_arguments(commands.add_parser("recount", help=words, description=words))
    words = "compare all aggregates with what their rows come to; exit status 1 where they differ (docs/backup.md)"
    verify.add_arguments(commands.add_parser("verify", help=words, description=words))
    # Listed here only: main() hands all that follows to the agent's own parser.
    commands.add_parser("agent", add_help=False, help=f"report this machine: {COMMAND} agent --help")
    return parser


def serve(settings: Settings, arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT; what was taken in by then is stored and answered."""
    if arguments.worker:
        place = Place.parse(arguments.worker)
        with choose_database(settings, log.debug) as database, place.socket() as listener:
            asyncio.run(schema.check(database.url, settings))
            return serve_on(listener, settings, database, say, place)
    # Which one was named needs no saying: `run` has just said where it found it.
    words = log.debug if settings.database_url else say
    with choose_database(settings, words) as database:
        asyncio.run(schema.check(database.url, settings))
        if settings.alerts_file:
            asyncio.run(follow_file.apply(database.url, settings))
        if arguments.workers > 1:
            return run_workers(settings, database, arguments.workers, say)
        return serve_on(listen(settings.host, settings.port), settings, database, say)


def migrate(settings: Settings) -> int:
    """Brings the schema up to date."""
    with choose_database(settings, say) as database:
        asyncio.run(schema.migrate(database.url, say, settings))
    return 0


def psql(settings: Settings) -> int:
    """Opens psql as analyst, if that role exists; the embedded database runs while it is open."""
    with choose_database(settings, say) as database:
        if database.psql is None:
            print("linkbeat: no psql found; install postgresql-client", file=sys.stderr)
            return 1
        options = ""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # psql reports the error
            options, who = asyncio.run(analyst_session(database.url))
            say(who)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C cancels a query in psql
        with database.watched(say, say):
            return asyncio.run(_interactive(database.psql, database.psql_environment, options))


def say(line: str) -> None:
    """Prints a line for the user of the command."""
    print(line, file=sys.stderr, flush=True)


def _end(number: int, _: FrameType | None) -> None:
    """Ends the command after running its cleanup."""
    raise SystemExit(128 + number)


def _worker_count(text: str) -> int:
    count = int(text) if text.isdigit() else 0
    if not 1 <= count <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MOST_WORKERS}, got {text!r}")
    return count


def _log_to_stderr(level: str, worker: str) -> None:
    """`worker`: its place (service/serving/process.py), "" for a process that serves alone."""
    of = f"worker {worker.partition(':')[0]}: " if worker else ""
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {of}%(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    # Messages that clients cause, such as invalid HTTP.
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.addFilter(LimitedFilter(uvicorn_log))
    if level == "info":
        # The service logs its own messages for their routine events.
        for name in ("uvicorn.error", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)


async def _interactive(command: list[str], connection: dict[str, str], options: str) -> int:
    """Runs psql; the password is in its environment, because other users can list command lines."""
    options = f"{os.environ.get('PGOPTIONS', '')} {options}".strip()
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | connection | {"PGOPTIONS": options})
    return await process.wait()


if __name__ == "__main__":
    sys.exit(main())
