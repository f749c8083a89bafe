"""I1, I3 and I7 of docs/names.md on interfaces that the kernel itself renames, exchanges and makes again."""

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.helpers.support import Client, boot_id, hours_ago

REPOSITORY = Path(__file__).parents[2]
# Each step is a command; after it, datagrams of 1,000 octets leave by each interface that has an address, and the
# interfaces are read as the agent reads them.
READ = """
import json, socket, subprocess, sys
import msgspec
from agent.network import get_network_interfaces
for n, step in enumerate(json.load(sys.stdin)):
    for command in step:
        subprocess.run(command, shell=True, check=True)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for subnet in (1, 2):
        try:
            for _ in range(3 * subnet):
                sender.sendto(bytes(972), (f"10.9.{subnet}.2", 9))
        except OSError:
            pass
    found = [one for one in get_network_interfaces() if not one.name.startswith("veth")]
    print(msgspec.json.encode(found).decode(), flush=True)
"""

NEIGHBOUR = "ip neigh replace 10.9.{0}.2 lladdr 02:00:00:00:00:0{0} dev {1}"


def read(*steps: list[str]) -> list[list[dict[str, Any]]]:
    """What the agent reads after each step, in a network namespace of its own."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs Linux, root, iproute2 and unshare: makes interfaces in a network namespace of its own")
    mounted = ["unshare", "--net", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$0" -c "$1"']
    ran = subprocess.run(
        [*mounted, sys.executable, READ],
        cwd=REPOSITORY, input=json.dumps(steps), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if ran.returncode:
        pytest.skip(f"this kernel or container makes no such interfaces (they need veth): {ran.stderr.strip()}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def made(name: str, subnet: int) -> list[str]:
    """A link with an address and a neighbour; its other end is a veth, which stays where it is."""
    return [
        f"ip link add {name} type veth peer name veth{subnet}",
        f"ip addr add 10.9.{subnet}.1/24 dev {name}",
        f"ip link set {name} up; ip link set veth{subnet} up",
        NEIGHBOUR.format(subnet, name),
    ]


async def report(service: Client, readings: list[list[dict[str, Any]]]) -> None:
    start = hours_ago(2)
    for n, interfaces in enumerate(readings):
        body = {
            "server_id": "nas", "hostname": "nas", "boot_id": boot_id("kernel"),
            "timestamp": (start + timedelta(seconds=30 * n)).isoformat(), "network_interfaces": interfaces,
        }  # fmt: skip
        await service.post(body)


async def sums(database: asyncpg.Connection) -> dict[str, tuple[int, int, int]]:
    """Of each series: rows, octets sent, and rows that are resets."""
    rows = await database.fetch(
        "SELECT interface_name, count(*), sum(tx_bytes_delta)::bigint, count(*) FILTER (WHERE delta_kind = 'reset') "
        "FROM network_interface_metrics GROUP BY 1 ORDER BY 1"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def sent(readings: list[list[dict[str, Any]]], name: str, place: int) -> int:
    return int(next(one["tx_bytes"] for one in readings[place] if one["name"] == name))


def fell(before: dict[str, Any], now: dict[str, Any]) -> bool:
    return any(now[name] < before[name] for name in ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets"))


async def test_i1_a_link_that_is_renamed_counts_on(service: Client, database: asyncpg.Connection) -> None:
    readings = read(
        made("ens3", 1),
        [],
        ["ip link set ens3 down", "ip link set ens3 name lan0", "ip link set lan0 up", NEIGHBOUR.format(1, "lan0")],
        [],
    )

    await report(service, readings)

    assert await sums(database) == {"ens3": (4, sent(readings, "lan0", 3) - sent(readings, "ens3", 0), 0)}
    names = await database.fetch("SELECT interface_name, os_name FROM public.interface_names ORDER BY since")
    assert [tuple(row) for row in names] == [("ens3", "ens3"), ("ens3", "lan0")]


async def test_i3_two_links_that_exchange_their_names_keep_their_counters(
    service: Client, database: asyncpg.Connection
) -> None:
    exchange = [
        "ip link set eth0 down", "ip link set eth1 down", "ip link set eth0 name x", "ip link set eth1 name eth0",
        "ip link set x name eth1", "ip link set eth0 up", "ip link set eth1 up", NEIGHBOUR.format(1, "eth1"),
        NEIGHBOUR.format(2, "eth0"),
    ]  # fmt: skip
    readings = read([*made("eth0", 1), *made("eth1", 2)], [], exchange, [])

    await report(service, readings)

    assert await sums(database) == {
        "eth0": (4, sent(readings, "eth1", 3) - sent(readings, "eth0", 0), 0),
        "eth1": (4, sent(readings, "eth0", 3) - sent(readings, "eth1", 0), 0),
    }


async def test_i7_a_link_that_is_made_again_is_one_series(service: Client, database: asyncpg.Connection) -> None:
    again = ["ip link delete wg0", *made("wg0", 1)]
    readings = read(made("wg0", 1), [], *([again, []] * 20))

    await report(service, readings)

    # On a busy machine the kernel may have sent nothing before a link was deleted: then no counter falls, and those of
    # the new link are counted from the old one's.
    is_reset = [fell(readings[place - 1][0], readings[place][0]) for place in range(1, len(readings))]
    counted = sum(
        sent(readings, "wg0", place) - (0 if is_reset[place - 1] else sent(readings, "wg0", place - 1))
        for place in range(1, len(readings))
    )
    assert len({one["ifindex"] for reading in readings for one in reading}) == 21
    assert sum(is_reset) > 10
    assert await sums(database) == {"wg0": (len(readings), counted, sum(is_reset))}
