"""Where the peers' programs are, and what to do where one is missing."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Program:
    """A peer's program: on PATH, or where the environment variable says."""

    peer: str
    command: str
    variable: str
    package: str

    def find(self) -> Path | None:
        named = os.environ.get(self.variable)
        found = shutil.which(named or self.command)
        return Path(found) if found else None

    def missing(self) -> str:
        """One line: what is left out, and the remedy."""
        where = f"{self.variable} names no program" if self.variable in os.environ else f"no {self.command} on PATH"
        return (
            f"{self.peer} is left out: {where}; apt install {self.package}, or set {self.variable} to the path "
            f"of {self.command}"
        )


INFLUXDB = Program("InfluxDB", "influxd", "BENCH_INFLUXD", "influxdb")
VICTORIA_METRICS = Program("VictoriaMetrics", "victoria-metrics", "BENCH_VICTORIA_METRICS", "victoria-metrics")
PROMETHEUS = Program("Prometheus", "prometheus", "BENCH_PROMETHEUS", "prometheus")
PROMTOOL = Program("Prometheus", "promtool", "BENCH_PROMTOOL", "prometheus")


@dataclass(frozen=True)
class Programs:
    """What there is to compare with; None for what is missing."""

    influxd: Path | None
    victoria_metrics: Path | None
    prometheus: tuple[Path, Path] | None

    @classmethod
    def found(cls) -> "Programs":
        """Prints a line for each that is here, and one with the remedy for each that is not."""
        paths = {}
        for program in (INFLUXDB, VICTORIA_METRICS, PROMETHEUS, PROMTOOL):
            path = paths[program] = program.find()
            print(f"{program.command} {_version(path)}" if path else program.missing())
        prometheus, promtool = paths[PROMETHEUS], paths[PROMTOOL]
        return cls(
            paths[INFLUXDB], paths[VICTORIA_METRICS], (prometheus, promtool) if prometheus and promtool else None
        )


def _version(path: Path) -> str:
    """As the program says it; influxd knows no --version."""
    argument = "version" if path.name == "influxd" else "--version"
    said = subprocess.run([path, argument], capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r"\d+\.\d+\.\d+\S*", said.stdout + said.stderr)
    return found[0].rstrip(",)") if found else f"at {path}, which does not say its version"
