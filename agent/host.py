"""The machine itself: processor, memory, root filesystem, load, uptime, operating system."""

import importlib
import math
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from .filesystems import Usage
from .network import COUNTER_MAX, NetworkInterface
from .roots import Roots, read_text, wire_text
from .sensors import read_temperature

MIB = 1024**2
GIB = 1024**3
OS_RELEASE_LIMIT_BYTES = 16 * 1024
_NUMBER = re.compile(r"[0-9]{1,20}\Z", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(?:\"(.*)\"|'(.*)'|(.*))")


class Metrics(msgspec.Struct, frozen=True, omit_defaults=True):
    """Metrics of the machine as a whole; a value that cannot be read is left out.

    cpu_percent             of all cores together, since the previous heartbeat.
    memory_*_mb             MiB; used is total minus the kernel's MemAvailable.
    disk_*_gb               GiB of the root filesystem; disk_percent as shown by df.
    network_*_bytes         octets since boot, summed over the reported interfaces; left out beyond 2**64 - 1.
    load_*                  runnable tasks, averaged over 1, 5 and 15 minutes.
    temperature_celsius     of the hottest sensor.
    """

    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_total_mb: int | None = None
    memory_used_mb: int | None = None
    disk_percent: float | None = None
    disk_total_gb: float | None = None
    disk_used_gb: float | None = None
    network_rx_bytes: int | None = None
    network_tx_bytes: int | None = None
    load_1m: float | None = None
    load_5m: float | None = None
    load_15m: float | None = None
    uptime_seconds: int | None = None
    temperature_celsius: float | None = None


class CpuTimes(NamedTuple):
    """Ticks since boot, of all cores together."""

    busy: float
    total: float


def read_metrics(
    roots: Roots,
    interfaces: Iterable[NetworkInterface],
    root: Usage | None,
    before: CpuTimes | None,
    now: CpuTimes | None,
) -> Metrics:
    """Everything that can be read of the host; never raises OSError. `root`: sizes of the root filesystem."""
    reported = list(interfaces)
    memory = read_memory(roots)
    load = _load(roots)
    return Metrics(
        cpu_percent=cpu_percent(before, now),
        memory_percent=round(100 * memory[1] / memory[0], 2) if memory else None,
        memory_total_mb=memory[0] // MIB if memory else None,
        memory_used_mb=memory[1] // MIB if memory else None,
        disk_percent=root.percent if root else None,
        disk_total_gb=round(root.total_bytes / GIB, 2) if root else None,
        disk_used_gb=round(root.used_bytes / GIB, 2) if root else None,
        network_rx_bytes=_sum(each.rx_bytes for each in reported),
        network_tx_bytes=_sum(each.tx_bytes for each in reported),
        load_1m=load[0] if load else None,
        load_5m=load[1] if load else None,
        load_15m=load[2] if load else None,
        uptime_seconds=_uptime_seconds(roots),
        temperature_celsius=read_temperature(roots),
    )


def read_cpu_times(roots: Roots) -> CpuTimes | None:
    """The processors' ticks since boot, or None if they cannot be read."""
    if sys.platform != "linux":
        times = importlib.import_module("psutil").cpu_times()
        return CpuTimes(busy=sum(times) - times.idle, total=sum(times))
    return parse_cpu_times(_text(roots, "stat"))


def parse_cpu_times(text: str) -> CpuTimes | None:
    """The first line of /proc/stat (proc(5)): cpu user nice system idle iowait irq softirq steal guest guest_nice.

    guest and guest_nice are in user and nice already; counting them again would understate the idle share.
    """
    fields = text.partition("\n")[0].split()
    if len(fields) < 5 or fields[0] != "cpu" or not all(_NUMBER.match(field) for field in fields[1:9]):
        return None
    ticks = [int(field) for field in fields[1:9]]
    idle = ticks[3] + (ticks[4] if len(ticks) > 4 else 0)
    return CpuTimes(busy=sum(ticks) - idle, total=sum(ticks))


def cpu_percent(before: CpuTimes | None, now: CpuTimes | None) -> float | None:
    """Share of the time between two readings, 0 .. 100; None when no tick passed between them."""
    if before is None or now is None or now.total <= before.total:
        return None
    # iowait may step back (proc(5)), so the share can leave the range by a little.
    return round(min(100.0, max(0.0, 100 * (now.busy - before.busy) / (now.total - before.total))), 2)


def read_memory(roots: Roots) -> tuple[int, int] | None:
    """Total and used octets, or None."""
    if sys.platform != "linux":
        memory = importlib.import_module("psutil").virtual_memory()
        return memory.total, memory.total - memory.available
    return parse_memory(_text(roots, "meminfo"))


def parse_memory(text: str) -> tuple[int, int] | None:
    """Total and used octets from the text of /proc/meminfo (proc(5); its kB are KiB), or None.

    Kernels before 3.14 have no MemAvailable: free, buffers and page cache are used instead.
    """
    kib: dict[str, int] = {}
    for line in text.split("\n"):
        name, _, rest = line.partition(":")
        value = rest.split()[:1]
        if value and _NUMBER.match(value[0]):
            kib[name] = int(value[0])
    total = kib.get("MemTotal", 0)
    if total <= 0:
        return None
    available = kib.get("MemAvailable", kib.get("MemFree", 0) + kib.get("Buffers", 0) + kib.get("Cached", 0))
    return total * 1024, (total - min(available, total)) * 1024


def read_boot_id(roots: Roots) -> str | None:
    """The kernel's random id of this boot (random(4)): a change explains counters that restart."""
    return wire_text(_text(roots, "sys/kernel/random/boot_id").strip())[:255] or None


def read_os_info(roots: Roots) -> dict[str, str]:
    """Operating system, kernel and architecture, if known."""
    release: dict[str, str] = {}
    # os-release(5): /etc takes precedence over /usr/lib.
    for path in (roots.tree / "etc/os-release", roots.tree / "usr/lib/os-release"):
        try:
            release = parse_os_release(read_text(path, limit_bytes=OS_RELEASE_LIMIT_BYTES))
            break
        except OSError:
            continue
    if sys.platform == "win32":
        platform = importlib.import_module("platform")
        system, kernel, machine = platform.system(), platform.release(), platform.machine()
    else:
        system, _, kernel, _, machine = os.uname()
    known = {
        "name": release.get("PRETTY_NAME") or release.get("NAME") or system,
        "id": release.get("ID"),
        "version": release.get("VERSION_ID"),
        "kernel": kernel,
        "architecture": machine,
    }
    return {key: wire_text(value) for key, value in known.items() if value}


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments in an os-release(5) file: shell-like, values bare or quoted, backslash escapes in quotes."""
    values = {}
    for line in text.split("\n"):
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match:
            values[match[1]] = re.sub(r"\\(.)", r"\1", match[2] or match[3] or match[4] or "")
    return values


def _sum(counters: Iterable[int]) -> int | None:
    """None above 64 bits: the service would reject the whole heartbeat for a number that it cannot store."""
    total = sum(counters)
    return total if total <= COUNTER_MAX else None


def _load(roots: Roots) -> tuple[float, float, float] | None:
    if sys.platform != "linux":
        return os.getloadavg() if hasattr(os, "getloadavg") else None
    return parse_load(_text(roots, "loadavg"))


def parse_load(text: str) -> tuple[float, float, float] | None:
    """The three averages in the text of /proc/loadavg (proc(5)), or None."""
    try:
        one, five, fifteen = (float(field) for field in text.split()[:3])
    except ValueError:
        return None
    return (one, five, fifteen) if all(0 <= load < math.inf for load in (one, five, fifteen)) else None


def _uptime_seconds(roots: Roots) -> int | None:
    if sys.platform != "linux":
        return None
    return parse_uptime(_text(roots, "uptime"))


def parse_uptime(text: str) -> int | None:
    """Whole seconds from the text of /proc/uptime (proc(5)), or None."""
    try:
        seconds = int(float(text.split(maxsplit=1)[0]))
    except (ValueError, IndexError, OverflowError):
        return None
    return seconds if seconds >= 0 else None


def _text(roots: Roots, name: str) -> str:
    """A file below /proc, or "" if it cannot be read."""
    try:
        return read_text(Path(roots.proc, name))
    except OSError:
        return ""
