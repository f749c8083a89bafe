"""Evidence that identifies the device of an interface independently of its name. Needs no root."""

import os
import re
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .roots import Roots, read_text, wire_text

LONGEST_ADDRESS = 64  # InfiniBand's has 20 octets: 59 characters
LONGEST_BUS_PATH = 255
LONGEST_ALIAS = 255  # linux/if.h: IFALIASZ, which has room for a NUL
HIGHEST_CARRIER_CHANGES = 2**32 - 1  # net-sysfs prints the sum of two counters as %u

# linux/rtnetlink.h and linux/if_link.h
_RTM_NEWLINK, _RTM_GETLINK, _NLMSG_ERROR, _NLMSG_DONE = 16, 18, 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_IFLA_PERM_ADDRESS = 54  # Linux 5.6
_HEADER, _IFINFO, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBHiII"), struct.Struct("=HH")
_NETLINK_SECONDS = 1.0
_LARGEST_MESSAGE_BYTES = 1 << 20  # a card with hundreds of virtual functions lists them all

_NET_ADDR_PERM = "0"  # addr_assign_type: the address is the device's own, and not random, copied or set
_ADDRESS = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5,19}")
# A virtio card is identified by the slot of its PCI device; the number after it is only the order of probing.
_PROBED = re.compile(r"/virtio\d+\Z")


class Device(NamedTuple):
    """Evidence that identifies a device; None where the system does not report it.

    permanent_address  of hardware: the address it was made with, and its port where a card has several
    bus_path           of hardware: the slot or USB port, from /sys/devices, and its port likewise
    alias              the operator's own name for it (`ip link set … alias`)
    carrier_changes    how often the link came or went since the device appeared
    """

    permanent_address: str | None = None
    bus_path: str | None = None
    alias: str | None = None
    carrier_changes: int | None = None


class Devices:
    """Reads the devices of interfaces. Caches address and slot, which cannot change while a device exists."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int | None, str | None, str | None]] = {}

    def read(
        self, roots: Roots, ifindexes: Mapping[str, int | None], hardware: Collection[str], asked: Collection[str]
    ) -> dict[str, Device]:
        """The devices of the interfaces `asked` for.

        ifindexes   the kernel's number of each; another number is another device
        hardware    those that have an address and a place of their own
        """
        directory = f"{roots.sys}/class/net"
        known = {name: self._known.get(name) for name in asked if name in hardware}
        new = [name for name, had in known.items() if had is None or had[0] != ifindexes[name]]
        # The sockets of a container are not in the namespace of the host's /sys.
        addresses = permanent_addresses() if new and not roots.is_foreign else {}
        for name in new:
            index = ifindexes[name]
            address = addresses.get(index or 0) or _address_by_sysfs(f"{directory}/{name}")
            port = _port(f"{directory}/{name}")
            known[name] = (index, address and address + port, _bus_path(roots, f"{directory}/{name}", port))
        self._known = {name: had for name, had in known.items() if had is not None}
        found = {}
        for name in asked:
            _, address, bus_path = self._known.get(name, (None, None, None))
            alias = wire_text(_attribute(f"{directory}/{name}/ifalias"))[:LONGEST_ALIAS]
            changes = parse_carrier_changes(_attribute(f"{directory}/{name}/carrier_changes"))
            found[name] = Device(address, bus_path, alias or None, changes)
        return found


def repeated_addresses(devices: Mapping[str, Device]) -> dict[str, list[str]]:
    """The permanent addresses that several interfaces report, with the interfaces: they identify no device."""
    by_address: dict[str, list[str]] = {}
    for name, device in devices.items():
        if device.permanent_address:
            by_address.setdefault(device.permanent_address, []).append(name)
    return {address: names for address, names in by_address.items() if len(names) > 1}


def permanent_addresses() -> dict[int, str]:
    """Permanent addresses (IFLA_PERM_ADDRESS) by ifindex, in the network namespace of this process."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.settimeout(_NETLINK_SECONDS)
            request = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
            netlink.send(_HEADER.pack(_HEADER.size + len(request), _RTM_GETLINK, _NLM_F_REQUEST_DUMP, 1, 0) + request)
            found: dict[int, str] = {}
            while True:
                is_done = _read_links(netlink.recv(_LARGEST_MESSAGE_BYTES), found)
                if is_done:
                    return found
    except (AttributeError, OSError, struct.error):  # no netlink on this system, or it is refused
        return {}


def _read_links(datagram: bytes, found: dict[int, str]) -> bool:
    """Adds the permanent addresses in one datagram of a dump; True at its end. Raises struct.error if it is cut."""
    place = 0
    while place < len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, place)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _HEADER.size:
            return True
        if kind == _RTM_NEWLINK:
            start = place + _HEADER.size
            _, _, _, index, *_ = _IFINFO.unpack_from(datagram, start)
            for attribute, value in _attributes(datagram[start + _IFINFO.size : place + length]):
                if attribute == _IFLA_PERM_ADDRESS and (address := parse_address(value.hex(":"))):
                    found[index] = address
        place += (length + 3) & ~3
    return False


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[place + _ATTRIBUTE.size : place + length]
        place += (length + 3) & ~3


def parse_address(text: str) -> str | None:
    """A hardware address as the kernel prints it; None if the text is not one, or is all zeros."""
    address = text.strip().lower()
    return address if _ADDRESS.fullmatch(address) and address.strip("0:") else None


def parse_carrier_changes(text: str) -> int | None:
    """The number in the text of `carrier_changes`, or None."""
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII):
        return None
    return int(text) if int(text) <= HIGHEST_CARRIER_CHANGES else None


def _address_by_sysfs(directory: str) -> str | None:
    """For kernels before 5.6: a bond's member has the bond's address, and its own in another file."""
    if member := parse_address(_attribute(f"{directory}/bonding_slave/perm_hwaddr")):
        return member
    if _attribute(f"{directory}/addr_assign_type") != _NET_ADDR_PERM:
        return None
    return parse_address(_attribute(f"{directory}/address"))


def _port(directory: str) -> str:
    """`#` and the port of a card with several; "" for the first one of a card that does not name it."""
    number = _attribute(f"{directory}/dev_port")
    name = number if re.fullmatch(r"[1-9][0-9]{0,3}", number, re.ASCII) else _attribute(f"{directory}/phys_port_name")
    return f"#{name}" if re.fullmatch(r"[A-Za-z0-9]{1,4}", name, re.ASCII) else ""


def _bus_path(roots: Roots, directory: str, port: str) -> str | None:
    device = os.path.realpath(f"{directory}/device")
    _, found, path = device.partition("/devices/")
    path = wire_text(_PROBED.sub("", path)) + port
    return path[-LONGEST_BUS_PATH:] if found else None


def _attribute(path: str) -> str:
    """A sysfs attribute; "" where it cannot be read."""
    try:
        return read_text(Path(path), limit_bytes=4096).strip()
    except (OSError, ValueError):
        return ""
