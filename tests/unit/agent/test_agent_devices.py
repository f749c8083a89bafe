"""agent.devices: which device an interface is, on fixture trees and on interfaces that the kernel really makes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.devices import Device, Devices, parse_address, parse_carrier_changes, permanent_addresses, repeated_addresses
from agent.network import get_network_interfaces
from agent.roots import Roots
from service.wire import NetworkInterface

REPOSITORY = Path(__file__).parents[3]
MAC, OTHER = "52:54:00:12:34:56", "52:54:00:12:34:57"


def card(tmp_path: Path, name: str, place: str, **files: str) -> Roots:
    """Adds an interface with a device at /sys/devices/<place>."""
    device = tmp_path / "sys/devices" / place
    device.mkdir(parents=True, exist_ok=True)
    directory = tmp_path / "sys/class/net" / name
    directory.mkdir(parents=True)
    (directory / "device").symlink_to(device)
    for attribute, text in files.items():
        path = directory / attribute.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    return Roots(proc=str(tmp_path / "proc"), sys=str(tmp_path / "sys"))


def read(roots: Roots, *names: str, devices: Devices | None = None) -> dict[str, Device]:
    return (devices or Devices()).read(roots, dict.fromkeys(names, 2), set(names), names)


def test_a_card_is_described_by_its_address_its_slot_its_alias_and_its_carrier(tmp_path: Path) -> None:
    roots = card(
        tmp_path, "ens3", "pci0000:00/0000:00:03.0/virtio2",
        addr_assign_type="0", address=MAC.upper(), ifalias="WAN, left port", carrier_changes="7", dev_port="0",
    )  # fmt: skip

    assert read(roots, "ens3") == {"ens3": Device(MAC, "pci0000:00/0000:00:03.0", "WAN, left port", 7)}


@pytest.mark.parametrize("how", ["1", "2", "3", ""])
def test_an_address_that_is_random_stolen_or_set_is_no_evidence(tmp_path: Path, how: str) -> None:
    assert (
        read(card(tmp_path, "eth0", "x", addr_assign_type=how, address=MAC), "eth0")["eth0"].permanent_address is None
    )


def test_i8_a_member_of_a_bond_keeps_its_own_address(tmp_path: Path) -> None:
    roots = card(
        tmp_path, "eth1", "x", addr_assign_type="3", address=MAC, bonding_slave__perm_hwaddr=OTHER
    )  # fmt: skip

    assert read(roots, "eth1")["eth1"].permanent_address == OTHER


def test_ports_of_one_card_are_told_apart(tmp_path: Path) -> None:
    card(tmp_path, "eth0", "pci/0", addr_assign_type="0", address=MAC, dev_port="0")
    card(tmp_path, "eth1", "pci/0", addr_assign_type="0", address=MAC, dev_port="1")
    roots = card(tmp_path, "eth2", "pci/0", addr_assign_type="0", address=MAC, dev_port="0", phys_port_name="p2")

    found = read(roots, "eth0", "eth1", "eth2")

    assert [each.permanent_address for each in found.values()] == [MAC, f"{MAC}#1", f"{MAC}#p2"]
    assert [each.bus_path for each in found.values()] == ["pci/0", "pci/0#1", "pci/0#p2"]
    assert repeated_addresses(found) == {}


def test_i9_a_repeated_permanent_address_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card(tmp_path, "ups17", "usb1/1-1", addr_assign_type="0", address=MAC)
    roots = card(tmp_path, "ups18", "usb1/1-2", addr_assign_type="0", address=MAC)
    roots.net.mkdir(parents=True)
    numbers = " 0" * 16
    (roots.net / "dev").write_text(f"h|\nh|\nups17:{numbers}\nups18:{numbers}\n")

    for _ in range(3):
        sent = get_network_interfaces(roots)

    assert [each.permanent_address for each in sent] == [MAC, MAC]
    assert [record.getMessage() for record in caplog.records] == [
        "interfaces with the same permanent address are told apart by name only: ups17, ups18 have " + MAC
    ]


def test_what_a_device_is_is_read_again_when_another_one_has_its_name(tmp_path: Path) -> None:
    roots = card(tmp_path, "eth0", "x", addr_assign_type="0", address=MAC)
    devices = Devices()
    devices.read(roots, {"eth0": 2}, {"eth0"}, ["eth0"])
    (tmp_path / "sys/class/net/eth0/address").write_text(OTHER)

    same = devices.read(roots, {"eth0": 2}, {"eth0"}, ["eth0"])["eth0"]
    another = devices.read(roots, {"eth0": 3}, {"eth0"}, ["eth0"])["eth0"]

    assert (same.permanent_address, another.permanent_address) == (MAC, OTHER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MAC, MAC), (" 52:54:00:AB:CD:EF\n", "52:54:00:ab:cd:ef"), ("00:00:00:00:00:00", None), ("", None), ("x", None),
        ("52:54:00:12:34", None), (":".join(["a1"] * 20), ":".join(["a1"] * 20)), (":".join(["a1"] * 21), None),
    ],
)  # fmt: skip
def test_only_an_address_of_hardware_is_an_address(text: str, expected: str | None) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("4294967295", 2**32 - 1), ("4294967296", None), ("-1", None), ("", None)]
)
def test_only_a_number_of_the_kernel_counts_changes_of_the_carrier(text: str, expected: int | None) -> None:
    assert parse_carrier_changes(text) == expected


def test_all_that_an_agent_sends_of_a_device_is_within_what_the_service_takes(tmp_path: Path) -> None:
    roots = card(
        tmp_path, "eth0", "/".join(["0000:00:1f.6"] * 40),
        addr_assign_type="0", address=":".join(["a1"] * 20), dev_port="9999", ifalias="ü" * 300,
        carrier_changes="9" * 10,
    )  # fmt: skip
    device = read(roots, "eth0")["eth0"]

    sent = {"name": "eth0", "rx_bytes": 0, "tx_bytes": 0, "rx_packets": 0, "tx_packets": 0, "is_up": True}
    taken = msgspec.convert(sent | {k: v for k, v in device._asdict().items() if v is not None}, NetworkInterface)

    assert (taken.permanent_address, taken.alias) == (":".join(["a1"] * 20) + "#9999", "ü" * 255)


MAKE_INTERFACES = """
mount -t sysfs sysfs /sys
ip link add lan0 type dummy
ip link set lan0 alias "left port"
ip link set lan0 up; ip link set lan0 carrier off; ip link set lan0 carrier on
ip link add link lan0 name lan0.7 type vlan id 7
exec "$0" -c '
import json
import msgspec
from agent.devices import permanent_addresses
from agent.network import get_network_interfaces
found = json.loads(msgspec.json.encode(get_network_interfaces()))
print(json.dumps([{each["name"]: each for each in found}, permanent_addresses()]))
'
"""


def test_the_kernels_own_interfaces_are_described() -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs Linux, root, iproute2 and unshare: makes interfaces in a network namespace of its own")
    ran = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", MAKE_INTERFACES, sys.executable],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "lan0.7" not in ran.stdout:
        pytest.skip(f"this kernel or container makes no network namespace or no such interfaces: {ran.stderr.strip()}")

    interfaces, _ = json.loads(ran.stdout)

    assert (interfaces["lan0"]["alias"], interfaces["lan0"]["carrier_changes"] >= 2) == ("left port", True)
    # Random, or copied from the interface below: no evidence.
    assert [each for each in interfaces.values() if "permanent_address" in each or "bus_path" in each] == []


def test_addresses_are_asked_of_the_kernel_without_root() -> None:
    assert all(parse_address(address) == address for address in permanent_addresses().values())
