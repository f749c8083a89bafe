"""From bytes to a heartbeat: what is taken, and how all that is not is refused."""

import json
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.http.errors import Problem
from service.http.refusal import LISTED_BYTES, MAX_ERRORS, MAX_PATH
from service.ingest.heartbeat import MAX_BATCH_HEARTBEATS, decode_heartbeat, split_batch
from service.wire import (
    HINTS,
    MAX_COUNTER,
    MAX_FILESYSTEMS,
    MAX_INTERFACES,
    MAX_NESTING,
    MAX_OS_INFO_BYTES,
    MAX_STACKED_ON,
    Counter,
    Filesystem,
    Heartbeat,
    HostMetrics,
    NetworkInterface,
)
from tests.helpers.support import interface

NOW = datetime(2026, 1, 29, 10, tzinfo=UTC)
OLDEST = timedelta(days=14)
BODY: dict[str, Any] = {
    "server_id": "mediaserver",
    "server_guid": "550e8400-e29b-41d4-a716-446655440001",
    "hostname": "mediaserver.local",
    "timestamp": "2026-01-29T10:00:00Z",
    "status": "online",
    "boot_id": "b3f1",
    "agent_version": "1.0.0",
    "interval_seconds": 30,
    "os_info": {"system": "Linux", "cpus": [{"model": "x", "cores": 4}]},
    "primary_interface": "eth0",
    "metrics": {"cpu_percent": 25.5, "memory_total_mb": 16_000, "network_rx_bytes": 1_084_479_242},
    "network_interfaces": [
        interface("eth0", 1_073_741_824, 536_870_912, rx_errors=1, tx_errors=2, rx_dropped=3, tx_dropped=4),
        interface("wlan0", 10_737_418, 5_368_709, is_up=False),
    ],
    "filesystems": [
        {"mount_point": "/", "device": "/dev/sda1", "fs_type": "ext4", "total_bytes": 107_374_182_400,
         "used_bytes": 64_424_509_440, "available_bytes": 42_949_672_960, "percent": 60.0},
    ],
}  # fmt: skip
ETH0 = "network_interfaces[0]"


def decode(body: Any) -> Heartbeat:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_heartbeat(raw, now=NOW, oldest=OLDEST)


def refused(body: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        decode(body)
    return raised.value


def errors(body: Any) -> list[str]:
    """`path: reason` of each field of a body that is JSON, and not as specified."""
    problem = refused(body)
    assert (problem.code, problem.status) == ("invalid", 422)
    return [f"{error.path}: {error.reason}" for error in problem.errors]


def changed(path: str, value: Any) -> Any:
    """BODY with one value replaced: changed("network_interfaces.0.rx_bytes", -1)."""
    body = json.loads(json.dumps(BODY))
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = body
    for step in parents:
        place = place[step]
    place[last] = value
    return body


def without(path: str) -> Any:
    body = changed(path, None)
    *parents, last = path.split(".")
    place = body
    for step in parents:
        place = place[int(step) if step.isdigit() else step]
    del place[last]
    return body


def with_raw(path: str, text: str) -> bytes:
    """BODY with one value replaced by this JSON text, or what is none."""
    return json.dumps(changed(path, "@@")).replace('"@@"', text).encode()


def nested(levels: int, *, objects: bool = False) -> str:
    return '{"a":' * levels + "1" + "}" * levels if objects else "[" * levels + "]" * levels


def test_case_05_a_complete_interface_is_valid() -> None:
    heartbeat = decode(BODY)

    assert heartbeat.network_interfaces is not None
    assert heartbeat.network_interfaces[0] == NetworkInterface(
        name="eth0", rx_bytes=1_073_741_824, tx_bytes=536_870_912, rx_packets=0, tx_packets=0, is_up=True,
        rx_errors=1, tx_errors=2, rx_dropped=3, tx_dropped=4,
    )  # fmt: skip
    assert heartbeat.timestamp == NOW


def test_case_06_an_interface_without_a_name_is_refused_naming_the_field() -> None:
    assert errors(without("network_interfaces.0.name")) == ["network_interfaces[0].name: is missing"]


def test_case_07_bytes_that_are_no_number_are_refused_naming_the_field() -> None:
    problem = refused(changed("network_interfaces.0.rx_bytes", "invalid"))

    assert (problem.status, problem.code) == (422, "invalid")
    assert problem.detail == "network_interfaces[0].rx_bytes: expected int, got str"
    assert [(error.path, error.reason) for error in problem.errors] == [
        ("network_interfaces[0].rx_bytes", "expected int, got str")
    ]


@pytest.mark.parametrize("field", ["name", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "is_up"])
def test_each_field_of_an_interface_is_required(field: str) -> None:
    assert errors(without(f"network_interfaces.1.{field}")) == [f"network_interfaces[1].{field}: is missing"]


@pytest.mark.parametrize("field", ["server_id", "hostname"])
def test_server_and_hostname_are_required(field: str) -> None:
    assert errors(without(field)) == [f"{field}: is missing"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-1", "expected int >= 0"),
        (str(2**64), "expected int <= 18446744073709551615"),
        ("9" * 400, "expected int <= 18446744073709551615"),
        ("-" + "9" * 400, "expected int >= 0"),
        ("9" * 5_000, "integer value out of range"),
        ("1.0", "expected int, got float"),
        ("1e3", "expected int, got float"),
        ('"1"', "expected int, got str"),
        ("true", "expected int, got bool"),
        ("null", "expected int, got null"),
        ("[]", "expected int, got array"),
        ("{}", "expected int, got object"),
    ],
)
@pytest.mark.parametrize("field", ["rx_bytes", "tx_packets"])
def test_a_counter_is_an_integer_of_64_bits(field: str, text: str, reason: str) -> None:
    assert errors(with_raw(f"network_interfaces.0.{field}", text)) == [f"{ETH0}.{field}: {reason}"]


COUNTERS = [
    f"{place}{field.name}"
    for place, struct in (
        ("network_interfaces.0.", NetworkInterface),
        ("filesystems.0.", Filesystem),
        ("metrics.", HostMetrics),
    )
    for field in msgspec.structs.fields(struct)
    if field.type == Counter or Counter in get_args(field.type)
]


def test_the_counters_are_those_of_the_wire() -> None:
    assert len(COUNTERS) == 8 + 3 + 2


@pytest.mark.parametrize("path", COUNTERS)
def test_every_counter_ends_at_64_bits(path: str) -> None:
    decode(changed(path, MAX_COUNTER))

    assert errors(changed(path, MAX_COUNTER + 1)) == [
        f"{path.replace('.0.', '[0].')}: expected int <= 18446744073709551615"
    ]


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("server_id", "", "expected str matching regex"),
        ("server_id", "nas\n", "expected str matching regex"),
        ("server_id", "a" * 101, "expected str matching regex"),
        ("server_id", "näs", "expected str matching regex"),
        ("server_id", "a/b", "expected str matching regex"),
        ("server_id", ".", "expected str matching regex"),
        ("server_id", "..", "expected str matching regex"),
        ("server_id", None, "expected str, got null"),
        ("server_id", 7, "expected str, got int"),
        ("hostname", "", "expected str of length >= 1"),
        ("hostname", "h" * 256, "expected str of length <= 255"),
        ("status", 1, "expected str | null, got int"),
        ("os_info", [], "expected object | null, got array"),
        ("os_info", "Linux", "expected object | null, got str"),
        ("metrics", [], "expected object | null, got array"),
        ("metrics.cpu_percent", -0.5, "expected float >= 0"),
        ("metrics.load_1m", "0.1", "expected float | null, got str"),
        ("metrics.load_5m", 10**400, "number out of range"),
        ("network_interfaces", {}, "expected array | null, got object"),
        ("network_interfaces.0", None, "expected object, got null"),
        ("network_interfaces.0", [], "expected object, got array"),
        ("network_interfaces.0.is_up", 1, "expected bool, got int"),
        ("network_interfaces.0.is_up", "up", "expected bool, got str"),
        ("network_interfaces.0.rx_errors", 1.5, "expected int | null, got float"),
        ("filesystems", "none", "expected array | null, got str"),
        ("filesystems.0.mount_point", "", "expected str of length >= 1"),
        ("filesystems.0.total_bytes", None, "expected int, got null"),
        ("filesystems.0.percent", -1, "expected float >= 0"),
        ("timestamp", 1_769_680_800, "expected datetime | null, got int"),
        ("timestamp", "2026-01-29T10:00:00", "expected datetime with a timezone component"),
        ("timestamp", "2026-01-29", "invalid RFC3339 encoded datetime"),
        ("timestamp", "2026-02-30T10:00:00Z", "invalid RFC3339 encoded datetime"),
        ("timestamp", "0000-01-01T00:00:00Z", "invalid RFC3339 encoded datetime"),
        ("timestamp", "9999-12-31T23:59:59.999999999Z", "invalid RFC3339 encoded datetime"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_path_and_reason(path: str, value: Any, reason: str) -> None:
    (error,) = errors(changed(path, value))

    place = path.replace(".0", "[0]")
    assert error.startswith(f"{place}: {reason}")


@pytest.mark.parametrize(
    "name", ["eth0", "eth0.100", "br-1a2b3c", "Local Area Connection* 2", "vEthernet (WSL)", "übertragung", "e" * 64]
)
def test_an_interface_is_named_as_its_system_names_it(name: str) -> None:
    heartbeat = decode(changed("network_interfaces.0.name", name))

    assert heartbeat.network_interfaces is not None
    assert heartbeat.network_interfaces[0].name == name


@pytest.mark.parametrize(
    "name", ["", "e" * 65, "a/b", "../etc", "</script>", "eth0\n", "\n", "a\0b", "a\tb", "a\x7f", "a\x85b", "\x9b31m"]
)
def test_slashes_and_control_characters_are_no_part_of_an_interfaces_name(name: str) -> None:
    body = changed("network_interfaces.0.name", name)
    body["primary_interface"] = name

    (named,) = errors(body)

    assert named.startswith(f"{ETH0}.name: expected str matching regex")
    assert decode(changed("primary_interface", name)).primary_interface is None


HINTS_OF_AN_INTERFACE = {
    "speed_mbps": [4_294_967_295, -2, 1_600_001, 1e300, 10**400, 1000.5, "fast", "1000", True, [], {}, 2**64],
    "kind": ["k" * 33, 5, False, [], "a\0b"],
    "ifindex": [0, -1, 2**31, 2**64, 10**400, 1.5, "2", True, [2]],
    "operstate": [1, True, ["up"], "o" * 33, "\0"],
    "permanent_address": [5, "", "a" * 81, ["52:54:00:12:34:56"], "52:54\0"],
    "bus_path": [5, "", "p" * 256, {}, "pci\n"],
    "alias": [5, "", "w" * 256, True, "WAN\x7f"],
    "carrier_changes": [-1, 2**32, 10**400, 1.5, "2", True, [2]],
    "stacked_on": ["eth0", 5, {}, [5], ["wlan0", None], [""], ["a/b"], ["wlan0\n"], ["wlan0\0"]],
}
HINTS_OF_A_HEARTBEAT: dict[str, list[Any]] = {
    "interval_seconds": [0, -5, 86_401, 1e300, 10**400, True, "30", [], {}],
    "primary_interface": ["", "a/b", "\0", 5, ["eth0"], "e" * 65],
    "agent_version": ["v" * 256, 1.0, ["1.0"], "1\0"],
    "tags": ["nas", {"site": "home"}, [5], ["a,b"], [""], ["t" * 200], ["x"] * 100],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in HINTS_OF_AN_INTERFACE.items() for v in values])
def test_a_senseless_hint_on_an_interface_costs_itself_alone(field: str, value: Any) -> None:
    body = changed("network_interfaces.1.kind", "physical")
    body["network_interfaces"][1] |= {"speed_mbps": 1000, "operstate": "down", "stacked_on": ["eth0"], "ifindex": 3}
    body["network_interfaces"][1] |= {
        "permanent_address": "52:54:00:12:34:56", "bus_path": "pci0000:00/0000:00:03.0", "alias": "WAN",
        "carrier_changes": 2,
    }  # fmt: skip
    expected = decode(body)
    assert expected.network_interfaces is not None

    body["network_interfaces"][1][field] = value
    found = decode(body)

    bare = msgspec.structs.replace(expected.network_interfaces[1], **{field: None})
    assert found == msgspec.structs.replace(expected, network_interfaces=[expected.network_interfaces[0], bare])


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in HINTS_OF_A_HEARTBEAT.items() for v in values])
def test_a_senseless_hint_of_a_heartbeat_costs_itself_alone(field: str, value: Any) -> None:
    assert decode(changed(field, value)) == decode(without(field))


def test_every_hint_of_the_wire_is_optional_and_tried_here() -> None:
    assert {struct: set(names) for struct, names in HINTS.items()} == {
        Heartbeat: set(HINTS_OF_A_HEARTBEAT), NetworkInterface: set(HINTS_OF_AN_INTERFACE),
    }  # fmt: skip
    for struct, names in HINTS.items():
        assert all(not field.required for field in msgspec.structs.fields(struct) if field.name in names)


def test_senseless_hints_hide_no_error_and_are_none() -> None:
    body = changed("network_interfaces.0.rx_bytes", "1")
    body["network_interfaces"][0] |= {"speed_mbps": 4_294_967_295, "stacked_on": 5}
    body["interval_seconds"] = -1

    assert errors(body) == [f"{ETH0}.rx_bytes: expected int, got str"]
    body["network_interfaces"][0]["rx_bytes"] = 2**64
    assert errors(body) == [f"{ETH0}.rx_bytes: expected int <= 18446744073709551615"]


@pytest.mark.parametrize("number", ["0", "-1", "1600000", "null"])
def test_a_speed_that_is_not_known_is_none_of_them(number: str) -> None:
    assert decode(with_raw("network_interfaces.0.speed_mbps", number)).network_interfaces is not None


def calls_of(work: Callable[[], object]) -> int:
    """What `work` costs in the interpreter's own steps, which a busy machine does not change."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def stacked(**below: list[str]) -> dict[str, list[str] | None]:
    """What is left of what each interface says that it is stacked on."""
    body = {**BODY, "network_interfaces": [interface(name, 1, stacked_on=on) for name, on in below.items()]}
    found = decode(body | {"primary_interface": next(iter(below))}).network_interfaces
    return {one.name: one.stacked_on for one in found or ()}


def test_interfaces_that_are_stacked_in_a_circle_are_not_stacked_on_each_other() -> None:
    assert stacked(a=["a"], b=["a"]) == {"a": None, "b": ["a"]}
    assert stacked(a=["b"], b=["a"]) == {"a": None, "b": None}
    assert stacked(a=["b", "eth0"], b=["c"], c=["a"], d=["a"], eth0=[]) == {
        "a": ["eth0"], "b": None, "c": None, "d": ["a"], "eth0": [],
    }  # fmt: skip
    plain = {"bond0.7": ["bond0"], "bond0": ["eth0", "eth1"], "eth0": [], "eth1": [], "wg0": ["gone", "bond0.7"]}
    assert stacked(**plain) == plain, "an interface that is not reported is no contradiction"


def test_a_long_chain_and_a_wide_circle_cost_no_time() -> None:
    names = [f"if{n}" for n in range(2_000)]
    chain = {name: [below] for name, below in zip(names[1:], names, strict=False)}

    assert stacked(**chain) == chain
    # Whoever is above the circle stays so; those in it are above nothing.
    circle = names[: MAX_STACKED_ON // len(names)]
    wide = stacked(**dict.fromkeys(names, circle))
    assert [wide[name] for name in names] == [None if name in circle else circle for name in names]
    # In proportion to their number, of which the square is four million.
    assert calls_of(lambda: stacked(**chain)) < 200_000
    assert calls_of(lambda: stacked(**dict.fromkeys(names, circle))) < 200_000


def test_a_primary_interface_is_one_that_is_reported() -> None:
    assert decode(changed("primary_interface", "eth9")).primary_interface is None
    assert decode(changed("primary_interface", "wlan0")).primary_interface == "wlan0"
    # Paused, an agent reports none, and its primary interface is what it was.
    assert decode(without("network_interfaces")).primary_interface == "eth0"
    assert decode(changed("network_interfaces", [])).primary_interface == "eth0"


def test_an_interface_that_stands_twice_is_named() -> None:
    body = changed("network_interfaces.1.name", "eth0")

    assert errors(body) == ["network_interfaces[1].name: 'eth0' appears twice"]


def test_every_error_of_a_body_is_listed_whatever_its_kind() -> None:
    body = changed("server_id", "a b")
    del body["hostname"]
    body["status"] = 5
    body["os_info"] = [[[[[[[[[]]]]]]]]]
    body["metrics"]["network_rx_bytes"] = 2**64
    body["network_interfaces"][0] |= {"rx_bytes": "1", "tx_bytes": 2**64, "is_up": None}
    body["network_interfaces"][1]["name"] = "eth0"
    body["network_interfaces"].append(5)

    assert [error.partition(" matching")[0] for error in errors(body)] == [
        "server_id: expected str",
        "hostname: is missing",
        "status: expected str | null, got int",
        "os_info: expected object | null, got array",
        "metrics.network_rx_bytes: expected int <= 18446744073709551615",
        "network_interfaces[0].rx_bytes: expected int, got str",
        "network_interfaces[0].tx_bytes: expected int <= 18446744073709551615",
        "network_interfaces[0].is_up: expected bool, got null",
        "network_interfaces[2]: expected object, got int",
        "network_interfaces[1].name: 'eth0' appears twice",
    ]


def test_the_detail_names_the_first_five_errors_and_counts_the_others() -> None:
    problem = refused(b'{"network_interfaces": [{}]}')

    assert len(problem.errors) == 8
    assert problem.detail.startswith("server_id: is missing; hostname: is missing; network_interfaces[0].name: is")
    assert problem.detail.endswith("; and 3 more")


CONTROL = ["\0", "\n", "\x1b", "\x7f", "\x80", "\x9b", "\x9f"]


# Unescaped, those below U+0020 are no JSON.
@pytest.mark.parametrize(
    ("character", "escaped"), [(one, True) for one in CONTROL] + [(one, False) for one in CONTROL if one > " "]
)
@pytest.mark.parametrize("path", ["hostname", "server_guid"])
def test_no_name_holds_a_control_character(path: str, character: str, escaped: bool) -> None:
    body = json.dumps(changed(path, f"a{character}b"), ensure_ascii=escaped).encode()

    assert errors(body) == [f"{path}: contains a control character"]


@pytest.mark.parametrize("character", CONTROL)
@pytest.mark.parametrize(
    "path",
    [
        "status",
        "boot_id",
        "filesystems.0.mount_point",
        "filesystems.0.device",
        "filesystems.0.fs_type",
        "filesystems.0.state",
    ],
)
def test_a_control_character_in_a_description_costs_no_heartbeat(path: str, character: str) -> None:
    sent = changed(path, f"a{character}b")

    assert decode(sent) == decode(changed(path, "a\ufffdb"))
    assert decode(json.dumps(sent, ensure_ascii=False).encode()) == decode(changed(path, "a\ufffdb"))


@pytest.mark.parametrize("character", CONTROL)
@pytest.mark.parametrize(
    "path", ["agent_version", "primary_interface", "network_interfaces.0.kind", "network_interfaces.0.operstate"]
)
def test_a_hint_with_a_control_character_makes_no_sense(path: str, character: str) -> None:
    sent = changed(path, f"a{character}b")

    assert decode(sent) == decode(changed(path, None))
    assert decode(json.dumps(sent, ensure_ascii=False).encode()) == decode(changed(path, None))


def test_a_nul_character_in_os_info_costs_itself_alone() -> None:
    sent = {"a\0b": {"c": "\0", "d": "\\u0000", "e": "\\\\\0"}, "f": "\x1b[31m"}

    heartbeat = decode(changed("os_info", sent))

    assert json.loads(bytes(heartbeat.os_info)) == {
        "a\ufffdb": {"c": "\ufffd", "d": "\\u0000", "e": "\\\\\ufffd"},
        "f": "\x1b[31m",
    }


def test_what_only_looks_like_a_nul_character_is_taken() -> None:
    assert decode(changed("status", "a\\u0000b")).status == "a\\u0000b"
    assert decode({**BODY, "packages": ["\0"]}) == decode(BODY)


@pytest.mark.parametrize("extra", [b'"\xff"', b"1e999", b"9" * 5_000, nested(600).encode()])
def test_fields_that_are_not_known_are_skipped_whatever_they_hold(extra: bytes) -> None:
    body = json.dumps(BODY).encode()[:-1] + b', "services": "\\u0000", "x": ' + extra + b"}"

    assert decode(body) == decode(BODY)


def test_of_a_name_that_stands_twice_the_last_counts() -> None:
    body = json.dumps(BODY).encode()

    assert decode(body[:-1] + b', "hostname": "other"}').hostname == "other"
    # The decoder meets the first one on its way.
    assert errors(b'{"hostname": 1, ' + body[1:]) == ["hostname: expected str, got int"]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400, 1e308, -0.0, 5e-324])
def test_os_info_keeps_numbers_of_any_size(number: float) -> None:
    heartbeat = decode(changed("os_info.cpus", number))

    assert json.loads(msgspec.json.encode(heartbeat.os_info))["cpus"] == number


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 5_000])
def test_a_number_that_no_type_holds_is_refused_naming_its_field(text: str) -> None:
    (in_os_info,) = errors(with_raw("os_info.cpus", text))
    (of_its_own,) = errors(with_raw("metrics.cpu_percent", text))

    assert in_os_info.startswith("os_info")
    assert in_os_info.endswith("out of range")
    assert of_its_own.startswith("metrics.cpu_percent: ")
    assert decode(with_raw("interval_seconds", text)) == decode(without("interval_seconds"))


@pytest.mark.parametrize("objects", [True, False])
def test_os_info_may_be_nested_eight_levels(objects: bool) -> None:
    deepest = with_raw("os_info", '{"x":' + nested(MAX_NESTING - 1, objects=objects) + "}")
    deeper = with_raw("os_info", '{"x":' + nested(MAX_NESTING, objects=objects) + "}")

    assert bytes(decode(deepest).os_info).startswith(b'{"x":')
    assert errors(deeper) == ["os_info: is nested more than 8 levels deep"]


def test_os_info_has_sixteen_kibibytes_as_it_comes() -> None:
    room = MAX_OS_INFO_BYTES - len('{"x":""}')

    assert decode(with_raw("os_info", '{"x":"' + "y" * room + '"}'))
    assert errors(with_raw("os_info", '{"x": "' + "y" * room + '"}')) == ["os_info: has more than 16384 bytes"]


def test_os_info_that_is_null_is_as_if_it_were_not_there() -> None:
    assert decode(changed("os_info", None)) == decode(without("os_info"))
    assert decode(changed("os_info", None)).os_info is None


@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize("extra", ["1", '"\\u0000"'])
@pytest.mark.parametrize("other", ["online", 5])
def test_no_depth_is_more_than_a_refusal(objects: bool, extra: str, other: Any) -> None:
    """Around the interpreter's own limit each call between decoding and encoding counts."""
    body = json.dumps({**BODY, "status": other, "os_info": "@@"}).encode()

    for levels in [9, *range(600, 900, 50), *range(900, 1_000), 100_000]:
        deep = ('{"y":' + extra + ',"x":' + nested(levels, objects=objects) + "}").encode()
        sent = body.replace(b'"@@"', deep)
        problem = refused(sent)
        assert problem.code in ("invalid", "invalid_json"), levels
        if len(sent) > LISTED_BYTES:
            assert len(problem.errors) <= 1
        elif problem.code == "invalid":
            assert "os_info: is nested more than 8 levels deep" in problem.detail


def many(count: int, **more: Any) -> list[dict[str, Any]]:
    return [interface(f"veth{n}", n, n, **more) for n in range(count)]


def test_a_heartbeat_has_two_thousand_interfaces_at_most() -> None:
    decode(changed("network_interfaces", many(MAX_INTERFACES)))

    assert errors(changed("network_interfaces", many(MAX_INTERFACES + 1))) == [
        "network_interfaces: has more than 2000 items"
    ]
    both = changed("network_interfaces", many(2_100, is_up=None))
    both["hostname"] = 5
    assert errors(both) == [
        "hostname: expected str, got int",
        "network_interfaces: has more than 2000 items",
    ]


def test_a_heartbeat_has_a_thousand_filesystems_at_most() -> None:
    decode(changed("filesystems", [{"mount_point": f"/{n}"} for n in range(MAX_FILESYSTEMS)]))

    assert errors(changed("filesystems", [{"mount_point": f"/{n}"} for n in range(MAX_FILESYSTEMS + 1)])) == [
        "filesystems: has more than 1000 items"
    ]


def test_the_names_that_interfaces_are_stacked_on_have_a_bound_together() -> None:
    below = [f"veth{n}" for n in range(MAX_INTERFACES)]
    bridges = many(MAX_STACKED_ON // MAX_INTERFACES, stacked_on=below)

    decode(changed("network_interfaces", bridges))

    bridges.append(interface("one-more", 1, stacked_on=["eth0"]))
    assert errors(changed("network_interfaces", bridges)) == [
        "network_interfaces: stacked_on has more than 10000 names in total"
    ]
    bridges[0]["stacked_on"] = [*below, "eth0"]  # a hint that makes no sense is not counted
    assert decode(changed("network_interfaces", bridges))


def mebibyte(item: str) -> str:
    return ",".join([item] * ((1 << 20) // (len(item) + 1) - 1_000))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("os_info", "[" + mebibyte("[" * 99 + "]" * 99) + "]"),
        ("os_info", '{"a": [' + mebibyte("[]") + ', "\\u0000"]}'),
        ("os_info", '{"a": [' + mebibyte('"\\u0000"') + "]}"),
        ("status", "[" + mebibyte("[]") + "]"),
        ("services", "[" + mebibyte("[[],{}]") + "]"),
        ("network_interfaces", "[" + mebibyte("{}") + "]"),
        ("network_interfaces", "[" + mebibyte(json.dumps(interface("eth0", 1))) + "]"),
        ("filesystems", "[" + mebibyte('{"mount_point":"/"}') + "]"),
    ],
    ids=lambda text: text[:40],
)
def test_no_mebibyte_takes_an_operation_for_each_of_its_bytes(path: str, text: str) -> None:
    body = with_raw(path, text) if path in BODY or path == "os_info" else b'{"x": ' + text.encode() + b"}"

    def refuse() -> None:
        with pytest.raises(Problem):
            decode_heartbeat(body, now=NOW, oldest=OLDEST)

    assert calls_of(refuse) < 20_000


@pytest.mark.parametrize("path", ["agent_version", "network_interfaces.1.kind", "network_interfaces.1.stacked_on"])
@pytest.mark.parametrize("text", ["[[],{}]", '"\\u0000"', "[" * 90 + "]" * 90, '{"a":1}'], ids=lambda text: text[:8])
def test_no_mebibyte_in_a_hint_takes_an_operation_for_each_of_its_bytes(path: str, text: str) -> None:
    body = with_raw(path, "[" + mebibyte(text) + "]")
    expected = decode(changed(path, None))

    assert decode(body) == expected
    assert calls_of(lambda: decode(body)) < 1_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{}}",
        b"{'server_id': 1}",
        b"not json",
        b"\x00",
        b"\xff\xfe",
        json.dumps(BODY).encode()[:-1],
        json.dumps(BODY).encode()[:200],
        json.dumps(BODY).encode() + b"{}",
        json.dumps(BODY).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(BODY).encode(),
        with_raw("status", '"\xff"').decode().encode("latin-1"),
        with_raw("status", '"\\ud800"'),
        with_raw("status", '"\\udc00\\ud800"'),
        with_raw("os_info.system", '{"\\ud800": 1}'),
        with_raw("status", '"a\0b"'),
        with_raw("status", '"a\nb"'),
        with_raw("network_interfaces.0.rx_bytes", "NaN"),
        with_raw("network_interfaces.0.rx_bytes", "Infinity"),
        with_raw("network_interfaces.0.rx_bytes", "01"),
        with_raw("network_interfaces.0.rx_bytes", "+1"),
        b'{"server_id": 5, ',
        nested(100_000).encode(),
        nested(100_000, objects=True).encode(),
        with_raw("status", nested(100_000)),
    ],
)
def test_what_is_not_json_is_refused_as_that(body: bytes) -> None:
    problem = refused(body)

    assert (problem.code, problem.status) == ("invalid_json", 400)
    assert problem.detail
    assert problem.errors == []


@pytest.mark.parametrize(
    ("body", "got"), [(b"null", "null"), (b"1", "int"), (b'"x"', "str"), (b"[]", "array"), (b"[{}]", "array")]
)
def test_a_heartbeat_is_an_object(body: bytes, got: str) -> None:
    assert errors(body) == [f": expected object, got {got}"]
    assert refused(body).detail == f"expected object, got {got}"


@pytest.mark.parametrize(
    ("timestamp", "code"),
    [
        ("2026-01-29T10:05:00Z", ""),
        ("2026-01-29T10:05:01Z", "clock_future"),
        ("2026-01-29T11:05:01+01:00", "clock_future"),
        ("9999-12-31T23:59:59Z", "clock_future"),
        ("9999-12-31T23:59:59-12:00", "clock_future"),
        ("9999-12-31T23:59:59+23:59", "clock_future"),
        ("2026-01-15T10:00:00Z", ""),
        ("2026-01-15T09:59:59Z", "too_old"),
        ("2026-01-15T10:59:59+01:00", "too_old"),
        ("1970-01-01T00:00:00Z", "too_old"),
        ("0001-01-01T00:00:00Z", "too_old"),
        ("0001-01-01T00:00:00+14:00", "too_old"),
        ("0001-01-01T00:00:00-23:59", "too_old"),
    ],
)
def test_a_timestamp_lies_in_the_window_of_the_services_clock(timestamp: str, code: str) -> None:
    body = changed("timestamp", timestamp)

    if not code:
        assert decode(body).timestamp is not None
        return
    problem = refused(body)

    assert (problem.code, problem.status) == (code, 422)
    assert [error.path for error in problem.errors] == ["timestamp"]
    assert "2026-01-29T10:00:00Z" in problem.detail  # the service's clock, for who looks for the wrong one


@pytest.mark.parametrize(
    "body",
    [
        b'{"network_interfaces": [' + b"{}," * 340_000 + b"{}]}",
        b'{"network_interfaces": [' + b"1," * 500_000 + b"1]}",
        b'{"filesystems": [' + b"{}," * 340_000 + b"{}]}",
        with_raw("os_info", '{"a": [' + '"\\u0000",' * 110_000 + "1]}"),
        with_raw("os_info", '{"' + "a" * 900_000 + '\\u0000": "\\u0000"}'),
        with_raw("os_info", ('{"' + "k" * 9_000 + '\\u0000":') * 95 + "1" + "}" * 95),
        json.dumps({**BODY, "network_interfaces": [interface("eth0", 1)] * 11_000}).encode(),
        with_raw("server_id", '"' + "a" * 1_000_000 + '"'),
    ],
    ids=["empty objects", "numbers", "filesystems", "NULs", "a long name", "long names", "one name", "a long id"],
)
def test_a_megabyte_of_errors_costs_neither_time_nor_a_long_answer(body: bytes) -> None:
    problems: list[Problem] = []
    calls = calls_of(lambda: problems.append(refused(body)))

    (problem,) = problems
    assert len(problem.errors) <= MAX_ERRORS
    assert all(len(error.path) <= MAX_PATH + 1 for error in problem.errors)
    assert len(problem.body()) < 60_000
    assert calls < 20_000


RECORD = json.dumps(BODY, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"[]", 0),
        (b" [ ] ", 0),
        (b"[" + RECORD + b"]", 1),
        (b"[" + RECORD + b" ,\n" + RECORD + b"]", 2),
        (b"[" + b",".join([RECORD] * MAX_BATCH_HEARTBEATS) + b"]", MAX_BATCH_HEARTBEATS),
    ],
)
def test_an_array_is_split_into_its_records(body: bytes, count: int) -> None:
    records = split_batch(body, lines=False)

    assert [bytes(record) for record in records] == [RECORD] * count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 0),
        (b"\n\r\n \t\n", 0),
        (RECORD, 1),
        (RECORD + b"\n", 1),
        (RECORD + b"\r\n" + RECORD + b"\r\n", 2),
        (b"\n\n" + RECORD + b"\n\n  " + RECORD, 2),
        ((RECORD + b"\n") * MAX_BATCH_HEARTBEATS + b"\n\n", MAX_BATCH_HEARTBEATS),
    ],
)
def test_lines_are_split_into_records_and_blank_ones_skipped(body: bytes, count: int) -> None:
    records = split_batch(body, lines=True)

    assert [decode_heartbeat(bytes(record), now=NOW, oldest=OLDEST) for record in records] == [decode(BODY)] * count


def test_a_record_of_any_kind_is_left_to_be_judged_alone() -> None:
    array = split_batch(b'[1, null, "x", [], {"a": "\xff"}]', lines=False)
    lines = split_batch(b'1\n{"a":\n\xff\xfe\n' + RECORD, lines=True)

    assert [bytes(record) for record in array] == [b"1", b"null", b'"x"', b"[]", b'{"a": "\xff"}']
    assert [bytes(record) for record in lines] == [b"1", b'{"a":', b"\xff\xfe", RECORD]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[", "invalid_json"),
        (b"[{}", "invalid_json"),
        (b"[{}] {}", "invalid_json"),
        (b"[{},]", "invalid_json"),
        (b"\xff", "invalid_json"),
        (RECORD + b"\n" + RECORD, "invalid"),  # lines, sent as JSON
        (nested(100_000).encode(), "invalid_json"),
        (b"[" + RECORD + b"," + nested(100_000).encode() + b"]", "invalid_json"),
        (b"{}", "invalid"),
        (b"null", "invalid"),
        (b"1", "invalid"),
        (RECORD, "invalid"),
    ],
)
def test_a_batch_that_is_no_array_is_refused_as_a_whole(body: bytes, code: str) -> None:
    with pytest.raises(Problem) as raised:
        split_batch(body, lines=False)

    assert raised.value.code == code
    assert raised.value.detail


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"[" + b"1," * MAX_BATCH_HEARTBEATS + b"1]", False),
        (b"1\n" * (MAX_BATCH_HEARTBEATS + 1), True),
        (b"[" + b"1," * (4 << 20) + b"1]", False),
        (b"1\n" * (4 << 20), True),
    ],
    ids=["one too many", "one line too many", "8 MB of numbers", "8 MB of lines"],
)
def test_records_past_a_batch_are_refused_without_being_held(body: bytes, lines: bool) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Problem) as raised:
            split_batch(body, lines=lines)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (raised.value.code, raised.value.status) == ("too_large", 413)
    assert "1000" in raised.value.detail
    assert peak < 1_000_000


# What a mutated body may hold in any place.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, 10**400, -1, 0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from(["\0", "a\0", "\n", "/", "2026-01-29T10:00:00Z", "0001-01-01T00:00:00+14:00", "x" * 300]),
    st.builds(list),
    st.builds(dict),  # new ones: what a test puts into them must not be in the next example
    st.dictionaries(st.sampled_from(["name", "\0", "rx_bytes", "a"]), st.text(), max_size=3),
)
PLACES = [
    *BODY,
    *(f"os_info.{name}" for name in ("system", "cpus", "cpus.0.model")),
    *(f"metrics.{name}" for name in ("cpu_percent", "network_rx_bytes")),
    *(f"network_interfaces.{n}.{name}" for n in (0, 1) for name in ("name", "rx_bytes", "rx_errors", "is_up")),
    *(f"filesystems.0.{name}" for name in ("mount_point", "state", "total_bytes", "available_bytes", "percent")),
]
JSON = st.recursive(ODD, lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=10)


def judge(body: bytes) -> None:
    """Whatever is no heartbeat must be a 400 or 422 that can be answered; any other exception fails the test."""
    problem, heartbeat = None, None
    try:
        heartbeat = decode(body)
    except Problem as raised:
        problem = raised
    if problem is not None:
        assert problem.status in (400, 422)
        assert problem.detail
        assert (problem.status == 400) == (not problem.errors)
        assert json.loads(problem.body())["code"] == problem.code
        return
    assert heartbeat is not None
    assert b"\\u0000" not in msgspec.json.encode(heartbeat).replace(b"\\\\", b"")
    for one in heartbeat.network_interfaces or ():
        assert 0 <= max(one.rx_bytes, one.tx_bytes, one.rx_packets, one.tx_packets) <= MAX_COUNTER


fuzz: Callable[[Callable[..., None]], Callable[..., None]] = settings(max_examples=500, deadline=None)


@fuzz
@given(st.dictionaries(st.sampled_from(PLACES), ODD | st.just(...), max_size=4))
@example({"network_interfaces.0.name": "wlan0"})
@example({"os_info.system": "\0", "network_interfaces.0.rx_bytes": 2**64})
def test_fuzz_a_valid_body_with_other_values(changes: dict[str, Any]) -> None:
    body = json.loads(json.dumps(BODY))
    for path, value in changes.items():
        *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place = body
        try:
            for step in parents:
                place = place[step]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away

    judge(json.dumps(body).encode())


@fuzz
@given(st.lists(st.tuples(st.integers(0, len(RECORD) - 1), st.integers(0, 8), st.binary(max_size=8)), min_size=1))
def test_fuzz_a_valid_body_with_other_bytes(cuts: list[tuple[int, int, bytes]]) -> None:
    body = RECORD
    for place, length, put in cuts:
        body = body[:place] + put + body[place + length :]

    judge(body)


@fuzz
@given(st.binary())
def test_fuzz_arbitrary_bytes(body: bytes) -> None:
    judge(body)


@fuzz
@given(JSON)
def test_fuzz_arbitrary_json(value: Any) -> None:
    judge(json.dumps(value).encode())


@fuzz
@given(st.binary() | st.lists(ODD, max_size=5).map(lambda value: json.dumps(value).encode()), st.booleans())
def test_fuzz_a_batch(body: bytes, lines: bool) -> None:
    records, status = [], None
    try:
        records = split_batch(body, lines=lines)
    except Problem as raised:
        status = raised.status

    assert status in (None, 400, 422)
    for record in records:
        judge(bytes(record))


@pytest.mark.parametrize(
    ("sent", "read"),
    [(1, 1), (2**31 - 1, 2**31 - 1), (2**31, None), (0, None), (-1, None), (2**64, None), (None, None)],
)
def test_an_ifindex_that_no_kernel_gives_is_read_as_none(sent: int | None, read: int | None) -> None:
    beat = decode(changed("network_interfaces.0", BODY["network_interfaces"][0] | {"ifindex": sent}))

    assert [one.ifindex for one in beat.network_interfaces or ()] == [read, None]


@pytest.mark.parametrize(
    "names",
    [["eth0", "a/b"], ["eth0\n"], ["a\x9b"], ["", "eth0"], ["e" * 65], [5], ["eth0"] * (MAX_INTERFACES + 1)],
    ids=repr,
)
def test_what_an_interface_is_stacked_on_has_names_like_its_own(names: list[Any]) -> None:
    good = ["eth0", "wlan0.5", "übertragung"]
    body = changed("network_interfaces.1.stacked_on", good)
    assert [one.stacked_on for one in decode(body).network_interfaces or ()] == [None, good]

    assert decode(changed("network_interfaces.1.stacked_on", names)) == decode(BODY)
