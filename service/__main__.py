"""`python -m service`, installed as `linkbeat`: serve, migrate, run, psql, token, recount, agent."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

import asyncpg
import uvicorn

from agent import __version__
from service.access import command as token_command
from service.access.keys import fleet_key
from service.app import create_app
from service.command import COMMAND, python_module
from service.database import schema
from service.database.roles import analyst_session
from service.database.schema import SchemaError
from service.embedded.choose import choose_database
from service.embedded.problems import EmbeddedError
from service.http.connections import Connections, raise_descriptor_limit
from service.http.limits import ClientAddress
from service.http.listen import listen
from service.http.log_limit import LimitedFilter
from service.http.protocol import Server, protocol
from service.operations import recount
from service.run import run_all
from service.settings import Settings, SettingsError

log = logging.getLogger("linkbeat")

DRAIN_SECONDS = 10


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
        _log_to_stderr(settings.log_level)
        if arguments.command == "token":
            return token_command.run(settings, arguments, say)
        if arguments.command == "recount":
            return recount.run(settings, arguments, say)
        return {"serve": serve, "migrate": migrate, "run": run_all, "psql": psql}[arguments.command](settings)
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
        commands.add_parser(name, help=words, description=words)
    words = "create, list and revoke tokens (docs/identity.md)"
    token_command.add_arguments(commands.add_parser("token", help=words, description=words))
    words = "recompute the deltas of a server's stored samples (docs/counters.md)"
    recount.add_arguments(commands.add_parser("recount", help=words, description=words))
    # Only for --help: main() passes the arguments to the agent's own parser.
    commands.add_parser("agent", add_help=False, help=f"report this machine: {COMMAND} agent --help")
    return parser


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; requests in progress are finished."""
    # A database named by LINKBEAT_DATABASE_URL needs no message, and `run` has already printed it.
    words = log.debug if settings.database_url else say
    with choose_database(settings, words) as database:
        asyncio.run(schema.check(database.url, settings))
        app = create_app(settings, database_url=database.url, key=fleet_key(settings))
        known = Connections(
            settings.connections_per_address, ClientAddress(settings.trusted_proxies), raise_descriptor_limit()
        )
        listener = listen(settings.host, settings.port)
        config = uvicorn.Config(
            app,
            http=protocol(known),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            backlog=2048,
        )
        server = Server(config, say, app.end_waits)
        # Threads yield to the event loop after half a millisecond instead of five.
        sys.setswitchinterval(0.0005)
        # The handlers that uvicorn sets while it serves. At its end it raises the signal again, which must not end the
        # process, because the database has to be stopped.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        failures: list[str] = []

        def give_up(failure: str) -> None:
            """Called from the thread that supervises the database; stops the service in order, as a signal does."""
            failures.append(failure)
            os.kill(os.getpid(), signal.SIGTERM)

        with (
            listener,
            database.watched(say, give_up),
            asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,
        ):
            runner.run(server.serve([listener]))
    for failure in failures:
        say(f"linkbeat: {failure}")
    return 0 if server.started and not failures else 1


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


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
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
