"""python -m service: serve, migrate, run, psql."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys

import uvicorn

from service import schema
from service.app import create_app
from service.embedded.choose import choose_database
from service.embedded.problems import EmbeddedError
from service.identity import fleet_key
from service.listen import listen
from service.run import run_all
from service.schema import SchemaError
from service.settings import Settings, SettingsError

DRAIN_SECONDS = 10


def main() -> int:
    """Runs a command; what went wrong is one line on stderr, and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Linkbeat's service.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, words in (
        ("serve", "serve the API on LINKBEAT_HOST:LINKBEAT_PORT"),
        ("migrate", "bring the database's schema up to date"),
        ("run", "database, schema, service and an agent on this machine, until Ctrl-C"),
        ("psql", "open psql on the database"),
    ):
        commands.add_parser(name, help=words, description=words)
    command = parser.parse_args().command
    try:
        settings = Settings.from_environment(os.environ)
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
        return {"serve": serve, "migrate": migrate, "run": run_all, "psql": psql}[command](settings)
    except (SettingsError, SchemaError, EmbeddedError) as raised:
        print(f"linkbeat: {raised}", file=sys.stderr)
        return 1


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; what was taken in by then is stored and answered."""
    with choose_database(settings.database_url or None, settings.data_path, say) as database:
        asyncio.run(schema.check(database.url))
        app = create_app(settings, database_url=database.url, key=fleet_key(settings))
        listener = listen(settings.host, settings.port)
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level=settings.log_level,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            backlog=2048,
        )
        with listener:
            asyncio.run(_Server(config).serve([listener]))
    return 0


def migrate(settings: Settings) -> int:
    """Brings the schema up to date."""
    with choose_database(settings.database_url or None, settings.data_path, say) as database:
        asyncio.run(schema.migrate(database.url, say))
    return 0


def psql(settings: Settings) -> int:
    """Opens psql; while it is open, the embedded database runs."""
    with choose_database(settings.database_url or None, settings.data_path, say) as database:
        if database.psql is None:
            print("linkbeat: no psql found; install postgresql-client", file=sys.stderr)
            return 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is psql's: it cancels a query
        return asyncio.run(_interactive(database.psql))


def say(line: str) -> None:
    """A line for the person who started the command."""
    print(line, file=sys.stderr, flush=True)


class _Server(uvicorn.Server):
    """uvicorn, with the address on stderr once it answers."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            say(f"Listening on http://{f'[{host}]' if ':' in host else host}:{port}")


async def _interactive(command: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    return await process.wait()


if __name__ == "__main__":
    sys.exit(main())
