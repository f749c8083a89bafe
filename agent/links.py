"""What an interface is, what it is built on and how it is doing, by what /sys/class/net says of it."""

import errno
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from .ports import Port, is_representor, read_port, uplinks
from .roots import Roots, read_text

Kind = Literal["physical", "bridge", "bond", "vlan", "tunnel", "veth", "other"]

IFF_UP = 0x1  # linux/if.h: the administrator has set it up
ATTRIBUTE_LIMIT_BYTES = 4096  # a sysfs attribute is one page at most
HIGHEST_IFINDEX = 2**31 - 1  # include/net/net_namespace.h: an int, from 1
HIGHEST_SPEED_MBPS = 1_600_000  # twice the fastest Ethernet there is; the service takes no more

# Documentation/networking/operstates.rst. Not here are `unknown`, which tunnels say while they work, and `dormant`,
# which Wi-Fi says while it works under a supplicant that never sets it up: both ask carrier and flags.
_OPERSTATES = {
    "up": True,
    "down": False,
    "lowerlayerdown": False,
    "notpresent": False,
    "testing": False,
}
# DEVTYPE in uevent: what the driver gave SET_NETDEV_DEVTYPE.
_KIND_BY_DEVTYPE: dict[str, Kind] = {
    "bridge": "bridge",
    "openvswitch": "bridge",
    "bond": "bond",
    "vlan": "vlan",
    "amt": "tunnel",
    "bareudp": "tunnel",
    "geneve": "tunnel",
    "gtp": "tunnel",
    "ovpn": "tunnel",
    "ppp": "tunnel",
    "vxlan": "tunnel",
    "wireguard": "tunnel",
    "batadv": "other",
    "hsr": "other",
    "ipvlan": "other",
    "macsec": "other",
    "macvlan": "other",
}
# linux/if_arp.h: PPP, IP in IP, IPv6 tunnels, SIT, GRE, GRE over IPv6, and NONE: no link layer (tun, wireguard, xfrm).
_TUNNEL_TYPES = frozenset({"512", "768", "769", "776", "778", "823", "65534"})
# The last resort, first match: what people, distributions and programs call interfaces.
_KIND_BY_NAME: list[tuple[re.Pattern[str], Kind]] = [
    (re.compile(r"vif\d+\.\d"), "veth"),
    (re.compile(r".+\.\d{1,4}\Z|vlan\d"), "vlan"),
    (re.compile(r"veth|cali|lxc[0-9a-f]|vnet\d"), "veth"),
    (re.compile(r"docker|br-|br\d|bridge|virbr|vmbr|lxcbr|cni\d"), "bridge"),
    (re.compile(r"bond\d|team\d"), "bond"),
    (re.compile(r"tun|tap|utun|gif|wg|tailscale|zt|ppp|(ip6)?gre|erspan|sit\d|vxlan|flannel|ipsec"), "tunnel"),
    (re.compile(r"eth\d|en[a-z]*\d|em\d|p\d+p\d|net\d|wl|ww|ib\d|usb\d|lan\d|wan\d?\Z|Ethernet|Wi-?Fi"), "physical"),
]
# Paravirtual and emulated cards name a rate that does not bound them: two machines on one host exchange far more.
# (e1000: the real ones are older than anything that still runs.)
_DRIVERS_OF_NO_RATE = frozenset({"e1000", "hv_netvsc", "veth", "virtio_net", "vmxnet3", "xen-netfront", "vif"})
_KINDS_WITH_RATE = ("physical", "bond")
_NEVER_RESTACKED = ("veth", "vlan", "tunnel")


class Link(NamedTuple):
    """How an interface stands to the others. Names are as read_text gives them.

    kind        physical, bridge, bond, vlan, tunnel, veth (also the host's end of a guest's card) or other.
    lower       what it is built on, by the kernel's lower_* links: members, ports, a parent; the uplink of a card's
                port.
    members     physical interfaces whose traffic it counts as its own.
    leads_out   the other end of it is in another network namespace.
    """

    kind: Kind
    lower: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    leads_out: bool = False


class State(NamedTuple):
    """How an interface is doing; None where the kernel does not say.

    operstate   the kernel's word (RFC 2863).
    ifindex     the kernel's number of the device: no other device of this boot and namespace has it.
    """

    is_up: bool = True
    operstate: str | None = None
    speed_mbps: int | None = None
    ifindex: int | None = None


class _Known(NamedTuple):
    inode: int
    link: Link
    absorbs: bool  # what is below it are `members`
    has_rate: bool
    port: Port | None  # of hardware, and of what looks like hardware


class LinkTable:
    """Reads /sys/class/net, and keeps of one heartbeat for the next what cannot change while an interface exists.

    An interface is the same one while the entry in /sys/class/net is: sysfs gives a new inode to one that is re-created
    or renamed. What is asked of each one at every heartbeat is `operstate`, and `speed` where it says something.
    """

    def __init__(self) -> None:
        self._directory = ""
        self._known: dict[str, _Known] = {}
        self._on_uplinks: dict[str, Link] = {}

    def read(self, roots: Roots, names: Collection[str]) -> dict[str, Link]:
        """The links of these interfaces, which are all that exist but loopback."""
        self._directory = str(Path(roots.sys, "class", "net"))
        inodes = _inodes(self._directory)
        if roots.is_foreign and 2 * sum(name in inodes for name in names) < len(names):
            # The host's /proc over the container's own /sys: an eth0 there is another one.
            inodes = {}
        existing = set(names)
        before = self._known
        self._known = {name: self._looked_up(name, inodes[name], existing) for name in names if name in inodes}
        if any(known is not before.get(name) for name, known in self._known.items()) or len(before) > len(self._known):
            self._on_uplinks = self._found_on_uplinks()
        links = {name: known.link for name, known in self._known.items()} | self._on_uplinks
        if len(links) < len(existing):
            stacked = _lower_by_proc(roots)
            for name in existing - links.keys():
                links[name] = Link(kind_by_name(name), tuple(stacked.get(name, ())))
        return links

    def state(self, name: str) -> State:
        """How an interface of the last read() is doing; one that sysfs does not show is up: it has counters."""
        known = self._known.get(name)
        if known is None:
            return State()
        interface = f"{self._directory}/{name}"
        up, operstate = read_operstate(interface)
        # A link that is down has no speed: the kernel answers EINVAL.
        speed = parse_speed(_attribute(f"{interface}/speed")) if known.has_rate and up else None
        # At every heartbeat: before Linux 4.14 a re-created interface may have the inode of the one before it.
        return State(up, operstate, speed, parse_ifindex(_attribute(f"{interface}/ifindex")))

    def _found_on_uplinks(self) -> dict[str, Link]:
        """The links that have their card's uplink below them."""
        if not any(known.port and known.port.switch_id for known in self._known.values()):
            return {}
        # A card that is put into switchdev mode gets ports, and its own interface a switch_id without a new inode.
        ports = {name: read_port(f"{self._directory}/{name}") for name, known in self._known.items() if known.port}
        found = {}
        for name, lower in uplinks(ports).items():
            link = self._known[name].link
            if not link.lower and not link.members:
                # A function left in the host is a card of its own; any other port leads to a guest.
                found[name] = link._replace(lower=lower, kind=link.kind if ports[name].function_of else "veth")
        return found

    def _looked_up(self, name: str, inode: int, existing: set[str]) -> _Known:
        known = self._known.get(name)
        if known is None or known.inode != inode:
            return _first_look(f"{self._directory}/{name}", name, inode)
        link = known.link
        if link.kind in _NEVER_RESTACKED and existing.issuperset(link.lower):
            return known
        lower = _lower(_entries(f"{self._directory}/{name}"))
        if lower == (link.members or link.lower):
            return known
        return known._replace(link=_on(link, lower, absorbs=known.absorbs))


def _first_look(directory: str, name: str, inode: int) -> _Known:
    entries = _entries(directory)
    lower = _lower(entries)
    devtype = parse_devtype(_attribute(f"{directory}/uevent") or "")
    leads_out = False
    if not lower and "device" not in entries:
        # The index of the other end, or of itself where there is none; 0: not bound to any.
        leads_out = _attribute(f"{directory}/iflink") not in (_attribute(f"{directory}/ifindex"), "0")
    port = read_port(directory) if "device" in entries else None
    # xen-netback; the card inside a guest (xen-netfront) has a driver of the same name, on the bus `xen`.
    is_host_end = port is not None and (is_representor(port) or _bus(directory) == "xen-backend")
    arphrd = _attribute(f"{directory}/type")
    kind = kind_of(name, entries, devtype, arphrd, leads_out=leads_out, is_host_end=is_host_end)
    # A port of a hardware switch (dsa) is built on the switch's uplink. What else has hardware and something below is
    # a failover pair (hv_netvsc, net_failover): it counts what crosses its virtual function as its own.
    absorbs = kind == "physical" and devtype != "dsa"
    link = _on(Link(kind, leads_out=leads_out), lower, absorbs=absorbs)
    has_rate = kind in _KINDS_WITH_RATE and _driver(directory) not in _DRIVERS_OF_NO_RATE
    return _Known(inode, link, absorbs, has_rate, port)


def _on(link: Link, lower: tuple[str, ...], *, absorbs: bool) -> Link:
    return link._replace(members=lower) if absorbs else link._replace(lower=lower)


def kind_of(
    name: str, entries: Collection[str], devtype: str, arphrd: str | None, *, leads_out: bool, is_host_end: bool = False
) -> Kind:
    """The kind of an interface, from the entries of its sysfs directory, its DEVTYPE and its `type`.

    leads_out       its other end is in another network namespace.
    is_host_end     it has a `device`, but that is the host's end of a guest's card.

    A veth says of itself only that its other end is elsewhere. So does a GRE tunnel with a link layer that is bound to
    an interface: of these two, and of a team and a bare tunnel, only the name tells; and where there is no directory.
    """
    if "bridge" in entries or "bonding" in entries:
        return "bridge" if "bridge" in entries else "bond"
    if devtype in _KIND_BY_DEVTYPE:
        return _KIND_BY_DEVTYPE[devtype]
    if "device" in entries:
        return "veth" if is_host_end else "physical"
    if "tun_flags" in entries or arphrd in _TUNNEL_TYPES:
        return "tunnel"
    named = kind_by_name(name)
    if leads_out:
        return "tunnel" if named == "tunnel" else "veth"
    return named if arphrd is None or named in ("veth", "bond", "tunnel") else "other"


def kind_by_name(name: str) -> Kind:
    """The kind that an interface's name suggests."""
    return next((kind for pattern, kind in _KIND_BY_NAME if pattern.match(name)), "other")


def read_operstate(interface: str) -> tuple[bool, str | None]:
    """Whether the interface with this sysfs directory is operationally up, and the kernel's word for it.

    An operstate that cannot be read is true: counters exist, so the interface does.
    """
    operstate = _attribute(f"{interface}/operstate")
    if not operstate:
        return True, None
    if operstate in _OPERSTATES:
        return _OPERSTATES[operstate], operstate
    try:
        if read_text(Path(interface, "carrier")).strip() == "0":
            return False, operstate
    except OSError as error:
        # The kernel answers EINVAL for the carrier of an interface that the administrator has set down.
        if error.errno == errno.EINVAL:
            return False, operstate
    try:
        return bool(int(_attribute(f"{interface}/flags") or "1", 16) & IFF_UP), operstate
    except ValueError:
        return True, operstate


def parse_speed(text: str | None) -> int | None:
    """Mbit/s from the text of `speed`, or None: drivers say -1, 0 or 2**32 - 1 for a rate that they do not know."""
    if text is None or not re.fullmatch(r"[0-9]{1,7}", text, re.ASCII):
        return None
    return rate(int(text))


def parse_ifindex(text: str | None) -> int | None:
    """The interface number in the text of `ifindex`, or None if the kernel gives no such number."""
    if text is None or not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII):
        return None
    return int(text) if 1 <= int(text) <= HIGHEST_IFINDEX else None


def rate(mbps: int) -> int | None:
    """`mbps` where a link can have that rate."""
    return mbps if 0 < mbps <= HIGHEST_SPEED_MBPS else None


def parse_devtype(uevent: str) -> str:
    """DEVTYPE in the text of `uevent`, or ""."""
    return next((line[8:] for line in uevent.split("\n") if line.startswith("DEVTYPE=")), "")


def parse_vlan_config(text: str) -> dict[str, str]:
    """The parent of each VLAN in the text of /proc/net/vlan/config: two header lines, then `name | id | parent`."""
    fields = ([field.strip() for field in line.split("|")] for line in text.split("\n"))
    return {row[0]: row[2] for row in fields if len(row) == 3 and row[0] and row[2]}


def parse_bonding(text: str) -> list[str]:
    """The members in the text of /proc/net/bonding/<name>."""
    return [line.partition(": ")[2] for line in text.split("\n") if line.startswith("Slave Interface: ")]


def _lower_by_proc(roots: Roots) -> dict[str, list[str]]:
    """What VLANs and bonds are built on, where sysfs does not say it."""
    lower = {name: [parent] for name, parent in parse_vlan_config(_text(roots.net / "vlan/config")).items()}
    for name in _entries(roots.net / "bonding"):
        lower[name] = parse_bonding(_text(roots.net / "bonding" / name))
    return lower


def _lower(entries: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(entry[len("lower_") :] for entry in entries if entry.startswith("lower_")))


def _inodes(directory: str) -> dict[str, int]:
    try:
        with os.scandir(directory) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def _entries(directory: str | Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))  # noqa: PTH208  # a Path for each entry would cost more than the look
    except OSError:
        return frozenset()


def _driver(directory: str) -> str:
    return _link_name(directory, "device/driver")


def _bus(directory: str) -> str:
    return _link_name(directory, "device/subsystem")


def _link_name(directory: str, path: str) -> str:
    try:
        return Path(directory, path).readlink().name
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError:
        return ""


def _attribute(path: str) -> str | None:
    """A sysfs attribute, in as few calls as can be: with thousands of interfaces they are most of a heartbeat."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.fsdecode(os.read(descriptor, ATTRIBUTE_LIMIT_BYTES)).strip()
    except OSError:
        return None
    finally:
        os.close(descriptor)
