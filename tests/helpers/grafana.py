"""What Grafana makes of a query before the database sees it, written again from its documentation and for these tests.

Its browser part puts the variables in (`${name:sqlstring}`, `$name`), its server part the interval, and its PostgreSQL
data source, with TimescaleDB switched on, the macros (pkg/tsdb/grafana-postgresql-datasource/macros.go).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Where an interval is rounded to, in seconds: up to the first, the second (packages/grafana-data, rangeutil).
_ROUNDED = (
    (15, 10), (25, 20), (45, 30), (90, 60), (210, 120), (450, 300), (750, 600), (1050, 900), (1500, 1200), (2700, 1800),
    (5400, 3600), (9000, 7200), (16200, 10800), (32400, 21600), (86400, 43200), (604800, 86400), (inf, 604800),
)  # fmt: skip
_MACRO = re.compile(r"\$(__[a-zA-Z]+)\(([^)]*)\)")
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")


@dataclass(frozen=True)
class Asked:
    """A range of time, the choices of the variables, and the width of a panel's points."""

    since: datetime
    until: datetime
    variables: Mapping[str, str | list[str]]

    def interval_seconds(self, least: str, points: int) -> int:
        """$__interval of a panel with this minimum interval and so many points."""
        raw = (self.until - self.since).total_seconds() / points
        rounded = next(to for below, to in _ROUNDED if raw < below)
        return max(rounded, _seconds(least))


def expanded(sql: str, asked: Asked, interval_seconds: int = 60) -> str:
    """The SQL that is sent. Raises ValueError for what Grafana would not know, or leave as it is."""
    sql = sql.replace("$__interval_ms", str(interval_seconds * 1000))
    sql = sql.replace("$__interval", _written(interval_seconds))
    sql = _VARIABLE.sub(lambda found: _chosen(found, asked.variables), sql)
    sql = _MACRO.sub(lambda found: _macro(found[1], [each.strip() for each in found[2].split(",")], asked), sql)
    if "$" in sql:
        raise ValueError(f"what is left: {sql[sql.index('$') :][:40]}")
    return sql


def _chosen(found: "re.Match[str]", variables: Mapping[str, str | list[str]]) -> str:
    name = found[1] or found[3]
    if name.startswith("__"):
        return found[0]
    value = variables[name]
    if found[2] == "sqlstring":
        return ",".join("'" + one.replace("'", "''") + "'" for one in ([value] if isinstance(value, str) else value))
    if found[2] or not isinstance(value, str):
        raise ValueError(f"{found[0]}: only sqlstring makes several values, or any that people name, safe")
    return value


def _macro(name: str, arguments: list[str], asked: Asked) -> str:
    since, until = (
        f"'{time.astimezone(UTC).isoformat().replace('+00:00', 'Z')}'" for time in (asked.since, asked.until)
    )
    if name == "__timeFrom":
        return since
    if name == "__timeTo":
        return until
    if name == "__timeFilter":
        return f"{arguments[0]} BETWEEN {since} AND {until}"
    if name == "__timeGroupAlias":
        if arguments[2:] not in ([], ["NULL"]):
            raise ValueError(f"{arguments[2]}: a gap is never a value")
        return f"time_bucket('{_seconds(arguments[1]):.3f}s',{arguments[0]}) AS \"time\""
    raise ValueError(f"${name}: not known here")


def _seconds(interval: str) -> int:
    return int(interval[:-1]) * _UNITS[interval[-1]]


def _written(seconds: int) -> str:
    unit = next(unit for unit in reversed(_UNITS) if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def ranges(now: datetime) -> dict[str, tuple[datetime, datetime]]:
    """The ranges that people choose, each ending now."""
    spans = {"1h": 1 / 24, "6h": 0.25, "24h": 1, "3d": 3, "7d": 7, "30d": 30, "90d": 90, "1y": 365, "5y": 5 * 365}
    return {name: (now - timedelta(days=days), now) for name, days in spans.items()}
