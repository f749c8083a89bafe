"""agent.host on the texts of /proc."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.filesystems import usage
from agent.host import (
    CpuTimes,
    Metrics,
    cpu_percent,
    parse_cpu_times,
    parse_memory,
    parse_os_release,
    read_boot_id,
    read_metrics,
    read_os_info,
)
from agent.network import NetworkInterface
from agent.roots import Roots

MEMINFO = "MemTotal:       16384000 kB\nMemFree:          512000 kB\nMemAvailable:    4096000 kB\nBuffers: 1 kB\n"


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A host's /proc with everything that is read of it, and its root."""
    files = {
        "proc/meminfo": MEMINFO,
        "proc/loadavg": "0.52 1.25 2.00 3/456 7890\n",
        "proc/uptime": "86461.53 340000.00\n",
        "proc/sys/kernel/random/boot_id": "9d1d0e03-3f6a-49e6-9201-73380a27b648\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "root/etc/os-release": 'PRETTY_NAME="Raspbian GNU/Linux 12"\nID=raspbian\nVERSION_ID="12"\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Roots(proc=str(tmp_path / "proc"), sys=str(tmp_path / "sys"), root=str(tmp_path / "root"))


def test_all_metrics_of_the_host_are_read(roots: Roots) -> None:
    interfaces = [NetworkInterface("a", 2**63, 10, 0, 0, True), NetworkInterface("b", 2**63 - 1, 5, 0, 0, False)]
    real = os.statvfs(roots.root)

    found = read_metrics(roots, interfaces, usage(real), CpuTimes(100, 1000), CpuTimes(125, 1100))

    assert found.cpu_percent == 25.0
    assert (found.memory_percent, found.memory_total_mb, found.memory_used_mb) == (75.0, 16000, 12000)
    assert found.disk_total_gb == round(real.f_blocks * real.f_frsize / 1024**3, 2)
    assert found.disk_used_gb is not None
    assert found.disk_percent is not None
    assert (found.network_rx_bytes, found.network_tx_bytes) == (2**64 - 1, 15)
    assert (found.load_1m, found.load_5m, found.load_15m) == (0.52, 1.25, 2.0)
    assert found.uptime_seconds == 86461
    assert found.temperature_celsius == 48.3


def test_a_sum_beyond_64_bits_is_left_out(roots: Roots) -> None:
    interfaces = [NetworkInterface("a", 2**64 - 1, 1, 0, 0, True), NetworkInterface("b", 1, 1, 0, 0, True)]

    found = read_metrics(roots, interfaces, None, None, None)

    assert (found.network_rx_bytes, found.network_tx_bytes) == (None, 2)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    missing = Roots(proc=str(tmp_path / "no"), sys=str(tmp_path / "no"), root=str(tmp_path / "no"))

    found = read_metrics(missing, [], None, None, None)

    assert found == Metrics(network_rx_bytes=0, network_tx_bytes=0)
    assert msgspec.json.encode(found) == b'{"network_rx_bytes":0,"network_tx_bytes":0}'
    assert read_boot_id(missing) is None


def test_boot_id_and_operating_system_are_read(roots: Roots) -> None:
    assert read_boot_id(roots) == "9d1d0e03-3f6a-49e6-9201-73380a27b648"
    found = read_os_info(roots)
    assert found["name"] == "Raspbian GNU/Linux 12"
    assert (found["id"], found["version"]) == ("raspbian", "12")
    assert found["kernel"] == os.uname().release
    assert found["architecture"] == os.uname().machine


def test_guest_time_is_not_counted_twice_and_iowait_is_idle() -> None:
    found = parse_cpu_times("cpu  100 10 50 800 40 5 5 10 60 6\ncpu0 1 1 1 1\n")

    assert found == CpuTimes(busy=180, total=1020)


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu0 1 2 3 4\n", "cpu 1 2 3 x\n", "intr 1 2 3 4 5\n"])
def test_a_stat_without_the_cpu_line_gives_nothing(text: str) -> None:
    assert parse_cpu_times(text) is None


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (CpuTimes(0, 0), CpuTimes(50, 200), 25.0),
        (CpuTimes(100, 100), CpuTimes(90, 110), 0.0),
        (CpuTimes(10, 100), CpuTimes(200, 110), 100.0),
        (CpuTimes(10, 100), CpuTimes(10, 100), None),
        (CpuTimes(10, 100), CpuTimes(0, 50), None),
        (None, CpuTimes(1, 2), None),
        (CpuTimes(1, 2), None, None),
    ],
)
def test_cpu_percent_stays_in_range(before: CpuTimes | None, now: CpuTimes | None, expected: float | None) -> None:
    assert cpu_percent(before, now) == expected


def test_memory_of_an_old_kernel_counts_free_buffers_and_cache_as_available() -> None:
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 250 kB\n"

    assert parse_memory(text) == (1000 * 1024, 600 * 1024)


def test_os_release_values_are_unquoted() -> None:
    text = '# comment\nNAME=\'A "B"\'\nVERSION="1 \\"x\\" \\$"\nID=debian\nBROKEN\n'

    assert parse_os_release(text) == {"NAME": 'A "B"', "VERSION": '1 "x" $', "ID": "debian"}


@given(st.text())
def test_no_text_makes_a_parser_raise(text: str) -> None:
    parse_cpu_times(text)
    parse_cpu_times("cpu " + text)
    parse_memory("MemTotal: " + text)
    parse_os_release("NAME=" + text)
