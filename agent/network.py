"""The counters of every network interface, as the kernel reports them."""

import errno
import fnmatch
import importlib
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from agent.complaints import Complaints
from agent.roots import Roots, read_text, wire_text

log = logging.getLogger(__name__)
_complaints = Complaints(log)

Counter = Annotated[int, msgspec.Meta(ge=0)]
COUNTER_MAX = 2**64 - 1
IFF_UP = 0x1  # linux/if.h: the administrator has set it up

_NUMBER = re.compile(r"[0-9]{1,20}\Z", re.ASCII)
# What dev_valid_name (net/core/dev.c) refuses, except the colon of an old kernel's alias.
_NO_NAME = re.compile(r"[/\x00 \t\n\v\f\r]")
# Documentation/networking/operstates.rst; `unknown` is not here, because tunnels say it while they work.
_OPERSTATES = {
    "up": True,
    "down": False,
    "lowerlayerdown": False,
    "notpresent": False,
    "dormant": False,
    "testing": False,
}


class NetworkInterface(msgspec.Struct, frozen=True):
    """One interface's counters since boot, as the kernel reports them.

    rx_bytes, tx_bytes      octets, 0 .. 2**64 - 1; wrap at 2**32 on some 32-bit drivers.
    rx_packets, tx_packets  and the errors and drops: packets, same range.
    is_up                   operationally up (RFC 2863).

    Unknown fields are skipped; a field added later has a default.
    """

    name: str
    rx_bytes: Counter
    tx_bytes: Counter
    rx_packets: Counter
    tx_packets: Counter
    is_up: bool
    rx_errors: Counter = 0
    tx_errors: Counter = 0
    rx_dropped: Counter = 0
    tx_dropped: Counter = 0


class Counters(NamedTuple):
    """One line of /proc/net/dev. `name` may hold surrogates (read_text); it opens the interface's sysfs directory."""

    name: str
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def get_network_interfaces(
    roots: Roots | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    platform: str = sys.platform,
) -> list[NetworkInterface]:
    """Every interface but loopback, in the kernel's order; [] where none can be read, which is warned of once.

    include, exclude    fnmatch patterns of names; `exclude` goes before `include`, no `include` means all.
    """
    if platform != "linux":
        return [interface for interface in _from_psutil() if _is_wanted(interface.name, include, exclude)]
    roots = roots or Roots()
    path = roots.net / "dev"
    try:
        text = read_text(path)
    except OSError as error:
        _complaints.about(path, "%s: %s; no interfaces are reported until it can be read", path, error.strerror)
        return []
    _complaints.settled(path, "%s: can be read again", path)
    # By the name that travels: two that differ only in what is escaped would cost the heartbeat.
    named = {wire_text(counters.name): counters for counters in parse_net_dev(text) if counters.name != "lo"}
    interfaces = []
    for name, counters in named.items():
        if _is_wanted(name, include, exclude):
            up = is_up(Path(roots.sys, "class", "net", counters.name))
            interfaces.append(NetworkInterface(is_up=up, **counters._replace(name=name)._asdict()))
    return interfaces


def parse_net_dev(text: str) -> list[Counters]:
    """The interfaces in the text of /proc/net/dev, `lo` among them; never raises.

    Format (net/core/net-procfs.c): two header lines, then `name: ` and 16 numbers: bytes, packets, errs, drop, fifo,
    frame, compressed, multicast received, then bytes, packets, errs, drop, fifo, colls, carrier, compressed sent.
    """
    found: dict[str, Counters] = {}
    # Not splitlines(): it would also break at characters that a name may hold (\x1c, U+2028).
    for number, line in enumerate(text.split("\n")):
        if not line.strip() or (number < 2 and "|" in line and ":" not in line):
            continue
        counters = _parse_line(line)
        if counters is None:
            log.debug("/proc/net/dev line %d is malformed and skipped: %r", number + 1, line)
        elif found.setdefault(counters.name, counters) is not counters:
            # The file is read in pieces: an interface that moves meanwhile shows twice.
            log.debug("/proc/net/dev line %d repeats %r and is skipped", number + 1, counters.name)
    return list(found.values())


def is_up(interface: Path) -> bool:
    """Whether the interface with this sysfs directory is operationally up.

    An operstate that cannot be read is true: counters exist, so the interface does.
    """
    operstate = _attribute(interface / "operstate")
    if operstate is None:
        return True
    if operstate in _OPERSTATES:
        return _OPERSTATES[operstate]
    try:
        if read_text(interface / "carrier").strip() == "0":
            return False
    except OSError as error:
        # The kernel answers EINVAL for the carrier of an interface that the administrator has set down.
        if error.errno == errno.EINVAL:
            return False
    flags = _attribute(interface / "flags")
    try:
        return flags is None or bool(int(flags, 16) & IFF_UP)
    except ValueError:
        return True


def default_route_interface(text: str) -> str | None:
    """The interface of the IPv4 default route with the lowest metric in the text of /proc/net/route, or None.

    Format (net/ipv4/fib_trie.c, fib_route_seq_show): Iface Destination Gateway Flags RefCnt Use Metric Mask …;
    addresses and flags in hexadecimal, RTF_UP is 1 and RTF_REJECT 0x200.
    """
    best: tuple[int, str] | None = None
    for line in text.split("\n")[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        try:
            flags, metric = int(fields[3], 16), int(fields[6])
        except ValueError:
            continue
        if flags & 0x1 and not flags & 0x200 and (best is None or metric < best[0]):
            best = (metric, fields[0])
    return best[1] if best else None


def get_primary_interface(interfaces: Iterable[NetworkInterface], roots: Roots | None = None) -> str | None:
    """The reported interface that is up and carries the IPv4 default route, or None."""
    try:
        name = default_route_interface(read_text((roots or Roots()).net / "route"))
    except OSError:
        return None
    return next((each.name for each in interfaces if each.is_up and each.name == name), None)


def _parse_line(line: str) -> Counters | None:
    # The last colon: the name of an old kernel's alias holds one (eth0:1), and the first number may touch it.
    name, colon, rest = line.rpartition(":")
    name = name.lstrip(" ")
    numbers = rest.split()
    if not colon or not name or _NO_NAME.search(name) or name in (".", "..") or len(numbers) != 16:
        return None
    if not all(_NUMBER.match(number) for number in numbers):
        return None
    values = [int(number) for number in numbers]
    if max(values) > COUNTER_MAX:
        return None
    rx_bytes, rx_packets, rx_errors, rx_dropped = values[:4]
    tx_bytes, tx_packets, tx_errors, tx_dropped = values[8:12]
    return Counters(
        name, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped
    )  # fmt: skip


def _is_wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude):
        return False
    return not include or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)


def _attribute(path: Path) -> str | None:
    try:
        return read_text(path).strip()
    except OSError:
        return None


def _from_psutil() -> list[NetworkInterface]:
    psutil = importlib.import_module("psutil")
    states = psutil.net_if_stats()
    interfaces = []
    # nowrap=True would add up over resets and re-created interfaces; the service wants what the kernel says.
    for name, io in psutil.net_io_counters(pernic=True, nowrap=False).items():
        state = states.get(name)
        if re.match(r"lo\d*\Z|Loopback", name):
            continue
        interfaces.append(
            NetworkInterface(
                name=name,
                rx_bytes=io.bytes_recv,
                tx_bytes=io.bytes_sent,
                rx_packets=io.packets_recv,
                tx_packets=io.packets_sent,
                is_up=state is None or bool(state.isup),
                rx_errors=io.errin,
                tx_errors=io.errout,
                rx_dropped=io.dropin,
                tx_dropped=io.dropout,
            )
        )
    return interfaces
