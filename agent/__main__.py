"""`python -m agent`, installed as `linkbeat-agent`: run, once, print, doctor, install, uninstall."""

import argparse
import logging
import os
import sys
import textwrap
import time
from pathlib import Path

import msgspec

from . import __version__, loop
from .enrolment import Enrolment
from .heartbeat import Collector, encode
from .identity import ApiKey, identify
from .sender import Delivered, one_line
from .settings import Settings, SettingsError, described, load, warnings_about

log = logging.getLogger(__package__)

CPU_WINDOW_SECONDS = 0.25  # between two readings of the processor's ticks, when there is only one heartbeat


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 success; 1 not delivered, a problem found, or not installed; 2 an invalid setting or argument."""
    parser = argument_parser()
    options = parser.parse_args(arguments)
    command = options.command or ("once" if options.once else None)
    if command is None:
        parser.print_help()
        return 0
    if options.tags is not None:
        os.environ["LINKBEAT_TAGS"] = options.tags  # also for a reload
    # Imported here, so that a running agent does not hold them in memory.
    if command == "doctor":
        from . import doctor  # noqa: PLC0415

        return doctor.main(os.environ, options.config, as_json=options.json)
    if command in ("install", "uninstall"):
        from . import install  # noqa: PLC0415

        return install.main(options, os.environ)
    try:
        found = load(os.environ, options.config)
        _log_to_stderr(found.log_level)
        for warning in warnings_about(found):
            log.warning("%s", warning)
        return {"run": loop.run, "once": once, "print": print_heartbeat}[command](found)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2


def once(settings: Settings) -> int:
    """Sends one heartbeat and prints the response in one line; returns 1 and prints the reason on stderr if it
    failed."""
    key = ApiKey(settings)
    identity = identify(settings)
    enrolment = Enrolment(identity, loop.spool_directory(settings, identity) / "token")
    sender = loop.open_sender(settings, key, enrolment)
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


def argument_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=_command(),
        description="Linkbeat's agent: reports this machine's network counters and filesystems to the service.",
        epilog="Settings are environment variables, or keys in the file (interval_seconds = 30):\n\n"
        + _settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"linkbeat agent {__version__}")
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings; overrides LINKBEAT_CONFIG")
    parser.add_argument("--tags", metavar="LIST", help="tags of this machine; overrides LINKBEAT_TAGS")
    parser.add_argument("--once", action="store_true", help="same as the command once")
    commands = parser.add_subparsers(dest="command", metavar="run | once | print | doctor | install | uninstall")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        # SUPPRESS keeps the value that stands before the command.
        added.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="TOML file with settings")
        added.add_argument("--tags", metavar="LIST", default=argparse.SUPPRESS, help="tags of this machine")
        return added

    command("run", "report every interval until stopped")
    command("once", "send one heartbeat and print the service's answer")
    command("print", "print the next heartbeat without sending it")
    doctor = command(
        "doctor", "check the settings, the connection to the service, the token, the clock and what the agent can read"
    )
    doctor.add_argument("--json", action="store_true", help="print every check with its state and remedy as JSON")
    install = commands.add_parser("install", help="install the agent as a systemd service on this machine")
    install.add_argument("--url", help="URL of the service (LINKBEAT_URL)")
    install.add_argument("--token-file", metavar="FILE", help="file that contains the token, - for stdin")
    install.add_argument(
        "--python", metavar="FILE", help="Python interpreter of the systemd service (default: the system's)"
    )
    uninstall = commands.add_parser("uninstall", help="remove the agent, and keep settings, token and spool")
    uninstall.add_argument("--purge", action="store_true", help="also remove settings, token and spool")
    for each in (install, uninstall):
        each.add_argument(
            "--root", metavar="DIR", default="/", help="work below DIR and start nothing, to build a package"
        )
        each.add_argument("--dry-run", action="store_true", help="print the changes without making them")
    return parser


def _command() -> str:
    """The name of the command: linkbeat-agent, `linkbeat agent` of the service's wheel, or the module."""
    if Path(sys.argv[0]).name.startswith("linkbeat-agent"):
        return "linkbeat-agent"
    return "linkbeat agent" if __package__ == "linkbeat.agent" else f"python -m {__package__}"


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
