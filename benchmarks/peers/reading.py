"""Sparklines asked for by wrk, in random order."""

from collections.abc import Sequence

from benchmarks.harness import Result, temporary_directory, wrk
from benchmarks.peers.systems import Answers


def read(instance: Answers, paths: Sequence[str], connections: int, seconds: int) -> Result:
    """One load of GETs of these paths."""
    with temporary_directory() as directory:
        listed = directory / "paths"
        listed.write_text("".join(f"{path}\n" for path in paths))
        environment = {"BENCH_PATHS": str(listed)}
        if instance.key:
            environment["BENCH_KEY"] = instance.key
        return wrk("paths.lua", instance.base, connections, seconds, **environment)
