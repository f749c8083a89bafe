"""Makes a heartbeat of a machine with thousands of interfaces or mounts fit what the service takes."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from .filesystems import Filesystem
from .network import NetworkInterface
from .stacking import nearest

BODY_LIMIT_BYTES = 1_000_000  # the service takes 1 MiB
OTHERS_BYTES = 100_000  # for all that is neither an interface nor a filesystem
FILESYSTEMS_BYTES = 300_000
MOST_INTERFACES = 2_000
_ORDER_BY_KIND = ("physical", "bond", "bridge", "vlan", "tunnel", "other", "veth")

_encode = msgspec.json.Encoder().encode


def fit(
    interfaces: Sequence[NetworkInterface], filesystems: Sequence[Filesystem]
) -> tuple[list[NetworkInterface], list[Filesystem]]:
    """Those that a heartbeat has room for, in their order; the rest is left out, the same ones at each heartbeat.

    Of the interfaces those stay that are stacked on nothing, hardware first, because the machine's total is theirs;
    then by kind, and short-lived veths last. Of the filesystems those that were mounted first.
    """
    sizes = [len(_encode(each)) + 1 for each in filesystems]
    kept = list(filesystems[: _fitting(sizes, range(len(sizes)), FILESYSTEMS_BYTES)])
    room = BODY_LIMIT_BYTES - OTHERS_BYTES - sum(sizes[: len(kept)])
    return _fit_interfaces(interfaces, room), kept


def _fit_interfaces(interfaces: Sequence[NetworkInterface], room_bytes: int) -> list[NetworkInterface]:
    sizes = [len(_encode(each)) + 1 for each in interfaces]
    if len(interfaces) <= MOST_INTERFACES and sum(sizes) <= room_bytes:
        return list(interfaces)
    ranked = sorted(range(len(interfaces)), key=lambda place: _rank(interfaces[place]))[:MOST_INTERFACES]
    places = sorted(ranked[: _fitting(sizes, ranked, room_bytes)])
    return _without_missing([interfaces[place] for place in places], interfaces)


def _fitting(sizes: Sequence[int], order: Sequence[int], room: int) -> int:
    """How many of `order`, taken from its start, have room."""
    for count, place in enumerate(order):
        room -= sizes[place]
        if room < 0:
            return count
    return len(order)


def _rank(interface: NetworkInterface) -> tuple[bool, int]:
    kind = interface.kind if interface.kind in _ORDER_BY_KIND else "other"
    return bool(interface.stacked_on), _ORDER_BY_KIND.index(kind)


def _without_missing(kept: list[NetworkInterface], all_: Sequence[NetworkInterface]) -> list[NetworkInterface]:
    """`kept`, each stacked on kept ones: one that is missing is stood in for by what it is stacked on itself.

    A bridge whose ports are all missing would otherwise look like the lowest, and be counted beside the uplink.
    """
    names = {each.name for each in kept}
    below = {each.name: each.stacked_on or () for each in all_}
    return [
        each
        if names.issuperset(below[each.name])
        # No more names than before, for which there is room.
        else replace(each, stacked_on=nearest(each.name, below, names)[: len(below[each.name])])
        for each in kept
    ]
