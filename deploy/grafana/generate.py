"""Writes the two Grafana dashboards: python -m deploy.grafana.generate. A test holds the JSON files to it.

A dashboard is rows of panels, a panel one query; sizes, ids and what all panels share are put in here. A panel's id is
its place, so new panels go to a row's end where links to others must last.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.grafana import fleet, server
from deploy.grafana.panels import COLUMNS, DATASOURCE, Panel

DASHBOARDS = Path(__file__).parent / "dashboards"

# Of the panels' buckets, the finest that is kept so long and gives no more than a thousand points; the retention of the
# settings as delivered (docs/settings.md), less a day.
LEVEL = """
SELECT CASE
    WHEN span <= INTERVAL '12 hours' AND since > now() - INTERVAL '34 days' THEN '1m'
    WHEN span <= INTERVAL '3 days' AND since > now() - INTERVAL '399 days' THEN '15m'
    WHEN span <= INTERVAL '35 days' THEN '1h'
    ELSE '1d' END
FROM (
    SELECT $__timeFrom()::timestamptz AS since, $__timeTo()::timestamptz - $__timeFrom()::timestamptz AS span
) AS range
"""


def dashboards() -> dict[str, dict[str, Any]]:
    """File name and content of each."""
    return {
        "fleet.json": _dashboard(
            "linkbeat-fleet", "Linkbeat: fleet", fleet.ROWS, variables=fleet.VARIABLES, annotations=fleet.ANNOTATIONS
        ),
        "server.json": _dashboard(
            "linkbeat-server",
            "Linkbeat: server",
            server.ROWS,
            variables=server.VARIABLES,
            annotations=server.ANNOTATIONS,
        ),
    }


def text(dashboard: dict[str, Any]) -> str:
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def _dashboard(
    uid: str,
    title: str,
    rows: Sequence[Sequence[Panel]],
    *,
    variables: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "description": "Made by python -m deploy.grafana.generate; what is changed here is lost at the next upgrade.",
        "tags": ["linkbeat"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-24h", "to": "now"},
        "timepicker": {"refresh_intervals": ["30s", "1m", "5m", "15m", "1h"]},
        "refresh": "1m",
        "timezone": "browser",
        "links": [
            {"type": "dashboards", "title": "Linkbeat", "tags": ["linkbeat"], "asDropdown": False, "keepTime": True}
        ],
        "annotations": {"list": annotations},
        "templating": {"list": [_level(), *variables]},
        "panels": list(_placed(rows)),
    }


def _level() -> dict[str, Any]:
    return {
        "name": "level",
        "label": "Buckets",
        "type": "query",
        "datasource": DATASOURCE,
        "query": LEVEL.strip(),
        "refresh": 2,  # whenever the range changes
        "hide": 2,
        "sort": 0,
    }


def _placed(rows: Sequence[Sequence[Panel]]) -> list[dict[str, Any]]:
    ids = itertools.count(1)
    placed, top = [], 0
    for row in rows:
        left = 0
        for panel in row:
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            placed.append({"id": next(ids), **panel.content, "gridPos": place})
            left += panel.width
        assert left <= COLUMNS, f"{row[0].content['title']}: wider than the page"
        top += max(panel.height for panel in row)
    return placed


def main() -> None:
    for name, dashboard in dashboards().items():
        (DASHBOARDS / name).write_text(text(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
