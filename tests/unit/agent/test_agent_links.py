"""agent.links on fixture trees, and on interfaces that the kernel really makes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.links import (
    HIGHEST_SPEED_MBPS,
    Link,
    LinkTable,
    kind_by_name,
    kind_of,
    parse_bonding,
    parse_devtype,
    parse_ifindex,
    parse_speed,
    parse_vlan_config,
)
from agent.roots import Roots

REPOSITORY = Path(__file__).parents[3]


class Sysfs:
    """A /sys below tmp_path to which interfaces are added as the kernel would show them."""

    def __init__(self, tmp_path: Path) -> None:
        self.roots = Roots(proc=str(tmp_path / "proc"), sys=str(tmp_path / "sys"))
        self.directory = tmp_path / "sys/class/net"
        self.directory.mkdir(parents=True)

    def add(self, name: str, *, driver: str = "", lower: tuple[str, ...] = (), **files: str) -> None:
        interface = self.directory / name
        interface.mkdir()
        index = str(len(list(self.directory.iterdir())) + 1)
        attributes = {"type": "1", "uevent": "", "ifindex": index, "iflink": index, "operstate": "up"} | files
        for attribute, text in attributes.items():
            (interface / attribute).write_text(text + "\n")
        for below in lower:
            (interface / f"lower_{below}").symlink_to(self.directory / below)
        if driver:
            (interface / "device").mkdir()
            (interface / "device/driver").symlink_to(f"/nowhere/drivers/{driver}")

    def links(self) -> dict[str, Link]:
        return LinkTable().read(self.roots, [path.name for path in sorted(self.directory.iterdir())])


@pytest.mark.parametrize(
    ("name", "entries", "devtype", "arphrd", "leads_out", "expected"),
    [
        ("eth0", {"device"}, "", "1", False, "physical"),
        ("wlan0", {"device", "phy80211"}, "wlan", "1", False, "physical"),
        ("wwan0", {"device"}, "wwan", "65534", False, "physical"),
        ("ib0", {"device"}, "", "32", False, "physical"),
        ("br0", {"bridge"}, "bridge", "1", False, "bridge"),
        ("eth9", {"bridge"}, "", "1", False, "bridge"),
        ("br-int", set(), "openvswitch", "1", False, "bridge"),
        ("uplink", {"bonding"}, "bond", "1", False, "bond"),
        ("team0", {"lower_eth0"}, "", "1", False, "bond"),
        ("storage", set(), "vlan", "1", False, "vlan"),
        ("wg0", set(), "wireguard", "65534", False, "tunnel"),
        ("home", set(), "wireguard", "65534", False, "tunnel"),
        ("tailscale0", {"tun_flags"}, "", "65534", False, "tunnel"),
        ("tap3", {"tun_flags"}, "", "1", False, "tunnel"),
        ("vx1", set(), "vxlan", "1", False, "tunnel"),
        ("sit0", set(), "", "776", False, "tunnel"),
        ("ppp0", set(), "ppp", "512", False, "tunnel"),
        ("gretap1", set(), "", "1", True, "tunnel"),
        ("veth1", set(), "", "1", True, "veth"),
        ("eth0", set(), "", "1", True, "veth"),
        ("veth1", set(), "", "1", False, "veth"),
        ("mv0", {"lower_eth0"}, "macvlan", "1", False, "other"),
        ("ifb0", set(), "", "1", False, "other"),
        ("eth0", set(), "", "1", False, "other"),
        ("eth0", set(), "", None, False, "physical"),
        ("veth0", {"device"}, "", "1", False, "physical"),
        ("tap0", {"device"}, "", "1", False, "physical"),
        ("vnet0", {"device"}, "", "1", False, "physical"),
        ("vif1.0", set(), "", "1", False, "veth"),
    ],
)
def test_the_kind_is_what_the_kernel_says(
    name: str, entries: set[str], devtype: str, arphrd: str | None, leads_out: bool, expected: str
) -> None:
    assert kind_of(name, entries, devtype, arphrd, leads_out=leads_out) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eth0", "physical"), ("enp3s0f1", "physical"), ("wlp2s0", "physical"), ("eth0.10", "vlan"), ("vlan20", "vlan"),
        ("docker0", "bridge"), ("br-4f1d2a3b4c5d", "bridge"), ("virbr0", "bridge"), ("veth1234abc", "veth"),
        ("cali0a1b", "veth"), ("bond0", "bond"), ("bond0.10", "vlan"), ("tailscale0", "tunnel"), ("wg-home", "tunnel"),
        ("utun3", "tunnel"), ("Wi-Fi", "physical"), ("Ethernet 2", "physical"), ("x", "other"), ("", "other"),
        ("vif1.0", "veth"), ("vif12.3-emu", "veth"), ("vif.10", "vlan"),
    ],
)  # fmt: skip
def test_a_name_is_the_last_resort(name: str, expected: str) -> None:
    assert kind_by_name(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        (str(HIGHEST_SPEED_MBPS), HIGHEST_SPEED_MBPS),
        (str(HIGHEST_SPEED_MBPS + 1), None),
        ("0", None),
        ("-1", None),
        ("4294967295", None),
        ("-9223372036854775808", None),
        ("1000 Mb/s", None),
        ("unknown", None),
        ("", None),
        ("1e3", None),
        ("\u0661", None),
        (None, None),
    ],
)
def test_only_a_rate_that_a_link_can_have_is_a_speed(text: str | None, expected: int | None) -> None:
    assert parse_speed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("2147483647", 2**31 - 1),
        ("2147483648", None),
        ("0", None),
        ("-1", None),
        ("00000000000000000002", None),
        ("0x2", None),
        ("2 3", None),
        ("", None),
        ("\u0662", None),
        (None, None),
    ],
)
def test_only_a_number_that_the_kernel_gives_is_an_ifindex(text: str | None, expected: int | None) -> None:
    assert parse_ifindex(text) == expected


def test_a_re_created_interface_has_another_ifindex_even_where_its_inode_is_the_same(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("wg0", ifindex="7", uevent="DEVTYPE=wireguard")
    table = LinkTable()
    table.read(sysfs.roots, ["wg0"])
    before = table.state("wg0").ifindex

    (sysfs.directory / "wg0/ifindex").write_text("9\n")
    table.read(sysfs.roots, ["wg0"])

    assert (before, table.state("wg0").ifindex) == (7, 9)


def test_pitfall_07_the_speed_of_hardware_and_bonds_is_read_and_that_of_virtual_cards_is_not(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("eth0", driver="igb", speed="1000")
    sysfs.add("eth1", driver="vmxnet3", speed="10000")
    sysfs.add("down0", driver="igb", speed="1000", operstate="down")
    sysfs.add("bond0", lower=("eth0",), uevent="DEVTYPE=bond", speed="2000")
    sysfs.add("tun0", tun_flags="0x1001", speed="10", type="65534")
    sysfs.add("wlan0", driver="iwlwifi", uevent="DEVTYPE=wlan")
    table = LinkTable()

    table.read(sysfs.roots, ["eth0", "eth1", "down0", "bond0", "tun0", "wlan0"])

    speeds = {name: table.state(name).speed_mbps for name in ("eth0", "eth1", "down0", "bond0", "tun0", "wlan0")}
    assert speeds == {"eth0": 1000, "eth1": None, "down0": None, "bond0": 2000, "tun0": None, "wlan0": None}


def test_a_failover_pair_takes_its_virtual_function_and_a_switch_port_lies_on_its_uplink(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("enP1", driver="mlx5_core")
    sysfs.add("eth0", driver="hv_netvsc", lower=("enP1",))
    sysfs.add("lan1", driver="mt7530", lower=("eth0",), uevent="DEVTYPE=dsa")

    links = sysfs.links()

    assert links["eth0"] == Link("physical", members=("enP1",))
    assert links["lan1"] == Link("physical", lower=("eth0",))


def test_what_an_interface_is_is_looked_up_once_and_what_it_is_built_on_is_seen_to_change(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("eth0", driver="igb")
    sysfs.add("br0", uevent="DEVTYPE=bridge")
    sysfs.add("eth0.5", uevent="DEVTYPE=vlan", lower=("eth0",))
    table, names = LinkTable(), ["eth0", "br0", "eth0.5"]
    assert table.read(sysfs.roots, names)["br0"].lower == ()

    (sysfs.directory / "br0/lower_eth0").symlink_to(sysfs.directory / "eth0")
    (sysfs.directory / "eth0/uevent").write_text("DEVTYPE=wireguard\n")  # what the kernel would not do

    links = table.read(sysfs.roots, names)
    assert links["br0"] == Link("bridge", ("eth0",))
    assert links["eth0"].kind == "physical"


def test_an_interface_that_is_made_again_under_the_same_name_is_looked_up_again(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("x0", driver="igb")
    table = LinkTable()
    assert table.read(sysfs.roots, ["x0"])["x0"].kind == "physical"

    (sysfs.directory / "x0").rename(sysfs.directory / "gone")  # its inode stays taken
    sysfs.add("x0", uevent="DEVTYPE=bridge")

    assert table.read(sysfs.roots, ["x0"])["x0"].kind == "bridge"


def test_a_renamed_parent_is_followed(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("ens3", driver="igb")
    sysfs.add("storage", uevent="DEVTYPE=vlan", lower=("ens3",))
    table = LinkTable()
    table.read(sysfs.roots, ["ens3", "storage"])

    (sysfs.directory / "ens3").rename(sysfs.directory / "eth0")
    (sysfs.directory / "storage/lower_ens3").rename(sysfs.directory / "storage/lower_eth0")

    assert table.read(sysfs.roots, ["eth0", "storage"])["storage"].lower == ("eth0",)


def test_without_sysfs_proc_tells_vlans_and_bonds(tmp_path: Path) -> None:
    net = tmp_path / "proc/1/net"
    (net / "vlan").mkdir(parents=True)
    (net / "vlan/config").write_text(
        "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\nstorage        | 10  | bond0\n"
    )
    (net / "bonding").mkdir()
    (net / "bonding/bond0").write_text("Bonding Mode: x\n\nSlave Interface: eth0\nMII: up\n\nSlave Interface: eth1\n")
    roots = Roots(proc=str(tmp_path / "proc"), sys=str(tmp_path / "sys"))

    links = LinkTable().read(roots, ["eth0", "eth1", "bond0", "storage"])

    assert links["bond0"] == Link("bond", ("eth0", "eth1"))
    assert links["storage"].lower == ("bond0",)


def test_pitfall_17_the_hosts_proc_over_a_containers_own_sys_is_told_apart(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("eth0", iflink="77", operstate="down")
    table = LinkTable()

    links = table.read(sysfs.roots, ["eth0", "docker0", "veth1"])

    assert links["eth0"].kind == "physical"
    assert table.state("eth0").is_up


def test_an_interface_that_vanishes_between_two_reads_is_still_described(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    sysfs.add("eth0", driver="igb")
    sysfs.add("veth1", iflink="99")
    table = LinkTable()
    assert table.read(sysfs.roots, ["eth0", "veth1", "veth2"])["veth2"] == Link("veth")

    shutil.rmtree(sysfs.directory / "veth1")

    assert table.state("veth1") == (True, None, None, None)


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_no_text_makes_a_parser_raise(text: str) -> None:
    parse_speed(text)
    parse_ifindex(text)
    parse_devtype("DEVTYPE=" + text)
    parse_vlan_config(text)
    parse_bonding("Slave Interface: " + text)
    kind_by_name(text)
    kind_of(text, {text}, text, text, leads_out=True)


MAKE_INTERFACES = """
mount -t sysfs sysfs /sys
ip link add uplink type veth peer name far0
ip link add br0 type bridge
ip link set far0 master br0
ip link add link uplink name shim type macvlan
ip tuntap add mode tun name home
ip link add vx type vxlan id 7 dev uplink dstport 4790
ip link set uplink up; ip link set far0 up
exec "$0" -c '
import json
from agent.links import LinkTable
from agent.network import get_network_interfaces
table = LinkTable()
found = get_network_interfaces(table=table)
again = get_network_interfaces(table=table)
assert [each.name for each in found] == [each.name for each in again]
print(json.dumps({each.name: [each.kind, table._known[each.name].link.lower, each.is_up] for each in found}))
'
"""


def test_the_kernels_own_interfaces_are_recognized() -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs Linux, root, iproute2 and unshare: makes interfaces in a network namespace of its own")
    ran = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", MAKE_INTERFACES, sys.executable],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    if "home" not in ran.stdout:
        pytest.skip(f"this kernel or container makes no network namespace or no such interfaces: {ran.stderr.strip()}")

    found = json.loads(ran.stdout)

    assert found["uplink"] == ["veth", [], True]
    assert found["br0"] == ["bridge", ["far0"], False]
    assert found["shim"][:2] == ["other", ["uplink"]]
    assert found["home"] == ["tunnel", [], False]
    assert found["vx"][:2] == ["tunnel", ["uplink"]]
