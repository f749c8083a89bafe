"""A fleet to look at: a dozen machines with days of believable traffic, told by real heartbeats."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

AT_ONCE = 400


@dataclass
class Link:
    """An interface: its rates in bits per second on an ordinary day, the highest and in the night.

    peak_hour   when the day is busiest
    bursts      share of samples in which much more crosses it, as by a backup
    """

    name: str
    rx: float
    tx: float
    kind: str = "physical"
    speed_mbps: int | None = 1000
    night: float = 0.15
    peak_hour: float = 20.0
    bursts: float = 0.0
    is_up: bool = True
    stacked_on: list[str] | None = None
    errors: float = 0.0
    rx_bytes: int = 0
    tx_bytes: int = 0
    error_count: float = 0.0
    mood: float = 0.0

    def move(self, at: datetime, seconds: float, chance: random.Random) -> None:
        """Counts what crosses it in so many seconds."""
        if not self.is_up:
            return
        hour = at.hour + at.minute / 60
        day = self.night + (1 - self.night) * max(0.0, math.cos((hour - self.peak_hour) / 24 * 2 * math.pi)) ** 1.5
        # What people do comes and goes slowly: a walk that is drawn back to the middle, faster over longer steps.
        keeps = math.exp(-seconds / 3000)
        self.mood = self.mood * keeps + chance.gauss(0, 0.45) * math.sqrt(1 - keeps**2)
        wave = math.exp(self.mood + chance.gauss(0, 0.08))
        burst = chance.uniform(3, 6) if chance.random() < self.bursts else 1.0
        bits = max(0.02, day * wave) * burst * seconds
        limit = (self.speed_mbps or 100_000) * 940_000 * seconds
        self.rx_bytes += int(min(self.rx * bits, limit) / 8)
        self.tx_bytes += int(min(self.tx * bits * chance.uniform(0.8, 1.2), limit) / 8)
        self.error_count += self.errors * seconds

    def sample(self) -> dict[str, Any]:
        errors = {"rx_errors": int(self.error_count), "tx_errors": 0} if self.kind == "physical" else {}
        return {
            "name": self.name, "rx_bytes": self.rx_bytes, "tx_bytes": self.tx_bytes, "rx_packets": self.rx_bytes // 900,
            "tx_packets": self.tx_bytes // 700, "is_up": self.is_up, "kind": self.kind, "speed_mbps": self.speed_mbps,
            "stacked_on": self.stacked_on, "rx_dropped": 0, "tx_dropped": 0, **errors,
        }  # fmt: skip


@dataclass
class Machine:
    """`missing`: hours before the end in which no heartbeat came, as (from, until); `reboot`: hours before the end."""

    server_id: str
    hostname: str
    links: list[Link]
    missing: list[tuple[float, float]] = field(default_factory=list)
    reboot: float | None = None
    disks: dict[str, tuple[int, float]] = field(default_factory=lambda: {"/": (64, 41.0)})
    cpu: float = 12.0
    memory: float = 48.0
    os: str = "Debian GNU/Linux 12"

    def __post_init__(self) -> None:
        for link in self.links:
            if link.kind == "tunnel":
                link.stacked_on = [self.links[0].name]

    def beats(self, since: datetime, until: datetime, end: datetime, every: timedelta) -> Iterator[dict[str, Any]]:
        """Heartbeats from `since` on, before `until`; what was counted before goes on."""
        chance = random.Random(f"{self.server_id} {since}")
        at = since
        while at < until:
            hours = (end - at) / timedelta(hours=1)
            for link in self.links:
                link.move(at, every.total_seconds(), chance)
            boot = 1
            if self.reboot is not None and hours <= self.reboot:
                boot = 2
                if hours + every / timedelta(hours=1) > self.reboot:
                    for link in self.links:
                        link.rx_bytes = link.tx_bytes = 0
            if not any(last < hours <= first for first, last in self.missing):
                yield self._beat(at, boot, hours, every, chance)
            at += every

    def _beat(self, at: datetime, boot: int, hours: float, every: timedelta, chance: random.Random) -> dict[str, Any]:
        cpu = min(99.0, max(0.3, self.cpu * (1 + 0.4 * math.sin(at.timestamp() / 5000)) + chance.gauss(0, 3)))
        return {
            "server_id": self.server_id, "hostname": self.hostname, "timestamp": at.isoformat(), "status": "online",
            "boot_id": f"{self.server_id}-{boot}", "agent_version": "0.1.0", "interval_seconds": 30,
            "primary_interface": self.links[0].name, "os_info": {"name": self.os, "kernel": "6.1.0", "arch": "x86_64"},
            "metrics": {
                "cpu_percent": round(cpu, 1), "memory_percent": round(self.memory + chance.gauss(0, 1.5), 1),
                "memory_total_mb": 16384, "memory_used_mb": round(163.84 * self.memory), "load_1m": round(cpu / 25, 2),
                "temperature_celsius": round(38 + cpu / 3, 1),
                "load_5m": round(cpu / 28, 2), "load_15m": round(cpu / 30, 2), "disk_percent": self.disks["/"][1],
                "uptime_seconds": round((self.reboot or 900.0) * 3600 - hours * 3600) % 10_000_000,
            },
            "network_interfaces": [link.sample() for link in self.links],
            "filesystems": [
                {
                    "mount_point": mount, "device": f"/dev/sd{'abcdef'[place]}1", "fs_type": "ext4",
                    "total_bytes": size * 10**9, "used_bytes": int(size * 10**7 * percent),
                    "available_bytes": int(size * 10**7 * (100 - percent)), "percent": percent,
                }
                for place, (mount, (size, percent)) in enumerate(self.disks.items())
            ],
        }  # fmt: skip


M = 1_000_000.0


def machines() -> list[Machine]:
    """A dozen: one silent, one with an interface down, one with gaps and a reboot, one with a hundred containers."""
    wg: dict[str, Any] = {"kind": "tunnel", "speed_mbps": None}
    docker: dict[str, Any] = {"kind": "bridge", "speed_mbps": None, "stacked_on": ["eth0"]}
    return [
        Machine("backup", "backup.example.net", [
            Link("eth0", 40 * M, 3 * M, bursts=0.08, peak_hour=3, night=0.02),
            Link("wg0", 22 * M, 1 * M, peak_hour=3, **wg),
        ], disks={"/": (64, 38.2), "/srv/backup": (16_000, 81.4)}),
        Machine("db-1", "db-1.example.net", [
            Link("bond0", 210 * M, 480 * M, kind="bond", speed_mbps=20_000, stacked_on=["eno1", "eno2"]),
            Link("eno1", 105 * M, 240 * M, speed_mbps=10_000), Link("eno2", 105 * M, 240 * M, speed_mbps=10_000),
        ], disks={"/": (240, 22.0), "/var/lib/postgresql": (3_840, 63.7)}, cpu=38, memory=71),
        Machine("db-2", "db-2.example.net", [
            Link("bond0", 380 * M, 40 * M, kind="bond", speed_mbps=20_000, stacked_on=["eno1", "eno2"]),
            Link("eno1", 380 * M, 40 * M, speed_mbps=10_000), Link("eno2", 0, 0, speed_mbps=10_000, is_up=False),
        ], disks={"/": (240, 21.1), "/var/lib/postgresql": (3_840, 63.5)}, cpu=17, memory=66),
        Machine("edge-ams", "edge-ams.example.net", [
            Link("enp1s0f0", 640 * M, 5_200 * M, speed_mbps=25_000, peak_hour=20.5, night=0.3),
            Link("enp1s0f1", 5_100 * M, 610 * M, speed_mbps=25_000, peak_hour=20.5, night=0.3),
            Link("wg0", 18 * M, 25 * M, **wg),
        ], cpu=44, memory=35),
        Machine("edge-fra", "edge-fra.example.net", [
            Link("enp1s0f0", 910 * M, 7_800 * M, speed_mbps=25_000, night=0.28, errors=0.0003),
            Link("enp1s0f1", 7_600 * M, 870 * M, speed_mbps=25_000, night=0.28), Link("wg0", 21 * M, 19 * M, **wg),
        ], cpu=52, memory=37),
        Machine("git", "git.example.net", [
            Link("eth0", 6 * M, 44 * M, peak_hour=14, night=0.04, bursts=0.03),
            Link("docker0", 2 * M, 9 * M, peak_hour=14, **docker),
        ], missing=[(15.5, 13.2), (5.1, 4.9)], reboot=13.2, memory=58),
        Machine("kube-1", "kube-1.example.net", [
            Link("eth0", 88 * M, 120 * M, night=0.3),
            Link("cni0", 140 * M, 150 * M, night=0.3, **docker),
            Link("flannel.1", 61 * M, 58 * M, night=0.3, kind="tunnel", speed_mbps=None),
            *(Link(f"veth{number:08x}", 3 * M, 2 * M, kind="veth", speed_mbps=10_000) for number in range(37)),
        ], cpu=61, memory=78),
        Machine("mediaserver", "mediaserver.home.arpa", [
            Link("eth0", 4 * M, 62 * M, peak_hour=21, night=0.01, bursts=0.02),
            Link("tailscale0", 0.4 * M, 7 * M, peak_hour=21, **wg), Link("docker0", 0.9 * M, 11 * M, **docker),
        ], missing=[(9.0, 7.6)], reboot=7.6, disks={"/": (120, 47.9), "/media": (24_000, 92.6)}),
        Machine("nas", "nas.home.arpa", [
            Link("eth0", 31 * M, 18 * M, bursts=0.05, peak_hour=19, night=0.06),
            Link("eth1", 0, 0, is_up=False), Link("wg0", 1.2 * M, 0.6 * M, **wg),
        ], disks={"/": (32, 30.0), "/volume1": (48_000, 71.3)}),
        Machine("office-gw", "office-gw.example.net", [
            Link("wan0", 420 * M, 65 * M, peak_hour=11, night=0.02),
            Link("lan0", 70 * M, 430 * M, peak_hour=11, night=0.02),
            Link("wg0", 26 * M, 31 * M, peak_hour=11, night=0.01, **wg),
        ]),
        Machine("pi-garage", "pi-garage.home.arpa", [
            Link("wlan0", 0.06 * M, 0.22 * M, speed_mbps=72, night=0.7, errors=0.0004),
        ], missing=[(4.2, -1)], disks={"/": (32, 58.4)}, os="Raspberry Pi OS 12"),
        Machine("web-1", "web-1.example.net", [
            Link("ens3", 24 * M, 190 * M, peak_hour=19, night=0.2),
            Link("docker0", 18 * M, 160 * M, peak_hour=19, night=0.2, **{**docker, "stacked_on": ["ens3"]}),
        ], cpu=23),
    ]  # fmt: skip


async def report(
    http: httpx.AsyncClient, fleet: Sequence[Machine], since: datetime, until: datetime, end: datetime, every: timedelta
) -> int:
    """Posts the fleet's heartbeats of [since, until) in the order of time, and returns how many there were."""
    waiting: list[dict[str, Any]] = []
    streams = [machine.beats(since, until, end, every) for machine in fleet]
    merged = sorted((beat for stream in streams for beat in stream), key=lambda beat: beat["timestamp"])
    for beat in merged:
        waiting.append(beat)
        if len(waiting) == AT_ONCE:
            await _post(http, waiting)
            waiting.clear()
    if waiting:
        await _post(http, waiting)
    return len(merged)


async def _post(http: httpx.AsyncClient, beats: list[dict[str, Any]]) -> None:
    answer = await http.post("/api/v1/agents/heartbeats", json=beats, timeout=60)
    answer.raise_for_status()
    assert answer.json()["rejected"] == [], answer.text[:500]
