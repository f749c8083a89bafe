"""agent.network on fixture trees; the numbers in names are acceptance cases of the specification, section 6."""

import errno
import logging
import sys
import types
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network import (
    COUNTER_MAX,
    NetworkInterface,
    get_network_interfaces,
    parse_net_dev,
)
from agent.remote import RemoteConfig, apply
from agent.roots import Roots, read_text
from agent.settings import Settings

FIXTURES = Path(__file__).parent / "fixtures"
HEADER = (FIXTURES / "net_dev_headers_only.txt").read_text()
COMPLETE = {"name": "eth0", "rx_bytes": 1, "tx_bytes": 2, "rx_packets": 3, "tx_packets": 4, "is_up": True}


def tree(tmp_path: Path, net_dev: str | bytes | None, **attributes: dict[str, str]) -> Roots:
    """A host's /proc and /sys below tmp_path; `attributes` are sysfs files by interface."""
    process_net = tmp_path / "proc" / "1" / "net"
    process_net.mkdir(parents=True)
    if net_dev is not None:
        (process_net / "dev").write_bytes(net_dev.encode() if isinstance(net_dev, str) else net_dev)
    for name, files in attributes.items():
        directory = tmp_path / "sys" / "class" / "net" / name
        directory.mkdir(parents=True)
        for attribute, text in files.items():
            (directory / attribute).write_text(text + "\n")
    return Roots(proc=str(tmp_path / "proc"), sys=str(tmp_path / "sys"))


def fixture(name: str) -> str:
    return (FIXTURES / name).read_text()


def line(name: str, *numbers: int) -> str:
    """An interface's line with these first numbers and zeros after."""
    return f"{name:>6}: " + " ".join(str(n) for n in (*numbers, *[0] * (16 - len(numbers)))) + "\n"


def test_case_01_eth0_and_wlan0_give_two_interfaces_with_all_fields(tmp_path: Path) -> None:
    roots = tree(tmp_path, fixture("net_dev_home.txt"), eth0={"operstate": "up"}, wlan0={"operstate": "down"})

    found = get_network_interfaces(roots)

    assert found == [
        NetworkInterface(
            "eth0", 1073741824, 536870912, 1000000, 500000, True, 3, 1, 7, 2, "physical", [], operstate="up"
        ),
        NetworkInterface(
            "wlan0", 4046496815, 2**64 - 1, 27661328, 9876543, False, 0, 0, 11, 0, "physical", [], operstate="down"
        ),
    ]


def test_the_kernels_number_of_each_interface_is_sent_and_garbage_is_left_out(tmp_path: Path) -> None:
    roots = tree(
        tmp_path,
        HEADER + line("eth0", 1) + line("eth1", 2) + line("eth2", 3) + line("eth3", 4),
        eth0={"ifindex": "2"}, eth1={"ifindex": "4294967295"}, eth2={"ifindex": "eth2"}, eth3={},
    )  # fmt: skip

    sent = msgspec.json.decode(msgspec.json.encode(get_network_interfaces(roots)))

    assert [each.get("ifindex") for each in sent] == [2, None, None, None]
    assert ["ifindex" in each for each in sent] == [True, False, False, False]


def test_case_02_only_headers_give_an_empty_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert get_network_interfaces(tree(tmp_path, fixture("net_dev_headers_only.txt"))) == []
    assert caplog.records == []


@pytest.mark.parametrize("text", ["", "\n", "garbage", HEADER[:70]])
def test_case_02_an_empty_or_truncated_file_gives_an_empty_list(tmp_path: Path, text: str) -> None:
    assert get_network_interfaces(tree(tmp_path, text)) == []


def test_case_03_a_missing_file_gives_an_empty_list_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roots = tree(tmp_path, None)

    found = [get_network_interfaces(roots) for _ in range(3)]

    assert found == [[], [], []]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(roots.net / "dev") in caplog.text


def test_a_file_that_comes_back_and_goes_again_is_warned_of_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    roots = tree(tmp_path, None)
    get_network_interfaces(roots)

    (roots.net / "dev").write_text(HEADER + line("eth0", 1))
    assert len(get_network_interfaces(roots)) == 1
    (roots.net / "dev").unlink()
    get_network_interfaces(roots)

    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("operstate", "expected"),
    [("up", True), ("down", False), (None, True), ("lowerlayerdown", False), ("notpresent", False), ("testing", False)],
)
def test_case_04_operstate_decides_is_up(tmp_path: Path, operstate: str | None, expected: bool) -> None:
    files = {} if operstate is None else {"operstate": operstate}

    [found] = get_network_interfaces(tree(tmp_path, HEADER + line("eth0", 1), eth0=files))

    assert found.is_up is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"carrier": "1", "flags": "0x10d1"}, True),
        ({"carrier": "0", "flags": "0x1091"}, False),
        ({"flags": "0x1091"}, True),
        ({"flags": "0x1090"}, False),
        ({"carrier": "1"}, True),
        ({"carrier": "1", "flags": "not hexadecimal"}, True),
        ({}, True),
    ],
)
@pytest.mark.parametrize("operstate", ["unknown", "dormant"])
def test_pitfall_04_an_unknown_or_dormant_operstate_asks_carrier_and_flags(
    tmp_path: Path, files: dict[str, str], expected: bool, operstate: str
) -> None:
    roots = tree(tmp_path, HEADER + line("tun0", 1), tun0={"operstate": operstate, **files})

    assert [each.is_up for each in get_network_interfaces(roots)] == [expected]


def test_pitfall_04_a_carrier_that_answers_einval_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = tree(tmp_path, HEADER + line("wg0", 1), wg0={"operstate": "unknown", "flags": "0x1091"})

    def kernel(path: Path, *, limit_bytes: int = -1) -> str:
        if path.name == "carrier":
            raise OSError(errno.EINVAL, "Invalid argument")
        return read_text(path, limit_bytes=limit_bytes)

    monkeypatch.setattr("agent.links.read_text", kernel)

    assert [each.is_up for each in get_network_interfaces(roots)] == [False]


def test_case_05_a_complete_struct_is_valid() -> None:
    assert msgspec.convert(COMPLETE, NetworkInterface) == NetworkInterface("eth0", 1, 2, 3, 4, True)


def test_case_06_a_struct_without_name_is_refused_and_names_it() -> None:
    without_name = {key: value for key, value in COMPLETE.items() if key != "name"}

    with pytest.raises(msgspec.ValidationError, match="`name`"):
        msgspec.convert(without_name, NetworkInterface)


@pytest.mark.parametrize("value", ["invalid", -1, 1.5, True, None])
def test_case_07_a_counter_that_is_no_counter_is_refused_and_named(value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.rx_bytes"):
        msgspec.convert(COMPLETE | {"rx_bytes": value}, NetworkInterface)


def test_unknown_fields_are_skipped() -> None:
    assert msgspec.convert(COMPLETE | {"speed": 1000}, NetworkInterface).name == "eth0"


def test_cases_12_to_15_lo_is_left_out_and_virtual_interfaces_are_kept(tmp_path: Path) -> None:
    roots = tree(tmp_path, fixture("net_dev_virtual.txt"))

    names = [each.name for each in get_network_interfaces(roots)]

    assert names == ["tailscale0", "docker0", "veth1234abc", "bond0.10", "br-4f1d2a3b4c5d"]


def test_case_23_an_interface_that_is_down_is_reported_as_down(tmp_path: Path) -> None:
    roots = tree(tmp_path, HEADER + line("eth0", 9), eth0={"operstate": "down"})

    [found] = get_network_interfaces(roots)

    assert (found.rx_bytes, found.is_up, found.operstate) == (9, False, "down")


def test_case_23_only_lo_gives_an_empty_list(tmp_path: Path) -> None:
    assert get_network_interfaces(tree(tmp_path, HEADER + line("lo", 5, 5))) == []


def test_pitfall_01_a_name_may_touch_its_first_number() -> None:
    [found] = parse_net_dev(HEADER + "  eth0:4046496815 27661328 0 0 0 0 0 0 5 6 0 0 0 0 0 0\n")

    assert (found.name, found.rx_bytes, found.tx_bytes) == ("eth0", 4046496815, 5)


@pytest.mark.parametrize("text", ["eth0:1: 5 6", "eth0:1:5 6"])
def test_pitfall_02_a_name_with_a_colon_splits_at_the_last_one(text: str) -> None:
    [found] = parse_net_dev(HEADER + text + " 0" * 14)

    assert (found.name, found.rx_bytes, found.rx_packets) == ("eth0:1", 5, 6)


@pytest.mark.parametrize(
    "bad",
    [
        "eth1: 1 2 3",
        "eth1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "eth1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 x",
        "eth1: -1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "eth1: 1_0 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "eth1: \u0661 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        f"eth1: {2**64} 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        f"eth1: {'9' * 5000} 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "eth1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
        ": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "../../x: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "name-of-16-bytes: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "a\x00b: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    ],
)
def test_pitfall_03_a_malformed_line_is_skipped_with_a_debug_log(
    bad: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    roots = tree(tmp_path, HEADER + line("eth0", 1) + bad + "\n" + line("eth2", 2))

    names = [each.name for each in get_network_interfaces(roots)]

    assert names == ["eth0", "eth2"]
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "line 4" in caplog.text


def test_pitfall_09_counters_keep_all_64_bits_through_json() -> None:
    [found] = parse_net_dev(HEADER + line("eth0", COUNTER_MAX, 2**63))
    interface = NetworkInterface(is_up=True, **found._asdict())

    assert msgspec.json.decode(msgspec.json.encode(interface), type=NetworkInterface) == interface
    assert interface.rx_bytes == 18446744073709551615


def test_pitfall_13_an_interface_that_appears_later_is_reported(tmp_path: Path) -> None:
    roots = tree(tmp_path, HEADER + line("eth0", 1))
    assert len(get_network_interfaces(roots)) == 1

    (roots.net / "dev").write_text(HEADER + line("eth0", 1) + line("usb0", 2))

    assert [each.name for each in get_network_interfaces(roots)] == ["eth0", "usb0"]


def test_pitfall_16_an_interface_that_shows_twice_is_reported_once() -> None:
    assert [each.rx_bytes for each in parse_net_dev(HEADER + line("eth0", 1) + line("eth0", 2))] == [1]


def test_pitfall_16_names_that_are_the_same_once_escaped_are_reported_once(tmp_path: Path) -> None:
    roots = tree(tmp_path, HEADER + line("a\x01", 1) + line("a\\x01", 2))

    assert [each.name for each in get_network_interfaces(roots)] == ["a\\x01"]


def test_pitfall_17_a_foreign_proc_is_read_through_process_1(tmp_path: Path) -> None:
    roots = tree(tmp_path, HEADER + line("host0", 1), host0={"operstate": "down"})
    (tmp_path / "proc" / "net").mkdir()
    (tmp_path / "proc" / "net" / "dev").write_text(HEADER + line("container0", 1))

    assert [(each.name, each.is_up) for each in get_network_interfaces(roots)] == [("host0", False)]


def test_pitfall_18_counters_that_shrink_are_reported_as_they_are(tmp_path: Path) -> None:
    roots = tree(tmp_path, HEADER + line("eth0", 3_900_000_000))
    get_network_interfaces(roots)

    (roots.net / "dev").write_text(HEADER + line("eth0", 1000))

    assert [each.rx_bytes for each in get_network_interfaces(roots)] == [1000]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"br-\xc3\xbcn\xc3\xaf", "br-ünï"),
        (b"br-\xff\xfe", "br-\\xff\\xfe"),
        (b"a\x01b", "a\\x01b"),
        (b"we*rd", "we*rd"),
        (b"sep\xe2\x80\xa8x", "sep\\u2028x"),
    ],
)
def test_pitfall_19_odd_names_travel_and_still_find_their_directory(tmp_path: Path, raw: bytes, shown: str) -> None:
    roots = tree(tmp_path, HEADER.encode() + raw + b": 1" + b" 0" * 15 + b"\n")
    directory = (tmp_path / "sys" / "class" / "net").joinpath(raw.decode("utf-8", "surrogateescape"))
    directory.mkdir(parents=True)
    (directory / "operstate").write_text("down\n")

    [found] = get_network_interfaces(roots)

    assert (found.name, found.is_up) == (shown, False)
    assert msgspec.json.decode(msgspec.json.encode(found))["name"] == shown


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), ("veth*", "docker*", "br-*"), ["tailscale0", "bond0.10"]),
        (("bond*", "docker0"), (), ["docker0", "bond0.10"]),
        (("*",), ("*0", "*.10"), ["veth1234abc", "br-4f1d2a3b4c5d"]),
        (("lo",), (), []),
    ],
)
def test_patterns_choose_interfaces_and_exclude_wins(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]
) -> None:
    roots = tree(tmp_path, fixture("net_dev_virtual.txt"))

    reports = apply(Settings(include_interfaces=include, exclude_interfaces=exclude), RemoteConfig()).reports

    assert [each.name for each in get_network_interfaces(roots, is_wanted=reports)] == expected


def test_ten_thousand_interfaces_are_all_parsed() -> None:
    text = HEADER + "".join(line(f"veth{n}", n) for n in range(10_000))

    assert [each.rx_bytes for each in parse_net_dev(text)] == list(range(10_000))


names = st.text(st.characters(exclude_characters="/\x00 \t\n\v\f\r:", codec="utf-8"), min_size=1, max_size=15).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 15
)
counters = st.integers(0, COUNTER_MAX)


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_no_text_makes_the_parser_raise(text: str) -> None:
    for found in parse_net_dev(HEADER + text) + parse_net_dev(text):
        assert all(0 <= number <= COUNTER_MAX for number in found[1:])


@given(st.dictionaries(names, st.tuples(*[counters] * 16), max_size=5), st.sampled_from([":", ": "]))
def test_whatever_the_kernel_prints_is_read_back(interfaces: dict[str, tuple[int, ...]], colon: str) -> None:
    text = HEADER + "".join(f"{name:>6}{colon}{' '.join(map(str, row))}\n" for name, row in interfaces.items())

    found = {each.name: tuple(each[1:]) for each in parse_net_dev(text)}

    picked = (0, 8, 1, 9, 2, 10, 3, 11)
    assert found == {name: tuple(row[column] for column in picked) for name, row in interfaces.items()}


def test_elsewhere_than_on_linux_psutil_gives_the_same_list(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = types.SimpleNamespace(
        bytes_recv=1, bytes_sent=2, packets_recv=3, packets_sent=4, errin=5, errout=6, dropin=7, dropout=8
    )
    asked: dict[str, object] = {}

    def net_io_counters(**options: object) -> dict[str, object]:
        asked.update(options)
        return {"lo0": counts, "en0": counts, "en1": counts, "utun1": counts, "awdl0": counts}

    fake = types.ModuleType("psutil")
    fake.net_io_counters = net_io_counters  # type: ignore[attr-defined]
    fake.net_if_stats = lambda: {  # type: ignore[attr-defined]
        "en0": types.SimpleNamespace(isup=False, speed=0),
        "en1": types.SimpleNamespace(isup=True, speed=1000),
        "utun1": types.SimpleNamespace(isup=True, speed=0),
    }
    monkeypatch.setitem(sys.modules, "psutil", fake)

    found = get_network_interfaces(platform="darwin", is_wanted=lambda name: not name.startswith("awdl"))

    assert found == [
        NetworkInterface("en0", 1, 2, 3, 4, False, 5, 6, 7, 8, "physical", []),
        NetworkInterface("en1", 1, 2, 3, 4, True, 5, 6, 7, 8, "physical", [], 1000),
        NetworkInterface("utun1", 1, 2, 3, 4, True, 5, 6, 7, 8, "tunnel", ["en1"]),
    ]
    assert asked == {"pernic": True, "nowrap": False}
