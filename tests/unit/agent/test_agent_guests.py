"""Hosts of virtual machines: a guest's byte crosses the host's end of its link and the uplink, and counts once."""

from pathlib import Path

import pytest

from agent.links import LinkTable
from agent.network import NetworkInterface, get_network_interfaces
from agent.ports import Port, is_representor, uplinks
from agent.roots import Roots

PF, PF1 = "devices/pci0000:00/0000:03:00.0", "devices/pci0000:00/0000:03:00.1"


class Host:
    """A /proc and /sys in which interfaces have devices on buses, as the kernel shows them."""

    def __init__(self, tmp_path: Path) -> None:
        self.sys, self.proc = tmp_path / "sys", tmp_path / "proc"
        self.net = self.sys / "class/net"
        self.net.mkdir(parents=True)
        (self.proc / "1/net").mkdir(parents=True)
        self.names: list[str] = []

    def add(
        self,
        name: str,
        *,
        device: str = "",
        bus: str = "pci",
        driver: str = "",
        lower: tuple[str, ...] = (),
        physfn: str = "",
        devtype: str = "",
        **files: str,
    ) -> None:
        """`device`: its path below /sys. `files`: attributes; an empty one is a directory, and cannot be read."""
        directory = self.net / name
        directory.mkdir()
        self.names.append(name)
        index = str(len(self.names) + 1)
        attributes = {"type": "1", "ifindex": index, "iflink": index, "operstate": "up", "speed": "25000"} | files
        attributes["uevent"] = f"INTERFACE={name}" + (f"\nDEVTYPE={devtype}" if devtype else "")
        for attribute, text in attributes.items():
            if text:
                (directory / attribute).write_text(text + "\n")
            else:
                (directory / attribute).mkdir()
        for below in lower:
            (directory / f"lower_{below}").symlink_to(f"../{below}")
        if device:
            place = self.sys / device
            place.mkdir(parents=True, exist_ok=True)
            for link, target in (("driver", f"bus/{bus}/drivers/{driver}"), ("subsystem", f"bus/{bus}")):
                if not (place / link).is_symlink():
                    (self.sys / target).mkdir(parents=True, exist_ok=True)
                    (place / link).symlink_to(self.sys / target)
            if physfn:
                (place / "physfn").symlink_to(self.sys / physfn)
            (directory / "device").symlink_to(place)

    def read(self, *default_routes: str) -> dict[str, NetworkInterface]:
        lines = [f"{name}: " + " ".join(["5"] * 16) + "\n" for name in self.names]
        (self.proc / "1/net/dev").write_text("h|\nh|\n" + "".join(lines))
        found = get_network_interfaces(Roots(proc=str(self.proc), sys=str(self.sys)), default_routes=default_routes)
        return {each.name: each for each in found}

    def stacked(self, *default_routes: str) -> dict[str, object]:
        return {name: each.stacked_on for name, each in self.read(*default_routes).items()}

    def bridge(self, name: str, *ports: str) -> None:
        self.add(name, lower=ports, devtype="bridge", bridge="")

    def card(self, name: str) -> None:
        self.add(name, device=f"devices/pci0000:00/{name}", driver="tg3")

    def vif(self, name: str) -> None:
        self.add(name, device=f"devices/{name.replace('.', '-')}", bus="xen-backend", driver="vif", speed="-1")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_in_a_xen_dom0_the_guests_ends_lie_on_the_uplink_of_their_bridge(host: Host) -> None:
    host.card("eth0")
    host.bridge("xenbr0", "eth0", "vif1.0")
    host.vif("vif1.0")

    found = host.read("xenbr0")

    assert [(each.name, each.kind, each.stacked_on) for each in found.values()] == [
        ("eth0", "physical", []), ("xenbr0", "bridge", ["eth0", "vif1.0"]), ("vif1.0", "veth", ["eth0"]),
    ]  # fmt: skip
    assert found["eth0"].speed_mbps == 25000


def test_guests_of_two_bridges_lie_each_on_the_uplink_of_its_own(host: Host) -> None:
    for name in ("eth0", "eth1"):
        host.card(name)
    for name in ("vif1.0", "vif2.0", "vif2.1", "vif12.0"):
        host.vif(name)
    host.bridge("xenbr0", "eth0", "vif1.0", "vif2.0")
    host.bridge("xenbr1", "eth1", "vif2.1")

    stacked = host.stacked("xenbr0")

    assert [stacked[name] for name in ("vif1.0", "vif2.0", "vif2.1")] == [["eth0"], ["eth0"], ["eth1"]]
    assert stacked["vif12.0"] == ["eth0"], "on no bridge: routed, as a tunnel is"
    assert [name for name, below in stacked.items() if not below] == ["eth0", "eth1"]


def test_a_xen_guest_counts_its_own_card(host: Host) -> None:
    host.add("eth0", device="devices/vif-0", bus="xen", driver="vif", speed="-1")
    host.add("eth1", device="devices/vif-1", bus="xen", driver="vif", speed="-1")

    assert {name: (each.kind, each.stacked_on) for name, each in host.read("eth0").items()} == {
        "eth0": ("physical", []), "eth1": ("physical", []),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("pf0vf1", True), ("c1pf0vf0", True), ("pf0sf3", True), ("c2pf1sf12", True), ("pf0vfr3", True),
        ("pf0hpf", True), ("pf0", True), ("p0", False), ("p1", False), ("p1s0", False), ("swp1", False), ("0", False),
        ("", False),
        ("pf0vf", False), ("xpf0vf1", False), ("pf0vf1x", False), ("pf\u0660vf1", False),
    ],
)  # fmt: skip
def test_a_port_name_says_what_leads_to_a_guest(name: str, is_one: bool) -> None:
    assert is_representor(Port("id", name)) is is_one


def test_representors_lie_on_their_own_uplink_whatever_the_default_route_is(host: Host) -> None:
    host.card("eno1")
    for number, device in enumerate((PF, PF1)):
        host.add(f"p{number}", device=device, driver="mlx5_core", phys_switch_id="ab01", phys_port_name=f"p{number}")
    host.add("eth0", device=PF, phys_switch_id="ab01", phys_port_name="pf0vf0")
    host.add("enp3s0f1_1", device=PF1, phys_switch_id="ab01", phys_port_name="c1pf1vf1")
    host.add("sf3", device=PF, phys_switch_id="ab01", phys_port_name="pf0sf3")

    found = host.read("eno1")

    assert {name: each.stacked_on for name, each in found.items()} == {
        "eno1": [], "p0": [], "p1": [], "eth0": ["p0"], "enp3s0f1_1": ["p1"], "sf3": ["p0"],
    }  # fmt: skip
    assert [each.kind for each in found.values()] == ["physical"] * 3 + ["veth"] * 3
    assert found["p0"].speed_mbps == 25000
    assert isinstance(found["eth0"].speed_mbps, int) is False


def test_ports_of_one_device_are_told_apart_by_the_number_of_their_function(host: Host) -> None:
    """nfp: all ports of a card are of one PCI device."""
    for number in (0, 1):
        host.add(f"np{number}", device=PF, driver="nfp", phys_switch_id="77", phys_port_name=f"p{number}")
    host.add("r0", device=PF, phys_switch_id="77", phys_port_name="pf1vf0")
    host.add("r1", device=PF, phys_switch_id="77", phys_port_name="pf7vf0")

    stacked = host.stacked("np0")

    assert stacked == {"np0": [], "np1": [], "r0": ["np1"], "r1": ["np0", "np1"]}


def test_a_representor_whose_uplink_is_not_here_is_routed(host: Host) -> None:
    host.card("eno1")
    host.add("rep", device=PF, phys_switch_id="ab01", phys_port_name="pf0vf0")

    assert host.stacked("eno1") == {"eno1": [], "rep": ["eno1"]}


@pytest.mark.parametrize("uplink_name", ["p0", ""])
def test_mlx5_before_linux_4_20_gives_representors_bare_numbers(host: Host, uplink_name: str) -> None:
    host.add("ens1f0", device=PF, driver="mlx5_core", phys_switch_id="e4", phys_port_name=uplink_name)
    host.add("eth0", device=PF, driver="mlx5_core", phys_switch_id="e4", phys_port_name="0")
    host.add("eth1", device=PF, driver="mlx5_core", phys_switch_id="e4", phys_port_name="1")

    found = host.read("ens1f0")

    assert {name: (each.kind, each.stacked_on) for name, each in found.items()} == {
        "ens1f0": ("physical", []), "eth0": ("veth", ["ens1f0"]), "eth1": ("veth", ["ens1f0"]),
    }  # fmt: skip


@pytest.mark.parametrize("port_names", [("p1", "p2"), ("p1s0", "p1s1"), ("1", "2"), ("swp1", "swp2"), ("pre1", "pre2")])
def test_the_front_ports_of_a_switch_are_its_edge(host: Host, port_names: tuple[str, str]) -> None:
    for number, port_name in enumerate(port_names, 1):
        host.add(f"swp{number}", device=PF, driver="mlxsw", phys_switch_id="7cfe", phys_port_name=port_name)
    host.bridge("br0", "swp1", "swp2")

    found = host.read("br0")

    assert [(each.kind, each.stacked_on) for each in found.values()][:2] == [("physical", [])] * 2
    assert found["swp1"].speed_mbps == 25000


def test_the_ports_of_a_dsa_switch_lie_on_its_conduit_where_the_kernel_links_them(host: Host) -> None:
    host.card("eth0")
    host.add(
        "lan1", device="devices/mdio", bus="mdio_bus", driver="mt7530", lower=("eth0",), devtype="dsa",
        phys_switch_id="00", phys_port_name="p1",
    )  # fmt: skip
    host.add("lan2", device="devices/mdio2", devtype="dsa", phys_switch_id="01", phys_port_name="p2")

    assert host.stacked("eth0") == {"eth0": [], "lan1": ["eth0"], "lan2": []}


@pytest.mark.parametrize(
    ("driver", "is_switchdev", "expected"),
    [
        ("mlx5_core", False, []),
        ("i40e", False, []),
        ("mlx5_core", True, ["ens1f0"]),
        ("nfp", True, ["ens1f0"]),
        ("ice", True, []),
    ],
)
def test_a_virtual_function_left_in_the_host_counts_for_itself_unless_its_uplink_counts_all(
    host: Host, driver: str, is_switchdev: bool, expected: list[str]
) -> None:
    switch_id = "e4" if is_switchdev else ""
    host.add("ens1f0", device=PF, driver=driver, phys_switch_id=switch_id, phys_port_name="p0")
    host.add("ens1f0v0", device=PF + "0", driver=driver, physfn=PF)

    found = host.read("ens1f0")

    assert {name: (each.kind, each.stacked_on) for name, each in found.items()} == {
        "ens1f0": ("physical", []), "ens1f0v0": ("physical", expected),
    }  # fmt: skip


def test_a_subfunction_lies_on_the_uplink_of_its_card(host: Host) -> None:
    host.add("p0", device=PF, driver="mlx5_core", phys_switch_id="e4", phys_port_name="p0")
    host.add("enp3s0f0s88", device=f"{PF}/mlx5_core.sf.4", bus="auxiliary", driver="mlx5_core.sf")

    assert host.stacked("p0") == {"p0": [], "enp3s0f0s88": ["p0"]}


def test_a_virtual_function_in_a_guest_is_its_card(host: Host) -> None:
    host.add("ens5", device=PF, driver="mlx5_core")
    host.add("ens6", device=PF1, driver="iavf")

    assert host.stacked("ens5") == {"ens5": [], "ens6": []}


@pytest.mark.parametrize(("driver", "bus"), [("hv_netvsc", "vmbus"), ("virtio_net", "virtio")])
def test_a_failover_pair_counts_once(host: Host, driver: str, bus: str) -> None:
    host.add("enP1s1", device=PF, driver="mlx5_core")
    host.add("eth0", device="devices/pair", bus=bus, driver=driver, lower=("enP1s1",))

    assert host.stacked("eth0") == {"enP1s1": ["eth0"], "eth0": []}


def test_taps_and_veths_on_a_bridge_lie_on_its_hardware_and_not_on_that_of_the_default_route(host: Host) -> None:
    host.card("eno1")
    host.add("wlan0", device="devices/pci0000:00/wlan0", driver="iwlwifi", devtype="wlan")
    host.add("vnet0", tun_flags="0x1002")
    host.add("tap100i0", tun_flags="0x5002")
    host.add("fwpr100p0", iflink="99")
    host.add("vnet9", tun_flags="0x1002")
    host.add("macvtap0", iflink="2", lower=("eno1",), macvtap="")
    host.bridge("vmbr0", "eno1", "vnet0", "tap100i0", "fwpr100p0")

    stacked = host.stacked("wlan0")

    assert [stacked[name] for name in ("vnet0", "tap100i0", "fwpr100p0", "macvtap0")] == [["eno1"]] * 4
    assert stacked["vnet9"] == ["wlan0"]
    assert [name for name, below in stacked.items() if not below] == ["eno1", "wlan0"]


def test_a_guest_on_a_bridge_over_a_bond_lies_on_the_members(host: Host) -> None:
    host.card("eth0")
    host.card("eth1")
    host.add("bond0", lower=("eth0", "eth1"), devtype="bond", bonding="")
    host.add("bond0.7", lower=("bond0",), devtype="vlan")
    host.vif("vif3.0")
    host.bridge("xenbr7", "bond0.7", "vif3.0")

    assert host.stacked("xenbr7")["vif3.0"] == ["eth0", "eth1"]


@pytest.mark.parametrize("name", ["veth0", "tap0", "vnet0", "vif1.0"])
def test_a_card_with_the_name_of_a_guests_end_is_a_card(host: Host, name: str) -> None:
    host.card(name)

    [found] = host.read(name).values()

    assert (found.kind, found.stacked_on, found.speed_mbps) == ("physical", [], 25000)


def test_a_card_that_is_put_into_switchdev_mode_while_the_agent_runs_is_seen_to_be_the_uplink(host: Host) -> None:
    table, roots = LinkTable(), Roots(proc=str(host.proc), sys=str(host.sys))
    host.add("p0", device=PF, driver="mlx5_core")
    table.read(roots, host.names)

    (host.net / "p0/phys_switch_id").write_text("e4\n")
    (host.net / "p0/phys_port_name").write_text("p0\n")
    host.add("eth0", device=PF, phys_switch_id="e4", phys_port_name="pf0vf0")

    assert table.read(roots, host.names)["eth0"].lower == ("p0",)


def test_an_interface_without_a_switch_has_no_uplink() -> None:
    ports = {"eth0": Port(device="/a"), "eth1": Port(device="/a", name="pf0vf0"), "eth2": Port(function_of="/a")}

    assert uplinks(ports) == {}
