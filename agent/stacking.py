"""What each interface's traffic crosses below it, so that a total counts it once."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from .links import Link

MOST_CARRIERS = 8
# The host's ends of containers' and machines' links, as Docker, Calico, LXC, libvirt, Cilium, Xen and clouds call them.
_HOST_END = re.compile(r"veth|cali|lxc|nk|vnet|tap|vif\d|eni[0-9a-f]|gke|azv")
_OWN_KINDS = ("veth", "vlan", "other")


def stacked_on(
    links: Mapping[str, Link], reported: Collection[str], up: Collection[str], default: Iterable[str]
) -> dict[str, list[str]]:
    """For each reported interface, the reported ones that carry its traffic; [] for one that is the lowest.

    links       every interface that exists but loopback
    up          those of them that are up
    default     interfaces of the default routes, the best first

    A server's total is the sum over the lowest, so everything that crosses the machine's edge must be in one of them
    and nothing in two. Hence these cases:

    - What the kernel builds on something (a bond, a bridge with an uplink, a VLAN, a macvlan) is on that; where that
      is not reported, on what is below it.
    - The edge is the hardware, and is on nothing. A failover pair's virtual function is on the pair, which counts all.
    - The host's end of a guest's or a container's link (a tap, a veth, a Xen vif) that is a port of a bridge with
      hardware is on that hardware. So is a port of a card's own switch on its uplink (agent/ports.py).
    - All the rest reaches the network by routing over the edge: tunnels, a bridge of containers, the host's ends of
      their links, ifb, dummy. It is on the hardware of the default route; without one on all that is up. Traffic
      between two containers crosses no edge and is in no total.

    A container has no hardware: its edge are links whose other end is outside (a veth, a macvlan's). Whether that is
    the outside above it or a container inside, the kernel does not say: the default route does, and then the name.
    """
    below = {name: link.lower for name, link in links.items()}
    for name, link in links.items():
        for member in link.members:
            below[member] = (name,)
    edge = _edge(links, below, default)
    kept = set(reported)
    carriers = [name for name in _carriers(below, edge, up, default) if name in kept]
    bridged = _on_bridges(links, below, [name for name in below if name in edge and name in kept])
    found = {}
    for name in reported:
        found[name] = nearest(name, below, kept)
        # A bond whose members are not reported is not carried by other hardware for that.
        if not found[name] and edge.isdisjoint(_lowest(name, below)):
            found[name] = [carrier for carrier in bridged.get(name) or carriers if carrier != name][:MOST_CARRIERS]
    return found


def _on_bridges(
    links: Mapping[str, Link], below: Mapping[str, Sequence[str]], hardware: Sequence[str]
) -> dict[str, list[str]]:
    """For each port of a bridge, those of `hardware` that are below the bridge too."""
    found: dict[str, list[str]] = {}
    for name, link in links.items():
        if link.kind == "bridge" and link.lower:
            lowest = set(_lowest(name, below))
            uplinks = [lower for lower in hardware if lower in lowest]
            found |= dict.fromkeys(link.lower, uplinks)
    return found


def _edge(links: Mapping[str, Link], below: Mapping[str, Sequence[str]], default: Iterable[str]) -> set[str]:
    hardware = {name for name, link in links.items() if link.kind == "physical" and not below[name]}
    if hardware:
        return hardware
    ports = {name for lower in below.values() for name in lower}
    own = {name for name in links if links[name].kind in _OWN_KINDS and not below[name] and name not in ports}
    outward = {name for name in own if links[name].leads_out}
    lowest = {name for route in default for name in _lowest(route, below)}
    edge = {name for name in outward if not _HOST_END.match(name)} | (lowest & own)
    return edge or outward or lowest & links.keys()


def _carriers(
    below: Mapping[str, Sequence[str]], edge: set[str], up: Collection[str], default: Iterable[str]
) -> Iterable[str]:
    for route in default:
        routed = [name for name in _lowest(route, below) if name in edge]
        if routed:
            return routed
    in_order = [name for name in below if name in edge]
    return [name for name in in_order if name in up] or in_order


def nearest(name: str, below: Mapping[str, Sequence[str]], kept: Collection[str]) -> list[str]:
    """The kept interfaces below `name`, through those that are not kept."""
    found: dict[str, None] = {}
    seen = {name}
    waiting = list(reversed(below.get(name, ())))
    while waiting:
        lower = waiting.pop()
        if lower in seen:
            continue
        seen.add(lower)
        if lower in kept:
            found[lower] = None
        else:
            waiting += reversed(below.get(lower, ()))
    return list(found)


def _lowest(name: str, below: Mapping[str, Sequence[str]]) -> list[str]:
    """What is below `name` and has nothing below itself; `name`, where that is so of itself."""
    found, seen, waiting = [], {name}, [name]
    while waiting:
        current = waiting.pop()
        lower = [each for each in below.get(current, ()) if each not in seen]
        if not below.get(current):
            found.append(current)
        seen.update(lower)
        waiting += reversed(lower)
    return found
