"""What part of each package's statements ran: the end of `make coverage`.

python -m tests.helpers.coverage_report REPORT: what `coverage json` wrote; a package is a folder of Python files.
"""

import json
import sys
from collections import Counter
from pathlib import Path


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    statements: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for name, file in report["files"].items():
        package = str(Path(name).parent)
        statements[package] += file["summary"]["num_statements"]
        missing[package] += file["summary"]["missing_lines"]
    for package, number in sorted(statements.items()):
        sys.stdout.write(_line(package, number, missing[package]))
    sys.stdout.write(_line("all", statements.total(), missing.total()))


def _line(name: str, statements: int, missing: int) -> str:
    share = 100 * (statements - missing) / statements if statements else 100.0
    return f"{name:24} {statements:6} statements {share:6.1f} %\n"


if __name__ == "__main__":
    main()
