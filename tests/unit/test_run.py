"""service.run: what `make run` says first."""

from typing import Any

import pytest

from service.run import _main


def series(**octets: int) -> list[dict[str, Any]]:
    """By name, as the API has them: each with a bucket of so many octets."""
    return [{"interface": name, "data": [{"rx_bytes": rx, "tx_bytes": 0}]} for name, rx in sorted(octets.items())]


@pytest.mark.parametrize(
    ("found", "primary", "name"),
    [
        (series(br0=5, docker0=9, eth0=1), "eth0", "eth0"),
        (series(br0=0, eth0=0), "eth0", "eth0"),
        (series(br0=5, docker0=9, eth0=1), None, "docker0"),
        (series(br0=5, docker0=9), "wlan0", "docker0"),  # its first sample is on its way
        (series(br0=0, eth0=0), None, "br0"),
    ],
)
def test_the_primary_interface_is_shown_and_else_the_busiest(
    found: list[dict[str, Any]], primary: str | None, name: str
) -> None:
    main = _main(found, primary)

    assert main is not None
    assert main["interface"] == name


def test_without_interfaces_none_is_shown() -> None:
    assert _main([], "eth0") is None
