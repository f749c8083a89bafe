"""The heartbeat as it is sent, and who sends it."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from agent.clock import Clock
from agent.heartbeat import Collector, DeliveryReport, encode, stamp_ms
from agent.identity import ApiKey, identify, server_guid, server_id_from
from agent.roots import Roots
from agent.settings import Settings, SettingsError
from service.ingest.heartbeat import decode_heartbeat

MACHINE_ID = "3d1219c7c4c5404aaa1f6d2a48adfda4"
SERVER_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


def settings_for(tmp_path: Path, *, hostname: str = "", server_id: str = "") -> Settings:
    """A host below tmp_path with one interface and one filesystem."""
    files = {
        "proc/1/net/dev": "h|\nh|\n  lo: 5" + " 0" * 15 + "\neth0: 7" + " 0" * 15 + "\n",
        "proc/1/mounts": "/dev/sda1 / ext4 rw 0 0\n",
        "proc/sys/kernel/random/boot_id": "boot-1\n",
        "root/etc/machine-id": MACHINE_ID + "\n",
        "root/etc/hostname": "media server.local\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Settings(
        proc=str(tmp_path / "proc"),
        sys=str(tmp_path / "sys"),
        root=str(tmp_path / "root"),
        hostname=hostname,
        server_id=server_id,
    )


def test_a_heartbeat_has_the_fields_of_the_specification(tmp_path: Path) -> None:
    collector = Collector(settings_for(tmp_path))

    report = DeliveryReport(queued=3, spool_bytes=4, dropped=2, rejected=1, spool="disk", oldest_seconds=1.5)

    beat = json.loads(encode(collector.collect(report)))

    assert beat["server_id"] == "media-server.local"
    assert beat["hostname"] == "media server.local"
    assert re.fullmatch(r"[0-9a-f-]{36}", beat["server_guid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", beat["timestamp"])
    assert (beat["status"], beat["boot_id"], beat["agent_version"]) == ("online", "boot-1", agent.__version__)
    assert beat["os_info"]["kernel"]
    assert beat["primary_interface"] == "eth0"
    assert beat["metrics"]["network_rx_bytes"] == 7
    assert [each["name"] for each in beat["network_interfaces"]] == ["eth0"]
    assert [each["mount_point"] for each in beat["filesystems"]] == ["/"]
    assert beat["interval_seconds"] == 30.0
    assert abs(beat["since_boot_ms"] / 1000 - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
    assert beat["delivery"] == {
        "queued": 3,
        "spool_bytes": 4,
        "dropped": 2,
        "rejected": 1,
        "spool": "disk",
        "oldest_seconds": 1.5,
    }
    assert "delivery" not in json.loads(encode(collector.collect()))


def test_pitfall_14_an_interface_that_disappears_leaves_an_empty_list(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    collector = Collector(settings)
    assert len(collector.measure().network_interfaces) == 1

    (settings.roots.net / "dev").write_text("h|\nh|\n  lo: 5" + " 0" * 15 + "\n")

    beat = json.loads(encode(collector.collect()))
    assert (beat["network_interfaces"], beat["primary_interface"]) == ([], None)


@pytest.mark.parametrize("text", [None, b"", b"Inter-|   Rec", b"eth0: 1 2", b"\xff\x00" * 3000])
def test_e40_without_usable_files_the_heartbeat_is_still_made(tmp_path: Path, text: bytes | None) -> None:
    settings = settings_for(tmp_path)
    collector = Collector(settings)
    for path in (tmp_path / "proc").rglob("*"):
        if path.is_file():
            path.unlink() if text is None else path.write_bytes(text)

    body = encode(collector.collect())

    beat = decode_heartbeat(body, now=datetime.now(UTC), oldest=timedelta(days=7))
    assert (beat.network_interfaces, beat.filesystems, beat.primary_interface) == ([], [], None)


def test_the_heartbeat_tells_how_interfaces_stand_to_each_other(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    zeros = " 0" * 16 + "\n"
    (settings.roots.net / "dev").write_text(f"h|\nh|\neth0:{zeros}docker0:{zeros}wg0:{zeros}")
    for name, uevent in (("eth0", ""), ("docker0", "DEVTYPE=bridge"), ("wg0", "DEVTYPE=wireguard")):
        (tmp_path / "sys/class/net" / name / ("device" if name == "eth0" else "x")).mkdir(parents=True)
        (tmp_path / "sys/class/net" / name / "uevent").write_text(uevent)
    (tmp_path / "sys/class/net/eth0/speed").write_text("2500\n")
    (tmp_path / "sys/class/net/wg0/operstate").write_text("unknown\n")

    beat = json.loads(encode(Collector(settings).collect()))

    told = [
        [each.get(field) for field in ("name", "kind", "stacked_on", "speed_mbps", "operstate", "is_up")]
        for each in beat["network_interfaces"]
    ]
    assert told == [
        ["eth0", "physical", [], 2500, None, True],
        ["docker0", "bridge", ["eth0"], None, None, True],
        ["wg0", "tunnel", ["eth0"], None, "unknown", True],
    ]
    assert "truncated" not in beat


IPV4 = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n{}\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n"
)
IPV6 = f"{'0' * 32} 00 {'0' * 32} 00 {'f' * 32} 00000400 00000001 00000000 00000003     {{}}\n"


@pytest.mark.parametrize(
    ("name", "route"), [("eth0", ("route", IPV4)), ("ens18", ("route", IPV4)), ("eth0", ("ipv6_route", IPV6))]
)
def test_pitfall_11_a_containers_first_heartbeat_names_its_own_interface_as_the_primary_one(
    tmp_path: Path, name: str, route: tuple[str, str]
) -> None:
    settings = settings_for(tmp_path)
    counters = [f"{each}: {octets}" + " 0" * 15 for each, octets in ((name, 0), ("docker0", 10**12), ("veth9", 10**12))]
    (settings.roots.net / "dev").write_text("h|\nh|\n" + "\n".join(counters) + "\n")
    (settings.roots.net / route[0]).write_text(route[1].format(name))
    for each, files in (
        (name, {"ifindex": "2", "iflink": "77", "type": "1", "operstate": "up", "uevent": ""}),
        ("docker0", {"ifindex": "3", "iflink": "3", "type": "1", "operstate": "up", "uevent": "DEVTYPE=bridge"}),
        ("veth9", {"ifindex": "4", "iflink": "5", "type": "1", "operstate": "up", "uevent": ""}),
    ):
        (tmp_path / "sys/class/net" / each).mkdir(parents=True)
        for attribute, text in files.items():
            (tmp_path / "sys/class/net" / each / attribute).write_text(text + "\n")

    beat = json.loads(encode(Collector(settings).collect()))

    [own, *others] = beat["network_interfaces"]
    assert (own["kind"], own["stacked_on"], beat["primary_interface"]) == ("veth", [], name)
    assert [each["stacked_on"] for each in others] == [[name], [name]]


SENSELESS = ["-1", "0", "4294967295", "18446744073709551616", "9" * 400, "1e9", "unknown", "", "\x00", "\u0661", "2\n3"]


@pytest.mark.parametrize("text", SENSELESS)
def test_a_hint_that_makes_no_sense_is_left_out_and_costs_no_heartbeat(tmp_path: Path, text: str) -> None:
    settings = settings_for(tmp_path)
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    for attribute in ("speed", "ifindex", "iflink", "type", "operstate", "carrier", "flags", "phys_switch_id"):
        (tmp_path / "sys/class/net/eth0" / attribute).write_text(text)

    beat = decode_heartbeat(encode(Collector(settings).collect()), now=datetime.now(UTC), oldest=timedelta(days=7))

    [found] = beat.network_interfaces or []
    assert (found.name, found.rx_bytes, found.speed_mbps, found.ifindex) == ("eth0", 7, None, None)


def test_the_timestamp_is_read_back_to_the_millisecond(tmp_path: Path) -> None:
    collector = Collector(settings_for(tmp_path), Clock(lambda: 1_769_680_800_123_000_000))

    assert stamp_ms(collector.collect()) == 1_769_680_800_123


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("mediaserver.local", "mediaserver.local"),
        ("my host!", "my-host"),
        ("höst", "h-st"),
        ("мой", ""),
        ("a" * 300, "a" * 100),
        ("a\n", "a"),
    ],
)
def test_a_hostname_is_reduced_to_a_server_id(hostname: str, expected: str) -> None:
    assert server_id_from(hostname) == expected


@given(st.text())
def test_every_server_id_is_allowed(hostname: str) -> None:
    found = server_id_from(hostname)

    assert found == "" or SERVER_ID.fullmatch(found)


def test_a_hostname_that_gives_no_server_id_asks_for_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LINKBEAT_SERVER_ID"):
        identify(settings_for(tmp_path, hostname="мой"))

    assert identify(settings_for(tmp_path, hostname="мой", server_id="mine")).server_id == "mine"


def test_the_guid_is_stable_and_does_not_tell_the_machine_id(tmp_path: Path) -> None:
    roots = settings_for(tmp_path).roots

    first, second = server_guid(roots), server_guid(roots)

    assert first == second
    assert first is not None
    assert first.replace("-", "") != MACHINE_ID


@pytest.mark.parametrize("content", ["", "uninitialized\n", "xyz", MACHINE_ID.upper()])
def test_without_a_machine_id_there_is_no_guid(tmp_path: Path, content: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "machine-id").write_text(content)

    assert server_guid(Roots(root=str(tmp_path))) is None
    assert server_guid(Roots(root=str(tmp_path / "no"))) is None


def test_a_token_file_is_read_again_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    key = ApiKey(Settings(api_key="ignored", api_key_file=str(path)))
    assert key.value == "first"
    assert not key.read_again()

    path.write_text("second\n")

    assert key.read_again()
    assert key.value == "second"


@pytest.mark.parametrize("content", ["", "two\nlines", "schlüssel", None])
def test_a_token_file_that_cannot_be_used_is_named_at_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)

    with pytest.raises(SettingsError, match=r"LINKBEAT_API_KEY_FILE: .*token"):
        ApiKey(Settings(api_key_file=str(path)))


def test_a_token_file_that_goes_away_leaves_the_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    path.write_text("kept")
    key = ApiKey(Settings(api_key_file=str(path)))

    path.unlink()

    assert not key.read_again()
    assert key.value == "kept"
    assert "LINKBEAT_API_KEY_FILE" in caplog.text
