"""The hottest sensor, of /sys as machines have it."""

from pathlib import Path

import pytest

from agent.roots import Roots
from agent.sensors import read_temperature


def machine(sys: Path, files: dict[str, str]) -> Roots:
    for name, text in files.items():
        path = sys / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Roots(sys=str(sys))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"thermal/thermal_zone0/temp": "48312\n"}, 48.3),
        ({"thermal/thermal_zone0/temp": "48312\n", "hwmon/hwmon3/temp11_input": "61000\n"}, 61.0),
        ({"hwmon/hwmon0/temp1_input": "61000\n", "thermal/thermal_zone9/temp": "70500"}, 70.5),
        ({"hwmon/hwmon0/temp1_input": "-12750\n"}, -12.8),
        # What is not wired, or not read: the next hottest.
        ({"hwmon/hwmon0/temp1_input": "127000000\n", "hwmon/hwmon0/temp2_input": "30000"}, 30.0),
        ({"hwmon/hwmon0/temp1_input": "150000\n", "hwmon/hwmon0/temp2_input": "149900"}, 149.9),
        ({"hwmon/hwmon0/temp1_input": "-50000\n"}, None),
        ({"hwmon/hwmon0/temp1_input": "-49900\n"}, -49.9),
        ({"hwmon/hwmon0/temp1_input": "-128000\n", "thermal/thermal_zone0/temp": "-274000\n"}, None),
        ({"hwmon/hwmon0/temp1_input": "N/A\n", "hwmon/hwmon0/temp2_input": ""}, None),
        ({"hwmon/hwmon0/temp3_input": "4 5"}, None),
        ({"hwmon/hwmon0/temp1_input": "٤٨٠٠٠"}, None),
        ({"hwmon/hwmon0/temp1_input": "1e5"}, None),
        # A driver that calls its sensor faulty, and one that does not.
        ({"hwmon/hwmon0/temp1_input": "99000", "hwmon/hwmon0/temp1_fault": "1\n"}, None),
        ({"hwmon/hwmon0/temp1_input": "99000", "hwmon/hwmon0/temp1_fault": "0\n"}, 99.0),
        # A disk, which is not woken nor kept awake.
        ({"hwmon/hwmon0/name": "drivetemp\n", "hwmon/hwmon0/temp1_input": "52000"}, None),
        ({"hwmon/hwmon0/name": "coretemp\n", "hwmon/hwmon0/temp1_input": "51000"}, 51.0),
        # Limits and other quantities of the same chip.
        ({"hwmon/hwmon0/temp1_crit": "105000", "hwmon/hwmon0/fan1_input": "90000"}, None),
    ],
)  # fmt: skip
def test_it_is_the_hottest_plausible_one(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert read_temperature(machine(tmp_path, files)) == expected


def test_a_sensor_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    roots = machine(tmp_path, {"thermal/thermal_zone0/temp": "40000"})
    (tmp_path / "class/hwmon/hwmon0/temp1_input").mkdir(parents=True)  # reading it fails
    (tmp_path / "class/hwmon/hwmon1").mkdir()
    (tmp_path / "class/hwmon/hwmon1/temp1_input").symlink_to("/nonexistent")

    assert read_temperature(roots) == 40.0


def test_devices_are_links_as_in_sysfs(tmp_path: Path) -> None:
    (tmp_path / "devices/chip/hwmon/hwmon2").mkdir(parents=True)
    (tmp_path / "devices/chip/hwmon/hwmon2/temp1_input").write_text("55500\n")
    (tmp_path / "class/hwmon").mkdir(parents=True)
    (tmp_path / "class/hwmon/hwmon2").symlink_to(tmp_path / "devices/chip/hwmon/hwmon2")

    assert read_temperature(Roots(sys=str(tmp_path))) == 55.5
