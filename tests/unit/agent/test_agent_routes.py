"""agent.routes on the texts of /proc/net."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.roots import Roots
from agent.routes import ROUTES_LIMIT_BYTES, default_routes, default_routes_ipv6, read_default_routes

ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t0101A8C0\t0003\t0\t0\t50\t00000080\t0\t0\t0
*\t00000000\t00000000\t0200\t0\t0\t1\t00000000\t0\t0\t0
eth1\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""
ANY, HOP = "0" * 32, "fe80" + "0" * 28
ROUTES_IPV6 = f"""fd{"0" * 30} 40 {ANY} 00 {ANY} 00000100 00000001 00000000 00000001     eth0
{ANY} 00 {ANY} 00 {HOP} 00000400 00000002 00000000 00000003     eth0
{ANY} 00 {ANY} 00 {HOP} 0000003f 00000002 00000000 00000003    wlan0
{ANY} 00 {ANY} 00 {ANY} ffffffff 00000001 00000000 00200200       lo
"""


def roots_with(tmp_path: Path, **texts: str) -> Roots:
    roots = Roots(proc=str(tmp_path))
    roots.net.mkdir(parents=True)
    for name, text in texts.items():
        (roots.net / name).write_text(text)
    return roots


def test_default_routes_come_by_metric_without_rejects_and_halves() -> None:
    assert default_routes(ROUTES) == ["eth0", "wlan0"]
    assert default_routes_ipv6(ROUTES_IPV6) == ["wlan0", "eth0"]


def test_ipv6_decides_only_without_an_ipv4_default_route(tmp_path: Path) -> None:
    assert read_default_routes(roots_with(tmp_path / "4", route=ROUTES, ipv6_route=ROUTES_IPV6)) == ["eth0", "wlan0"]
    assert read_default_routes(roots_with(tmp_path / "6", route="Iface\n", ipv6_route=ROUTES_IPV6)) == ["wlan0", "eth0"]
    assert read_default_routes(roots_with(tmp_path / "none")) == []


def test_a_router_with_the_whole_internets_routes_is_read_to_a_limit(tmp_path: Path) -> None:
    more = "".join(f"eth1\t{n:08X}\t0101A8C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" for n in range(1, 100_000))
    roots = roots_with(tmp_path, route=ROUTES + more + "eth9\t00000000\t0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")

    assert (roots.net / "route").stat().st_size > ROUTES_LIMIT_BYTES
    assert read_default_routes(roots) == ["eth0", "wlan0"]


@pytest.mark.parametrize("text", ["", "Iface\n", "Iface\neth0 x y z\n", "h\neth0\t00000000\tx\tx\t0\t0\tx\t00000000"])
def test_without_a_usable_line_there_is_no_default_route(text: str) -> None:
    assert default_routes(text) == default_routes_ipv6(text) == []


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")), st.integers(0, 600))
def test_no_text_makes_a_parser_raise(text: str, cut: int) -> None:
    for parse, real in ((default_routes, ROUTES), (default_routes_ipv6, ROUTES_IPV6)):
        parse(text)
        parse(real[:cut] + text + real[cut:])
