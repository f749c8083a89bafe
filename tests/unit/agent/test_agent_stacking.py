"""agent.stacking: whatever crosses the machine's edge is counted once (pitfalls 10 and 11)."""

import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.links import Link
from agent.stacking import stacked_on

HARDWARE = Link("physical")
TUNNEL = Link("tunnel")
HOST_END = Link("veth", leads_out=True)


def lowest(
    links: Mapping[str, Link],
    *,
    without: tuple[str, ...] = (),
    default: tuple[str, ...] = (),
    down: tuple[str, ...] = (),
) -> list[str]:
    """Whose traffic the service adds up: those that no reported interface is below (service/ingest/batch.py)."""
    reported = [name for name in links if name not in without]
    found = stacked_on(links, reported, [name for name in reported if name not in down], default)
    assert all(set(below) <= set(reported) and name not in below for name, below in found.items())
    return [name for name, below in found.items() if not below]


BOND = {
    "eth0": HARDWARE,
    "eth1": HARDWARE,
    "bond0": Link("bond", ("eth0", "eth1")),
    "bond0.10": Link("vlan", ("bond0",)),
}
DOCKER = {
    "eth0": HARDWARE,
    "wlan0": HARDWARE,
    "docker0": Link("bridge", ("veth1", "veth2")),
    "br-4f1d2a3b4c5d": Link("bridge"),
    "veth1": HOST_END,
    "veth2": HOST_END,
    "wg0": TUNNEL,
    "tailscale0": TUNNEL,
    "ifb0": Link("other"),
}


def test_pitfall_10_a_bond_with_a_vlan_counts_its_members() -> None:
    assert lowest(BOND, default=("bond0.10",)) == ["eth0", "eth1"]
    assert stacked_on(BOND, BOND, BOND, ())["bond0.10"] == ["bond0"]


def test_pitfall_10_a_bridge_of_hardware_and_machines_counts_the_hardware() -> None:
    links = {"eth0": HARDWARE, "vnet0": TUNNEL, "br0": Link("bridge", ("eth0", "vnet0"))}

    assert lowest(links, default=("br0",)) == ["eth0"]


@pytest.mark.parametrize("default", [("eth0",), ("tailscale0", "eth0"), ()])
@pytest.mark.parametrize("without", [(), ("veth1", "veth2"), ("docker0",), ("docker0", "wg0")])
def test_pitfall_10_what_is_routed_over_the_hardware_is_not_counted_beside_it(
    default: tuple[str, ...], without: tuple[str, ...]
) -> None:
    assert lowest(DOCKER, default=default, without=without) == ["eth0", "wlan0"]


def test_what_is_routed_lies_on_the_hardware_of_the_default_route() -> None:
    links = BOND | DOCKER

    assert stacked_on(links, links, links, ("bond0.10",))["wg0"] == ["eth0", "eth1"]
    assert stacked_on(links, links, links, ("wlan0",))["veth1"] == ["wlan0"]
    assert stacked_on(links, links, {"wlan0"}, ())["veth1"] == ["wlan0"]


@pytest.mark.parametrize("down", [(), ("eth0",), ("eth0", "wlan0")])
def test_a_link_that_goes_down_does_not_change_what_is_counted(down: tuple[str, ...]) -> None:
    assert lowest(DOCKER, down=down) == ["eth0", "wlan0"]


def test_what_is_not_reported_is_stood_in_for_by_what_is_below_it() -> None:
    assert lowest(BOND, without=("bond0",)) == ["eth0", "eth1"]
    assert lowest(BOND, without=("eth0", "eth1")) == ["bond0"]
    assert lowest(BOND | {"wlan0": HARDWARE}, without=("eth0", "eth1"), default=("wlan0",)) == ["bond0", "wlan0"]
    assert lowest(DOCKER, without=("eth0", "wlan0")) == [
        "br-4f1d2a3b4c5d",
        "veth1",
        "veth2",
        "wg0",
        "tailscale0",
        "ifb0",
    ]


def test_a_virtual_function_lies_on_its_pair() -> None:
    links = {"eth0": Link("physical", members=("enP1",)), "enP1": HARDWARE, "docker0": Link("bridge")}

    assert lowest(links, default=("eth0",)) == ["eth0"]
    assert stacked_on(links, links, links, ("eth0",))["enP1"] == ["eth0"]


@pytest.mark.parametrize("default", [("eth0",), (), ("docker0",)])
def test_pitfall_11_the_interfaces_of_a_container_are_its_edge(default: tuple[str, ...]) -> None:
    links = {
        "eth0": HOST_END,
        "eth1": HOST_END,
        "veth9": HOST_END,
        "cali1": HOST_END,
        "docker0": Link("bridge", ("veth9",)),
        "wg0": TUNNEL,
    }

    assert lowest(links, default=default) == ["eth0", "eth1"]


def test_pitfall_11_a_container_whose_interface_has_an_odd_name_has_its_default_route_over_it() -> None:
    links = {"veth0": HOST_END, "cali1": HOST_END, "wg0": TUNNEL}

    assert lowest(links, default=("veth0",)) == ["veth0"]


def test_pitfall_11_a_container_that_only_has_a_tunnel_counts_it() -> None:
    assert lowest({"tun0": TUNNEL}, default=("tun0",)) == ["tun0"]
    assert lowest({"tun0": TUNNEL, "dummy0": Link("other")}, default=()) == ["tun0", "dummy0"]


def test_a_bridge_of_thousands_of_guests_takes_no_time() -> None:
    guests = {f"vif{number}.0": Link("veth") for number in range(3_000)}
    links = {"eth0": HARDWARE, "eth1": HARDWARE, **guests, "xenbr0": Link("bridge", ("eth1", *guests))}

    began = time.process_time()
    found = stacked_on(links, links, links, ("eth0",))

    assert found["vif2999.0"] == ["eth1"]
    assert time.process_time() - began < 2  # a look at every port from every port takes minutes


names = st.sampled_from(["eth0", "eth1", "veth1", "veth2", "br0", "bond0", "wg0", "gone"])
kinds = st.sampled_from(["physical", "bridge", "bond", "vlan", "tunnel", "veth", "other"])


@given(
    st.dictionaries(names, st.builds(Link, kinds, st.tuples(names), st.just(()) | st.tuples(names), st.booleans())),
    st.sets(names),
    st.lists(names),
)
def test_whatever_the_links_are_only_reported_ones_are_named_and_the_edge_is_counted(
    links: dict[str, Link], up: set[str], default: list[str]
) -> None:
    found = stacked_on(links, list(links), up, default)

    assert found.keys() == links.keys()
    assert all(set(below) <= links.keys() and name not in below for name, below in found.items())
    hardware = [name for name, link in links.items() if link.kind == "physical" and not link.lower and not link.members]
    members = {member for link in links.values() for member in link.members}
    assert all(not found[name] for name in hardware if name not in members)
