"""What the dashboard takes from others is as they released it, with its licence beside it."""

from hashlib import sha256

import pytest

from service.web.pages import STATIC

# Of the package uplot 1.6.32 on npm, whose integrity is
# sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==.
RELEASED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


@pytest.mark.parametrize(("name", "digest"), RELEASED.items())
def test_a_vendored_file_is_as_it_was_released(name: str, digest: str) -> None:
    assert sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest


def test_nothing_else_is_vendored() -> None:
    assert {path.name for path in (STATIC / "vendor").iterdir()} == set(RELEASED)
