"""The checks of doctor in the spool: room, timestamps, kept and rejected heartbeats. They change nothing."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from . import acknowledged
from .acknowledged import Acknowledged
from .answers import one_line
from .clock import REFUSED_AHEAD_MS, rfc3339
from .files import read_regular
from .findings import Finding, user
from .keeping import read_epochs
from .segments import SEGMENT_NAME, Record, find_records

LOW_BYTES = 64 * 1024**2  # of free space for the spool
RECENT_SECONDS = 86_400.0
SLEWED_MS = 5_000  # what a clock that a time service slews may be ahead of itself

_AS_ROOT = "Look as root, or as the agent's user."


def spool(directory: Path) -> Iterator[Finding]:
    """Whether heartbeats can be kept on the disk, and how many wait there."""
    try:
        next(directory.iterdir(), None)
    except FileNotFoundError:
        yield Finding("spool", "ok", f"{directory} is not there yet; the agent makes it at its start")
        return
    except OSError as error:
        yield Finding("spool", "warning", f"{directory}: {error.strerror}", _AS_ROOT)
        return
    sizes = []
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # a running agent removes what is delivered
            if path.is_file():
                sizes.append(path.stat().st_size)
    free = shutil.disk_usage(directory).free
    files = f"{len(sizes)} file{'s' * (len(sizes) != 1)}"
    text = f"{directory}: {sum(sizes):,} bytes in {files}, {free // 1024**2:,} MiB free"
    if not os.access(directory, os.W_OK | os.X_OK):
        remedy = f"{_AS_ROOT} Where the filesystem is read-only, a restart loses what was not delivered."
        yield Finding("spool", "warning", f"{text}; {user()} cannot write there", remedy)
    elif free < LOW_BYTES:
        yield Finding("spool", "warning", f"{text}; that is little", "Make room, or set a smaller spool.")
    else:
        yield Finding("spool", "ok", text)


def stamps(directory: Path, now: float) -> Iterator[Finding]:
    """Whether the timestamps of this machine's heartbeats lie in the future; `now` is Unix time.

    Says nothing where no heartbeat is on the disk, or none can be read: spool() says why.
    """
    stored, noted = _stored(directory)
    if not stored:
        return
    newest = max(stored, key=lambda record: record.sequence)
    waiting = [record for record in stored if record.sequence not in noted]
    now_ms = int(now * 1000)
    early = sum(record.stamp_ms - now_ms > REFUSED_AHEAD_MS for record in waiting)
    ahead_ms = newest.stamp_ms - now_ms
    if not early and ahead_ms <= SLEWED_MS:
        yield Finding("timestamps", "ok", f"the last heartbeat is of {rfc3339(newest.stamp_ms)}")
        return
    text = f"the last heartbeat says {rfc3339(newest.stamp_ms)}, {ahead_ms / 1000:,.0f} s ahead of this machine's clock"
    if ahead_ms > REFUSED_AHEAD_MS or early:
        if early:
            text += f"; {early} that wait are more than 5 minutes ahead, which the service refuses"
        remedy = (
            "The clock was set back. Where it is right now, the agent corrects them at its next heartbeat, or the one "
            "after; where that does not come, see that the agent runs. Else let NTP set the clock "
            "(timedatectl set-ntp true)."
        )
        yield Finding("timestamps", "problem" if early else "warning", text, remedy)
    else:
        remedy = "Nothing is to be done: the clock was set back, and the agent's time goes slower until that is even."
        yield Finding("timestamps", "warning", text, remedy)


def keeping(directory: Path) -> Iterator[Finding]:
    """The acknowledged heartbeats that would be sent again to a new database, and the last known database.

    No finding if there is neither a heartbeat on the disk nor an epoch.
    """
    epoch = read_epochs(directory / "epoch").current
    stored, noted = _stored(directory)
    stamps = [record.stamp_ms for record in stored if (how := noted.get(record.sequence)) is not None and how.at_ms]
    if not stored and not epoch:
        return
    count = f"{len(stamps):,} acknowledged heartbeat{'s' * (len(stamps) != 1)}"
    since = f", the oldest from {rfc3339(min(stamps))}" if stamps else ""
    named = f"the service's database is {one_line(epoch)}" if epoch else "the service does not name its database"
    yield Finding("kept", "ok", f"{count}{since}; {named}")


def refused(directory: Path, now: float) -> Iterator[Finding]:
    """The heartbeats that the service refused in the last day, by the dead letters; `now` is Unix time."""
    reasons = []
    with contextlib.suppress(OSError):  # a file that was never written, or spool() says why
        for line in read_regular(directory / "refused.ndjson").split(b"\n"):
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
                letter = msgspec.json.decode(line, type=_DeadLetter)
                if abs(now - datetime.fromisoformat(letter.refused_at).timestamp()) < RECENT_SECONDS:
                    reasons.append(letter.reason)
    if not reasons:
        return
    count = f"{len(reasons)} heartbeat{'s' * (len(reasons) != 1)}"
    text = f"the service refused {count} since yesterday, the last one with: {one_line(reasons[-1])}"
    if "timestamp: " in reasons[-1]:
        remedy = "This machine's clock was wrong when they were collected; let NTP set it (timedatectl set-ntp true)."
    else:
        remedy = "Is the agent newer or older than the service? The refused heartbeats are there."
    yield Finding("refused", "warning", text, f"{remedy} See {directory / 'refused.ndjson'}.")


class _DeadLetter(msgspec.Struct):
    refused_at: str = ""
    reason: str = ""


def _stored(directory: Path) -> tuple[list[Record], dict[int, Acknowledged]]:
    """The heartbeats on the disk, without their bodies, and the acknowledgements."""
    paths = []
    with contextlib.suppress(OSError):
        paths = sorted(path for path in directory.iterdir() if SEGMENT_NAME.match(path.name))
    stored: list[Record] = []
    noted: dict[int, Acknowledged] = {}
    for path in paths:
        noted |= acknowledged.read(path, mend=False)
    for path in paths:
        with contextlib.suppress(OSError):  # a running agent deletes what is not needed any longer
            stored += (record._replace(body=b"") for record in find_records(read_regular(path)).records)
    return stored, noted
