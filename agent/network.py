"""The counters of every network interface, as reported by the kernel, and the relations between interfaces."""

import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from .complaints import Complaints
from .devices import Device, Devices, repeated_addresses
from .links import Kind, Link, LinkTable, State, kind_by_name, rate
from .roots import Roots, read_text, wire_text
from .routes import read_default_routes
from .stacking import stacked_on

log = logging.getLogger(__name__)
_complaints = Complaints(log)

Counter = Annotated[int, msgspec.Meta(ge=0)]
COUNTER_MAX = 2**64 - 1
LONGEST_NAME_BYTES = 15  # linux/if.h: IFNAMSIZ, which has room for a NUL

# What dev_valid_name (net/core/dev.c) refuses, except the colon of an old kernel's alias.
_NO_NAME = re.compile(r"[/\x00 \t\n\v\f\r]")


class NetworkInterface(msgspec.Struct, frozen=True):
    """One interface's counters since boot, as the kernel reports them.

    rx_bytes, tx_bytes      octets, 0 .. 2**64 - 1; wrap at 2**32 on some 32-bit drivers.
    rx_packets, tx_packets  and the errors and drops: packets, same range.
    is_up                   operationally up (RFC 2863).
    kind                    derived from the driver, or from the name if the system does not report it.
    stacked_on              reported interfaces that carry its traffic; [] for one that is the lowest (agent.stacking).
    speed_mbps              line rate of hardware and of bonds, as the driver knows it.
    operstate               operational state, as reported by the kernel.
    ifindex                 the kernel's index of the device: it changes when the device is created again.
    permanent_address       and bus_path, alias, carrier_changes: which device it is, whatever its name (agent.devices).

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
    kind: Kind | UnsetType = UNSET
    stacked_on: list[str] | UnsetType = UNSET
    speed_mbps: int | UnsetType = UNSET
    operstate: str | UnsetType = UNSET
    ifindex: int | UnsetType = UNSET
    permanent_address: str | UnsetType = UNSET
    bus_path: str | UnsetType = UNSET
    alias: str | UnsetType = UNSET
    carrier_changes: int | UnsetType = UNSET


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
    is_wanted: Callable[[str], bool] = lambda name: True,
    platform: str = sys.platform,
    table: LinkTable | None = None,
    devices: Devices | None = None,
    default_routes: Sequence[str] | None = None,
) -> list[NetworkInterface]:
    """Every interface except loopback, in the kernel's order; [] if they cannot be read, with one warning.

    is_wanted           whether an interface of a name is reported.
    table               the links as known from the previous call.
    devices             the devices likewise.
    default_routes      interfaces of the default routes, the best first; None: read here.
    """
    if platform != "linux":
        counted, states = _from_psutil()
        links = {name: Link(kind_by_name(name)) for name in counted}
        wanted = {name: state for name, state in states.items() if is_wanted(name)}
        return _reported(counted, links, wanted, (), {})
    roots = roots or Roots()
    table = table or LinkTable()
    counted = _read_net_dev(roots)
    links = table.read(roots, counted.keys()) if counted else {}
    if default_routes is None:
        default_routes = read_default_routes(roots)
    # Only the wanted interfaces, because each is read from sysfs.
    states = {name: table.state(name) for name in counted if is_wanted(wire_text(name))}
    known = (devices or Devices()).read(
        roots,
        {name: state.ifindex for name, state in states.items()},
        {name for name in states if links[name].kind == "physical"},
        [name for name in states if links[name].kind != "veth" or not links[name].lower],
    )
    _complain_about_addresses(known)
    return _reported(counted, links, states, default_routes, known)


def _complain_about_addresses(devices: Mapping[str, Device]) -> None:
    repeated = repeated_addresses(devices)
    if repeated:
        told = "; ".join(f"{', '.join(names)} have {address}" for address, names in sorted(repeated.items()))
        _complaints.about(
            "permanent addresses", "interfaces with the same permanent address are told apart by name only: %s", told
        )
    else:
        _complaints.settled("permanent addresses")


def _reported(
    counted: Mapping[str, Counters],
    links: Mapping[str, Link],
    states: Mapping[str, State],
    default_routes: Sequence[str],
    devices: Mapping[str, Device],
) -> list[NetworkInterface]:
    """The interfaces that have a state."""
    up = {name for name, state in states.items() if state.is_up}
    below = stacked_on(links, states.keys(), up, default_routes)
    return [
        NetworkInterface(
            name=wire_text(name),
            rx_bytes=counters.rx_bytes,
            tx_bytes=counters.tx_bytes,
            rx_packets=counters.rx_packets,
            tx_packets=counters.tx_packets,
            is_up=states[name].is_up,
            rx_errors=counters.rx_errors,
            tx_errors=counters.tx_errors,
            rx_dropped=counters.rx_dropped,
            tx_dropped=counters.tx_dropped,
            kind=links[name].kind,
            stacked_on=[wire_text(lower) for lower in below[name]],
            speed_mbps=states[name].speed_mbps or UNSET,
            operstate=wire_text(states[name].operstate or "")[:32] or UNSET,
            ifindex=states[name].ifindex or UNSET,
            permanent_address=device.permanent_address or UNSET,
            bus_path=device.bus_path or UNSET,
            alias=device.alias or UNSET,
            carrier_changes=UNSET if device.carrier_changes is None else device.carrier_changes,
        )
        for name, counters in counted.items()
        if name in states
        for device in (devices.get(name, Device()),)
    ]


def _read_net_dev(roots: Roots) -> dict[str, Counters]:
    """The counters by name, without `lo`; empty if they cannot be read."""
    path = roots.net / "dev"
    try:
        text = read_text(path)
    except OSError as error:
        _complaints.about(path, "%s: %s; no interfaces are reported until it can be read", path, error.strerror)
        return {}
    _complaints.settled(path, "%s: can be read again", path)
    # By the escaped name: two equal escaped names would make the service reject the heartbeat.
    named = {wire_text(counters.name): counters for counters in parse_net_dev(text) if counters.name != "lo"}
    return {counters.name: counters for counters in named.values()}


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
            log.debug("/proc/net/dev: skipped malformed line %d: %r", number + 1, line)
        elif found.setdefault(counters.name, counters) is not counters:
            # The file is read in pieces: an interface that moves meanwhile appears twice.
            log.debug("/proc/net/dev: skipped line %d, which repeats %r", number + 1, counters.name)
    return list(found.values())


def _parse_line(line: str) -> Counters | None:
    # The last colon: an alias of an old kernel contains one (eth0:1), and the first number may follow it without a
    # space.
    name, colon, rest = line.rpartition(":")
    name = name.lstrip(" ")
    numbers = rest.split()
    if not colon or not name or _NO_NAME.search(name) or name in (".", "..") or len(numbers) != 16:
        return None
    if len(os.fsencode(name)) > LONGEST_NAME_BYTES:
        return None
    digits = "".join(numbers)
    if not digits.isascii() or not digits.isdigit() or max(map(len, numbers)) > len(str(COUNTER_MAX)):
        return None
    values = list(map(int, numbers))
    if max(values) > COUNTER_MAX:
        return None
    rx_bytes, rx_packets, rx_errors, rx_dropped = values[:4]
    tx_bytes, tx_packets, tx_errors, tx_dropped = values[8:12]
    return Counters(
        name, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped
    )  # fmt: skip


def _from_psutil() -> tuple[dict[str, Counters], dict[str, State]]:
    psutil = importlib.import_module("psutil")
    stats = psutil.net_if_stats()
    counted, states = {}, {}
    # nowrap=True would add up over resets and re-created interfaces; the service needs the kernel's values.
    for name, io in psutil.net_io_counters(pernic=True, nowrap=False).items():
        if re.match(r"lo\d*\Z|Loopback", name):
            continue
        counted[name] = Counters(
            name,
            io.bytes_recv,
            io.bytes_sent,
            io.packets_recv,
            io.packets_sent,
            io.errin,
            io.errout,
            io.dropin,
            io.dropout,
        )
        stat = stats.get(name)
        states[name] = State() if stat is None else State(bool(stat.isup), None, rate(stat.speed))
    return counted, states
