"""A heartbeat fits what the service takes, whatever there is to report."""

import logging
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from agent.filesystems import Filesystem
from agent.fitting import BODY_LIMIT_BYTES, FILESYSTEMS_BYTES, MOST_INTERFACES, fit
from agent.heartbeat import Collector, encode
from agent.links import Kind
from agent.network import NetworkInterface
from agent.settings import Settings
from service.ingest.heartbeat import decode_heartbeat

HUGE = 2**64 - 1
HEADER = "Inter-|\n face |\n"


def interface(name: str, kind: Kind, *on: str) -> NetworkInterface:
    return NetworkInterface(name, HUGE, HUGE, HUGE, HUGE, True, HUGE, HUGE, HUGE, HUGE, kind, list(on))


def filesystem(number: int) -> Filesystem:
    return Filesystem(f"/mnt/{number:06}", f"/dev/disk{number}", "ext4", HUGE, HUGE, HUGE, 50.0)


def host(tmp_path: Path, names: list[str]) -> Settings:
    net = tmp_path / "proc/1/net"
    net.mkdir(parents=True, exist_ok=True)
    (net / "dev").write_text(HEADER + "".join(f"{name}: {HUGE}{' 0' * 15}\n" for name in names))
    (tmp_path / "proc/1/mounts").touch()
    return Settings(proc=str(tmp_path / "proc"), sys=str(tmp_path / "sys"), root=str(tmp_path), server_id="s")


def test_what_fits_is_left_as_it_is() -> None:
    interfaces, filesystems = [interface("eth0", "physical")], [filesystem(1)]

    assert fit(interfaces, filesystems) == (interfaces, filesystems)
    assert fit([], []) == ([], [])


def test_hardware_stays_and_veths_go_first_and_the_order_is_kept() -> None:
    veths = [interface(f"veth{n}", "veth", "eth0") for n in range(3_000)]
    first, last = interface("wg0", "tunnel", "eth0"), interface("eth0", "physical")

    kept, _ = fit([first, *veths, last], [])

    assert [each.name for each in kept] == ["wg0", *(f"veth{n}" for n in range(MOST_INTERFACES - 2)), "eth0"]


def test_the_same_ones_stay_when_others_come_and_go() -> None:
    veths = [interface(f"veth{n}", "veth", "eth0") for n in range(3_000)]

    before, _ = fit(veths, [])
    after, _ = fit([*veths[:2_500], interface("new", "veth", "eth0")], [])

    assert [each.name for each in before] == [each.name for each in after]


def test_a_bridge_whose_ports_are_left_out_is_not_counted_beside_the_uplink() -> None:
    ports = [interface(f"veth{n}", "veth", "eth0") for n in range(2_100)]
    bridge = interface("docker0", "bridge", "veth2098", "veth2099")

    kept, _ = fit([interface("eth0", "physical"), *ports, bridge], [])

    assert kept[-1].stacked_on == ["eth0"]


def test_ten_thousand_mounts_leave_room_for_the_interfaces() -> None:
    interfaces = [interface(f"eth{n}", "physical") for n in range(1_500)]

    kept, filesystems = fit(interfaces, [filesystem(n) for n in range(10_000)])

    assert len(kept) == 1_500
    assert filesystems == [filesystem(n) for n in range(len(filesystems))]
    assert FILESYSTEMS_BYTES - 200 < len(msgspec.json.encode(filesystems)) <= FILESYSTEMS_BYTES


@pytest.mark.parametrize("count", [2_000, 2_001, 10_000])
def test_e40_ten_thousand_interfaces_give_a_heartbeat_that_the_service_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    caplog.set_level(logging.INFO)
    names = [f"veth{n:011}" for n in range(count - 2)]
    collector = Collector(host(tmp_path, [*names, "docker0", "eth0"]))

    bodies = [encode(collector.collect()) for _ in range(2)]

    beats = [decode_heartbeat(body, now=datetime.now(UTC), oldest=timedelta(days=7)) for body in bodies]
    kept = beats[0].network_interfaces or []
    assert len(bodies[0]) <= BODY_LIMIT_BYTES
    assert len(kept) == min(count, MOST_INTERFACES)
    assert [each.name for each in kept][-2:] == ["docker0", "eth0"]
    assert [name.name for name in kept] == [each.name for each in beats[1].network_interfaces or []]
    names_kept = {each.name for each in kept}
    assert [each.name for each in kept if names_kept.isdisjoint(each.stacked_on or ())] == ["eth0"]
    is_truncated = count > MOST_INTERFACES
    assert [msgspec.json.decode(body).get("truncated") for body in bodies] == [is_truncated or None] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * is_truncated


def test_e40_interfaces_that_go_away_again_are_said_to_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    collector = Collector(host(tmp_path, [f"veth{n}" for n in range(2_100)]))
    collector.collect()

    host(tmp_path, ["eth0"])
    beat = collector.measure()

    assert beat.truncated is msgspec.UNSET
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_names_and_links_of_any_length_fit() -> None:
    rng = random.Random(4)
    names = [f"{n}".ljust(60, "\\") for n in range(2_000)]
    interfaces = [interface(name, "bridge", *rng.choices(names, k=20)) for name in names]

    kept, filesystems = fit(interfaces, [filesystem(n) for n in range(10_000)])

    assert len(msgspec.json.encode(kept)) + len(msgspec.json.encode(filesystems)) < BODY_LIMIT_BYTES
    assert len(kept) > 100
