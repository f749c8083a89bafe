"""`doctor`: is everything as it must be for heartbeats to arrive? Nothing is stored, here or at the service."""

import contextlib
import logging
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from . import __version__, remote
from .filesystems import get_filesystem_metrics
from .findings import Finding, found_within, user, written
from .identity import identify
from .kept import keeping, refused, spool, stamps
from .loop import spool_directory
from .network import get_network_interfaces
from .primary import PrimaryInterface
from .reach import service
from .roots import read_text, wire_text
from .routes import read_default_routes
from .settings import DEFAULT_CONFIG, TOKEN_FILE, Settings, SettingsError, described, load, warnings_about

UNIT = "linkbeat-agent.service"
CHECK_SECONDS = 10.0
NAMES_SHOWN = 8


def main(environ: Mapping[str, str], config: str | None, *, as_json: bool) -> int:
    """Prints the findings; returns 0 if nothing prevents heartbeats from arriving, else 1. Never raises, never
    hangs."""
    findings = examine(environ, config)
    is_well = all(each.state != "problem" for each in findings)
    if as_json:
        report = {"version": __version__, "well": is_well, "findings": findings}
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print(written(findings))
    # Threads that still hang are daemons and do not delay the exit.
    sys.stdout.flush()
    return 0 if is_well else 1


def examine(environ: Mapping[str, str], config: str | None = None) -> list[Finding]:
    """Every check, in the order in which a heartbeat depends on it."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    findings = [Finding("version", "ok", f"agent {__version__}, Python {platform.python_version()}, {system}")]
    try:
        settings = load(environ, config)
    except SettingsError as error:
        return [*findings, Finding("settings", "problem", str(error), "The agent does not start until this is fixed.")]
    findings += [Finding("settings", "ok", _sources(settings, environ))]
    findings += [Finding("settings", "warning", said) for said in warnings_about(settings)]
    # Resolving, connecting, TLS and the response each have a timeout.
    reach_seconds = 4 * settings.timeout_seconds
    findings += found_within(reach_seconds, "service", lambda: service(settings, _no_token(settings)))
    findings += found_within(CHECK_SECONDS, "machine", lambda: machine(settings))
    with contextlib.suppress(SettingsError):  # without a name there is no directory, and machine() has reported that
        directory = spool_directory(settings, identify(settings))
        findings += found_within(CHECK_SECONDS, "spool", lambda: spool(directory))
        findings += found_within(CHECK_SECONDS, "timestamps", lambda: stamps(directory, time.time()))
        findings += found_within(CHECK_SECONDS, "kept", lambda: keeping(directory))
        findings += found_within(CHECK_SECONDS, "refused", lambda: refused(directory, time.time()))
    findings += found_within(CHECK_SECONDS, "unit", unit)
    return findings


def _sources(settings: Settings, environ: Mapping[str, str]) -> str:
    """The file and the names of the variables; not their values, because one of them is the token."""
    variables = [one.variable for one in described() if environ.get(one.variable, "").strip()]
    said = f"from {settings.config}" if settings.config else f"no file ({DEFAULT_CONFIG} does not exist)"
    token = settings.api_key_file or ("a setting" if settings.api_key else "")
    return f"{said}; variables: {', '.join(variables) or 'none'}; {f'token from {token}' if token else 'no token'}"


def _no_token(settings: Settings) -> str:
    """The remedy for a missing token; "" if there is a token."""
    if settings.api_key or settings.api_key_file:
        return ""
    path = Path(settings.config or DEFAULT_CONFIG).with_name(TOKEN_FILE)
    try:
        if path.stat().st_size:
            return f"{path} exists, but {user()} may not read it; try again as root"
        return f"{path} is empty; write the token to it and restart the agent"
    except OSError:
        return f"Write it to {path}, or set LINKBEAT_API_KEY_FILE to its file."


def machine(settings: Settings) -> Iterator[Finding]:
    """What the agent can read of this machine: name, interfaces, default route, filesystems, and restrictions."""
    try:
        identity = identify(settings)
        yield Finding("name", "ok", f"reports as {identity.server_id}, hostname {identity.hostname}")
    except SettingsError as error:
        yield Finding("name", "problem", str(error), "Set LINKBEAT_SERVER_ID.")
    if sys.platform == "linux":
        yield from _hidden(settings)
    with _logged() as said:
        reports = remote.apply(settings, remote.RemoteConfig()).reports
        interfaces = get_network_interfaces(settings.roots, is_wanted=reports)
        names = [each.name + ("" if each.is_up else " (down)") for each in interfaces]
        routes = [wire_text(name) for name in read_default_routes(settings.roots)]
        primary = PrimaryInterface().choose(interfaces, routes)
        filesystems = get_filesystem_metrics(settings.roots)
    if not interfaces:
        remedy = "Check LINKBEAT_INCLUDE_INTERFACES, LINKBEAT_EXCLUDE_INTERFACES and LINKBEAT_PROC."
        yield Finding("interfaces", "problem", "none reported", remedy)
    else:
        yield Finding("interfaces", "ok", _listed(names))
        how = "which has the default route" if primary in routes else "which has the most traffic"
        main = f"{primary}, {how}" if primary else "none: no reported interface leaves this machine"
        yield Finding("primary", "ok", main)
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    if in_container and not settings.roots.is_foreign and len(interfaces) <= 1:
        yield Finding(
            "container",
            "warning",
            "this container has its own network, and only that is reported",
            "Use the host's network, or mount its /proc and /sys and set LINKBEAT_PROC and LINKBEAT_SYS.",
        )
    yield Finding("filesystems", "ok", _listed([f"{each.mount_point} {each.percent:.0f} %" for each in filesystems]))
    for message in said:
        yield Finding(
            "filesystems",
            "warning",
            message,
            "It is left out or reported with its last values; the others are not affected.",
        )


def _hidden(settings: Settings) -> Iterator[Finding]:
    """Files of the kernel that cannot be read: a container, hidepid or a service manager may hide them."""
    roots = settings.roots
    proc = Path(roots.proc)
    for path in (roots.net / "dev", roots.mounts, proc / "stat", proc / "meminfo", proc / "uptime"):
        try:
            read_text(path)
        except OSError as error:
            remedy = (
                "With hidepid, the agent needs the group that the mount option gid= names." if _has_hidepid() else ""
            )
            yield Finding("kernel", "warning", f"{path}: {error.strerror}", remedy or "Check LINKBEAT_PROC.")
    if not Path(roots.sys, "class", "net").is_dir():
        path = Path(roots.sys, "class", "net")
        yield Finding(
            "kernel", "warning", f"{path} does not exist: every interface counts as up", "Check LINKBEAT_SYS."
        )


def _has_hidepid() -> bool:
    with contextlib.suppress(OSError):
        for line in read_text(Path("/proc/mounts")).split("\n"):
            fields = line.split(" ")
            if len(fields) > 3 and fields[2] == "proc" and "hidepid=" in fields[3]:
                return True
    return False


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Collects the warnings that the collectors log, instead of printing them to stderr."""
    messages: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, keeper = logging.getLogger(__package__), Keeper(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(keeper)
    try:
        yield messages
    finally:
        logger.removeHandler(keeper)
        logger.propagate = propagate


def unit() -> Iterator[Finding]:
    """Whether the installed service runs; no finding if none is installed or systemd does not run."""
    systemctl = shutil.which("systemctl")
    if not systemctl or not Path("/run/systemd/system").is_dir() or not Path("/etc/systemd/system", UNIT).exists():
        return
    asked = [systemctl, "is-active", UNIT]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)
    state = done.stdout.strip() or "unknown"
    remedy = f"journalctl -u {UNIT} shows the reason; systemctl restart {UNIT} starts it."
    yield Finding("unit", "ok" if state == "active" else "problem", f"{UNIT} is {state}", remedy)


def _listed(names: list[str]) -> str:
    """`3: a, b, c`, shortened if there are many."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)}: {', '.join(names[:NAMES_SHOWN])}{more}" if names else "none"
