"""agent.primary: the default route decides, else the traffic, and the choice is stable."""

import itertools

import pytest

from agent.links import Kind
from agent.network import NetworkInterface
from agent.primary import PrimaryInterface


def interface(
    name: str, octets: int = 0, packets: int = 0, *, up: bool = True, kind: Kind = "physical", on: tuple[str, ...] = ()
) -> NetworkInterface:
    return NetworkInterface(name, octets, 0, packets, 0, up, kind=kind, stacked_on=list(on))


def beats(interval_seconds: float) -> PrimaryInterface:
    """One whose clock moves by an interval from each choice that needs it to the next."""
    moments = itertools.count(0.0, interval_seconds)
    return PrimaryInterface(lambda: next(moments))


def test_the_best_default_route_that_is_a_candidate_decides() -> None:
    found = [interface("wlan0", 9_999_999), interface("eth0")]

    assert beats(30).choose(found, ["eth0", "wlan0"]) == "eth0"
    assert beats(30).choose([interface("wlan0"), interface("eth0", up=False)], ["eth0", "wlan0"]) == "wlan0"
    assert beats(30).choose(found, ["excluded0"]) == "wlan0"


@pytest.mark.parametrize(
    "no_candidate",
    [
        interface("eth0", 9, up=False),
        interface("docker0", 9, kind="bridge", on=("eth0",)),
        interface("br-4f1d2a3b4c5d", 9, kind="bridge", on=("eth0",)),
        interface("veth1", 9, kind="veth", on=("eth0",)),
    ],
)
def test_what_is_down_dockers_or_a_veth_is_no_candidate(no_candidate: NetworkInterface) -> None:
    assert beats(30).choose([no_candidate], []) is None
    assert beats(30).choose([no_candidate], [no_candidate.name]) is None


def test_pitfall_11_a_containers_own_interface_is_a_candidate() -> None:
    assert beats(30).choose([interface("eth0", kind="veth")], ["eth0"]) == "eth0"


def test_a_single_heartbeat_goes_by_the_totals() -> None:
    assert beats(30).choose([interface("a", 5_000), interface("b", 7_000), interface("c", 6_000)], []) == "b"
    assert beats(30).choose([], []) is None


def test_the_traffic_of_a_window_decides_over_the_totals() -> None:
    primary = beats(30)
    assert primary.choose([interface("old", 10**12), interface("busy", 0)], []) == "old"

    assert primary.choose([interface("old", 10**12 + 2000), interface("busy", 10**6)], []) == "busy"


def test_many_small_packets_weigh_more_than_few_octets() -> None:
    primary = beats(10)
    primary.choose([interface("bulk", 1), interface("calls", 0)], [])

    # 50,000 octets and 10 packets a second, against 20,000 octets and 200 packets a second.
    assert primary.choose([interface("bulk", 50_001, 100), interface("calls", 20_000, 2_000)], []) == "calls"


def test_less_than_a_kibibyte_in_the_window_changes_nothing() -> None:
    primary = beats(30)
    primary.choose([interface("a", 5_000), interface("b", 4_000)], [])

    assert primary.choose([interface("a", 5_000), interface("b", 5_023)], []) == "a"
    assert primary.choose([interface("a", 5_000), interface("b", 6_047)], []) == "b"


def test_the_window_is_at_least_ten_seconds_long() -> None:
    primary = beats(4)
    chosen = [primary.choose([interface("a", 5_000), interface("b", n * 100_000)], []) for n in range(4)]

    assert chosen == ["a", "a", "a", "b"]


def test_two_that_share_the_load_take_no_turns() -> None:
    primary = beats(30)
    octets = {"a": 1_000, "b": 1_000}
    chosen = set()
    for beat in range(50):
        octets["a"] += 100_000 + 30_000 * (beat % 2)
        octets["b"] += 130_000 - 30_000 * (beat % 2)
        chosen.add(primary.choose([interface(name, total) for name, total in octets.items()], []))

    assert len(chosen) == 1


def test_one_that_goes_away_is_replaced_and_a_reset_counts_from_zero() -> None:
    primary = beats(30)
    primary.choose([interface("a", 10**9), interface("b", 10**8)], [])

    assert primary.choose([interface("b", 10**8)], []) == "b"
    assert primary.choose([interface("a", 50_000), interface("b", 10**8)], []) == "b"
    assert primary.choose([interface("a", 20_000), interface("b", 10**8)], []) == "a"
