"""`install` and `uninstall`: the agent as a hardened systemd service of this machine, or below a package's root."""

import argparse
import importlib.machinery
import importlib.resources
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from . import environment
from .settings import Settings, SettingsError, described
from .work import InstallError, Work

UNIT_NAME = "linkbeat-agent.service"
LIBRARY = Path("usr/local/lib/linkbeat-agent")
COMMAND = Path("usr/local/bin/linkbeat-agent")
UNIT = Path("etc/systemd/system", UNIT_NAME)
CONFIG = Path("etc/linkbeat/agent.toml")
TOKEN = Path("etc/linkbeat/token")
# systemd keeps the directory of a DynamicUser below private, and links to it.
STATE = (Path("var/lib/linkbeat-agent"), Path("var/lib/private/linkbeat-agent"))

_MAIN = "import sys\n\nfrom agent.__main__ import main\n\nsys.exit(main())\n"
_ELSEWHERE = {"api_key", "api_key_file", "config"}  # the token is in a separate file


def main(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Exit status: 0 success, 1 failure."""
    root, dry_run = Path(options.root).absolute(), options.dry_run
    os.umask(0o022)  # with a stricter umask of root, the agent's user could not enter the directories
    try:
        if not sys.platform.startswith("linux"):
            raise InstallError("install supports only Linux; elsewhere, start 'run' with the system's service manager")
        if root == Path("/") and not dry_run and os.geteuid() != 0:
            raise InstallError(f"{options.command} needs root; run: sudo {_invocation()} …")
        work = Work(root, dry_run=dry_run)
        if options.command == "install":
            install(work, options, environ)
        else:
            uninstall(work, purge=options.purge)
    except (InstallError, SettingsError) as error:
        print(f"linkbeat-agent: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"linkbeat-agent: {error.filename or root}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def install(work: Work, options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Installs program, command and unit, and settings and token if they do not exist. A later install upgrades the
    program.

    Raises InstallError, SettingsError and OSError.
    """
    environ = dict(environ) | ({"LINKBEAT_URL": options.url} if options.url else {})
    environ |= {"LINKBEAT_API_KEY": token} if (token := _token(options.token_file, environ)) else {}
    settings = environment.load(Settings, environ)
    python = options.python or _interpreter()
    work.write_tree(LIBRARY, program())
    _prepare(work, python)
    work.write(COMMAND, f'#!/bin/sh\nexec {python} -I -S /{LIBRARY} "$@"\n'.encode(), 0o755)
    if (work.root / CONFIG).exists():
        given = [variable for variable in _chosen(settings, environ) if variable != "url" or options.url]
        kept = f"; {', '.join(given)} of this call is not applied" if given else ""
        work.say(f"keep       {work.root / CONFIG}{kept}")
    else:
        # World-readable, because the unit's dynamic user does not exist yet; it contains no secret.
        work.write(CONFIG, config_text(_chosen(settings, environ)).encode(), 0o644)
    if token or not (work.root / TOKEN).exists():
        # Also without a token, because the unit does not start if the file is missing.
        work.write(TOKEN, f"{token}\n".encode() if token else b"", 0o600)
    work.write(UNIT, unit_text(python).encode(), 0o644)
    has_token = bool(token) or (not work.dry_run and (work.root / TOKEN).stat().st_size > 0)
    _start(work, has_token=has_token)


def uninstall(work: Work, *, purge: bool) -> None:
    """Removes the installation; with `purge`, also settings, token and spool. Raises InstallError and OSError."""
    if work.has_systemd and (work.root / UNIT).exists():
        work.run("systemctl", "disable", "--now", UNIT_NAME)
    for path in (UNIT, COMMAND, LIBRARY):
        work.remove(path)
    if work.has_systemd:
        work.run("systemctl", "daemon-reload")
    kept = (CONFIG, TOKEN, *STATE)
    if purge:
        for path in kept:
            work.remove(path)
        directory = work.root / CONFIG.parent
        if not work.dry_run and directory.is_dir() and not any(directory.iterdir()):
            work.remove(CONFIG.parent)
    for path in kept:
        if not purge and (work.root / path).exists():
            work.say(f"keep       {work.root / path}")


def program() -> dict[str, bytes]:
    """The running agent and msgspec, from a checkout, an environment or the one-file agent; path and content.

    It includes msgspec's compiled modules for this platform and every available Python: the one-file agent has several,
    so that the installed agent survives an upgrade of the system's Python.
    """
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]  # .cpython-311-x86_64-linux-gnu.so
    for_this_machine = re.sub(r"^\.cpython-\d+", "", suffix)
    files = {"__main__.py": _MAIN.encode()}
    for package, module in (("agent", __package__), ("msgspec", "msgspec")):
        for name, file in _files(importlib.resources.files(module), package):
            if name.endswith((".py", ".service", "/LICENSE", for_this_machine)):
                files[name] = file.read_bytes()
    return files


def unit_text(python: str) -> str:
    """The systemd unit, which starts the agent with this interpreter."""
    template = importlib.resources.files(__package__).joinpath(UNIT_NAME).read_text(encoding="utf-8")
    return template.replace("@python@", python)


def config_text(chosen: Mapping[str, Any]) -> str:
    """A configuration file with every setting: those of `chosen` set, the others as comments."""
    lines = [
        "# Settings of the Linkbeat agent. After a change, run: systemctl reload linkbeat-agent",
        f"# The token is in /{TOKEN}. After changing it, run: systemctl restart linkbeat-agent",
        "# To check the agent, run as root: linkbeat-agent doctor",
    ]
    defaults = Settings()
    for setting in described():
        name = setting.variable.removeprefix(environment.PREFIX).lower()
        if name in _ELSEWHERE:
            continue
        mark, value = ("", chosen[name]) if name in chosen else ("#", getattr(defaults, name))
        lines += ["", f"# {setting.description}", f"{mark}{name} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, str):
        # TOML has the escapes of JSON, but DEL must be escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _chosen(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in the environment of the installation, except the token."""
    names = [name for name in Settings.__struct_fields__ if name not in _ELSEWHERE]
    return {name: getattr(settings, name) for name in names if environ.get(environment.variable(name), "").strip()}


def _token(token_file: str | None, environ: Mapping[str, str]) -> str:
    """The token of this call, "" for none. Never an argument, because ps shows those to every user."""
    source = token_file or environ.get("LINKBEAT_API_KEY_FILE", "").strip()
    if not source:
        return environ.get("LINKBEAT_API_KEY", "").strip()
    text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8", errors="replace")
    if not text.strip():
        raise InstallError(f"--token-file {source}: is empty")
    return text.strip()


def _invocation() -> str:
    """How this program was started, for a shell without this environment."""
    if Path(sys.argv[0]).name == "__main__.py":  # python -m: the file alone would not find its package
        return f"{sys.executable} -m {__package__}"
    return f"{sys.executable} {sys.argv[0]}"


def _interpreter() -> str:
    """The system's interpreter behind the running one, by the name that survives an upgrade.

    Raises InstallError if the unit's user could not run it.
    """
    real = Path(sys.executable).resolve()
    for place in (real, *real.parents):
        if not place.stat().st_mode & stat.S_IXOTH:
            raise InstallError(
                f"{real} cannot be run by the agent's user, because other users may not enter {place}; "
                "install with the system's Python (/usr/bin/python3), or name one with --python"
            )
    lasting = real.with_name("python3")
    return str(lasting if lasting.exists() and lasting.resolve() == real else real)


def _prepare(work: Work, python: str) -> None:
    """Compiles the program, because its user may not write there, and starts it once with the service's interpreter.

    Raises InstallError if that fails: an older Python, or one without msgspec.
    """
    if not Path(python).exists():
        work.say(f"{python} does not exist here: not tested whether it can start the agent")
        return
    library = str(work.root / LIBRARY)
    work.run(python, "-I", "-m", "compileall", "-q", "-s", library, "-p", f"/{LIBRARY}", library, must=False)
    work.run(python, "-I", "-S", library, "--version")


def _start(work: Work, *, has_token: bool) -> None:
    if work.has_systemd:
        work.run("systemctl", "daemon-reload")
        work.run("systemctl", "enable", UNIT_NAME)
        work.run("systemctl", "restart", UNIT_NAME)
    elif work.root == Path("/"):
        work.say(f"systemd is not running: start 'linkbeat-agent run' (/{COMMAND}) with your service manager")
    if not has_token:
        work.say(f"There is no token yet: write it to /{TOKEN}, then run: systemctl restart {UNIT_NAME}")
    if work.root == Path("/"):
        work.say("To check the agent, run as root: linkbeat-agent doctor")


def _files(directory: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(directory.iterdir(), key=lambda each: each.name):
        name = f"{prefix}/{entry.name}"
        if entry.is_file():
            yield name, entry
        elif entry.name != "__pycache__":
            yield from _files(entry, name)
