"""10,000 fuzzed texts of /proc/net/dev and /proc/mounts: no exception, a heartbeat each that the service takes."""

from pathlib import Path

from tests.helpers.kernel_files import fuzzed_heartbeats

TEXTS = 10_000
SEED = 20260129


def test_ten_thousand_fuzzed_files_give_a_valid_heartbeat_each(tmp_path: Path) -> None:
    counts = fuzzed_heartbeats(tmp_path, TEXTS, SEED)

    print(f"{TEXTS} texts each of /proc/net/dev and /proc/mounts, seed {SEED}: {dict(counts)}")
    assert counts["heartbeats"] == TEXTS
    assert min(counts.values()) > TEXTS // 20
