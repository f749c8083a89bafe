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
from service.alerts import command as alerts_command
from service.alerts import follow_file
from service.app import create_app
from service.command import COMMAND, python_module
from service.database import schema
from service.database.roles import analyst_session
from service.database.schema import SchemaError
from service.embedded.choose import choose_database
from service.embedded.problems import EmbeddedError
from service.http.connections import Connections, raise_descriptor_limit
from service.http.limits import Peers
from service.http.listen import listen
from service.http.log_limit import LimitedFilter
from service.http.protocol import Server, protocol
from service.operations import recount
from service.run import run_all
from service.settings import Settings, SettingsError

log = logging.getLogger("linkbeat")

DRAIN_SECONDS = 10


def main() -> int:
    """Runs a command; what went wrong is one line on stderr, and exit status 1."""
    if sys.argv[1:2] == ["agent"]:
        # In place of this process, which holds several times the memory that an agent may have.
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
        if arguments.command == "alerts":
            return alerts_command.run(settings, arguments, say)
        if arguments.command == "recount":
            return recount.run(settings, arguments, say)
        return {"serve": serve, "migrate": migrate, "run": run_all, "psql": psql}[arguments.command](settings)
    except (SettingsError, SchemaError, EmbeddedError) as raised:
        print(f"linkbeat: {raised}", file=sys.stderr)
        return 1


def argument_parser() -> argparse.ArgumentParser:
    """What can be typed after the command."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Linkbeat's service.")
    parser.add_argument("--version", action="version", version=f"linkbeat {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, words in (
        ("serve", "serve the API on LINKBEAT_HOST:LINKBEAT_PORT"),
        ("migrate", "bring the database's schema up to date"),
        ("run", "database, schema, service and an agent on this machine, until Ctrl-C"),
        ("psql", "open psql on the database, as analyst"),
    ):
        commands.add_parser(name, help=words, description=words)
    words = "make, list and revoke tokens (docs/identity.md)"
    token_command.add_arguments(commands.add_parser("token", help=words, description=words))
    words = "apply a file of alert rules and channels, and write one (docs/alerts.md)"
    alerts_command.add_arguments(commands.add_parser("alerts", help=words, description=words))
    words = "judge a server's stored samples again by today's rules (docs/counters.md)"
    recount.add_arguments(commands.add_parser("recount", help=words, description=words))
    # Listed here only: main() hands all that follows to the agent's own parser.
    commands.add_parser("agent", add_help=False, help=f"report this machine: {COMMAND} agent --help")
    return parser


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; what was taken in by then is stored and answered."""
    # Which one was named needs no saying: `run` has just said where it found it.
    words = log.debug if settings.database_url else say
    with choose_database(settings, words) as database:
        asyncio.run(schema.check(database.url, settings))
        if settings.alerts_file:
            asyncio.run(follow_file.apply(database.url, settings))
        app = create_app(settings, database_url=database.url, key=fleet_key(settings))
        known = Connections(settings.connections_per_address, Peers(settings.trusted_proxies), raise_descriptor_limit())
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
        # What works beside the event loop gives it its turn after half a millisecond, and not after five.
        sys.setswitchinterval(0.0005)
        # As uvicorn sets them while it serves. At its end it raises what came once more, and that must not end the
        # process: the database is still to be stopped.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        failures: list[str] = []

        def give_up(failure: str) -> None:
            """Called from the thread that watches the database; ends the service in order, as the signal does."""
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
    """Opens psql as analyst, where there is that role; while it is open, the embedded database runs."""
    with choose_database(settings, say) as database:
        if database.psql is None:
            print("linkbeat: no psql found; install postgresql-client", file=sys.stderr)
            return 1
        options = ""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # psql itself will tell
            options, who = asyncio.run(analyst_session(database.url))
            say(who)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is psql's: it cancels a query
        with database.watched(say, say):
            return asyncio.run(_interactive(database.psql, database.psql_environment, options))


def say(line: str) -> None:
    """A line for the person who started the command."""
    print(line, file=sys.stderr, flush=True)


def _end(number: int, _: FrameType | None) -> None:
    """Ends the command, by way of whatever must be stopped first."""
    raise SystemExit(128 + number)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    # What clients cause, such as a request that is no HTTP.
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.addFilter(LimitedFilter(uvicorn_log))
    if level == "info":
        # What they tell of their everyday doings is told in our words.
        for name in ("uvicorn.error", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)


async def _interactive(command: list[str], connection: dict[str, str], options: str) -> int:
    """psql, which learns by its environment what no other user may see in a list of processes."""
    options = f"{os.environ.get('PGOPTIONS', '')} {options}".strip()
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | connection | {"PGOPTIONS": options})
    return await process.wait()


if __name__ == "__main__":
    sys.exit(main())
