"""Panels, and what they share: the data source, colours, units, and how a gap looks."""

from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "grafana-postgresql-datasource", "uid": "linkbeat"}
COLUMNS = 24  # of Grafana's grid
POINTS = 1000  # so that $__interval is the level's own width, whatever the panel's is in pixels

# The dashboard's colours (service/web), in their dark form: Grafana's own colours do not follow its theme either.
RX, TX = "#22d3ee", "#fbbf24"
OK, BAD, WARN = "#4ade80", "#f87171", "#fbbf24"
RATE, BYTES, PERCENT, SECONDS, CELSIUS = "bps", "decbytes", "percent", "s", "celsius"

# Of a bucket that has not ended yet, the rate is not known.
WHOLE = "$__timeFilter(bucket) AND bucket <= now() - INTERVAL '$level'"


@dataclass(frozen=True)
class Panel:
    width: int
    height: int
    content: dict[str, Any]


def query(sql: str, form: str) -> dict[str, Any]:
    return {
        "refId": "A",
        "datasource": DATASOURCE,
        "format": form,
        "rawQuery": True,
        "editorMode": "code",
        "rawSql": sql.strip(),
    }


def color(fixed: str) -> dict[str, Any]:
    return {"id": "color", "value": {"mode": "fixed", "fixedColor": fixed}}


def unit(name: str) -> dict[str, Any]:
    return {"id": "unit", "value": name}


def override(name: str, *properties: dict[str, Any]) -> dict[str, Any]:
    """Of the column, or of the series, with this name."""
    return {"matcher": {"id": "byName", "options": name}, "properties": list(properties)}


RECEIVED = override("received", color(RX))
SENT = override("sent", color(TX))
SENT_BELOW = override("sent", color(TX), {"id": "custom.transform", "value": "negative-Y"})


def lines(
    title: str,
    sql: str,
    *,
    measure: str,
    width: int = COLUMNS,
    height: int = 8,
    overrides: tuple[dict[str, Any], ...] = (),
    repeat: str = "",
    description: str = "",
    **defaults: Any,
) -> Panel:
    """Values over time, one line each. A bucket without data is a gap in the line, and not 0."""
    content = {
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": [query(sql, "time_series")],
        "interval": "$level",
        "maxDataPoints": POINTS,
        "fieldConfig": {
            "defaults": {
                "unit": measure,
                "custom": {
                    "drawStyle": "line",
                    "lineWidth": 1,
                    "fillOpacity": 12,
                    "showPoints": "auto",
                    "pointSize": 3,
                    "spanNulls": False,
                },
                **defaults,
            },
            "overrides": list(overrides),
        },
        "options": {
            "legend": {
                "showLegend": True,
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["mean", "max", "lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
    if repeat:
        content |= {"repeat": repeat, "repeatDirection": "h", "maxPerRow": 3}
    return Panel(width, height, content)


def rate(direction: str) -> str:
    """SQL for the rate of one interface, `rx` or `tx`: never above the highest between two samples.

    Where heartbeats are rarer than buckets, or behind a gap, a bucket holds what moved in a longer time than its own.
    """
    return f"least(sum({direction}_bytes) * 8000.0 / $__interval_ms, max({direction}_bps_max))"


def traffic(title: str, condition: str, *, width: int = COLUMNS, repeat: str = "") -> Panel:
    """Received and sent by what fulfils the condition, each in its colour."""
    return lines(
        title,
        f"""
SELECT time, sum(rx_bps) AS received, sum(tx_bps) AS sent
FROM (
    SELECT $__timeGroupAlias(bucket, $__interval, NULL),
           {rate("rx")} AS rx_bps,
           {rate("tx")} AS tx_bps
    FROM network_traffic_$level
    WHERE {WHOLE} AND {condition}
    GROUP BY 1, server_id, interface_name
) series
GROUP BY 1
ORDER BY 1
""",
        measure=RATE,
        width=width,
        overrides=(RECEIVED, SENT_BELOW),
        repeat=repeat,
        description="Received above the axis, sent below.",
    )


def rates_now(condition: str, *, width: int) -> Panel:
    return stats(
        "Now, each byte once",
        f"""
SELECT sum(rx_bps) AS received, sum(tx_bps) AS sent
FROM interface_overview
WHERE {condition} AND is_current AND is_lowest
""",
        width=width,
        overrides=(override("received", color(RX), unit(RATE)), override("sent", color(TX), unit(RATE))),
    )


def table(
    title: str,
    sql: str,
    *,
    width: int = COLUMNS,
    height: int = 8,
    overrides: tuple[dict[str, Any], ...] = (),
    description: str = "",
) -> Panel:
    content = {
        "type": "table",
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": [query(sql, "table")],
        "fieldConfig": {"defaults": {"custom": {"align": "auto", "filterable": True}}, "overrides": list(overrides)},
        "options": {"showHeader": True, "cellHeight": "sm"},
    }
    return Panel(width, height, content)


def stats(title: str, sql: str, *, width: int, height: int = 4, overrides: tuple[dict[str, Any], ...] = ()) -> Panel:
    """The columns of one row, a figure each."""
    content = {
        "type": "stat",
        "title": title,
        "datasource": DATASOURCE,
        "targets": [query(sql, "table")],
        "fieldConfig": {"defaults": {"noValue": "-"}, "overrides": list(overrides)},
        "options": {
            "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": "/.*/"},
            "graphMode": "none",
            "colorMode": "value",
            "textMode": "value_and_name",
            "justifyMode": "center",
        },
    }
    return Panel(width, height, content)


def months(title: str, sql: str, *, width: int, height: int, overrides: tuple[dict[str, Any], ...]) -> Panel:
    """A stack of bars for each row, whose first column names it."""
    content = {
        "type": "barchart",
        "title": title,
        "datasource": DATASOURCE,
        "targets": [query(sql, "table")],
        "fieldConfig": {
            "defaults": {"unit": BYTES, "custom": {"fillOpacity": 80, "lineWidth": 0}},
            "overrides": list(overrides),
        },
        "options": {
            "xField": "month",
            "stacking": "normal",
            "showValue": "never",
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi"},
        },
    }
    return Panel(width, height, content)


def variable(name: str, label: str, sql: str, *, several: bool) -> dict[str, Any]:
    """A choice from what the query finds; `several`: more than one, and all of them to begin with."""
    choice = {"multi": True, "includeAll": True, "current": {"text": ["All"], "value": ["$__all"]}} if several else {}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": sql.strip(),
        "refresh": 2,
        "sort": 0,
        **choice,
    }


def annotation(name: str, fixed: str, sql: str) -> dict[str, Any]:
    """What is marked in every line panel: columns time, timeend for a span, and text."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": fixed,
        "target": query(sql, "table"),
    }


def status_of(column: str, good: str, bad: str, *, between: str = "") -> dict[str, Any]:
    """The words of a state, coloured."""
    words = {good: {"color": OK, "index": 0}, bad: {"color": BAD, "index": 1}}
    if between:
        words[between] = {"color": WARN, "index": 2}
    cell = {"id": "custom.cellOptions", "value": {"type": "color-text"}}
    return override(column, {"id": "mappings", "value": [{"type": "value", "options": words}]}, cell)


def bar_of(column: str) -> dict[str, Any]:
    """Percent as a bar in its cell, amber from 80 and red from 95 on."""
    steps = [{"color": OK, "value": None}, {"color": WARN, "value": 80}, {"color": BAD, "value": 95}]
    return override(
        column,
        unit(PERCENT),
        {"id": "min", "value": 0},
        {"id": "max", "value": 100},
        {"id": "color", "value": {"mode": "thresholds"}},
        {"id": "thresholds", "value": {"mode": "absolute", "steps": steps}},
        {"id": "custom.cellOptions", "value": {"type": "gauge", "mode": "basic"}},
    )


def link_to_server(column: str) -> dict[str, Any]:
    url = "/d/linkbeat-server?var-server=${__value.raw}&${__url_time_range}"
    return override(column, {"id": "links", "value": [{"title": "Show this server", "url": url}]})
