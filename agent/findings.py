"""What doctor finds, and how it looks without ever hanging or failing."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `remedy` says what to do where it is not ok."""

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


def found_within(seconds: float, name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What `look` finds in the time that it has; what it raises, and that it took longer, are findings too.

    In a thread of its own, which is left alone afterwards: resolving a name cannot be interrupted, nor can statvfs.
    """
    findings: list[Finding] = []

    def collect() -> None:
        try:
            for each in look():
                findings.append(each)  # noqa: PERF402 - one by one: what was found before it hung is not lost
        except Exception as error:  # noqa: BLE001 - one look that fails must not cost the others
            findings.append(Finding(name, "problem", f"check failed: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=collect, name=f"check {name}", daemon=True)
    begin = time.monotonic()
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        took = f"{time.monotonic() - begin:.0f} s"
        return [*findings, Finding(name, "problem", f"no result within {took}", "A system call or the network hangs.")]
    return findings


def written(findings: Iterable[Finding]) -> str:
    """A line for each, the remedy below it, and how many of them are not ok."""
    kept = list(findings)
    width = max((len(each.name) for each in kept), default=0)
    lines = []
    for each in kept:
        lines.append(f"{each.state:<8} {each.name:<{width}}  {each.text}")
        if each.remedy and each.state != "ok":
            lines.append(f"{'':<8} {'':<{width}}  → {each.remedy}")
    counts = [(sum(each.state == state for each in kept), state) for state in ("problem", "warning")]
    summary = ", ".join(f"{count} {state}{'s' if count > 1 else ''}" for count, state in counts if count)
    return "\n".join([*lines, "", summary or "No problems found."])


def user() -> str:
    """Who asks, for a file that is closed to them."""
    return f"user {os.geteuid()}" if hasattr(os, "geteuid") else "this user"
