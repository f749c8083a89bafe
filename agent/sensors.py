"""The hottest temperature sensor of the machine (Documentation/hwmon/sysfs-interface, driver-api/thermal/sysfs-api)."""

import re
from collections.abc import Iterator
from pathlib import Path

from .roots import Roots, read_text

# What no machine runs at: a sensor that is not wired reads -128, 0x7f or worse.
LOWEST_CELSIUS = -50
HIGHEST_CELSIUS = 150
_LIMIT_BYTES = 32
_MILLIDEGREES = re.compile(r"-?[0-9]{1,7}\s*\Z", re.ASCII)


def read_temperature(roots: Roots) -> float | None:
    """Degrees Celsius of the hottest sensor, to a tenth; None where none has a plausible value; never an OSError."""
    return max(_plausible(roots), default=None)


def _plausible(roots: Roots) -> Iterator[float]:
    for path in _sensors(Path(roots.sys, "class")):
        text = _text(path)
        if _MILLIDEGREES.match(text) and LOWEST_CELSIUS < (celsius := int(text) / 1000) < HIGHEST_CELSIUS:
            yield round(celsius, 1)


def _sensors(classes: Path) -> Iterator[Path]:
    """Files of millidegrees, but not of a sensor that its driver calls faulty, nor of a disk."""
    try:
        for chip in classes.glob("hwmon/hwmon*"):
            # Reading restarts the spin-down timer of some disks (Documentation/hwmon/drivetemp): they would never rest.
            if _text(chip / "name").strip() == "drivetemp":
                continue
            for path in chip.glob("temp*_input"):
                if _text(path.with_name(path.name.replace("_input", "_fault"))).strip() != "1":
                    yield path
        yield from classes.glob("thermal/thermal_zone*/temp")
    except OSError:
        return  # a device that went while it was listed


def _text(path: Path) -> str:
    try:
        return read_text(path, limit_bytes=_LIMIT_BYTES)
    except OSError:
        return ""  # no such file, or a sensor that sleeps
