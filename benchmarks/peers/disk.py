"""What a system keeps on the disk, and when it has come to rest."""

import time
from collections.abc import Callable
from pathlib import Path


def used_bytes(*directories: Path) -> int:
    """Blocks of all files below; InfluxDB's series files are mostly holes, which are no blocks."""
    return 512 * sum(
        path.stat().st_blocks for directory in directories for path in directory.rglob("*") if path.is_file()
    )


def wait_until_quiet(measure: Callable[[], int], seconds: float) -> None:
    """Returns when `measure` has not changed for so long: nothing is merged, compacted or flushed any more."""
    since, before = time.monotonic(), -1
    while time.monotonic() < since + seconds:
        time.sleep(1)
        if (now := measure()) != before:
            since, before = time.monotonic(), now
