"""Whatever the kernel's files hold, a heartbeat comes of it that the service takes; 10,000 times in tests/drills."""

from pathlib import Path

from tests.helpers.kernel_files import fuzzed_heartbeats


def test_fuzzed_files_give_a_valid_heartbeat_each(tmp_path: Path) -> None:
    counts = fuzzed_heartbeats(tmp_path, 300, seed=1)

    assert counts["heartbeats"] == 300
    assert min(counts.values()) > 15
