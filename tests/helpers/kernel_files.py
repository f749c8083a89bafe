"""The agent on files of /proc and /sys that a broken kernel, a torn read or an enemy wrote."""

import logging
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.heartbeat import Collector, encode
from agent.settings import Settings
from service.ingest.heartbeat import decode_heartbeat

FIXTURES = Path(__file__).parents[1] / "unit/agent/fixtures"

NET_DEV = [path.read_bytes() for path in sorted(FIXTURES.glob("net_dev_*.txt"))]
MOUNTS = (FIXTURES / "mounts_server.txt").read_bytes()
ROUTE = (
    b"Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t01\t0003\t0\t0\t100\t00000000\n"
)
ROUTE_IPV6 = b"%b 00 %b 00 %b 00000400 00000002 00000000 00000003     eth0\n" % ((b"0" * 32,) * 3)
PROC = {
    "1/net/route": ROUTE,
    "1/net/ipv6_route": ROUTE_IPV6,
    "1/net/vlan/config": b"VLAN Dev name | VLAN ID\nName-Type: x\nbond0.10 | 10 | bond0\n",
    "stat": b"cpu  100 10 50 800 40 5 5 10 60 6\ncpu0 1 1 1 1\n",
    "meminfo": b"MemTotal: 16384000 kB\nMemFree: 512000 kB\nMemAvailable: 4096000 kB\n",
    "loadavg": b"0.52 1.25 2.00 3/456 7890\n",
    "uptime": b"86461.53 340000.00\n",
    "sys/kernel/random/boot_id": b"9d1d0e03-3f6a-49e6-9201-73380a27b648\n",
}
SYS = {
    "type": b"1\n",
    "uevent": b"DEVTYPE=bridge\nINTERFACE=eth0\nIFINDEX=2\n",
    "ifindex": b"2\n",
    "iflink": b"3\n",
    "operstate": b"up\n",
    "carrier": b"1\n",
    "flags": b"0x1003\n",
    "speed": b"1000\n",
}
NUMBERS = [b"0", b"-1", b"4294967295", b"18446744073709551615", b"18446744073709551616", b"9" * 5000, b"1e999", b"nan"]
PIECES = [
    *NUMBERS,
    b"\n",
    b" ",
    b":",
    b"\x00",
    b"\xff",
    b"\\040",
    b"\\777",
    b"/",
    b"|",
    "\u0661".encode(),
    b"\xe2\x80\xa8",
]


def mutated(rng: random.Random, text: bytes) -> bytes:
    """`text` with bytes, pieces, lines or words changed, cut or repeated; or random bytes instead of it."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(2_000))
    lines = text.split(b"\n")
    for _ in range(rng.randrange(1, 8)):
        place = rng.randrange(len(text) + 1)
        if kind == 1:
            text = text[:place] + rng.randbytes(1) + text[place + 1 :]
        elif kind == 2:
            text = text[:place] + rng.choice(PIECES) + text[place:]
        elif kind == 3:
            text = text[:place] + text[place + rng.randrange(40) :]
        elif kind == 4:
            text = text[:place]
        elif kind == 5:
            lines.insert(rng.randrange(len(lines)), rng.choice(lines) + rng.choice(PIECES))
            text = b"\n".join(lines)
        elif kind == 6:
            words = text.split(b" ")
            words[rng.randrange(len(words))] = rng.choice(PIECES)
            text = b" ".join(words)
        else:
            text = text.replace(rng.choice(text.split() or [b"x"]), rng.choice(PIECES), 1)
    return text


def rewrite(path: Path, text: bytes) -> None:
    """A new file: ext4 writes one that was truncated to the disk at once, which takes ten times as long as the test."""
    path.unlink(missing_ok=True)
    path.write_bytes(text)


def fuzzed_heartbeats(directory: Path, count: int, seed: int) -> Counter[str]:
    """Lets one Collector read `count` files of each kind, and the service's decoder every heartbeat; what came of it.

    Raises what either raises.
    """
    rng = random.Random(seed)
    files = {directory / "proc" / name: text for name, text in PROC.items()}
    for interface in ("eth0", "wlan0", "docker0", "bond0.10"):
        files |= {directory / "sys/class/net" / interface / name: text for name, text in SYS.items()}
    files[directory / "root/etc/os-release"] = b'NAME="Debian"\nPRETTY_NAME="Debian 12"\nVERSION_ID=12\n'
    net_dev, mounts = directory / "proc/1/net/dev", directory / "proc/1/mounts"
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    for point in ("boot/efi", "snapshots", "mnt/nas"):
        (directory / "root" / point).mkdir(parents=True)
    proc, sys, root = (str(directory / name) for name in ("proc", "sys", "root"))
    collector = Collector(Settings(proc=proc, sys=sys, root=root, server_id="s"))
    counts: Counter[str] = Counter()
    logging.disable(logging.CRITICAL)  # of thousands of mounts that do not exist
    try:
        for _ in range(count):
            rewrite(net_dev, mutated(rng, rng.choice(NET_DEV)))
            rewrite(mounts, mutated(rng, MOUNTS))
            other = rng.choice(list(files))
            rewrite(other, mutated(rng, files[other]))
            beat = decode_heartbeat(encode(collector.collect()), now=datetime.now(UTC), oldest=timedelta(days=7))
            rewrite(other, files[other])
            counts["heartbeats"] += 1
            counts["interfaces"] += len(beat.network_interfaces or ())
            counts["filesystems"] += len(beat.filesystems or ())
            counts["without interfaces"] += not beat.network_interfaces
            counts["with a primary interface"] += beat.primary_interface is not None
    finally:
        logging.disable(logging.NOTSET)
    return counts
