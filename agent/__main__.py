"""`python -m agent`: run, once, print."""

import argparse
import logging
import os
import sys
import textwrap
import time

import msgspec

from agent import __version__, loop
from agent.heartbeat import Collector, encode
from agent.identity import ApiKey
from agent.sender import Delivered, one_line
from agent.settings import Settings, SettingsError, described

log = logging.getLogger("agent")

CPU_WINDOW_SECONDS = 0.25  # between two readings of the processor's ticks, when there is only one heartbeat


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 not delivered, 2 a bad setting or argument."""
    parser = _parser()
    command = parser.parse_args(arguments).command
    if command is None:
        parser.print_help()
        return 0
    try:
        settings = Settings.from_environment(os.environ)
        _log_to_stderr(settings.log_level)
        return {"run": loop.run, "once": once, "print": print_heartbeat}[command](settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2


def once(settings: Settings) -> int:
    """Sends one heartbeat and prints the service's answer in one line; 1 and the reason on stderr if it failed."""
    key = ApiKey(settings)
    sender = loop.open_sender(settings, key)
    body = _one_heartbeat(settings)
    outcome = sender.heartbeat(body)
    sender.close()
    if isinstance(outcome, Delivered):
        print(one_line(outcome.answer, limit=10_000))
        return 0
    print(f"{settings.url}: {outcome.reason}", file=sys.stderr)
    return 1


def print_heartbeat(settings: Settings) -> int:
    """Prints the heartbeat that would be sent, and sends nothing."""
    print(msgspec.json.format(_one_heartbeat(settings), indent=2).decode())
    return 0


def _one_heartbeat(settings: Settings) -> bytes:
    collector = Collector(settings)
    time.sleep(CPU_WINDOW_SECONDS)
    return encode(collector.collect())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agent",
        description="Linkbeat's agent: reports this machine's network counters and filesystems to the service.",
        epilog="Settings are environment variables:\n\n" + _settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"linkbeat agent {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="run | once | print")
    commands.add_parser("run", help="report every interval until stopped")
    commands.add_parser("once", help="send one heartbeat and print the service's answer")
    commands.add_parser("print", help="print the heartbeat that would be sent, and send nothing")
    return parser


def _settings_help() -> str:
    entries = []
    for setting in described():
        default = (
            f" Default: {setting.default}" + (f" {setting.unit}" if setting.unit else "") if setting.default else ""
        )
        text = textwrap.fill(
            f"{setting.description}{default}", width=88, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
        entries.append(f"  {setting.variable}\n{text}")
    return "\n".join(entries)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )


if __name__ == "__main__":
    sys.exit(main())
