"""Network cards with a switch inside (SR-IOV): which interfaces lead to guests, and which is the uplink below them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .roots import read_text

# What devlink and drivers call the host's end of a guest's function (Documentation/networking/representors.rst,
# net/devlink: devlink_port_phys_port_name_get; ice_repr.c has a letter of its own). The uplink is p0, and so are the
# front ports of a switch: p1, p2, p1s0.
_REPRESENTOR = re.compile(r"(?:c\d+)?pf(\d+)(?:(?:vfr?|sf)\d+|hpf)?", re.ASCII)
_FRONT = re.compile(r"p\d+(?:s\d+)?", re.ASCII)
# Drivers whose uplink counts at the card's physical port: mlx5's PPCNT registers (en_rep.c), nfp's MAC counters
# (nfp_net_repr.c). The others' (ice, bnxt) sum the rings of the uplink alone.
_COUNT_AT_PORT = frozenset({"mlx5_core", "nfp"})
_SUBFUNCTION = re.compile(r".+\.sf\.\d+", re.ASCII)


class Port(NamedTuple):
    """What sysfs says of an interface's place in its card; "" where it says nothing.

    switch_id       of the card's switch; only in switchdev mode.
    name            of the port: p0, pf0vf1.
    device          the path of its PCI device.
    function_of     of a virtual function or a subfunction: the path of the device that it is a function of.
    driver          of the device.
    """

    switch_id: str = ""
    name: str = ""
    device: str = ""
    function_of: str = ""
    driver: str = ""


def read_port(directory: str) -> Port:
    """The port of the interface with this sysfs directory, which has a `device`."""
    device = os.path.realpath(f"{directory}/device")
    function_of = ""
    if os.path.exists(f"{device}/physfn"):  # noqa: PTH110  # as cheap as can be: there may be thousands
        function_of = os.path.realpath(f"{device}/physfn")
    elif _SUBFUNCTION.fullmatch(os.path.basename(device)):  # noqa: PTH119  # likewise
        function_of = os.path.dirname(device)  # noqa: PTH120  # likewise
    driver = os.path.basename(os.path.realpath(f"{device}/driver"))  # noqa: PTH119  # likewise
    return Port(_text(directory, "phys_switch_id"), _text(directory, "phys_port_name"), device, function_of, driver)


def is_representor(port: Port) -> bool:
    """Whether its name says that it is the host's end of a guest's function."""
    return _REPRESENTOR.fullmatch(port.name) is not None


def uplinks(ports: Mapping[str, Port]) -> dict[str, tuple[str, ...]]:
    """By interface: the uplinks that carry it to and from the outside; only where any is known.

    A representor lies on its uplink. A function that is left in the host does where the uplink counts all that crosses
    the card's physical port, whoever sent it: in switchdev mode, with some drivers. In legacy mode a card's own
    interface counts what crosses its own queues (ixgbe, i40e, mlx5), so there a function counts for itself.
    """
    tops = {
        name: port
        for name, port in ports.items()
        if port.switch_id and not port.function_of and not is_representor(port)
    }
    by_switch: dict[str, dict[str, Port]] = {}
    for name, port in tops.items():
        by_switch.setdefault(port.switch_id, {})[name] = port
    found = {}
    for name, port in ports.items():
        if port.function_of:
            above = [other for other, top in tops.items() if top.device == port.function_of]
            lower = [other for other in above if tops[other].driver in _COUNT_AT_PORT]
        else:
            lower = _of_one_switch(name, port, by_switch.get(port.switch_id, {}))
        if lower:
            found[name] = tuple(lower)
    return found


def _of_one_switch(name: str, port: Port, tops: Mapping[str, Port]) -> list[str]:
    if named := _REPRESENTOR.fullmatch(port.name):
        near = [other for other, top in tops.items() if top.device == port.device]
        near = near if len(near) == 1 else [other for other, top in tops.items() if top.name == f"p{named[1]}"]
        return near or list(tops)
    if port.name.isdecimal():  # mlx5 before Linux 4.20 gave a representor its number, and the uplink no name
        return [other for other, top in tops.items() if other != name and (not top.name or _FRONT.fullmatch(top.name))]
    return []


def _text(directory: str, attribute: str) -> str:
    try:
        # EOPNOTSUPP for nearly all interfaces.
        return read_text(Path(directory, attribute), limit_bytes=256).strip()
    except OSError:
        return ""
